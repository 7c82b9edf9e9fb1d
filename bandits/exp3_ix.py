"""Exp3-IX: exponential weights that learn of every arm whose outcome a decision happened to reveal."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.costs import EVALUATE
from offramp.bandits.exp3 import draw, inherited, priced, proportion, spread
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import offered
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import CONFIDENCE, CUT, EXITS, OFFLOADED, P_ACTION, PLAY, ROUND, FloatArray
from offramp.bandits.state import ARMS, FREE, HEADER, MADE, T, choose, own, pack
from offramp.bandits.ucb1 import UCB1

PARAMETERS, COLUMNS = 8, 4
ETA, GAMMA, SHARE, SPAN, KNOWN, MEMORY, PREFIX, ALL = range(PARAMETERS)
LOSS, SENT, ROUNDS, CHANCE = range(COLUMNS)
CLOUD_RETURNS = ("final", "all")


@kernel
def slot(state: FloatArray, made: float) -> int:
    """Where the ring keeps the distribution of the decision with this ROUND: a stamp, then K probabilities."""
    at = whole(made) % whole(state[whole(state[FREE]) + MEMORY])
    return own(state, PARAMETERS, COLUMNS) + at * (whole(state[ARMS]) + 1)


@kernel
def settle(state: FloatArray, row: FloatArray) -> None:
    """Make the shared weights the new ones: a share that was handed out anew has no rounds behind it."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    chance, rounds, sent = own(state, PARAMETERS, CHANCE), own(state, PARAMETERS, ROUNDS), own(state, PARAMETERS, SENT)
    given = state[free + SHARE] / arms
    for a in range(arms):
        kept = max(1.0 - given / state[chance + a], 0.0)
        state[rounds + a] *= kept
        state[sent + a] *= kept
        value = -math.log(state[chance + a]) * state[free + SPAN] / state[free + ETA]
        if state[free + KNOWN] == 1.0:
            value -= priced(state, row, a, state[rounds + a], state[sent + a])
        state[own(state, PARAMETERS, LOSS) + a] = value


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """An arm by its weight at today's prices; the whole distribution is kept for late feedback."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    loss, chance = own(state, PARAMETERS, LOSS), own(state, PARAMETERS, CHANCE)
    rounds, sent = own(state, PARAMETERS, ROUNDS), own(state, PARAMETERS, SENT)
    rate = state[free + ETA] / state[free + SPAN]
    for a in range(arms):
        value = state[loss + a]
        if state[free + KNOWN] == 1.0:
            value += priced(state, row, a, state[rounds + a], state[sent + a])
        state[chance + a] = -rate * value
    if spread(state, row, chance, state[free + SHARE]) == arms and state[free + SHARE] > 0.0:
        settle(state, row)
    ring = slot(state, state[MADE])
    state[ring] = state[MADE] + 1.0
    for a in range(arms):
        state[ring + 1 + a] = state[chance + a]
    best = draw(state, chance)
    choose(state, row, best, state[chance + best])


@kernel
def charge(state: FloatArray, decision: FloatArray, a: int, value: float, sends: float, p: float) -> None:
    """Add one known outcome of an arm, by the probability p that it would have become known."""
    free = whole(state[FREE])
    weight = 1.0 / (p + state[free + GAMMA])
    loss = own(state, PARAMETERS, LOSS) + a
    if state[free + KNOWN] == 1.0:
        state[loss] += weight * (1.0 - value)
        state[own(state, PARAMETERS, SENT) + a] += weight * sends
    else:
        span = state[free + SPAN]
        cost = span
        if sends == 0.0 or offered(state, decision, a):
            cost = priced(state, decision, a, 1.0, sends)
        state[loss] += weight * min(1.0 - value + cost, span)


@kernel
def lower(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """What was counted on and did not come is counted on no more: fewer edges are right everywhere."""
    free, exits, cut = whole(state[FREE]), whole(decision[EXITS]), whole(decision[CUT])
    for j in range(cut):
        if not observation[CONFIDENCE + j] >= 0.0:
            state[free + PREFIX] = 0.0
    if observation[OFFLOADED] == 1.0:
        for j in range(cut, exits - 1):
            if not observation[CONFIDENCE + j] >= 0.0:
                state[free + ALL] = 0.0


@kernel
def spread_loss(state: FloatArray, decision: FloatArray, observation: FloatArray, at: int) -> None:
    """Charge every arm that the played one has an edge to; its probabilities start at `at`."""
    arms, free, exits = whole(state[ARMS]), whole(state[FREE]), whole(decision[EXITS])
    cut, played = whole(decision[CUT]), whole(decision[PLAY])
    prefix, everything = state[free + PREFIX] == 1.0, state[free + ALL] == 1.0
    full = prefix and everything
    sent, last = observation[OFFLOADED] == 1.0, observation[CONFIDENCE + exits - 1]
    final_known = sent or cut == exits
    always = state[HEADER + 2 * arms + played] == math.inf
    # Probability of: any arm, those that always send, those that send this sample, the whole network on the edge.
    total, surely, sending, network = 0.0, 0.0, 0.0, 0.0
    for a in range(arms):
        j, threshold, p = whole(state[HEADER + arms + a]), state[HEADER + 2 * arms + a], state[at + a]
        total += p
        if j == exits:
            network += p
        elif threshold == math.inf:
            surely += p
            sending += p
        elif observation[CONFIDENCE + j - 1] < threshold:
            sending += p
    before, surely_before, sending_before = 0.0, 0.0, 0.0
    stop = 0
    while stop < arms:
        first, j = stop, whole(state[HEADER + arms + stop])
        inner = j > 0 and j < exits
        own_value = last
        if inner:  # what lies beyond the cut of a sample that was not sent, an audit has shown
            own_value = observation[CONFIDENCE + j - 1] if sent or j <= cut else math.nan
        mine, mine_surely, mine_sending = 0.0, 0.0, 0.0
        while stop < arms and state[HEADER + arms + stop] == j:
            p, threshold = state[at + stop], state[HEADER + 2 * arms + stop]
            mine += p
            if threshold == math.inf:
                mine_surely += p
            if threshold == math.inf or own_value < threshold:
                mine_sending += p
            stop += 1
        answers, offloads = mine, mine_sending
        sees_answer = sees_offload = final_known
        if not inner:
            offloads = (sending if full else surely) + network
            answers = offloads
            sees_answer = sees_offload = final_known if full else always or cut == exits
        elif full:
            answers += total - before - mine + sending_before
            offloads = sending + network
            sees_answer = own_value >= 0.0
        else:
            sees_answer = cut == j
            sees_offload = cut == j and sent
            if prefix:
                answers += total - before - mine
                offloads += surely - surely_before - mine_surely + network
                sees_answer = sees_answer or cut > j
                sees_offload = sees_offload or (cut > j and (always or cut == exits))
            if everything:
                answers += surely_before
                offloads += surely_before
                sees_answer = sees_answer or (cut < j and always)
                sees_offload = sees_offload or (cut < j and always)
        for a in range(first, stop):
            if j == exits:
                if sees_answer:
                    charge(state, decision, a, last, 0.0, answers)
            elif not inner or own_value < state[HEADER + 2 * arms + a]:
                if sees_offload:
                    charge(state, decision, a, last, 1.0, offloads)
            elif sees_answer and own_value >= 0.0:
                charge(state, decision, a, own_value, 0.0, answers)
        before += mine
        surely_before += mine_surely
        sending_before += mine_sending


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Charge the arms whose outcome is known, by the distribution of the round in which it was decided."""
    arms, free, exits = whole(state[ARMS]), whole(state[FREE]), whole(decision[EXITS])
    cut, play = whole(decision[CUT]), whole(decision[PLAY])
    sent = observation[OFFLOADED] == 1.0
    last = observation[CONFIDENCE + exits - 1]
    value = last if sent else observation[CONFIDENCE + cut - 1]
    if not value >= 0.0:
        return
    lower(state, decision, observation)
    ring = slot(state, decision[ROUND])
    kept = state[ring] == decision[ROUND] + 1.0 and state[ring + 1 + play] == decision[P_ACTION]
    if kept and (cut == 0 or observation[CONFIDENCE + cut - 1] >= 0.0):
        spread_loss(state, decision, observation, ring + 1)
    else:
        charge(state, decision, play, value, 1.0 if sent else 0.0, decision[P_ACTION])
    if state[free + KNOWN] == 1.0:
        rounds = own(state, PARAMETERS, ROUNDS)
        for a in range(arms):
            state[rounds + a] += 1.0


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Shrink all sums, so that the log-weights draw together."""
    state[T] *= factor
    loss = own(state, PARAMETERS, LOSS)
    for a in range(3 * whole(state[ARMS])):
        state[loss + a] *= factor


@dataclass(frozen=True, kw_only=True)
class Exp3IX:
    r"""Exponential weights with implicit exploration on the realised feedback graph.

    Where a decision reveals what arm a would have led to on this sample, a is charged

    .. math:: \hat\ell_a = \frac{\ell_a}{o_a + \gamma}, \qquad p_a \propto \exp(-\eta \hat L_a / \mathrm{span}),

    with :math:`o_a` the summed probability of the arms that would have revealed it.  With `share` > 0, p is mixed with
    the uniform distribution after each decision and carried on (fixed share), so that the best arm may change.

    Parameters
    ----------
    eta
        :math:`\eta`, learning rate, finite, > 0.
    gamma
        :math:`\gamma`, implicit exploration, finite, >= 0; None = eta / 2.  0 gives unbiased estimates.
    share
        Share of the weight that is handed out anew in each round, in [0, 1]; 0 = one best arm for good.
    span
        Width of the interval [1 - span, 1] that rewards are scaled from, finite, > 0: 1 + mu times the largest cost.
    known_costs
        True: confidence and offload share are learnt, and priced as quoted when it is decided.  False: the loss is
        1 - r, price included and clipped to [0, span].
    evaluate, cloud_returns
        What the world reveals, as `offramp.environments.World` names it: "prefix" or "own", "final" or "all".
    memory
        Distributions that are kept for late feedback, >= 1: K + 1 numbers each.
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
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.exp3_ix import Exp3IX
    >>> engine = Engine(Exp3IX(share=1e-4, thresholds=(0.5, 0.8)), arms=Arms.grid(exits=2), seed=3)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)
    >>> decision.cut, decision.threshold, round(decision.p_action, 6)
    (1, 0.5, 0.333333)

    Notes
    -----
    Neu (NeurIPS 2015); on feedback graphs Kocák, Neu, Valko, Munos (NeurIPS 2014); fixed share by Herbster and
    Warmuth (1998).  Together with a graph that the sample itself draws: reconstructed.

    *The graph.*  Arm a = (cut j, threshold) answers where :math:`C_j` reaches the threshold, and then needs
    :math:`C_j` to be known; else it offloads and needs :math:`C_j` and :math:`C_L` (the input as a cut, thresholds of
    +inf and the last cut need nothing but :math:`C_L` to be valued).  An estimate is unbiased only if whatever arm
    reveals a tells the whole of :math:`o_a` as well.  With "prefix" and "all" each does: whoever knows :math:`C_j`
    knows which arms at shallower cuts would have sent, and after an offload everything is known.  Then every edge
    counts, and :math:`o_a` is the same for all that offload.  Otherwise those edges count that depend on :math:`C_j`
    alone: from arms at cut j (to an arm that offloads: from those that offload as well), from deeper cuts with
    "prefix", and from shallower arms that always send with "all"; to arms that offload, from other cuts only arms
    that always send, or the whole network on the edge.  To the input and to the last cut: from those two kinds too.

    What the world does not deliver although it was promised (a head up to the cut, a deeper exit after an offload) is
    not counted on from then on.  The smaller graph gives unbiased estimates in any world.  What an audit alone has
    shown is not used, since its chance at the other arms is unknown here.  Offloads are valued by the last exit, also
    in a world that lets another one answer.

    *Late feedback* is charged by the distribution of its own round.  Where that has left the memory, or does not hold
    the probability that the decision states (which a wrapper changed), the played arm alone is charged, by that
    probability.

    *Prices.*  With known prices, each arm has the rounds and the weighted offloads that its weight stands for, priced
    at today's quote; what the fixed share hands out anew stands for none.  Under constant prices this is the fixed
    share on losses with an exact edge cost (reconstructed); after a change, the past counts as if it had been quoted
    as today.  Rounds in which an arm is not offered hand out nothing for good.

    """

    eta: float = 0.1
    gamma: float | None = None
    share: float = 0.0
    span: float = 2.0
    known_costs: bool = True
    evaluate: str = "prefix"
    cloud_returns: str = "final"
    memory: int = 256
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        positive("eta", self.eta, zero=False)
        positive("span", self.span, zero=False)
        if self.gamma is not None:
            positive("gamma", self.gamma)
        proportion("share", self.share, zero=True)
        if self.evaluate not in EVALUATE:
            raise ValueError(f"evaluate is {self.evaluate!r}, allowed are {EVALUATE}")
        if self.cloud_returns not in CLOUD_RETURNS:
            raise ValueError(f"cloud_returns is {self.cloud_returns!r}, allowed are {CLOUD_RETURNS}")
        if self.memory < 1:
            raise ValueError(f"memory is {self.memory}, allowed is 1 or more")
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
        """All weights alike, no distribution kept."""
        table = arms.part(self.plays(arms))
        gamma = self.eta / 2.0 if self.gamma is None else self.gamma
        sees = (self.evaluate == "prefix", self.cloud_returns == "all")
        return pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=1,
            parameters=(self.eta, gamma, self.share, self.span, self.known_costs, self.memory, *sees),
            columns=COLUMNS,
            extra=self.memory * (len(table) + 1),
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: a new arm begins as the one that was likeliest last, and the ring is empty."""
        return inherited(self, state, before, after, features)


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
