"""Simulates logs, evaluates targets on them, and records how often the intervals hold."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.bandits import UCB1, ChainUCB, EpsilonGreedy, Exp3IX, Fixed, MacsAndBytes, RandomArm
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.loop import World as Arrays
from offramp.bandits.policy import Policy
from offramp.environments import World
from offramp.experiments.earlier import open_cache, title
from offramp.experiments.offpolicy.evaluation import Evaluation, Mixture, evaluate
from offramp.experiments.offpolicy.intervals import mean
from offramp.experiments.offpolicy.logs import Log
from offramp.experiments.offpolicy.paths import bounds, rule_of
from offramp.experiments.offpolicy.replayed import replayed
from offramp.experiments.offpolicy.revelation import Logging
from offramp.experiments.offpolicy.simulated import Setting, logged, played

Found = dict[str, Any]
INF = float("inf")
EXITS = 7
FEW = {"cuts": (1, 2, 3, 7), "thresholds": (0.5, 0.9, INF)}
GRID = Arms.grid(exits=EXITS, thresholds=FEW["thresholds"]).without(cuts=[4, 5, 6])
TWO = Arms.grid(exits=EXITS, thresholds=FEW["thresholds"]).without(cuts=[1, 4, 5, 6, 7])
LATE = 100  # decisions that wait for their feedback, where it comes late
LOGGERS: dict[str, tuple[str, Policy, Arms, int]] = {
    "epsilon_greedy": ("epsilon-greedy, epsilon .2", EpsilonGreedy(epsilon=0.2), GRID, 0),
    "exp3_ix": ("EXP3-IX, share .1", Exp3IX(eta=0.1, share=0.1, memory=8), GRID, 0),
    "exp3_ix_late": (f"EXP3-IX, {LATE} late", Exp3IX(eta=0.1, share=0.1, memory=8), GRID, LATE),
    "chain_ucb": ("ChainUCB, audits 10 %", ChainUCB(audit=0.1), TWO, 0),
}
BLIND: dict[str, tuple[str, Policy, Arms, str]] = {
    "fixed": ("always 2@0.5, no audits", Fixed(cut=2, threshold=0.5), GRID, "2@0.9"),
    "chain_ucb_blind": ("ChainUCB, no audits", ChainUCB(), TWO, "7"),
}
TARGETS: dict[str, Mixture] = {
    "1@0.9": [(1.0, Arm(1, 0.9))],
    "2@0.7": [(1.0, Arm(2, 0.7))],
    "2@0.9:0.7": [(1.0, Arm(2, 0.7, (0.9,)))],
    "7": [(1.0, Arm(EXITS, -INF))],
    "mixture": [(0.3, Arm(1, 0.9)), (0.4, Arm(2, 0.7)), (0.3, Arm(EXITS, -INF))],
}
OTHERS: dict[str, Mixture] = {"2@0.9": [(1.0, Arm(2, 0.9))]}
BY_PLAYS = ("1@0.9", "7")  # targets that the drawing loggers play themselves
CHUNK = 5  # logs of one job
FIRST = 20_000  # the first log's seed; those below were looked at while weights and intervals were chosen


@lru_cache(maxsize=2)
def opened(cache: str, conditions: tuple[str, ...], links: tuple[float, ...]) -> tuple[Setting, Arrays]:
    """The world that logs are drawn from."""
    world = World(cache=open_cache(cache).part("test"), prices=MacsAndBytes(), arms=GRID)
    if world.arms.exits != EXITS:
        raise ValueError(f"the cache has {world.arms.exits} exits, allowed are {EXITS}")
    setting = Setting(world, conditions, links)
    return setting, setting.arrays()


def said(found: Evaluation) -> Found:
    """An evaluation as JSON holds it."""
    return {
        "estimates": {name: one.numbers for name, one in found.estimates.items()},
        "refusal": found.refusal,
        "used": found.used / found.requests,
        "shown": found.shown,
        "ends": [found.lowest, found.highest],
        "ess": found.ess,
        "largest": found.largest,
    }


def identified(place: tuple[Any, ...], key: str, seeds: list[int], requests: int, lengths: list[int]) -> list[Found]:
    """Logs of one logger: every target on the whole of each, by plays too, and on its beginnings."""
    _, arrays = opened(*place)
    _, policy, arms, late = LOGGERS[key]
    made = []
    for seed in seeds:
        log = logged(policy, arms, arrays, requests=requests, seed=seed, late=late)
        logging = Logging(log)
        one: Found = {name: said(evaluate(mixture, log, logging=logging)) for name, mixture in TARGETS.items()}
        if log.chance is not None:
            plays = Logging(log, by_plays=True)
            for name in BY_PLAYS:
                one[name]["by_plays"] = said(evaluate(TARGETS[name], log, logging=plays))["estimates"]
        one["lengths"] = {}
        for n in lengths:
            part = log.first(n)
            logging = Logging(part)
            one["lengths"][str(n)] = {
                name: said(evaluate(mixture, part, logging=logging))["estimates"] for name, mixture in TARGETS.items()
            }
        made.append(one)
    return made


def blind(place: tuple[Any, ...], key: str, seeds: list[int], requests: int) -> list[Found]:
    """Logs that do not identify the target: what is said, and what the mean over all that shows would say."""
    _, arrays = opened(*place)
    _, policy, arms, target = BLIND[key]
    mixture = (TARGETS | OTHERS)[target]
    made = []
    for seed in seeds:
        log = logged(policy, arms, arrays, requests=requests, seed=seed)
        low, high = bounds(rule_of(mixture[0][1], log.exits), log)
        naive = mean(low[low == high]).numbers
        made.append(said(evaluate(mixture, log)) | {"naive": naive})
    return made


def lived(place: tuple[Any, ...], seeds: list[int], requests: int) -> list[Found]:
    """UCB1 replayed over a log of random arms, and UCB1 itself over as many requests."""
    _, arrays = opened(*place)
    made = []
    for seed in seeds:
        log = logged(RandomArm(), GRID, arrays, requests=requests, seed=seed)
        found = replayed(UCB1(), log, seed=seed)
        if found.estimate is not None:
            entries = list(played(UCB1(), GRID, arrays, requests=found.accepted, seed=100_000 + seed))
            own = Log.of(np.array([e.decision for e in entries]), np.array([e.observation for e in entries]))
            made.append({"accepted": found.accepted, "value": found.estimate.value, "own": float(own.reward.mean())})
    return made


def covered(values: list[list[float]], truth: float) -> Found:
    """What a list of (value, error, half the length) amounts to."""
    x, _, half = np.array(values).T
    return {
        "logs": len(x),
        "held": int((np.abs(x - truth) <= half).sum()),
        "bias": float(x.mean() - truth),
        "sd": float(x.std(ddof=1)) if len(x) > 1 else 0.0,
        "half": float(half.mean()),
    }


def summed(logs: list[Found], truths: dict[str, float]) -> Found:
    """All logs of one logger, target by target."""
    table: Found = {}
    for name, truth in truths.items():
        all_ = [one[name] for one in logs]
        given = [one for one in all_ if one["estimates"]]
        names = list(given[0]["estimates"]) if given else []
        row: Found = {
            "truth": truth,
            "refused": len(all_) - len(given),
            "used": float(np.mean([one["used"] for one in all_])),
            "shown": float(np.mean([one["shown"] for one in all_])),
            "bounded": float(np.mean([one["ends"][0] <= truth <= one["ends"][1] for one in all_])),
            "ess": float(np.mean([one["ess"] for one in given])) if given else 0.0,
            "largest": float(np.max([one["largest"] for one in given])) if given else 0.0,
            "estimators": {e: covered([one["estimates"][e] for one in given], truth) for e in names},
            "values": [one["estimates"][names[-1]][0] for one in given] if names else [],
        }
        by_plays = [one["by_plays"] for one in all_ if one.get("by_plays")]
        if by_plays:
            row["by_plays"] = covered([one["dr"] for one in by_plays], truth)
        row["lengths"] = {}
        for n in logs[0]["lengths"]:
            begun = [one["lengths"][n][name] for one in logs if n in one["lengths"]]
            given = [one for one in begun if one]
            if given:
                row["lengths"][n] = {e: covered([one[e] for one in given], truth) for e in names}
        table[name] = row
    return table


def unsaid(logs: list[Found], truth: float) -> Found:
    """All logs of one blind logger."""
    widths = [one["ends"][1] - one["ends"][0] for one in logs]
    return {
        "truth": truth,
        "logs": len(logs),
        "refused": sum(bool(one["refusal"]) for one in logs),
        "refusal": next((one["refusal"] for one in logs if one["refusal"]), ""),
        "shown": float(np.mean([one["shown"] for one in logs])),
        "naive": covered([one["naive"] for one in logs], truth),
        "bounded": float(np.mean([one["ends"][0] <= truth <= one["ends"][1] for one in logs])),
        "width": float(np.mean(widths)),
    }


def chunks(logs: int) -> Iterator[list[int]]:
    """Seeds, a few at a time."""
    for start in range(0, logs, CHUNK):
        yield list(range(FIRST + start, FIRST + min(logs, start + CHUNK)))


def study(cfg: DictConfig, kept: Found, save: Callable[[], None], console: Console) -> str:
    """Add one cache to the record; returns its name."""
    place = cfg.cache, tuple(cfg.conditions), tuple(float(x) for x in cfg.links)
    setting, arrays = opened(*place)
    name = title(setting.world.cache, cfg.cache)
    jobs: list[tuple[str, Callable[..., list[Found]], tuple[Any, ...]]] = []
    for seeds in chunks(cfg.logs):
        lengths = [int(n) for n in cfg.lengths] if seeds[0] < FIRST + cfg.length_logs else []
        jobs += [(key, identified, (place, key, seeds, cfg.requests, lengths)) for key in LOGGERS]
        jobs += [(key, blind, (place, key, seeds, cfg.requests)) for key in BLIND]
        jobs.append(("replay", lived, (place, seeds, cfg.requests)))
    made: dict[str, list[Found]] = {key: [] for key, _, _ in jobs}
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar:
        task = bar.add_task("logs", total=len(jobs))
        for key, found in carried_out(jobs, cfg.threads):
            made[key] += found
            bar.advance(task)
    truths = {target: setting.truth(arrays, list(mixture)) for target, mixture in (TARGETS | OTHERS).items()}
    lives = made["replay"]
    kept[name] = {
        "offramp": version("offramp"),
        "cache": dict(setting.world.cache.hashes),
        "config": {k: cfg[k] if isinstance(cfg[k], str | int) else list(cfg[k]) for k in RECORDED},
        "loggers": {key: {"title": one[0], "spec": repr(one[1])} for key, one in {**LOGGERS, **BLIND}.items()},
        "cases": {key: summed(made[key], {t: truths[t] for t in TARGETS}) for key in LOGGERS},
        "blind": {key: {"target": BLIND[key][3], **unsaid(made[key], truths[BLIND[key][3]])} for key in BLIND},
        "replay": {
            "accepted": [one["accepted"] for one in lives],
            "value": [one["value"] for one in lives],
            "own": [one["own"] for one in lives],
        },
    }
    save()
    return name


RECORDED = ("conditions", "links", "logs", "requests", "lengths", "length_logs")


def carried_out(
    jobs: list[tuple[str, Callable[..., list[Found]], tuple[Any, ...]]], threads: int
) -> Iterator[tuple[str, list[Found]]]:
    """Results in the order of the jobs, from as many processes."""
    if threads == 1:
        yield from ((key, work(*given)) for key, work, given in jobs)
        return
    with ProcessPoolExecutor(threads, mp_context=get_context("spawn")) as pool:
        running = [(key, pool.submit(work, *given)) for key, work, given in jobs]
        yield from ((key, one.result()) for key, one in running)
