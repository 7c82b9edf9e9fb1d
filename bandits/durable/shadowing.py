"""What a candidate would have earned on requests that another policy carried out: bounds, and points where it shows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from offramp.bandits import rows
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


def value_bounds(row: FloatArray, observation: FloatArray) -> tuple[float, float]:
    """The least and the most reward that a rule can have had on a request, by what another rule revealed of it.

    Parameters
    ----------
    row
        Decision row of the rule in question, with the quote.
    observation
        What was revealed by the rule that was played.

    Returns
    -------
    tuple
        Both ends; they are equal where the answer shows.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.bandits import Arms, Engine, Fixed, Observation, Quote
    >>> engine = Engine(Fixed(cut=1, threshold=0.8), arms=Arms.grid(exits=2, thresholds=(0.8,)), seed=0)
    >>> row = engine.decide(Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)).row
    >>> seen = Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False)
    >>> tuple(round(v, 6) for v in value_bounds(row, seen.row))
    (0.8, 0.8)
    >>> unsure = Observation(confidence=[0.6, float("nan")], answered_at=1, offloaded=False)
    >>> tuple(round(v, 6) for v in value_bounds(row, unsure.row))
    (-0.3, 0.7)

    """
    exits, cut, mu = int(row[rows.EXITS]), int(row[rows.CUT]), row[rows.MU]
    rule, offers = rows.thresholds_at(exits), rows.offload_cost_at(exits)
    low, high = math.inf, -math.inf
    for j in range(cut):
        threshold, seen = row[rule + j], observation[rows.CONFIDENCE + j]
        if threshold == math.inf:
            continue
        price = mu * row[rows.COSTS + j + 1]
        if seen >= threshold:
            return float(min(low, seen - price)), float(max(high, seen - price))
        if math.isnan(seen) and threshold <= 1.0:
            low, high = min(low, max(threshold, 0.0) - price), max(high, 1.0 - price)
            if threshold <= 0.0:
                return float(low), float(high)
    last = observation[rows.CONFIDENCE + exits - 1]
    price = mu * (row[rows.COSTS + cut] + row[offers + cut]) if mu > 0.0 else 0.0
    worst, best = (0.0, 1.0) if math.isnan(last) else (last, last)
    return float(min(low, worst - price)), float(max(high, best - price))


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
