"""A world: a cache, a price list, and the rules of what may be done and seen, as the arrays that the loop plays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.costs import EVALUATE, PriceList, Profile
from offramp.bandits.loop import World as Arrays
from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.cache import CacheError, ConfidenceCache
from offramp.environments.confidences import demand_confidences
from offramp.environments.regret import gaps
from offramp.environments.routing import experts_of, routings

CLOUD_RETURNS = ("final", "all")
FALLBACK = ("none", "most_confident")


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Where policies are compared.

    Parameters
    ----------
    cache
        The confidences; usually the part "test" of a cache, which needs a profile.
    prices
        What compute and communication cost.
    arms
        The table of arms that engines play and that regret is measured against.
    evaluate
        "own": only heads that may answer are evaluated, and the cut's own; "prefix": all heads up to the cut.
    cloud_returns
        "final": the cloud answers with the last exit's confidence; "all": with those of all deeper exits.
    raw_input_allowed
        May the input itself be sent?  Must agree with the table of arms.
    routing
        Whose exits answer: "predicted" = the expert that the router holds likeliest, "oracle" = the one trained for
        the condition's family (the first where there is none), or the name of one expert for everything.  With
        "predicted" and "oracle" a policy's context is the index of the expert and the router's probability of each.
    fallback
        "none", or "most_confident": where even the last exit stays below the threshold at the cut, the answer is
        that of the most confident exit among those of the edge and the last, as in arXiv 2108.09343.

    """

    cache: ConfidenceCache
    prices: PriceList
    arms: Arms
    evaluate: str = "prefix"
    cloud_returns: str = "final"
    raw_input_allowed: bool = False
    routing: str | None = None
    fallback: str = "none"

    def __post_init__(self) -> None:
        if self.evaluate not in EVALUATE:
            raise ValueError(f"evaluate is {self.evaluate!r}, allowed are {EVALUATE}")
        if self.cloud_returns not in CLOUD_RETURNS:
            raise ValueError(f"cloud_returns is {self.cloud_returns!r}, allowed are {CLOUD_RETURNS}")
        if self.cache.profile is None:
            raise CacheError("profile is missing in this cache: without it no price can be quoted")
        if len(self.cache.exits) != self.arms.exits:
            raise ValueError(f"the table of arms has {self.arms.exits} exits, allowed is {len(self.cache.exits)}")
        if any(arm.cut == 0 for arm in self.arms.table) and not self.raw_input_allowed:
            raise ValueError("the table of arms sends the input, but raw_input_allowed is False")
        if self.fallback not in FALLBACK:
            raise ValueError(f"fallback is {self.fallback!r}, allowed are {FALLBACK}")
        if self.fallback == "most_confident":
            demand_confidences(self.cache, f"fallback {self.fallback!r}")
        allowed = routings(self.cache)
        if self.routing is not None and self.routing not in allowed:
            raise ValueError(f"routing is {self.routing!r}, allowed with this cache are {allowed}")

    @property
    def profile(self) -> Profile:
        """What this world asks of device and link: the cache's profile, without the router where nothing is routed."""
        assert self.cache.profile is not None
        return self.cache.profile if self.routing == "predicted" else replace(self.cache.profile, router_macs=0)

    def quotes(self, links: Sequence[float]) -> FloatArray:
        """One decision row with its quote for each state of the link, (P, W)."""
        made = [
            self.prices.quote(self.profile, link=x, evaluate=self.evaluate, raw_input_allowed=self.raw_input_allowed)
            for x in links
        ]
        return np.stack([quote.row for quote in made])

    def arrays(self, conditions: Sequence[str], links: Sequence[float], *, oracle: bool = False) -> Arrays:
        """The arrays of a stream that goes through these conditions and links.

        Parameters
        ----------
        conditions, links
            As the stream names them.
        oracle
            Reveal everything: only for replicas of published code that ask for it.

        """
        profile = self.profile
        at = np.array([self.cache.condition(name) for name in conditions])
        expert = experts_of(self.cache, self.routing)[at]
        samples = np.arange(len(self.cache.label))
        confidence = self.cache.confidence[at[:, None], expert, samples]
        quotes = self.quotes(links)
        rules = (self.evaluate == "prefix", self.cloud_returns == "all", oracle, self.fallback == "most_confident")
        options = np.array(rules, dtype=np.int64)
        return Arrays(
            confidence=confidence,
            prediction=self.cache.prediction[at[:, None], expert, samples],
            label=self.cache.label,
            context=self._context(at, expert),
            quotes=quotes,
            gap=gaps(confidence, quotes, self.arms, options),
            work=np.stack([profile.edge_macs(self.evaluate), np.array(profile.payload_bytes, dtype=np.float64)]),
            options=options,
        )

    def _context(self, conditions: IntArray, expert: IntArray) -> FloatArray:
        if self.routing not in ("predicted", "oracle") or self.cache.router is None:
            return np.zeros((*expert.shape, 0))
        return np.concatenate([expert[..., None], self.cache.router[conditions]], axis=2, dtype=np.float64)
