"""I-SplitEE: SplitEE-S for image networks whose input distortion changes; also as its authors released it."""

import math
from dataclasses import dataclass

from offramp.bandits import splitee_s
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.reveal import reveal, reward
from offramp.bandits.rows import CONFIDENCE, COSTS, EXITS, MU, OFFLOADED, PLAY, FloatArray
from offramp.bandits.splitee import splits
from offramp.bandits.state import ARMS, FREE, HEADER, T, choose, own, pack

PARAMETERS, COLUMNS = 1, 3
BETA = 0
PULLS, SUM, LOCAL = range(COLUMNS)


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once by number of decisions, then the largest index of the released update's sums."""
    arms = int(state[ARMS])
    pulls, total = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, SUM)
    best = int(state[T])
    if best >= arms:
        width = state[int(state[FREE]) + BETA] * math.sqrt(math.log(state[T]))
        highest = -math.inf
        best = 0
        for a in range(arms):
            n = max(state[pulls + a], 1.0)
            index = state[total + a] / n + width / math.sqrt(n)
            if index > highest:
                highest = index
                best = a
    choose(state, row, best, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """The released update: the played arm once per shallower arm, then every past local answer once more."""
    arms, exits, play = int(state[ARMS]), int(decision[EXITS]), int(decision[PLAY])
    pulls, total, local = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, SUM), own(state, PARAMETERS, LOCAL)
    mine = reward(decision, observation)
    last = observation[CONFIDENCE + exits - 1]
    if state[pulls + play] == 0.0:  # the first pull of each arm stands outside the released loop, and counts once
        state[pulls + play] += 1.0
        state[total + play] += mine
        return
    for a in range(play):
        at = int(state[HEADER + arms + a])
        confidence = observation[CONFIDENCE + at - 1]
        cost = decision[COSTS + at]
        if confidence < state[HEADER + 2 * arms + a]:
            confidence = last
            cost += decision[COSTS + exits + 1 + at]
        if confidence >= 0.0:
            state[pulls + a] += 1.0
            state[total + a] += confidence - decision[MU] * cost
        state[pulls + play] += 1.0
        state[total + play] += mine
    if observation[OFFLOADED] == 0.0:
        state[local + play] += 1.0
    for a in range(arms):
        state[pulls + a] += state[local + a]
        state[total + a] += state[local + a] * mine


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Shrink all counts and sums alike."""
    pulls = own(state, PARAMETERS, PULLS)
    state[T] *= factor
    for i in range(pulls, pulls + COLUMNS * int(state[ARMS])):
        state[i] *= factor


@dataclass(frozen=True, kw_only=True)
class ISplitEE:
    r"""SplitEE-S at I-SplitEE's constants: a fixed threshold of .5, MobileNetV2 with seven exits.

    The formula is that of `SplitEES`.  The paper runs it anew for each distortion level; here one run goes through all.

    Parameters
    ----------
    threshold
        :math:`\alpha`, .5 in the released code; must be in the table of arms.
    beta
        Width of the bonus, >= 0; 1 in the released code.
    oracle_side_information
        The published side observation, which reads cloud answers that were never requested; see `SplitEES`.
    as_released
        The update of the released code, faults included (needs `oracle_side_information`).
    known_costs
        True: subtract the price as quoted now.  False, as published: learn it with the rewards.  The released code
        always does the latter, whatever is said here.

    Notes
    -----
    Bajpai, Jaiswal, Hanawal, I-SplitEE (arXiv 2401.10541); its text could not be read for this implementation, its
    released code was.  That code, where it differs from the algorithm it states: the played arm i is counted i - 1
    times and the first arm never; in every round the current reward is added once more for each local answer of the
    whole history, to the arm that gave it, so that all means flow together; and shallower arms read :math:`C_L` of
    samples that stayed on the edge.  `as_released` keeps these three (reconstructed from a description of that code)
    and runs in constant time where the original runs through its history.

    """

    threshold: float = 0.5
    beta: float = 1.0
    oracle_side_information: bool = False
    as_released: bool = False
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        if self.as_released and not self.oracle_side_information:
            raise ValueError("as_released is True with oracle_side_information False: the released code is an oracle")

    @property
    def kernels(self) -> Kernels:
        """Those of SplitEE-S, or the released ones of this file."""
        return KERNELS if self.as_released else splitee_s.KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """Every cut but the input, at the one threshold."""
        return splits(arms, self.threshold)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        plays = self.plays(arms)
        if not self.as_released:
            return splitee_s.initial(arms, plays, features, self.beta, self.oracle_side_information, self.known_costs)
        table = arms.part(plays)
        return pack(table=table, exits=arms.exits, features=features, draws=0, parameters=(self.beta,), columns=COLUMNS)


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
