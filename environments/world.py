"""A world: a cache, a price list, and the rules of what may be done and seen, as the arrays that the loop plays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.costs import EVALUATE, PriceList
from offramp.bandits.loop import World as Arrays
from offramp.bandits.rows import FloatArray
from offramp.environments.cache import CacheError, ConfidenceCache
from offramp.environments.regret import gaps

CLOUD_RETURNS = ("final", "all")


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
    expert
        Which expert's exits answer.

    """

    cache: ConfidenceCache
    prices: PriceList
    arms: Arms
    evaluate: str = "prefix"
    cloud_returns: str = "final"
    raw_input_allowed: bool = False
    expert: str | None = None

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
        if self.expert is not None and self.expert not in self.cache.experts:
            raise ValueError(f"expert is {self.expert!r}, allowed are {self.cache.experts}")

    def quotes(self, links: Sequence[float]) -> FloatArray:
        """One decision row with its quote for each state of the link, (P, W)."""
        assert self.cache.profile is not None
        made = [
            self.prices.quote(
                self.cache.profile, link=x, evaluate=self.evaluate, raw_input_allowed=self.raw_input_allowed
            )
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
        profile = self.cache.profile
        assert profile is not None
        at = [self.cache.condition(name) for name in conditions]
        expert = 0 if self.expert is None else self.cache.experts.index(self.expert)
        confidence = np.ascontiguousarray(self.cache.confidence[at, expert])
        quotes = self.quotes(links)
        options = (self.evaluate == "prefix", self.cloud_returns == "all", oracle)
        return Arrays(
            confidence=confidence,
            prediction=np.ascontiguousarray(self.cache.prediction[at, expert]),
            label=self.cache.label,
            context=np.zeros((*confidence.shape[:2], 0)),
            quotes=quotes,
            gap=gaps(confidence, quotes, self.arms),
            work=np.stack([profile.edge_macs(self.evaluate), np.array(profile.payload_bytes, dtype=np.float64)]),
            options=np.array(options, dtype=np.int64),
        )
