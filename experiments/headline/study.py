"""What is played on one cache, and the claims that it is held against."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.bandits import ISplitEE, Policy
from offramp.bandits.rows import FloatArray
from offramp.environments import Abrupt
from offramp.experiments.earlier import open_cache, shortened, title
from offramp.experiments.expert_branches.fronts import play as play_front
from offramp.experiments.expert_branches.mixed import check_stream, curve, exchange_rates
from offramp.experiments.expert_branches.systems import (
    EXPERTS,
    EXPERTS_RAW,
    PRISTINE,
    PRISTINE_CALIBRATED,
    SUREST,
    SYSTEMS,
    views,
)
from offramp.experiments.headline.images import CLAIMED_OF, COMPARED, MIXED, Played, apart
from offramp.experiments.headline.playing import (
    BEST,
    FIRST,
    ISPLITEE,
    OURS,
    PLAIN,
    PLAYERS,
    SEND,
    WHOLE,
    Caches,
    Ground,
    Runs,
    Table,
    chosen_mu,
    exits_over,
    grounds,
    players,
    validation,
)
from offramp.experiments.headline.prices import AUTHORS, CLAIMED, PAPER, At, lists, paper, physical, places, units
from offramp.experiments.results import interval

DRAWN = (PRISTINE, PRISTINE_CALIBRATED, EXPERTS_RAW, EXPERTS, SUREST)
ISPLITEE_IN = (PRISTINE, EXPERTS)
SAVED, GAINED = 65.0, 12.0  # per cent of the cost, points over the plain network
RECORDED = (
    "policy",
    "stream",
    "horizon",
    "seeds",
    "mu",
    "thresholds",
    "prices",
    "authors",
    "places",
    "fronts",
    "choosing",
)
Found = dict[str, Any]


def against(one: Runs, other: Runs) -> Found:
    """Cost saved in per cent and accuracy gained in points, paired by seed."""
    return {
        "saved": interval((100.0 * (1.0 - one["cost"] / other["cost"])).tolist()),
        "gained": interval((100.0 * (one["accuracy"] - other["accuracy"])).tolist()),
    }


def claims(runs: dict[str, Runs]) -> list[Found]:
    """What was to be shown under one price list: each holds where the whole interval lies on its side."""
    ours = runs[OURS]
    rows = []
    for other, saved, gained in ((WHOLE, SAVED, 0.0), (PLAIN, None, GAINED), (SEND, 0.0, 0.0), (FIRST, 0.0, 0.0)):
        found = against(ours, runs[other])
        low = {name: found[name]["mean"] - found[name]["half"] for name in found}
        cheaper = True if saved is None else low["saved"] >= saved if saved else low["saved"] > 0.0
        rows.append({"against": other, **found, "cheaper": cheaper, "right": low["gained"] >= gained})
        rows[-1]["holds"] = bool(cheaper and rows[-1]["right"])
    return rows


def summed(runs: dict[str, Runs]) -> dict[str, Found]:
    """Mean and interval of accuracy, cost and offloads of every player."""
    return {
        name: {field: interval(run[field].tolist()) for field in ("accuracy", "cost", "offloads")}
        for name, run in runs.items()
    }


def means(run: Runs) -> dict[str, float]:
    """The means over seeds."""
    return {name: float(values.mean()) for name, values in run.items()}


def fronts(caches: Caches, stream: Abrupt, cfg: DictConfig, pool: ThreadPoolExecutor, tick: Any) -> list[Found]:
    """Cost and accuracy over mu of ours in every drawn system, and of I-SplitEE in two, under every price list."""
    profile = caches["raw"].profile
    assert profile is not None
    ours: Policy = instantiate(cfg.policy)
    out = []
    for name in DRAWN:
        ground = Ground.of(SYSTEMS[name], caches, stream, cfg)
        who = {OURS: ours} | ({ISPLITEE: ISplitEE(threshold=cfg.isplitee_threshold)} if name in ISPLITEE_IN else {})
        for listed, prices in lists(cfg, profile).items():
            whole = cost_of_whole(ground, prices)
            priced = {f"{mu:g}": ground.at(prices, mu) for mu in exchange_rates(cfg.fronts)}
            for policy, spec in who.items():
                front = play_front(
                    {mu: (spec, arrays) for mu, arrays in priced.items()}, ground.world, stream,
                    horizon=cfg.horizon, seeds=range(cfg.fronts.seeds), pool=pool, played=tick,
                )  # fmt: skip
                every = np.arange(len(stream.segments))
                place = {"prices": listed, "system": name, "policy": policy, "whole": whole}
                out.append(place | curve(front.over(every)))
    return out


def cost_of_whole(ground: Ground, prices: Any) -> float:
    """What the last exit costs on the edge."""
    world = ground.world
    return float(prices(1.0).quote(world.profile, raw_input_allowed=True).edge_cost[-1])


def streams(
    cfg: DictConfig, caches: Caches, held_out: Caches, mixed: Abrupt, table: Table, choosing: Table
) -> list[Found]:
    """Other streams in paper units: ours at the stated mu, and at one that validation images chose."""
    profile = caches["raw"].profile
    assert profile is not None
    prices, mus = paper(cfg, profile), [mu for mu in exchange_rates(cfg.fronts) if mu > 0.0]
    rows = []
    for name, stream in named(cfg, mixed).items():
        on = grounds(caches, stream, cfg)
        best = best_exit(held_out, stream)
        runs = table.play(players(cfg, on, prices, best))
        mu = chosen_mu(cfg, Ground.of(SYSTEMS[EXPERTS], held_out, stream, cfg), prices, mus, choosing)
        picked = table.play({OURS: (instantiate(cfg.policy), on[EXPERTS], on[EXPERTS].at(prices, mu))})[OURS]
        rows.append({
            "stream": name,
            "conditions": [c for c, _ in stream.segments],
            "best_exit": best,
            "players": summed(runs),
            "against": {other: against(runs[OURS], runs[other]) for other in PLAYERS if other != OURS},
            "mu": mu,
            "picked": summed({OURS: picked})[OURS] | against(picked, runs[WHOLE]),
        })  # fmt: skip
    return rows


def named(cfg: DictConfig, mixed: Abrupt) -> dict[str, Abrupt]:
    """Every stream by its name, that of the claims first."""
    return {MIXED: mixed} | {k: Abrupt(segments=tuple((c, 1.0) for c in v)) for k, v in cfg.streams.items()}


def plan(cfg: DictConfig, prices: dict[str, At], held_out: Caches, mixed: Abrupt) -> dict[str, Played]:
    """What is played on parts of the images: the claims under their two price lists, other streams in paper units."""
    both = {name: prices[name] for name in (PAPER, CLAIMED)}
    made = {}
    for name, stream in named(cfg, mixed).items():
        who, at = (CLAIMED_OF, both) if name == MIXED else (COMPARED, {PAPER: both[PAPER]})
        made[name] = Played(stream=stream, best=best_exit(held_out, stream), who=who, prices=at)
    return made


def over_images(found: dict[tuple[str, str], dict[str, Runs]]) -> Found:
    """Claims and comparisons of runs that differ in their images as well."""

    def beside(runs: dict[str, Runs]) -> Found:
        return {other: against(runs[OURS], runs[other]) for other in (WHOLE, BEST, ISPLITEE)}

    lists_ = [
        {"prices": listed, "claims": claims(runs), "against": beside(runs)}
        for (stream, listed), runs in found.items()
        if stream == MIXED
    ]
    others = [
        {"stream": stream, "against": beside(runs)} for (stream, listed), runs in found.items() if listed == PAPER
    ]
    return {"lists": lists_, "streams": others}


def best_exit(held_out: Caches, stream: Abrupt) -> int:
    """The exit of the experts that is right most often on validation images of a stream, counted from 1."""
    return int(exits_over(held_out, stream, EXPERTS).argmax()) + 1


def total_runs(cfg: DictConfig) -> int:
    """How many runs there are, for a progress bar."""
    mus = len(exchange_rates(cfg.fronts))
    spots, others = len(places(cfg)), 1 + len(cfg.streams)
    drawn = (len(DRAWN) + len(ISPLITEE_IN)) * 4 * mus * cfg.fronts.seeds
    on_parts = cfg.seeds * (2 * len(CLAIMED_OF) + (others - 1) * len(COMPARED))
    everybody = cfg.seeds * len(PLAYERS) * (2 + spots + others)
    return int(drawn + everybody + on_parts + others * (cfg.seeds + mus * cfg.choosing.seeds))


def study(cfg: DictConfig, console: Console) -> tuple[str, Found]:
    """Measure everything on one cache; returns its name and the record."""
    cache = open_cache(cfg.cache)
    caches, held_out = views(cache), validation(cache)
    mixed = check_stream(cfg, instantiate(cfg.stream, _convert_="all"))
    profile = cache.profile
    assert profile is not None
    best, on = best_exit(held_out, mixed), grounds(caches, mixed, cfg)
    chances: dict[str, list[float]] = {name: as_list(exits_over(caches, mixed, name)) for name in (PRISTINE, EXPERTS)}
    found: Found = {
        "offramp": version("offramp"),
        "cache": dict(cache.hashes),
        "images": len(caches["raw"].label),
        "exits": len(cache.exits),
        "best_exit": best,
        "accuracy_of_exits": chances,
        "depth": [float(x) / profile.layers[-1] for x in profile.layers],
        "config": {k: OmegaConf.to_object(cfg[k]) if OmegaConf.is_config(cfg[k]) else cfg[k] for k in RECORDED},
    }
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar, ThreadPoolExecutor(cfg.threads) as pool:
        task = bar.add_task("runs", total=total_runs(cfg))

        def tick() -> None:
            bar.advance(task)

        table = Table(horizon=cfg.horizon, seeds=range(cfg.seeds), pool=pool, played=tick)
        first = cfg.choosing.first
        choosing = Table(
            horizon=cfg.choosing.horizon, seeds=range(first, first + cfg.choosing.seeds), pool=pool, played=tick
        )
        shown = {k: v for k, v in lists(cfg, profile).items() if k in (PAPER, AUTHORS)}
        found["lists"] = []
        for name, prices in shown.items():
            runs = table.play(players(cfg, on, prices, best))
            found["lists"].append({"prices": name, "players": summed(runs), "claims": claims(runs)})
        found["places"] = []
        for place in places(cfg):
            runs = table.play(players(cfg, on, physical(cfg, profile, place), best))
            spent = {who: units(cfg, profile, place, means(run)) for who, run in runs.items()}
            found["places"].append(
                {"place": place.name, "players": summed(runs), "units": spent, "claims": claims(runs)}
            )
        found["lists"].append({"prices": CLAIMED} | found["places"][0])
        found["streams"] = streams(cfg, caches, held_out, mixed, table, choosing)
        images = apart(cfg, caches, plan(cfg, lists(cfg, profile), held_out, mixed), table)
        found["over_images"] = over_images(images)
        found["fronts"] = fronts(caches, mixed, cfg, pool, tick)
    return title(cache, cfg.cache), dict(shortened(found))


def as_list(values: FloatArray) -> list[float]:
    """Numbers as JSON has them."""
    return [float(v) for v in values]
