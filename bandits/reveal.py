"""What a decision reveals and what it costs: the wall between a policy and the facts it did not pay for."""

import math
from typing import Any

import numpy.typing as npt

from offramp.bandits.kernel import kernel
from offramp.bandits.rows import (
    ANSWERED_AT,
    AUDIT,
    AUDITED,
    CONFIDENCE,
    COSTS,
    CUT,
    EDGE_PAID,
    EXITS,
    MU,
    OFFLOAD_PAID,
    OFFLOADED,
    FloatArray,
    IntArray,
    offload_cost_at,
    thresholds_at,
)

# World options, the fields of an int64 array of length 3.
PREFIX, CLOUD_ALL, ORACLE = range(3)


@kernel
def reveal(
    confidence: FloatArray,
    prediction: npt.NDArray[Any],
    condition: int,
    sample: int,
    decision: FloatArray,
    options: IntArray,
    observation: FloatArray,
) -> None:
    """Carry a decision out on one sample and write what it reveals into an observation row; the rest is nan.

    Parameters
    ----------
    confidence, prediction
        The truth, (S, N, L) each.
    condition, sample
        Which row of it this is about.
    decision
        A decision row.
    options
        Are all heads up to the cut evaluated (else only those that may answer, and the cut's own)?  Does the cloud
        return every deeper confidence (else only the last)?  Is everything revealed (replicas of published code)?
    observation
        The observation row to fill.

    """
    exits = int(decision[EXITS])
    cut = int(decision[CUT])
    rule = decision[thresholds_at(exits) : thresholds_at(exits) + exits]
    seen = observation[CONFIDENCE : CONFIDENCE + exits]
    guess = observation[CONFIDENCE + exits : CONFIDENCE + 2 * exits]
    at = 0
    for j in range(cut):
        if confidence[condition, sample, j] >= rule[j]:
            at = j + 1
            break
    offloaded = at == 0
    audited = decision[AUDIT] == 1.0 and not offloaded and cut < exits
    computed = cut if offloaded else at
    observation[ANSWERED_AT] = exits if offloaded else at
    observation[OFFLOADED] = 1.0 if offloaded else 0.0
    observation[AUDITED] = 1.0 if audited else 0.0
    observation[EDGE_PAID] = math.nan
    observation[OFFLOAD_PAID] = math.nan
    everything = options[ORACLE] == 1
    sent = offloaded or audited
    for j in range(exits):
        if j < computed:
            shown = everything or options[PREFIX] == 1 or j == computed - 1 or rule[j] < math.inf
        else:
            shown = everything or (sent and (j == exits - 1 or (options[CLOUD_ALL] == 1 and j >= cut)))
        seen[j] = confidence[condition, sample, j] if shown else math.nan
        guess[j] = prediction[condition, sample, j] if shown else -1.0


@kernel
def depth(decision: FloatArray, observation: FloatArray) -> int:
    """How far the edge computed: up to the exit that answered, or up to the cut."""
    return int(decision[CUT]) if observation[OFFLOADED] == 1.0 else int(observation[ANSWERED_AT])


@kernel
def edge_cost(decision: FloatArray, observation: FloatArray) -> float:
    """What the edge's computation cost, as quoted."""
    return decision[COSTS + depth(decision, observation)]  # type: ignore[no-any-return]


@kernel
def offload_cost(decision: FloatArray, observation: FloatArray) -> float:
    """What the transfer cost, as quoted; 0 where nothing was sent."""
    if observation[OFFLOADED] == 1.0 or observation[AUDITED] == 1.0:
        return decision[offload_cost_at(int(decision[EXITS])) + int(decision[CUT])]  # type: ignore[no-any-return]
    return 0.0


@kernel
def answer_confidence(observation: FloatArray) -> float:
    """Confidence of the answer that was served; nan where it was lost on the way."""
    return observation[CONFIDENCE + int(observation[ANSWERED_AT]) - 1]  # type: ignore[no-any-return]


@kernel
def reward(decision: FloatArray, observation: FloatArray) -> float:
    """Confidence of the answer given, minus mu times its cost."""
    cost = edge_cost(decision, observation) + offload_cost(decision, observation)
    return answer_confidence(observation) - decision[MU] * cost  # type: ignore[no-any-return]
