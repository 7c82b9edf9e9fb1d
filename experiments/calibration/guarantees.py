"""Thresholds with a guarantee, under mixed conditions and routed experts: for all together, and by group."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from offramp.bandits.risk import GRID, LOSSES, METHODS, losses, pick
from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import ConfidenceCache
from offramp.experiments.calibration.samples import ROUTED, answering, mixed, view

Rows = list[dict[str, Any]]
POOLED = "all"


def risk_rows(
    cache: ConfidenceCache,
    segments: Sequence[str],
    *,
    splits: int,
    n: int,
    eps: float,
    delta: float,
    done: Callable[[], None] = lambda: None,
) -> Rows:
    """One row for each loss, method, and group that thresholds are chosen for, over random splits.

    Parameters
    ----------
    cache
        Test part, calibrated.
    segments
        Conditions of the mixed stream, in turn over the samples.
    splits, n
        How many random splits, and how many samples of a group each threshold is chosen on; the rest is judged.
    eps, delta
        Risk allowed, and probability with which ucb and ltt may exceed it.
    done
        Called after each row.

    Returns
    -------
    list
        Mean risk and its 95 % interval over splits, share of splits above eps, share answered before the last exit.
        A threshold chosen for "all" is judged inside each group of the router as well: there nothing is guaranteed.

    """
    at = mixed(cache, segments)
    expert = answering(cache, at, ROUTED)
    found = view(cache, at, expert)
    early = np.maximum.accumulate(found.confidence[:, :-1], axis=1)[:, -1]
    sizes = np.bincount(expert, minlength=len(cache.experts))
    groups = [g for g in range(len(cache.experts)) if sizes[g] >= 2 * n]
    rows = []
    for loss in LOSSES:
        table = losses(found.confidence, found.prediction, cache.label, loss=loss)
        for method in METHODS:
            facts = {"loss": loss, "method": method, "n": n, "splits": splits, "eps": eps, "delta": delta}
            chosen = {POOLED: np.arange(len(expert))} | {cache.experts[g]: np.flatnonzero(expert == g) for g in groups}
            for group, mine in chosen.items():
                judged = [POOLED, *(cache.experts[g] for g in groups)] if group == POOLED else [group]
                risks = _over_splits(table, early, expert, cache, mine, judged, method, splits, n, eps, delta)
                for inside, (risk, answered) in risks.items():
                    rows.append(facts | {"chosen_on": group, "judged_in": inside} | _summary(risk, answered, eps))
                done()
    return rows


def _over_splits(
    table: FloatArray,
    early: FloatArray,
    expert: IntArray,
    cache: ConfidenceCache,
    mine: IntArray,
    judged: Sequence[str],
    method: str,
    splits: int,
    n: int,
    eps: float,
    delta: float,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    found = {name: (np.zeros(splits), np.zeros(splits)) for name in judged}
    for i in range(splits):
        order = np.random.default_rng(i).permutation(mine)
        chosen = pick(table[order[:n]], method=method, eps=eps, delta=delta)
        rest = order[n:]
        for name in judged:
            own = rest if name in (POOLED, *judged[:1]) else rest[expert[rest] == cache.experts.index(name)]
            if math.isfinite(chosen.value):
                found[name][0][i] = table[own, GRID.index(chosen.value)].mean()
                found[name][1][i] = (early[own] >= chosen.value).mean()
    return found


def _summary(risk: FloatArray, answered: FloatArray, eps: float) -> dict[str, float]:
    half = 1.96 * risk.std(ddof=1) / math.sqrt(len(risk)) if len(risk) > 1 else math.nan
    return {
        "risk": float(risk.mean()),
        "risk_half": float(half),
        "above": float((risk > eps).mean()),
        "early": float(answered.mean()),
    }
