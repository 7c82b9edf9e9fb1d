"""The store: one SQLite file with the feedback log, the snapshots that it is folded from, and what happened besides."""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp.bandits.rows import FloatArray

APPLICATION = 0x0FF4A3B0  # says in the file's header whose it is
SCHEMA = 2
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
FIRST, LATEST = "first", "latest"  # snapshots: where the log begins, and one from which little is left to fold
BIAS = 1 << 63  # numbers up to 2^64 - 1 are kept as SQLite's signed ones

TABLES = """
create table snapshots (name text primary key, cursor integer not null, content blob not null) without rowid;
create table feedback (
    seq integer primary key, epoch integer not null, number integer not null, generation integer not null,
    stream text not null, decision blob not null, observation blob not null, shadow blob, cursor integer
);
create table events (seq integer primary key, kind text not null, detail text not null);
"""
# What makes a store of each earlier schema one of the next.
MIGRATIONS = {1: "alter table feedback add column cursor integer"}


class StoreError(RuntimeError):
    """The store cannot be opened, written or trusted; what was in it is unchanged."""


class Entry(NamedTuple):
    """One line of the log: a piece of feedback, or an event where `kind` is not None.

    `cursor` says how many lines the decision was made with; None where that was not written down (schema 1).
    """

    seq: int
    kind: str | None
    detail: Mapping[str, Any]
    epoch: int
    number: int
    generation: int
    stream: str
    decision: FloatArray
    observation: FloatArray
    shadow: FloatArray | None
    cursor: int | None = None


