"""Estimates of a link from the transfers that went over it: the last one, a moving average, a harmonic mean.

An estimate is a small flat array; the kernels `push`, `rate` and `round_trip` serve all three kinds.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import FloatArray
from offramp.environments.links import BYTES_PER_MS, refuse_rate, refuse_round_trip

KIND, RATE, ROUND_TRIP, WEIGHT, WINDOW, RATES, TRIPS, RING = range(8)
MOVING, HARMONIC = range(2)
LONGEST = 1_000
MOST, SHORTEST = 1e18, 1e-6  # bytes and ms of a transfer that says something


@kernel
def push(estimate: FloatArray, n_bytes: float, ms: float, round_trip_ms: float) -> None:
    """Learn from one observed transfer.

    Parameters
    ----------
    estimate
        As `initial` made it.
    n_bytes, ms
        How many bytes took how long, from the first that could be sent to the last; without the round trip.  Where
        nothing was sent, or it never arrived (ms = inf), or in less than a nanosecond, the rate stays as it is.
    round_trip_ms
        As observed; nan or negative = not observed, and the round trip stays as it is.

    """
    window, weight = whole(estimate[WINDOW]), estimate[WEIGHT]
    if 0.0 < n_bytes < MOST and SHORTEST <= ms < math.inf:
        seen = n_bytes / ms
        if estimate[KIND] == HARMONIC:
            estimate[RING + whole(estimate[RATES] % estimate[WINDOW])] = 1.0 / seen
            total = 0.0
            filled = whole(min(estimate[RATES] + 1.0, estimate[WINDOW]))
            for k in range(filled):
                total += estimate[RING + k]
            estimate[RATE] = filled / total
        elif estimate[RATES] == 0.0:
            estimate[RATE] = seen
        else:
            estimate[RATE] = (1.0 - weight) * estimate[RATE] + weight * seen  # within what was seen, also rounded
        estimate[RATES] += 1.0
    if 0.0 <= round_trip_ms < math.inf:
        if estimate[KIND] == HARMONIC:
            estimate[RING + window + whole(estimate[TRIPS] % estimate[WINDOW])] = round_trip_ms
            total = 0.0
            filled = whole(min(estimate[TRIPS] + 1.0, estimate[WINDOW]))
            for k in range(filled):
                total += estimate[RING + window + k]
            estimate[ROUND_TRIP] = total / filled
        elif estimate[TRIPS] == 0.0:
            estimate[ROUND_TRIP] = round_trip_ms
        else:
            estimate[ROUND_TRIP] = (1.0 - weight) * estimate[ROUND_TRIP] + weight * round_trip_ms
        estimate[TRIPS] += 1.0


@kernel
def rate(estimate: FloatArray) -> float:
    """The rate as estimated, bytes per ms, > 0."""
    return float(estimate[RATE])


@kernel
def round_trip(estimate: FloatArray) -> float:
    """The round trip as estimated, ms."""
    return float(estimate[ROUND_TRIP])


@runtime_checkable
class Estimate(Protocol):
    """An immutable spec of how a link is estimated."""

    def initial(self) -> FloatArray:
        """An estimate that has seen nothing and says what the spec says beforehand; one flat float64 array."""


@dataclass(frozen=True, kw_only=True)
class _Prior:
    """What is believed until the first transfer, which replaces it.

    Parameters
    ----------
    mbit_s
        Rate, in (0, 100,000].
    round_trip_ms
        Round trip, >= 0.

    """

    mbit_s: float = 10.0
    round_trip_ms: float = 50.0

    def __post_init__(self) -> None:
        refuse_rate("mbit_s", self.mbit_s)
        if self.mbit_s == 0.0:
            raise ValueError("mbit_s is 0, allowed is a rate > 0 to start from")
        refuse_round_trip("round_trip_ms", self.round_trip_ms)

    def _made(self, kind: int, weight: float, window: int) -> FloatArray:
        made = np.zeros(RING + 2 * window)
        made[:RING] = (kind, self.mbit_s * BYTES_PER_MS, self.round_trip_ms, weight, window, 0, 0)
        return made


@dataclass(frozen=True, kw_only=True)
class LastThroughput(_Prior):
    """The last transfer, as it was.

    Parameters
    ----------
    mbit_s, round_trip_ms
        What is believed until the first transfer, which replaces it: a rate in (0, 100,000] and ms >= 0.

    Examples
    --------
    >>> from offramp.environments.link_estimate import LastThroughput, push, rate
    >>> estimate = LastThroughput(mbit_s=8.0).initial()
    >>> rate(estimate)
    1000.0
    >>> push(estimate, 5_000.0, 10.0, 30.0)
    >>> rate(estimate)
    500.0

    """

    def initial(self) -> FloatArray:
        """Nothing seen."""
        return self._made(MOVING, 1.0, 0)


@dataclass(frozen=True, kw_only=True)
class EWMA(_Prior):
    """An exponentially weighted moving average of the rates, and of the round trips.

    Parameters
    ----------
    weight
        Of the newest transfer, in (0, 1]; 1 is `LastThroughput`.
    mbit_s, round_trip_ms
        What is believed until the first transfer, which replaces it: a rate in (0, 100,000] and ms >= 0.

    """

    weight: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.weight <= 1.0:
            raise ValueError(f"weight is {self.weight}, allowed is a number in (0, 1]")

    def initial(self) -> FloatArray:
        """Nothing seen."""
        return self._made(MOVING, self.weight, 0)


@dataclass(frozen=True, kw_only=True)
class HarmonicMean(_Prior):
    """The harmonic mean of the last rates, which one fast transfer barely moves; the plain mean of their round trips.

    Parameters
    ----------
    window
        Transfers that count, in 1..1,000; 1 is `LastThroughput`.
    mbit_s, round_trip_ms
        What is believed until the first transfer, which replaces it: a rate in (0, 100,000] and ms >= 0.

    Notes
    -----
    Where all transfers are equally large it is the bytes sent by the time taken.

    """

    window: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.window, int) or isinstance(self.window, bool) or not 1 <= self.window <= LONGEST:
            raise ValueError(f"window is {self.window!r}, allowed is a whole number of transfers in 1..{LONGEST}")

    def initial(self) -> FloatArray:
        """Nothing seen."""
        return self._made(HARMONIC, 0.0, self.window)
