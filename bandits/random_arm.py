"""A uniformly random arm each time: the floor under every learner, and an honest logger for off-policy evaluation."""

from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.fixed import forget, update
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, choose, pack, uniform


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Any arm, each with the same probability."""
    arms = int(state[ARMS])
    choose(state, row, int(uniform(state) * arms), 1.0 / arms)


@dataclass(frozen=True, kw_only=True)
class RandomArm:
    """Each arm of the table with the same probability, drawn anew for every sample.

    Notes
    -----
    The "random" baseline of the released SplitEE code draws one arm per run, not per sample.

    """

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All but cascades."""
        return list(arms.single)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        table = arms.part(self.plays(arms))
        return pack(table=table, exits=arms.exits, features=features, draws=1, parameters=(0.0,))


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
