"""Carries the protocol out on one cache: tunes each policy alike, plays all of them, and records what came of it."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.bandits import Policy
from offramp.bandits.policy import needs_oracle
from offramp.environments import ConfidenceCache
from offramp.environments.regret import best_arms
from offramp.environments.replay import arms_of
from offramp.experiments.earlier import open_cache, significant, title
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.joint_policy.play import gathered, one, oracles
from offramp.experiments.joint_policy.spaces import Contender
from offramp.experiments.joint_policy.suite import (
    REPORTING,
    TUNING,
    Setting,
    missing,
    prepared,
    reporting,
    tuning,
    world_of,
)
from offramp.experiments.joint_policy.tuning import FIRST_SEED, Course, playable, tuned
from offramp.experiments.sources import digest

Found = dict[str, Any]
RECORDED = ("horizon", "seeds", "trials", "tuning_horizon", "tuning_seeds", "settings")


def sources() -> str:
    """A digest of all that decides what a run yields: kernels, worlds, and this study's own worlds and sums."""
    return digest(Path(__file__).parent, "suite", "play")


def chosen(
    cfg: DictConfig,
    cache: ConfidenceCache,
    name: str,
    settled: dict[str, Found],
    save: Callable[[], None],
    bar: Progress,
) -> tuple[dict[str, Found], dict[str, str]]:
    """The setting of each policy, tuned where it was not before; and why some are absent."""
    seeds = range(FIRST_SEED, FIRST_SEED + cfg.tuning_seeds)
    course = Course(prepared(cache, TUNING), tuning(), horizon=cfg.tuning_horizon, seeds=list(seeds))
    wanted = {k: c for k, c in CONTENDERS.items() if cfg.only is None or k in cfg.only}
    here, absent = playable(wanted, course)
    exits = course.arms.exits
    if cfg.settings != "own":
        if cfg.settings not in settled:
            raise ValueError(
                f"settings is {cfg.settings!r}, allowed are 'own' and {sorted(settled)} as tuned in this folder"
            )
        source = settled[cfg.settings]
        return {
            k: {"chosen": c.nearest(source[k]["chosen"] if k in source else {}, exits)} for k, c in here.items()
        }, absent
    mine = settled.setdefault(name, {})
    of = f"{cfg.trials} trials, {cfg.tuning_horizon} rounds, {cfg.tuning_seeds} seeds, {hash_of(tuning())}"
    open_ = {
        k: c
        for k, c in here.items()
        if cfg.retune or k not in mine or mine[k]["of"] != f"{of}, {hash_of(c.space(exits))}"
    }
    task = bar.add_task("tuning", total=cfg.trials * len(open_))

    def tune(key: str, contender: Contender) -> None:
        result = tuned(contender, course, cfg.trials, lambda: bar.advance(task))
        # What is played is what is written, to the digit.
        mine[key] = significant(result) | {"of": f"{of}, {hash_of(contender.space(exits))}"}

    with ThreadPoolExecutor(cfg.threads) as pool:
        jobs = {key: pool.submit(tune, key, contender) for key, contender in open_.items()}
        for job in jobs.values():
            job.result()
            save()
    return {k: mine[k] for k in here}, absent


def hash_of(value: Any) -> str:
    """A short digest of what a value prints."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def play_world(
    setting: Setting, cache: ConfidenceCache, policies: dict[str, Policy], cfg: DictConfig, here: Found, bar: Progress
) -> None:
    """Play all of these policies in one world and add what they yielded to its record."""
    world = world_of(setting, cache)
    at = (setting.stream.conditions, setting.stream.links)
    plain = {flag: world.arrays(*at, oracle=flag) for flag in {False, *(needs_oracle(p) for p in policies.values())}}
    wide = {k: CONTENDERS[k].widened(world) for k in policies}
    arrays = {
        k: plain[needs_oracle(p)] if wide[k] is world else wide[k].arrays(*at, oracle=needs_oracle(p))
        for k, p in policies.items()
    }
    refused = {k: why for k, p in policies.items() if (why := arms_of(p, wide[k].arms)) is not None}
    playing = {k: p for k, p in policies.items() if k not in refused}
    here["refused"] = {k: v for k, v in here.get("refused", {}).items() if k not in policies} | refused
    seeds, horizon = range(cfg.seeds), cfg.horizon
    task = bar.add_task(setting.name, total=cfg.seeds * (len(playing) + 1))

    def play(key: str, policy: Policy, seed: int) -> Any:
        run = one(policy, setting, wide[key], arrays[key], horizon=horizon, seed=seed)
        bar.advance(task)
        return run

    def compare(seed: int) -> Any:
        run = oracles(setting, world, plain[False], horizon=horizon, seed=seed)
        bar.advance(task)
        return run

    with ThreadPoolExecutor(cfg.threads) as pool:
        against = [pool.submit(compare, seed) for seed in seeds]
        running = {k: [pool.submit(play, k, p, seed) for seed in seeds] for k, p in playing.items()}
        yardsticks = [job.result() for job in against]
        here["oracles"] = {k: [y[k] for y in yardsticks] for k in yardsticks[0]}
        for key, jobs in running.items():
            here["played"][key] = gathered([job.result() for job in jobs], here["oracles"]["dynamic"], horizon)
    best = best_arms(plain[False].gap, world.arms)
    here["best_cuts"] = sorted({world.arms[int(a)].cut for a in np.unique(best)})


def study(
    cfg: DictConfig, kept: dict[str, Any], settled: dict[str, Found], save: Callable[[], None], console: Console
) -> str:
    """Add one cache to the record, world after world; returns its name."""
    cache = open_cache(cfg.cache)
    name = title(cache, cfg.cache)
    config = {k: cfg[k] for k in RECORDED}
    made = f"{sources()} {hash_of((config, dict(cache.hashes)))}"
    found = kept.setdefault(name, {"worlds": {}})
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar:
        settings, absent = chosen(cfg, cache, name, settled, save, bar)
        exits = len(cache.exits)
        policies = {k: CONTENDERS[k].build(s["chosen"], exits) for k, s in settings.items()}
        test = prepared(cache, REPORTING)
        found |= {
            "offramp": version("offramp"),
            "cache": dict(cache.hashes),
            "exits": exits,
            "images": len(test.label),
            "config": config,
            "absent": {k: v for k, v in found.get("absent", {}).items() if k not in settings} | absent,
            "policies": found.get("policies", {}) if cfg.only is not None else {},
        }
        found["policies"] |= {
            k: {
                "title": CONTENDERS[k].title,
                "group": CONTENDERS[k].group,
                "spec": repr(p),
                "chosen": settings[k]["chosen"],
            }
            for k, p in policies.items()
        }
        for setting in reporting():
            if cfg.worlds is not None and setting.name not in cfg.worlds:
                continue
            here = found["worlds"].get(setting.name, {})
            # Runs of other sources are dropped, but for those that `only` leaves as they are.
            if here.get("made") != made and cfg.only is None:
                here = {}
            here = {"played": {}} | here | {"about": setting.about, "abrupt": setting.abrupt, "made": made}
            found["worlds"][setting.name] = here
            here["lacks"] = missing(setting, test)
            known = here.get("of", {})
            to_play = {k: p for k, p in policies.items() if cfg.only is not None or known.get(k) != f"{made} {p!r}"}
            if here["lacks"] is None and to_play:
                play_world(setting, test, to_play, cfg, here, bar)
                here["of"] = known | {k: f"{made} {p!r}" for k, p in to_play.items()}
                save()
    return name
