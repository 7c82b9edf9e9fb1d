"""The two packed float64 rows that pass between policy and world, field by field.

A *decision row* is born as a quote (what is known before acting); `select` fills in the rest:

====================  ===========  ==================================================================
field                 length       meaning
====================  ===========  ==================================================================
EXITS                 1            L, exits of the network
MU                    1            reward lost per unit of cost, >= 0
ARM                   1            index into the engine's table of arms, -1 outside it
PLAY                  1            index among the arms that the policy plays
CUT                   1            where the edge stops computing, 0..L
AUDIT                 1            1 = offload even if the edge answers, to see the cloud's answer
P_ACTION              1            probability with which this arm was chosen, (0, 1]
P_REVEAL              1            probability that the last confidence is revealed if the edge answers, [0, 1]
ROUND                 1            decisions that the policy had made before this one
COSTS                 L + 1        edge cost of each cut, >= 0
(offload_cost_at)     L + 1        offload cost of each cut, >= 0; +inf = not offered; 0 for the last
(thresholds_at)       L            confidence from which each exit answers; +inf never, -inf always
(context_at)          d            context features
====================  ===========  ==================================================================

An *observation row*:

====================  ===========  ==================================================================
ANSWERED_AT           1            exit whose answer was served, 1..L
OFFLOADED             1            1 = the cloud was asked for the answer (and gave it, unless it was doubted)
AUDITED               1            1 = the edge's answer was served and the sample was offloaded as well
EDGE_PAID             1            edge cost as measured, nan = as quoted
OFFLOAD_PAID          1            offload cost as measured, nan = as quoted
CONFIDENCE            L            confidence of each exit in [0, 1], nan = not revealed
(prediction_at)       L            class of each exit, -1 = not revealed
====================  ===========  ==================================================================
"""

import math

import numpy as np
import numpy.typing as npt

from offramp.bandits.kernel import kernel, whole

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

EXITS, MU, ARM, PLAY, CUT, AUDIT, P_ACTION, P_REVEAL, ROUND, COSTS = range(10)
ANSWERED_AT, OFFLOADED, AUDITED, EDGE_PAID, OFFLOAD_PAID, CONFIDENCE = range(6)

# What a checked row can have wrong: the flag is FAULT * code + position.
FAULT = 10_000
WIDTH, COST, PRICE, CONTEXT, ANSWER, VALUE, KIND, FOREIGN, LENGTH, HIDDEN = range(1, 11)
REFILL = -1


@kernel
def offload_cost_at(exits: int) -> int:
    """Start of the offload costs in a decision row."""
    return COSTS + exits + 1


@kernel
def thresholds_at(exits: int) -> int:
    """Start of the thresholds in a decision row."""
    return COSTS + 2 * (exits + 1)


@kernel
def context_at(exits: int) -> int:
    """Start of the context in a decision row; its width where there is no context."""
    return COSTS + 2 * (exits + 1) + exits


@kernel
def prediction_at(exits: int) -> int:
    """Start of the predictions in an observation row."""
    return CONFIDENCE + exits


@kernel
def set_rule(row: FloatArray, cut: int, threshold: float) -> None:
    """Write the decision "answer at exit `cut` from `threshold` on, else offload" into a decision row."""
    first = thresholds_at(whole(row[EXITS]))
    before = whole(row[CUT])
    if before > 0:
        row[first + before - 1] = math.inf
    if cut > 0:
        row[first + cut - 1] = threshold
    row[CUT] = cut
    row[AUDIT] = 0.0
    row[P_REVEAL] = 0.0


