"""CeeBERT: UCB over vectors of thresholds, one for each exit on the way to a cut."""

import math
from dataclasses import dataclass

import numpy as np

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import (
    BARE,
    FIRST,
    KNOWN,
    MEAN,
    PARAMETERS,
    PULLS,
    SHARE,
    forget_mean,
    offered,
    parameter,
    play,
    rounds,
)
from offramp.bandits.reveal import depth, reveal
from offramp.bandits.rows import CONFIDENCE, COSTS, CUT, EXITS, MU, PLAY, FloatArray, offload_cost_at, thresholds_at
from offramp.bandits.state import ARMS, FREE, HEADER, own, pack
from offramp.bandits.ucb_n import most_telling

BETA, START, PREFIX, BASE, BASES = range(FIRST, FIRST + 5)
STOPS = BARE  # first of L columns: share of samples with which the edge stops at each exit


@kernel
def vector(state: FloatArray, exits: int, a: int) -> int:
    """Where the thresholds of all exits of an arm stand, behind the columns."""
    return own(state, PARAMETERS, STOPS + exits) + a * exits


@kernel
def price(state: FloatArray, row: FloatArray, a: int) -> float:
    """What an offered vector costs on average at these prices; 0 where the reward holds it."""
    if parameter(state, KNOWN) == 0.0:
        return 0.0
    arms, exits = whole(state[ARMS]), whole(row[EXITS])
    cut, stops = whole(state[HEADER + arms + a]), own(state, PARAMETERS, STOPS)
    total = 0.0
    for k in range(cut):
        total += state[stops + k * arms + a] * row[COSTS + k + 1]
    share = state[own(state, PARAMETERS, SHARE) + a]
    if share > 0.0:
        total += share * row[offload_cost_at(exits) + cut]
    return row[MU] * total  # type: ignore[no-any-return]


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """What was never observed first, then the largest index; ties go to the highest vector, which shows most."""
    arms, exits = whole(state[ARMS]), whole(row[EXITS])
    best = most_telling(state, row)
    if best < 0:
        pulls, mean, highest = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, MEAN), -math.inf
        width = parameter(state, BETA) * math.sqrt(math.log(rounds(state)))
        for a in range(arms):
            if state[pulls + a] > 0.0 and offered(state, row, a):
                index = state[mean + a] - price(state, row, a) + width / math.sqrt(state[pulls + a])
                if index >= highest:
                    highest = index
                    best = a
    best = whole(max(best, 0))
    play(state, row, best, 1.0)
    rule, mine = thresholds_at(exits), vector(state, exits, best)
    for k in range(exits):
        row[rule + k] = state[mine + k]


@kernel
def shown(state: FloatArray, exits: int, cut: int, a: int, played: int) -> bool:
    """Does a play always show what vector a would have done?

    It must be nowhere higher, and ask no head that is not evaluated: one that the played vector passes over is, in a
    world that evaluates all heads on the way alone.
    """
    one, two = vector(state, exits, a), vector(state, exits, played)
    everywhere = parameter(state, PREFIX) == 1.0
    for k in range(cut):
        if state[one + k] > state[two + k]:
            return False
        asked = state[one + k] < math.inf
        if asked and state[two + k] == math.inf and k < cut - 1 and not everywhere:
            return False
    return True


