"""The learner process: one engine that takes the feedback of all workers, many requests in one transaction."""

import asyncio
import logging
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import uvloop

from offramp.bandits import ContractError, Engine, Observation, Quote
from offramp.bandits.durable import DurableEngine, StoreError
from offramp.experiments.service.frames import (
    DONE,
    REFUSED,
    STATE,
    TAKING,
    UNAVAILABLE,
    UPDATE,
    Frames,
    Item,
    pack_outcomes,
    unpack_feedback,
)
from offramp.experiments.service.lifeline import cut, ready
from offramp.experiments.service.link import CURSOR
from offramp.experiments.service.opening import opened
from offramp.experiments.service.settings import SOCKET, Settings

log = logging.getLogger("offramp.learner")
PROBE = 1.0  # seconds until a store that could not be written is tried again
Asked = tuple["_Connection", int, list[Item]]


class Learner:
    """Gathers what all connections have sent, applies it at once, answers, and publishes what was learnt.

    Parameters
    ----------
    engine
        Open, and owned by this process alone.
    publish_every
        Least seconds between two boards.

    """

    def __init__(self, engine: DurableEngine, *, publish_every: float) -> None:
        self._engine = engine
        self._every = publish_every
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Asked] = []
        self._published = -1
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.TimerHandle | None = None
        self.connections: set[_Connection] = set()
        self.deserted = asyncio.Event()

    def asked(self, connection: "_Connection", kind: int, number: int, payload: bytes) -> None:
        """Take a question of a worker."""
        try:
            if kind == UPDATE:
                if not self._waiting:
                    self._loop.call_soon(self.work)
                self._waiting.append((connection, number, unpack_feedback(payload)))
            elif kind == STATE:
                state = self._engine.state(payload.decode())
                connection.send(DONE, number, CURSOR.pack(self._engine.cursor) + state.astype("<f8").tobytes())
            else:
                raise ValueError(f"kind is {kind}, allowed are {UPDATE} and {STATE}")
        except ValueError as error:  # whoever writes this is no worker of ours, but that is no reason to die
            connection.send(REFUSED, number, str(error).encode())

    def work(self) -> None:
        """Apply all that waits: in one transaction, or, where something of it is refused, one for each request."""
        asked, self._waiting = self._waiting, []
        try:
            outcomes = self._engine.update_many([item for _, _, items in asked for item in items])
        except ContractError:
            for one in asked:
                self._alone(one)
        except StoreError as error:
            self._failed(error)
            for connection, number, _ in asked:
                connection.send(UNAVAILABLE, number, b"the store cannot be written")
        else:
            at = 0
            self._taken()
            for connection, number, items in asked:
                connection.send(DONE, number, pack_outcomes(outcomes[at : at + len(items)]))
                at += len(items)
        if self._timer is None and self._engine.cursor != self._published:
            self._timer = self._loop.call_at(self._last + self._every, self.publish)

    def _alone(self, asked: Asked) -> None:
        connection, number, items = asked
        try:
            connection.send(DONE, number, pack_outcomes(self._engine.update_many(items)))
        except ContractError as error:
            connection.send(REFUSED, number, str(error).encode())
        except StoreError as error:
            self._failed(error)
            connection.send(UNAVAILABLE, number, b"the store cannot be written")

    def greet(self, connection: "_Connection") -> None:
        """A worker has come: what it should know, if anything."""
        self.connections.add(connection)
        if self._probing is not None:
            connection.send(TAKING, 0, b"\0")

    def _failed(self, error: Exception) -> None:
        """The store cannot be written: let the workers know, and look from time to time whether that is over."""
        log.error("%s", error)
        if self._probing is None:
            self._tell(b"\0")
            self._probing = self._loop.call_later(PROBE, self._probe)

    def _probe(self) -> None:
        """A board is written to the same disk, and bears no feedback that could be lost."""
        try:
            self._engine.publish()
        except (StoreError, OSError):
            self._probing = self._loop.call_later(PROBE, self._probe)
        else:
            self._taken()

    def _taken(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
            self._tell(b"\1")

    def _tell(self, taking: bytes) -> None:
        for connection in self.connections:
            connection.send(TAKING, 0, taking)

    def publish(self) -> None:
        """Let the workers decide on what has been learnt by now."""
        self._timer = None
        self._last = self._loop.time()
        try:
            self._engine.publish()
            self._published = self._engine.cursor
        except (StoreError, OSError) as error:  # they go on with the board that they have; the next one may get through
            log.error("no board was published: %s", error)

    def finish(self) -> None:
        """Apply and publish what is left."""
        if self._waiting:
            self.work()
        if self._probing is not None:
            self._probing.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self.publish()


class _Connection(Frames):
    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self._learner = learner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._learner.greet(self)

    def frame(self, kind: int, number: int, payload: bytes) -> None:
        self._learner.asked(self, kind, number, payload)

    def connection_lost(self, _: Exception | None) -> None:
        self._learner.connections.discard(self)
        if not self._learner.connections:
            self._learner.deserted.set()


async def serve(settings: Settings, folder: Path) -> None:
    """Learn until the lifeline is cut, then take what workers still send, and close the store."""
    with opened(settings) as engine:
        _warm_up(engine)
        learner = Learner(engine, publish_every=settings.publish_every)
        learner.publish()
        path = folder / SOCKET
        path.unlink(missing_ok=True)
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(learner), str(path))
        path.chmod(0o600)
        stop = cut()
        ready()
        await stop
        server.close()
        if learner.connections:
            learner.deserted.clear()
            try:
                async with asyncio.timeout(settings.drain):
                    await learner.deserted.wait()
            except TimeoutError:
                log.warning("workers are still connected after %g s", settings.drain)
        learner.finish()


def _warm_up(engine: DurableEngine) -> None:
    """Compile, or load, what learns, before the first feedback has to wait for it."""
    exits = engine.arms.exits
    free = [0.0] * (exits + 1)
    stand_in = Engine(engine.policy, arms=engine.arms, seed=0, features=engine.features)
    try:
        decision = stand_in.decide(Quote(edge_cost=free, offload_cost=free, mu=0.0), [0.0] * engine.features or None)
        seen = [*[math.nan] * (exits - 1), 1.0]
        stand_in.update(decision, Observation(confidence=seen, answered_at=exits, offloaded=decision.cut != exits))
    except ContractError as error:
        log.warning("a first step was refused: %s", error)


def main() -> None:
    """Entry point: the folder of the service is the only argument."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who stops the service stops its parent, which cuts the lifeline
    os.umask(0o077)
    folder, parent = Path(sys.argv[1]), os.getppid()
    try:
        uvloop.run(serve(Settings.read(folder), folder))
    except (StoreError, ValueError, OSError) as error:
        sys.exit(f"offramp serve: {error}")
    finally:
        if os.getppid() != parent:  # it was killed, and takes its folder away no more
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
