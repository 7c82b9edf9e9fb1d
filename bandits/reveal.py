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
PREFIX, CLOUD_ALL, ORACLE, FALLBACK = range(4)


@kernel
def answering_exit(truth: FloatArray, decision: FloatArray) -> int:
    """The exit on the edge that answers, 1..cut; 0 where none is sure enough."""
    rule = thresholds_at(whole(decision[EXITS]))
    cut = whole(decision[CUT])
    at = 0
    for j in range(cut):
        k = whole(cut - 1 - j)
        at = k + 1 if truth[k] >= decision[rule + k] else at
    return at


@kernel
def most_confident(truth: FloatArray, decision: FloatArray, options: IntArray) -> int:
    """The exit that answers an offloaded sample when the cloud's answer may be doubted, 1..L.

    Where the last exit stays below the threshold at the cut, it is the most confident one of the exits that the edge
    evaluated and the last (the deepest of equals).  A cut that never answers sets no target to stay below.
    """
    exits = whole(decision[EXITS])
    cut = whole(decision[CUT])
    rule = thresholds_at(exits)
    if cut == 0 or decision[rule + cut - 1] == math.inf or truth[exits - 1] >= decision[rule + cut - 1]:
        return exits
    best = exits - 1
    for j in range(cut):
        k = whole(cut - 1 - j)
        if (options[PREFIX] == 1 or decision[rule + k] < math.inf) and truth[k] > truth[best]:
            best = k
    return best + 1


@kernel
def note(truth: FloatArray, decision: FloatArray, at: int, observation: FloatArray) -> None:
    """Write down who answered, how surely, and what was sent.

    Last of all, since what a loop wrote could, for all the compiler knows, be one of these fields.
    """
    exits = whole(decision[EXITS])
    answered = exits if at == 0 else at
    audited = decision[AUDIT] == 1.0 and at > 0 and decision[CUT] < exits
    observation[CONFIDENCE + answered - 1] = truth[whole(answered - 1)]
    observation[ANSWERED_AT] = answered
    observation[OFFLOADED] = 1.0 if at == 0 else 0.0
    observation[AUDITED] = 1.0 if audited else 0.0
    observation[EDGE_PAID] = math.nan
    observation[OFFLOAD_PAID] = math.nan


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
        return every deeper confidence (else only the last)?  Is everything revealed (replicas of published code)?  The
        fourth is for `fall_back`, which follows.
    observation
        The observation row to fill.

    """
    exits = whole(decision[EXITS])
    cut = whole(decision[CUT])
    rule = thresholds_at(exits)
    at = answering_exit(truth, decision)
    everything = options[ORACLE] == 1
    # The audit's condition stands in `note` as well: a kernel of its own costs the compiled loop 3 ns of 64.
    sent = at == 0 or (decision[AUDIT] == 1.0 and cut < exits)
    computed = cut if sent else at
    low = exits if everything else (computed if options[PREFIX] == 1 else 0)
    high = (cut if options[CLOUD_ALL] == 1 else exits - 1) if sent else exits
    for j in range(exits):
        if j < low or j >= high or (j < computed and (j == computed - 1 or decision[rule + j] < math.inf)):
            observation[CONFIDENCE + j] = truth[j]
            observation[CONFIDENCE + exits + j] = classes[j]
        else:
            observation[CONFIDENCE + j] = math.nan
            observation[CONFIDENCE + exits + j] = -1.0
    note(truth, decision, at, observation)


@kernel
def reveal_answer(
    truth: FloatArray,
    classes: npt.NDArray[Any],
    decision: FloatArray,
    options: IntArray,
    observation: FloatArray,
) -> None:
    """As `reveal`, for a policy that reads no more than who answered and how surely: nothing else is written down.

    It spares the compiled loop 15 ns a round.  An engine shows everything all the same, so the comparison of the two
    executors proves that such a policy reads nothing else.  The row was filled here before, or says 0 at ANSWERED_AT
    and nan elsewhere.
    """
    last = whole(observation[ANSWERED_AT])
    if last > 0:
        observation[CONFIDENCE + last - 1] = math.nan
    note(truth, decision, answering_exit(truth, decision), observation)


@kernel
def fall_back(truth: FloatArray, decision: FloatArray, options: IntArray, observation: FloatArray) -> None:
    """Let the most confident exit answer an offloaded sample, in a world that wants it, after it was revealed."""
    if observation[OFFLOADED] == 1.0:
        answered = most_confident(truth, decision, options)
        observation[CONFIDENCE + answered - 1] = truth[answered - 1]
        observation[ANSWERED_AT] = answered


@kernel
def depth(decision: FloatArray, observation: FloatArray) -> int:
    """How far the edge computed: up to the exit that answered, or up to the cut, from where it sends."""
    sent = observation[OFFLOADED] + observation[AUDITED] > 0.0
    return whole(decision[CUT]) if sent else whole(observation[ANSWERED_AT])


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
