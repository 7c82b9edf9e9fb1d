"""`offramp joint_policy`: every policy, tuned alike, and the joint policy in a fixed suite of worlds."""

import json
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from offramp.experiments.earlier import earlier, significant, write
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.joint_policy.pictures import draw
from offramp.experiments.joint_policy.study import study
from offramp.experiments.joint_policy.suite import reporting
from offramp.experiments.joint_policy.tables import claims, fill
from offramp.experiments.refusals import in_one_line, whole_numbers
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.written import Save, run_study

TUNED = "tuned.json"
QUICK = {"horizon": 600, "seeds": 2, "trials": 2, "tuning_horizon": 200, "tuning_seeds": 1}
LEAST = {"horizon": 100, "seeds": 2, "trials": 1, "tuning_horizon": 100, "tuning_seeds": 1, "threads": 1}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is written."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    whole_numbers(cfg, LEAST)
    for name, allowed in (("worlds", [s.name for s in reporting()]), ("only", list(CONTENDERS))):
        unknown = set(cfg[name] or ()) - set(allowed)
        if unknown or (cfg[name] is not None and len(cfg[name]) == 0):
            raise ValueError(f"{name} are {list(cfg[name])}, allowed are some of {allowed}, or null")
    return cfg


def told(found: Any) -> str:
    """What the console says: what was claimed, and what was found."""
    return "\n".join(f"{row['what']}: {row['found']} (wanted: {row['wanted']})" for row in claims(found))


def run(cfg: DictConfig, folder: Path) -> Path:
    """Tune, play, and write tuned.json, result.json, figures and README.md; what other caches left there stays.

    Both files are written after each policy and each world, so that a run that was broken off goes on where it was.
    """
    cfg = check(cfg)

    def measure(kept: dict[str, Any], save: Save, console: Console) -> str:
        tuned = earlier(folder / TUNED)

        def save_both() -> None:
            save()
            write(folder / TUNED, json.dumps(significant(plain(tuned)), allow_nan=False, indent=1) + "\n")

        name = study(cfg, kept, tuned, save_both, console)
        save_both()
        return name

    return run_study(folder, measure, draw=draw, fill=fill, told=told, shorten=significant)


@hydra.main(config_path="pkg://offramp.conf", config_name="joint_policy", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp joint_policy`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
