"""A Hydra launcher for Ray: each job is a task, on whatever node has a processor free.

The released hydra-ray-launcher 1.2.2 needs cloudpickle < 3 and a cloud provider's client; this one Ray alone.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from offramp.experiments.sweeps.job import record_failure

LOG = logging.getLogger(__name__)
Shared = tuple[HydraContext, DictConfig, TaskFunction, Any, str]


def execute(shared: Shared, number: int, overrides: Sequence[str]) -> JobReturn:
    """Run one job, in a process of the cluster."""
    context, config, function, singletons, here = shared
    if Path(here).is_dir():
        os.chdir(here)  # paths in a configuration are relative to where the sweep was started
    setup_globals()
    Singleton.set_state(singletons)
    made = composed(context, config, number, overrides)
    HydraConfig.instance().set_config(made)
    return run_job(
        hydra_context=context,
        task_function=function,
        config=made,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def composed(context: HydraContext, config: DictConfig, number: int, overrides: Sequence[str]) -> DictConfig:
    """The configuration of one job."""
    made = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(made):
        made.hydra.job.id = f"{made.hydra.job.name}_{number}"
        made.hydra.job.num = number
        made.hydra.sweep.dir = config.hydra.sweep.dir
    return made


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
        folder = Path(self.config.hydra.sweep.dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.copy()
        with open_dict(config):
            config.hydra.sweep.dir = str(folder)
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, **self.init)
        try:
            nodes = sum(node["Alive"] for node in ray.nodes())
            LOG.info("%d jobs on %d nodes of a Ray cluster", len(job_overrides), nodes)
            shared = ray.put((self.context, config, self.function, Singleton.get_state(), str(Path.cwd())))
            task = ray.remote(**self.remote)(execute) if self.remote else ray.remote(execute)
            running = []
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                LOG.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
                running.append(task.remote(shared, number, overrides))
            found = []
            for number, (overrides, reference) in enumerate(zip(job_overrides, running, strict=True), initial_job_idx):
                try:
                    found.append(ray.get(reference))
                except RayError as error:
                    found.append(self.lost(folder, config, number, overrides, error))
            return found
        finally:
            if ours:
                ray.shutdown()

    def lost(
        self, folder: Path, config: DictConfig, number: int, overrides: Sequence[str], error: Exception
    ) -> JobReturn:
        """Record a job whose process died."""
        made = composed(self.context, config, number, overrides)
        HydraConfig.instance().set_config(made)
        output = folder / str(OmegaConf.select(made, "hydra.sweep.subdir"))
        task = made.copy()
        with open_dict(task):
            del task["hydra"]
        record_failure(task, folder, output, f"{type(error).__name__}: {error}")
        done = JobReturn()
        done.return_value, done.status = math.nan, JobStatus.COMPLETED
        return done
