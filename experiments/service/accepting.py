"""Accepts connections so that the workers who wait at one socket share them out evenly."""

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("offramp.worker")
AWAY = 2**32 - 1  # connections of a worker that takes none
LOADS = "connections"
GRACE = 0.002  # seconds that a worker with more connections leaves to one with fewer
PAUSE = 0.5  # seconds without accepting, where this process may have no more open files


class Loads:
    """How many connections each worker has, in memory that all of them share.

    Parameters
    ----------
    path
        The file behind it; made where it is missing.
    workers
        How many there are.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     here, there = (Loads(Path(folder) / "connections", 2) for _ in range(2))
    ...     here[0], there[1] = 3, 1
    ...     here.least, there[0]
    (1, 3)

    """

    def __init__(self, path: Path, workers: int) -> None:
        with path.open("a+b") as file:
            file.truncate(4 * workers)
            self._numbers = memoryview(mmap.mmap(file.fileno(), 4 * workers)).cast("I")

    def __getitem__(self, worker: int) -> int:
        return self._numbers[worker]

    def __setitem__(self, worker: int, connections: int) -> None:
        self._numbers[worker] = connections

    @property
    def least(self) -> int:
        """Of the worker that has the fewest."""
        return min(self._numbers)


class Accepting:
    """Takes connections from a listening socket that other processes listen on as well.

    An event loop's own server accepts whatever waits: the process that happens to run gets every connection of a client
    that opens several, and the others stay idle.  Here one that has more than another leaves it the time to be first.

    Parameters
    ----------
    listening
        The socket; it does not block.
    protocol
        Makes what serves one connection.
    loads, own
        Of all workers, and which of them this one is.

    """

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], *, loads: Loads, own: int
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._loads, self._own = loads, own
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._listen()

    def stop(self) -> None:
        """Leave what still comes to the other processes."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listening)

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._waits)

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(seconds, then)

    def _waits(self) -> None:
        if self._loads[self._own] > self._loads.least:
            self._later(GRACE, self._after_all)
        else:
            self._accept()

    def _after_all(self) -> None:
        self._listen()
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another process was faster, or the client has gone
            return
        except OSError as error:
            log.error("no connection can be accepted: %s", error)
            self._later(PAUSE, self._listen)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()
