"""CUSUM: an alarm once the deviations from a mean learnt first have summed up to too much, on either side."""

from dataclasses import dataclass

import numpy as np

from offramp.bandits.detectors import Push
from offramp.bandits.kernel import kernel
from offramp.bandits.policy import positive
from offramp.bandits.rows import FloatArray

SIZE = 7
WARMUP, SLACK, THRESHOLD, COUNT, MEAN, RISE, FALL = range(SIZE)


@kernel
def push(state: FloatArray, at: int, x: float) -> float:
    """Take a number into the mean while that is learnt, then into both sums."""
    if state[at + COUNT] < state[at + WARMUP]:
        state[at + COUNT] += 1.0
        state[at + MEAN] += (x - state[at + MEAN]) / state[at + COUNT]
        return 0.0
    deviation = x - state[at + MEAN]
    state[at + RISE] = max(0.0, state[at + RISE] + deviation - state[at + SLACK])
    state[at + FALL] = max(0.0, state[at + FALL] - deviation - state[at + SLACK])
    if max(state[at + RISE], state[at + FALL]) > state[at + THRESHOLD]:
        for i in range(COUNT, SIZE):
            state[at + i] = 0.0
        return 1.0
    return 0.0


@dataclass(frozen=True, kw_only=True)
class CUSUM:
    r"""Two-sided cumulative sums around a mean that is learnt first.

    With :math:`\bar u` the mean of the first M numbers, and from then on

    .. math:: g^\pm \leftarrow \max(0, g^\pm \pm (x - \bar u) - \epsilon),

    it rings once either sum exceeds h.

    Parameters
    ----------
    warmup
        M, numbers that the mean is learnt from, >= 1.
    slack
        :math:`\epsilon`, deviation that is let pass, in units of the signal, >= 0.
    threshold
        h, in units of the signal, > 0.

    Examples
    --------
    >>> from offramp.bandits.cusum import CUSUM
    >>> from offramp.bandits.detectors import alarms
    >>> alarms(CUSUM(warmup=10, slack=0.05, threshold=1.0), [0.8] * 50 + [0.5] * 50)
    array([54])

    Notes
    -----
    Liu, Lee, Shroff (AAAI 2018), CUSUM-UCB, which plays M = 100, :math:`\epsilon` = .01 and h = ln(T / changes).  The
    mean of M numbers is off by about :math:`\sigma/\sqrt M`: with confidences (:math:`\sigma` of .2) that is more than
    a slack of .01, so that the sums drift off by themselves.  The slack here stays above it.

    """

    warmup: int = 200
    slack: float = 0.05
    threshold: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.warmup, int) or self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}, allowed is a whole number >= 1")
        positive("slack", self.slack)
        positive("threshold", self.threshold, zero=False)

    @property
    def push(self) -> Push:
        """The function of this file."""
        return push

    def initial(self) -> FloatArray:
        """Nothing seen."""
        state = np.zeros(SIZE)
        state[:COUNT] = self.warmup, self.slack, self.threshold
        return state
