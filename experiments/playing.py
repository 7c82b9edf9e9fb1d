"""Plays what a configuration names: its worlds, policies and stream, every policy with every seed, on threads."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from offramp.bandits import Arms, Policy
from offramp.bandits.budget import Budget
from offramp.bandits.loop import World as Arrays
from offramp.bandits.policy import needs_oracle
from offramp.bandits.rows import MU, IntArray
from offramp.environments import Comparators, ConfidenceCache, Stream, Trace, World, blocks, rollout
from offramp.environments.budgets import budget_of, regret_allowed
from offramp.environments.regret import best_arms
from offramp.environments.replay import arms_of
from offramp.environments.trace import checkpoints
from offramp.experiments.closer import Closer, changes, rounds, thinned
from offramp.experiments.earlier import open_cache
from offramp.experiments.results import Played


class Bar(Protocol):
    """Where progress is shown; `rich.progress.Progress` is one."""

    def add_task(self, description: str, *, total: float | None) -> Any:
        """Begin something of so many steps; returns its name."""

    def advance(self, task: Any) -> None:
        """One step is done."""


class Silent:
    """A bar that shows nothing."""

    def add_task(self, description: str, *, total: float | None) -> int:
        """Begin nothing."""
        return 0

    def advance(self, task: Any) -> None:
        """Show nothing."""


class Ground:
    """A world under a stream, with what is the same for every policy there: made once, kept while the process lives.

    Parameters
    ----------
    world, stream
        What is played.

    """

    def __init__(self, world: World, stream: Stream) -> None:
        self.world, self.stream = world, stream
        self._arrays: dict[bool, Arrays] = {}
        self._found: dict[tuple[int, int], Comparators] = {}
        self._moved: dict[tuple[int, int], IntArray] = {}

    def arrays(self, oracle: bool) -> Arrays:
        """The world's arrays, with the contexts that an oracle sees or without."""
        if oracle not in self._arrays:
            self._arrays[oracle] = self.world.arrays(self.stream.conditions, self.stream.links, oracle=oracle)
        return self._arrays[oracle]

    def blocks(self, horizon: int, seed: int) -> Any:
        """The rounds of one seed."""
        return blocks(self.stream, samples=len(self.world.cache.label), horizon=horizon, seed=seed)

    def comparators(self, horizon: int, seed: int) -> Comparators:
        """Against whom the policies are measured with one seed."""
        if (horizon, seed) not in self._found:
            at = checkpoints(horizon)
            self._found[horizon, seed] = Comparators(
                self.arrays(False), self.world.arms, self.blocks(horizon, seed), at
            )
        return self._found[horizon, seed]

    def changes(self, horizon: int, seed: int) -> IntArray:
        """Rounds of one seed at which condition or link change."""
        if (horizon, seed) not in self._moved:
            self._moved[horizon, seed] = changes(self.stream, horizon, seed)
        return self._moved[horizon, seed]

    @property
    def mu(self) -> float:
        """Confidence that a unit of cost is worth; nan where it changes with the link."""
        given = self.arrays(False).quotes[:, MU]
        return float(given[0]) if np.ptp(given) == 0.0 else math.nan


def several(config: DictConfig, mark: str, alone: str) -> dict[str, DictConfig]:
    """A table of named configurations, also where there is only one: it is one if it holds `mark`."""
    return {alone: config} if mark in config else {str(name): part for name, part in config.items()}


