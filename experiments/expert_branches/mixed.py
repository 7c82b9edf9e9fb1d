"""The mixed stream: every policy's front in every system under both price lists, and the gains at equal cost."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from omegaconf import DictConfig

from offramp.bandits import MacsAndBytes
from offramp.environments import Abrupt, ConfidenceCache
from offramp.environments.trace import checkpoints
from offramp.experiments.expert_branches.fronts import (
    Front,
    at_price,
    gain,
    held,
    play,
    repriced,
    segment_ends,
    together,
)
from offramp.experiments.expert_branches.systems import (
    EXPERTS,
    EXPERTS_RAW,
    ORACLE,
    PRICES,
    PRISTINE,
    PRISTINE_CALIBRATED,
    SUREST,
    SYSTEMS,
    adaee_cut,
    learners,
    make_world,
    price_list,
    rules,
)
from offramp.experiments.results import interval

ISPLITEE, ADAEE, FIXED = "I-SplitEE", "AdaEE", "best fixed rule"
POLICIES = (ISPLITEE, ADAEE, FIXED)
ANY_EXIT, BY_LABELS = "AdaEE, any exit", "any fixed rule, by labels"
PAIRS = (
    (EXPERTS, PRISTINE),
    (EXPERTS, PRISTINE_CALIBRATED),
    (EXPERTS, ORACLE),
    (EXPERTS, EXPERTS_RAW),
    (SUREST, EXPERTS),
)
EVERY_EXIT = (PRISTINE, PRISTINE_CALIBRATED, EXPERTS)  # systems in which AdaEE is played at each exit in turn
WHOLE, DISTORTED = "whole", "distorted"
Rows = list[dict[str, Any]]
Fronts = dict[str, Front]  # policy -> front


def exchange_rates(cfg: DictConfig) -> list[float]:
    """Values of mu: 0, and the configured ones evenly on a log scale; 1 is among them for the table at mu = 1."""
    spaced = np.geomspace(cfg.mu.least, cfg.mu.most, cfg.mu.count)
    return sorted({0.0, 1.0, *(float(f"{m:.3g}") for m in spaced)})


def check_stream(cfg: DictConfig, stream: object) -> Abrupt:
    """Refuse a stream without equal segments, or a horizon whose segments end between the rounds that a trace keeps."""
    if not isinstance(stream, Abrupt):
        raise ValueError(f"stream is {type(stream).__name__}, allowed is Abrupt: segments of equal length")
    count = len(stream.segments)
    kept = np.isin(segment_ends(stream, cfg.horizon), checkpoints(cfg.horizon)).all()
    if len(set(stream.links)) > 1:
        raise ValueError(f"links of the stream are {stream.links}, allowed is the same for every segment")
    if stream.length is not None or cfg.horizon % count or not kept:
        raise ValueError(
            f"horizon is {cfg.horizon} and length {stream.length} with {count} segments, allowed is a multiple of "
            f"the segments, of which there are 1, 2, 4, ... or 64, and length null"
        )
    return stream


def runs(cfg: DictConfig, exits: int) -> int:
    """How many runs `compared` makes, for a progress bar."""
    arms = (exits - 1) * len(cfg.thresholds) + 1
    learning = len(PRICES) * len(exchange_rates(cfg))
    return int(cfg.seeds) * sum(arms + learning * (exits if name in EVERY_EXIT else 2) for name in SYSTEMS)


def fronts_of(
    name: str,
    caches: dict[str, ConfidenceCache],
    stream: Abrupt,
    cfg: DictConfig,
    pool: ThreadPoolExecutor,
    played: Callable[[], None],
) -> dict[str, Fronts]:
    """Every policy's front in one system, by price list."""
    system = SYSTEMS[name]
    profile = caches[system.calibration].profile
    assert profile is not None
    free, mu = MacsAndBytes(mu=0.0), exchange_rates(cfg)
    world = make_world(system, caches, free, list(cfg.thresholds))
    arrays = world.arrays(stream.conditions, stream.links)
    how: dict[str, Any] = {"horizon": cfg.horizon, "seeds": range(cfg.seeds), "pool": pool, "played": played}
    exits = len(world.cache.exits)
    usual = adaee_cut(cfg, exits)
    cuts = range(1, exits) if name in EVERY_EXIT else (usual,)
    every_rule = play({arm: (policy, arrays) for arm, policy in rules(world.arms).items()}, world, stream, **how)
    out = {}
    for listed in PRICES:
        priced = {f"{m:g}": at_price(arrays, world, price_list(listed, profile, cfg, m), stream.links) for m in mu}
        found = {
            policy: play({m: (spec, facts) for m, facts in priced.items()}, world, stream, **how)
            for policy, spec in learners(cfg, cuts).items()
        }
        paid = repriced(every_rule, world, price_list(listed, profile, cfg, 0.0), stream.links[0])
        out[listed] = found | {ADAEE: found[f"AdaEE at exit {usual}"], FIXED: held(paid, mu), BY_LABELS: paid}
        if name in EVERY_EXIT:
            out[listed][ANY_EXIT] = together([found[f"AdaEE at exit {cut}"] for cut in cuts])
    return out


