"""LinUCB: one linear model of each arm over what is known of a request before acting."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.linear import absorb, bounded, correct, doubt_each, fade, predict_each, size, start
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh, positive
from offramp.bandits.pulls import coldest
from offramp.bandits.rearm import carry
from offramp.bandits.reveal import answer_confidence, offload_cost, reveal, reward
from offramp.bandits.rows import (
    CONFIDENCE,
    COSTS,
    EXITS,
    MU,
    OFFLOADED,
    PLAY,
    ROUND,
    FloatArray,
    context_at,
    offload_cost_at,
)
from offramp.bandits.state import ARMS, FADED, FEATURES, FREE, HEADER, T, choose, own, pack
from offramp.bandits.ucb1 import UCB1

CONTEXT = ("none", "plain", "expert")
PARAMETERS, COLUMNS = 10, 5
ALPHA, RIDGE, KNOWN, CODING, LINK, KEEP, COLD, WIDTH, MEAN, WEIGHT = range(PARAMETERS)
# After these columns: the features and as much scratch, a column for each, and then the numbers of the models.
CHOSEN, PULLS, PREDICTED, SENT, DOUBT = range(COLUMNS)
ANSWER, SHARE = range(2)
TARGETS = 2
RING = 1_024  # decisions whose mean of exit 1 is remembered until their feedback comes


@kernel
def fill(state: FloatArray, feature: int, value: float, first: int, stop: int) -> None:
    """Write a feature down for the arms first..stop - 1."""
    at = own(state, PARAMETERS, COLUMNS + feature)
    for a in range(first, stop):
        state[at + a] = value


@kernel
def describe(state: FloatArray, row: FloatArray, recent: float, first: int, stop: int) -> None:
    """Write down the features of a request for the arms first..stop - 1."""
    arms, free, exits, k = whole(state[ARMS]), whole(state[FREE]), whole(row[EXITS]), 1
    coding, d, context = state[free + CODING], whole(state[FEATURES]), context_at(whole(row[EXITS]))
    fill(state, 0, 1.0, first, stop)
    if coding == 2.0:
        asked = math.floor(min(max(row[context], 0.0), d - 2.0))
        for e in range(d - 1):
            fill(state, k + e, 1.0 if e == asked else 0.0, first, stop)
            fill(state, k + d - 1 + e, bounded(row[context + e + 1]), first, stop)
        k += 2 * (d - 1)
    elif coding == 1.0:
        for e in range(d):
            fill(state, k + e, bounded(row[context + e]), first, stop)
        k += d
    if state[free + KEEP] > 0.0:
        fill(state, k, recent, first, stop)
        k += 1
    if state[free + LINK] == 1.0:
        at, mu, offload = own(state, PARAMETERS, COLUMNS + k), row[MU], offload_cost_at(exits)
        for a in range(first, stop):
            price = row[offload + whole(state[HEADER + arms + a])]
            state[at + a] = bounded(mu * price) if price < math.inf else 0.0


@kernel
def largest(state: FloatArray, row: FloatArray) -> int:
    """Among the arms with feedback that are offered, the one with the largest index; ties go to the lowest arm."""
    arms, free, exits, mu = whole(state[ARMS]), whole(state[FREE]), whole(row[EXITS]), row[MU]
    alpha, known, d = state[free + ALPHA], state[free + KNOWN] == 1.0, whole(state[free + WIDTH])
    x, models = own(state, PARAMETERS, COLUMNS), own(state, PARAMETERS, COLUMNS + 2 * d)
    answer, sent, doubt = (
        own(state, PARAMETERS, PREDICTED),
        own(state, PARAMETERS, SENT),
        own(state, PARAMETERS, DOUBT),
    )
    pulls = own(state, PARAMETERS, PULLS)
    describe(state, row, state[free + MEAN], 0, arms)
    predict_each(state, models, arms, d, ANSWER, x, answer)
    doubt_each(state, models, arms, d, x, x + arms * d, doubt)
    if known:
        predict_each(state, models, arms, d, SHARE, x, sent)
    highest = -math.inf
    best = 0
    for a in range(arms):
        cut = whole(state[HEADER + arms + a])
        offload = row[offload_cost_at(exits) + cut]
        if state[pulls + a] > 0.0 and (offload < math.inf or state[HEADER + 2 * arms + a] == -math.inf):
            index = state[answer + a] + alpha * state[doubt + a]
            if known:
                price, share = row[COSTS + cut], min(state[sent + a], 1.0)
                if share > 0.0:
                    price += share * offload
                index -= mu * price
            if index > highest:
                highest = index
                best = a
    return best


@kernel
def place(state: FloatArray, made: float) -> int:
    """Where the ring keeps a decision: its number, then the mean of exit 1 that it was made on."""
    d = whole(state[whole(state[FREE]) + WIDTH])
    return own(state, PARAMETERS, COLUMNS + 2 * d + size(d, TARGETS)) + 2 * whole(made % RING)


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest index."""
    free = whole(state[FREE])
    best = -1
    if state[free + COLD] > 0.0:
        best = coldest(state, row, own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS))
    if best < 0:
        best = largest(state, row)
    state[own(state, PARAMETERS, CHOSEN) + best] += 1.0
    choose(state, row, best, 1.0)
    if state[free + KEEP] > 0.0:
        at = place(state, row[ROUND])
        state[at] = row[ROUND] + 1.0  # 0 = nothing kept yet
        state[at + 1] = state[free + MEAN]


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Teach the played arm's model by the features that its decision was made on, then follow exit 1."""
    arms, free, a = whole(state[ARMS]), whole(state[FREE]), whole(decision[PLAY])
    d, known, pulls = whole(state[free + WIDTH]), state[free + KNOWN] == 1.0, own(state, PARAMETERS, PULLS) + a
    x, model = own(state, PARAMETERS, COLUMNS) + a, own(state, PARAMETERS, COLUMNS + 2 * d) + a
    value = answer_confidence(observation)
    if not known and offload_cost(decision, observation) < math.inf:
        value = reward(decision, observation)
    if known or offload_cost(decision, observation) < math.inf:
        recent = state[free + MEAN]
        if state[free + KEEP] > 0.0:
            at = place(state, decision[ROUND])
            if state[at] == decision[ROUND] + 1.0:
                recent = state[at + 1]
        describe(state, decision, recent, a, a + 1)
        if state[pulls] == 0.0:
            state[free + COLD] -= 1.0
        state[pulls] += 1.0
        absorb(state, model, arms, d, x, x + arms * d)
        correct(state, model, arms, d, ANSWER, x, x + arms * d, bounded(value))
        if known:
            correct(state, model, arms, d, SHARE, x, x + arms * d, observation[OFFLOADED])
    if state[free + KEEP] > 0.0 and observation[CONFIDENCE] >= 0.0:
        state[free + WEIGHT] = state[free + KEEP] * state[free + WEIGHT] + 1.0
        state[free + MEAN] += (observation[CONFIDENCE] - state[free + MEAN]) / state[free + WEIGHT]


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the coefficients, but only a share of their weight."""
    arms, free, pulls = whole(state[ARMS]), whole(state[FREE]), own(state, PARAMETERS, PULLS)
    d = whole(state[free + WIDTH])
    z, models = own(state, PARAMETERS, COLUMNS + d), own(state, PARAMETERS, COLUMNS + 2 * d)
    state[T] *= factor
    state[free + WEIGHT] *= factor
    for a in range(arms):
        if state[pulls + a] > 0.0:
            state[pulls + a] = max(state[pulls + a] * factor, FADED)
            fade(state, models + a, arms, d, z + a, state[free + RIDGE], factor)


@dataclass(frozen=True, kw_only=True)
class LinUCB:
    r"""Optimism over arms whose value is linear in what is known of a request.

    Each arm has a ridge regression of its own.  After each arm was played once, the one with the largest

    .. math:: x^\top\hat\theta_a + \alpha\sqrt{x^\top M_a^{-1} x} - \mu(\gamma_a + \hat p_a o_a), \qquad
              M_a = \lambda I + \sum x x^\top

    is played, where :math:`x^\top\hat\theta_a` predicts the confidence of the answer and :math:`\hat p_a`, a second
    regression on the same features, clipped to [0, 1], the share of offloads.  Features x: the constant 1, the
    request's context, on request the mean of the last confidences of exit 1, and what an offload from the arm's cut
    would cost now.

    Parameters
    ----------
    alpha
        Width of the bonus, in units of confidence, >= 0.  Confidences spread less than their range; .1 learns faster,
        but only with a small ridge.
    ridge
        :math:`\lambda`, weight of the prior that says 0, > 0; 1 in the paper.  It halves what an arm's first answer
        predicts: with a narrow bonus the arm then looks bad, and is not tried again.
    known_costs
        Subtract the price as quoted, and learn the rest.  False is the published form: the regression learns the
        reward, price included.
    context
        "plain": the features of the context as they come; "expert": the first is the index of an expert, 0..d-2, and
        is read as one-hot, the other d - 1 are the router's probabilities, as `offramp.environments.World` gives
        them; "none": leave them out.  Without context features all three are the same.
    link
        Is mu times the offload cost quoted for the arm's cut a feature?  0 where it is not offered.
    recent
        Rounds over which the revealed confidences of exit 1 are averaged for a feature, with exponential weights; 0 =
        no such feature.
    cuts
        Cuts to play, None = all in the table.
    thresholds
        Thresholds to play at cuts that have one, None = all in the table.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.lin_ucb import LinUCB
    >>> engine = Engine(LinUCB(thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0, features=2)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote, [0.9, 0.1])
    >>> decision.cut, decision.threshold
    (1, 0.8)
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True

    Notes
    -----
    Li, Chu, Langford, Schapire (WWW 2010, arXiv 1003.0146), algorithm 1, with disjoint models.  There an arm without
    feedback has the widest bonus; here each arm is first played once (the one chosen least often, so that late feedback
    does not repeat an arm), because its share of offloads is unknown as well.  There the inverse is formed; here the
    Cholesky factor is kept, see `offramp.bandits.linear`.

    The confidence of exit 1 on the request itself is known only after acting, and would be an oracle's feature.  The
    mean of earlier ones is not: it says how hard the requests have lately been, and exit 1 shows it whatever is decided
    (wherever the edge computes, in a world that evaluates all heads).  A decision remembers the mean that it was made
    on for its next 1,024 followers; later feedback is learnt with the mean at its arrival.

    An arm that may offload is not played where offloading from its cut is quoted at +inf, not even for the first time;
    where no arm is left, the first arm that the policy plays is taken.

    """

    alpha: float = 1.0
    ridge: float = 1.0
    known_costs: bool = True
    context: str = "plain"
    link: bool = True
    recent: int = 0
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)
        positive("ridge", self.ridge, zero=False)
        if self.context not in CONTEXT:
            raise ValueError(f"context is {self.context!r}, allowed are {CONTEXT}")
        if self.recent != int(self.recent) or self.recent < 0 or self.recent == 1:
            raise ValueError(f"recent is {self.recent}, allowed is a whole number of rounds >= 2, or 0")
        for name in ("cuts", "thresholds"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """The arms with one of the cuts and, below the last cut, one of the thresholds, as `UCB1` picks them."""
        return UCB1(cuts=self.cuts, thresholds=self.thresholds).plays(arms)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm played.

        Raises
        ------
        ValueError
            The context is to be read as an expert's index and probabilities, but has a single feature.

        """
        table = arms.part(self.plays(arms))
        if self.context == "expert" and features == 1:
            raise ValueError("context is 'expert' with 1 feature, allowed are 0, or an index and its probabilities")
        coded = {"none": 0, "plain": features, "expert": max(2 * (features - 1), 0)}[self.context]
        d = 1 + coded + (self.recent > 0) + self.link
        keep = 1.0 - 1.0 / self.recent if self.recent else 0.0
        coding = float(CONTEXT.index(self.context)) if features else 0.0
        known, link, cold = float(self.known_costs), float(self.link), float(len(table))
        state = pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=(self.alpha, self.ridge, known, coding, link, keep, cold, float(d), 0.0, 0.0),
            columns=COLUMNS + 2 * d + size(d, TARGETS),
            extra=2 * RING if self.recent else 0,
            untried=(COLD, PULLS),
        )
        self._start(state)
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: each arm that stays keeps its model."""
        new = fresh(self, after, features)
        carry(self, state, fresh(self, before, features), new)
        self._start(new)
        return new

    def _start(self, state: FloatArray) -> None:
        """Give each arm without feedback a model that has seen nothing."""
        n, d = whole(state[ARMS]), whole(state[whole(state[FREE]) + WIDTH])
        pulls, models = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, COLUMNS + 2 * d)
        for a in range(n):
            if state[pulls + a] == 0.0:
                start(state, models + a, n, d, TARGETS, self.ridge)


@compiled
def rollout(state: FloatArray, world: World, block: Block, record: Record) -> int:
    """Play a block of rounds."""
    return loop(select, update, reveal, state, world, block, record)


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