def numbers(given: Any, what: str) -> list[float]:
    """A configuration's list of numbers, as an override or a YAML file gives it.

    Raises
    ------
    ValueError
        It is empty or none, or something in it is no number.

    Examples
    --------
    >>> numbers([0, 0.5, float("inf")], "thresholds")
    [0.0, 0.5, inf]

    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"{what} is {given!r}, allowed is a list of numbers")
    for one in given:
        if isinstance(one, bool) or not isinstance(one, (int, float)) or math.isnan(one):
            raise ValueError(
                f"{what} hold {one!r}, allowed are numbers, and -inf and inf (an override's spelling; a YAML file's is "
                "-.inf and .inf)"
            )
    if not given:
        raise ValueError(f"{what} are empty, allowed is one or more")
    return [float(one) for one in given]


def make_world(config: DictConfig, cache: ConfidenceCache) -> World:
    """The world of one configuration over a cache."""
    thresholds, exits = numbers(config.thresholds, "thresholds"), len(cache.exits)
    arms = Arms.grid(exits=exits, thresholds=thresholds, raw_input_allowed=config.raw_input_allowed)
    if config.get("cascades") is not None:
        asked = dict(config.cascades)
        if "thresholds" in asked:
            asked["thresholds"] = numbers(asked["thresholds"], "thresholds of cascades")
        arms = arms.joined(Arms.cascades(exits=exits, **asked))
    return World(
        cache=cache.calibrated(config.calibration),
        prices=made(cache) if isinstance(made := instantiate(config.prices), partial) else made,
        arms=arms,
        evaluate=config.evaluate,
        cloud_returns=config.cloud_returns,
        raw_input_allowed=config.raw_input_allowed,
        routing=config.routing,
        fallback=config.fallback,
    )


def play(
    name: str,
    world: World,
    policies: Mapping[str, Policy],
    stream: Stream,
    seeds: list[int],
    cfg: DictConfig,
    bar: Bar,
    ground: Ground | None = None,
) -> Played:
    """Play every policy with every seed, on threads."""
    ground = Ground(world, stream) if ground is None else ground
    lateness = instantiate(cfg.lateness)
    refused = {p: why for p, policy in policies.items() if (why := arms_of(policy, world.arms)) is not None}
    playing = {p: policy for p, policy in policies.items() if p not in refused}
    at = checkpoints(cfg.horizon)
    arrays = {flag: ground.arrays(flag) for flag in {False, *map(needs_oracle, playing.values())}}
    task = bar.add_task(f"world {name}", total=len(seeds) * (len(playing) + 1))

    def one(policy: Policy, seed: int) -> tuple[Trace, Closer]:
        facts, moved = arrays[needs_oracle(policy)], ground.changes(cfg.horizon, seed)
        kept = rounds(at, moved, cfg.horizon)
        fine, _ = rollout(
            policy, world, stream, horizon=cfg.horizon, seed=seed, arrays=facts, lateness=lateness, checkpoints=kept
        )
        bar.advance(task)
        return thinned(fine, at), Closer.of(fine, moved, ground.mu)

    def reference(seed: int) -> Comparators:
        found = ground.comparators(cfg.horizon, seed)
        bar.advance(task)
        return found

    def allowed(budget: Budget, seed: int) -> float:
        return regret_allowed(arrays[False], world.arms, ground.blocks(cfg.horizon, seed), budget)

    with ThreadPoolExecutor(cfg.threads) as pool:
        against = [pool.submit(reference, seed) for seed in seeds]
        running = {p: [pool.submit(one, policy, seed) for seed in seeds] for p, policy in playing.items()}
        runs = {p: [job.result() for job in jobs] for p, jobs in running.items()}
        comparators = [job.result() for job in against]
    best = best_arms(arrays[False].gap, world.arms)
    budgets = {p: budget for p, policy in playing.items() if (budget := budget_of(policy)) is not None}
    return Played(
        name=name,
        arms=world.arms,
        stream=stream,
        seeds=seeds,
        horizon=cfg.horizon,
        traces={p: [trace for trace, _ in found] for p, found in runs.items()},
        refused=refused,
        comparators=comparators,
        best=best,
        kept={p: [allowed(budget, seed) for seed in seeds] for p, budget in budgets.items()},
        closer={p: [closer for _, closer in found] for p, found in runs.items()},
    )


def check(cfg: DictConfig) -> None:
    """Refuse what no run can mean, before anything is written."""
    for name, least in (("horizon", 1), ("seeds", 1), ("threads", 1), ("seed", 0)):
        value = cfg[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and value >= least) and not (name == "seed" and value is None):
            raise ValueError(f"{name} is {value!r}, allowed is a whole number, {least} or more")
    for name, world in several(cfg.world, "prices", "world").items():
        numbers(world.thresholds, f"thresholds of world {name}")


def choice(group: str) -> str:
    """Which option of a config group was chosen, the name of the only policy or world of a run."""
    return str(HydraConfig.get().runtime.choices.get(group, group)) if HydraConfig.initialized() else group


@lru_cache(maxsize=4)
def cache_part(name: str, split: str) -> ConfidenceCache:
    """Split of a cache, kept while the process lives: the jobs of a sweep share it."""
    return open_cache(name).part(split)


@lru_cache(maxsize=16)
def ground(cache: str, split: str, world: str, stream: str) -> Ground:
    """The ground of configurations that are given as JSON, kept while the process lives."""
    parts = (OmegaConf.create(json.loads(text)) for text in (world, stream))
    made, laid = next(parts), instantiate(next(parts), _convert_="all")
    return Ground(make_world(made, cache_part(cache, split)), laid)


def play_all(cfg: DictConfig, bar: Bar) -> list[Played]:
    """Play all worlds of a configuration.

    Raises
    ------
    ValueError
        The configuration means nothing.

    """
    check(cfg)
    policies = {name: instantiate(part) for name, part in several(cfg.policy, "_target_", choice("policy")).items()}
    seeds = list(range(cfg.seeds)) if cfg.seed is None else [int(cfg.seed)]
    text = {name: json.dumps(OmegaConf.to_container(part, resolve=True)) for name, part in _worlds(cfg).items()}
    stream = json.dumps(OmegaConf.to_container(cfg.stream, resolve=True))
    grounds = {name: ground(cfg.cache, cfg.split, world, stream) for name, world in text.items()}
    return [play(name, g.world, policies, g.stream, seeds, cfg, bar, g) for name, g in grounds.items()]


def _worlds(cfg: DictConfig) -> dict[str, DictConfig]:
    return several(cfg.world, "prices", choice("world"))
