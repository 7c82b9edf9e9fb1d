"""One job of a sweep: plays what is not there yet, and leaves its part of the data set and a note that it is done."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from offramp.experiments.earlier import write
from offramp.experiments.playing import Silent, play_all
from offramp.experiments.sweeps import dataset
from offramp.experiments.sweeps.keys import key

DONE = "done.json"
THERE = "there"  # finished by an earlier sweep into the same folder
LOG = logging.getLogger(__name__)


def sweeping() -> bool:
    """Is this process about one job of a sweep?"""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def note(folder: Path, status: str, seconds: float, **more: Any) -> None:
    """Say in a job's own folder that it is over."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / DONE, json.dumps({"status": status, "seconds": seconds, **more}))


def job(cfg: DictConfig) -> float:
    """Play one configuration of a sweep, unless its part is there; returns the mean of its objective.

    Raises
    ------
    ValueError
        The configuration means nothing; the objective is no metric; a file that is read changed meanwhile.

    """
    if cfg.objective not in dataset.METRICS:
        raise ValueError(f"objective is {cfg.objective!r}, allowed are {', '.join(dataset.METRICS)}")
    hydra = HydraConfig.get()
    begun = time.perf_counter()
    path = dataset.part(Path(hydra.sweep.dir), name := key(cfg))
    status = THERE if dataset.state(path) in (dataset.FINISHED, dataset.REFUSED) else dataset.FINISHED
    if status != THERE:
        played = play_all(cfg, Silent())
        made = dataset.rows(cfg, played, time.perf_counter() - begun)
        if made[0]["key"] != name:
            raise ValueError("a file that this run reads changed while it was played; start the sweep again")
        path = dataset.write_part(Path(hydra.sweep.dir), made)
        status = str(dataset.state(path))
    seconds = time.perf_counter() - begun
    note(Path(hydra.runtime.output_dir), status, seconds, key=name)
    LOG.info("%s in %.1f s: %s", status, seconds, path.name)
    return objective(path, str(cfg.objective))


def objective(path: Path, metric: str) -> float:
    """Mean of a metric over all rows of a part; nan where it has none."""
    found = dataset.pq.read_table(path, columns=[metric]).column(metric).to_numpy()
    known = found[~np.isnan(found)]
    return float(known.mean()) if len(known) else math.nan


def record_failure(cfg: DictConfig, folder: Path, output: Path, why: str, seconds: float = math.nan) -> None:
    """Keep what made a run fail: as a note and, unless its result was written before, as a part of the data set."""
    try:
        made = dataset.failure(cfg, why, seconds)
        if dataset.state(dataset.part(folder, made[0]["key"])) in (dataset.FINISHED, dataset.REFUSED):
            LOG.warning("it failed when its result was there: the result stays")
        else:
            dataset.write_part(folder, made)
    except (ValueError, OSError) as error:  # what does not resolve, or names no cache, has no key: the note must do
        LOG.warning("not in the data set: %s", error)
    try:
        note(output, dataset.FAILED, seconds, why=why)
    except OSError as error:  # raised further it would end the sweep
        LOG.warning("no note of it: %s", error)
