"""`offramp joint_policy`: every policy, tuned alike, and the joint policy in a fixed suite of worlds."""

import json
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from offramp.experiments.compare import plain
from offramp.experiments.earlier import earlier, write
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.joint_policy.pictures import draw
from offramp.experiments.joint_policy.study import study
from offramp.experiments.joint_policy.suite import reporting
from offramp.experiments.joint_policy.tables import claims, fill
from offramp.experiments.refusals import in_one_line

RESULT, TUNED = "result.json", "tuned.json"
QUICK = {"horizon": 600, "seeds": 2, "trials": 2, "tuning_horizon": 200, "tuning_seeds": 1}
LEAST = {"horizon": 100, "seeds": 2, "trials": 1, "tuning_horizon": 100, "tuning_seeds": 1, "threads": 1}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is written."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    for name, least in LEAST.items():
        if not (isinstance(cfg[name], int) and cfg[name] >= least):
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a whole number, {least} or more")
    for name, allowed in (("worlds", [s.name for s in reporting()]), ("only", list(CONTENDERS))):
        unknown = set(cfg[name] or ()) - set(allowed)
        if unknown or (cfg[name] is not None and len(cfg[name]) == 0):
            raise ValueError(f"{name} are {list(cfg[name])}, allowed are some of {allowed}, or null")
    return cfg


def shortened(value: Any) -> Any:
    """The same with six significant digits: more than any interval here resolves."""
    if isinstance(value, dict):
        return {k: shortened(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shortened(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def run(cfg: DictConfig, folder: Path) -> Path:
    """Tune, play, and write tuned.json, result.json, figures and README.md; what other caches left there stays.

    Both files are written after each policy and each world, so that a run that was broken off goes on where it was.
    """
    cfg = check(cfg)
    console, started = Console(), time.perf_counter()
    path, readme = folder / RESULT, folder / "README.md"
    kept, tuned = earlier(path), earlier(folder / TUNED)
    folder.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        write(path, json.dumps(shortened(plain(kept)), allow_nan=False) + "\n")
        write(folder / TUNED, json.dumps(shortened(plain(tuned)), allow_nan=False, indent=1) + "\n")

    name = study(cfg, kept, tuned, save, console)
    save()
    found = earlier(path)  # what is drawn and told is what was written
    for figure, text in draw(name, found[name]).items():
        write(folder / f"{figure}.svg", text)
    write(readme, fill(readme.read_text(encoding="utf-8") if readme.exists() else None, found))
    for row in claims(found[name]):
        console.print(f"{row['what']}: {row['found']} (wanted: {row['wanted']})", soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.0f} s; {readme.resolve()}", soft_wrap=True)
    return readme


@hydra.main(config_path="pkg://offramp.conf", config_name="joint_policy", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp joint_policy`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
