"""`offramp live`: an hour of requests over a driving link, live and simulated side by side; and the cloud is killed."""

from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from offramp.environments.link_traces import embedded_traces
from offramp.experiments.live.pictures import draw
from offramp.experiments.live.scene import TITLES
from offramp.experiments.live.study import study
from offramp.experiments.live.tables import fill, verdicts
from offramp.experiments.refusals import in_one_line, whole_numbers
from offramp.experiments.written import named_by_cache, run_study

QUICK = {
    "policies": ["split"],
    "requests": 60,
    "segment": 12,
    "repeats": 6,
    "orders": 3,
    "kill": {"policies": ["input"], "requests": 90, "at_s": 1.5, "for_s": 0.5},
}
LEAST = {"requests": 24, "segment": 1, "repeats": 2, "orders": 2}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is played."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    whole_numbers(cfg, LEAST)
    for name in ("every_ms", "scale", "image_price", "power_w", "deadline_ms"):
        if not 0.0 < cfg[name] < float("inf"):
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a finite number > 0")
    if not 1.0 <= cfg.slower < float("inf"):
        raise ValueError(f"slower is {cfg.slower!r}, allowed is a finite factor >= 1")
    if not cfg.every_ms <= 1e3:
        raise ValueError(f"every_ms is {cfg.every_ms!r}, allowed is at most 1,000: an hour is squeezed, not stretched")
    for name, given in (("policies", cfg.policies), ("kill.policies", cfg.kill.policies)):
        if isinstance(given, str) or set(given) - set(TITLES):
            raise ValueError(f"{name} is {given}, allowed is a list of some of {list(TITLES)}")
    if cfg.trace not in embedded_traces():
        raise ValueError(f"trace is {cfg.trace!r}, allowed is one of {list(embedded_traces())}")
    if not (cfg.kill.at_s > 0.0 and cfg.kill.for_s > 0.0):
        raise ValueError(f"kill.at_s is {cfg.kill.at_s} and kill.for_s {cfg.kill.for_s}, allowed are seconds > 0")
    lasts = cfg.kill.requests * cfg.every_ms / 1e3
    if len(cfg.kill.policies) and not cfg.kill.at_s + cfg.kill.for_s < lasts:
        raise ValueError(
            f"kill.at_s + kill.for_s are {cfg.kill.at_s + cfg.kill.for_s} s, allowed is less than the {lasts} s that "
            f"{cfg.kill.requests} requests last"
        )
    return cfg


def run(cfg: DictConfig, folder: Path) -> Path:
    """Play, and write result.json, figures and README.md; what other caches left there stays.

    The record is written after each run, so that a study that was broken off goes on where it was.
    """
    return run_study(folder, partial(study, check(cfg)), draw=named_by_cache(draw), fill=fill, told=verdicts)


@hydra.main(config_path="pkg://offramp.conf", config_name="live", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp live`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
