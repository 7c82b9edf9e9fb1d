"""`offramp compare`: policies x seeds against a stream; a table in the terminal, data and a report in a folder."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from offramp.bandits import Arms, Policy
from offramp.bandits.budget import Budget
from offramp.bandits.policy import needs_oracle
from offramp.environments import Comparators, ConfidenceCache, Stream, World, blocks, rollout
from offramp.environments.budgets import budget_of, regret_allowed
from offramp.environments.regret import best_arms
from offramp.environments.replay import arms_of
from offramp.environments.trace import checkpoints
from offramp.experiments.earlier import open_cache, write
from offramp.experiments.refusals import in_one_line
from offramp.experiments.report import write_report
from offramp.experiments.results import REFERENCE, WITHIN_METRIC, Played, long_traces, summary, table

Means = dict[str, dict[str, dict[str, float]]]


def several(config: DictConfig, mark: str, alone: str) -> dict[str, DictConfig]:
    """A table of named configurations, also where there is only one: it is one if it holds `mark`."""
    return {alone: config} if mark in config else {str(name): part for name, part in config.items()}


def make_world(config: DictConfig, cache: ConfidenceCache) -> World:
    """The world of one configuration over a cache."""
    arms = Arms.grid(exits=len(cache.exits), thresholds=config.thresholds, raw_input_allowed=config.raw_input_allowed)
    if config.get("cascades") is not None:
        arms = arms.joined(Arms.cascades(exits=len(cache.exits), **config.cascades))
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
    policies: dict[str, Policy],
    stream: Stream,
    seeds: list[int],
    cfg: DictConfig,
    bar: Progress,
) -> Played:
    """Play every policy with every seed, on threads."""
    arrays = {flag: world.arrays(stream.conditions, stream.links, oracle=flag) for flag in (False, True)}
    lateness = instantiate(cfg.lateness)
    refused = {p: why for p, policy in policies.items() if (why := arms_of(policy, world.arms)) is not None}
    playing = {p: policy for p, policy in policies.items() if p not in refused}
    if not playing:
        raise ValueError(f"world {name} can play none of the policies: {next(iter(refused.values()))}")
    at = checkpoints(cfg.horizon)
    task = bar.add_task(f"world {name}", total=len(seeds) * (len(playing) + 1))

    def one(policy: Policy, seed: int) -> Any:
        facts = arrays[needs_oracle(policy)]
        trace, _ = rollout(policy, world, stream, horizon=cfg.horizon, seed=seed, arrays=facts, lateness=lateness)
        bar.advance(task)
        return trace

    def reference(seed: int) -> Comparators:
        rounds = blocks(stream, samples=len(world.cache.label), horizon=cfg.horizon, seed=seed)
        found = Comparators(arrays[False], world.arms, rounds, at)
        bar.advance(task)
        return found

    def allowed(budget: Budget, seed: int) -> float:
        rounds = blocks(stream, samples=len(world.cache.label), horizon=cfg.horizon, seed=seed)
        return regret_allowed(arrays[False], world.arms, rounds, budget)

    with ThreadPoolExecutor(cfg.threads) as pool:
        running = {p: [pool.submit(one, policy, seed) for seed in seeds] for p, policy in playing.items()}
        against = [pool.submit(reference, seed) for seed in seeds]
        traces = {p: [job.result() for job in jobs] for p, jobs in running.items()}
        comparators = [job.result() for job in against]
    best = best_arms(arrays[False].gap, world.arms)
    budgets = {p: budget for p, policy in playing.items() if (budget := budget_of(policy)) is not None}
    kept = {p: [allowed(budget, seed) for seed in seeds] for p, budget in budgets.items()}
    return Played(name, world.arms, stream, seeds, cfg.horizon, traces, refused, comparators, best, kept)


def shown(value: dict[str, float], scale: float = 1.0, digits: int = 3) -> str:
    """Mean and half-width as text."""
    text = f"{value['mean'] * scale:.{digits}f}"
    return text if math.isnan(value["half"]) else f"{text} ±{value['half'] * scale:.{digits}f}"


HEADS = ("cost", "saved %", "accuracy %", "change, points", "agreement %", "offloaded %", "regret", "µs/round")
WITHIN = "regret, ceiling kept"


def heads(means: Means) -> tuple[str, ...]:
    """What the columns say; one more where a policy has a ceiling to keep."""
    return (*HEADS[:-1], WITHIN, HEADS[-1]) if any(WITHIN_METRIC in found for found in means.values()) else HEADS


def cells(found: dict[str, dict[str, float]], columns: tuple[str, ...] = HEADS) -> list[str]:
    """The cells of one policy under these columns."""
    within = shown(found[WITHIN_METRIC], 1, 0) if WITHIN_METRIC in found else "–"
    return [
        shown(found["cost"]),
        shown(found["cost_saved"], 100, 1) if "cost_saved" in found else "–",
        shown(found["accuracy"], 100, 1),
        shown(found["accuracy_change"], 100, 1) if "accuracy_change" in found else "–",
        shown(found["agreement"], 100, 1),
        shown(found["offload_share"], 100, 1),
        shown(found["regret_total"], 1, 0),
        *([within] if WITHIN in columns else []),
        f"{found['microseconds_per_round']['mean']:.2f}",
    ]


def show(console: Console, played: Played, means: Means) -> None:
    """Print the table of one world."""
    n = len(played.seeds)
    grid = Table(
        title=f"world {played.name}: {played.horizon:,} rounds, {n} seed{'s' * (n > 1)}, mean ±95 % interval",
        caption=f"saved and change are against {REFERENCE}, paired by seed; regret is the dynamic pseudo-regret",
    )
    grid.add_column("policy")
    columns = heads(means)
    for head in columns:
        grid.add_column(head, justify="right")
    for policy, found in means.items():
        grid.add_row(policy, *cells(found, columns))
    for policy in played.refused:
        grid.add_row(policy, "not offered in this world", *[""] * (len(columns) - 1))
    console.print(grid)


def markdown(played: Played, means: Means) -> str:
    """The table of one world as Markdown, without the clock: what stays the same from run to run."""
    columns = heads(means)
    rows = [["policy", *columns[:-1]], ["---", *["--:"] * (len(columns) - 1)]]
    rows += [[policy, *cells(found, columns)[:-1]] for policy, found in means.items()]
    rows += [[policy, "not offered", *[""] * (len(columns) - 2)] for policy in played.refused]
    return f"World `{played.name}`:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def check(cfg: DictConfig) -> None:
    """Refuse what no run can mean, before anything is written."""
    for name, least in (("horizon", 1), ("seeds", 1), ("threads", 1), ("seed", 0)):
        value = cfg[name]
        if not (isinstance(value, int) and value >= least) and not (name == "seed" and value is None):
            raise ValueError(f"{name} is {value!r}, allowed is a whole number, {least} or more")
    for name, world in several(cfg.world, "prices", "world").items():
        if len(world.thresholds) == 0:
            raise ValueError(f"thresholds of world {name} are empty, allowed is one or more")


def plain(value: Any) -> Any:
    """The same without infinities and nan, which JSON does not know: text in place of the one, null of the other."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def run(cfg: DictConfig, folder: Path) -> Path:
    """Play, print, and write the run folder; returns the path of the report."""
    check(cfg)
    console = Console(width=None if Console().is_terminal else 150)
    started = time.perf_counter()
    cache = open_cache(cfg.cache).part(cfg.split)
    policies = {name: instantiate(part) for name, part in several(cfg.policy, "_target_", _choice("policy")).items()}
    worlds = {name: make_world(part, cache) for name, part in several(cfg.world, "prices", _choice("world")).items()}
    stream = instantiate(cfg.stream, _convert_="all")
    seeds = list(range(cfg.seeds)) if cfg.seed is None else [int(cfg.seed)]
    folder.mkdir(parents=True, exist_ok=True)
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar:
        played = [play(name, world, policies, stream, seeds, cfg, bar) for name, world in worlds.items()]
    frames = [table(p) for p in played]
    means = [summary(frame) for frame in frames]
    for p, m in zip(played, means, strict=True):
        show(console, p, m)
    everything = pd.concat(frames, ignore_index=True)
    everything.to_json(folder / "results.jsonl", orient="records", lines=True)
    everything.to_parquet(folder / "results.parquet")
    pd.concat([long_traces(p) for p in played], ignore_index=True).to_parquet(folder / "traces.parquet")
    facts = {
        "offramp": version("offramp"),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "cache": dict(cache.hashes),
        "worlds": {p.name: m for p, m in zip(played, means, strict=True)},
        "refused": {p.name: dict(p.refused) for p in played},
    }
    write(folder / "summary.json", json.dumps(plain(facts), indent=1, allow_nan=False))
    tables = "\n".join(markdown(p, m) for p, m in zip(played, means, strict=True))
    write(folder / "table.md", tables)
    path = folder / "report.html"
    write_report(path, cache, cfg, played, means)
    console.print(f"{time.perf_counter() - started:.1f} s; report: {path.resolve()}", soft_wrap=True)
    return path


def _choice(group: str) -> str:
    """Which option of a config group was chosen, the name of the only policy or world of a run."""
    return str(HydraConfig.get().runtime.choices.get(group, group)) if HydraConfig.initialized() else group


@hydra.main(config_path="pkg://offramp.conf", config_name="compare", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp compare`."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
