"""Carries the study out on one cache, block after block, and records what came of it."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.environments.reliability import ece
from offramp.experiments import joint_policy
from offramp.experiments.deadline.places import (
    BUSY,
    CALM,
    PRISTINE,
    balanced,
    beside,
    device_of,
    payloads_of,
    places,
    speeds,
    streams,
)
from offramp.experiments.deadline.players import TUNED_ON, cascade, players
from offramp.experiments.deadline.runs import FINE, Course, Found, cascade_rows, player_rows
from offramp.experiments.earlier import open_cache, title
from offramp.experiments.sources import digest

UNRECORDED = ("threads", "folder", "quick")


def course(cfg: DictConfig) -> Course:
    """Open the cache, and check that the study can be played on it."""
    cache = open_cache(cfg.cache)
    name = Path(cfg.cache).name.split(".")[0]
    for condition in (PRISTINE, *cfg.mixed):
        cache.condition(condition)
    for k in (*cfg.exits, cfg.cascade):
        cascade(len(cache.exits), k, cfg.target)
    device = device_of(beside(cfg, "times", ".device.json"), name, cache)
    payloads = payloads_of(beside(cfg, "payloads", ".payloads.safetensors"), name)
    found = places(cache, payloads, device, cfg.slow, list(cfg.calibrations))
    links, made = {str(k): instantiate(v) for k, v in cfg.links.items()}, streams(list(cfg.mixed))
    shown = {stream: balanced(cache, spec, list(cfg.targets)) for stream, spec in made.items()}
    return Course(cfg=cfg, places=found, links=links, streams=made, shown=shown, facts={})


def sources() -> str:
    """A digest of all that decides what a run yields: policies, worlds, and this study."""
    return digest(Path(__file__).parent, "measures", "places", "players", "runs")


def honesty(made: Course) -> dict[str, dict[str, Found]]:
    """Calibration error, and confidence less accuracy, of each exit on each stream's images under each calibration."""
    found: dict[str, dict[str, Found]] = {}
    for stream, spec in made.streams.items():
        for name, place in made.places.items():
            at = [place.cache.condition(condition) for condition in spec.conditions]
            sure = place.cache.confidence[at, 0].reshape(-1, len(place.cache.exits))
            right = (place.cache.prediction[at, 0] == place.cache.label[:, None]).reshape(sure.shape)
            gap = (sure.mean(axis=0) - right.mean(axis=0)).tolist()
            found.setdefault(stream, {})[name] = {"ece": ece(sure, right).tolist(), "gap": gap}
    return found


def about(cfg: DictConfig, made: Course) -> Found:
    """What was played where, as it is recorded."""
    place = made.places[cfg.calibrations[0]]
    pristine = place.cache.prediction[place.cache.condition(PRISTINE), 0] == place.cache.label[:, None]
    return {
        "offramp": version("offramp"),
        "cache": dict(place.cache.hashes),
        "images": len(place.cache.label),
        "exits": len(place.cache.exits),
        "accuracy": pristine.mean(axis=0).tolist(),
        "edge_ms": place.edge.edge_ms("prefix").tolist(),
        "cloud_ms": place.cloud.cloud_ms.tolist(),
        "links": speeds(made.links),
        "payloads": place.payloads is not None,
        "shown": dict(made.shown),
        "honesty": honesty(made),
        "fine": FINE,
    }


def study(cfg: DictConfig, kept: dict[str, Any], save: Callable[[], None], console: Console) -> str:
    """Add one cache to the record, block after block; returns its name."""
    made = course(cfg)
    told = about(cfg, made)
    name, exits = title(made.places[cfg.calibrations[0]].cache, cfg.cache), told["exits"]
    tuned_at = Path(str(joint_policy.__file__)).parent / joint_policy.TUNED
    tuned = json.loads(tuned_at.read_text(encoding="utf-8"))[TUNED_ON]
    everybody = players(exits, tuned, cut=cfg.cascade, target=cfg.target)
    asked: Any = OmegaConf.to_container(cfg, resolve=True)
    config = {k: v for k, v in asked.items() if k not in UNRECORDED}
    specs = {key: repr(player.policy) for key, player in everybody.items()}
    # Runs of other sources, another configuration or another cache are dropped.
    decides = json.dumps([config, told["cache"], told["edge_ms"], told["cloud_ms"], specs], sort_keys=True)
    of = f"{sources()} {hashlib.sha256(decides.encode()).hexdigest()[:16]}"
    found = kept.get(name, {})
    if found.get("of") != of:
        found = {"of": of, "cascades": {}, "players": {}}
    titles = {key: player.title for key, player in everybody.items()}
    found = kept[name] = found | told | {"config": config, "titles": titles, "specs": specs}
    cells = [("cascades", stream, link) for stream, link in product(made.streams, made.links)]
    cells += [("players", link, arrivals) for link, arrivals in product(made.links, (CALM, BUSY))]
    todo = [cell for cell in cells if f"{cell[1]}, {cell[2]}" not in found[cell[0]]]
    steps = {
        "cascades": len(cfg.exits) * len(cfg.targets) * len(cfg.calibrations),
        "players": len(everybody) * (len(cfg.calibrations) + 1),
    }
    look = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar, ThreadPoolExecutor(cfg.threads) as pool:
        task = bar.add_task("", total=sum(steps[kind] for kind, _, _ in todo))

        def seeds(one: Callable[[int], Any]) -> list[Any]:
            # The first run compiles, and makes the facts that the others share.
            runs = [one(0), *pool.map(one, range(1, cfg.seeds))]
            bar.advance(task)
            return runs

        for kind, first, second in todo:
            bar.update(task, description=f"{kind}: {first}, {second}")
            if kind == "cascades":
                rows = cascade_rows(made, exits, first, second, seeds)
            else:
                rows = player_rows(made, everybody, first, second, seeds)
            found[kind][f"{first}, {second}"] = rows
            save()
    return name
