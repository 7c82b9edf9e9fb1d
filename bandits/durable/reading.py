"""Reads a store and leaves it as it is: no migration, no recovery, no lock file, nothing new beside it."""

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from offramp.bandits.durable.store import APPLICATION, SCHEMA, Store, StoreError

# A store of the first schema did not write down how much a decision knew; a temporary view stands before the table.
FIRST_SCHEMA = "create temp view feedback as select *, null as cursor from main.feedback"
ALLOWED = "allowed is one that a durable engine wrote"
Signature = list[tuple[int, int, int]]


class _Read(Store):
    """The part of a store that reads, on a connection that cannot write to the file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.closed = path, False
        self._connection, self._run = connection, connection.execute


@contextmanager
def reading(path: str | Path) -> Iterator[Store]:
    """A store to be read inside; no learner may have it open.

    Parameters
    ----------
    path
        The file.  Where a learner was killed, its log goes on in `<path>-wal`: then both are read from a copy in the
        system's folder for temporary files.

    Raises
    ------
    StoreError
        There is no store, it is empty, damaged or of a later schema, a learner has it open, or it was written to
        meanwhile.

    Examples
    --------
    >>> import os, tempfile
    >>> from offramp.bandits import UCB1, Arms
    >>> from offramp.bandits.durable import DurableEngine
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "store")
    >>> DurableEngine(path, UCB1(), arms=Arms.grid(exits=2), key=bytes(32)).close()
    >>> with reading(path) as store:
    ...     store.count()
    0
    >>> folder.cleanup()

    """
    real = Path(os.path.realpath(path))  # SQLite follows links, so the lock must
    with ExitStack() as stack:
        try:
            if not real.is_file():
                raise StoreError(f"store {path} is no file, {ALLOWED}")
            before = _signature(real)
            if not before[0][1]:
                raise StoreError(f"store {path} is empty, {ALLOWED}")
            _share(real, stack)
            connection = _connected(real, stack)
        except OSError as error:
            raise StoreError(f"store {path} cannot be read ({error.strerror}), {ALLOWED}") from error
        try:
            _check(real, connection)
            yield _Read(real, connection)
        except sqlite3.Error as error:
            raise StoreError(f"store {path} cannot be read ({error}), {ALLOWED}") from error
        if _signature(real) != before:
            raise StoreError(f"store {path} was written to while it was read, allowed is one that no learner has open")


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _signature(path: Path) -> Signature:
    """Tells whether the store or what it goes on in was written to."""
    found = []
    for part in (path, _wal(path)):
        with suppress(FileNotFoundError):
            fact = part.stat()
            found.append((fact.st_ino, fact.st_size, fact.st_mtime_ns))
    return found


def _share(path: Path, stack: ExitStack) -> None:
    """Keep learners away where there is a lock; where there is none, none ever opened this file under its name."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreError(f"store {path} is open in another learner, allowed is one that none has, or a copy") from error


def _connected(path: Path, stack: ExitStack) -> sqlite3.Connection:
    options = "mode=ro&immutable=1"  # with mode=ro alone SQLite makes -wal and -shm
    wal = _wal(path)
    if wal.exists() and wal.stat().st_size:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="offramp-store-")))
        shutil.copyfile(wal, _wal(folder / path.name))
        path, options = Path(shutil.copyfile(path, folder / path.name)), "mode=rw"
    connection = sqlite3.connect(f"{path.as_uri()}?{options}", uri=True, isolation_level=None, check_same_thread=False)
    stack.callback(connection.close)
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    run = connection.execute
    (application,), (version,) = run("pragma application_id").fetchone(), run("pragma user_version").fetchone()
    if application != APPLICATION or not 1 <= version <= SCHEMA:
        raise StoreError(
            f"store {path} is of application {application:#x} and schema {version}, allowed are {APPLICATION:#x} and "
            f"1 to {SCHEMA}: it was made by something else, or by a later version"
        )
    run("pragma temp_store=memory")
    if version == 1:
        run(FIRST_SCHEMA)
