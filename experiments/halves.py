"""The halves of a network that a configuration describes: weights, experts, router, temperatures and codecs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from offramp.environments import ConfidenceCache
from offramp.experiments.extract import file_of
from offramp.models.codecs import Codec, standard_codecs
from offramp.models.experts import Experts
from offramp.models.network import MultiExitNetwork
from offramp.models.router import DEFAULT, Router, load_router
from offramp.models.weights import load_weights

EXITS = ("own", "experts")
KEY = "OFFRAMP_CLOUD_KEY"


def found_at(given: str | None, shipped: str, option: str) -> Path:
    """A path that was given, or that of a file which ships with the package.

    Raises
    ------
    ValueError
        There is none.

    """
    path = file_of(given, shipped)
    if not path.is_file():
        why = f"with name={shipped.split('.')[0]} nothing ships" if given is None else f"{option} is {given}"
        raise ValueError(f"{why}, allowed is the path of a file that exists: {option}=FILE")
    return path


class Loaded(NamedTuple):
    """What either half is made from."""

    network: MultiExitNetwork
    codecs: tuple[Codec, ...]
    temperatures: npt.NDArray[np.float64] | None
    experts: Experts | None


def loaded(cfg: DictConfig, cache: ConfidenceCache) -> Loaded:
    """The network, its codecs, the temperatures of its exits, and its experts, as the configuration says.

    Raises
    ------
    ValueError
        A file is missing or of something else, or the cache does not know the calibration.

    """
    if cfg.exits not in EXITS:
        raise ValueError(f"exits is {cfg.exits!r}, allowed are {EXITS}")
    torch.set_num_threads(cfg.threads)
    network = instantiate(cfg.network)
    load_weights(network, found_at(cfg.weights, f"{cfg.name}.safetensors", "weights"))
    experts = None
    if cfg.exits == "experts":
        experts = Experts.load(network, found_at(cfg.experts, f"{cfg.name}.experts.safetensors", "experts"))
    temperatures = None
    if cfg.calibration != "raw":
        if cfg.calibration not in cache.calibrations:
            raise ValueError(f"calibration is {cfg.calibration!r}, allowed are {('raw', *cache.calibrations)}")
        temperatures = cache.calibrations[cfg.calibration]
        temperatures = temperatures if experts is not None else temperatures[0]
    codecs = standard_codecs() if cfg.coders is None else tuple(instantiate(cfg.coders, _convert_="all"))
    return Loaded(network, codecs, temperatures, experts)


def router_of(cfg: DictConfig) -> Router | None:
    """What picks the expert, where there are experts."""
    return None if cfg.exits == "own" else load_router(DEFAULT if cfg.router is None else Path(cfg.router))
