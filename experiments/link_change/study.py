"""Plays every policy and every fixed (cut, threshold) on every recorded link, and records what came of it."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.bandits import Fixed, Policy
from offramp.bandits.rows import FloatArray
from offramp.environments.devices import DeviceProfile
from offramp.environments.payloads import PayloadTable
from offramp.environments.replay import arms_of
from offramp.environments.timed import Journal, TimedWorld, rollout_timed
from offramp.environments.timed.tables import Facts
from offramp.experiments.earlier import open_cache, shortened, title
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT
from offramp.experiments.link_change.cases import (
    CASES,
    EDGES,
    VARIANTS,
    VARIED,
    Case,
    Place,
    contenders,
    fixed,
    prepared,
)
from offramp.experiments.sources import digest

Found = dict[str, Any]
RECORDED = (
    "calibration", "conditions", "segment_s", "seconds", "scale", "seeds", "image_price", "payloads", "device",
)  # fmt: skip

START = 6  # the first sixth of the requests, which "later" leaves out
UNUSED = ("cost", "dropped", "bytes")


def sources() -> str:
    """A digest of all that decides what a run yields: kernels, worlds, and this study's own."""
    return digest(Path(__file__).parent, "cases", "study")


def opened(cfg: DictConfig) -> Place:
    """Cache, payloads and device of a configuration."""
    cache, name = open_cache(cfg.cache), cfg.payloads
    table = None
    if name is not None:
        table = PayloadTable.load(name) if name.endswith(".safetensors") else PayloadTable.embedded(name)
    own = cfg.device.endswith(".json")
    server = DeviceProfile.load(cfg.device) if own else DeviceProfile.embedded(cfg.device)
    server.check(cache)
    part, table = prepared(cache, table, cfg.calibration)
    return Place(
        cache=part,
        payloads=table,
        server=server,
        image_price=cfg.image_price,
        conditions=tuple(cfg.conditions),
        segment_s=cfg.segment_s,
        seconds=cfg.seconds,
        scale=cfg.scale,
    )


def frontier(latency: FloatArray, accuracy: FloatArray) -> list[int]:
    """Who is not beaten in both: the quickest among the at least as accurate is always one of them.

    Examples
    --------
    >>> frontier(np.array([3.0, 1.0, 2.0, 2.5]), np.array([0.9, 0.5, 0.9, 0.95]))
    [1, 2, 3]

    """
    kept, best = [], -np.inf
    for i in np.lexsort((-accuracy, latency)).tolist():
        if accuracy[i] > best:
            kept.append(i)
            best = accuracy[i]
    return kept


def gathered(runs: list[dict[str, float]]) -> Found:
    """The runs of all seeds: metric -> one number for each."""
    return {name: [run[name] for run in runs] for name in runs[0] if name not in UNUSED}


def shorter(here: Found) -> Found:
    """A link's record with what a ratio needs, and no more."""
    kept = ("cut", "threshold", "latency_ms", "later_ms", "accuracy", "reward", "offloaded")
    played = {key: {name: run[name] for name in kept[2:]} for key, run in here["played"].items()}
    return here | {"played": played, "fixed": [{name: one[name] for name in kept} for one in here["fixed"]]}


