"""What a decision uses of whatever a budget limits, what that costs the policy inside, and who takes over."""

import math

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.nested import PARAMETERS as NESTED
from offramp.bandits.pacing import FIELDS, SLOTS, may_send
from offramp.bandits.reveal import answer_confidence, depth
from offramp.bandits.rows import (
    AUDIT,
    AUDITED,
    COSTS,
    CUT,
    EXITS,
    MU,
    OFFLOADED,
    PLAY,
    FloatArray,
    context_at,
    thresholds_at,
)
from offramp.bandits.state import ARMS, FREE, HEADER, own

COST, OFFLOADS, LISTED, CONTEXT = range(4)
CEILING, CAPACITY, GAIN, KIND, USES_AT, LEVEL, TURNS, SHORT = range(NESTED, NESTED + 8)
PARAMETERS, COLUMNS = NESTED + 8, 5  # the columns lie among the further numbers, first of them
TRIED, CONFIDENCE, SHARE, OUT, IN = range(COLUMNS)  # OUT: where the inner policy's arm is here; IN: there, or -1
RECENT = 200.0  # observations that an arm's own record remembers
STEEPEST = 1e9  # beyond this ratio of dual to mu all prices are written in units of reward


@kernel
def ring_at(state: FloatArray) -> int:
    """Start of the remembered rounds, behind which the prices are kept, then the listed uses."""
    return own(state, PARAMETERS, COLUMNS)


@kernel
def prices_at(state: FloatArray) -> int:
    """Where the prices of a row are kept."""
    return ring_at(state) + FIELDS * SLOTS


@kernel
def edge_use(state: FloatArray, row: FloatArray, cut: int) -> float:
    """What the edge's computation up to a cut uses."""
    free, exits = whole(state[FREE]), whole(row[EXITS])
    kind = state[free + KIND]
    if kind == COST:
        return row[COSTS + cut]  # type: ignore[no-any-return]
    if kind == OFFLOADS:
        return 0.0
    if kind == CONTEXT:
        return max(row[context_at(exits) + whole(state[free + USES_AT]) + cut], 0.0)  # type: ignore[no-any-return]
    return state[prices_at(state) + 1 + 2 * (exits + 1) + cut]  # type: ignore[no-any-return]


@kernel
def offload_use(state: FloatArray, row: FloatArray, cut: int) -> float:
    """What an offload from a cut uses."""
    free, exits = whole(state[FREE]), whole(row[EXITS])
    kind = state[free + KIND]
    if cut == exits:
        return 0.0
    if kind == COST:
        return row[COSTS + exits + 1 + cut]  # type: ignore[no-any-return]
    if kind == OFFLOADS:
        return 1.0
    if kind == CONTEXT:
        at = context_at(exits) + whole(state[free + USES_AT]) + exits + 1
        return max(row[at + cut], 0.0)  # type: ignore[no-any-return]
    return state[prices_at(state) + 1 + 3 * (exits + 1) + cut]  # type: ignore[no-any-return]


@kernel
def worst(state: FloatArray, row: FloatArray) -> float:
    """The most that a decision can use."""
    exits, cut = whole(row[EXITS]), whole(row[CUT])
    sends = cut < exits and (cut == 0 or row[AUDIT] == 1.0 or row[thresholds_at(exits) + cut - 1] > 0.0)
    return edge_use(state, row, cut) + (offload_use(state, row, cut) if sends else 0.0)


@kernel
def affordable(state: FloatArray, use: float) -> bool:
    """Are there tokens for so much use?  A full bucket affords whatever is on offer: more it will never hold."""
    free = whole(state[FREE])
    level = state[free + LEVEL]
    return use <= level or (level >= state[free + CAPACITY] and use < math.inf)


@kernel
def charge(state: FloatArray, row: FloatArray, dual: float) -> None:
    """Write what a unit of use costs into the prices of a row."""
    if dual == 0.0:
        return
    exits, mu, rate = whole(row[EXITS]), row[MU], dual
    if state[whole(state[FREE]) + KIND] == COST:
        row[MU] = mu + dual
        return
    if dual <= STEEPEST * mu:
        rate = dual / mu
        mu = 1.0
    else:
        row[MU] = 1.0
    for cut in range(exits + 1):
        row[COSTS + cut] = mu * row[COSTS + cut] + rate * edge_use(state, row, cut)
        if row[COSTS + exits + 1 + cut] < math.inf:
            row[COSTS + exits + 1 + cut] = mu * row[COSTS + exits + 1 + cut] + rate * offload_use(state, row, cut)


@kernel
def substitute(state: FloatArray, row: FloatArray, dual: float) -> int:
    """The affordable arm that its own record holds for the best, an untried one being sure; ties: the lowest.

    Where none is affordable, the one that used least so far, or can use least.
    """
    exits, mu, arms = whole(row[EXITS]), row[MU], whole(state[ARMS])
    record = own(state, PARAMETERS, TRIED)
    best, thriftiest, highest, least = -1, 0, -math.inf, math.inf
    for a in range(arms):
        cut = whole(state[HEADER + arms + a])
        edge, offload, price, share, confidence = edge_use(state, row, cut), 0.0, 0.0, 1.0, 1.0
        if may_send(state, a):
            offload, price = offload_use(state, row, cut), row[COSTS + exits + 1 + cut]
        most = edge + offload
        if state[record + a] > 0.0:
            share, confidence = state[record + SHARE * arms + a], state[record + CONFIDENCE * arms + a]
        used = most if share == 1.0 or offload == math.inf else edge + share * offload
        if used < least:
            least = used
            thriftiest = a
        if price < math.inf and affordable(state, most):
            value = confidence - mu * (row[COSTS + cut] + share * price) - dual * used
            if value > highest:
                highest = value
                best = a
    return best if best >= 0 else thriftiest


@kernel
def settle(state: FloatArray, decision: FloatArray, observation: FloatArray, reserved: float) -> None:
    """Give back what was set aside and not used, and note what the arm did."""
    free, arms, cut, a = whole(state[FREE]), whole(state[ARMS]), whole(decision[CUT]), whole(decision[PLAY])
    used = edge_use(state, decision, depth(decision, observation))
    if observation[OFFLOADED] + observation[AUDITED] > 0.0:
        used += offload_use(state, decision, cut)
    if used < math.inf:  # an offload at +inf was never paid for
        state[free + LEVEL] = min(state[free + LEVEL] + (reserved - used), state[free + CAPACITY])
    record = own(state, PARAMETERS, TRIED) + a
    state[record] = min(state[record] + 1.0, RECENT)
    mean, share = record + CONFIDENCE * arms, record + SHARE * arms
    state[mean] += (answer_confidence(observation) - state[mean]) / state[record]
    state[share] += (observation[OFFLOADED] - state[share]) / state[record]
