"""Links that are drawn from a seed: a Markov chain over rates, and outages over any other link."""

import math
from dataclasses import dataclass, field

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments.links import (
    BYTES_PER_MS,
    Energy,
    Link,
    LinkArrays,
    arrays_to,
    refuse_duration,
    refuse_rate,
    refuse_round_trip,
)

MARKOV, OUTAGES = 11, 12  # what sets their draws apart from the others of the same seed
DRAWN = 1_024


@dataclass(frozen=True, kw_only=True)
class Markov:
    """A link that stays in a state for an exponentially distributed time, then moves to another.

    Parameters
    ----------
    states
        (rate in Mbit/s, round trip in ms, mean time in the state in ms) of each; a rate of 0 is an outage, and at
        least one rate is above it.  The first state is any of them, each equally likely.
    transition
        Probability of each next state, one row for each state that is left, each in [0, 1] and 1 in all; a state that
        follows itself stays for one more such time.  None = each other state is equally likely.
    energy
        What the radio draws.

    Examples
    --------
    >>> from offramp.environments.drawn_links import Markov
    >>> link = Markov(states=((20.0, 30.0, 4_000.0), (1.0, 80.0, 1_000.0)))
    >>> made = link.arrays(duration_ms=10_000.0, seed=0)
    >>> set((made.rate / 125.0).tolist()) == {20.0, 1.0}, float(made.ends[-1])
    (True, 10000.0)

    """

    states: tuple[tuple[float, float, float], ...]
    transition: tuple[tuple[float, ...], ...] | None = None
    energy: Energy = field(default_factory=Energy)

    def __post_init__(self) -> None:
        if not self.states or any(len(state) != 3 for state in self.states):
            raise ValueError(f"states are {self.states}, allowed is one or more (mbit_s, round_trip_ms, mean_ms)")
        made = tuple((float(rate), float(trip), float(mean)) for rate, trip, mean in self.states)
        object.__setattr__(self, "states", made)
        for k, (rate, trip, mean) in enumerate(self.states):
            refuse_rate(f"states[{k}][0]", rate)
            refuse_round_trip(f"states[{k}][1]", trip)
            _mean(f"states[{k}][2]", mean)
        if not any(rate > 0.0 for rate, _, _ in self.states):
            raise ValueError(f"states are {self.states}, allowed is at least one with a rate > 0")
        if self.transition is not None:
            object.__setattr__(self, "transition", tuple(tuple(float(p) for p in row) for row in self.transition))
            self._refuse_transition()

    def _refuse_transition(self) -> None:
        assert self.transition is not None
        n = len(self.states)
        if len(self.transition) != n or any(len(row) != n for row in self.transition):
            raise ValueError(f"transition is {self.transition}, allowed are {n} rows of {n} probabilities")
        for k, row in enumerate(self.transition):
            if not all(0.0 <= p <= 1.0 for p in row) or abs(sum(row) - 1.0) > 1e-9:
                raise ValueError(f"transition[{k}] is {row}, allowed are probabilities in [0, 1] that sum to 1")

    def _next(self) -> FloatArray:
        """Distribution functions of the next state, (states, states)."""
        n = len(self.states)
        if self.transition is None:
            rows = np.ones((1, 1)) if n == 1 else (1.0 - np.eye(n)) / (n - 1)
        else:
            rows = np.array(self.transition)
        return np.cumsum(rows, axis=1)

    def arrays(self, *, duration_ms: float, seed: int) -> LinkArrays:
        """States until the duration is over, from spec and seed alone; a longer duration continues a shorter one."""
        refuse_duration(duration_ms)
        rng = np.random.default_rng(np.random.SeedSequence((seed, MARKOV)))
        n, following = len(self.states), self._next()
        at, now = int(rng.random() * n), 0.0
        ends: list[float] = []
        visited: list[int] = []
        while now < duration_ms:
            for stay, move in rng.random((DRAWN, 2)):
                now += -self.states[at][2] * math.log1p(-stay)
                ends.append(now)
                visited.append(at)
                if now >= duration_ms:
                    break
                at = min(int(np.searchsorted(following[at], move, side="right")), n - 1)
        ends[-1] = duration_ms
        table = np.array(self.states)[visited]
        return arrays_to(ends, table[:, 0], table[:, 1])