def at_one(front: Front) -> dict[str, dict[str, float]]:
    """Accuracy, cost, offloads and reward over the whole stream at mu = 1, each with its interval over seeds."""
    i = front.settings.index("1")
    return {
        name: interval(getattr(front, name)[i].mean(axis=1).tolist())
        for name in ("accuracy", "cost", "offloads", "reward")
    }


def curve(front: Front) -> dict[str, Any]:
    """The means over seeds at every setting, for figures."""
    return {
        "settings": list(front.settings),
        "cost": front.cost[:, :, 0].mean(axis=1).tolist(),
        "accuracy": front.accuracy[:, :, 0].mean(axis=1).tolist(),
        "half": [interval(a.tolist())["half"] for a in front.accuracy[:, :, 0]],
    }


def compared(
    caches: dict[str, ConfidenceCache],
    stream: Abrupt,
    cfg: DictConfig,
    pool: ThreadPoolExecutor,
    played: Callable[[], None],
) -> dict[str, Rows]:
    """Gains at equal cost, the table at mu = 1, AdaEE's best exits, and the fronts themselves."""
    families = {c.name: c.family for c in caches["raw"].conditions}
    distorted = np.array([families[name] != caches["raw"].experts[0] for name in stream.conditions])
    parts = {WHOLE: np.arange(len(distorted)), DISTORTED: np.flatnonzero(distorted)}
    out: dict[str, Rows] = {"gains": [], "at_mu_1": [], "adaee_exits": [], "fronts": []}
    found_in = {name: fronts_of(name, caches, stream, cfg, pool, played) for name in SYSTEMS}
    for prices in PRICES:
        of = {name: fronts[prices] for name, fronts in found_in.items()}
        for name, fronts in of.items():
            for policy in POLICIES:
                place = {"prices": prices, "system": name, "policy": policy}
                out["at_mu_1"].append({**place, **at_one(fronts[policy])})
                out["fronts"] += [
                    {**place, "part": part, **curve(fronts[policy].over(segments))} for part, segments in parts.items()
                ]
            if name not in EVERY_EXIT:
                continue
            earned = {p: at_one(f)["reward"]["mean"] for p, f in fronts.items() if p.startswith("AdaEE at")}
            best = max(earned, key=lambda p: earned[p])
            row = {"prices": prices, "system": name, "best": int(best.rsplit(" ", 1)[1]), **at_one(fronts[best])}
            out["adaee_exits"].append(row)
        for one, other in PAIRS:
            for policy in (*POLICIES, ANY_EXIT, BY_LABELS):
                if policy not in of[one] or policy not in of[other]:
                    continue
                for part, segments in parts.items():
                    found = gain(of[one][policy].over(segments), of[other][policy].over(segments), cfg.costs)
                    place = {"prices": prices, "system": one, "against": other, "policy": policy, "part": part}
                    out["gains"].append({**place, **found})
    return out
