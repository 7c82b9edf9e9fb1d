"""Policies that never learn: one arm for good.  The trivial ones belong into every comparison."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import FREE, T, choose, pack

SEEN = 0


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """The one arm."""
    choose(state, row, 0, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Count what came back; there is nothing to learn."""
    state[int(state[FREE]) + SEEN] += 1.0


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Shrink the counts, as every policy does."""
    state[T] *= factor
    state[int(state[FREE]) + SEEN] *= factor


def one_arm(arms: Arms, arm: Arm, features: int) -> FloatArray:
    """The state of a policy that plays one arm."""
    return pack(table=arms.part([arm]), exits=arms.exits, features=features, draws=0, parameters=(0.0,))


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Always the same cut and threshold.

    Parameters
    ----------
    cut
        Where the edge stops computing, 0..L.
    threshold
        Confidence from which the exit at the cut answers; must be in the table of arms.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Fixed, Quote
    >>> engine = Engine(Fixed(cut=2, threshold=0.8), arms=Arms.grid(exits=3), seed=0)
    >>> engine.decide(Quote(edge_cost=[0, 1, 2, 3], offload_cost=[1, 1, 1, 0], mu=0.1))
    Decision(id=0, cut=2, threshold=0.8, audit=False, arm=16)

    """

    cut: int
    threshold: float

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """The one arm."""
        return [Arm(self.cut, self.threshold)]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        return one_arm(arms, self.plays(arms)[0], features)


@dataclass(frozen=True, kw_only=True)
class FinalExit:
    """The whole network on the edge, every time: what cost and accuracy are measured against."""

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """The last cut."""
        return [Arm(arms.exits, -math.inf)]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        return one_arm(arms, self.plays(arms)[0], features)


@dataclass(frozen=True, kw_only=True)
class OffloadFirst:
    """One segment on the edge, then always the cloud.

    Notes
    -----
    At I-SplitEE's constants this alone saves 58 % of the cost and loses no accuracy: a learner must beat it.

    """

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """The first cut, never answering."""
        return [Arm(1, math.inf)]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        return one_arm(arms, self.plays(arms)[0], features)


@dataclass(frozen=True, kw_only=True)
class SendInput:
    """The image itself to the cloud, every time; only in a world that allows it."""

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """Cut 0."""
        return [Arm(0, math.inf)]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        return one_arm(arms, self.plays(arms)[0], features)


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
