"""How far an exit can be believed: under what it was calibrated for, level by level, and where it was misrouted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import ConfidenceCache
from offramp.environments.reliability import BINS, auroc, brier, ece
from offramp.experiments.calibration.samples import (
    CLEAR,
    PRISTINE,
    ROUTED,
    Caches,
    View,
    answering,
    levels_of,
    matched,
    oracle,
    view,
)

Rows = list[dict[str, Any]]
DRAWS = 100
FLOOR_DRAWS = 2
NEWTON = 12
MAPPED = "log-odds map"


def matched_view(cache: ConfidenceCache, expert: int) -> View:
    """An expert's answers under the conditions that it is for, half of the samples pristine."""
    n = len(cache.label)
    return view(cache, matched(cache, expert), np.full(n, expert))


def matched_rows(caches: Caches, validation: ConfidenceCache, draws: int = DRAWS, seed: int = 0) -> Rows:
    """One row for each expert, calibration and exit: accuracy, mean confidence, calibration error, separation.

    Every image counts at every level, pristine for half of the weight, so that nothing hangs on which image comes under
    which condition.

    Parameters
    ----------
    caches
        The test part under each calibration.
    validation
        The validation part under the last of these, for `LogOdds`.
    draws
        Bootstrap draws over images of the interval of the calibration error.
    seed
        Of the draws, and of the labels for the floor: the error of an exit that is right exactly as often as it says.

    """
    rows = []
    last = list(caches)[-1]
    for e, expert in enumerate(caches["raw"].experts):
        said = {name: everything(cache, e) for name, cache in caches.items()}
        c, right = said[last]
        said[MAPPED] = LogOdds.fitted(*everything(validation, e))(c), right
        for calibration, (c, right) in said.items():
            rng = np.random.default_rng(seed)
            by_image = _gaps(c, right)
            weight = rng.multinomial(c.shape[1], np.full(c.shape[1], 1 / c.shape[1]), size=draws) / c.shape[1]
            again = np.abs(np.einsum("dn,nbl->dbl", weight, by_image, optimize=True)).sum(axis=1)
            floor = [np.abs(_gaps(c, rng.random(c.shape) < c).mean(axis=0)).sum(axis=0) for _ in range(FLOOR_DRAWS)]
            flat, hits = c.reshape(-1, c.shape[2]), right.reshape(-1, c.shape[2])
            rows += _rows(
                {"expert": expert, "calibration": calibration, "n": c.shape[1], "answers": len(flat)},
                accuracy=hits.mean(axis=0),
                confidence=flat.mean(axis=0),
                ece=ece(flat, hits),
                half=1.96 * again.std(axis=0, ddof=1),
                floor=np.mean(floor, axis=0),
                auroc=auroc(flat, hits),
                brier=brier(flat, hits),
            )
    return rows


def everything(cache: ConfidenceCache, expert: int) -> tuple[FloatArray, IntArray]:
    """Confidence and correctness under all matched conditions, (2 m, N, L): m times pristine, then m levels."""
    levels = levels_of(cache, cache.experts[expert])
    clear = levels_of(cache, CLEAR)[0]
    at = [clear] * len(levels) + [s for s in levels if s != clear]
    return cache.confidence[at, expert], (cache.prediction[at, expert] == cache.label[:, None]).astype(np.int64)


def _gaps(c: FloatArray, right: npt.NDArray[Any]) -> FloatArray:
    """Mean over conditions of confidence less correctness by image and bin, (N, bins, L): errors are sums of these."""
    conditions, n, exits = c.shape
    found = np.empty((n, BINS, exits))
    edges = np.linspace(0.0, 1.0, BINS + 1)
    for i in range(exits):
        place = np.maximum(np.searchsorted(edges, c[..., i]) - 1, 0) + BINS * np.arange(n)
        gap = (c[..., i] - right[..., i]) / conditions
        found[..., i] = np.bincount(place.ravel(), gap.ravel(), n * BINS).reshape(n, BINS)
    return found


