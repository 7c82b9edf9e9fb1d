"""Thresholds with a guarantee: the smallest one whose risk calibration samples show to be held."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray

GRID: tuple[float, ...] = tuple(i / 100 for i in range(100, -1, -1))
LOSSES = ("prediction_gap", "consistency")
METHODS = ("naive", "crc", "ucb", "ltt")
LEAST = 200  # samples: below, no bound is worth its name at the usual eps of a few percent
LARGEST = 1.0  # B, the largest value of either loss
HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold and what is known about its risk.

    Parameters
    ----------
    value
        Confidence from which an early exit may answer; +inf = never, where not even the first of the grid held.
    risk
        Mean loss on the calibration samples; 0 at +inf.
    bound
        What the method puts in place of the risk, <= eps: the mean itself (naive), the mean with one more sample of the
        largest loss (crc), an upper confidence bound at level 1 - delta (ucb, ltt).
    loss, method, eps, delta
        As asked for; delta says nothing under naive and crc.
    n
        Calibration samples.

    """

    value: float
    risk: float
    bound: float
    loss: str
    method: str
    eps: float
    delta: float
    n: int


def losses(
    confidence: npt.ArrayLike,
    prediction: npt.ArrayLike,
    label: npt.ArrayLike | None = None,
    *,
    loss: str = "consistency",
    grid: Sequence[float] = GRID,
) -> FloatArray:
    r"""Loss of every sample at every threshold, (n, G), each 0 or 1.

    At threshold :math:`\lambda` the first exit j before the last with :math:`C_j \ge \lambda` answers, else the last.

    Parameters
    ----------
    confidence, prediction
        Of each exit that may answer, in order, the final exit last; (n, L), L >= 2.  For one cut of a split network
        pass two columns, that exit and the last.
    label
        True classes, (n,); prediction_gap needs them, consistency does not.
    loss
        "prediction_gap": 1 where the answer is wrong and the final exit right; "consistency": 1 where they differ.
    grid
        Thresholds, decreasing, (G,).

    Raises
    ------
    ValueError
        Shapes that do not agree, a confidence that is no number in [0, 1], too few samples, labels of one class or none
        where they are needed, an unknown loss, a grid that does not decrease.

    Notes
    -----
    Jazbec et al., "Fast yet Safe" (NeurIPS 2024); there an exit answers from :math:`C_j > \lambda` on.

    """
    c, p, y, levels = _checked(confidence, prediction, label, loss, grid)
    sure = np.maximum.accumulate(c[:, :-1], axis=1)
    found = np.empty((len(c), len(levels)))
    wrong = p != p[:, -1:] if y is None else (p != y[:, None]) & (p[:, -1:] == y[:, None])
    for g, level in enumerate(levels):
        first = (sure < level).sum(axis=1)
        found[:, g] = wrong[np.arange(len(c)), first]
    return found


def threshold(
    confidence: npt.ArrayLike,
    prediction: npt.ArrayLike,
    label: npt.ArrayLike | None = None,
    *,
    loss: str = "consistency",
    method: str = "ucb",
    eps: float = 0.05,
    delta: float = 0.1,
    grid: Sequence[float] = GRID,
) -> Threshold:
    r"""The smallest threshold before the first one, going down, that fails.

    Parameters
    ----------
    confidence, prediction, label, loss, grid
        As for `losses`; n >= 200.
    method
        "crc": the risk of the next sample is at most eps on average over calibration sets.  "ucb" and "ltt": with
        probability 1 - delta over calibration sets the risk is at most eps.  "naive": mean loss <= eps, no guarantee.
    eps
        Largest risk, in (0, 1).
    delta
        Probability with which ucb and ltt may fail, in (0, 1).

    Raises
    ------
    ValueError
        As `losses`, and for an unknown method, eps or delta out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.bandits.risk import threshold
    >>> sure = np.linspace(0.3, 1.0, 2_000)  # the early exit differs from the last below .6
    >>> early = np.where(sure < 0.6, 1, 0)
    >>> confidence, prediction = np.stack([sure, sure], axis=1), np.stack([early, 0 * early], axis=1)
    >>> found = threshold(confidence, prediction, method="ltt", eps=0.05)
    >>> found.value, round(found.risk, 3), round(found.bound, 3)
    (0.58, 0.029, 0.036)

    Notes
    -----
    Going down from 1 and stopping before the first failure makes ucb (Bates et al. 2021) a fixed sequence of tests like
    ltt (Angelopoulos et al. 2021): neither needs a risk that grows as the threshold falls.  crc (Angelopoulos et al.
    2024) does need losses that do, which these are not (a later exit may err where an earlier one does not), so for crc
    each sample's loss is its largest from the top of the grid down to here.  The code released with "Fast yet Safe"
    takes the last passing threshold for crc and the first failing one for ltt.

    All of it holds for samples exchangeable with the calibration set, hence not under a distortion that was not in it:
    see `by_group`.

    """
    table = losses(confidence, prediction, label, loss=loss, grid=grid)
    return pick(table, loss=loss, method=method, eps=eps, delta=delta, grid=grid)


