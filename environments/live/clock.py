"""Milliseconds since a run began, on the clock that nobody can set; and waiting for a moment or for the end."""

import heapq
import threading
import time
from collections.abc import Callable


class Clock:
    """Counts from when it is made.  Setting the wall clock changes nothing."""

    def __init__(self) -> None:
        self._zero = time.monotonic()
        self.ended = threading.Event()

    def now(self) -> float:
        """Milliseconds since the beginning."""
        return 1e3 * (time.monotonic() - self._zero)

    def wait(self, until_ms: float) -> bool:
        """Wait until a moment; False where the run ended before."""
        while (left := until_ms - self.now()) > 0.0:
            if self.ended.wait(min(left / 1e3, 3600.0)):
                return False
        return not self.ended.is_set()


class Alarms:
    """Calls what was asked for at its moment, in one thread, in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._count = 0
        self._open = True
        self._thread = threading.Thread(target=self._run, name="offramp alarms", daemon=True)
        self._thread.start()

    def at(self, ms: float, call: Callable[[], None]) -> None:
        """Have something called at a moment, or at once where that has passed."""
        with self._changed:
            heapq.heappush(self._heap, (ms, self._count, call))
            self._count += 1
            self._changed.notify()

    def close(self) -> None:
        """End the thread; what is left is not called."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._open and not (self._heap and self._heap[0][0] <= self._clock.now()):
                    left = self._heap[0][0] - self._clock.now() if self._heap else 3.6e6
                    self._changed.wait(max(left, 0.0) / 1e3)
                if not self._open:
                    return
                _, _, call = heapq.heappop(self._heap)
            call()
