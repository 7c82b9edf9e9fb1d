"""The Page-Hinkley test: an alarm once the summed deviations from the running mean stray too far from their extreme."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.detectors import Push
from offramp.bandits.kernel import kernel
from offramp.bandits.policy import positive
from offramp.bandits.rows import FloatArray

SIZE = 12
LEAST, DELTA, THRESHOLD, ALPHA, UP, DOWN, COUNT, MEAN, RISE, FALL, LOWEST, HIGHEST = range(SIZE)
MODES = ("up", "down", "both")


@kernel
def clear(state: FloatArray, at: int) -> None:
    """Nothing seen."""
    for i in range(COUNT, LOWEST):
        state[at + i] = 0.0
    state[at + LOWEST] = math.inf
    state[at + HIGHEST] = -1.0


@kernel
def push(state: FloatArray, at: int, x: float) -> float:
    """Take a number into the mean and both sums, and compare these with their extremes."""
    state[at + COUNT] += 1.0
    state[at + MEAN] += 1.0 / state[at + COUNT] * (x - state[at + MEAN])
    deviation = x - state[at + MEAN]
    state[at + RISE] = state[at + ALPHA] * state[at + RISE] + deviation - state[at + DELTA]
    state[at + FALL] = state[at + ALPHA] * state[at + FALL] + deviation + state[at + DELTA]
    state[at + LOWEST] = min(state[at + LOWEST], state[at + RISE])
    state[at + HIGHEST] = max(state[at + HIGHEST], state[at + FALL])
    if state[at + COUNT] < state[at + LEAST]:
        return 0.0
    rise, fall = state[at + RISE] - state[at + LOWEST], state[at + HIGHEST] - state[at + FALL]
    threshold = state[at + THRESHOLD]
    if (state[at + UP] == 1.0 and rise > threshold) or (state[at + DOWN] == 1.0 and fall > threshold):
        clear(state, at)
        return 1.0
    return 0.0


@dataclass(frozen=True, kw_only=True)
class PageHinkley:
    r"""Sums of deviations from the running mean, against their least and largest value so far.

    With :math:`\bar x_t` the mean of all numbers since the last alarm,

    .. math:: u_t = \alpha u_{t-1} + (x_t - \bar x_t) - \delta, \qquad d_t = \alpha d_{t-1} + (x_t - \bar x_t) + \delta,

    it rings once :math:`u_t - \min_s u_s` (a rise) or :math:`\max_s d_s - d_t` (a fall) exceeds the threshold.

    Parameters
    ----------
    min_instances
        Numbers before the first test, >= 1.
    delta
        Deviation that is let pass, in units of the signal, >= 0.
    threshold
        In units of the signal, > 0.
    alpha
        Share of the sums that is kept from number to number, in (0, 1].
    mode
        "up", "down" or "both": which changes ring.

    Examples
    --------
    >>> from offramp.bandits.detectors import alarms
    >>> from offramp.bandits.page_hinkley import PageHinkley
    >>> alarms(PageHinkley(threshold=3.0), [0.8] * 50 + [0.5] * 50)
    array([62])

    Notes
    -----
    Page (1954); bit for bit the detector of river 0.26, which also says how the sums begin: at 0, their least value at
    +inf and their largest at -1, so that a fall is measured from 0 where the sum has not risen.  The defaults of river
    are a delta of .005, a threshold of 50 and an alpha of .9999.  A sum that fades is held at about
    :math:`\delta / (1 - \alpha)` from 0 by what is let pass, and strays around there: on confidences that do not change
    such a detector of threshold 10 rang 8 times in 100,000 numbers, and with an alpha of 1 never.

    """

    min_instances: int = 30
    delta: float = 0.02
    threshold: float = 10.0
    alpha: float = 1.0
    mode: str = "both"

    def __post_init__(self) -> None:
        if not isinstance(self.min_instances, int) or self.min_instances < 1:
            raise ValueError(f"min_instances is {self.min_instances}, allowed is a whole number >= 1")
        positive("delta", self.delta)
        positive("threshold", self.threshold, zero=False)
        if not 0.0 < self.alpha <= 1.0:
            raise ValueError(f"alpha is {self.alpha}, allowed is a number in (0, 1]")
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, allowed are {MODES}")

    @property
    def push(self) -> Push:
        """The function of this file."""
        return push

    def initial(self) -> FloatArray:
        """Nothing seen."""
        state = np.zeros(SIZE)
        state[:COUNT] = (
            self.min_instances,
            self.delta,
            self.threshold,
            self.alpha,
            self.mode != "down",
            self.mode != "up",
        )
        clear(state, 0)
        return state