def pick(
    table: FloatArray,
    *,
    loss: str = "consistency",
    method: str = "ucb",
    eps: float = 0.05,
    delta: float = 0.1,
    grid: Sequence[float] = GRID,
) -> Threshold:
    """As `threshold`, from the losses (n, G) of the calibration samples."""
    n = len(table)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, allowed are {METHODS}")
    for name, value in (("eps", eps), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} is {value}, allowed is a number in (0, 1)")
    if table.shape != (n, len(grid)) or n < LEAST:
        raise ValueError(f"losses have shape {table.shape}, allowed is (n, {len(grid)}) with n >= {LEAST}")
    over = table.mean(axis=0) > eps  # fails under every method, whatever luck a bettor had on the way
    table = table[:, : _first(over)]
    at = _first(~_passes(table, method, eps, delta)) - 1
    facts: dict[str, Any] = {"loss": loss, "method": method, "eps": eps, "delta": delta, "n": n}
    if at < 0:
        return Threshold(value=math.inf, risk=0.0, bound=0.0, **facts)
    risk = float(table[:, at].mean())
    return Threshold(value=float(grid[at]), risk=risk, bound=_bound(table[:, : at + 1], method, eps, delta), **facts)


def by_group(
    confidence: npt.ArrayLike,
    prediction: npt.ArrayLike,
    label: npt.ArrayLike | None = None,
    *,
    group: Sequence[Hashable] | npt.NDArray[Any],
    loss: str = "consistency",
    method: str = "ucb",
    eps: float = 0.05,
    delta: float = 0.1,
    grid: Sequence[float] = GRID,
) -> dict[Hashable, Threshold]:
    """A threshold for each group, the condition that a router names, say: each guarantee holds inside its group.

    Parameters
    ----------
    group
        Group of each sample, (n,); 200 samples or more of each.
    confidence, prediction, label, loss, method, eps, delta, grid
        As for `threshold`.  delta is that of each group; for all at once divide it by their number.

    Raises
    ------
    ValueError
        As `threshold`; the message names the group.

    """
    names = list(group.tolist() if isinstance(group, np.ndarray) else group)
    c, p = np.asarray(confidence), np.asarray(prediction)
    if c.ndim == 0 or p.ndim == 0 or not len(names) == len(c) == len(p):
        raise ValueError(f"group has {len(names)} entries, allowed is one for each sample, as many as confidence")
    y = None if label is None else np.asarray(label)
    found: dict[Hashable, Threshold] = {}
    for name in dict.fromkeys(names):
        mine = np.array([other == name for other in names])
        try:
            own = None if y is None else y[mine]
            found[name] = threshold(c[mine], p[mine], own, loss=loss, method=method, eps=eps, delta=delta, grid=grid)
        except ValueError as error:
            raise ValueError(f"group {name!r}: {error}") from error
    return found


def worst(found: dict[Hashable, Threshold]) -> Threshold:
    """One threshold for all groups, where nothing names the group: the largest, which holds in each of them.

    Every threshold above a group's own has passed too, so the largest keeps the guarantee of each.
    """
    if not found:
        raise ValueError("there is no group, allowed is one or more")
    return max(found.values(), key=lambda threshold: threshold.value)


def _first(marks: npt.NDArray[np.bool_]) -> int:
    """Place of the first mark, the length where there is none."""
    return int(marks.argmax()) if marks.any() else len(marks)


def _passes(table: FloatArray, method: str, eps: float, delta: float) -> npt.NDArray[np.bool_]:
    """Does each threshold hold, (G,), given that its mean loss is at most eps?"""
    n = len(table)
    if method == "ucb":
        return _wealth(table, _stakes(table, delta), eps) >= -math.log(delta)
    if method == "ltt":
        return _hoeffding_bentkus(table.sum(axis=0), n, eps) <= delta
    if method == "crc":
        return np.asarray(_worst_so_far(table).mean(axis=0) <= ((n + 1) * eps - LARGEST) / n)
    return np.ones(table.shape[1], dtype=bool)


def _bound(table: FloatArray, method: str, eps: float, delta: float) -> float:
    """The bound at the last column, which passed."""
    n, column = len(table), table[:, -1:]
    if method == "crc":
        return float((_worst_so_far(table)[:, -1].sum() + LARGEST) / (n + 1))
    if method == "naive":
        return float(column.mean())
    stakes = _stakes(column, delta)
    low, high = float(column.mean()), eps  # it passed at eps, so the smallest risk that is ruled out lies below
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if method == "ucb":
            out = bool(_wealth(column, stakes, middle)[0] >= -math.log(delta))
        else:
            out = bool(_hoeffding_bentkus(column.sum(axis=0), n, middle)[0] <= delta)
        low, high = (low, middle) if out else (middle, high)
    return high


