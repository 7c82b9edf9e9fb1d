"""Records of the studies that pages take their numbers from."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from offramp.experiments.earlier import earlier


def record(cfg: DictConfig, study: str) -> dict[str, Any]:
    """The result.json of a study.

    Raises
    ------
    ValueError
        The study has none.

    """
    folder = Path(__file__).parents[1] if cfg.studies is None else Path(cfg.studies)
    path = folder / study / "result.json"
    found = earlier(path)
    if not found:
        raise ValueError(f"{path} is missing: run offramp {study} folder={path.parent} first")
    return found
