"""The study `payload`: which codec and split win at which rate of the link and speed of the edge?"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from offramp.experiments.payload.study import run
from offramp.experiments.refusals import in_one_line


@hydra.main(config_path="pkg://offramp.conf", config_name="payload", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp payload`."""
    run(cfg, HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    main()
