"""GLR: an alarm once two means explain the latest numbers far better than one does."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.detectors import Push
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.policy import positive
from offramp.bandits.rows import FloatArray

SIZE = 8
DELTA, STRIDE, ROOM, VARIANCE, HELD, OLDEST, OPEN, SUM = range(SIZE)


@kernel
def fit(mean: float, variance: float) -> float:
    """Log-likelihood per number of the mean that fits best, up to a constant."""
    if variance > 0.0:
        return 0.5 * mean * mean / variance
    if mean <= 0.0 or mean >= 1.0:
        return 0.0
    return mean * math.log(mean) + (1.0 - mean) * math.log(1.0 - mean)


@kernel
def ratio(state: FloatArray, at: int) -> float:
    """The largest log-likelihood ratio of two means to one, over all cuts between two blocks."""
    held, room, stride = whole(state[at + HELD]), whole(state[at + ROOM]), state[at + STRIDE]
    variance = state[at + VARIANCE]
    total = 0.0
    for i in range(held):
        total += state[at + SIZE + (whole(state[at + OLDEST]) + i) % room]
    n, older, best = held * stride, 0.0, 0.0
    one = n * fit(total / n, variance)
    for i in range(held - 1):
        older += state[at + SIZE + (whole(state[at + OLDEST]) + i) % room]
        s = (i + 1) * stride
        two = s * fit(older / s, variance) + (n - s) * fit((total - older) / (n - s), variance)
        best = max(best, two - one)
    return best


@kernel
def push(state: FloatArray, at: int, x: float) -> float:
    """Take a number into the open block; test whenever one is full."""
    state[at + OPEN] += 1.0
    state[at + SUM] += x if state[at + VARIANCE] > 0.0 else min(max(x, 0.0), 1.0)
    if state[at + OPEN] < state[at + STRIDE]:
        return 0.0
    room = whole(state[at + ROOM])
    if state[at + HELD] == state[at + ROOM]:
        state[at + OLDEST] = (whole(state[at + OLDEST]) + 1) % room
    else:
        state[at + HELD] += 1.0
    state[at + SIZE + (whole(state[at + OLDEST]) + whole(state[at + HELD]) - 1) % room] = state[at + SUM]
    state[at + OPEN] = 0.0
    state[at + SUM] = 0.0
    n = state[at + HELD] * state[at + STRIDE]
    if ratio(state, at) >= math.log(3.0 * n * math.sqrt(n) / state[at + DELTA]):
        state[at + HELD] = 0.0
        state[at + OLDEST] = 0.0
        return 1.0
    return 0.0


@dataclass(frozen=True, kw_only=True)
class GLR:
    r"""The generalised likelihood ratio test of "the mean changed at some s" against "it did not".

    It rings if over the latest n numbers

    .. math:: \max_s\; s\, d(m_{1:s}, m_{1:n}) + (n - s)\, d(m_{s+1:n}, m_{1:n}) \ge \ln(3 n^{3/2} / \delta),

    where d is the divergence of Bernoulli distributions, or :math:`(a - b)^2 / 2\sigma^2`.

    Parameters
    ----------
    delta
        Probability of a false alarm that the threshold is made for, in (0, 1).
    stride
        The test is done every so many numbers, and s runs in steps of as many, >= 1.
    window
        Latest numbers that are looked at, a multiple of stride, >= 2 stride.  A test costs window / stride cuts.
    variance
        :math:`\sigma^2` for numbers that are sub-Gaussian around their mean, > 0; confidences spread by about .2.  None
        = Bernoulli, for numbers in [0, 1] (others are clipped), as published: blind to all but large changes of what
        spreads less than coin tosses.

    Examples
    --------
    >>> from offramp.bandits.detectors import alarms
    >>> from offramp.bandits.glr import GLR
    >>> alarms(GLR(), [0.8] * 50 + [0.5] * 50)
    array([69])

    Notes
    -----
    Besson, Kaufmann, Maillard, Seznec (JMLR 2022), GLR-klUCB, with its thinned tests; :math:`\delta` is
    :math:`1/\sqrt{YT}` there for Y changes.  It looks back to the last alarm; here no further than the window, so that
    memory and time stay constant.

    """

    delta: float = 0.001
    stride: int = 10
    window: int = 2_000
    variance: float | None = 0.04

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta is {self.delta}, allowed is a number in (0, 1)")
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"stride is {self.stride}, allowed is a whole number >= 1")
        if not isinstance(self.window, int) or self.window < 2 * self.stride or self.window % self.stride:
            raise ValueError(f"window is {self.window}, allowed is a multiple of stride, from {2 * self.stride} on")
        if self.variance is not None:
            positive("variance", self.variance, zero=False)

    @property
    def push(self) -> Push:
        """The function of this file."""
        return push

    def initial(self) -> FloatArray:
        """Nothing seen."""
        room = self.window // self.stride
        state = np.zeros(SIZE + room)
        state[:HELD] = self.delta, self.stride, room, 0.0 if self.variance is None else self.variance
        return state
