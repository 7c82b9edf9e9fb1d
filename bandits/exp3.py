"""EXP3: exponential weights over (cut, threshold) arms, for rewards that nobody promises to be stationary."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, Policy, fresh, positive
from offramp.bandits.pulls import offered
from offramp.bandits.rearm import carry, places
from offramp.bandits.reveal import answer_confidence, offload_cost, reveal_answer, reward
from offramp.bandits.rows import COSTS, EXITS, MU, OFFLOADED, P_ACTION, PLAY, FloatArray, offload_cost_at
from offramp.bandits.state import (
    ARMS,
    FREE,
    HEADER,
    OWN_COLUMNS,
    OWN_EXTRA,
    OWN_PARAMETERS,
    T,
    choose,
    own,
    pack,
    uniform,
)
from offramp.bandits.ucb1 import UCB1

PARAMETERS, COLUMNS = 4, 3
GAMMA, SPAN, KNOWN, ROUNDS = range(PARAMETERS)
GAIN, SENT, CHANCE = range(COLUMNS)


def proportion(name: str, value: float, *, zero: bool = False) -> None:
    """Refuse a parameter that is not a number in (0, 1] (or [0, 1]).

    Raises
    ------
    ValueError
        With the name, the value and what is allowed.

    """
    if not 0.0 <= value <= 1.0 or (value == 0.0 and not zero):
        raise ValueError(f"{name} is {value}, allowed is a number in {'[0, 1]' if zero else '(0, 1]'}")


def inherited(policy: Policy, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
    """A state for another table, whose new arms begin as the one that was likeliest last, by the last column.

    An arm with nothing charged against it would outweigh all that have played.  Numbers behind the columns begin anew.
    """
    new = fresh(policy, after, features)
    carry(policy, state, fresh(policy, before, features), new)
    stayed = {whole(place[1]) for place in places(state, new).values() if place is not None}
    first, arms, columns = whole(new[FREE] + new[OWN_PARAMETERS]), whole(new[ARMS]), whole(new[OWN_COLUMNS])
    table = new[first : first + columns * arms].reshape(columns, arms)
    new[first + columns * arms :][: whole(new[OWN_EXTRA])] = 0.0
    if stayed:
        likeliest = max(sorted(stayed), key=lambda a: float(table[-1, a]))
        for a in set(range(arms)) - stayed:
            table[:, a] = table[:, likeliest]
    return new


@kernel
def priced(state: FloatArray, row: FloatArray, a: int, rounds: float, sent: float) -> float:
    """What so many rounds, of which the arm sent some, would have cost at the quote in this row."""
    exits, cut = whole(row[EXITS]), whole(state[HEADER + whole(state[ARMS]) + a])
    cost = rounds * row[COSTS + cut]
    offload = row[offload_cost_at(exits) + cut]
    if sent > 0.0 and offload < math.inf:
        cost += sent * offload
    return row[MU] * cost  # type: ignore[no-any-return]


@kernel
def spread(state: FloatArray, row: FloatArray, at: int, uniformly: float) -> int:
    """Turn a column of log-weights into probabilities; returns how many arms are offered.

    An arm that is not offered has probability 0, unless none is.  The rest share by weight, but for a part that they
    share alike.
    """
    arms = whole(state[ARMS])
    usable = 0
    top = -math.inf
    for a in range(arms):
        if offered(state, row, a):
            usable += 1
            top = max(top, state[at + a])
    nothing = usable == 0
    if nothing:
        for a in range(arms):
            top = max(top, state[at + a])
    total = 0.0
    for a in range(arms):
        if nothing or offered(state, row, a):
            state[at + a] = math.exp(state[at + a] - top)
            total += state[at + a]
        else:
            state[at + a] = 0.0
    alike = uniformly / (arms if nothing else usable)
    for a in range(arms):
        if nothing or offered(state, row, a):
            state[at + a] = min((1.0 - uniformly) * (state[at + a] / total) + alike, 1.0)
    return usable


@kernel
def draw(state: FloatArray, at: int) -> int:
    """An arm by the probabilities in a column; one uniform."""
    left = uniform(state)
    best = 0
    for a in range(whole(state[ARMS])):
        if state[at + a] > 0.0 and left >= 0.0:
            best = a
            left -= state[at + a]
    return best


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """An arm by its weight at today's prices, mixed with any arm."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    gain, sent, chance = own(state, PARAMETERS, GAIN), own(state, PARAMETERS, SENT), own(state, PARAMETERS, CHANCE)
    rate = state[free + GAMMA] / (arms * state[free + SPAN])
    for a in range(arms):
        value = state[gain + a]
        if state[free + KNOWN] == 1.0:
            value -= priced(state, row, a, state[free + ROUNDS], state[sent + a])
        state[chance + a] = rate * value
    spread(state, row, chance, state[free + GAMMA])
    best = draw(state, chance)
    choose(state, row, best, state[chance + best])


