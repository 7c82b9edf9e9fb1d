"""`offramp expert_branches`: experts for distorted images, a router and calibration against pristine exits."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.experiments.earlier import open_cache, shortened, title
from offramp.experiments.expert_branches.levels import measured
from offramp.experiments.expert_branches.mixed import check_stream, compared, exchange_rates, runs
from offramp.experiments.expert_branches.pictures import draw
from offramp.experiments.expert_branches.shapes import judged, score
from offramp.experiments.expert_branches.systems import views
from offramp.experiments.expert_branches.tables import fill
from offramp.experiments.refusals import in_one_line, whole_numbers
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.written import Save, run_study

TARGET = 0.8  # of the cascade where one target stands for all, as in the paper's discussion
RECORDED = ("stream", "horizon", "seeds", "thresholds", "prices", "isplitee_threshold", "targets")
LEAST = {"horizon": 1, "seeds": 2, "threads": 1, "costs": 2, "edge_exits": 1, "adaee_cut": 1}


def check(cfg: DictConfig) -> None:
    """Refuse what no run can mean, before anything is written."""
    whole_numbers(cfg, LEAST)
    if not 0.0 < cfg.mu.least < cfg.mu.most or cfg.mu.count < 2:
        raise ValueError(f"mu is {dict(cfg.mu)}, allowed are 0 < least < most and a count of 2 or more")
    if not all(0.0 < t < 1.0 for t in cfg.targets) or TARGET not in cfg.targets:
        raise ValueError(f"targets are {list(cfg.targets)}, allowed are numbers in (0, 1), {TARGET} among them")


def study(cfg: DictConfig, console: Console) -> tuple[str, dict[str, Any]]:
    """Measure everything on one cache; returns its name and the record."""
    check(cfg)
    cache = open_cache(cfg.cache)
    stream = check_stream(cfg, instantiate(cfg.stream, _convert_="all"))
    caches = views(cache)
    found: dict[str, Any] = {
        "offramp": version("offramp"),
        "cache": dict(cache.hashes),
        "images": len(caches["raw"].label),
        "exits": len(cache.exits),
        "edge_exits": min(cfg.edge_exits, len(cache.exits) - 1),
        "adaee_cut": min(cfg.adaee_cut, len(cache.exits) - 1),
        "mu": exchange_rates(cfg),
        "config": {k: OmegaConf.to_object(cfg[k]) if OmegaConf.is_config(cfg[k]) else cfg[k] for k in RECORDED},
        "target": TARGET,
    }
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar, ThreadPoolExecutor(cfg.threads) as pool:
        task = bar.add_task("runs over the mixed stream", total=runs(cfg, len(cache.exits)))
        found |= compared(caches, stream, cfg, pool, lambda: bar.advance(task))
    console.print("condition by condition")
    found |= measured(caches, list(cfg.targets), TARGET, cfg.edge_exits)
    found["shapes"] = judged(found)
    found["score"] = score(found)
    return title(cache, cfg.cache), shortened(plain(found))


def told(found: Any) -> str:
    """What the console says."""
    return f"score {found['score']['points']:.1f} points"


def run(cfg: DictConfig, folder: Path) -> Path:
    """Measure, then write result.json, figures and README.md; what other caches left in the folder stays."""

    def measure(kept: dict[str, Any], _: Save, console: Console) -> str:
        name, kept_now = study(cfg, console)
        kept[name] = kept_now
        return name

    return run_study(folder, measure, draw=draw, fill=fill, told=told)


@hydra.main(config_path="pkg://offramp.conf", config_name="expert_branches", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp expert_branches`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