@dataclass(frozen=True, kw_only=True)
class Outages:
    """Another link, with times in which nothing can be sent.

    Parameters
    ----------
    link
        The link when it is up; it may know outages of its own.
    outages
        (start, length) of each in ms, in order and apart from one another; what lies beyond the duration is left out.
    mean_up_ms, mean_down_ms
        Means of the exponentially distributed times between outages, and of their lengths, both > 0; the link is up
        at 0.  Either these two or `outages`.

    Examples
    --------
    >>> from offramp.environments.drawn_links import Outages
    >>> from offramp.environments.links import Constant, transfer_end
    >>> link = Outages(link=Constant(mbit_s=8.0), outages=((100.0, 50.0),)).arrays(duration_ms=1_000.0, seed=0)
    >>> transfer_end(link, 90.0, 20_000.0)  # 10 ms before the outage, 10 ms after it
    160.0

    """

    link: Link
    outages: tuple[tuple[float, float], ...] = ()
    mean_up_ms: float | None = None
    mean_down_ms: float | None = None

    def __post_init__(self) -> None:
        drawn = (self.mean_up_ms, self.mean_down_ms)
        if bool(self.outages) != (drawn == (None, None)) or (None in drawn and drawn != (None, None)):
            read = f"outages are {self.outages}, mean_up_ms {drawn[0]} and mean_down_ms {drawn[1]}"
            raise ValueError(f"{read}, allowed is either a list of outages or both means")
        for name in ("mean_up_ms", "mean_down_ms"):
            if getattr(self, name) is not None:
                _mean(name, getattr(self, name))
        if any(len(outage) != 2 for outage in self.outages):
            raise ValueError(f"outages are {self.outages}, allowed are pairs (start_ms, length_ms)")
        object.__setattr__(self, "outages", tuple((float(start), float(length)) for start, length in self.outages))
        before = 0.0
        for k, (start, length) in enumerate(self.outages):
            if not before <= start < math.inf or not 0.0 < length < math.inf:
                allowed = f"a start of at least {before} ms, the end of the one before, and a length > 0 ms"
                raise ValueError(f"outages[{k}] is {(start, length)}, allowed is {allowed}")
            before = start + length

    @property
    def energy(self) -> Energy:
        """That of the link when it is up."""
        return self.link.energy

    def arrays(self, *, duration_ms: float, seed: int) -> LinkArrays:
        """The link until the duration is over, without its rate in the outages."""
        refuse_duration(duration_ms)
        inner = self.link.arrays(duration_ms=duration_ms, seed=seed)
        starts, stops = self._periods(duration_ms, seed)
        period = inner.ends[-1]
        turns = np.arange(math.ceil(duration_ms / period)) * period
        marks = np.concatenate([(turns[:, None] + inner.ends).ravel(), starts, stops, [duration_ms]])
        ends = np.unique(marks[(marks > 0.0) & (marks <= duration_ms)])
        middle = ends - np.diff(ends, prepend=0.0) / 2.0
        at = np.searchsorted(inner.ends, middle % period, side="right").clip(0, len(inner.ends) - 1)
        last = np.searchsorted(starts, middle, side="right") - 1
        out = (last >= 0) & (middle < np.concatenate([stops, [0.0]])[last])
        return arrays_to(ends, np.where(out, 0.0, inner.rate[at] / BYTES_PER_MS), inner.round_trip[at])

    def _periods(self, duration_ms: float, seed: int) -> tuple[FloatArray, FloatArray]:
        """Start and stop of each outage, in order."""
        if self.mean_up_ms is None or self.mean_down_ms is None:
            listed = np.array(self.outages)
            return listed[:, 0], listed.sum(axis=1)
        level, inner = 0, self.link
        while isinstance(inner, Outages):  # two layers must not draw the same outages
            level, inner = level + 1, inner.link
        rng = np.random.default_rng(np.random.SeedSequence((seed, OUTAGES, level)))
        means = np.array([self.mean_up_ms, self.mean_down_ms])
        drawn = np.zeros(0)
        while drawn.sum() < duration_ms:
            drawn = np.concatenate([drawn, (-means * np.log1p(-rng.random((DRAWN, 2)))).ravel()])
        changes = np.cumsum(drawn)
        return changes[::2], changes[1::2]


def _mean(name: str, ms: float) -> None:
    if not 0.001 <= ms < math.inf:
        raise ValueError(f"{name} is {ms!r}, allowed is a mean time in ms >= 0.001")