@kernel
def whole_gain(decision: FloatArray, observation: FloatArray, span: float) -> float:
    """Reward above 1 - span, clipped to [0, span]; an offload that was not offered is worth nothing."""
    if offload_cost(decision, observation) == math.inf:
        return 0.0
    return min(max(span - 1.0 + reward(decision, observation), 0.0), span)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Count the played arm for all the rounds in which it was not played, by its probability in the decision."""
    free, a, p = whole(state[FREE]), whole(decision[PLAY]), decision[P_ACTION]
    gain = own(state, PARAMETERS, GAIN) + a
    if state[free + KNOWN] == 1.0:
        state[gain] += answer_confidence(observation) / p
        state[own(state, PARAMETERS, SENT) + a] += observation[OFFLOADED] / p
        state[free + ROUNDS] += 1.0
    else:
        state[gain] += whole_gain(decision, observation, state[free + SPAN]) / p


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Shrink all sums, so that the log-weights draw together."""
    state[T] *= factor
    state[whole(state[FREE]) + ROUNDS] *= factor
    gain = own(state, PARAMETERS, GAIN)
    for a in range(2 * whole(state[ARMS])):
        state[gain + a] *= factor


@dataclass(frozen=True, kw_only=True)
class EXP3:
    r"""Exponential weights for exploration and exploitation.

    With K arms and :math:`x_s` the scaled gain of the arm played in round s, arm a is drawn with probability

    .. math:: p_a = (1 - \gamma) \frac{w_a}{\sum_b w_b} + \frac{\gamma}{K}, \qquad
              \ln w_a = \frac{\gamma}{K} \sum_{s: a_s = a} \frac{x_s}{p_a(s)},

    where :math:`p_a(s)` is the probability at the time of the decision, which travels in the decision.

    Parameters
    ----------
    gamma
        :math:`\gamma`, share of decisions that are drawn uniformly, and the step of the weights, in (0, 1].
    span
        Width of the interval [1 - span, 1] that rewards are scaled from, finite, > 0: 1 + mu times the largest cost.
    known_costs
        True: only confidence and offload share are learnt, and priced as quoted when it is decided.  False: the
        published form, with :math:`x = 1 - (1 - r) / \mathrm{span}` clipped to [0, 1], r the whole reward.
    cuts
        Cuts to play, None = all in the table.
    thresholds
        Thresholds to play at cuts that have one, None = all in the table.

    Raises
    ------
    ValueError
        A parameter is outside its range.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.exp3 import EXP3
    >>> engine = Engine(EXP3(gamma=0.2, thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> decision.p_action
    0.5

    Notes
    -----
    Auer, Cesa-Bianchi, Freund, Schapire (SIAM J. Comput. 32(1), 2002), section 3.  Only log-weights are kept, and the
    largest is subtracted before they are raised, so that nothing overflows; in river, weights do after some 14,000
    rounds.

    With known prices the log-weight is :math:`\frac{\gamma}{K\,\mathrm{span}} (\hat C_a - \mu (n \gamma_a + \hat S_a
    o_a))` at today's quote: the weighted sums of confidences and of offloads, and the edge cost exactly, for all n
    rounds.  Where prices are constant that estimates the published sum (but for the clipping and an offset that all
    arms share) with less scatter.  Where they change, the past counts as if it had been quoted as today: the guarantee
    against an adversary is then for each price list on its own.

    An arm that may have to send where sending is not offered (a price of +inf) is not drawn, unless all are such.  No
    arm needs a first pull: all weights begin alike, and late feedback leaves them so until it comes.

    """

    gamma: float = 0.1
    span: float = 2.0
    known_costs: bool = True
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        proportion("gamma", self.gamma)
        positive("span", self.span, zero=False)
        for name in ("cuts", "thresholds"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """As `UCB1`: the arms with one of the cuts and, below the last cut, one of the thresholds."""
        return UCB1(cuts=self.cuts, thresholds=self.thresholds).plays(arms)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """All weights alike."""
        return pack(
            table=arms.part(self.plays(arms)),
            exits=arms.exits,
            features=features,
            draws=1,
            parameters=(self.gamma, self.span, float(self.known_costs), 0.0),
            columns=COLUMNS,
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: a new arm begins as the one that was likeliest last."""
        return inherited(self, state, before, after, features)


@compiled
def rollout(state: FloatArray, world: World, block: Block, record: Record) -> int:
    """Play a block of rounds."""
    return loop(select, update, reveal_answer, state, world, block, record)


@compiled
def decide(state: FloatArray, row: FloatArray) -> int:
    """One checked decision."""
    return guarded_select(select, state, row)


@compiled
def learn(state: FloatArray, decision: FloatArray, observation: FloatArray) -> int:
    """One checked update."""
    return guarded_update(update, state, decision, observation)


@compiled
def step(state: FloatArray, decision: FloatArray, observation: FloatArray, row: FloatArray) -> int:
    """One checked update, then one checked decision."""
    return guarded_step(select, update, state, decision, observation, row)


KERNELS = Kernels(select, update, forget, rollout, decide, learn, step)
