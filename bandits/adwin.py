"""ADWIN: an alarm once two parts of a growing window have means that differ by more than chance allows."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.detectors import Push
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import FloatArray

SIZE = 10
DELTA, CLOCK, BUCKETS, SHORTEST, GRACE, TICK, WIDTH, TOTAL, SPREAD, TOP = range(SIZE)
ROWS = 32  # row r holds sums of 2^r numbers each: enough for 2^32


@kernel
def insert(state: FloatArray, at: int, x: float) -> None:
    """Put a number into the window; where a row is full, its two oldest sums become one of the next row."""
    state[at + WIDTH] += 1.0
    width = state[at + WIDTH]
    if width > 1.0:
        off = x - state[at + TOTAL] / (width - 1.0)
        state[at + SPREAD] += (width - 1.0) * off * off / width
    state[at + TOTAL] += x
    stride = whole(state[at + BUCKETS]) + 2
    row = at + SIZE
    level, carried, moving = 0, x, True
    while moving:
        held = whole(state[row])
        state[row + 1 + held] = carried
        moving = held + 2 == stride
        if moving:
            carried = state[row + 1] + state[row + 2]
            for i in range(1, held):
                state[row + i] = state[row + i + 2]
            state[row] = held - 1.0
            row += stride
            level += 1
        else:
            state[row] = held + 1.0
    state[at + TOP] = max(state[at + TOP], float(level))


@kernel
def differs(state: FloatArray, at: int) -> bool:
    """Is there a cut between two sums such that the means before and after it differ too much?"""
    width, shortest = state[at + WIDTH], state[at + SHORTEST]
    confidence = math.log(2.0 * math.log(width) / state[at + DELTA])
    variance = max(state[at + SPREAD] / width, 0.0)
    stride = whole(state[at + BUCKETS]) + 2
    before, after, sum_before, sum_after = 0.0, width, 0.0, state[at + TOTAL]
    top = whole(state[at + TOP])
    size = 1.0
    for _ in range(top):
        size *= 2.0
    for down in range(top + 1):
        row = at + SIZE + (top - down) * stride
        for i in range(whole(state[row])):
            before += size
            after -= size
            sum_before += state[row + 1 + i]
            sum_after -= state[row + 1 + i]
            if before >= shortest and after >= shortest:
                share = 1.0 / (before - shortest + 1.0) + 1.0 / (after - shortest + 1.0)
                allowed = math.sqrt(2.0 * share * variance * confidence) + 2.0 / 3.0 * confidence * share
                if abs(sum_before / before - sum_after / after) > allowed:
                    return True
        size *= 0.5
    return False


@kernel
def push(state: FloatArray, at: int, x: float) -> float:
    """Take a number into the window and test it every now and then."""
    insert(state, at, x)
    state[at + TICK] += 1.0
    if state[at + TICK] < state[at + CLOCK]:
        return 0.0
    state[at + TICK] = 0.0
    if state[at + WIDTH] > state[at + GRACE] and differs(state, at):
        for level in range(whole(state[at + TOP]) + 1):
            state[at + SIZE + level * (whole(state[at + BUCKETS]) + 2)] = 0.0
        for i in range(TICK, SIZE):
            state[at + i] = 0.0
        return 1.0
    return 0.0


@dataclass(frozen=True, kw_only=True)
class ADWIN:
    r"""A window that grows while both its parts look alike, wherever it is cut.

    With n numbers of variance :math:`\sigma^2`, cut into :math:`n_0` older and :math:`n_1` newer ones with means
    :math:`m_0, m_1`, and :math:`\delta' = \delta / \ln n`, it rings if for some cut

    .. math:: |m_0 - m_1| > \sqrt{\tfrac{2}{h} \sigma^2 \ln\tfrac{2}{\delta'}} + \tfrac{2}{3h} \ln\tfrac{2}{\delta'},
              \qquad \tfrac1h = \frac{1}{n_0 - w + 1} + \frac{1}{n_1 - w + 1}.

    The window is kept as sums of 1, 2, 4, ... numbers, so that a test costs the logarithm of its length.

    Parameters
    ----------
    delta
        Significance, in (0, 1).
    clock
        Numbers from test to test, >= 1.
    max_buckets
        Sums of each length that are kept before two become one, >= 1.
    min_window_length
        w, least length of each part, >= 1.
    grace_period
        No test before the window is longer than this, >= 1.

    Examples
    --------
    >>> from offramp.bandits.adwin import ADWIN
    >>> from offramp.bandits.detectors import alarms
    >>> alarms(ADWIN(clock=1), [0.8] * 200 + [0.5] * 200)
    array([234])

    Notes
    -----
    Bifet, Gavaldà (SDM 2007).  It rings where river 0.26 does, whose threshold this is: the paper has :math:`\delta/n`
    and no w inside h.  As there, the whole window is given up after an alarm; the paper keeps its newer part.

    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta is {self.delta}, allowed is a number in (0, 1)")
        for name in ("clock", "max_buckets", "min_window_length", "grace_period"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}, allowed is a whole number >= 1")

    @property
    def push(self) -> Push:
        """The function of this file."""
        return push

    def initial(self) -> FloatArray:
        """Nothing seen."""
        state = np.zeros(SIZE + ROWS * (self.max_buckets + 2))
        state[:TICK] = self.delta, self.clock, self.max_buckets, self.min_window_length, self.grace_period
        return state
