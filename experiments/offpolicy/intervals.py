"""The 95 % interval of an estimate from what each request contributes to it, also where few of them carry it."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.experiments.results import student


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean reward, its standard error, and half the length of its 95 % interval."""

    value: float
    error: float
    half: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + self.half

    def covers(self, truth: float) -> bool:
        """Is the truth within?"""
        return self.low <= truth <= self.high

    @property
    def numbers(self) -> list[float]:
        """Value, error and half the length, as JSON holds them."""
        return [self.value, self.error, self.half]


def interval(value: float, parts: FloatArray) -> Estimate:
    r"""An estimate with its interval.

    Parameters
    ----------
    value
        The estimate.
    parts
        (n,) what it would lose without each of the requests: those that were not used contribute 0.

    Notes
    -----
    - The error is the jackknife's, :math:`\frac{n - 1}{n} \sum d_t^2` (Tukey 1958; Efron, The Jackknife, 1982): a
      request with a large weight pulls the estimate towards itself, and leaving it out shows what that hides.
    - The quantile is that of t, and its degrees of freedom say how sure the error itself is:
      :math:`2 S^2 / (\sum d^4 - S^2 / n)` with :math:`S = \sum d^2` (Satterthwaite, Biometrics Bulletin 2, 1946, with
      the fourth moment of what was found in the place of the normal's).  Where a few outcomes with large weights carry
      an estimate there are few degrees, however many requests.

    Both are of order 1 / n and vanish in long logs.  They are derived for independent contributions; along a log these
    are differences of a martingale (each has mean 0 given those before), for which the same sums are the natural
    plug-ins.  How well the intervals hold the study measures.

    """
    n, squares = len(parts), float(parts @ parts)
    if n < 2:
        return Estimate(value=value, error=math.inf, half=math.inf)
    error = math.sqrt((n - 1) / n * squares)
    unsure = float((parts**4).sum()) - squares**2 / n
    degrees = 2.0 * squares**2 / unsure if unsure > 0.0 else math.inf
    return Estimate(value=value, error=error, half=student(max(degrees, 3.0)) * error)


def weighted(scores: FloatArray, weight: FloatArray) -> Estimate:
    """The mean of scores under weights, each known before its score, or such that mean weight times score is sought."""
    total = float(weight.sum())
    if not total > 0.0:
        return Estimate(value=math.nan, error=math.inf, half=math.inf)
    value = float(weight @ scores) / total
    return interval(value, left_out(scores, weight, value))


def left_out(scores: FloatArray, weight: FloatArray, value: float) -> FloatArray:
    """What a weighted mean of this value would lose without each of its scores, (n,)."""
    others = weight.sum() - weight
    found: FloatArray = np.divide(weight * (scores - value), others, out=np.zeros_like(others), where=others > 0.0)
    return found


def mean(scores: FloatArray) -> Estimate:
    """The mean of scores, each unbiased for the value given all that came before it."""
    return weighted(scores, np.ones(len(scores)))
