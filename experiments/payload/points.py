"""Single points of the diagram, with numbers: who wins there among the rules of each kind, and by how much."""

from typing import Any

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments import ConfidenceCache
from offramp.environments.links import BYTES_PER_MS
from offramp.environments.payloads import PayloadTable
from offramp.experiments.payload.diagram import Exchange, Pair
from offramp.experiments.payload.rules import KINDS, Clock, Rule, answers
from offramp.experiments.payload.wire import half_width


def per_image(
    rule: Rule,
    cache: ConfidenceCache,
    table: PayloadTable,
    clock: Clock,
    *,
    factor: float,
    mbit_s: float,
    round_trip_ms: float,
    weights: FloatArray,
) -> FloatArray:
    """Latency of each image in milliseconds, averaged over the conditions, (N,)."""
    sent, size, _, _ = answers(rule, cache, table)
    total = np.full(sent.shape, factor * clock.edge[rule.cut])
    if rule.codec:
        v = table.variant(rule.split, rule.codec)
        after = factor * clock.encode[v] + round_trip_ms + clock.decode[v] + clock.cloud[rule.split]
        total += sent * after + size / (mbit_s * BYTES_PER_MS)
    found: FloatArray = weights @ total
    return found


def does(pair: Pair, index: int, *, factor: float, mbit_s: float, round_trip_ms: float) -> dict[str, Any]:
    """What a rule does at a point, on test images."""
    return {
        "rule": pair.rules[index].name,
        "latency_ms": float(pair.test.latency(factor, mbit_s, round_trip_ms)[index]),
        "accuracy": float(pair.test.accuracy[index]),
        "sent": float(pair.test.sent[index]),
        "bytes": float(pair.test.bytes[index]),
    }


def point_row(
    pair: Pair,
    cache: ConfidenceCache,
    table: PayloadTable,
    clock: Clock,
    *,
    factor: float,
    mbit_s: float,
    round_trip_ms: float,
    slack: float,
    worth: Exchange,
) -> dict[str, Any]:
    """The winners at one point: by latency, overall and of each kind, and by reward."""
    values = pair.test.latency(factor, mbit_s, round_trip_ms)

    def said(index: int) -> dict[str, Any]:
        reward = float(worth.reward(pair.test, values)[index])
        told = does(pair, index, factor=factor, mbit_s=mbit_s, round_trip_ms=round_trip_ms)
        return told | {"reward": reward}

    fastest = int(pair.fastest(factor, mbit_s, round_trip_ms, slack))
    images = per_image(
        pair.rules[fastest],
        cache,
        table,
        clock,
        factor=factor,
        mbit_s=mbit_s,
        round_trip_ms=round_trip_ms,
        weights=pair.test.weights,
    )
    enough = pair.validation.accurate(slack)
    kinds = {}
    for kind in KINDS:
        if any(ok and rule.kind == kind for ok, rule in zip(enough, pair.rules, strict=True)):
            kinds[kind] = said(int(pair.fastest(factor, mbit_s, round_trip_ms, slack, (kind,))))
    return {
        "factor": factor,
        "mbit_s": mbit_s,
        "round_trip_ms": round_trip_ms,
        "whole_ms": float(factor * clock.edge[-1]),
        "whole_accuracy": float(pair.test.weights @ pair.test.means.whole),
        "fastest": said(fastest) | {"latency_half": half_width(images)},
        "best": said(int(pair.best(factor, mbit_s, round_trip_ms, worth))),
        "kinds": kinds,
    }
