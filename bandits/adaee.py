"""AdaEE: UCB over the threshold of one exit, rewarded by the confidence that offloading gains."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import coldest
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import CONFIDENCE, COSTS, CUT, EXITS, MU, OFFLOADED, PLAY, FloatArray
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack

PARAMETERS, COLUMNS = 5, 5
BETA, SIDE, CLIPPED, COLD, KNOWN = range(PARAMETERS)
CHOSEN, PULLS, GAIN, SHARE, ROOT = range(COLUMNS)


@kernel
def largest(state: FloatArray, overhead: float, width: float) -> int:
    """The threshold with the largest index; ties go to the lowest threshold."""
    arms = int(state[ARMS])
    at = own(state, PARAMETERS, GAIN)
    gain, share, root = state[at : at + arms], state[at + arms : at + 2 * arms], state[at + 2 * arms : at + 3 * arms]
    highest = -math.inf
    best = 0
    for a in range(arms):
        value = gain[a] + width * root[a]
        if share[a] > 0.0:
            value -= share[a] * overhead
        if value > highest:
            highest = value
            best = a
    return best


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each threshold once (with side observations: the largest, which shows all), then the largest index.

    The lowest threshold, which offloads least, where the offload is not offered.
    """
    arms, free = int(state[ARMS]), int(state[FREE])
    chosen = own(state, PARAMETERS, CHOSEN)
    price = row[COSTS + int(row[EXITS]) + 1 + int(state[HEADER + arms])]
    if not price < math.inf:
        best = 0
    elif state[free + COLD] > 0.0:
        best = arms - 1
        if state[free + SIDE] == 0.0:
            best = coldest(state, row, chosen, own(state, PARAMETERS, PULLS))
    else:
        best = largest(state, row[MU] * price, state[free + BETA] * math.sqrt(math.log(max(state[T], 1.0))))
    state[chosen + best] += 1.0
    choose(state, row, best, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn the gain of the played threshold and, on request, of every lower one: their outcome is known too."""
    arms, free, play = int(state[ARMS]), int(state[FREE]), int(decision[PLAY])
    confidence = observation[CONFIDENCE + int(decision[CUT]) - 1]
    if not confidence >= 0.0:  # the exit's own confidence was lost: nothing can be told about any threshold
        return
    gain, known = 0.0, state[free + KNOWN] == 1.0
    if observation[OFFLOADED] == 1.0:
        gain = observation[CONFIDENCE + int(decision[EXITS]) - 1] - confidence
        if state[free + CLIPPED] == 1.0:
            gain = max(gain, 0.0)
        if not known:
            price = decision[COSTS + int(decision[EXITS]) + 1 + int(decision[CUT])]
            if not price < math.inf:  # could not be averaged away
                return
            gain -= decision[MU] * price
    pulls, mean = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, GAIN)
    share, root = own(state, PARAMETERS, SHARE), own(state, PARAMETERS, ROOT)
    for a in range(play if state[free + SIDE] == 0.0 else 0, play + 1):
        sent = 1.0 if confidence < state[HEADER + 2 * arms + a] else 0.0
        if state[pulls + a] == 0.0:
            state[free + COLD] -= 1.0
        state[pulls + a] += 1.0
        state[mean + a] += (sent * gain - state[mean + a]) / state[pulls + a]
        if known:
            state[share + a] += (sent - state[share + a]) / state[pulls + a]
        state[root + a] = 1.0 / math.sqrt(state[pulls + a])


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    pulls, root = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, ROOT)
    state[T] *= factor
    for a in range(int(state[ARMS])):
        if state[pulls + a] > 0.0:
            state[pulls + a] = max(state[pulls + a] * factor, FADED)
            state[root + a] = 1.0 / math.sqrt(state[pulls + a])


@dataclass(frozen=True, kw_only=True)
class AdaEE:
    r"""A bandit over thresholds at one exit (AdaEE, UCBEE).

    With threshold a the reward is 0 if :math:`C_i \ge a`, else :math:`\max(C_L - C_i, 0) - \mu o`; each threshold
    once, then the largest :math:`\hat r_a + \beta\sqrt{\ln t / N_a}`.

    Parameters
    ----------
    cut
        The exit, 1..L-1.  The authors put theirs after feature block 11 of MobileNetV2: exit 4 here.
    beta
        Width of the bonus, >= 0; 1 or 2 in the released code.
    side_observations
        Update every lower threshold as well: what it would have done is known, whatever the sample did.
    clipped
        Count a loss of confidence as no gain, as the authors score their own policy (their baselines they score raw).
    known_costs
        True: learn gain and offload share, subtract the overhead as quoted now.  False, as published: learn the gain
        minus the overhead.  Where the offload is not offered (+inf) the lowest threshold is played.

    Notes
    -----
    Pacheco et al., AdaEE (ICC 2023) and UCBEE (IEEE TNSM 22(1), 2025).  It learns on its own reward, and is scored on
    the common one.  Higher thresholds are never updated: "the exit answered" is seen under selection there, and
    learning from it makes regret linear.  The released code measures regret against a clairvoyant, which grows even for
    the best threshold; it runs anew for each context, so that nothing in it ever meets a change; and where the cloud is
    less sure than the threshold it answers with the more confident of the two.
    Its thresholds are 0, .2, ..., 1: here they are those of the table at the cut.

    """

    cut: int = 4
    beta: float = 1.0
    side_observations: bool = False
    clipped: bool = True
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All thresholds at the cut."""
        if not 1 <= self.cut < arms.exits:
            raise ValueError(f"cut is {self.cut}, allowed is 1..{arms.exits - 1}: an exit before the last")
        return [arm for arm in arms.single if arm.cut == self.cut]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No threshold tried."""
        table = arms.part(self.plays(arms))
        return pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=(
                self.beta,
                float(self.side_observations),
                float(self.clipped),
                float(len(table)),
                float(self.known_costs),
            ),
            columns=COLUMNS,
            untried=(COLD, PULLS),
        )


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