def _worst_so_far(table: FloatArray) -> FloatArray:
    """Each sample's largest loss from the top of the grid down to each threshold."""
    return np.asarray(np.maximum.accumulate(table, axis=1))


def _stakes(table: FloatArray, delta: float) -> FloatArray:
    r"""The bet of each sample, from those before it: :math:`\min(1, \sqrt{2\ln(1/\delta) / (n\hat\sigma^2_{i-1})})`."""
    n = len(table)
    count = np.arange(2, n + 2)[:, None]
    mean = (0.5 + np.cumsum(table, axis=0)) / count
    variance = (0.25 + np.cumsum((table - mean) ** 2, axis=0)) / count
    before = np.concatenate([np.full((1, table.shape[1]), 0.25), variance[:-1]])
    return np.asarray(np.minimum(1.0, np.sqrt(-2.0 * math.log(delta) / (n * before))))


def _wealth(table: FloatArray, stakes: FloatArray, risk: float) -> FloatArray:
    """Largest log wealth of a bettor against "the risk is at least this", (G,).

    Waudby-Smith and Ramdas (2024), in the form of Bates et al. (2021), proposition 5: were it true, the wealth would
    reach 1 / delta with probability delta at most.
    """
    with np.errstate(divide="ignore"):  # a bet of all that is lost: log 0
        return np.asarray(np.cumsum(np.log1p(-stakes * (table - risk)), axis=0).max(axis=0))


def _hoeffding_bentkus(total: FloatArray, n: int, risk: float) -> FloatArray:
    """p-value of "the risk is more than this" for each sum of n losses in [0, 1] (Angelopoulos et al. 2021)."""
    mean = np.minimum(total / n, risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(mean > 0.0, mean * np.log(mean / risk), 0.0)
        miss = np.where(mean < 1.0, (1.0 - mean) * np.log((1.0 - mean) / (1.0 - risk)), 0.0)
    hoeffding = np.exp(-n * (hit + miss))
    bentkus = math.e * binomial_tail(n, risk)[np.ceil(total).astype(np.int64)]
    return np.asarray(np.minimum(np.minimum(hoeffding, bentkus), 1.0))


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> FloatArray:
    """Logarithm of k! for k = 0..n, (n + 1,)."""
    found = np.array([math.lgamma(k + 1.0) for k in range(n + 1)])
    found.setflags(write=False)
    return found


def binomial_tail(n: int, p: float) -> FloatArray:
    """P(Bin(n, p) <= k) for k = 0..n, (n + 1,); p in (0, 1)."""
    k, up = np.arange(n + 1), _log_factorials(n)
    mass = np.exp(up[n] - up - up[::-1] + k * math.log(p) + (n - k) * math.log1p(-p))
    return np.asarray(np.minimum(np.cumsum(mass), 1.0))  # all terms >= 0, the smallest first: nothing cancels


def _checked(
    confidence: npt.ArrayLike, prediction: npt.ArrayLike, label: npt.ArrayLike | None, loss: str, grid: Sequence[float]
) -> tuple[FloatArray, npt.NDArray[Any], npt.NDArray[Any] | None, FloatArray]:
    """The inputs as arrays, once all that can be wrong with them is ruled out; no labels where none are needed."""
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}, allowed are {LOSSES}")
    c, p = np.asarray(confidence, dtype=np.float64), np.asarray(prediction)
    levels = np.asarray(grid, dtype=np.float64)
    if c.ndim != 2 or c.shape != p.shape or c.shape[1] < 2:
        raise ValueError(f"confidence has shape {c.shape} and prediction {p.shape}, allowed is (n, L) twice, L >= 2")
    if len(c) < LEAST:
        raise ValueError(f"there are {len(c)} samples, allowed is {LEAST} or more")
    bad = ~((c >= 0.0) & (c <= 1.0))
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise ValueError(f"confidence[{i}, {j}] is {c[i, j]}, allowed is a number in [0, 1]")
    if p.dtype.kind not in "iu" or p.min() < 0:
        raise ValueError(f"prediction has type {p.dtype} and least value {p.min()}, allowed are whole numbers >= 0")
    if levels.ndim != 1 or not len(levels) or not np.isfinite(levels).all() or not (np.diff(levels) < 0.0).all():
        raise ValueError(f"grid is {tuple(grid)}, allowed are finite thresholds, decreasing")
    if loss == "consistency":
        return c, p, None, levels
    y = None if label is None else np.asarray(label)
    if y is None or y.shape != (len(c),) or y.dtype.kind not in "iu":
        found = "None" if y is None else f"of shape {y.shape} and type {y.dtype}"
        raise ValueError(f"label is {found}, allowed are {len(c)} whole numbers: {loss} needs them")
    if (y == y[0]).all():
        raise ValueError(f"label is {y[0]} throughout, allowed are two classes or more")
    return c, p, y, levels
