"""A whole service as a child process, for whoever wants one for a while: a test, a benchmark, an example."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Started:
    """A service that runs.

    Parameters
    ----------
    process
        Its parent process.
    url
        Where it answers.

    """

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rsplit(":", 1)[1])

    def children(self, kind: str) -> list[int]:
        """Ids of its processes of a kind, "learner" or "worker", as they are now (on Linux)."""
        of = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        found = []
        for pid in map(int, Path(of).read_text().split()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it has just ended
                continue
            if f"offramp.experiments.service.{kind}".encode() in words:
                found.append(pid)
        return found

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Ask it to stop; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def started(
    store: str | Path, *options: str, environment: Mapping[str, str] | None = None, seconds: float = 120.0
) -> Iterator[Started]:
    """Run `offramp serve` on a free port of loopback until the block ends.

    Parameters
    ----------
    store
        Path of the store.
    options
        Of `offramp serve`, as on its command line; `exits` must be among them for a store that is made.
    environment
        Variables beside this process's own.
    seconds
        How long it may take to start.

    Raises
    ------
    RuntimeError
        It did not start; its message is in the exception's.

    """
    command = [sys.executable, "-m", "offramp.experiments.serve", f"store={store}", "port=0", *options]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env={**os.environ, **(environment or {})}
        )
        assert process.stdout is not None
        try:
            told = process.stdout.readline() if select.select([process.stdout], [], [], seconds)[0] else ""
            if "listening on " not in told:
                process.terminate()
                process.wait(60.0)
                said.seek(0)
                raise RuntimeError(f"the service did not start: {told}{said.read().strip()}")
            yield Started(process, told.split("listening on ")[1].strip())
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(60.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
