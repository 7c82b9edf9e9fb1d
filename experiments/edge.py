"""`offramp edge`: the head of a network on a stream of distorted images, a policy, and a real cloud for the rest."""

import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import numpy.typing as npt
import pandas as pd
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from offramp.bandits import Arms, Engine
from offramp.bandits.durable import DurableEngine
from offramp.bandits.policy import Policy
from offramp.environments import ConfidenceCache, Physical, TimedWorld, World
from offramp.environments.live import WHY, Breaker, Edge, LiveRun, warm_up
from offramp.environments.live.client import Client
from offramp.environments.stream import Stream
from offramp.environments.timed.journal import FIELDS
from offramp.environments.timed.tables import Facts, Rounds
from offramp.experiments.deadline.places import beside, device_of, payloads_of
from offramp.experiments.earlier import open_cache, write
from offramp.experiments.edge_alarms import Listened
from offramp.experiments.edge_check import Difference, differences
from offramp.experiments.edge_view import View, Window
from offramp.experiments.halves import KEY, loaded, router_of
from offramp.experiments.refusals import in_one_line
from offramp.models.data import Split
from offramp.models.distort import Distortion
from offramp.models.halves import EdgeNetwork

AHEAD = 8  # images that are distorted before their turn
OWN = (
    "for own images first `offramp payloads data.root=FOLDER weights=FILE`, then `offramp edge data.root=FOLDER "
    "weights=FILE cache=FILE` with the cache that it wrote, and `offramp cloud` with the same weights and cache"
)
BEYOND = 60_000.0  # milliseconds that the link is laid out for after the last arrival
Image = npt.NDArray[np.uint8]


def within(cache: ConfidenceCache, split: Split) -> tuple[ConfidenceCache, Split]:
    """The test samples of a cache that a split holds, and their images in the cache's order.

    Raises
    ------
    ValueError
        It holds none of them, or has other labels for them.

    """
    test = cache.part("test")
    place = {int(sample): k for k, sample in enumerate(split.index)}
    keep = np.array([int(sample) in place for sample in test.sample])
    if not keep.any():
        raise ValueError(f"data.root holds none of the cache's test samples, allowed are its own images; {OWN}")
    test = test.select(keep)
    at = np.array([place[int(sample)] for sample in test.sample])
    mine = Split(images=split.images[at], labels=split.labels[at], index=split.index[at])
    if (mine.labels != test.label).any():
        raise ValueError(f"data.root has other labels than the cache's test samples, allowed are its own images; {OWN}")
    return test, mine


def images_of(cfg: DictConfig) -> Split:
    """The test images of the configured data.

    Raises
    ------
    ValueError
        They cannot be read; the message names the option.

    """
    try:
        test: Split = instantiate(cfg.data)["test"]
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, ValueError | OSError):
            raise
        hint = "; change data.held_out" if str(cause).startswith("held_out") else ""
        raise ValueError(f"data: {cause}{hint}") from error
    return test


def world_of(cfg: DictConfig, cache: ConfidenceCache, test: ConfidenceCache) -> TimedWorld:
    """The same place as a world in time: what quotes are made from, and what a simulation would play."""
    core = device_of(beside(cfg, "times", ".device.json"), cfg.name, cache)
    arms = Arms.grid(exits=len(cache.exits), thresholds=cfg.thresholds, raw_input_allowed=cfg.raw_input_allowed)
    if cfg.cascades is not None:
        arms = arms.joined(Arms.cascades(exits=len(cache.exits), **cfg.cascades))
    weights = instantiate(cfg.weighing, deadline_ms=cfg.deadline_ms)
    prices = Physical(edge=core.scaled(cfg.slower), cloud=core.scaled(cfg.cloud_speed), weights=weights)
    payloads = payloads_of(beside(cfg, "payloads", ".payloads.safetensors"), cfg.name)
    if payloads is not None and cfg.calibration != "raw":
        payloads = payloads.calibrated(float(cache.calibrations[cfg.calibration][0, -1]))
    world = World(
        cache=test.calibrated(cfg.calibration),
        prices=prices,
        arms=arms,
        raw_input_allowed=cfg.raw_input_allowed,
        routing="predicted" if cfg.exits == "experts" else None,
    )
    return TimedWorld(
        world=world,
        link=instantiate(cfg.link),
        estimate=instantiate(cfg.estimate),
        arrivals=instantiate(cfg.arrivals),
        payloads=payloads,
        codecs=None if cfg.codecs is None else list(cfg.codecs),
        probe_ms=cfg.probe_ms,
        buffer=cfg.buffer,
        coding=cfg.slower,
    )


