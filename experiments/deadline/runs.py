"""One run of one player, all of its seeds, and the rows of numbers that they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from omegaconf import DictConfig

from offramp.environments import Stream
from offramp.environments.links import Link
from offramp.environments.physical import Weights
from offramp.environments.timed import Journal, rollout_timed
from offramp.environments.timed.tables import Facts
from offramp.experiments.deadline.measures import (
    batches,
    drop_ms,
    missed_batches,
    missed_requests,
    plateau,
    right_in_time,
)
from offramp.experiments.deadline.places import CALM, PRISTINE, Place, arrivals_of, begun, repriced
from offramp.experiments.deadline.players import Player, cascade
from offramp.experiments.results import interval

Found = dict[str, Any]
Seeds = Callable[[Callable[[int], Any]], list[Any]]  # plays one run with each seed
FINE = np.round(np.geomspace(10.0, 1_000.0, 81), 1).tolist()  # ms: deadlines of the curves of a cascade
PLAIN = ("accuracy", "latency_ms", "latency_p95_ms", "offloaded", "dropped", "outage")
CURVES = ("missed", "batches", "right")
SHORT = ("drop_ms", "plateau", "accuracy", "latency_ms", "offloaded")


@dataclass(frozen=True, eq=False, kw_only=True)
class Course:
    """What all runs of a configuration share."""

    cfg: DictConfig
    places: Mapping[str, Place]
    links: Mapping[str, Link]
    streams: Mapping[str, Stream]
    shown: Mapping[str, float]
    facts: dict[tuple[str, str, bool], Facts]

    def weights(self, deadline_ms: float | None) -> Weights:
        """What a second is worth, and where a deadline is given, what missing it costs."""
        cfg = self.cfg
        if deadline_ms is None:
            return Weights(second=cfg.second, mu=cfg.mu)
        return Weights(second=cfg.second, mu=cfg.mu, missed=cfg.missed, deadline_ms=float(deadline_ms))

    def play(
        self, player: Player, calibration: str, stream: str, link: str, arrivals: str, deadline: float | None, seed: int
    ) -> Journal:
        """One run; with a deadline, missing it has its price."""
        cfg, place, weights = self.cfg, self.places[calibration], self.weights(deadline)
        times, buffer = arrivals_of(place, calm_ms=cfg.calm_ms, load=cfg.load, buffer=cfg.buffer)[arrivals]
        here = begun(self.links[link], seed / cfg.seeds)
        world = place.world(weights, here, times, buffer, sends_input=player.sends_input)
        key = (calibration, stream, player.sends_input)
        if key not in self.facts:
            self.facts[key] = world.facts(self.streams[stream].conditions)
        if player.arms is not None:
            world = replace(world, world=replace(world.world, arms=player.arms))
        journal, _ = rollout_timed(
            player.policy,
            world,
            self.streams[stream],
            horizon=cfg.horizon,
            seed=seed,
            facts=repriced(self.facts[key], weights, here),
        )
        return journal


def cascade_run(
    course: Course, player: Player, target: float, calibration: str, stream: str, link: str, seed: int
) -> Found:
    """What the tables show of one run of a cascade."""
    journal = course.play(player, calibration, stream, link, CALM, None, seed)
    mean_ms, right = batches(journal, course.cfg.batch)
    return {
        "drop_ms": drop_ms(mean_ms, right, target),
        "plateau": plateau(right, target),
        "accuracy": journal.mean("correct"),
        "latency_ms": journal.mean("latency_ms"),
        "offloaded": journal.mean("offloaded"),
        "batches": missed_batches(mean_ms, right, FINE, target),
        "missed": missed_requests(journal, FINE),
    }


def cascade_rows(course: Course, exits: int, stream: str, link: str, seeds: Seeds) -> list[Found]:
    """Every cascade at every target under every calibration, nothing waiting: the curve over deadlines in short.

    Returns
    -------
    list
        One row each, with mean and half-width of a 95 % interval over seeds: `drop_ms`, `plateau`, accuracy, latency,
        offloads, and the difference of drop and plateau to the first calibration, paired by seed; and, at the target
        that is shown, the curve of missed batches and missed requests.

    """
    cfg = course.cfg
    rows = []
    for k, target in product(cfg.exits, cfg.targets):
        player = cascade(exits, k, target)
        first: dict[str, list[float]] = {}
        for calibration in cfg.calibrations:
            runs = seeds(partial(cascade_run, course, player, target, calibration, stream, link))
            row: Found = {"exits": k, "target": target, "calibration": calibration}
            row |= {metric: over([run[metric] for run in runs]) for metric in SHORT}
            for metric in SHORT[:2]:
                mine = [run[metric] for run in runs]
                row[f"{metric}_change"] = over(np.subtract(mine, first.setdefault(metric, mine)).tolist())
            if target == course.shown[stream]:
                row["curve"] = {metric: curve([run[metric] for run in runs]) for metric in ("batches", "missed")}
            rows.append(row)
    return rows


def told(journal: Journal, cfg: DictConfig, deadlines: Sequence[float]) -> Found:
    """What the tables show of one run of a player."""
    summary = journal.summary()
    mean_ms, right = batches(journal, cfg.batch)
    return {name: summary[name] for name in PLAIN} | {
        "missed": missed_requests(journal, deadlines),
        "batches": missed_batches(mean_ms, right, deadlines, cfg.target),
        "right": right_in_time(journal, deadlines),
    }


def plain_run(course: Course, player: Player, calibration: str, link: str, arrivals: str, seed: int) -> Found:
    """One run without the price, which serves all deadlines."""
    journal = course.play(player, calibration, PRISTINE, link, arrivals, None, seed)
    return told(journal, course.cfg, list(course.cfg.deadlines))


def priced_runs(course: Course, player: Player, calibration: str, link: str, arrivals: str, seed: int) -> list[Found]:
    """A run with the price at each deadline that has one."""
    found = []
    for deadline in course.cfg.priced:
        journal = course.play(player, calibration, PRISTINE, link, arrivals, deadline, seed)
        found.append(told(journal, course.cfg, [deadline]))
    return found


def player_rows(course: Course, everybody: Mapping[str, Player], link: str, arrivals: str, seeds: Seeds) -> list[Found]:
    """Every player on pristine images: without the price under each calibration, with it under the last.

    Returns
    -------
    list
        One row each.  Without the price the decisions know no deadline, and one run serves all of `deadlines`; with it
        there is a run for each of `priced`, and its difference to the run without, paired by seed.

    """
    cfg = course.cfg
    at = [list(cfg.deadlines).index(deadline) for deadline in cfg.priced]
    last = cfg.calibrations[-1]
    rows = []
    for key, player in everybody.items():
        without: list[Found] = []
        for calibration in cfg.calibrations:
            without = seeds(partial(plain_run, course, player, calibration, link, arrivals))
            row: Found = {"player": key, "calibration": calibration, "priced": False}
            row |= {metric: over([run[metric] for run in without]) for metric in PLAIN}
            rows.append(row | {metric: curve([run[metric] for run in without]) for metric in CURVES})
        runs = seeds(partial(priced_runs, course, player, last, link, arrivals))
        row = {"player": key, "calibration": last, "priced": True}
        for metric in PLAIN:
            row[metric] = curve([[one[metric] for one in run] for run in runs])
        for metric in CURVES:
            mine = np.array([[one[metric][0] for one in run] for run in runs])
            row[metric] = curve(mine)
            row[f"{metric}_change"] = curve(mine - np.array([run[metric][at] for run in without]))
        rows.append(row)
    return rows


def over(values: Sequence[float]) -> list[float]:
    """Mean and half-width over the seeds that have a value; nan where fewer than two have one."""
    known = [v for v in values if not np.isnan(v)]
    if len(known) < 2:
        return [float("nan"), float("nan")]
    found = interval(known)
    return [found["mean"], found["half"]]


def curve(runs: Any) -> Found:
    """Mean and half-width at each deadline, from (seeds, deadlines)."""
    found = [over(list(column)) for column in np.asarray(runs, dtype=np.float64).T]
    return {"mean": [f[0] for f in found], "half": [f[1] for f in found]}