class Store:
    """The one writing connection to a store.

    Parameters
    ----------
    path
        The file; made where it is missing, together with `<path>.lock`, and SQLite's `-wal` and `-shm`.  One of an
        earlier schema becomes one of this schema, in one transaction.
    synchronous
        SQLite's setting.  After a killed process nothing is lost with any of them.  After a power loss: FULL and EXTRA
        lose nothing that `update` has returned for; NORMAL may lose the last feedback, as if it had never come, and
        stays consistent; OFF may damage the file.

    Raises
    ------
    StoreError
        Another learner has it open, or the file is no store or of a later schema.

    """

    def __init__(self, path: str | Path, synchronous: str = "NORMAL") -> None:
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous is {synchronous!r}, allowed are {SYNCHRONOUS}")
        self.path = Path(os.path.realpath(path))  # SQLite follows links, so the lock must
        self.closed = False
        self._lock = _locked(self.path)
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(synchronous)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StoreError(f"store {self.path} cannot be opened ({error}), allowed is a file made here") from error
        except StoreError:
            os.close(self._lock)
            raise
        self._run = self._connection.execute

    def _prepare(self, synchronous: str) -> None:
        run = self._connection.execute
        (application,), (version,) = run("pragma application_id").fetchone(), run("pragma user_version").fetchone()
        (tables,) = run("select count(*) from sqlite_master").fetchone()
        if tables and (application != APPLICATION or not 1 <= version <= SCHEMA):
            raise StoreError(
                f"store {self.path} is of application {application:#x} and schema {version}, allowed are "
                f"{APPLICATION:#x} and 1 to {SCHEMA}: it was made by something else, or by a later version"
            )
        run("pragma locking_mode=exclusive")  # nobody else has the file open: no shared memory, fewer system calls
        if run("pragma journal_mode=wal").fetchone() != ("wal",):
            raise StoreError(f"store {self.path} is where SQLite keeps no write-ahead log, allowed is a local disk")
        run(f"pragma synchronous={synchronous}")
        if not tables:
            run("begin immediate")
            for statement in filter(str.strip, TABLES.split(";")):
                run(statement)
            run(f"pragma application_id={APPLICATION}")
            run(f"pragma user_version={SCHEMA}")
            run("commit")
        elif version < SCHEMA:
            run("begin immediate")
            for earlier in range(version, SCHEMA):
                run(MIGRATIONS[earlier])
            run(f"pragma user_version={SCHEMA}")
            run("commit")

    def transaction(self, *, statements: int = 2) -> "Transaction":
        """All of what is written inside, or nothing; a single statement is a transaction by itself.

        Raises
        ------
        StoreError
            On leaving: the disk is full or refuses to be written; nothing of it was.

        """
        return Transaction(self, statements > 1)

    def log(
        self,
        seq: int,
        epoch: int,
        number: int,
        generation: int,
        stream: str,
        decision: FloatArray,
        observation: FloatArray,
        shadow: FloatArray | None,
        cursor: int,
    ) -> None:
        """Write one piece of feedback."""
        self._run(
            "insert into feedback values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                seq,
                epoch - BIAS,
                number,
                generation,
                stream,
                decision.tobytes(),
                observation.tobytes(),
                None if shadow is None else shadow.tobytes(),
                cursor,
            ),
        )

    def tickets(self, after: int) -> Iterator[tuple[int, int, int]]:
        """Place in the log, maker and number of each piece of feedback behind a cursor, in order."""
        wanted = "select seq, epoch, number from feedback where seq > ? order by seq"
        for seq, epoch, number in self._run(wanted, (after,)):
            yield seq, epoch + BIAS, number

    def log_event(self, seq: int, kind: str, detail: Mapping[str, Any]) -> None:
        """Write one event."""
        self._run("insert into events values (?, ?, ?)", (seq, kind, json.dumps(detail, sort_keys=True)))

    def keep(self, name: str, cursor: int, content: bytes) -> None:
        """Write a snapshot in the place of the one of this name."""
        self._run("insert or replace into snapshots values (?, ?, ?)", (name, cursor, content))

    def snapshot(self, name: str) -> bytes | None:
        """The snapshot of this name; None in a store that was just made."""
        found = self._run("select content from snapshots where name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def cursor(self, name: str) -> int:
        """Where the snapshot of this name stands in the log."""
        return int(self._run("select cursor from snapshots where name = ?", (name,)).fetchone()[0])

    def entries(self, after: int, until: int | None = None) -> Iterator[Entry]:
        """The log behind a cursor, in its order."""
        last = until if until is not None else (1 << 62)
        nothing = np.zeros(0)
        events = {
            seq: Entry(seq, kind, json.loads(detail), 0, 0, 0, "", nothing, nothing, None)
            for seq, kind, detail in self._run(
                "select * from events where seq > ? and seq <= ? order by seq", (after, last)
            )
        }
        pending = iter(sorted(events))
        event = next(pending, None)
        for seq, epoch, number, generation, stream, decision, observation, shadow, cursor in self._run(
            "select * from feedback where seq > ? and seq <= ? order by seq", (after, last)
        ):
            while event is not None and event < seq:
                yield events[event]
                event = next(pending, None)
            yield Entry(
                seq,
                None,
                {},
                epoch + BIAS,
                number,
                generation,
                stream,
                np.frombuffer(decision).copy(),
                np.frombuffer(observation).copy(),
                None if shadow is None else np.frombuffer(shadow).copy(),
                cursor,
            )
        while event is not None:
            yield events[event]
            event = next(pending, None)

    def drop(self, until: int) -> None:
        """Take the log up to a cursor away."""
        self._run("delete from feedback where seq <= ?", (until,))
        self._run("delete from events where seq <= ?", (until,))

    def count(self) -> int:
        """Pieces of feedback in the log."""
        return int(self._run("select count(*) from feedback").fetchone()[0])

    def close(self) -> None:
        """Let go of the file, with everything in it and nothing beside it; once more does nothing."""
        if self.closed:
            return
        self.closed = True
        self._connection.close()
        os.close(self._lock)


class Transaction:
    """A context in which all is written or nothing; not a generator, which would cost a tenth of an update."""

    __slots__ = ("_several", "_store")

    def __init__(self, store: Store, several: bool) -> None:
        self._store, self._several = store, several

    def __enter__(self) -> None:
        if self._several:
            try:
                self._store._run("begin immediate")
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        connection = self._store._connection
        try:
            if error is None and self._several:
                self._store._run("commit")
        except sqlite3.Error as failure:
            error = failure
        finally:
            if self._several and connection.in_transaction:
                self._store._run("rollback")
        if isinstance(error, sqlite3.Error):
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> StoreError:
        return StoreError(f"store {self._store.path} cannot be written ({error}); nothing of this was learnt")


def _locked(path: Path) -> int:
    """A lock that the system frees when this process ends, however it does."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"store {path} cannot be opened ({error.strerror}), allowed is a path in a folder that exists"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(f"store {path} is open in another learner, allowed is one at a time") from error
    return lock
