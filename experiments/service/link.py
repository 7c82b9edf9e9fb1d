"""A worker's connection to the learner: asks, waits, connects again, and asks again what was left without an answer."""

import asyncio
import struct
from collections.abc import Callable, Sequence

import numpy as np

from offramp.bandits.durable import Outcome
from offramp.bandits.rows import FloatArray
from offramp.experiments.service.frames import (
    DONE,
    REFUSED,
    STATE,
    TAKING,
    UPDATE,
    Frames,
    Item,
    pack_feedback,
    unpack_outcomes,
)
from offramp.experiments.service.refused import Refused

OPEN = 4_096
CURSOR = struct.Struct("<Q")


class Link:
    """Feedback on its way to the learner.

    What is sent again after the learner came back is applied once: the learner's log knows every decision.

    Parameters
    ----------
    path
        Of the learner's socket.
    wait
        Seconds that a question may stay open.
    changed
        Called with whether feedback can be taken, whenever that may have changed.

    """

    def __init__(self, path: str, *, wait: float, changed: Callable[[bool], None] = lambda _: None) -> None:
        self._path = path
        self._wait = wait
        self._changed = changed
        self._open: dict[int, tuple[int, bytes, asyncio.Future[tuple[int, bytes]]]] = {}
        self._next = 0
        self._connection: _Connection | None = None
        self._taking = True

    @property
    def up(self) -> bool:
        """Is the learner there, and can it take feedback?"""
        return self._connection is not None and self._taking

    async def run(self) -> None:
        """Keep connected until cancelled."""
        loop = asyncio.get_running_loop()
        pause = 0.01
        while True:
            try:
                _, connection = await loop.create_unix_connection(lambda: _Connection(self._answered), self._path)
            except OSError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.25)
                continue
            pause = 0.01
            self._connection = connection
            self._changed(self.up)
            for number, (kind, payload, _) in self._open.items():
                connection.send(kind, number, payload)
            try:
                await connection.closed
            finally:
                self._connection, self._taking = None, True
                connection.close()
                self._changed(False)

    async def update(self, items: Sequence[Item]) -> list[Outcome]:
        """Have feedback applied, all of it or none.

        Raises
        ------
        Refused
            The learner did not take it (422), or is not there (503).

        """
        return unpack_outcomes(await self._ask(UPDATE, pack_feedback(items)))

    async def state(self, stream: str) -> tuple[int, FloatArray]:
        """Cursor and state of a stream, as the learner has them now."""
        found = await self._ask(STATE, stream.encode())
        return CURSOR.unpack_from(found)[0], np.frombuffer(found, dtype="<f8", offset=CURSOR.size).astype(np.float64)

    async def _ask(self, kind: int, payload: bytes) -> bytes:
        if len(self._open) >= OPEN:
            raise _unavailable("too much feedback waits for the learner")
        number, self._next = self._next, self._next + 1
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._open[number] = kind, payload, answer
        if self._connection is not None:
            self._connection.send(kind, number, payload)
        try:
            async with asyncio.timeout(self._wait):
                kind, found = await answer
        except TimeoutError:
            raise _unavailable("the learner does not answer") from None
        finally:
            del self._open[number]
        if kind == DONE:
            return found
        if kind == REFUSED:
            raise Refused(422, found.decode())
        raise _unavailable(found.decode())

    def _answered(self, kind: int, number: int, payload: bytes) -> None:
        if kind == TAKING:
            self._taking = payload != b"\0"
            self._changed(self.up)
            return
        waiting = self._open.get(number)
        if waiting is not None and not waiting[2].done():
            waiting[2].set_result((kind, payload))


class _Connection(Frames):
    def __init__(self, answered: Callable[[int, int, bytes], None]) -> None:
        super().__init__()
        self._answered = answered
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def frame(self, kind: int, number: int, payload: bytes) -> None:
        self._answered(kind, number, payload)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def _unavailable(why: str) -> Refused:
    """Feedback is applied once however often it is sent, so that sending it again is always right."""
    return Refused(503, f"{why}: send the same request again, it is applied once", retry_after=1)
