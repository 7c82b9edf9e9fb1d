"""How far a confidence can be believed: calibration errors, proper scores, separation, and the diagram of an exit.

Samples lie along the first axis; whatever axes follow, such as exits, are kept: (n, L) gives (L,).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray

BINS = 15
Z = 1.96  # of a two-sided 95 % interval


@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """A reliability diagram, bin by bin along the first axis; nan where a bin is empty.

    Attributes
    ----------
    edges
        Ends of the bins (low, high], (bins + 1,).
    count
        Samples, (bins, ...).
    confidence, accuracy
        Means in [0, 1], (bins, ...).
    low, high
        95 % Wilson interval of the accuracy, (bins, ...).

    """

    edges: FloatArray
    count: npt.NDArray[np.int64]
    confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Count, mean confidence and accuracy in bins of equal width.

    Parameters
    ----------
    confidence, correct
        (n, ...) in [0, 1], and whether the prediction was right.
    bins
        Intervals (low, high] on [0, 1]; a confidence of 0 belongs to the first.

    Raises
    ------
    ValueError
        Shapes differ, a value is out of its range, or there are no samples or bins.

    """
    c, y = _pair(confidence, correct, bins)
    edges = np.linspace(0.0, 1.0, bins + 1)
    count, of_confidence, of_hits = _binned(c, y, edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = of_hits / count
        low, high = wilson(of_hits, count)
        return Reliability(
            edges=edges,
            count=count.astype(np.int64),
            confidence=of_confidence / count,
            accuracy=accuracy,
            low=low,
            high=high,
        )


def wilson(hits: npt.ArrayLike, count: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """95 % interval of a share, from hits among count; nan where nothing was counted.

    Notes
    -----
    Wilson (1927).  It stays inside [0, 1] and does not shrink to a point where all of a few samples agree.

    """
    n, k = np.asarray(count, dtype=np.float64), np.asarray(hits, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (k + Z * Z / 2.0) / (n + Z * Z)
        half = Z / (n + Z * Z) * np.sqrt(k * (n - k) / n + Z * Z / 4.0)
        return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> FloatArray:
    """Expected calibration error: mean distance of accuracy and confidence over bins of equal width, by their shares.

    See `reliability` for parameters and errors.

    Notes
    -----
    Guo et al. (ICML 2017), eq. 3.

    Examples
    --------
    >>> from offramp.environments.reliability import ece
    >>> float(ece([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]).round(3))
    0.1

    """
    c, y = _pair(confidence, correct, bins)
    _, of_confidence, of_hits = _binned(c, y, np.linspace(0.0, 1.0, bins + 1))
    return _as_float(np.abs(of_hits - of_confidence).sum(axis=0) / len(c))


def adaptive_ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> FloatArray:
    """Calibration error over bins of equally many samples (to within one), in the order of their confidence.

    See `reliability` for parameters and errors; more bins than samples are as many as there are samples.

    Notes
    -----
    Nguyen and O'Connor (EMNLP 2015).  Equal confidences may fall into two bins: then the order of samples counts.

    """
    c, y = _pair(confidence, correct, bins)
    order = c.argsort(axis=0, kind="stable")
    gap = np.take_along_axis(y - c, order, axis=0)
    starts = np.linspace(0, len(c), min(bins, len(c)) + 1).astype(np.int64)[:-1]
    return _as_float(np.abs(np.add.reduceat(gap, starts, axis=0)).sum(axis=0) / len(c))


def classwise_ece(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> FloatArray:
    """Mean over classes of the calibration error of each class's own probability.

    Parameters
    ----------
    probabilities, labels
        (n, ..., K) in [0, 1], and the true classes (n,) in 0..K-1.
    bins
        See `reliability`.

    Notes
    -----
    Kull et al. (NeurIPS 2019).  With many classes most probabilities are near 0, and so is this number.

    """
    p, truth = _probabilities(probabilities, labels)
    return _as_float(ece(p, truth, bins).mean(axis=-1))


def nll(probability: npt.ArrayLike) -> FloatArray:
    """Negative log-likelihood in nats from the probability of the true class, (n, ...); +inf where one is 0."""
    p = _unit("probability", probability)
    with np.errstate(divide="ignore"):
        return _as_float(-np.log(p).mean(axis=0))


def brier(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> FloatArray:
    """Mean squared distance of the confidence from 1 (right) or 0 (wrong).  See `reliability` for parameters.

    Notes
    -----
    Brier's score of the one event "the prediction is right", in [0, 1]; `class_brier` is that of all classes.

    """
    c, y = _pair(confidence, correct, 1)
    return _as_float(((c - y) ** 2).mean(axis=0))


def class_brier(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Brier's score over all classes, in [0, 2].  See `classwise_ece` for parameters."""
    p, truth = _probabilities(probabilities, labels)
    return _as_float(((p - truth) ** 2).sum(axis=-1).mean(axis=0))


def auroc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> FloatArray:
    """Probability that a right answer is surer than a wrong one, ties counted half; nan without one of the two.

    See `reliability` for parameters and errors.

    Notes
    -----
    Mann and Whitney's U over the number of pairs.  No map that rises strictly changes it: this is what an exit knows,
    while a calibration error is how it says so.

    """
    c, y = _pair(confidence, correct, 1)
    columns, truth = c.reshape(len(c), -1), y.reshape(len(c), -1)
    out = np.full(columns.shape[1], np.nan)
    for i in range(columns.shape[1]):
        _, place, count = np.unique(columns[:, i], return_inverse=True, return_counts=True)
        rank = np.cumsum(count) - 0.5 * (count - 1)  # the mean rank of equals, from 1
        right = truth[:, i].sum()
        wrong = len(c) - right
        if right and wrong:
            total = rank[place] @ truth[:, i]
            out[i] = (total - 0.5 * right * (right + 1.0)) / (right * wrong)
    return out.reshape(c.shape[1:])


def _binned(c: FloatArray, y: FloatArray, edges: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Count, sum of confidences and sum of hits in each bin, (bins, ...) each."""
    bins, flat = len(edges) - 1, c.reshape(len(c), -1)
    columns = flat.shape[1]
    place = np.maximum(np.searchsorted(edges, flat) - 1, 0) + bins * np.arange(columns)
    count, of_confidence, of_hits = (
        np.bincount(place.ravel(), w, bins * columns).reshape(columns, bins).T.reshape(bins, *c.shape[1:])
        for w in (np.ones(flat.size), flat.ravel(), y.ravel())
    )
    return _as_float(count), _as_float(of_confidence), _as_float(of_hits)


def _pair(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int) -> tuple[FloatArray, FloatArray]:
    c, y = _unit("confidence", confidence), np.asarray(correct)
    if y.shape != c.shape:
        raise ValueError(f"correct has shape {y.shape}, allowed is that of confidence, {c.shape}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"correct holds {y[~np.isin(y, (0, 1))][0]}, allowed are 0 and 1")
    if bins < 1:
        raise ValueError(f"bins is {bins}, allowed is a whole number >= 1")
    return c, y.astype(np.float64)


def _probabilities(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    p, truth = _unit("probabilities", probabilities), np.asarray(labels)
    if p.ndim < 2:
        raise ValueError(f"probabilities has shape {p.shape}, allowed is (samples, ..., classes)")
    if truth.shape != p.shape[:1] or not np.isin(truth, np.arange(p.shape[-1])).all():
        raise ValueError(f"labels of shape {truth.shape}, allowed are {len(p)} whole numbers in 0..{p.shape[-1] - 1}")
    hot = truth[:, None] == np.arange(p.shape[-1])
    hot = hot.reshape(len(p), *(1,) * (p.ndim - 2), p.shape[-1])
    return p, np.broadcast_to(hot, p.shape).astype(np.float64)


def _unit(name: str, values: npt.ArrayLike) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim < 1 or found.size == 0:
        raise ValueError(f"{name} has shape {found.shape}, allowed is at least one sample")
    bad = ~((found >= 0.0) & (found <= 1.0))
    if bad.any():
        raise ValueError(f"{name} holds {found[bad][0]}, allowed is [0, 1]")
    return found


def _as_float(values: Any) -> FloatArray:
    out: FloatArray = np.asarray(values, dtype=np.float64)
    return out