def routed(facts: Facts, world: TimedWorld) -> Facts:
    """The facts of an edge that routes each image before it decides, so that inputs it sends as they are are routed.

    In a simulated world whoever computes on an input routes it; here the question names the expert.
    """
    if not world.world.profile.router_macs:
        return facts
    edge, cloud, prices = facts.edge.copy(), facts.cloud.copy(), world.prices
    edge[:, 0] += prices.edge.router_ms, (prices.edge.power_w or 0.0) * prices.edge.router_ms
    cloud[0] -= prices.cloud.router_ms
    return facts._replace(edge=edge, cloud=cloud)


def same(cache: ConfidenceCache, half: EdgeNetwork) -> None:
    """Refuse a cache of other weights than those that run here.

    Raises
    ------
    ValueError
        One of the hashes that both know differs.

    """
    for part, found in half.hashes.items():
        known = cache.hashes.get(part, found)
        if known != found:
            what = "network" if part == "model" else part
            raise ValueError(
                f"cache is of {what} {known[:16]}, allowed is {found[:16]}: give weights (and experts, router) and the "
                "cache that was made with them"
            )


class Ahead:
    """Makes images in a thread of its own, a few before they are asked for in turn."""

    def __init__(self, make: Callable[[int], Image], n: int) -> None:
        self._make, self._n = make, n
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="offramp images")
        self._made: dict[int, Future[Image]] = {}

    def __call__(self, i: int) -> Image:
        """The image of a request; asked for in order."""
        for k in range(i, min(i + AHEAD, self._n)):
            if k not in self._made:
                self._made[k] = self._pool.submit(self._make, k)
        return self._made.pop(i).result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)


def distorted(cfg: DictConfig, stream: Stream, rounds: Rounds, images: Split) -> Callable[[int], Image]:
    """The image of each request under its condition."""
    listed: list[Distortion] = list(instantiate(cfg.conditions, _convert_="all"))
    known = {d.name: d for d in listed}
    missing = sorted(set(stream.conditions) - set(known))
    if missing:
        raise ValueError(f"the stream's conditions {missing} are not among {sorted(known)}")

    def make(i: int) -> Image:
        at = int(rounds.sample[i])
        one: Image = images.images[at : at + 1]
        return known[stream.conditions[int(rounds.condition[i])]](one, images.index[at : at + 1])[0]

    return make


def compared(found: list[Difference]) -> Table:
    """One row for each split and codec."""
    shown = Table("split", "codec", "bytes", "logits, max", "conf., mean", "agreement %", box=None)
    for row in found:
        shown.add_row(
            str(row.split),
            row.codec,
            f"{row.bytes:,.0f}",
            f"{row.logits:.2g}",
            f"{row.confidence:.2g}",
            f"{100.0 * row.agreement:.1f}",
        )
    return shown


