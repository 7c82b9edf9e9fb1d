"""`offramp headline`: the joint policy with experts against the final exit and the two trivial policies."""

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from offramp.environments.device_presets import PRESETS as DEVICES
from offramp.environments.links import PRESETS as LINKS
from offramp.experiments.headline.pictures import draw
from offramp.experiments.headline.study import study
from offramp.experiments.headline.tables import fill, said
from offramp.experiments.refusals import in_one_line, whole_numbers
from offramp.experiments.written import Save, run_study

QUICK = {
    "horizon": 4_800,
    "seeds": 2,
    "places": {"devices": [["raspberry_pi_4", 1.0]], "links": ["cell_3g"]},
    "streams": {"pristine": ["pristine"]},
    "fronts": {"mu": {"least": 0.1, "most": 10.0, "count": 2}, "seeds": 2},
    "choosing": {"seeds": 1, "horizon": 2_400},
}
LEAST = {"horizon": 1, "seeds": 2, "threads": 1, "fronts.seeds": 2}


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is written."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, {k: v for k, v in QUICK.items() if k != "streams"})  # type: ignore[assignment]
        cfg.streams = QUICK["streams"]
    whole_numbers(cfg, LEAST)
    if not 0.0 < cfg.mu < float("inf"):
        raise ValueError(f"mu is {cfg.mu}, allowed is a finite number > 0")
    mu = cfg.fronts.mu
    if not 0.0 < mu.least < mu.most or mu.count < 2:
        raise ValueError(f"fronts.mu is {dict(mu)}, allowed are 0 < least < most and a count of 2 or more")
    named = [*cfg.places.devices, cfg.places.cloud, cfg.places.claimed, cfg.places.contested]
    for device, slower, *_ in named:
        if device not in DEVICES or not slower > 0.0:
            raise ValueError(f"a device is {device!r}, {slower} times slower, allowed are {sorted(DEVICES)} and > 0")
    for link in (*cfg.places.links, cfg.places.claimed[2], cfg.places.contested[2]):
        if link not in LINKS:
            raise ValueError(f"a link is {link!r}, allowed are {sorted(LINKS)}")
    return cfg


def run(cfg: DictConfig, folder: Path) -> Path:
    """Measure, then write result.json, figures and README.md; what other caches left in the folder stays."""
    cfg = check(cfg)

    def measure(kept: dict[str, Any], _: Save, console: Console) -> str:
        name, kept_now = study(cfg, console)
        kept[name] = kept_now
        return name

    return run_study(folder, measure, draw=draw, fill=fill, told=said)


@hydra.main(config_path="pkg://offramp.conf", config_name="headline", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp headline`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
