"""Condition by condition: the cascade at a target, the best exit, what routing costs, and what the fallback changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.environments import ConfidenceCache
from offramp.environments.offloading import Answers as Cascade
from offramp.environments.offloading import answers, shares
from offramp.environments.reliability import Z, wilson
from offramp.experiments.expert_branches.systems import (
    EXPERTS,
    ORACLE,
    PRISTINE,
    PRISTINE_CALIBRATED,
    SUREST,
    SYSTEMS,
    Answers,
    answers_of,
)

Rows = list[dict[str, Any]]
CASCADES = (PRISTINE, PRISTINE_CALIBRATED, EXPERTS, SUREST)
LAST = {"none": "last", "most_confident": "most_confident"}  # a world's fallback -> a cascade's


def cascades(
    cache: ConfidenceCache, said: dict[str, Answers], targets: Sequence[float], edge_exits: int, chosen: float
) -> tuple[Rows, Rows]:
    """The cascade of each system under each condition at each target, and what the fallback changes at one of them.

    Returns
    -------
    tuple
        Rows of shares: overall accuracy, edge share, edge accuracy with its Wilson interval, and how sure the
        edge was on average; and rows of the change of
        overall accuracy by the fallback, in points, with a paired 95 % interval over images.

    """
    table, effect = [], []
    for s, condition in enumerate(cache.conditions):
        for name in CASCADES:
            fallback = LAST[SYSTEMS[name].fallback]
            c, right = said[name].confidence[s], said[name].correct[s]
            for target in targets:
                found = answers(c, right, target, edge_exits=edge_exits, fallback=fallback)
                sure = c[found.edge, found.stopped[found.edge]]
                low, high = wilson(found.correct[found.edge].sum(), len(sure))
                table.append({
                    "condition": condition.name,
                    "family": condition.family,
                    "system": name,
                    "target": target,
                    **rates(found),
                    "edge_confidence": float(sure.mean()) if len(sure) else float("nan"),
                    "low": float(low),
                    "high": float(high),
                })  # fmt: skip
        for name in (PRISTINE_CALIBRATED, EXPERTS):
            c, right = said[name].confidence[s], said[name].correct[s]
            with_, without = (
                answers(c, right, chosen, edge_exits=edge_exits, fallback=f).correct for f in reversed(LAST.values())
            )
            effect.append({"condition": condition.name, "system": name, **difference(with_, without)})
    return table, effect


def rates(found: Cascade) -> dict[str, float]:
    """Overall accuracy, edge share, and accuracy of the edge's answers."""
    sums = shares(found)
    return {
        "accuracy": sums.accuracy,
        "edge_share": sums.edge_probability,
        "edge_accuracy": sums.edge_accuracy,
    }


def difference(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Points of accuracy between two answers to the same images, (n,) each, with its paired 95 % interval."""
    apart = 100.0 * (one.astype(np.float64) - other)
    return {"mean": float(apart.mean()), "half": float(Z * apart.std(ddof=1) / np.sqrt(len(apart)))}


def exits(cache: ConfidenceCache, said: dict[str, Answers]) -> Rows:
    """Accuracy of every exit under each condition, and the best one (counted from 1), of pristine exits and experts."""
    rows = []
    for name in (PRISTINE, EXPERTS):
        right = said[name].correct.mean(axis=1)
        for condition, accuracy in zip(cache.conditions, right, strict=True):
            best = int(accuracy.argmax())
            rows.append({
                "condition": condition.name,
                "family": condition.family,
                "system": name,
                "accuracy": [float(a) for a in accuracy],
                "best": best + 1,
                "over_final": float(100.0 * (accuracy[best] - accuracy[-1])),
            })  # fmt: skip
    return rows


def routing(cache: ConfidenceCache, said: dict[str, Answers], target: float, edge_exits: int) -> Rows:
    """How often the router errs under each condition, and what its errors cost in points of accuracy.

    Right is the family's expert, or the first where there is none.  `final` compares the last exits of the chosen and
    of the right expert, `cascade` their cascades at the target: predicted minus oracle, paired over images.
    """
    rows = []
    for s, condition in enumerate(cache.conditions):
        right = said[EXPERTS].expert[s] == said[ORACLE].expert[s]
        predicted, oracle = (
            answers(said[n].confidence[s], said[n].correct[s], target, edge_exits=edge_exits).correct
            for n in (EXPERTS, ORACLE)
        )
        rows.append({
            "condition": condition.name,
            "family": condition.family,
            "has_expert": condition.family in cache.experts,
            "right": float(right.mean()),
            "final": difference(said[EXPERTS].correct[s][:, -1], said[ORACLE].correct[s][:, -1]),
            "cascade": difference(predicted, oracle),
        })  # fmt: skip
    return rows


def on_pristine(caches: dict[str, ConfidenceCache], target: float, edge_exits: int) -> Rows:
    """What each expert does with pristine images: its final exit and its cascade, against pristine exits.

    The temperatures are each expert's own.
    """
    cache = caches["expert_exit"]
    at = next(s for s, c in enumerate(cache.conditions) if c.family == cache.experts[0])
    right = cache.prediction[at] == cache.label[None, :, None]
    served = [
        answers(cache.confidence[at, e], right[e], target, edge_exits=edge_exits) for e in range(len(cache.experts))
    ]
    return [
        {
            "expert": expert,
            "final_accuracy": float(right[e, :, -1].mean()),
            **rates(served[e]),
            "final": difference(right[e, :, -1], right[0, :, -1]),
            "cascade": difference(served[e].correct, served[0].correct),
        }
        for e, expert in enumerate(cache.experts)
    ]


def measured(
    caches: dict[str, ConfidenceCache], targets: Sequence[float], target: float, edge_exits: int
) -> dict[str, Rows]:
    """All of this file's tables."""
    cache = caches["raw"]
    k = min(edge_exits, len(cache.exits) - 1)
    said = {name: answers_of(system, caches) for name, system in SYSTEMS.items() if name in (*CASCADES, ORACLE)}
    table, effect = cascades(cache, said, targets, k, target)
    return {
        "levels": table,
        "fallback": effect,
        "exits": exits(cache, said),
        "routing": routing(cache, said, target, k),
        "on_pristine": on_pristine(caches, target, k),
    }
