"""Thresholds of a cascade on one device, found with labels: least work for a loss of accuracy, or the reverse."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments.cache import CacheError, ConfidenceCache
from offramp.environments.confidences import demand_confidences

GRID = (*(round(0.3 + 0.02 * i, 2) for i in range(35)), 0.99, 0.995, 0.999)


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """One setting of all exits.

    Parameters
    ----------
    thresholds
        Confidence from which each exit answers, (L,): +inf = never, and its head is not computed; -inf for the last.
    accuracy
        Share of samples that are answered right.
    work
        Multiply-accumulates of a sample, heads that are computed included, over those of all segments and the last
        head; it may exceed 1.
    answered
        Share of samples that each exit answers, (L,).

    """

    thresholds: tuple[float, ...]
    accuracy: float
    work: float
    answered: tuple[float, ...]


def search_thresholds(
    cache: ConfidenceCache,
    *,
    accuracy_drop: float | None = None,
    work: float | None = None,
    grid: Sequence[float] = GRID,
    condition: int = 0,
    expert: int = 0,
) -> Cascade:
    """Thresholds of a cascade without a cloud, found on what is kept of one pass.

    It starts from the last exit alone.  Each step lowers the threshold of one exit, the one that saves most for what it
    loses, until nothing more is allowed or enough is saved.

    Parameters
    ----------
    cache
        With a profile; its part "validation", usually calibrated.
    accuracy_drop
        By how much the accuracy may fall below that of the last exit, >= 0.
    work
        Share of the plain network's work that may be done on average, > 0.  One of these two is given.
    grid
        The thresholds that are tried, in [0, 1].
    condition, expert
        Places in the cache.

    Raises
    ------
    CacheError
        An argument is out of its range, or no setting that was found does as little work as asked.

    Notes
    -----
    This needs labels, and the samples must be like those to come: both limits hold on average over them, not for a
    sample and not after a change.  Where there are no labels or things change, policies learn instead.  A greedy search
    is not exhaustive.

    Examples
    --------
    >>> from offramp.environments import ConfidenceCache
    >>> from offramp.environments.threshold_search import search_thresholds
    >>> cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("validation").calibrated("exit")
    >>> found = search_thresholds(cache, accuracy_drop=0.01)
    >>> found.work < 0.8
    True

    """
    demand_confidences(cache, "a search for thresholds")
    if cache.profile is None:
        raise CacheError("profile is missing in this cache: without it no work can be counted")
    if (accuracy_drop is None) == (work is None):
        raise CacheError(f"accuracy_drop is {accuracy_drop} and work {work}, allowed is to give one of the two")
    for name, value, least in (("accuracy_drop", accuracy_drop, 0.0), ("work", work, 1e-9)):
        if value is not None and not least <= value < inf:
            raise CacheError(f"{name} is {value}, allowed is a finite number {'>= 0' if least == 0.0 else '> 0'}")
    tried = sorted(set(grid))
    if not tried or not 0.0 <= tried[0] <= tried[-1] <= 1.0:
        raise CacheError(f"grid is {list(grid)}, allowed are numbers in 0..1")
    for name, place, names in (("condition", condition, cache.conditions), ("expert", expert, cache.experts)):
        if not 0 <= place < len(names):
            raise CacheError(f"{name} is {place}, allowed is 0..{len(names) - 1}")
    profile = cache.profile
    segments = np.cumsum(profile.segment_macs, dtype=np.float64) + profile.router_macs
    tables = _Tables(
        confidence=np.asarray(cache.confidence[condition, expert], dtype=np.float64),
        right=cache.prediction[condition, expert] == cache.label[:, None],
        segments=segments,
        heads=np.array(profile.head_macs, dtype=np.float64),
    )
    at = tables.played((inf,) * (len(segments) - 1))
    least_right = -inf if accuracy_drop is None else at.accuracy - accuracy_drop - 1e-12
    most_work = inf if work is None else work
    kept = [at] if at.work <= most_work else []
    while work is None or at.work > work:
        better = [
            found
            for i in range(len(segments) - 1)
            for t in tried
            if t < at.thresholds[i]
            and (found := tables.played((*at.thresholds[:i], t, *at.thresholds[i + 1 : -1]))).work < at.work
            and found.accuracy >= least_right
        ]
        if not better:
            break
        kept += [found for found in better if found.work <= most_work]
        before = at
        # One sample more or less is within chance, so a gain does not count for more than no loss.
        at = max(better, key=lambda f: (before.work - f.work) / max(before.accuracy - f.accuracy, 1.0 / tables.n))
    if work is None:
        return at
    if not kept:
        raise CacheError(f"work is {work}, allowed with these exits and this grid are {at.work:.4g} or more")
    return max(kept, key=lambda f: (f.accuracy, -f.work))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tables:
    confidence: FloatArray
    right: npt.NDArray[np.bool_]
    segments: FloatArray
    heads: FloatArray

    @property
    def n(self) -> int:
        return len(self.right)

    def played(self, early: tuple[float, ...]) -> Cascade:
        """What comes of these thresholds before the last."""
        thresholds = np.array([*early, -inf])
        exits = (self.confidence >= thresholds).argmax(axis=1)
        computed = self.segments + np.cumsum(np.where(thresholds < inf, self.heads, 0.0))
        return Cascade(
            thresholds=(*early, -inf),
            accuracy=float(self.right[np.arange(self.n), exits].mean()),
            work=float(computed[exits].mean() / (self.segments[-1] + self.heads[-1])),
            answered=tuple(float(a) for a in np.bincount(exits, minlength=len(thresholds)) / self.n),
        )
