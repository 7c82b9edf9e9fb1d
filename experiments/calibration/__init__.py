"""The study `calibration`: can an exit be believed, and what does that change for offloading?"""

import hydra
from omegaconf import DictConfig

from offramp.experiments.calibration.study import run
from offramp.experiments.refusals import in_one_line


@hydra.main(config_path="pkg://offramp.conf", config_name="calibration", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp calibration`."""
    run(cfg)
