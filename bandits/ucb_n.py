"""One-sided UCB-N: UCB over all (cut, threshold) arms that learns of every arm whose outcome a play always shows."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import (
    CHOSEN,
    FIRST,
    KNOWN,
    MEAN,
    PARAMETERS,
    PULLS,
    SHARE,
    forget_mean,
    fresh,
    offered,
    parameter,
    play,
    rounds,
)
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import AUDIT, CONFIDENCE, COSTS, EXITS, MU, PLAY, FloatArray
from offramp.bandits.state import ARMS, HEADER, own

BETA, SIDE = range(FIRST, FIRST + 2)


@kernel
def most_telling(state: FloatArray, row: FloatArray) -> int:
    """Among the offered arms never observed, the one chosen least often, of equals the highest; -1 if there is none.

    The highest shows most: the last cut, or an arm that always offloads, tells of all thresholds before it.
    """
    chosen, pulls = own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS)
    best = -1
    for a in range(whole(state[ARMS])):
        if state[pulls + a] == 0.0 and (best < 0 or state[chosen + a] <= state[chosen + best]):
            best = a if offered(state, row, a) else best
    return best


@kernel
def largest(state: FloatArray, row: FloatArray, width: float) -> int:
    """The observed and offered arm with the largest index; ties go to the deepest cut, then the highest threshold."""
    arms, exits = whole(state[ARMS]), whole(row[EXITS])
    known = parameter(state, KNOWN) == 1.0
    at = own(state, PARAMETERS, PULLS)
    seen, mean, share = state[at : at + arms], state[at + arms : at + 2 * arms], state[at + 2 * arms : at + 3 * arms]
    cut, threshold = state[HEADER + arms : HEADER + 2 * arms], state[HEADER + 2 * arms : HEADER + 3 * arms]
    edge, offload = row[COSTS : COSTS + exits + 1], row[COSTS + exits + 1 : COSTS + 2 * exits + 2]
    highest, best = -math.inf, 0
    for a in range(arms):
        k = whole(cut[a])
        if seen[a] > 0.0 and (offload[k] < math.inf or threshold[a] == -math.inf):
            index = mean[a] + width / math.sqrt(seen[a])
            if known:
                index -= row[MU] * (edge[k] + (share[a] * offload[k] if share[a] > 0.0 else 0.0))
            if index >= highest:
                highest = index
                best = a
    return best


@kernel
def learn_shown(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Count the round for every arm whose outcome this decision shows whatever the sample is.

    Where the sample went to the cloud, or through all exits, by decision and not by its confidence, that is each arm
    whose exit was evaluated.  Else it is the thresholds up to the played one, and "always answer" at earlier cuts.
    """
    arms, exits, mine = whole(state[ARMS]), whole(decision[EXITS]), whole(decision[PLAY])
    cut, threshold = state[HEADER + arms : HEADER + 2 * arms], state[HEADER + 2 * arms : HEADER + 3 * arms]
    pulls, mean, share = (
        own(state, PARAMETERS, PULLS),
        own(state, PARAMETERS, MEAN),
        own(state, PARAMETERS, SHARE),
    )
    known, side = parameter(state, KNOWN) == 1.0, parameter(state, SIDE) == 1.0
    final = observation[CONFIDENCE + exits - 1]
    everything = (
        cut[mine] == exits or threshold[mine] == math.inf or decision[AUDIT] == 1.0
    ) and final >= 0.0  # an audit whose answer was lost is none
    for a in range(0 if side else mine, arms if side and everything else mine + 1):
        k = whole(cut[a])
        if everything or k == cut[mine] or threshold[a] == -math.inf:
            sent = k == 0
            value = final
            if k > 0:
                value = observation[CONFIDENCE + k - 1]
                if value < threshold[a]:
                    sent = True
                    value = final
            if not known:
                value -= decision[MU] * decision[COSTS + k]
                if sent:
                    value -= decision[MU] * decision[COSTS + exits + 1 + k]
            if value > -math.inf and (known or offered(state, decision, a)):
                state[pulls + a] += 1.0
                state[mean + a] += (value - state[mean + a]) / state[pulls + a]
                if known:
                    state[share + a] += ((1.0 if sent else 0.0) - state[share + a]) / state[pulls + a]


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """What was never observed first, then the largest index."""
    best = most_telling(state, row)
    if best < 0:
        best = largest(state, row, parameter(state, BETA) * math.sqrt(math.log(rounds(state))))
    play(state, row, best, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn of every arm that the decision always shows."""
    learn_shown(state, decision, observation)


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    forget_mean(state, factor)


@dataclass(frozen=True, kw_only=True)
class OneSidedUCB:
    r"""Optimism over the whole grid, where one play is an observation of many arms (UCB-N on always-observed edges).

    A higher threshold shows what every lower one at its cut would have done, and in a world that evaluates all heads up
    to the cut, what each earlier exit would have answered.  A play that always offloads, the whole network on the edge,
    and an audit show every arm whose exit was evaluated.  With :math:`O_a` such observations of arm a it plays the
    largest

    .. math:: \hat C_a - \mu(\gamma_a + \hat p_a o_a) + \beta\sqrt{\ln t / O_a}.

    Parameters
    ----------
    beta
        Width of the bonus in units of confidence, finite, >= 0; :math:`\sqrt 2` in the paper, the standard deviation of
        a reward (.1 to .2) serves better.
    side_observations
        False: learn of the played arm alone, as `UCB1` does.
    known_costs
        True: learn confidence and offload share, and subtract the price as quoted.  False: the published form, which
        learns the reward whole; the quote then says no more than what is not offered.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.ucb_n import OneSidedUCB
    >>> engine = Engine(OneSidedUCB(beta=0.1), arms=Arms.grid(exits=2, thresholds=(0.5, 0.8)), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # the last cut: it shows all three arms
    >>> engine.update(decision, Observation(confidence=[0.7, 0.9], answered_at=2, offloaded=False))
    True
    >>> engine.decide(quote).threshold
    0.5

    Notes
    -----
    Caron, Kveton, Lelarge, Bhagat (2012), UCB-N, reconstructed: index :math:`\hat r_a + \sqrt{2 \ln t / O_a}`.  There
    the graph of who shows whom is fixed.  Here it depends on the sample, and averaging over what a sample happened to
    show is biased, for it shows more when it is confident; so only those edges count that every sample has.  Their
    independence number is L - 1, so that the thresholds come for free.

    Arms never observed come first, the one chosen least often, of equals the deepest, then the highest threshold.  Ties
    between indices go the same way, to the arm that shows more.  An arm that may offload where that is not offered is
    passed over.  A cloud answer counts with the last exit's confidence also in a world with a fallback.  Cascades are
    not played.

    """

    beta: float = 1.0
    side_observations: bool = True
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All arms without early thresholds."""
        return list(arms.single)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing observed."""
        given = (self.beta, float(self.side_observations))
        return fresh(arms, self.plays(arms), features, known_costs=self.known_costs, parameters=given)


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
