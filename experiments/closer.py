"""What a trace is too coarse for: regret right after changes, and whether answers deserved their confidence."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import Trace, blocks
from offramp.environments.stream import Stream

OFFSETS = np.array([0, *(16 * 2**k for k in range(9))])  # rounds since a change between which regret is averaged
LOOKS = 512  # rounds of a run whose answers are looked at one by one
BINS = 10  # of confidence, of equal width on [0, 1]
CHANGES = 64  # the first ones of a run; more would make the record of a run long


def changes(stream: Stream, horizon: int, seed: int) -> IntArray:
    """Rounds at which condition or link is another than in the round before."""
    found, start, last = [], 0, None
    for block in blocks(stream, samples=min(horizon, 65_536), horizon=horizon, seed=seed):  # the samples do not matter
        now = np.stack([block.condition, block.price])
        joined = now if last is None else np.concatenate([last, now], axis=1)
        moved = np.flatnonzero((np.diff(joined, axis=1) != 0).any(axis=0))
        found.append(moved + start + (1 if last is None else 0))
        start, last = start + now.shape[1], now[:, -1:]
    return np.concatenate(found)


def windows(moved: IntArray, horizon: int) -> tuple[IntArray, int]:
    """Changes that are followed by a stretch without another, and how long a stretch is looked at; 0 where none is.

    The length is the longest of `OFFSETS` up to the median stretch.
    """
    if len(moved) == 0:
        return moved, 0
    gaps = np.diff([*moved, horizon])
    fitting = OFFSETS[np.median(gaps) >= OFFSETS]
    length = int(fitting[-1]) if len(fitting) else 0
    return (moved[gaps >= length][:CHANGES], length) if length >= OFFSETS[2] else (moved[:0], 0)


def looked_at(horizon: int) -> IntArray:
    """Rounds whose answers are looked at one by one, counted from 1."""
    return np.unique(np.round(np.linspace(1, horizon, min(horizon, LOOKS))).astype(np.int64))


def rounds(at: IntArray, moved: IntArray, horizon: int) -> IntArray:
    """All rounds after which sums must be kept: those of a trace, around changes, around single rounds."""
    starts, length = windows(moved, horizon)
    near = (starts[:, None] + OFFSETS[length >= OFFSETS][None, :]).ravel()
    single = looked_at(horizon)
    found = np.unique(np.concatenate([at, near, single, single - 1]))
    return found[(found >= 1) & (found <= horizon)]


def thinned(fine: Trace, at: IntArray) -> Trace:
    """The trace at these of its rounds."""
    kept = np.searchsorted(fine.rounds, at)
    sums = {name: values[kept] for name, values in fine.sums.items()}
    return Trace(fine.rounds[kept], sums, fine.arms[kept], fine.cuts[kept], fine.seconds)


@dataclass(frozen=True, eq=False)
class Closer:
    """A closer look at one run.

    Parameters
    ----------
    recovery
        Regret a round between two `OFFSETS` after a change, mean over the run's changes, (9,); nan where not seen.
    changes
        How many changes that is a mean of.
    count, confidence, correct
        Of the answers looked at, by `BINS` of confidence, (10,) each: how many, the sum of their confidences, and how
        many were right.

    """

    recovery: FloatArray
    changes: int
    count: FloatArray
    confidence: FloatArray
    correct: FloatArray

    @classmethod
    def of(cls, fine: Trace, moved: IntArray, mu: float) -> "Closer":
        """From a trace kept at `rounds`, and the confidence that a unit of cost is worth.

        A reward is the confidence of the answer less its price, so that the confidence follows from the sums.
        """
        horizon = int(fine.rounds[-1])
        starts, length = windows(moved, horizon)
        recovery = np.full(len(OFFSETS) - 1, math.nan)
        if length:
            edges = OFFSETS[length >= OFFSETS]
            sums = _up_to(fine, "regret", starts[:, None] + edges[None, :])
            recovery[: len(edges) - 1] = (np.diff(sums, axis=1) / np.diff(edges)).mean(axis=0)
        single = looked_at(horizon)
        gained = {name: _up_to(fine, name, single) - _up_to(fine, name, single - 1) for name in fine.sums}
        spent = gained["edge_cost"] + gained["offload_cost"]
        with np.errstate(invalid="ignore"):
            sure = gained["reward"] + mu * spent
        if not np.isfinite(sure).all():  # an offload that is not offered, or prices whose mu changes
            nothing = np.zeros(BINS)
            return cls(recovery, len(starts), nothing, nothing, nothing)
        place = np.clip((sure * BINS).astype(np.int64), 0, BINS - 1)
        counted = (np.bincount(place, w, BINS).astype(np.float64) for w in (None, sure, np.round(gained["correct"])))
        return cls(recovery, len(starts), *counted)

    @property
    def calibration_error(self) -> float:
        """Mean distance of confidence and accuracy over the bins, weighted by their answers (ECE); nan without any."""
        total = self.count.sum()
        return float(np.abs(self.confidence - self.correct).sum() / total) if total else math.nan


def _up_to(fine: Trace, name: str, after: IntArray) -> FloatArray:
    """A running sum after these rounds, 0 before the first."""
    found: FloatArray = np.concatenate([[0.0], fine.sums[name]])[np.searchsorted(fine.rounds, after, side="right")]
    return found