@dataclass(frozen=True, eq=False)
class LogOdds:
    r"""Bias and slope of the log-odds of each exit, (L,) each: :math:`\sigma(b + a\,\mathrm{logit}(c))`."""

    bias: FloatArray
    slope: FloatArray

    @classmethod
    def fitted(cls, confidence: FloatArray, correct: npt.NDArray[Any]) -> "LogOdds":
        """Of greatest likelihood, from arrays (..., L); Platt (1999) on the confidence alone, by Newton's method."""
        found = []
        for i in range(confidence.shape[-1]):
            x = np.stack([np.ones(confidence[..., i].size), _log_odds(confidence[..., i].ravel())], axis=1)
            y, theta = correct[..., i].ravel(), np.array([0.0, 1.0])
            for _ in range(NEWTON):
                p = 1.0 / (1.0 + np.exp(-x @ theta))
                theta = theta + np.linalg.solve((x * (p * (1.0 - p))[:, None]).T @ x, x.T @ (y - p))
            found.append(theta)
        return cls(*np.array(found).T)

    def __call__(self, confidence: FloatArray) -> FloatArray:
        """Calibrated confidence of the same shape, (..., L)."""
        made: FloatArray = 1.0 / (1.0 + np.exp(-(self.bias + self.slope * _log_odds(confidence))))
        return made


def _log_odds(confidence: FloatArray) -> FloatArray:
    inside = np.clip(confidence, 1e-4, 1.0 - 1e-4)
    odds: FloatArray = np.log(inside / (1.0 - inside))
    return odds


def signs_rows(cache: ConfidenceCache, expert: int, exit_at: int) -> Rows:
    """Confidence less accuracy of one exit of an expert, condition by condition of those that it is for."""
    at = dict.fromkeys([levels_of(cache, CLEAR)[0], *levels_of(cache, cache.experts[expert])])
    rows = []
    for s in at:
        c, right = (
            cache.confidence[s, expert, :, exit_at - 1],
            cache.prediction[s, expert, :, exit_at - 1] == cache.label,
        )
        rows.append(
            {"condition": cache.conditions[s].name, "gap": float((c - right).mean()), "ece": float(ece(c, right))}
        )
    return rows


def _rows(facts: dict[str, Any], **columns: Any) -> Rows:
    exits = len(next(iter(columns.values())))
    return [facts | {"exit": i + 1} | {name: float(x[i]) for name, x in columns.items()} for i in range(exits)]


def largest(rows: Rows, calibration: str, column: str = "ece") -> dict[str, Any]:
    """The row of the largest value under one calibration."""
    return max((r for r in rows if r["calibration"] == calibration), key=lambda r: float(r[column]))


def largest_in_turn(cache: ConfidenceCache) -> float:
    """Largest error over experts and exits where each image comes once, see `matched_view`."""
    views = [matched_view(cache, e) for e in range(len(cache.experts))]
    return max(float(ece(v.confidence, v.correct).max()) for v in views)


def other_assignments(cache: ConfidenceCache, times: int) -> list[float]:
    """The same for each of some random orders of the images, and with that of their conditions."""
    orders = (np.random.default_rng((seed, 3)).permutation(len(cache.label)) for seed in range(times))
    return [largest_in_turn(cache.select(order)) for order in orders]


def level_rows(caches: Caches) -> Rows:
    """One row for each condition, way to choose the exits, calibration and exit: all samples under one level."""
    rows = []
    last = list(caches)[-1]
    for s, condition in enumerate(caches["raw"].conditions):
        for system, calibration in ((PRISTINE, "raw"), (PRISTINE, last), (ROUTED, last), ("own expert", last)):
            cache = caches[calibration]
            where = np.full(len(cache.label), s)
            who = oracle(cache, where) if system == "own expert" else answering(cache, where, system)
            found = view(cache, where, who)
            rows += _rows(
                {"condition": condition.name, "system": system, "calibration": calibration, "n": len(where)},
                accuracy=found.correct.mean(axis=0),
                gap=(found.confidence - found.correct).mean(axis=0),
                ece=ece(found.confidence, found.correct),
            )
    return rows


def misrouted_rows(caches: Caches) -> Rows:
    """Samples that the router gives to another family's expert, over all conditions of a known family together."""
    last = list(caches)[-1]
    cache = caches[last]
    parts, asked = [], 0
    for s, condition in enumerate(cache.conditions):
        if condition.family not in cache.experts:
            continue
        where = np.full(len(cache.label), s)
        who = answering(cache, where, ROUTED)
        wrong = who != oracle(cache, where)
        found = view(cache, where, who)
        parts.append((found.confidence[wrong], found.correct[wrong]))
        asked += len(where)
    c, right = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    if not len(c):
        return []
    facts = {"calibration": last, "n": len(c), "share": len(c) / asked}
    gap = (c - right).mean(axis=0)
    return _rows(facts, accuracy=right.mean(axis=0), gap=gap, ece=ece(c, right))
