"""Runs the study: averages all rules, draws the diagram, plays its points, and writes result.json, tables, figures."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from offramp.environments import CacheError, ConfidenceCache
from offramp.environments.devices import DeviceProfile
from offramp.environments.links import preset
from offramp.environments.payloads import PayloadTable
from offramp.experiments.earlier import open_cache, open_payloads, significant, title
from offramp.experiments.payload import diagram, pictures, tables, wire
from offramp.experiments.payload.diagram import Exchange, Grid, Pair
from offramp.experiments.payload.online import CHANGING, Place, online_row, streams
from offramp.experiments.payload.points import does, point_row
from offramp.experiments.payload.rules import OFFERED, Clock, means, rules_of, terms
from offramp.experiments.sources import digest
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.written import Save, run_study

QUICK = {
    "rates": {"count": 9},
    "edges": {"count": 7},
    "thresholds": [-np.inf, 0.5, 0.8, np.inf],
    "online": {"factors": [20.0], "rates": [2.0], "seeds": 2, "passes": 0.1},
}
MIXED = "all conditions"
RADIOS = ("lte", "wifi")
PICKED, SURE = "latency, picked on validation", 1.645  # standard errors: one side of 95 %


def check(cfg: DictConfig) -> DictConfig:
    """The configuration as it is meant; refuses what no run can mean, before anything is measured."""
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, QUICK)  # type: ignore[assignment]
    for name in ("rates", "edges"):
        axis = cfg[name]
        if not (0.0 < axis.least < axis.most < np.inf and isinstance(axis["count"], int) and axis["count"] >= 2):
            raise ValueError(f"{name} is {dict(axis)}, allowed is 0 < least < most and a whole number of 2 or more")
    for name, values in (
        ("round_trips", cfg.round_trips),
        ("online.factors", cfg.online.factors),
        ("online.rates", cfg.online.rates),
    ):
        if not values or not all(0.0 < x < np.inf for x in values):
            raise ValueError(f"{name} are {list(values)}, allowed is one number > 0 or more")
    if cfg.online.round_trip not in cfg.round_trips:
        raise ValueError(f"online.round_trip is {cfg.online.round_trip}, allowed are {list(cfg.round_trips)}")
    ladder = list(cfg.thresholds)
    if sorted(set(ladder)) != ladder or not ladder or ladder[0] != -np.inf or ladder[-1] != np.inf:
        raise ValueError(f"thresholds are {ladder}, allowed is a rising list from -inf to +inf")
    if not 0.0 <= cfg.slack < 1.0:
        raise ValueError(f"slack is {cfg.slack}, allowed is a share in [0, 1)")
    if not (isinstance(cfg.online.seeds, int) and cfg.online.seeds >= 2):
        raise ValueError(f"online.seeds is {cfg.online.seeds!r}, allowed is a whole number, 2 or more")
    for name, value in (("power_w", cfg.power_w), ("second", cfg.second), ("online.passes", cfg.online.passes)):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name} is {value}, allowed is a finite number > 0")
    return cfg


def opened(cfg: DictConfig) -> tuple[ConfidenceCache, PayloadTable, DeviceProfile]:
    """Cache and table of payloads at the same temperatures, and the measured machine."""
    cache, table = open_cache(cfg.cache), open_payloads(cfg.cache)
    device = DeviceProfile.embedded(cfg.cache) if cfg.machine is None else DeviceProfile.load(cfg.machine)
    table.check(cache)
    device.check(cache)
    if len(cache.experts) > 1:
        raise CacheError(f"experts are {cache.experts}, allowed is one: maps were coded for one network")
    for name in cfg.shown:
        cache.condition(name)
    if cfg.calibration != "raw":
        if cfg.calibration not in cache.calibrations:
            raise CacheError(f"calibration is {cfg.calibration!r}, allowed are raw and {sorted(cache.calibrations)}")
        table = table.calibrated(float(cache.calibrations[cfg.calibration][0, -1]))
        cache = cache.calibrated(cfg.calibration)
    return cache, table, device


def sources() -> str:
    """A digest of all that decides what a run yields."""
    return digest(Path(__file__).parent, "rules", "diagram", "online")


def mixtures(cache: ConfidenceCache) -> dict[str, Any]:
    """How often each condition comes: one alone, and all alike."""
    n = len(cache.conditions)
    return {c.name: np.eye(n)[s] for s, c in enumerate(cache.conditions)} | {MIXED: np.full(n, 1.0 / n)}


def measure(cfg: DictConfig, done: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Pair], Place]:
    """All but what is played: the wire, the diagrams, the points."""
    cache, table, device = opened(cfg)
    test, coded = cache.part("test"), table.part("test")
    clock, grid = Clock.of(device, table), Grid.of(cfg.edges, cfg.rates)
    worth = Exchange(cfg.second, cfg.mu)
    done("cache and table")
    found: dict[str, Any] = {
        "cache": dict(cache.hashes),
        "device": {"name": device.name, "source": device.source, "total_ms": device.total_ms},
        "config": {k: v for k, v in OmegaConf.to_container(cfg, resolve=True).items() if k != "folder"},  # type: ignore[union-attr]
        "images": {"test": len(test.label), "validation": int((cache.split == 0).sum())},
        "exits": [float(x) for x in (test.prediction[0, 0] == test.label[:, None]).mean(axis=0)],
        "edge_ms": clock.edge.tolist(),
        "cloud_ms": clock.cloud.tolist(),
        "map_values": list(cache.profile.payload_bytes) if cache.profile else [],
    }
    found["wire"] = wire.wire_rows(test, coded)
    found["deflated"] = wire.deflated(found["wire"], cfg.online.factors)
    done("on the wire")
    rules = rules_of(table, len(cache.exits), list(cfg.thresholds))
    found["rules"] = {"offered": sum(r.kind in OFFERED for r in rules), "all": len(rules)}
    few, held = cache.part("validation"), table.part("validation")
    sides = means(rules, few, held, keep=True), means(rules, test, coded)
    done("rules")
    pairs = {
        name: Pair(*(terms(side, clock, table, weights) for side in sides)) for name, weights in mixtures(cache).items()
    }
    shown = [*cfg.shown, MIXED]
    factor, rate = grid.cells
    found["whole"] = {name: float(pair.test.weights @ pair.test.means.whole) for name, pair in pairs.items()}
    found["grid"] = {"factors": grid.factors.tolist(), "rates": grid.rates.tolist()}
    found |= {"shares": [], "maps": [], "along": [], "honest": [], "backed": [], "points": [], "slack": []}
    for name, pair in pairs.items():
        for trip in cfg.round_trips:
            for objective, chosen in (
                ("latency", pair.known.fastest(factor, rate, trip, cfg.slack)),
                (PICKED, pair.fastest(factor, rate, trip, cfg.slack)),
                ("reward", pair.best(factor, rate, trip, worth)),
            ):
                where = {"objective": objective, "condition": name, "round_trip_ms": trip}
                found["shares"].append(where | diagram.shares(chosen, rules))
                if name in shown:
                    found["maps"].append(where | diagram.charted(chosen, rules))
                    picks = np.abs(np.log(grid.factors[:, None] / np.array(cfg.online.factors))).argmin(axis=0)
                    for k in picks.tolist():
                        for piece in diagram.along(chosen[k], rules, grid.rates):
                            found["along"].append(where | {"factor": float(grid.factors[k])} | piece)
            where = {"condition": name, "round_trip_ms": trip}
            for sure in (0.0, SURE):
                kept = diagram.honest(pair, grid, trip, cfg.slack, sure)
                found["honest"].append(where | {"sure": sure} | kept)
            found["backed"].append(where | diagram.backed(pair.known, grid, trip, cfg.slack))
        for radio in RADIOS:
            chosen = pair.known.leanest(factor, rate, preset(radio).energy, cfg.power_w, cfg.slack)
            where = {"objective": f"energy, {radio}", "condition": name, "round_trip_ms": None}
            found["shares"].append(where | diagram.shares(chosen, rules))
            if name in shown:
                found["maps"].append(where | diagram.charted(chosen, rules))
        if name in shown:
            for slack in (0.0, cfg.slack, 3 * cfg.slack):
                chosen = pair.known.fastest(factor, rate, cfg.online.round_trip, slack)
                found["slack"].append({"condition": name, "slack": slack} | diagram.shares(chosen, rules))
            for k in cfg.online.factors:
                for r in cfg.online.rates:
                    at = {"factor": k, "mbit_s": r, "round_trip_ms": cfg.online.round_trip}
                    row = point_row(pair.known, test, coded, clock, slack=cfg.slack, worth=worth, **at)
                    row["picked"] = does(pair, int(pair.fastest(k, r, cfg.online.round_trip, cfg.slack)), **at)
                    found["points"].append({"condition": name} | row)
    done("diagrams")
    return found, pairs, Place(test, table, device, worth)


def play(
    cfg: DictConfig,
    place: Place,
    pairs: dict[str, Pair],
    kept: dict[str, Any],
    save: Callable[[], None],
    done: Callable[[], None],
) -> None:
    """Add to the record each point that it lacks, one after the other."""
    n = len(place.cache.label)
    o = cfg.online
    horizon = max(2, int(o.passes * n))
    for name, stream in streams(place.cache).items():
        pair = pairs[MIXED if name == CHANGING else name]
        for factor in o.factors:
            for rate in o.rates:
                at = {"factor": factor, "mbit_s": rate, "round_trip_ms": o.round_trip}
                if any(r["stream"] == name and all(r[k] == v for k, v in at.items()) for r in kept["online"]):
                    done()
                    done()
                    continue
                index = int(pair.best(factor, rate, o.round_trip, place.worth))
                latency = pair.test.latency(factor, rate, o.round_trip)
                expected = {
                    "latency_ms": float(latency[index]),
                    "reward": float(place.worth.reward(pair.test, latency)[index]),
                }
                row = online_row(
                    place, pair.rules[index], expected, stream, horizon=horizon, seeds=o.seeds, done=done, **at
                )
                kept["online"].append({"stream": name} | row)
                save()


def drawn(name: str, found: dict[str, Any]) -> dict[str, str]:
    """The figures by the names of their files."""
    return {f"{name}.{picture}": text for picture, text in pictures.draw(found).items()}


def run(cfg: DictConfig, folder: str | Path) -> Path:
    """Measure as the configuration says, and write result.json, figures and README.md; what other caches left stays.

    The record is written after each point that was played, so that a run that was broken off goes on where it was.
    """
    cfg = check(cfg)

    def added(kept: dict[str, Any], save: Save, console: Console) -> str:
        count = 4 + 4 * len(cfg.online.factors) * len(cfg.online.rates)
        with Progress(TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
            task = bar.add_task("opening", total=count)

            def done(what: str = "in time") -> None:
                bar.update(task, advance=1, description=what)

            found, pairs, place = measure(cfg, done)
            name = title(place.cache, cfg.cache)
            old = kept.get(name, {})
            settings = json.dumps(plain(found["config"] | found["cache"] | found["device"]))
            made = f"{sources()} {hashlib.sha256(settings.encode()).hexdigest()[:16]}"
            kept[name] = found | {"made": made, "online": old.get("online", []) if old.get("made") == made else []}
            play(cfg, place, pairs, kept[name], save, done)
        return name

    return run_study(Path(folder), added, draw=drawn, fill=tables.fill, told=tables.verdict, shorten=significant)
