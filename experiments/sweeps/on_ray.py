"""A Hydra launcher for Ray: each job is a task, on whatever node has a processor free.

The released hydra-ray-launcher 1.2.2 needs cloudpickle < 3 and a cloud provider's client; this one Ray alone.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from offramp.experiments.sweeps.launching import execute, lost, shared

LOG = logging.getLogger(__name__)


class RayLauncher(Launcher):
    """Runs the jobs of a sweep on a Ray cluster whose nodes share the folder of the sweep.

    Parameters
    ----------
    address
        Of a cluster that runs, "auto" for the one this machine belongs to; None starts one here for the sweep.
    init
        More arguments of `ray.init`.
    remote
        Options of each task, as of `ray.remote`.

    """

    def __init__(
        self,
        address: str | None = None,
        init: Mapping[str, Any] | None = None,
        remote: Mapping[str, Any] | None = None,
    ) -> None:
        self.address = address
        self.init, self.remote = ({**found} if found else {} for found in (init, remote))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs and wait for them."""
        import ray
        from ray.exceptions import RayError

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        given = shared(self.context, self.config, self.function)
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, **self.init)
        try:
            nodes = sum(node["Alive"] for node in ray.nodes())
            LOG.info("%d jobs on %d nodes of a Ray cluster", len(job_overrides), nodes)
            everywhere = ray.put(given)
            task = ray.remote(**self.remote)(execute) if self.remote else ray.remote(execute)
            running = []
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                LOG.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
                running.append(task.remote(everywhere, number, overrides))
            found = []
            for number, (overrides, reference) in enumerate(zip(job_overrides, running, strict=True), initial_job_idx):
                try:
                    found.append(ray.get(reference))
                except RayError as error:
                    found.append(lost(given, number, overrides, f"{type(error).__name__}: {error}"))
            return found
        finally:
            if ours:
                ray.shutdown()
