"""The uplink as a token bucket: the simulator's link decides when each byte of a real socket may leave."""

import threading
from collections.abc import Callable
from typing import NamedTuple

from offramp.environments.link_kernels import LinkArrays, capacity, down, transfer_end
from offramp.environments.live.clock import Clock

CHUNKS = 16  # of a transfer; each is held back until the link would have carried all of it
SMALLEST = 1_024


class Slot(NamedTuple):
    """The time of the link that a transfer has for itself, ms."""

    first: float
    end: float
    bytes: int


class Uplink:
    """One link, one transfer after the other, in the order in which they were ready.

    Parameters
    ----------
    link
        The link from the clock's 0 on.
    clock
        The run's clock.

    Notes
    -----
    As `offramp.environments.timed` has it: what is ready while the link is down is refused at once; what has to queue
    cannot know how the link will be by then; a transfer that a break interrupts goes on after it.  The last byte leaves
    when `transfer_end` says, so a live transfer takes as long as a simulated one.

    """

    def __init__(self, link: LinkArrays, clock: Clock) -> None:
        self.link = link
        self._clock = clock
        self._free = 0.0
        self._lock = threading.Lock()

    @property
    def free(self) -> float:
        """When everything that was accepted will have been sent."""
        return self._free

    def backlog(self, now: float) -> float:
        """Bytes that were accepted and wait to be sent."""
        free = self._free
        return float(capacity(self.link, now, free)) if free > now else 0.0

    def reserve(self, ready: float, n_bytes: int) -> Slot | None:
        """The link's time for a transfer that is ready; None where the link is down, or never carries it."""
        with self._lock:
            first = max(ready, self._free)
            if first == ready and down(self.link, first):
                return None
            end = float(transfer_end(self.link, first, float(n_bytes)))
            if end == float("inf"):
                return None
            self._free = end
            return Slot(first, end, n_bytes)

    def release(self, slot: Slot) -> None:
        """Give back what is left of a transfer that was broken off, where nobody queues behind it."""
        with self._lock:
            if self._free == slot.end:
                self._free = min(self._free, max(slot.first, self._clock.now()))

    def send(self, slot: Slot, write: Callable[[bytes], None], data: bytes) -> bool:
        """Hand the bytes over as the link carries them; False where the run ended first."""
        size = max(SMALLEST, -(-len(data) // CHUNKS))
        for start in range(0, len(data), size):
            part = data[start : start + size]
            if not self._clock.wait(transfer_end(self.link, slot.first, float(start + len(part)))):
                return False
            write(part)
        return True
