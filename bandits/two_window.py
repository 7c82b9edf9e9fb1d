"""Two windows: an alarm once the means of two adjacent stretches differ by too many standard errors."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.detectors import Push
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.policy import positive
from offramp.bandits.rows import FloatArray

SIZE = 7
OLDER, NEWER, EVERY, Z, HELD, NEXT, TICK = range(SIZE)
FLOOR = 1e-12  # variance below which numbers count as equal, so that rounding rings no bell


@kernel
def score(state: FloatArray, at: int) -> float:
    """Distance of the two means in standard errors."""
    older, newer = whole(state[at + OLDER]), whole(state[at + NEWER])
    ring, size = at + SIZE, older + newer
    oldest = whole(state[at + NEXT])
    first, second = 0.0, 0.0
    place = oldest
    for i in range(size):
        if i < older:
            first += state[ring + place]
        else:
            second += state[ring + place]
        place = place + 1 if place + 1 < size else 0
    first, second = first / older, second / newer
    spread, after = 0.0, 0.0
    place = oldest
    for i in range(size):
        off = state[ring + place] - (first if i < older else second)
        if i < older:
            spread += off * off
        else:
            after += off * off
        place = place + 1 if place + 1 < size else 0
    variance = spread / older / (older - 1.0) + after / newer / (newer - 1.0)
    return abs(second - first) / math.sqrt(max(variance, FLOOR))


@kernel
def push(state: FloatArray, at: int, x: float) -> float:
    """Take a number into the newer window; once both are full, test every now and then."""
    size = state[at + OLDER] + state[at + NEWER]
    place = whole(state[at + NEXT])
    state[at + SIZE + place] = x
    state[at + NEXT] = place + 1.0 if place + 1.0 < size else 0.0
    state[at + HELD] = min(state[at + HELD] + 1.0, size)
    state[at + TICK] += 1.0
    if state[at + TICK] < state[at + EVERY]:
        return 0.0
    state[at + TICK] = 0.0
    if state[at + HELD] == size and score(state, at) > state[at + Z]:
        state[at + HELD] = 0.0
        state[at + NEXT] = 0.0
        return 1.0
    return 0.0


@dataclass(frozen=True, kw_only=True)
class TwoWindow:
    r"""A z test on two adjacent windows.

    With :math:`m_0, v_0` the mean and variance of the older of the latest :math:`n_0 + n_1` numbers, and
    :math:`m_1, v_1` those of the newer ones, it rings if :math:`|m_1 - m_0| > z \sqrt{v_0/n_0 + v_1/n_1}`.

    Parameters
    ----------
    older, newer
        :math:`n_0, n_1`, >= 2.
    every
        Numbers from test to test, >= 1.
    z
        Standard errors, > 0.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.bandits.detectors import alarms
    >>> from offramp.bandits.two_window import TwoWindow
    >>> rng = np.random.default_rng(0)
    >>> alarms(TwoWindow(), np.concatenate([rng.normal(0.8, 0.2, 1_000), rng.normal(0.6, 0.2, 1_000)]))
    array([1059])

    Notes
    -----
    Variances are those of samples (n - 1), measured anew in each test.  Tests every 10 numbers on windows of 200 are
    far from independent: z = 4.5 is a choice to be measured, not a level of significance.

    """

    older: int = 200
    newer: int = 200
    every: int = 10
    z: float = 4.5

    def __post_init__(self) -> None:
        for name, least in (("older", 2), ("newer", 2), ("every", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}, allowed is a whole number >= {least}")
        positive("z", self.z, zero=False)

    @property
    def push(self) -> Push:
        """The function of this file."""
        return push

    def initial(self) -> FloatArray:
        """Nothing seen."""
        state = np.zeros(SIZE + self.older + self.newer)
        state[:HELD] = self.older, self.newer, self.every, self.z
        return state
