"""What our launchers have in common: one job as a process plays it, and what is kept of one whose process died."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from offramp.experiments.sweeps.job import record_failure

Shared = tuple[HydraContext, DictConfig, TaskFunction, Any, str]


def shared(context: HydraContext, config: DictConfig, function: TaskFunction) -> Shared:
    """What all jobs of a sweep need; makes its folder and names it so that every process finds it."""
    folder = Path(config.hydra.sweep.dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    made = config.copy()
    with open_dict(made):
        made.hydra.sweep.dir = str(folder)
    return context, made, function, Singleton.get_state(), str(Path.cwd())


def execute(given: Shared, number: int, overrides: Sequence[str]) -> JobReturn:
    """Run one job, in a process of the launcher's."""
    context, config, function, singletons, here = given
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


def lost(given: Shared, number: int, overrides: Sequence[str], why: str) -> JobReturn:
    """Record a job whose process died, so that the sweep goes on."""
    context, config = given[:2]
    made = composed(context, config, number, overrides)
    HydraConfig.instance().set_config(made)
    folder = Path(config.hydra.sweep.dir)
    output = folder / str(OmegaConf.select(made, "hydra.sweep.subdir"))
    task = made.copy()
    with open_dict(task):
        del task["hydra"]
    record_failure(task, folder, output, why)
    done = JobReturn()
    done.return_value, done.status = math.nan, JobStatus.COMPLETED
    return done
