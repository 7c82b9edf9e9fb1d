"""Names a run by what its result depends on: configuration, text of this package, cache, and files that it names."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from offramp.environments.cache import HERE
from offramp.experiments.earlier import open_cache
from offramp.experiments.playing import choice, several
from offramp.experiments.sources import BANDITS, ENVIRONMENTS
from offramp.experiments.sweeps.contents import contents, file_digest
from offramp.experiments.sweeps.versions import canonical

EXPERIMENTS = Path(__file__).parents[1]
SOURCES = (
    BANDITS,
    ENVIRONMENTS,
    *(EXPERIMENTS / name for name in ("playing.py", "results.py", "closer.py", "sweeps/dataset.py")),
)
KINDS = ("*.py", "*.json")  # code, and the recordings and profiles that lie beside it
WITHOUT = ("folder", "sweep", "threads", "objective", "allow_failures")  # what changes no result


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Digest of all text of this package that a result depends on."""
    digest = hashlib.sha256()
    for root in SOURCES:
        for path in sorted(p for kind in KINDS for p in root.rglob(kind)) if root.is_dir() else [root]:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def cache_digest(name: str) -> str:
    """Digest of the file of a cache.

    Raises
    ------
    ValueError, OSError
        There is no such cache.

    """
    path = Path(name) if name.endswith(".safetensors") else HERE / f"{name}.safetensors"
    if not path.is_file():
        open_cache(name)  # says what there is
    return file_digest(path)


def digest_of(found: Mapping[str, str]) -> str:
    """One digest for several; empty for none."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12] if found else ""


def plain(value: Any) -> Any:
    """The same as JSON knows it: infinities as text, nan as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain data, without what changes no result."""
    found = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(found, dict)
    return {str(k): plain(v) for k, v in found.items() if k not in WITHOUT}


def names(cfg: DictConfig) -> dict[str, list[str]]:
    """What the policies, the worlds and the stream of a configuration are called."""
    policies = several(cfg.policy, "_target_", choice("policy"))
    worlds = several(cfg.world, "prices", choice("world"))
    return {"policy": list(policies), "world": list(worlds), "stream": [choice("stream")]}


def key(cfg: DictConfig) -> str:
    """Name of a run's part of the data set; a whole number means the same with and without a point.

    Raises
    ------
    ValueError, OSError
        There is no such cache.

    """
    found = resolved(cfg)
    parts = [
        json.dumps(canonical({**found, "names": names(cfg)}), sort_keys=True),
        source_digest(),
        cache_digest(cfg.cache),
        json.dumps(contents(found)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
