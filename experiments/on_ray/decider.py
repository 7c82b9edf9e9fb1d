"""A decider inside a replica: decides on the newest board it has, and hands feedback on in the background."""

import contextlib
import logging
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import ray
from ray.exceptions import RayError

from offramp.bandits import ContractError, Observation, Quote, rows
from offramp.bandits.contract import explain
from offramp.bandits.durable import Decider, Ticket
from offramp.bandits.rows import FloatArray
from offramp.bandits.sealed import replace
from offramp.experiments.on_ray.learner import NAMESPACE, REFUSED, Board, Reply

LOG = logging.getLogger(__name__)
AGAIN = 0.5  # seconds until a learner that is not there is looked for again


class RayDecider:
    """Decides where the request is; needs the learner when it starts, and then only to learn.

    Parameters
    ----------
    name, namespace
        Of the learner, see `start_learner`.
    batch
        Most pieces of feedback in one call to the learner.
    every
        Feedback waits at most this long before it is sent, and the board is looked for this often, seconds.
    keep
        Most pieces of feedback that wait here while the learner is away; beyond it the oldest are given up and counted.
    known
        Classes of policies besides those of `offramp.bandits`.

    Raises
    ------
    ValueError
        There is no learner of this name, or a number is out of its range.

    Notes
    -----
    `update` puts the feedback in a queue and returns: it is durable when `flush` has returned True.  A learner that is
    killed loses nothing, for the queue keeps what was not confirmed and sends it again; what was applied already is a
    duplicate then, and is not applied twice.  A replica that is killed loses what is in its queue, as if it had never
    come: about `every` seconds of it while the learner is there.  So call `close` where the framework tells of the end
    (in Ray Serve: `__del__` of the deployment), or `flush` before the request is answered where none may be lost.

    The key that tickets are signed with comes from the learner, through Ray: who can call actors of a cluster can run
    code in it.  Any replica takes the feedback for any other one's tickets.

    """

    def __init__(
        self,
        name: str = "offramp",
        *,
        namespace: str = NAMESPACE,
        batch: int = 256,
        every: float = 0.05,
        keep: int = 65_536,
        known: tuple[type, ...] = (),
    ) -> None:
        if batch < 1 or keep < 1 or not every > 0.0:
            raise ValueError(f"batch is {batch}, keep {keep} and every {every}, allowed are >= 1, >= 1 and > 0")
        self._where = name, namespace
        self._batch, self._every, self._keep = batch, every, keep
        self._learner = ray.get_actor(name, namespace=namespace)
        board, key = ray.get(self._learner.hello.remote())
        self._folder = tempfile.TemporaryDirectory(prefix="offramp-")
        self._file = Path(self._folder.name) / "board"
        self._take(board)
        self._decider = Decider(self._file, key=key, known=known)
        self._deciding = threading.Lock()
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, Observation]] = deque()
        self._sent: Sequence[tuple[str, Observation]] = ()
        self._urgent = self._closing = False
        self.tally: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="offramp-feedback", daemon=True)
        self._thread.start()

    @property
    def cursor(self) -> int:
        """Pieces of feedback in the state that is decided on."""
        return self._decider.cursor

    @property
    def waiting(self) -> int:
        """Pieces of feedback that the learner has not confirmed yet."""
        return len(self._queue) + len(self._sent)

    def decide(
        self, quote: Quote, context: Sequence[float] | FloatArray | None = None, *, stream: str = "default"
    ) -> Ticket:
        """Decide on one request, here; as `offramp.bandits.durable.Decider.decide`."""
        with self._deciding:
            return self._decider.decide(quote, context, stream=stream)

    def read(self, token: str) -> Ticket:
        """The ticket that a token stands for, whichever replica made it.

        Raises
        ------
        TicketError
            The token was not signed with the learner's key.

        """
        return self._decider.read(token)

    def update(self, decision: Ticket | str, observation: Observation) -> None:
        """Take feedback for the learner, and return at once.

        What became of it is counted in `tally`: "counted", "duplicate", "late", "obsolete" as
        `offramp.bandits.durable.Outcome`, "refused" by the learner (the log says why), and "dropped" where more than
        `keep` were waiting.

        Raises
        ------
        ContractError
            The observation cannot have come from this decision, or the token was not signed with the learner's key.

        """
        ticket = self.read(decision) if isinstance(decision, str) else decision
        exits = ticket.exits
        flag = rows.check_observation(ticket.row, observation.row, exits) or rows.check_hidden(observation.row, exits)
        if flag:
            raise ContractError(explain(flag, observation.row, exits))
        token = decision if isinstance(decision, str) else decision.token
        with self._changed:
            self._queue.append((token, observation))
            if len(self._queue) > self._keep:
                self._queue.popleft()
                self.tally["dropped"] += 1
            if len(self._queue) == self._batch:
                self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> bool:
        """Send what waits, and wait until the learner has it on disk.

        Returns
        -------
        bool
            False where it took longer than `timeout` seconds, or this is closed, or Ray was shut down.

        """
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or not self.waiting, timeout)
            return not self.waiting

    def close(self, timeout: float | None = 10.0) -> bool:
        """Flush, and end; False where feedback was given up because the learner did not take it in time."""
        done = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._folder.cleanup()
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        """The only thread that talks to the learner: one call under way at a time, so feedback stays in order."""
        while not self._closing:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._urgent or len(self._queue) >= self._batch, self._every
                )
                take = min(self._batch, len(self._queue))
                self._sent = [self._queue.popleft() for _ in range(take)]
                self._urgent = self._urgent and bool(self._queue)
            reply = self._exchanged()
            if reply is not None:
                self._settle(reply)

    def _exchanged(self) -> Reply | None:
        """What the learner answers, however often it has to be asked; None where this ends first."""
        while not self._closing:
            if not ray.is_initialized():  # else the next call would start a cluster of its own
                with self._changed:
                    self._closing = True
                    self._changed.notify_all()
                return None
            try:
                call = self._learner.exchange.remote(self._sent, self._digest)
                while not self._closing and not ray.wait([call], timeout=AGAIN)[0]:
                    pass
                return None if self._closing else ray.get(call)
            except RayError as error:
                LOG.warning("the learner %r did not take feedback, which waits here: %s", self._where[0], error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, AGAIN)
                with contextlib.suppress(ValueError):  # not there yet: whoever starts it again gives it this name
                    self._learner = ray.get_actor(self._where[0], namespace=self._where[1])
        return None

    def _settle(self, reply: Reply) -> None:
        if reply.board is not None:
            self._take(reply.board)
        with self._changed:
            for outcome in reply.outcomes:
                kind, _, why = outcome.partition(": ")
                self.tally[kind] += 1
                if kind == REFUSED:
                    LOG.warning("feedback was refused: %s", why)
            self._sent = ()
            self._changed.notify_all()

    def _take(self, board: Board) -> None:
        self._digest = board.digest
        replace(self._file, board.content)
