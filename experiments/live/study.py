"""Times the machine, plays each policy live and simulated, and kills the cloud; what was done is not done again."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.bandits import Fixed
from offramp.environments import ConfidenceCache
from offramp.environments.payloads import PayloadTable
from offramp.environments.timed import TimedWorld, rollout_timed
from offramp.environments.timed.play import BEYOND
from offramp.environments.timed.tables import FIELDS, Facts, Rounds
from offramp.experiments.earlier import open_cache, open_payloads, title
from offramp.experiments.link_change.cases import prepared
from offramp.experiments.live import scene
from offramp.experiments.live.machine import (
    calibrated,
    mean_profile,
    steadiness,
    through_the_half,
    through_the_server,
    with_heads,
)
from offramp.experiments.live.model import modelled
from offramp.experiments.live.pair import Cloud, Stage, columns, killed, record, rounded
from offramp.experiments.live.photographs import distorted, photographs
from offramp.experiments.live.scene import Scene
from offramp.models.codecs import standard_codecs
from offramp.models.data import Split
from offramp.models.halves import EdgeNetwork
from offramp.models.network import MultiExitNetwork, mobilenet_v2_exits
from offramp.models.timing import measure
from offramp.models.weights import HERE as SHIPPED
from offramp.models.weights import load_weights

Found = dict[str, Any]
RECORDED = (
    "calibration", "slower", "every_ms", "requests", "trace", "scale", "conditions", "segment", "image_price",
    "power_w", "deadline_ms", "repeats", "orders", "seed",
)  # fmt: skip
BUSY = 0.9  # share of the time between two requests
WARM = 12  # requests that warm both processes up before a run that counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """What is opened once: images, network, cache and payloads of those images."""

    cache: ConfidenceCache
    payloads: PayloadTable
    temperatures: Any
    images: Split
    network: MultiExitNetwork
    weights: Path


def opened(cfg: DictConfig) -> Ready:
    """Everything that a live run needs; refuses what is missing in one line each."""
    torch.set_num_threads(1)
    cache, table = open_cache(cfg.cache), open_payloads(cfg.cache)
    temperatures = None if cfg.calibration == "raw" else np.array(cache.calibrations[cfg.calibration][0])
    test, payloads = prepared(cache, table, cfg.calibration)
    images = photographs(None if cfg.photographs is None else Path(cfg.photographs), test)
    test = test.select(np.isin(test.sample, images.index))
    weights = SHIPPED / f"{cfg.cache}.safetensors" if cfg.weights is None else Path(cfg.weights)
    network = mobilenet_v2_exits(classes=10, input_size=images.images.shape[1]).to(memory_format=torch.channels_last)
    load_weights(network, weights)
    network.eval()
    return Ready(
        cache=test, payloads=payloads, temperatures=temperatures, images=images, network=network, weights=weights
    )


def staged(cfg: DictConfig, ready: Ready, profile: Any) -> Scene:
    """The scene on a machine of this profile."""
    return Scene(
        cache=ready.cache,
        payloads=ready.payloads,
        device=profile,
        slower=cfg.slower,
        trace=cfg.trace,
        scale=cfg.scale,
        every_ms=cfg.every_ms,
        conditions=tuple(cfg.conditions),
        segment=cfg.segment,
        image_price=cfg.image_price,
        power_w=cfg.power_w,
        deadline_ms=cfg.deadline_ms,
    )


def first(rounds: Rounds, n: int) -> Rounds:
    """The first so many requests."""
    return Rounds(*(part[:n] for part in rounds))


def timed(cfg: DictConfig, ready: Ready, half: EdgeNetwork, url: str) -> Found:
    """How quick the machine is now: parts after a rest and without one, coding, and the cloud through its server."""
    own = through_the_half(half, ready.network, ready.images.images, rest_ms=cfg.every_ms, repeats=cfg.repeats)
    cold = measure(ready.network, warm_up=3, repeats=max(2, cfg.repeats // 3), pace=cfg.every_ms / 1e3)
    warm = measure(ready.network, repeats=cfg.repeats)
    profile = mean_profile(own, "this machine, after a rest, by the edge's program")
    variants = staged(cfg, ready, profile).world().variants
    coding, away = through_the_server(
        half, url, variants, ready.images.images, rest_ms=cfg.every_ms, repeats=max(1, cfg.repeats // 20)
    )
    return {
        "profile": profile,
        "hot": warm.profile(name="this machine, without a rest"),
        "coding_ms": np.median(coding, axis=0).tolist(),
        "away_ms": away.mean(axis=0).tolist(),
        "played_ms": profile.edge_ms("prefix").tolist(),
        "rested_ms": cold.profile(name="").edge_ms("prefix").tolist(),
        "without_rest_ms": warm.profile(name="").edge_ms("prefix").tolist(),
        "cloud_ms": profile.cloud_ms.tolist(),
        "splits": [split for split, _ in variants],
        "codecs": [codec for _, codec in variants],
    }


def simulated(cfg: DictConfig, here: Scene, world: TimedWorld, facts: Facts, policy: Any) -> Found:
    """The same hour in the simulator, and with the images in other orders."""
    journal, _ = rollout_timed(policy, world, here.stream, horizon=cfg.requests, seed=cfg.seed, facts=facts)
    others = [
        rollout_timed(policy, world, here.stream, horizon=cfg.requests, seed=cfg.seed + 1 + k, facts=facts)[0]
        for k in range(cfg.orders)
    ]
    return {
        "run": columns(journal),
        "orders": {name: [float(one.mean(name)) for one in others] for name in ("latency_ms", "correct", "offloaded")},
    }


def stage_of(cfg: DictConfig, here: Scene, half: EdgeNetwork, times: Found, rounds: Rounds, images: list[Any]) -> Stage:
    """What a live run needs."""
    world = here.world()
    facts = world.facts(here.stream.conditions)
    return Stage(
        half=half,
        world=world,
        facts=calibrated(facts, world.variants, times["coding_ms"], times["away_ms"], cfg.slower),
        link=world.link.arrays(duration_ms=float(rounds.arrival[-1]) + BEYOND, seed=cfg.seed),
        images=images,
        deadline_ms=cfg.deadline_ms,
        slower=cfg.slower,
    )


def warm_up(stage: Stage, rounds: Rounds, url: str) -> None:
    """A few requests that do not count: every part has run once in both processes."""
    for policy in (Fixed(cut=0, threshold=np.inf), Fixed(cut=stage.half.exits - 1, threshold=np.inf)):
        stage.play(policy, first(rounds, WARM), url, seed=0, step=nothing, began=nothing)


def study(cfg: DictConfig, kept: Found, save: Callable[[], None], console: Console) -> str:
    """Add one cache to the record, run after run, or leave the record as it is; returns the cache's name."""
    name = title(open_cache(cfg.cache), cfg.cache)
    if not cfg.play:
        if name not in kept:
            raise ValueError(f"play is false and the folder holds no record of {name}, allowed is play=true")
        return name
    config = {key: OmegaConf.to_container(cfg)[key] for key in RECORDED}  # type: ignore[index,call-overload]
    kill = OmegaConf.to_container(cfg.kill)
    made = hashlib.sha256(repr((config, version("offramp"))).encode()).hexdigest()[:16]
    found = kept.get(name, {})
    if found.get("made") != made:
        found = {"runs": {}, "kills": {}}
    kept[name] = found
    found |= {"made": made, "offramp": version("offramp"), "config": config}
    wanted = [key for key in cfg.policies if key not in found["runs"]]
    deaths = [key for key in cfg.kill.policies if found["kills"].get(key, {}).get("config") != kill]
    if not wanted and not deaths:
        return name
    ready = opened(cfg)
    every = scene.policies(len(ready.cache.exits), [*cfg.policies, *cfg.kill.policies])
    half = EdgeNetwork(ready.network, standard_codecs(), temperatures=ready.temperatures)
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    overrides = [
        f"weights={ready.weights.resolve()}", f"calibration={cfg.calibration}", f"cache={cfg.cache}", "threads=1",
    ]  # fmt: skip
    with (
        TemporaryDirectory(prefix="offramp-live-") as said,
        Progress(*look, console=console) as bar,
        Cloud(Path(said), overrides) as cloud,
    ):
        images: list[Any] = []
        times: Found = {}
        for key in wanted:
            task = bar.add_task(f"{key}: timing the machine", total=cfg.requests)
            before, times = steadiness(ready.network), timed(cfg, ready, half, cloud.url)
            here = staged(cfg, ready, times["profile"])
            rounds = here.world().rounds(here.stream, horizon=cfg.requests, seed=cfg.seed)
            images = images or pictures(ready, here, rounds)
            stage = stage_of(cfg, here, half, times, rounds, images)
            if here.load() > BUSY:
                console.print(
                    f"an image through the whole network keeps this edge busy for {100.0 * here.load():.0f} % of the "
                    "time between two requests: the machine has other work, or every_ms is too short; requests queue",
                    soft_wrap=True,
                )
            warm_up(stage, rounds, cloud.url)
            bar.update(task, description=f"{key}: live")
            run = stage.play(every[key], rounds, cloud.url, seed=cfg.seed, step=stepped(bar, task), began=nothing)
            after = steadiness(ready.network)
            again = through_the_half(
                half, ready.network, ready.images.images, rest_ms=cfg.every_ms, repeats=max(2, cfg.repeats // 3)
            )
            facts = with_heads(stage.facts, cloud.url)
            hot = staged(cfg, ready, times["hot"]).world()
            found["runs"][key] = {
                "title": scene.TITLES[key],
                "spec": repr(every[key]),
                "machine": {
                    **{name: asdict(v) if name in ("profile", "hot") else v for name, v in times.items()},
                    "again_ms": mean_profile(again, "").edge_ms("prefix").tolist(),
                    "before": before,
                    "after": after,
                },
                "load": here.load(),
                "live": record(run, stage.deliveries),
                "simulated": simulated(cfg, here, stage.world, facts, every[key]),
                "model": replayed(stage.facts, stage, rounds, run),
                "hot": replayed(hot.facts(here.stream.conditions), stage, rounds, run)["latency_ms"],
                "condition": rounds.condition.tolist(),
            }
            save()
        for key in deaths:
            times = times or timed(cfg, ready, half, cloud.url)
            here = staged(cfg, ready, times["profile"])
            rounds = here.world().rounds(here.stream, horizon=cfg.kill.requests, seed=cfg.seed)
            stage = stage_of(cfg, here, half, times, rounds, pictures(ready, here, rounds))
            warm_up(stage, rounds, cloud.url)
            step = stepped(bar, bar.add_task(f"{key}: the cloud is killed", total=cfg.kill.requests))
            at, gone = float(cfg.kill.at_s), float(cfg.kill.for_s)
            died = killed(stage, cloud, every[key], rounds, seed=cfg.seed, at_s=at, for_s=gone, step=step)
            found["kills"][key] = {"title": scene.TITLES[key], "spec": repr(every[key]), "config": kill, **died}
            save()
    return name


def stepped(bar: Progress, task: Any) -> Callable[[], None]:
    """What moves a bar on by one."""
    return lambda: bar.advance(task)


def nothing() -> None:
    """Where nobody waits for a run to begin."""


def replayed(facts: Facts, stage: Stage, rounds: Rounds, run: Any) -> Found:
    """What the cost model says of the live decisions, with the times of these facts."""
    every = {name: run.journal[name] for name in FIELDS}
    return {name: rounded(v, 2) for name, v in modelled(facts, stage.link, rounds.arrival, every).items()}


def pictures(ready: Ready, here: Scene, rounds: Rounds) -> list[Any]:
    """One distorted image for each request."""
    named = [ready.cache.conditions[ready.cache.condition(c)] for c in here.stream.conditions]
    return distorted(ready.images, named, ready.cache, rounds.sample, rounds.condition)