def play_trace(
    place: Place,
    case: Case,
    trace: str,
    policies: dict[str, Policy],
    facts: Facts,
    cfg: DictConfig,
    step: Callable[[], None],
) -> Found:
    """All policies and all fixed arms on one link; of the fixed ones the frontier is kept, and who earned most."""
    world, stream, horizon = place.world(case, trace), place.stream(case), place.horizon(case, trace)

    def play(policy: Policy, where: TimedWorld, seed: int) -> dict[str, float]:
        journal, _ = rollout_timed(policy, where, stream, horizon=horizon, seed=seed, facts=facts)
        step()
        return journal.summary() | {"later_ms": float(journal["latency_ms"][horizon // START :].mean())}

    arms = fixed(world)
    with ThreadPoolExecutor(cfg.threads) as pool:
        jobs = {
            key: [pool.submit(play, policy, widened(world, key), seed) for seed in range(cfg.seeds)]
            for key, policy in policies.items()
        }
        still = [[pool.submit(play, policy, world, seed) for seed in range(cfg.seeds)] for policy in arms.values()]
        played = {key: gathered([job.result() for job in of]) for key, of in jobs.items()}
        by_arm = [gathered([job.result() for job in of]) for of in still]
    latency = np.array([np.mean(of["latency_ms"]) for of in by_arm])
    accuracy = np.array([np.mean(of["accuracy"]) for of in by_arm])
    earned = int(np.argmax([np.mean(of["reward"]) for of in by_arm]))
    kept = frontier(latency, accuracy)
    named = list(arms)
    return {
        "mbit_s": place.link(trace).mean_mbit_s,
        "requests": horizon,
        "played": played,
        "fixed": [
            {"cut": named[i][0], "threshold": threshold(named[i][1]), **by_arm[i]}
            for i in [*kept, *([] if earned in kept else [earned])]
        ],
    }


def threshold(value: float) -> float | str:
    """A threshold as JSON holds it."""
    return value if np.isfinite(value) else "always" if value < 0.0 else "never"


def widened(world: TimedWorld, key: str) -> TimedWorld:
    """The world with the arms that a policy adds to the table."""
    wide = CONTENDERS[key].widened(world.world)
    return world if wide is world.world else replace(world, world=wide)


def episode(place: Place, case: Case, trace: str, policy: Policy, facts: Facts, best: Fixed, seconds: float) -> Found:
    """What the joint policy does request by request at the start of one trace, beside the best fixed arm."""
    world, stream, every = place.world(case, trace), place.stream(case), EDGES[case.edge].every_ms
    horizon = place.horizon(case, trace)
    shown = min(horizon, int(1e3 * seconds / every))
    ours, _ = rollout_timed(policy, world, stream, horizon=horizon, seed=0, facts=facts)
    theirs, _ = rollout_timed(best, world, stream, horizon=horizon, seed=0, facts=facts)

    def columns(journal: Journal) -> Found:
        return {name: journal[name][:shown].tolist() for name in ("latency_ms", "cut", "offloaded", "answered_at")}

    segments = place.link(trace).segments
    return {
        "case": case.name,
        "trace": trace,
        "every_ms": every,
        "rate": [[ms, rate * place.scale] for ms, rate, _ in segments],
        "joint": columns(ours),
        "fixed": columns(theirs) | {"cut_at": best.cut, "threshold": threshold(best.threshold)},
    }


def study(cfg: DictConfig, kept: Found, save: Callable[[], None], console: Console) -> str:
    """Add one cache to the record, link after link; returns its name."""
    place = opened(cfg)
    name = title(place.cache, cfg.cache)
    config = {k: plain_list(cfg[k]) for k in RECORDED}
    policies = contenders(place.exits, cfg.only)
    specs = {key: repr(policy) for key, policy in policies.items()}
    made = hashlib.sha256(repr((sources(), config, dict(place.cache.hashes), specs)).encode()).hexdigest()[:16]
    found = kept.get(name, {})
    if found.get("made") != made:
        found = {"cases": {}}
    kept[name] = found
    found |= {
        "made": made,
        "offramp": version("offramp"),
        "cache": dict(place.cache.hashes),
        "images": len(place.cache.label),
        "device": {"name": place.server.name, "source": place.server.source, "total_ms": place.server.total_ms},
        "edges": {k: vars(e) for k, e in EDGES.items()},
        "config": config,
        "policies": {
            k: {"title": CONTENDERS[k].title, "group": CONTENDERS[k].group, "spec": specs[k]} for k in policies
        },
    }
    wanted = [case for case in CASES.values() if cfg.cases is None or case.name in cfg.cases]
    links = {case.name: case.traces[: cfg.traces] for case in wanted}
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar:
        compiling = bar.add_task("compiling", total=len(policies))
        first = place.world(wanted[0], links[wanted[0].name][0])
        some = first.facts(place.stream(wanted[0]).conditions)
        found["refused"] = {}
        for key, policy in list(policies.items()):
            where = widened(first, key)
            why = arms_of(policy, where.world.arms)
            if why is not None:
                found["refused"][key] = why
                del policies[key], found["policies"][key]
            else:  # once, before threads ask for it at the same time
                rollout_timed(policy, where, place.stream(wanted[0]), horizon=20, seed=0, facts=some)
            bar.advance(compiling)
        for case in wanted:
            here = found["cases"].setdefault(case.name, {})
            open_ = [trace for trace in links[case.name] if trace not in here]
            if not open_:
                continue
            stream = place.stream(case)
            facts = place.world(case, open_[0]).facts(stream.conditions)
            runs = len(open_) * cfg.seeds * (len(policies) + len(first.world.arms.single))
            task = bar.add_task(case.name, total=runs)

            def step(task: Any = task) -> None:
                bar.advance(task)

            for trace in open_:
                here[trace] = shortened(play_trace(place, case, trace, policies, facts, cfg, step))
                save()
            if case.name == cfg.episode.case and JOINT in policies and cfg.episode.trace in here:
                best = max(here[cfg.episode.trace]["fixed"], key=lambda one: float(np.mean(one["reward"])))
                bars = {"always": -np.inf, "never": np.inf}
                arm = fixed(first)[best["cut"], bars.get(best["threshold"], best["threshold"])]
                found["episode"] = shortened(
                    episode(place, case, cfg.episode.trace, policies[JOINT], facts, arm, cfg.episode.seconds)
                )
                save()
        if cfg.variants:
            vary(cfg, {k: p for k, p in policies.items() if k in (JOINT, AT_THE_CUT)}, found, save, bar)
    return name


def vary(cfg: DictConfig, policies: dict[str, Policy], found: Found, save: Callable[[], None], bar: Progress) -> None:
    """The joint policies where one thing is otherwise: confidences, links, what time is worth."""
    cases = [CASES[name] for name in VARIED if cfg.cases is None or name in cfg.cases]
    kept = found.setdefault("variants", {})
    for variant, change in VARIANTS.items():
        place = opened(OmegaConf.merge(cfg, change))  # type: ignore[arg-type]
        for case in cases:
            here = kept.setdefault(variant, {}).setdefault(case.name, {})
            open_ = [trace for trace in case.traces[: cfg.traces] if trace not in here]
            if not open_ or not policies:
                continue
            world = place.world(case, open_[0])
            facts = world.facts(place.stream(case).conditions)
            runs = len(open_) * cfg.seeds * (len(policies) + len(world.world.arms.single))
            task = bar.add_task(f"{case.name}, {variant}", total=runs)

            def step(task: Any = task) -> None:
                bar.advance(task)

            for trace in open_:
                here[trace] = shortened(shorter(play_trace(place, case, trace, policies, facts, cfg, step)))
            save()


def plain_list(value: Any) -> Any:
    """A value of a configuration as JSON holds it."""
    return value if isinstance(value, str | float | int | bool | None) else list(value)
