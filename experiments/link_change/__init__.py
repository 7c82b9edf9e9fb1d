"""`offramp link_change`: every policy and every fixed choice on 24 recorded mobile links."""

from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from offramp.environments.link_traces import embedded_traces
from offramp.experiments.link_change.cases import CASES, PLAYED
from offramp.experiments.link_change.pictures import draw
from offramp.experiments.link_change.study import study as added
from offramp.experiments.link_change.tables import claims, fill
from offramp.experiments.refusals import in_one_line, whole_numbers
from offramp.experiments.written import named_by_cache, run_study

QUICK = {"seconds": 20.0, "segment_s": 4.0, "seeds": 2, "traces": 2}
LEAST = {"seeds": 2, "traces": 1, "threads": 1}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is written."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    whole_numbers(cfg, LEAST)
    for name in ("seconds", "segment_s", "scale", "image_price"):
        if not 0.0 < cfg[name] < float("inf"):
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a finite number > 0")
    for name, allowed in (("cases", tuple(CASES)), ("only", PLAYED)):
        if isinstance(cfg[name], str):
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a list: '{name}=[{cfg[name]}]'")
        unknown = set(cfg[name] or ()) - set(allowed)
        if unknown or (cfg[name] is not None and len(cfg[name]) == 0):
            raise ValueError(f"{name} are {list(cfg[name])}, allowed are some of {list(allowed)}, or null")
    if cfg.episode.case not in CASES or cfg.episode.trace not in embedded_traces():
        raise ValueError(
            f"episode is {cfg.episode.case!r} on {cfg.episode.trace!r}, allowed is one of {list(CASES)} on one of "
            f"{list(embedded_traces())}"
        )
    return cfg


def told(found: Any) -> str:
    """What the console says: on how many links the claim holds."""
    return "\n".join(
        f"{row['case']}: holds on {row['point']['holds']} of {row['point']['of']} links (largest ratio "
        f"{row['point']['worst']:.3f}), at equal accuracy on {row['equal']['holds']} ({row['equal']['worst']:.3f})"
        for row in claims(found)
    )


def run(cfg: DictConfig, folder: Path) -> Path:
    """Play, and write result.json, figures and README.md; what other caches left there stays.

    The record is written after each link, so that a run that was broken off goes on where it was.
    """
    return run_study(folder, partial(added, check(cfg)), draw=named_by_cache(draw), fill=fill, told=told)


@hydra.main(config_path="pkg://offramp.conf", config_name="link_change", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp link_change`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