def save(folder: Path, run: LiveRun, more: dict[str, Any]) -> None:
    """Write journal.parquet and summary.json, each whole or not at all."""
    table = pd.DataFrame(run.journal.pages, columns=list(FIELDS))
    table["why"] = [WHY[k] for k in run.why]
    table["start_ms"], table["served_ms"] = run.start_ms, run.served_ms
    table["prediction"], table["expert"] = run.prediction, run.expert
    partial = folder / "journal.parquet.partial"
    table.to_parquet(partial, index=False)
    partial.replace(folder / "journal.parquet")
    told = {name: None if value != value else value for name, value in run.summary().items()}
    circuit = [[round(ms, 1), state] for ms, state in run.changes]
    text = json.dumps({**more, "summary": told, "circuit": circuit, "faults": run.faults}, indent=1)
    write(folder / "summary.json", text + "\n")


def engine_of(
    cfg: DictConfig, policy: Policy, arms: Arms, features: int
) -> AbstractContextManager[Engine | DurableEngine]:
    """Who decides: in memory, or with a store."""
    if cfg.store is None:
        return nullcontext(Engine(policy, arms=arms, seed=cfg.seed, features=features))
    return DurableEngine(cfg.store, policy, arms=arms, seed=cfg.seed, features=features)


def run(cfg: DictConfig) -> Path:
    """Play as the configuration says and return the path of the summary."""
    console = Console()
    cache = open_cache(cfg.cache)
    found = loaded(cfg, cache)
    half = EdgeNetwork(
        found.network,
        found.codecs,
        temperatures=found.temperatures,
        experts=found.experts,
        router=router_of(cfg),
    )
    same(cache, half)
    split = images_of(cfg)
    test, images = within(cache, split)
    if len(split.index) == len(cache.part("test").sample) and split.hash != cache.hashes.get("test", split.hash):
        console.print("note: the images have the cache's labels, but other pixels; quotes are made from the cache's")
    world, stream, policy = world_of(cfg, cache, test), instantiate(cfg.stream), instantiate(cfg.policy)
    facts, variants = routed(world.facts(stream.conditions), world), world.variants
    rounds, key = world.rounds(stream, horizon=cfg.horizon, seed=cfg.seed), os.environ.get(KEY) or None
    edge = Edge(
        half=half,
        facts=facts,
        variants=variants,
        link=world.link.arrays(duration_ms=float(rounds.arrival[-1]) + BEYOND, seed=cfg.seed),
        estimate=world.estimate.initial(),
        cloud=cfg.cloud,
        key=key,
        deadline_ms=cfg.deadline_ms,
        patience_ms=cfg.patience_ms,
        slower=cfg.slower,
        buffer=cfg.buffer,
        lanes=cfg.lanes,
        breaker=Breaker(**cfg.breaker),
    )
    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)
    table: list[Difference] = []
    if cfg.verify:
        client = Client(cfg.cloud, key)
        table = differences(half, client, variants, images.spread(cfg.verify).images)
        client.close()
        console.print(compared(table))
    warm_up(half, images.images[0], variants, policy, world.world.arms)
    ahead = Ahead(distorted(cfg, stream, rounds, images), cfg.horizon)
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with engine_of(cfg, policy, world.world.arms, facts.context.shape[2]) as engine:
            heard = Listened(engine, policy)
            window = Window(
                facts.label[rounds.sample].tolist(),
                [stream.conditions[k] for k in rounds.condition],
                variants,
                cache.experts if cfg.exits == "experts" else (),
                (lambda: heard.alarms) if heard.known else None,
            )
            with View(window, console, still=not cfg.view):
                played = edge.play(heard, rounds, ahead, deliver=window, stop=stop)
    finally:
        signal.signal(signal.SIGINT, before)
        ahead.close()
    more = {
        "policy": repr(policy),
        "network": half.network,
        "identity": half.identity,
        "alarms": heard.alarms if heard.known else None,
        "verified": [asdict(row) for row in table],
    }
    save(folder, played, more)
    console.print(f"{len(played.why)} requests, {folder / 'summary.json'}", soft_wrap=True)
    return folder / "summary.json"


@hydra.main(config_path="pkg://offramp.conf", config_name="edge", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp edge`."""
    run(cfg)


if __name__ == "__main__":
    main()
