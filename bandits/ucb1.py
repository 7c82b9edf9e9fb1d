"""UCB1 over any set of (cut, threshold) arms: the price is known, the confidence is learnt."""

import math
from dataclasses import dataclass

from offramp.bandits import ucb1_published
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.index_policy import IndexPolicy
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import coldest, offered
from offramp.bandits.reveal import answer_confidence, reveal_answer
from offramp.bandits.rows import COSTS, EXITS, MU, OFFLOADED, PLAY, FloatArray
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack

PARAMETERS, COLUMNS = 2, 5
BETA, COLD = range(2)
CHOSEN, PULLS, CONFIDENCE, SHARE, ROOT = range(COLUMNS)


def initial(arms: Arms, plays: list[Arm], features: int, beta: float) -> FloatArray:
    """A state in which no arm has been pulled."""
    table = arms.part(plays)
    return pack(
        table=table,
        exits=arms.exits,
        features=features,
        draws=0,
        parameters=(beta, float(len(table))),
        columns=COLUMNS,
        untried=(COLD, PULLS),
    )


FREE_OF_CHARGE = 1e-300  # stands for mu = 0: what is not offered (+inf) stays out of the question, and nothing is nan


@kernel
def largest(state: FloatArray, row: FloatArray, width: float) -> int:
    """The arm with the largest index; ties go to the lowest arm."""
    arms, exits, mu = whole(state[ARMS]), whole(row[EXITS]), max(row[MU], FREE_OF_CHARGE)
    at = own(state, PARAMETERS, CONFIDENCE)
    mean, share, root = state[at : at + arms], state[at + arms : at + 2 * arms], state[at + 2 * arms : at + 3 * arms]
    cut = state[HEADER + arms : HEADER + 2 * arms]
    edge, offload = row[COSTS : COSTS + exits + 1], row[COSTS + exits + 1 : COSTS + 2 * exits + 2]
    highest = -math.inf
    best = 0
    for a in range(arms):
        at = whole(cut[a])
        price = edge[at]
        if share[a] > 0.0:
            price += share[a] * offload[at]
        index = mean[a] - mu * price + width * root[a]
        if index > highest:
            highest = index
            best = a
    return best


@kernel
def largest_offered(state: FloatArray, row: FloatArray, width: float) -> int:
    """As `pulls.coldest`, then `largest`, among the arms that are offered; the lowest arm where none is."""
    tried, exits = own(state, PARAMETERS, PULLS), whole(row[EXITS])
    mean, share = own(state, PARAMETERS, CONFIDENCE), own(state, PARAMETERS, SHARE)
    root = own(state, PARAMETERS, ROOT)
    best = coldest(state, row, own(state, PARAMETERS, CHOSEN), tried)
    if best >= 0:
        return best
    highest, best = -math.inf, 0
    for a in range(whole(state[ARMS])):
        if state[tried + a] > 0.0 and offered(state, row, a):
            at = COSTS + whole(state[HEADER + whole(state[ARMS]) + a])
            price = row[at]
            if state[share + a] > 0.0:
                price += state[share + a] * row[at + exits + 1]
            index = state[mean + a] - row[MU] * price + width * state[root + a]
            if index > highest:
                highest = index
                best = a
    return best


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest index; again, and with more care, where that arm is not offered."""
    free = whole(state[FREE])
    chosen = own(state, PARAMETERS, CHOSEN)
    if state[free + COLD] > 0.0:
        best = coldest(state, row, chosen, own(state, PARAMETERS, PULLS))
    else:
        best = largest(state, row, state[free + BETA] * math.sqrt(math.log(max(state[T], 1.0))))
    if best < 0 or not offered(state, row, whole(best)):
        best = largest_offered(state, row, state[free + BETA] * math.sqrt(math.log(max(state[T], 1.0))))
    best = whole(best)
    choose(state, row, best, 1.0)
    state[chosen + best] += 1.0


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean confidence and offload share by one observation."""
    a = whole(decision[PLAY])
    pulls, root = own(state, PARAMETERS, PULLS) + a, own(state, PARAMETERS, ROOT) + a
    mean, share = own(state, PARAMETERS, CONFIDENCE) + a, own(state, PARAMETERS, SHARE) + a
    before = state[pulls]
    n = before + 1.0  # in a register: read back from the state, each division would wait for the store
    if before == 0.0:
        state[whole(state[FREE]) + COLD] -= 1.0
    state[pulls] = n
    state[mean] += (answer_confidence(observation) - state[mean]) / n
    state[share] += (observation[OFFLOADED] - state[share]) / n
    state[root] = 1.0 / math.sqrt(n)


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    pulls, root = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, ROOT)
    state[T] *= factor
    for a in range(whole(state[ARMS])):
        if state[pulls + a] > 0.0:
            state[pulls + a] = max(state[pulls + a] * factor, FADED)
            state[root + a] = 1.0 / math.sqrt(state[pulls + a])


@dataclass(frozen=True, kw_only=True)
class UCB1(IndexPolicy):
    r"""Optimism under uncertainty over (cut, threshold) arms.

    Plays each arm once, then the arm with the largest

    .. math:: \hat C_a - \mu (\gamma_a + \hat p_a o_a) + \beta \sqrt{\ln t / N_a},

    where :math:`\hat C_a` is the mean confidence of the answers that arm a led to, :math:`\hat p_a` its share of
    offloads, and :math:`\gamma_a, o_a` the edge and offload cost quoted for its cut.

    Parameters
    ----------
    beta
        Width of the confidence bonus, in units of confidence, >= 0.  The theorem for rewards in an interval of width B
        needs B * sqrt(2); confidences spread less than their range, and the literature plays 1.
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote, UCB1
    >>> engine = Engine(UCB1(thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> decision.cut, decision.threshold
    (1, 0.8)
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True

    Notes
    -----
    Auer, Cesa-Bianchi, Fischer (2002), UCB1.  There the reward is observed whole (`known_costs=False`); here the price
    is subtracted as quoted, which is the same where prices are constant, and needs no relearning where they change.
    An arm that may offload where the offload is not offered (+inf) is passed over.

    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file, or those that learn the price."""
        return KERNELS if self.known_costs else ucb1_published.KERNELS

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        made = initial if self.known_costs else ucb1_published.initial
        return made(arms, self.plays(arms), features, self.beta)


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
