"""`offramp deadline`: missed deadlines against calibration and policy, in a world in time."""

from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from offramp.experiments.deadline.pictures import draw
from offramp.experiments.deadline.study import study
from offramp.experiments.deadline.tables import fill, verdicts
from offramp.experiments.refusals import in_one_line, whole_numbers
from offramp.experiments.written import run_study

QUICK = {
    "horizon": 512,
    "seeds": 2,
    "exits": [2],
    "targets": [0.8],
    "target": 0.8,
    "cascade": 2,
    "priced": [100, 200, 500],
}
LEAST = {"horizon": 1, "batch": 1, "seeds": 2, "threads": 1, "buffer": 0}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is played."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    whole_numbers(cfg, LEAST)
    if cfg.horizon % cfg.batch:
        raise ValueError(f"horizon is {cfg.horizon}, allowed is a whole number of batches of {cfg.batch}")
    for name in ("slow", "calm_ms", "load"):
        if not cfg[name] > 0.0:
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a number > 0")
    for name in ("deadlines", "priced", "tables", "exits", "targets", "calibrations", "mixed", "links"):
        if not cfg[name]:
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is one or more")
    if not all(d > 0.0 for d in (*cfg.deadlines, *cfg.priced)):
        raise ValueError(f"deadlines are {[*cfg.deadlines, *cfg.priced]}, allowed are milliseconds > 0")
    for name, within in (("priced", "deadlines"), ("tables", "priced")):
        if not set(cfg[name]) <= set(cfg[within]):
            raise ValueError(f"{name} are {list(cfg[name])}, allowed are some of {within}, {list(cfg[within])}")
    if not all(0.0 < p < 1.0 for p in cfg.targets) or cfg.target not in cfg.targets:
        raise ValueError(
            f"targets are {list(cfg.targets)}, allowed are numbers in (0, 1), target {cfg.target} among them"
        )
    if cfg.cascade not in cfg.exits:
        raise ValueError(f"cascade is {cfg.cascade}, allowed is one of exits, {list(cfg.exits)}")
    return cfg


def run(cfg: DictConfig, folder: Path) -> Path:
    """Play, and write result.json, figures and README.md; what other caches left there stays.

    The record is written after each block, so that a run that was broken off goes on where it was.
    """
    return run_study(folder, partial(study, check(cfg)), draw=draw, fill=fill, told=verdicts)


@hydra.main(config_path="pkg://offramp.conf", config_name="deadline", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp deadline`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
