"""The study `calibration`: can an exit be believed, and what does that change for offloading?"""

import hydra
from omegaconf import DictConfig

from offramp.experiments.calibration.study import run


@hydra.main(config_path="pkg://offramp.conf", config_name="calibration", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp calibration`."""
    run(cfg)
