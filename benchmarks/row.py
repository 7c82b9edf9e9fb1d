"""One row of the table, and how its number is taken: in turns, often, and with the spread shown."""

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measurement and what was asked of it.

    Parameters
    ----------
    what
        What was measured.
    value, low, high
        Median and quartiles; nan where nothing could be measured.
    unit
        Of the three.
    count
        How many measurements they are taken from.
    target
        What was asked for; None: shown for orientation only.
    at_least
        Is the target a lower bound?
    note
        What else a reader should know; why there is no value, where there is none.
    reason
        Why the target is missed, should it be.

    """

    what: str
    value: float
    low: float
    high: float
    unit: str
    count: int
    target: float | None = None
    at_least: bool = False
    note: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Met, missed, failed where there is no number, "" where nothing was asked."""
        if self.value != self.value:
            return "failed"
        if self.target is None:
            return ""
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return "met" if met else "missed"

    @property
    def goal(self) -> str:
        """The target as text."""
        return "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}".strip()


def of(what: str, values: Iterable[float], unit: str, **more: object) -> Row:
    """A row from repeated measurements."""
    found = np.array(list(values), dtype=np.float64)
    low, middle, high = np.percentile(found, (25, 50, 75))
    return Row(what=what, value=float(middle), low=float(low), high=float(high), unit=unit, count=len(found), **more)


def failed(what: str, why: str, **more: object) -> Row:
    """A row without a number, and the reason."""
    nan = float("nan")
    return Row(what=what, value=nan, low=nan, high=nan, unit="", count=0, note=why, **more)


def seconds(job: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """How long one call takes."""
    start = clock()
    job()
    return clock() - start


def in_turns(jobs: list[Callable[[], object]], repeats: int, clock: Clock = time.perf_counter) -> np.ndarray:
    """Seconds of each job in each repeat, (repeats, jobs), played in turns so that all meet the same machine.

    The first repeat warms up and is not kept.  Work on one thread is best timed by that thread's own clock.
    """
    taken = np.empty((repeats + 1, len(jobs)))
    gc.collect()
    gc.disable()
    try:
        for r in range(repeats + 1):
            for j, job in enumerate(jobs):
                taken[r, j] = seconds(job, clock)
    finally:
        gc.enable()
    return taken[1:]
