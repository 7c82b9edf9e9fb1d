"""A world in time: a device, a cloud, a link that changes, payloads, a queue and a deadline, as the loop plays them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.cache import SPLITS, ConfidenceCache
from offramp.environments.link_estimate import EWMA, Estimate
from offramp.environments.links import Link
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical
from offramp.environments.stream import Stream, blocks
from offramp.environments.timed.arrivals import Arrivals, Paced
from offramp.environments.timed.tables import ENCODE_MS, Facts, Rounds
from offramp.environments.world import World

LOSSLESS = ("raw", "png", "float32")  # codecs that change no answer
IMAGE, FEATURES = "raw", "float32"  # as they are, where a world has no table of payloads
_Variants = tuple[FloatArray, npt.NDArray[Any], FloatArray, IntArray, FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedWorld:
    """Where a policy's decisions take time.

    Parameters
    ----------
    world
        Cache, table of arms and rules; its prices are `Physical`, and what its cloud returns is "final".
    link
        The link between edge and cloud over time.
    estimate
        How the edge tells the link's rate from its own transfers: it prices the quote; the bill uses what happened.
    arrivals
        When requests arrive.  One is computed on after the other, and one is sent after the other.
    payloads
        What each (split, codec) pair sends and what it does to the last exit; None = feature maps as they are, in the
        bytes of the cache's profile.  For each request the quote names the codec that each split would send with: the
        one that costs least, the confidence that it loses on validation samples included.  Where the cache is
        calibrated, so is the table (`PayloadTable.calibrated`).
    codecs
        Use these alone; None = all of the table.
    probe_ms
        Where nothing was sent for so long, the radio reports the link's state at that moment to the estimate, > 0; inf
        = never, and an estimate that keeps a policy from sending keeps itself.
    buffer
        Requests that may wait at the edge, >= 0; one that finds no room is dropped.  None = any number.
    coding
        How many times slower than the machine that measured the payloads the edge codes, >= 0.
    lost
        Share of feedback that never arrives, in [0, 1].

    Notes
    -----
    When the link is down nothing is sent: its price is +inf, and a decision that would send all the same is answered by
    the surest exit that was evaluated (`outage` in the journal), without feedback.  A link that breaks while the edge
    computes and codes is found down after that, and an audit too has computed up to its cut by then.  A transfer that a
    break in the link interrupts goes on after it.  The answer's few bytes are part of the round trip.

    """

    world: World
    link: Link
    estimate: Estimate = field(default_factory=EWMA)
    arrivals: Arrivals = field(default_factory=Paced)
    payloads: PayloadTable | None = None
    codecs: Sequence[str] | None = None
    probe_ms: float = 1_000.0
    buffer: int | None = None
    coding: float = 1.0
    lost: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.world.prices, Physical):
            raise ValueError(f"prices of the world are {self.world.prices!r}, allowed is Physical: time needs devices")
        for name, kind in (("link", Link), ("estimate", Estimate), ("arrivals", Arrivals)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}, allowed is a {kind.__name__}")
        if self.payloads is not None and not isinstance(self.payloads, PayloadTable):
            raise ValueError(f"payloads are {self.payloads!r}, allowed is a PayloadTable, or None")
        if self.world.cloud_returns != "final" or self.world.fallback != "none":
            raise ValueError(
                f"cloud_returns is {self.world.cloud_returns!r} and fallback {self.world.fallback!r}, allowed in time "
                f"are 'final' and 'none'"
            )
        if self.buffer is not None and (not isinstance(self.buffer, int) or self.buffer < 0):
            raise ValueError(f"buffer is {self.buffer!r}, allowed is a whole number of requests >= 0, or None")
        if not 0.0 <= self.lost <= 1.0:
            raise ValueError(f"lost is {self.lost}, allowed is a probability in [0, 1]")
        if not self.probe_ms > 0.0:
            raise ValueError(f"probe_ms is {self.probe_ms}, allowed are milliseconds > 0, or inf")
        if not 0.0 <= self.coding < np.inf:
            raise ValueError(f"coding is {self.coding}, allowed is a finite factor >= 0")
        if self.codecs is not None and self.payloads is None:
            raise ValueError(f"codecs are {list(self.codecs)} without payloads, allowed is None: there is none to name")
        if self.payloads is not None and len(self.world.cache.experts) > 1:
            raise ValueError(f"experts are {self.world.cache.experts}, allowed with payloads is a cache of one")
        self.prices.edge.check(self.world.cache)
        self.prices.cloud.check(self.world.cache)

    @property
    def prices(self) -> Physical:
        """The price list."""
        assert isinstance(self.world.prices, Physical)
        return self.world.prices

    @property
    def variants(self) -> tuple[tuple[int, str], ...]:
        """(split, codec) of each variant, in the order of the facts.

        Examples
        --------
        >>> from offramp.bandits import Arms
        >>> from offramp.environments import Constant, ConfidenceCache, DeviceProfile, Physical, TimedWorld, World
        >>> cache = ConfidenceCache.embedded("mobilenet_v2_imagenette")
        >>> core = DeviceProfile.embedded("mobilenet_v2_imagenette")
        >>> world = World(cache=cache, prices=Physical(edge=core, cloud=core), arms=Arms.grid(exits=7))
        >>> TimedWorld(world=world, link=Constant(mbit_s=5.0)).variants[:2]
        ((1, 'float32'), (2, 'float32'))

        """
        if self.payloads is None:
            splits = range(0 if self.world.raw_input_allowed else 1, self.world.profile.exits)
            return tuple((split, FEATURES if split else IMAGE) for split in splits)
        table = self.payloads
        return tuple((int(table.splits[v]), table.codecs[v]) for v in self._chosen(table))

    def facts(self, conditions: Sequence[str], *, oracle: bool = False) -> Facts:
        """The arrays of a stream that goes through these conditions."""
        plain = self.world.arrays(conditions, (1.0,), oracle=oracle)
        edge = self.prices.edge_side(self.world.profile, self.world.evaluate)
        sent, guess, size, first, expected = self._variants(conditions, plain.confidence, plain.prediction)
        return Facts(
            confidence=plain.confidence,
            prediction=plain.prediction,
            label=plain.label,
            context=plain.context,
            sent_confidence=sent,
            sent_prediction=guess,
            sent_bytes=size,
            first=first,
            expected=np.vstack([expected, (self.prices.edge.power_w or 0.0) * expected[ENCODE_MS]]),
            edge=edge,
            cloud=self.prices.cloud_side(self.world.profile),
            terms=self.prices.weights.terms(self.prices.energy or self.link.energy),
            options=plain.options,
            probe_ms=np.array([self.probe_ms]),
            blank=np.concatenate([plain.quotes[0], np.zeros(plain.context.shape[2])]),
        )

    def rounds(self, stream: Stream, *, horizon: int, seed: int) -> Rounds:
        """The requests of a run; the stream says which image comes under which condition, the link has its own time.

        Raises
        ------
        ValueError
            The stream changes the link as well, or the arrivals are no times in order.

        """
        if set(stream.links) != {1.0}:
            raise ValueError(f"links of the stream are {stream.links}, allowed in time is 1: the world has a link")
        made = list(blocks(stream, samples=len(self.world.cache.label), horizon=horizon, seed=seed))
        arrival = np.ascontiguousarray(self.arrivals.times(horizon, seed), dtype=np.float64)
        if arrival.shape != (horizon,) or not ((np.diff(arrival, prepend=0.0) >= 0.0) & (arrival < np.inf)).all():
            raise ValueError(f"arrivals are {arrival}, allowed are {horizon} finite times from 0 on, not decreasing")
        chance = np.random.default_rng(np.random.SeedSequence((seed, 4))).random(horizon)
        return Rounds(
            sample=np.concatenate([b.sample for b in made]),
            condition=np.concatenate([b.condition for b in made]),
            arrival=arrival,
            lost=(chance < self.lost).astype(np.int64),
        )

    def _chosen(self, table: PayloadTable) -> IntArray:
        """Which variants of a table may be sent, sorted by split."""
        odd = sorted(set(self.codecs or ()) - set(table.codecs))
        if odd:
            raise ValueError(f"codecs name {odd}, allowed in this table are {sorted(set(table.codecs))}")
        chosen = np.array(
            [
                v
                for v, (codec, split) in enumerate(zip(table.codecs, table.splits.tolist(), strict=True))
                if (self.world.raw_input_allowed or split > 0) and (self.codecs is None or codec in self.codecs)
            ],
            dtype=np.int64,
        )
        return chosen[np.argsort(table.splits[chosen], kind="stable")]

    def _variants(self, conditions: Sequence[str], confidence: FloatArray, prediction: npt.NDArray[Any]) -> _Variants:
        """Behind each variant the last exit's confidence and class, and bytes; where splits start; what to expect."""
        profile, n = self.world.profile, len(self.world.cache.label)
        if self.payloads is None:
            splits = np.array([split for split, _ in self.variants], dtype=np.int64)
            size = np.array(profile.payload_bytes, dtype=np.float64)[splits]
            expected = np.stack([size, *(np.zeros(len(splits)),) * 3])
            shape = (len(conditions), len(splits), n)
            sent = np.broadcast_to(confidence[:, None, :, -1], shape).copy()
            guess = np.broadcast_to(prediction[:, None, :, -1], shape).copy()
            return sent, guess, np.broadcast_to(size[:, None], shape).copy(), _first(splits, profile.exits), expected
        table, here = self.payloads, _places(self.payloads, self.world.cache)
        table.select(here).check(self.world.cache)
        chosen = self._chosen(table)
        at = np.array([table.conditions.index(name) for name in conditions])
        known = table.split_of_data == SPLITS.index("validation")
        if not known.any():
            raise ValueError("payloads hold no validation samples, allowed is a table with some: they weigh codecs")
        sent = table.confidence[at[:, None, None], chosen[:, None], here]
        sure = table.confidence[:, :, known].mean(axis=(0, 2))
        untouched = [v for v, codec in enumerate(table.codecs) if codec in LOSSLESS] or list(range(len(sure)))
        best = sure[untouched].max()
        expected = np.stack(
            [
                table.bytes[:, chosen][:, :, known].mean(axis=(0, 2)),
                self.coding * table.encode_ms[chosen],
                table.decode_ms[chosen],
                np.maximum(best - sure[chosen], 0.0),
            ]
        )
        guess = table.prediction[at[:, None, None], chosen[:, None], here]
        size = table.bytes[at[:, None, None], chosen[:, None], here].astype(np.float64)
        return sent, guess, size, _first(table.splits[chosen], profile.exits), expected


def _first(splits: IntArray, exits: int) -> IntArray:
    """Where the variants of each split start, in a list that is sorted by split."""
    return np.searchsorted(splits, np.arange(exits + 1)).astype(np.int64)


def _places(table: PayloadTable, cache: ConfidenceCache) -> IntArray:
    """Where the samples of a cache stand in a table of payloads."""
    place = {key: i for i, key in enumerate(zip(table.split_of_data.tolist(), table.sample.tolist(), strict=True))}
    keys = list(zip(cache.split.tolist(), cache.sample.tolist(), strict=True))
    missing = [key for key in keys if key not in place]
    if missing:
        raise ValueError(
            f"payloads lack {len(missing)} of the cache's {len(keys)} samples, the first is {missing[0][1]} of split "
            f"{SPLITS[missing[0][0]]!r}: they belong to another cache"
        )
    return np.array([place[key] for key in keys], dtype=np.int64)
