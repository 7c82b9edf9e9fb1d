"""What a candidate would have earned on requests that another policy carried out: bounds, and points where it shows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from offramp.bandits.durable.bounds import value_bounds
from offramp.bandits.reveal import reward
from offramp.bandits.rows import FloatArray


@dataclass(frozen=True, kw_only=True)
class Score:
    """A candidate beside the policy that played, on the requests that it watched.

    Parameters
    ----------
    requests
        n, how many had feedback.
    played
        Mean reward of the policy that played, with half the width of its 95 % interval.
    lowest, highest
        Mean reward that the candidate would have earned at least and at most, each with half the width of its interval:
        what the played decisions did not reveal is taken as bad, then as good, as it can be.
    identified
        Share of requests on which the two are the same number.

    """

    requests: int
    played: tuple[float, float]
    lowest: tuple[float, float]
    highest: tuple[float, float]
    identified: float

    @property
    def better(self) -> bool | None:
        """Is the candidate better whatever was not revealed (True), worse (False), or is it open (None)?"""
        if self.lowest[0] - self.lowest[1] > self.played[0] + self.played[1]:
            return True
        if self.highest[0] + self.highest[1] < self.played[0] - self.played[1]:
            return False
        return None

    def __str__(self) -> str:
        if not self.requests:
            return "no feedback yet"
        shown = (
            f"{name} {mean:.4f} ±{half:.4f}"
            for name, (mean, half) in (("played", self.played), ("at least", self.lowest), ("at most", self.highest))
        )
        return f"{self.requests} requests, {', '.join(shown)}, {self.identified:.0%} identified"


def score(watched: Iterable[tuple[FloatArray, FloatArray, FloatArray]]) -> Score:
    """Sum up what a candidate watched.

    Parameters
    ----------
    watched
        (decision row, observation row, the candidate's decision row) of each request.

    """
    played, lowest, highest, same = _Mean(), _Mean(), _Mean(), 0
    for decision, observation, shadow in watched:
        earned = reward(decision, observation)
        if math.isnan(earned):
            continue  # the answer was lost on its way
        low, high = value_bounds(shadow, observation)
        played.add(earned)
        lowest.add(low)
        highest.add(high)
        same += low == high
    n = played.n
    return Score(
        requests=n,
        played=played.interval(),
        lowest=lowest.interval(),
        highest=highest.interval(),
        identified=same / n if n else 0.0,
    )


class _Mean:
    """A running mean and variance (Welford)."""

    def __init__(self) -> None:
        self.n, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, x: float) -> None:
        """Take one number in."""
        self.n += 1
        apart = x - self.mean
        self.mean += apart / self.n
        self._squares += apart * (x - self.mean)

    def interval(self) -> tuple[float, float]:
        """The mean, and half the width of its 95 % interval; inf where there are too few numbers."""
        if self.n < 2:
            return (self.mean if self.n else math.nan), math.inf
        return self.mean, 1.96 * math.sqrt(self._squares / (self.n - 1) / self.n)
