"""The parent process: listens, starts the learner and the workers, starts anew what dies, and stops in order."""

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from offramp.experiments.service.accepting import AWAY, LOADS, Loads
from offramp.experiments.service.lifeline import READY
from offramp.experiments.service.metrics import FOLDER, gone
from offramp.experiments.service.settings import METRICS, Settings

log = logging.getLogger("offramp.serve")
FIRST_PAUSE, LONGEST_PAUSE, LONG_ENOUGH = 0.05, 5.0, 10.0


class Child:
    """A process that is kept running.

    Parameters
    ----------
    module
        What it runs.
    arguments
        With what.
    fds
        Open files that it gets.
    environment
        Of the process.
    ended
        Told the id of each process that has ended.

    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        fds: tuple[int, ...] = (),
        environment: dict[str, str],
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._command = (sys.executable, "-m", f"offramp.experiments.service.{module}", *arguments)
        self._fds = fds
        self._environment = environment
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self.name = module

    async def run(self) -> None:
        """Keep it running until `stop`.

        Raises
        ------
        OSError
            It ended before it was ready for the first time.

        """
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            started = loop.time()
            status = await self._once()
            if self._stopping.is_set():
                return
            if not self.ready.is_set():
                raise OSError(f"the {self.name} ended with status {status} before it was ready")
            if loop.time() - started > LONG_ENOUGH:
                pause = FIRST_PAUSE
            log.warning("the %s ended with status %s, another one starts in %g s", self.name, status, pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _once(self) -> int:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=pipe,
            stdout=pipe,
            pass_fds=self._fds,
            env=self._environment,
            start_new_session=True,  # an interrupt from the terminal is for the parent, who passes it on in order
        )
        self._process = process
        assert process.stdout is not None
        if self._stopping.is_set():  # while it was being started
            self.stop()
        while line := await process.stdout.readline():
            if line.decode(errors="replace").strip() == READY:
                self.ready.set()
        status = await process.wait()
        self._ended(process.pid)
        return status

    def stop(self) -> None:
        """Ask it to finish: its lifeline is cut."""
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


def listen(settings: Settings) -> socket.socket:
    """The socket that all workers accept connections from.

    Raises
    ------
    OSError
        The address cannot be listened on.

    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(2_048)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise OSError(f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}") from error
    return listening


async def supervise(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """Run the service until SIGTERM or SIGINT.

    Parameters
    ----------
    settings
        Of the service.
    announce
        Told the address once requests are answered.

    Raises
    ------
    OSError
        The address is taken, or a process did not start.

    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    with listen(settings) as listening, tempfile.TemporaryDirectory(prefix="offramp-") as made:
        folder = Path(made)
        settings.make_folder()
        settings.write(folder)
        (folder / METRICS).mkdir()
        environment = {**os.environ, FOLDER: str(folder / METRICS)}
        learner = Child("learner", made, environment=environment)
        number = listening.fileno()
        loads = Loads(folder / LOADS, settings.workers)

        def ended(worker: int, pid: int) -> None:
            loads[worker] = AWAY
            gone(pid, folder / METRICS)

        workers = [
            Child(
                "worker",
                made,
                str(number),
                str(i),
                fds=(number,),
                environment=environment,
                ended=partial(ended, i),
            )
            for i in range(settings.workers)
        ]
        running: list[asyncio.Task[None]] = []
        ending = asyncio.create_task(stopped.wait())
        try:
            for children in ([learner], workers):
                running += [asyncio.create_task(child.run()) for child in children]
                for child in children:
                    await _either(child.ready.wait(), ending, *running)
                if stopped.is_set():  # workers without a learner would only complain
                    break
            if not stopped.is_set():
                host, port = listening.getsockname()[:2]
                announce(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
                await _either(ending, *running)
        finally:
            await _stop(workers, running[1:], settings.drain + 2.0)
            await _stop([learner], running[:1], settings.drain + 2.0)
            ending.cancel()


async def _either(*these: "asyncio.Task[None] | asyncio.Task[bool] | asyncio.Future[bool] | object") -> None:
    """Wait for one of them; what it failed with is raised."""
    tasks = [asyncio.ensure_future(this) for this in these]  # type: ignore[arg-type]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    if not isinstance(these[0], asyncio.Future):
        tasks[0].cancel()


async def _stop(children: list[Child], running: list["asyncio.Task[None]"], seconds: float) -> None:
    """Let them finish; end those that do not."""
    for child in children:
        child.stop()
    if running:
        _, late = await asyncio.wait(running, timeout=seconds)
        if late:
            for child in children:
                child.kill()
            await asyncio.wait(late)
