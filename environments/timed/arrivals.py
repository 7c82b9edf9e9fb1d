"""When requests arrive: at a fixed pace, at random, or as they were listed; rebuilt from spec and seed."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from offramp.bandits.policy import positive
from offramp.bandits.rows import FloatArray


@runtime_checkable
class Arrivals(Protocol):
    """An immutable spec of when requests arrive."""

    def times(self, n: int, seed: int) -> FloatArray:
        """Milliseconds at which the first n requests arrive, from 0 on, not decreasing; more of them start alike."""


@dataclass(frozen=True, kw_only=True)
class Paced:
    """One request every so many milliseconds, as frames of a camera.

    Examples
    --------
    >>> from offramp.environments.timed import Paced
    >>> Paced(every_ms=40.0).times(3, seed=0)
    array([ 0., 40., 80.])

    """

    every_ms: float = 100.0

    def __post_init__(self) -> None:
        positive("every_ms", self.every_ms, zero=False)

    def times(self, n: int, seed: int) -> FloatArray:
        """Multiples of the pace."""
        times: FloatArray = np.arange(n, dtype=np.float64) * float(self.every_ms)
        return times


@dataclass(frozen=True, kw_only=True)
class Poisson:
    """Requests that come independently of each other, so many a second in the mean."""

    per_second: float = 10.0

    def __post_init__(self) -> None:
        positive("per_second", self.per_second, zero=False)

    def times(self, n: int, seed: int) -> FloatArray:
        """Sums of exponential gaps."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, 3)))
        return np.asarray(np.cumsum(rng.exponential(1e3 / self.per_second, n)))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Requests at the times of a list, in milliseconds, not decreasing; after its end it starts again.

    Parameters
    ----------
    at_ms
        When they arrive, >= 0.
    period_ms
        How long the list lasts, at least up to its last time and > 0.

    """

    at_ms: tuple[float, ...]
    period_ms: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_ms", tuple(float(x) for x in self.at_ms))
        positive("period_ms", self.period_ms, zero=False)
        if not self.at_ms:
            raise ValueError("at_ms is empty, allowed is one time or more")
        before = 0.0
        for i, now in enumerate(self.at_ms):
            if not before <= now <= self.period_ms:
                raise ValueError(
                    f"at_ms[{i}] is {now}, allowed is {before} to {self.period_ms}: in order, within the period"
                )
            before = now

    def times(self, n: int, seed: int) -> FloatArray:
        """The list, again and again."""
        k = np.arange(n)
        times: FloatArray = np.array(self.at_ms)[k % len(self.at_ms)] + k // len(self.at_ms) * self.period_ms
        return times
