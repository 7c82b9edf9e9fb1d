"""Deciding on what a learner knows: in its own process, and in any other by the board that it publishes."""

import os
import secrets
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp.bandits import sealed
from offramp.bandits.arms import Arms
from offramp.bandits.contract import Observation, Quote
from offramp.bandits.durable.fold import SCHEMA, Fold
from offramp.bandits.durable.follower import Follower
from offramp.bandits.durable.store import StoreError
from offramp.bandits.durable.tickets import Signer, Ticket
from offramp.bandits.engine import DEFAULT
from offramp.bandits.policy import Policy
from offramp.bandits.rows import FloatArray
from offramp.bandits.sealed import SealedError

OPEN = 65_536  # decisions whose marks on the state are kept in mind at once
# What a board must agree on with the one before for its states to be taken as they are.
FIXED = ("identity", "learner", "candidate", "arms", "features", "generation", "streams", "share")
_ALL: "weakref.WeakSet[Ahead]" = weakref.WeakSet()


class Ahead:
    """A copy of a learner's knowledge that runs ahead of it: it also counts what was decided and not answered yet.

    Parameters
    ----------
    fold
        What the learner knows.
    signer
        What signs the tickets.
    seed
        Of the copy's own random numbers; None = the learner's, so that both draw the same.

    """

    def __init__(self, fold: Fold, signer: Signer, *, seed: int | None = None) -> None:
        theirs = fold.learner
        self.engine = Follower(
            theirs.policy,
            arms=theirs.arms,
            seed=theirs.seed if seed is None else seed,
            features=theirs.features,
            open_decisions=OPEN,
            compiled=fold.compiled,
        )
        self.cursor, self.generation = fold.cursor, fold.generation
        self.candidate, self.share, self._watched = fold.candidate, fold.share, 0.0
        self._sign = signer.token
        if seed is None:
            for name in theirs.streams:
                self.engine.resume(name, theirs.state(name), theirs.randomness(name))
        else:
            self.engine.adopt({name: theirs.state(name) for name in theirs.streams})
        self._epochs: dict[str, int] = {}
        self.part()
        _ALL.add(self)

    def part(self) -> None:
        """From now on no ticket is one that another copy of this could make."""
        self._epochs = {name: secrets.randbits(63) for name in self.engine.streams}

    def decide(self, quote: Quote, context: Sequence[float] | FloatArray | None, stream: str) -> Ticket:
        """Decide on one request."""
        made, shadow = self.engine.decide(quote, context, stream=stream), None
        if self.candidate is not None:
            self._watched += self.share
            if self._watched >= 1.0:
                self._watched -= 1.0
                shadow = self.candidate.preview(quote, context, stream=stream)
        return Ticket(
            made.row,
            made.id,
            stream,
            epoch=self._epochs[stream],
            cursor=self.cursor,
            generation=self.generation,
            shadow=shadow,
            sign=self._sign,
        )

    def learn(self, ticket: Ticket, observation: Observation) -> None:
        """Learn what the learner has just learnt."""
        mine = ticket.epoch == self._epochs.get(ticket.stream)
        if not (mine and self.engine.update(ticket, observation)):
            self.engine.follow(ticket, observation, made_here=ticket.generation == self.generation)


def _forked() -> None:
    """A child process goes on with a copy of each: what both decide must not bear the same number."""
    for ahead in _ALL:
        ahead.part()
        ahead.engine.scatter(secrets.randbits(63))


os.register_at_fork(after_in_child=_forked)


class Decider:
    """Decides in any process, on the newest board of a learner; it never writes and never learns.

    Parameters
    ----------
    board
        The file `<store>.board` that `DurableEngine.publish` writes.
    key
        Secret of the tickets, 32 bytes: that of the learner.
    compiled, known
        As for `DurableEngine`.

    Raises
    ------
    StoreError
        There is no board yet.
    SealedError
        The board is damaged.  Later it is not raised: decisions go on with the last good one, and `damaged` says why.

    """

    def __init__(self, board: str | Path, *, key: bytes, compiled: bool = True, known: tuple[type, ...] = ()) -> None:
        self._board, self._key = os.path.realpath(board), key
        self.damaged: str | None = None
        self._compiled, self._known = compiled, known
        self._stamp: tuple[int, int, int] | None = None
        self._fixed: dict[str, Any] = {}
        self._ahead: Ahead
        self.refresh()

    @property
    def policy(self) -> Policy:
        """The policy that plays."""
        return self._ahead.engine.policy

    @property
    def arms(self) -> Arms:
        """The table of arms."""
        return self._ahead.engine.arms

    @property
    def features(self) -> int:
        """Context features."""
        return self._ahead.engine.features

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams."""
        return self._ahead.engine.streams

    @property
    def cursor(self) -> int:
        """Lines of the learner's log that the board knows of."""
        return self._ahead.cursor

    def state(self, stream: str = DEFAULT) -> FloatArray:
        """What was learnt, with what was decided here since the board."""
        return self._ahead.engine.state(stream)

    def refresh(self) -> bool:
        """Take a newer board if there is one; True where there was."""
        try:
            found = os.stat(self._board)  # noqa: PTH116  (half the time of Path.stat, on every decision)
        except OSError as error:
            if self._stamp is not None:
                return False  # decisions go on with what is known
            raise StoreError(f"board {self._board} is missing: a learner writes it by `publish`") from error
        stamp = found.st_ino, found.st_mtime_ns, found.st_size
        if stamp == self._stamp:
            return False
        first, self._stamp = self._stamp is None, stamp  # a damaged one is read once
        try:
            self._take(sealed.read(self._board))
            self.damaged = None
        except SealedError as error:
            if first:
                raise
            self.damaged = str(error)
            return False
        return True

    def _take(self, raw: bytes) -> None:
        where = f"board {self._board}"
        tensors, kept = sealed.parse(raw, where, SCHEMA)
        fixed = {name: kept.get(name) for name in FIXED}
        if fixed != self._fixed or "candidate" in kept:
            fold = Fold.unpacked(raw, where, compiled=self._compiled, known=self._known)
            self._signer = Signer(self._key, fold.identity)
            self._ahead = Ahead(fold, self._signer, seed=secrets.randbits(63))
        else:
            self._ahead.engine.adopt({name: tensors[f"learner.{i}"] for i, name in enumerate(kept["streams"])})
            self._ahead.cursor = kept["cursor"]
        self._fixed = fixed

    def decide(
        self, quote: Quote, context: Sequence[float] | FloatArray | None = None, *, stream: str = DEFAULT
    ) -> Ticket:
        """Decide on one request; as `Engine.decide`."""
        self.refresh()
        return self._ahead.decide(quote, context, stream)

    def read(self, token: str) -> Ticket:
        """The ticket behind a token.

        Raises
        ------
        TicketError
            It was not signed with this key.

        """
        return self._signer.read(token)
