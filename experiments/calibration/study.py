"""Runs the study on one cache: measures, draws, and writes result.json, tables and figures into a folder."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from offramp.environments import CacheError, ConfidenceCache
from offramp.experiments import figures
from offramp.experiments.calibration import drift, fitting, guarantees, honesty, offload, pictures, policies, tables
from offramp.experiments.calibration.record import packed, unpacked
from offramp.experiments.calibration.samples import PRISTINE, ROUTED, calibrations
from offramp.experiments.earlier import open_cache, shortened, title
from offramp.experiments.refusals import whole_numbers
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.written import Save, run_study

SCORED = "mobilenet_v2_cifar10"
ASSIGNMENTS = 20
SETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def check(cfg: DictConfig, cache: ConfidenceCache) -> int:
    """Refuse what the study cannot do, before anything is measured; how many exits lie at the edge."""
    whole_numbers(cfg, {"seeds": 2, "horizon": drift.WINDOWS, "rounds": 2, "draws": 2})
    for name in ("target", "audits"):
        if not 0.0 < cfg[name] < 1.0:
            raise ValueError(f"{name} is {cfg[name]!r}, allowed is a number in (0, 1)")
    if not cfg.targets or not all(0.0 < p < 1.0 for p in cfg.targets) or cfg.target not in cfg.targets:
        raise ValueError(
            f"targets are {list(cfg.targets)}, allowed are numbers in (0, 1), target {cfg.target} among them"
        )
    exits = len(cache.exits)
    k = min(3, exits - 1) if cfg.edge_exits is None else cfg.edge_exits
    if not (isinstance(k, int) and 1 <= k < exits):
        raise ValueError(f"edge_exits is {k!r}, allowed is a whole number in 1..{exits - 1}")
    if cache.profile is None or cache.router is None or "expert_exit" not in cache.calibrations:
        raise CacheError("cache lacks profile, router or calibrations, allowed is one that offramp extract makes")
    for name in cfg.places:
        cache.condition(name)
    return k


def measure(cfg: DictConfig, done: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Figure]]:
    """All numbers of the study as plain data, and its figures; `done` is told what was finished."""
    whole = open_cache(cfg.cache)
    k = check(cfg, whole)
    table, stream = fitting.table_beside(cfg.cache), instantiate(cfg.stream, _convert_="all")
    machines = offload.Machines(edge_gmacs=cfg.edge_gmacs, cloud_gmacs=cfg.cloud_gmacs, edge_exits=k)
    players = {"I-SplitEE": instantiate(cfg.policies.isplitee), "AdaEE": instantiate(cfg.policies.adaee, cut=k)}
    cache, seeds = whole.part("test"), range(cfg.seeds)
    caches = calibrations(cache)
    last = list(caches)[-1]
    validation = whole.part("validation").calibrated(last)
    name = title(cache, cfg.cache)
    found: dict[str, Any] = {
        "name": name,
        "network": name,
        "draws": cfg.draws,
        "hashes": dict(cache.hashes),
        "target": cfg.target,
        "edge_exits": k,
    }
    done("caches")
    found["matched"] = honesty.matched_rows(caches, validation, cfg.draws)
    worst = honesty.largest(found["matched"], last)
    found["in_turn"] = honesty.largest_in_turn(caches[last])
    found["assignments"] = honesty.other_assignments(caches[last], ASSIGNMENTS)
    found["signs"] = honesty.signs_rows(caches[last], cache.experts.index(worst["expert"]), worst["exit"])
    done("matched conditions")
    found["levels"], found["misrouted"] = honesty.level_rows(caches), honesty.misrouted_rows(caches)
    done("levels")
    found["methods"] = fitting.method_rows(cache, table, cfg.target)
    found["as_in_the_papers"] = fitting.as_in_the_papers(cache, table, cfg.target)
    found["fitting_sets"] = fitting.fitting_set_rows(cache, table, SETS)
    done("fitting")
    where = offload.places(cache, cfg.places, stream.conditions)
    found["effect"] = offload.effect_rows(caches, where, machines, cfg.targets, cfg.rounds)
    done("offloading")
    curves = offload.deadline_rows(caches, where, machines, None, cfg.rounds)
    found["deadlines"] = [{name: x for name, x in row.items() if name != "curve"} for row in curves]
    few = max(2, cfg.rounds // 5)
    found["deadlines_by_target"] = offload.deadline_rows(caches, where, machines, cfg.targets, few)
    for row in found["deadlines_by_target"]:
        row.pop("curve", None)
    done("deadlines")
    found["risk"] = guarantees.risk_rows(caches[last], stream.conditions, **cfg.risk)
    done("risk control")
    found["drift"] = drift.over_time(
        caches, stream, exit_at=k, horizon=cfg.horizon, seeds=seeds, target=cfg.target, audits=cfg.audits
    )
    done("drift")
    found["policies"] = policies.policy_rows(caches, players, cfg.world, stream, horizon=cfg.horizon, seeds=seeds)
    done("policies")
    about = (
        f"edge {cfg.edge_gmacs:g}, cloud {cfg.cloud_gmacs:g} GMAC/s, {k} exits at the edge, n = {len(cache.label):,} "
        f"images; bands: 95 % over {cfg.rounds} shuffles into batches of 256"
    )
    shown = [(PRISTINE, "pristine"), (ROUTED, "pristine"), (ROUTED, "mixed stream")]
    drawn = {
        "reliability": pictures.reliability_diagrams(name, caches, sorted({1, k, len(cache.exits)})),
        "levels": pictures.level_errors(name, found["levels"]),
        "offloading": pictures.offloading(name, found["effect"], k, cfg.rounds),
        "deadlines": pictures.deadlines(name, curves, shown, about),
        "drift": pictures.over_time(name, found["drift"], stream.conditions),
    }
    done("figures")
    return found, drawn


STEPS = 10


def run(cfg: DictConfig) -> Path:
    """Measure as the configuration says, and write result.json, figures, README.md and the page of all tables."""
    drawn, began = dict[str, str](), time.perf_counter()

    def added(kept: dict[str, Any], _: Save, console: Console) -> str:
        with Progress(TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
            task = bar.add_task("opening", total=STEPS)

            def done(what: str) -> None:
                bar.update(task, advance=1, description=what)
                if not console.is_terminal:
                    console.print(f"{what}: {time.perf_counter() - began:.0f} s")

            found, shown = measure(cfg, done)
        name = str(found.pop("name"))
        drawn.update({f"{name}.{picture}": figures.svg(figure, picture) for picture, figure in shown.items()})
        kept |= merged(kept, name, found)
        return name

    return run_study(
        Path(cfg.folder),
        added,
        draw=lambda name, found: drawn,
        pages=lambda name, found: {f"{name}.tables": tables.page(name, found)},
        fill=tables.fill,
        told=told,
        under="caches",
    )


def told(found: dict[str, Any]) -> str:
    """What the console says: the largest error on matched conditions."""
    worst = honesty.largest(unpacked(found)["matched"], "expert_exit")
    return f"largest matched ECE: {worst['ece']:.4f} ({worst['expert']} expert, exit {worst['exit']})"


def merged(before: dict[str, Any], name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The record of other caches, and what was found on this; the score is the committed one's."""
    caches = before.get("caches", {}) | {name: packed(shortened(plain(found)))}
    score = before.get("score")
    if name == SCORED:
        score = {
            "name": "largest calibration error (15 bins) of any exit of any expert on matched conditions, at "
            "temperatures of each expert and exit",
            "value": round(honesty.largest(found["matched"], "expert_exit")["ece"], 5),
            "allowed": tables.LIMIT,
        }
    return {"study": "calibration", "score": score, "caches": dict(sorted(caches.items()))}