@kernel
def check_given(row: FloatArray, exits: int, context: int) -> int:
    """0 for a usable quote, else a flag that says what is wrong and where."""
    if row.shape[0] != context_at(exits) + context or row[EXITS] != exits:
        return FAULT * WIDTH + int(row.shape[0])
    if not (row[MU] >= 0.0 and row[MU] < math.inf):
        return FAULT * PRICE
    edge, offload = row[COSTS : COSTS + exits + 1], row[COSTS + exits + 1 : COSTS + 2 * exits + 2]
    for i in range(exits + 1):
        if not (edge[i] >= 0.0 and edge[i] < math.inf and row[MU] * edge[i] < math.inf):
            return FAULT * COST + COSTS + i
        if not offload[i] >= 0.0 or (offload[i] < math.inf and row[MU] * offload[i] == math.inf):
            return FAULT * COST + COSTS + exits + 1 + i
    for i in range(context_at(exits), row.shape[0]):
        if not (row[i] > -math.inf and row[i] < math.inf):
            return FAULT * CONTEXT + i
    return 0


@kernel
def falls_back(confidence: FloatArray, exit_index: int, decision: FloatArray) -> bool:
    """May this exit of the edge answer although the sample was offloaded?

    Only where the last exit is revealed, less sure, and below the threshold at the cut.
    """
    exits = whole(decision[EXITS])
    last = confidence[exits - 1]
    target = decision[thresholds_at(exits) + whole(decision[CUT]) - 1]
    return last < target and target < math.inf and confidence[exit_index] > last  # type: ignore[no-any-return]


@kernel
def check_observation(decision: FloatArray, observation: FloatArray, exits: int) -> int:
    """0 for an observation that this decision can have led to, else a flag that says what is wrong and where."""
    if decision.shape[0] < context_at(exits) or decision[EXITS] != exits:
        return FAULT * FOREIGN
    if observation.shape[0] != prediction_at(exits) + exits:
        return FAULT * LENGTH + min(int(observation.shape[0]), FAULT - 1)
    confidence = observation[CONFIDENCE : CONFIDENCE + exits]
    for i in range(exits):
        if confidence[i] < 0.0 or confidence[i] > 1.0:
            return FAULT * VALUE + CONFIDENCE + i
        guess = observation[CONFIDENCE + exits + i]
        if not (guess >= -1.0 and guess < math.inf) or guess != math.floor(guess):
            return FAULT * VALUE + CONFIDENCE + exits + i
    for i in range(EDGE_PAID, CONFIDENCE):
        if observation[i] < 0.0:
            return FAULT * KIND + i
    at = observation[ANSWERED_AT]
    if not (at >= 1.0 and at <= exits and at == math.floor(at)):
        return FAULT * ANSWER
    for i in range(OFFLOADED, EDGE_PAID):
        if observation[i] != 0.0 and observation[i] != 1.0:
            return FAULT * KIND + i
    cut = decision[CUT]
    if observation[AUDITED] == 1.0 and (decision[AUDIT] != 1.0 or cut == exits):
        return FAULT * KIND + AUDITED
    if observation[OFFLOADED] == 1.0:
        for i in range(whole(cut)):
            if observation[CONFIDENCE + i] >= decision[thresholds_at(exits) + i]:
                return FAULT * ANSWER + 2
        if at != exits and not (at <= cut and falls_back(confidence, whole(at - 1.0), decision)):
            return FAULT * KIND + OFFLOADED
        if cut == exits or observation[AUDITED] == 1.0:
            return FAULT * KIND + OFFLOADED
    elif at > cut or not observation[CONFIDENCE + int(at) - 1] >= decision[thresholds_at(exits) + int(at) - 1]:
        return FAULT * ANSWER + 1
    else:
        for i in range(whole(at) - 1):
            if observation[CONFIDENCE + i] >= decision[thresholds_at(exits) + i]:
                return FAULT * ANSWER + 3
    return 0


@kernel
def check_hidden(observation: FloatArray, exits: int) -> int:
    """0 where a checked observation shows no more than it can, else a flag that says which exit is shown too much.

    A sample that was answered on the edge, and sent nowhere, went no deeper than the exit that answered.  What was sent
    shows what the cloud likes to return: the last exit, or all deeper ones.
    """
    if observation[OFFLOADED] + observation[AUDITED] == 0.0:
        for i in range(whole(observation[ANSWERED_AT]), exits):
            if observation[CONFIDENCE + i] >= 0.0 or observation[CONFIDENCE + exits + i] >= 0.0:
                return FAULT * HIDDEN + CONFIDENCE + i
    return 0
