"""Statistics of one's own pulls, which all index policies share: what is kept of an arm, what it is worth at a quote.

Parameters of such a policy: `KNOWN`, then up to `PARAMETERS` - 1 of its own, from `FIRST` on.  Columns:

====================  =======================================================================================
CHOSEN                decisions for the arm
PULLS                 weight n of the feedback that came back; forgetting shrinks it
MEAN                  mean confidence of the answers; with prices learnt through the reward, mean reward
SHARE                 share of offloads; with prices learnt through the reward, 0
SQUARES               sum of squared deviations from MEAN, for policies that ask for `SPREAD` columns
TOGETHER              sum of products of the deviations from MEAN and SHARE, likewise
====================  =======================================================================================

With known prices the last three give the mean and the variance that the rewards of the past *would* have had at the
prices of now: at constant prices the policy is the published one, and a new price counts at once.  Rules for all:

- An arm that may offload where the offload is priced at +inf is not offered, and passed over.  If no arm is offered the
  lowest is played, and where prices are learnt through the reward nothing is learnt from it.
- Arms without feedback come first: the one chosen least often, so that each gets its turn also where feedback is late;
  of equals the lowest.  Then the largest index; of equals the lowest arm.
"""

import math
from collections.abc import Callable

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.reveal import answer_confidence, edge_cost
from offramp.bandits.rows import COSTS, CUT, EXITS, MU, OFFLOADED, PLAY, FloatArray, offload_cost_at
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack

PARAMETERS = 6
KNOWN, FIRST = range(2)
CHOSEN, PULLS, MEAN, SHARE, SQUARES, TOGETHER = range(6)
BARE, SPREAD = 4, 6  # columns to ask for

# (state, row, arm, level, highest so far) -> index; anything <= highest may stand for an index that is not above it
Index = Callable[[FloatArray, FloatArray, int, float, float], float]


def fresh(
    arms: Arms,
    plays: list[Arm],
    features: int,
    *,
    known_costs: bool,
    parameters: tuple[float, ...],
    columns: int = BARE,
    draws: int = 0,
) -> FloatArray:
    """A state in which no arm has been pulled; `parameters` are the policy's own."""
    return pack(
        table=arms.part(plays),
        exits=arms.exits,
        features=features,
        draws=draws,
        parameters=(float(known_costs), *parameters, *[0.0] * (PARAMETERS - FIRST - len(parameters))),
        columns=columns,
    )


@kernel
def parameter(state: FloatArray, k: int) -> float:
    """One of the parameters."""
    return state[whole(state[FREE]) + k]  # type: ignore[no-any-return]


@kernel
def offered(state: FloatArray, row: FloatArray, a: int) -> bool:
    """Can the arm be carried out at these prices, whatever its exit says?"""
    arms = whole(state[ARMS])
    price = row[offload_cost_at(whole(row[EXITS])) + whole(state[HEADER + arms + a])]
    return price < math.inf or state[HEADER + 2 * arms + a] == -math.inf  # type: ignore[no-any-return]


@kernel
def coldest(state: FloatArray, row: FloatArray, chosen: int, pulls: int) -> int:
    """Among the offered arms without feedback, the one chosen least often; -1 where there is none.

    `chosen` and `pulls` say where these columns start.
    """
    best = -1
    for a in range(whole(state[ARMS])):
        if (
            state[pulls + a] == 0.0
            and (best < 0 or state[chosen + a] < state[chosen + best])
            and offered(state, row, a)
        ):
            best = a
    return best


@kernel
def charge(state: FloatArray, row: FloatArray, a: int) -> float:
    """What an offered arm costs on average at these prices, in units of confidence; 0 where the reward holds it."""
    if parameter(state, KNOWN) == 0.0:
        return 0.0
    cut, share = whole(state[HEADER + whole(state[ARMS]) + a]), state[own(state, PARAMETERS, SHARE) + a]
    price = row[COSTS + cut]
    if share > 0.0:
        price += share * row[offload_cost_at(whole(row[EXITS])) + cut]
    return row[MU] * price  # type: ignore[no-any-return]


@kernel
def worth(state: FloatArray, row: FloatArray, a: int) -> float:
    """Mean reward that an offered arm's pulls would have had at these prices."""
    return state[own(state, PARAMETERS, MEAN) + a] - charge(state, row, a)  # type: ignore[no-any-return]


