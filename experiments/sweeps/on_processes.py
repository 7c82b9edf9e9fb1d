"""A Hydra launcher for the processors of one machine, over the processes of joblib.

The released hydra-joblib-launcher 1.2.0 ends a sweep when one of its processes dies, and forgets which job it played.
Here every process is a pool of its own: one that is killed, as for want of memory, costs the one job that it played.
"""

import atexit
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from offramp.experiments.sweeps.launching import execute, lost, shared

if TYPE_CHECKING:
    from concurrent.futures import Future

LOG = logging.getLogger(__name__)
IDLE = 60.0  # seconds after which a process without a job ends: none stays for good where the sweep was killed
THREADS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")


class Process:
    """A process that plays one job after another; where it died, the next job gets a new one.

    Parameters
    ----------
    environment
        Environment variables that the process has beside ours.

    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment, self.pool = environment, self.begin(environment)

    @staticmethod
    def begin(environment: dict[str, str]) -> Any:
        """Make a pool of one."""
        from joblib.externals.loky import ProcessPoolExecutor

        return ProcessPoolExecutor(max_workers=1, timeout=IDLE, env=environment)

    def submit(self, *given: Any) -> "Future[JobReturn]":
        """Play a job."""
        from joblib.externals.loky import BrokenProcessPool

        try:
            future: Future[JobReturn] = self.pool.submit(execute, *given)
        except BrokenProcessPool:
            self.pool = self.begin(self.environment)
            future = self.pool.submit(execute, *given)
        return future


class JoblibLauncher(Launcher):
    """Runs the jobs of a sweep on processes of this machine.

    Parameters
    ----------
    n_jobs
        How many processes: 1 or more; -1 is one for each processor, -2 one fewer, and so on.

    Raises
    ------
    ValueError
        The number means nothing.

    """

    def __init__(self, n_jobs: int = -1) -> None:
        if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
            raise ValueError(f"n_jobs is {n_jobs!r}, allowed is a whole number but 0 (-1: all processors)")
        self.n_jobs = n_jobs
        self.processes: list[Process] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs and wait for them."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            LOG.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
        self.grow(len(job_overrides))
        try:
            return self.play(job_overrides, initial_job_idx)
        except BaseException:  # whatever ends the sweep ends its processes too
            self.end(kill=True)
            raise

    def end(self, kill: bool = False) -> None:
        """End all processes."""
        while self.processes:
            self.processes.pop().pool.shutdown(wait=True, kill_workers=kill)

    def grow(self, jobs: int) -> None:
        """Have as many processes as the jobs can use; those of an earlier batch are used again."""
        from joblib import cpu_count, effective_n_jobs

        wanted = effective_n_jobs(self.n_jobs)
        each = str(max(1, cpu_count() // wanted))
        names = [*(f"{library}_NUM_THREADS" for library in THREADS), "VECLIB_MAXIMUM_THREADS"]
        environment = {name: os.environ.get(name, each) for name in names}
        atexit.unregister(self.end)
        atexit.register(self.end)  # not after each batch: a search would begin all of them anew with every trial
        for _ in range(len(self.processes), min(wanted, jobs)):
            self.processes.append(Process(environment))
        LOG.info("%d jobs on %d processes", jobs, min(wanted, jobs))

    def play(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Give each process that is free the next job, until all are over."""
        from joblib.externals.loky import FIRST_COMPLETED, BrokenProcessPool, wait

        given = shared(self.context, self.config, self.function)
        free, found = list(self.processes), {}
        ahead = list(enumerate(job_overrides, initial_job_idx))[::-1]
        running: dict[Future[JobReturn], tuple[Process, int, Sequence[str]]] = {}
        while ahead or running:
            while ahead and free:
                process, (number, overrides) = free.pop(), ahead.pop()
                running[process.submit(given, number, overrides)] = process, number, overrides
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                process, number, overrides = running.pop(future)
                try:
                    found[number] = future.result()
                except BrokenProcessPool as error:
                    LOG.error("#%d is lost: the process that played it died", number)
                    found[number] = lost(given, number, overrides, f"the process that played it died\n{error}")
                free.append(process)
        return [found[number] for number in sorted(found)]
