"""A circuit breaker: after failures in a row the cloud is not asked, until it has been seen alive again."""

import threading
from dataclasses import dataclass

from offramp.bandits.policy import positive
from offramp.environments.live.clock import Clock

CLOSED, HALF_OPEN, OPEN = "closed", "half-open", "open"


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """When the cloud counts as lost, and how often it is looked for.

    Parameters
    ----------
    failures
        Failures in a row that open the circuit, >= 1.
    retry_ms
        Milliseconds from then to the first look, > 0; twice as many after each attempt that failed,
    longest_ms
        up to so many, at least as many.

    """

    failures: int = 3
    retry_ms: float = 500.0
    longest_ms: float = 3_000.0

    def __post_init__(self) -> None:
        if not isinstance(self.failures, int) or isinstance(self.failures, bool) or self.failures < 1:
            raise ValueError(f"failures is {self.failures!r}, allowed is a whole number >= 1")
        positive("retry_ms", self.retry_ms, zero=False)
        positive("longest_ms", self.longest_ms, zero=False)
        if self.longest_ms < self.retry_ms:
            raise ValueError(f"longest_ms is {self.longest_ms}, allowed is retry_ms {self.retry_ms} or more")


class Circuit:
    """The state of one circuit: closed = the cloud is asked, open = it is not, half-open = one request tries.

    `changes` lists (ms, state) of every change.  What a request meets says something about the period between two
    changes in which it was admitted: one that fails later, when the circuit has changed, changes it no more.
    """

    def __init__(self, spec: Breaker, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._wait = spec.retry_ms
        self._trying = False
        self.state = CLOSED
        self.look_at = 0.0
        self.changes: list[tuple[float, str]] = []

    def allows(self) -> bool:
        """May an offload be offered now?"""
        with self._lock:
            return self.state == CLOSED or (self.state == HALF_OPEN and not self._trying)

    def admit(self) -> int:
        """The number of this period, from 1 on, for a request that may be sent; 0: it may not.

        Where half-open the first that asks is the one that tries.
        """
        with self._lock:
            if self.state == OPEN or self._trying:
                return 0
            self._trying = self.state == HALF_OPEN
            return self._period

    def failed(self, period: int) -> None:
        """A request that was admitted in this period failed."""
        with self._lock:
            if period != self._period:
                return
            self._in_a_row += 1
            self._trying = False
            if self.state == HALF_OPEN:
                self._later()
                self._become(OPEN)
            elif self.state == CLOSED and self._in_a_row >= self._spec.failures:
                self.look_at = self._clock.now() + self._wait
                self._become(OPEN)

    def worked(self) -> None:
        """An answer came, and it was one."""
        with self._lock:
            self._in_a_row, self._wait, self._trying = 0, self._spec.retry_ms, False
            if self.state != CLOSED:
                self._become(CLOSED)

    def spared(self, period: int) -> None:
        """A request that was admitted in this period was not sent after all."""
        with self._lock:
            self._trying &= period != self._period

    def seen(self, alive: bool) -> None:
        """What a look at the cloud found."""
        with self._lock:
            if self.state == OPEN and alive:
                self._become(HALF_OPEN)
            elif self.state == OPEN:
                self._later()

    @property
    def _period(self) -> int:
        return len(self.changes) + 1

    def _later(self) -> None:
        self._wait = min(2.0 * self._wait, self._spec.longest_ms)
        self.look_at = self._clock.now() + self._wait

    def _become(self, state: str) -> None:
        self.state = state
        self.changes.append((self._clock.now(), state))