@kernel
def count(state: FloatArray, decision: FloatArray, observation: FloatArray, a: int, base: float) -> None:
    """Carry vector a out on the sample and move its means; where a confidence that it needs was lost, do nothing."""
    arms, exits, cut = whole(state[ARMS]), whole(decision[EXITS]), whole(decision[CUT])
    mine, at = vector(state, exits, a), 0
    for k in range(cut):
        if at == 0 and state[mine + k] < math.inf:
            sure = observation[CONFIDENCE + k]
            if not sure >= 0.0:
                return
            if sure >= state[mine + k]:
                at = k + 1
    sent = 1.0 if at == 0 else 0.0
    value = observation[CONFIDENCE + (exits if at == 0 else at) - 1]
    end = cut if at == 0 else at
    if parameter(state, KNOWN) == 0.0:
        value -= base + decision[MU] * (decision[COSTS + end] - decision[COSTS + whole(parameter(state, START)) + 1])
        if sent == 1.0:
            value -= decision[MU] * decision[offload_cost_at(exits) + cut]
    if value > -math.inf:
        pulls = own(state, PARAMETERS, PULLS) + a
        mean, share = own(state, PARAMETERS, MEAN) + a, own(state, PARAMETERS, SHARE) + a
        stops = own(state, PARAMETERS, STOPS) + a
        state[pulls] += 1.0
        state[mean] += (value - state[mean]) / state[pulls]
        state[share] += (sent - state[share]) / state[pulls]
        for k in range(cut):
            here = 1.0 if k + 1 == end else 0.0
            state[stops + k * arms] += (here - state[stops + k * arms]) / state[pulls]


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn of the played vector and of all that are nowhere higher."""
    free, exits, cut = whole(state[FREE]), whole(decision[EXITS]), whole(decision[CUT])
    played = whole(decision[PLAY])
    base = observation[CONFIDENCE + whole(state[free + START])]
    if base >= 0.0:
        state[free + BASES] += 1.0
        state[free + BASE] += (base - state[free + BASE]) / state[free + BASES]
    else:  # its head is not evaluated where the vector passes over it: then the mean stands for it
        base = state[free + BASE]
    known = parameter(state, KNOWN) == 1.0
    for a in range(played + 1):  # a vector that is nowhere higher stands before the played one
        if (known or offered(state, decision, a)) and shown(state, exits, cut, a, played):
            count(state, decision, observation, a, base)
    mine = vector(state, exits, played)
    for k in range(min(depth(decision, observation), cut) - 1):
        if state[mine + k] == math.inf:  # counts from the next round on: this one is seen because of its outcome
            state[free + PREFIX] = 1.0 if observation[CONFIDENCE + k] >= 0.0 else 0.0


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    state[whole(state[FREE]) + BASES] *= factor
    forget_mean(state, factor)


@dataclass(frozen=True, kw_only=True)
class CeeBERT:
    r"""A bandit over vectors of thresholds: the sample is answered at the first exit that is sure enough.

    An arm is a vector :math:`\theta`, one threshold for each exit up to the cut (+inf: that exit never answers); see
    `offramp.bandits.Arms.cascades`.  It plays the vector with the largest

    .. math:: \hat C_\theta - \mu\Bigl(\sum_k \hat q_{\theta k}\gamma_k + \hat p_\theta o\Bigr)
              + \beta\sqrt{\ln t / N_\theta},

    where :math:`\hat C_\theta` is the mean confidence of the answer, :math:`\hat q_{\theta k}` the share of samples
    that stop on the edge at exit k, and :math:`\hat p_\theta` the share of offloads.  A play of :math:`\theta` always
    shows what each vector would have done that is nowhere higher, so that all of these learn from it.

    Parameters
    ----------
    cut
        The cut that all vectors end at, 1..L.  Every arm of the table there is played, cascade or not.
    beta
        Width of the bonus, finite, >= 0; 2 in the released code.
    known_costs
        True: as above, prices as quoted.  False: the published reward, in which the price is learnt: the gain in
        confidence over the first exit that may answer, minus the overhead beyond it, 0 for those that it answers.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.ceebert import CeeBERT
    >>> arms = Arms.cascades(exits=3, at=(1, 2), thresholds=(0.6, 0.8))
    >>> engine = Engine(CeeBERT(cut=2), arms=arms, seed=0)
    >>> engine.decide(Quote(edge_cost=[0, 0.1, 0.2, 0.4], offload_cost=[1, 0.2, 0.2, 0], mu=1.0)).thresholds
    array([0.8, 0.8, inf])

    Notes
    -----
    CeeBERT (ACL Findings 2024); its text could not be read for this implementation, its released code was described.
    There exits 3, 6 and 12 make two overheads :math:`o_1, o_2`, and the rewards are 0, :math:`C_2 - C_1 - o_1` and
    :math:`C_L - C_1 - o_1 - o_2`; here the overheads are differences of quoted edge costs, and the offload.

    The side observations of the released code depend on where the sample was answered (which vectors are updated, the
    outcome decides), and its learned vectors miss the best one.  Here the set depends on the played vector alone.  Of a
    vector that asks an exit which the played one passes over, it also takes a world that evaluates all heads up to the
    cut; that it is one, the first rounds show.  In a world that does not, the published reward takes the mean of
    :math:`C_1` so far where that head is passed over.

    Vectors never observed come first, the one chosen least often, of equals the highest.  A cloud answer counts with
    the last exit's confidence also in a world with a fallback.  Its vectors stand behind its arms as they were at the
    start: `Engine.change` refuses another table.

    """

    cut: int = 4
    beta: float = 2.0
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All arms at the cut.

        Raises
        ------
        ValueError
            The network has no such exit.

        """
        if not 1 <= self.cut <= arms.exits:
            raise ValueError(f"cut is {self.cut}, allowed is 1..{arms.exits}")
        return [arm for arm in arms.table if arm.cut == self.cut]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing observed."""
        mine = self.plays(arms)
        table = arms.part(mine)
        vectors = np.full((len(mine), arms.exits), math.inf)
        for given, arm in zip(vectors, mine, strict=True):
            given[: len(arm.early)] = arm.early
            given[arm.cut - 1] = arm.threshold
        start = min([self.cut - 1, *np.nonzero(vectors < math.inf)[1].tolist()])
        state = pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=(float(self.known_costs), self.beta, float(start), 0.0, 0.0, 0.0),
            columns=STOPS + arms.exits,
            extra=vectors.size,
        )
        state[len(state) - vectors.size :] = vectors.ravel()
        return state


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
