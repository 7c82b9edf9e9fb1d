"""SplitEE-S: UCB over the split that also learns about shallower exits, as far as they were really seen."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import coldest, offered
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import CONFIDENCE, COSTS, EXITS, MU, PLAY, FloatArray
from offramp.bandits.splitee import splits
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack

PARAMETERS, COLUMNS = 4, 6
BETA, ORACLE, COLD, KNOWN = range(PARAMETERS)
CHOSEN, SEEN, ABOVE, BELOW, SENT, CLOUD = range(COLUMNS)


def initial(
    arms: Arms, plays: list[Arm], features: int, beta: float, oracle: bool, known_costs: bool = True
) -> FloatArray:
    """A state in which nothing was seen."""
    table = arms.part(plays)
    parameters = (beta, float(oracle), float(len(table)), float(known_costs))
    return pack(
        table=table,
        exits=arms.exits,
        features=features,
        draws=0,
        parameters=parameters,
        columns=COLUMNS,
        untried=(COLD, SEEN),
    )


@kernel
def largest(state: FloatArray, row: FloatArray, width: float) -> int:
    """The offered arm with the largest index; ties go to the shallowest cut."""
    arms, exits = int(state[ARMS]), int(row[EXITS])
    mu = row[MU] if state[int(state[FREE]) + KNOWN] == 1.0 else 0.0
    oracle = state[int(state[FREE]) + ORACLE] == 1.0
    seen, above, below = own(state, PARAMETERS, SEEN), own(state, PARAMETERS, ABOVE), own(state, PARAMETERS, BELOW)
    sent, cloud = own(state, PARAMETERS, SENT), own(state, PARAMETERS, CLOUD)
    highest = -math.inf
    best = 0
    for a in range(arms):
        if state[seen + a] == 0.0 or not offered(state, row, a):
            continue
        at = int(state[HEADER + arms + a])
        value = state[above + a] - mu * row[COSTS + at] + width / math.sqrt(state[seen + a])
        if state[below + a] > 0.0:
            deeper = 1.0
            if state[sent + a] > 0.0:
                deeper = state[cloud + a]
                if not oracle:
                    deeper = min(1.0, deeper + width / math.sqrt(state[sent + a]))
            value += state[below + a] * (deeper - mu * row[COSTS + exits + 1 + at])
        if value > highest:
            highest = value
            best = a
    return best


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm until something was seen of it, then the largest index."""
    free = int(state[FREE])
    chosen = own(state, PARAMETERS, CHOSEN)
    best = -1
    if state[free + COLD] > 0.0:
        best = coldest(state, row, chosen, own(state, PARAMETERS, SEEN))
    if best < 0:
        best = largest(state, row, state[free + BETA] * math.sqrt(math.log(max(state[T], 1.0))))
    state[chosen + best] += 1.0
    choose(state, row, best, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn about the played arm and, from the confidences on the way to it, about all shallower ones."""
    arms, free, play = int(state[ARMS]), int(state[FREE]), int(decision[PLAY])
    oracle, exits = state[free + ORACLE] == 1.0, int(decision[EXITS])
    mu = 0.0 if state[free + KNOWN] == 1.0 else decision[MU]
    last = observation[CONFIDENCE + exits - 1]
    seen, above, below = own(state, PARAMETERS, SEEN), own(state, PARAMETERS, ABOVE), own(state, PARAMETERS, BELOW)
    sent, cloud = own(state, PARAMETERS, SENT), own(state, PARAMETERS, CLOUD)
    for a in range(play + 1):  # arms are ordered by cut; deeper exits are seen only under selection
        at = int(state[HEADER + arms + a])
        if not offered(state, decision, a):  # an infinite price could not be averaged away
            continue
        confidence = observation[CONFIDENCE + at - 1]
        short = confidence < state[HEADER + 2 * arms + a]
        if confidence >= 0.0 and not (oracle and short and not last >= 0.0):
            if state[seen + a] == 0.0:
                state[free + COLD] -= 1.0
            state[seen + a] += 1.0
            mine = 0.0 if short else confidence - mu * decision[COSTS + at]
            state[above + a] += (mine - state[above + a]) / state[seen + a]
            state[below + a] += ((1.0 if short else 0.0) - state[below + a]) / state[seen + a]
            # Without the oracle only the played arm's cloud answers are a fair sample of "below its threshold".
            if short and last >= 0.0 and (oracle or a == play):
                state[sent + a] += 1.0
                theirs = last - mu * (decision[COSTS + at] + decision[COSTS + exits + 1 + at])
                state[cloud + a] += (theirs - state[cloud + a]) / state[sent + a]


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    seen, sent = own(state, PARAMETERS, SEEN), own(state, PARAMETERS, SENT)
    state[T] *= factor
    for a in range(int(state[ARMS])):
        if state[seen + a] > 0.0:
            state[seen + a] = max(state[seen + a] * factor, FADED)
        if state[sent + a] > 0.0:
            state[sent + a] = max(state[sent + a] * factor, FADED)


@dataclass(frozen=True, kw_only=True)
class SplitEES:
    r"""A bandit over splitting layers with side observations.

    Computing up to exit i also shows :math:`C_1..C_{i-1}`.  The reward of a shallower arm j has two parts: what it
    answers itself, and what the cloud would have answered where :math:`C_j < \alpha`.  The first is known from every
    play of j or deeper, the second only from plays of j itself, for elsewhere it is seen under selection.  So

    .. math:: \hat r_j = \widehat{E}[C_j 1\{C_j \ge \alpha\}] + \hat p_j
              (\min\{1, \hat m_j + \beta\sqrt{\ln t / M_j}\} - \mu o_j)
              - \mu\gamma_j + \beta\sqrt{\ln t / N_j},

    with :math:`N_j` sights of :math:`C_j`, :math:`\hat p_j` the share of them below the threshold, and
    :math:`\hat m_j` the mean of the :math:`M_j` cloud answers after offloads from j.

    Parameters
    ----------
    threshold
        :math:`\alpha`, the one threshold, which must be in the table of arms.
    beta
        Width of the bonus, >= 0; 1 in the released code.
    oracle_side_information
        The published variant: :math:`C_L` counts for every shallower arm even if the sample never reached the cloud,
        which no deployed system can know.  Only a simulated world can serve it, and does so for this flag alone.
    known_costs
        True: subtract the price as quoted now.  False, as published: learn it with the rewards.  An arm whose offload
        is not offered (+inf) is passed over, and nothing is learnt about it meanwhile.

    Notes
    -----
    Bajpai, Trivedi, Yadav, Hanawal, SplitEE (arXiv 2309.09195), SplitEE-S.  The released code reads :math:`C_L` from
    its table in every round (on SST-2, playing exit 3 of 12 at :math:`\alpha` = .75, for 63 % of the samples at exit
    1).  Dropping the unknown cases instead would bias the means; the decomposition above does not.  Needs a world that
    evaluates the heads before the cut; in one that does not, it learns from its own arm alone.

    """

    threshold: float = 0.7
    beta: float = 1.0
    oracle_side_information: bool = False
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """Every cut but the input, at the one threshold."""
        return splits(arms, self.threshold)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        return initial(arms, self.plays(arms), features, self.beta, self.oracle_side_information, self.known_costs)


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
