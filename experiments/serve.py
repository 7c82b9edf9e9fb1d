"""`offramp serve`: decisions and learning behind HTTP, in worker processes and one learner."""

import asyncio
import logging
import re
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from offramp.experiments.refusals import in_one_line
from offramp.experiments.service.settings import Settings
from offramp.experiments.service.supervisor import supervise


def settings_of(cfg: DictConfig) -> Settings:
    """The settings that a configuration describes."""
    given: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return Settings(**given, given=chosen())


def chosen() -> list[str] | None:
    """Names of the settings on the command line; None = somebody's own configuration, in which all are chosen."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != "serve":
        return None
    names = (re.match(r"[+~]*(\w*)", override) for override in HydraConfig.get().overrides.task)
    return sorted({name[1] for name in names if name})


@hydra.main(config_path="pkg://offramp.conf", config_name="serve", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp serve`."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(supervise(settings_of(cfg), announce=lambda text: print(f"offramp serve: {text}", flush=True)))


if __name__ == "__main__":
    main()
