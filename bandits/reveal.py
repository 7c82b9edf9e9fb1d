"""What a decision reveals and what it costs: the wall between a policy and the facts it did not pay for."""

import math
from typing import Any

import numpy.typing as npt

from offramp.bandits.kernel import kernel, whole
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

# World options, the fields of an int64 array.
OPTIONS = ("prefix", "cloud_all", "oracle", "answer_only")
PREFIX, CLOUD_ALL, ORACLE, ANSWER_ONLY = range(len(OPTIONS))


@kernel
def reveal(
    truth: FloatArray,
    classes: npt.NDArray[Any],
    decision: FloatArray,
    options: IntArray,
    observation: FloatArray,
) -> None:
    """Carry a decision out on one sample and write what it reveals into an observation row; the rest is nan.

    Parameters
    ----------
    truth, classes
        Confidence and prediction of every exit for this sample, (L,) each.
    decision
        A decision row.
    options
        Are all heads up to the cut evaluated (else only those that may answer, and the cut's own)?  Does the cloud
        return every deeper confidence (else only the last)?  Is everything revealed (replicas of published code)?
        Is only the answer written down, because the policy reads nothing else?
    observation
        The observation row to fill; one that was filled before, or that says 0 at ANSWERED_AT and nan elsewhere.

    """
    exits = whole(decision[EXITS])
    cut = whole(decision[CUT])
    rule = thresholds_at(exits)
    at = 0
    for j in range(cut):
        k = whole(cut - 1 - j)
        at = k + 1 if truth[k] >= decision[rule + k] else at
    offloaded = at == 0
    audited = decision[AUDIT] == 1.0 and not offloaded and cut < exits
    computed = cut if offloaded else at
    answered = exits if offloaded else at
    if options[ANSWER_ONLY] == 1:
        last = whole(observation[ANSWERED_AT])
        if last > 0:
            observation[CONFIDENCE + last - 1] = math.nan
    else:
        everything = options[ORACLE] == 1
        low = exits if everything else (computed if options[PREFIX] == 1 else 0)
        high = (cut if options[CLOUD_ALL] == 1 else exits - 1) if offloaded or audited else exits
        for j in range(exits):
            if j < low or j >= high or (j < computed and (j == computed - 1 or decision[rule + j] < math.inf)):
                observation[CONFIDENCE + j] = truth[j]
                observation[CONFIDENCE + exits + j] = classes[j]
            else:
                observation[CONFIDENCE + j] = math.nan
                observation[CONFIDENCE + exits + j] = -1.0
    # Fixed fields last: what the loop wrote could, for all the compiler knows, be one of them.
    observation[CONFIDENCE + answered - 1] = truth[whole(answered - 1)]
    observation[ANSWERED_AT] = answered
    observation[OFFLOADED] = 1.0 if offloaded else 0.0
    observation[AUDITED] = 1.0 if audited else 0.0
    observation[EDGE_PAID] = math.nan
    observation[OFFLOAD_PAID] = math.nan


@kernel
def depth(decision: FloatArray, observation: FloatArray) -> int:
    """How far the edge computed: up to the exit that answered, or up to the cut."""
    return whole(decision[CUT]) if observation[OFFLOADED] == 1.0 else whole(observation[ANSWERED_AT])


@kernel
def edge_cost(decision: FloatArray, observation: FloatArray) -> float:
    """What the edge's computation cost, as quoted."""
    return decision[COSTS + depth(decision, observation)]  # type: ignore[no-any-return]


@kernel
def offload_cost(decision: FloatArray, observation: FloatArray) -> float:
    """What the transfer cost, as quoted; 0 where nothing was sent."""
    price = decision[offload_cost_at(whole(decision[EXITS])) + whole(decision[CUT])]
    return price if observation[OFFLOADED] + observation[AUDITED] > 0.0 else 0.0


@kernel
def answer_confidence(observation: FloatArray) -> float:
    """Confidence of the answer that was served; nan where it was lost on the way."""
    return observation[CONFIDENCE + whole(observation[ANSWERED_AT]) - 1]  # type: ignore[no-any-return]


@kernel
def reward(decision: FloatArray, observation: FloatArray) -> float:
    """Confidence of the answer given, minus mu times its cost."""
    cost = edge_cost(decision, observation) + offload_cost(decision, observation)
    return answer_confidence(observation) - decision[MU] * cost  # type: ignore[no-any-return]