@kernel
def variance(state: FloatArray, row: FloatArray, a: int) -> float:
    """Variance (divisor n) of the reward that an offered arm's pulls would have had at these prices."""
    n, share = state[own(state, PARAMETERS, PULLS) + a], state[own(state, PARAMETERS, SHARE) + a]
    value = state[own(state, PARAMETERS, SQUARES) + a] / n
    if share > 0.0:
        cut = whole(state[HEADER + whole(state[ARMS]) + a])
        price = row[MU] * row[offload_cost_at(whole(row[EXITS])) + cut]
        value += price * (price * share * (1.0 - share) - 2.0 * state[own(state, PARAMETERS, TOGETHER) + a] / n)
    return max(value, 0.0)  # type: ignore[no-any-return]


@kernel
def unit(x: float, bound: float) -> float:
    """A reward in [1 - bound, 1] as a number in [0, 1]; what lies outside is clipped."""
    return min(max(1.0 - (1.0 - x) / bound, 0.0), 1.0)


@kernel
def leader(index: Index, state: FloatArray, row: FloatArray, level: float) -> int:
    """The arm whose turn it is to be tried, else the one with the largest index."""
    chosen, pulls = own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS)
    best, highest = coldest(state, row, chosen, pulls), -math.inf
    if best >= 0:
        return best
    best = 0
    for a in range(whole(state[ARMS])):
        if state[pulls + a] > 0.0 and offered(state, row, a):
            value = index(state, row, a, level, highest)
            if value > highest:
                highest = value
                best = a
    return best


@kernel
def play(state: FloatArray, row: FloatArray, a: int, p_action: float) -> None:
    """Choose an arm and count the choice."""
    a = whole(a)
    state[own(state, PARAMETERS, CHOSEN) + a] += 1.0
    choose(state, row, a, p_action)


@kernel
def rounds(state: FloatArray) -> float:
    """Decisions so far, as far as they are not forgotten; at least 1."""
    return max(state[T], 1.0)  # type: ignore[no-any-return]


@kernel
def payoff(known: bool, decision: FloatArray, observation: FloatArray) -> float:
    """What a pull teaches: the answer's confidence, minus its price at the time where that is learnt with it.

    Not finite where nothing can be learnt.  An audit is not the arm's doing, and left out of its price.
    """
    value = answer_confidence(observation)
    if not known:
        price = edge_cost(decision, observation)
        if observation[OFFLOADED] == 1.0:
            price += decision[offload_cost_at(whole(decision[EXITS])) + whole(decision[CUT])]
        if not price < math.inf:
            return -math.inf
        value -= decision[MU] * price
    return value


@kernel
def learn_mean(state: FloatArray, decision: FloatArray, observation: FloatArray, x: float) -> None:
    """Move the played arm's mean and offload share by one observation."""
    if x > -math.inf:
        a = whole(decision[PLAY])
        n, mean = own(state, PARAMETERS, PULLS) + a, own(state, PARAMETERS, MEAN) + a
        state[n] += 1.0
        state[mean] += (x - state[mean]) / state[n]
        if parameter(state, KNOWN) == 1.0:
            share = own(state, PARAMETERS, SHARE) + a
            state[share] += (observation[OFFLOADED] - state[share]) / state[n]


@kernel
def learn_spread(state: FloatArray, decision: FloatArray, observation: FloatArray, x: float) -> None:
    """As `learn_mean`, and the sums of squares and products (Welford's recurrence)."""
    if x > -math.inf:
        a = whole(decision[PLAY])
        mean, before = own(state, PARAMETERS, MEAN) + a, state[own(state, PARAMETERS, MEAN) + a]
        learn_mean(state, decision, observation, x)
        state[own(state, PARAMETERS, SQUARES) + a] += (x - before) * (x - state[mean])
        if parameter(state, KNOWN) == 1.0:
            apart = observation[OFFLOADED] - state[own(state, PARAMETERS, SHARE) + a]
            state[own(state, PARAMETERS, TOGETHER) + a] += (x - before) * apart


@kernel
def forget_mean(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    pulls = own(state, PARAMETERS, PULLS)
    state[T] *= factor
    for a in range(whole(state[ARMS])):
        if state[pulls + a] > 0.0:
            state[pulls + a] = max(state[pulls + a] * factor, FADED)


@kernel
def forget_spread(state: FloatArray, factor: float) -> None:
    """Keep the means and variances, but only a share of their weight."""
    pulls, arms = own(state, PARAMETERS, PULLS), whole(state[ARMS])
    squares, together = own(state, PARAMETERS, SQUARES), own(state, PARAMETERS, TOGETHER)
    state[T] *= factor
    for a in range(arms):
        before = state[pulls + a]
        if before > 0.0:
            state[pulls + a] = max(before * factor, FADED)
            state[squares + a] *= state[pulls + a] / before
            state[together + a] *= state[pulls + a] / before
