"""The claim that a sweep has on its folder: one sweep at a time writes there."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"
LOG = logging.getLogger(__name__)


def claim(folder: Path) -> int | None:
    """Take a folder; the system frees it when this process ends, however it does.

    Returns
    -------
    int or None
        What `os.close` takes to free it sooner; None, with a warning, where it cannot be locked.

    Raises
    ------
    ValueError
        Another sweep has it.

    """
    lock = None
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError as error:
        assert lock is not None
        who = os.pread(lock, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ValueError(
            f"another sweep writes into {folder} ({who}), allowed is one at a time; more jobs of one sweep run with a "
            "launcher"
        ) from error
    except OSError as error:
        if lock is not None:
            os.close(lock)
        LOG.warning("%s cannot be locked (%s): start no other sweep into it meanwhile", folder, error.strerror)
        return None
    return lock


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Have a folder for a while.

    Raises
    ------
    ValueError
        Another sweep has it.

    """
    lock = claim(folder)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)
