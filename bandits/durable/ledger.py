"""The ledger: a store and the fold over its log, always in step, whatever fails on the way."""

import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from offramp.bandits.contract import ContractError, Observation
from offramp.bandits.durable.fold import Fold
from offramp.bandits.durable.follower import Mark
from offramp.bandits.durable.store import FIRST, LATEST, Entry, Store, StoreError
from offramp.bandits.durable.tickets import Ticket

Key = tuple[int, int]  # maker and number of a ticket
SNAPSHOT_EVERY = 256  # pieces of feedback: what is folded anew, a microsecond each, when a store is opened


class Outcome(StrEnum):
    """What became of a piece of feedback."""

    COUNTED = "counted"  # it is in the log, and learnt
    DUPLICATE = "duplicate"  # it was in the log already
    LATE = "late"  # it is older than the window allows: neither logged nor learnt
    OBSOLETE = "obsolete"  # it is in the log, and taught nothing: its arm is played no more


class Ledger:
    """What is known, and the log that it follows from.

    Parameters
    ----------
    path, synchronous
        As for `offramp.bandits.durable.store.Store`.
    lateness, keep
        As for `offramp.bandits.durable.DurableEngine`.
    compiled, known
        As for `offramp.bandits.durable.fold.Fold`.

    """

    def __init__(
        self,
        path: str | Path,
        synchronous: str,
        *,
        lateness: int,
        keep: int | None,
        compiled: bool,
        known: tuple[type, ...],
    ) -> None:
        if lateness < 1 or (keep is not None and keep < lateness):
            raise ValueError(f"lateness is {lateness} and keep {keep}, allowed are >= 1 and >= lateness, or None")
        self.lateness, self.keep, self._process = lateness, keep, os.getpid()
        self._compiled, self._known = compiled, known
        self.store = Store(path, synchronous)
        self.path = self.store.path
        self.fold: Fold

    @property
    def new(self) -> bool:
        """Is there nothing in the store yet?"""
        with self._reading():
            return self.store.snapshot(LATEST) is None

    def begin_with(self, raw: bytes, cursor: int) -> None:
        """Fill a new store with a snapshot."""
        with self.store.transaction():
            for name in (FIRST, LATEST):
                self.store.keep(name, cursor, raw)

    def load(self) -> None:
        """Know what the store says."""
        fold = self._folded(LATEST)
        with self._reading():
            self._snapshot_at, first = self.store.cursor(LATEST), self.store.cursor(FIRST)
            window = list(self.store.tickets(fold.cursor - self.lateness))
        self.fold, self._first = fold, first
        self._counted, self._order = set[Key](), deque[tuple[int, Key]]()
        self._taken(((epoch, number), seq) for seq, epoch, number in window)

    def take(self, feedback: Sequence[tuple[Ticket, Observation]]) -> list[Outcome]:
        """Take a batch in one transaction: all of it or, where something is refused, nothing.

        Raises
        ------
        ContractError
            An observation cannot have come from its decision.
        StoreError
            The store cannot be written.

        """
        self._check_process()
        fold, cursor = self.fold, self.fold.cursor
        due = cursor + len(feedback) - self._snapshot_at >= SNAPSHOT_EVERY
        outcomes, marks, taken = list[Outcome](), list[list[Mark]](), dict[Key, int]()
        try:
            with self.store.transaction(statements=len(feedback) + due):
                for ticket, observation in feedback:
                    outcomes.append(self._take(ticket, observation, marks, taken))
                if due:
                    self.store.keep(LATEST, fold.cursor, fold.packed())
        except (ContractError, StoreError) as error:
            fold.cursor = cursor
            for kept in reversed(marks):
                _undo(kept)
            if isinstance(error, ContractError) and len(feedback) > 1:
                raise type(error)(f"feedback {len(outcomes)} of {len(feedback)}: {error}") from error
            raise
        except BaseException:
            self.load()  # interrupted before or after it was written: the store knows
            raise
        self._taken(taken.items())
        if due:
            self._snapshot_at = fold.cursor
        if self.keep is not None:
            self._trim(self.keep)
        return outcomes

    def happen(self, kind: str, **detail: Any) -> None:
        """Let an event happen to the fold and in the log, or nowhere."""
        self._check_process()
        try:
            with self.store.transaction():
                self.fold.happen(kind, detail)
                self.store.log_event(self.fold.cursor, kind, detail)
                self.store.keep(LATEST, self.fold.cursor, self.fold.packed())
        finally:
            self.load()  # what the store says now, whether or not this went well

    def verify(self) -> None:
        """Fold the log anew, and compare.

        Raises
        ------
        StoreError
            It does not give what is known, bit for bit.

        """
        if self._folded(FIRST) != self.fold:
            raise StoreError(f"store {self.path}: its log, folded anew, does not give what is known now")

    def close(self) -> None:
        """Write what the next start would fold anew, and let go of the store; once more does nothing."""
        if self.store.closed:
            return
        try:
            with self.store.transaction():
                self.store.keep(LATEST, self.fold.cursor, self.fold.packed())
        finally:
            self.store.close()

    def _check_process(self) -> None:
        if self.store.closed:
            raise StoreError(f"store {self.path} is closed, allowed is to open it again")
        if os.getpid() != self._process:
            raise StoreError(f"store {self.path} is its parent process's, allowed is to learn there alone")

    def _take(
        self, ticket: Ticket, observation: Observation, marks: list[list[Mark]], taken: dict[Key, int]
    ) -> Outcome:
        """Take one piece, and note how to undo it.  Learnt first, and written by one statement that may stand alone."""
        fold, key = self.fold, (ticket.epoch, ticket.id)
        if fold.cursor - ticket.cursor > self.lateness or ticket.cursor < self._first:
            return Outcome.LATE
        if key in self._counted or key in taken:
            return Outcome.DUPLICATE
        if ticket.stream not in fold.learner.streams:
            raise ContractError(f"stream {ticket.stream!r} is not open, allowed are {list(fold.learner.streams)}")
        marks.append(fold.marks(ticket.stream))
        taught = fold.take(ticket, observation, ticket.generation)
        self.store.log(
            fold.cursor,
            ticket.epoch,
            ticket.id,
            ticket.generation,
            ticket.stream,
            ticket.row,
            observation.row,
            ticket.shadow,
            ticket.cursor,
        )
        taken[key] = fold.cursor
        return Outcome.COUNTED if taught else Outcome.OBSOLETE

    def _taken(self, found: Iterable[tuple[Key, int]]) -> None:
        """Know a duplicate of these from now on, and forget those that the window of lateness refuses anyway."""
        for key, seq in found:
            self._counted.add(key)
            self._order.append((seq, key))
        oldest = self.fold.cursor - self.lateness
        while self._order and self._order[0][0] <= oldest:
            self._counted.discard(self._order.popleft()[1])

    def _folded(self, name: str, until: int | None = None) -> Fold:
        """What follows from a snapshot and the log behind it, or a part of that.

        Raises
        ------
        StoreError
            What is in the store cannot be read, or was never learnt from.

        """
        with self._reading():
            raw = self.store.snapshot(name)
            if raw is None:
                raise StoreError(f"store {self.path} has no snapshot {name!r}: it is damaged")
            fold = Fold.unpacked(raw, f"store {self.path}", compiled=self._compiled, known=self._known)
            self._go_on(fold, until)
        return fold

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Whatever comes of reading what is damaged is a StoreError."""
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise StoreError(f"store {self.path} is damaged ({error})") from error

    def _go_on(self, fold: Fold, until: int | None) -> None:
        entries: Iterable[Entry] = self.store.entries(fold.cursor, until)
        for entry in entries:
            if entry.seq != fold.cursor + 1:
                raise StoreError(f"store {self.path}: line {fold.cursor + 1} of its log is missing")
            fold.apply(entry)

    def _trim(self, keep: int) -> None:
        """Take away what the log need not keep, once there is a good piece of it.

        What is taken away is older than the window of lateness, so that a duplicate of it is refused as late.
        """
        if self.fold.cursor - self._first < keep + max(keep // 2, SNAPSHOT_EVERY):
            return
        base = self._folded(FIRST, self.fold.cursor - keep)
        with self.store.transaction():
            self.store.keep(FIRST, base.cursor, base.packed())
            self.store.drop(base.cursor)
        self._first = base.cursor


def _undo(marks: Sequence[Mark]) -> None:
    for mark in marks:
        mark.undo()
