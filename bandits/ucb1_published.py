"""The kernels of UCB1 as published, the price learnt with the reward; the spec is `offramp.bandits.ucb1.UCB1`."""

import math

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels
from offramp.bandits.pulls import (
    FIRST,
    PARAMETERS,
    PULLS,
    forget_mean,
    fresh,
    leader,
    learn_mean,
    parameter,
    payoff,
    play,
    rounds,
    worth,
)
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

BETA = FIRST


def initial(arms: Arms, plays: list[Arm], features: int, beta: float) -> FloatArray:
    """A state in which no arm has been pulled."""
    return fresh(arms, plays, features, known_costs=False, parameters=(beta,))


@kernel
def index(state: FloatArray, row: FloatArray, a: int, level: float, highest: float) -> float:
    """Mean reward, and what it may be above that; `level` is beta sqrt(ln t)."""
    return worth(state, row, a) + level / math.sqrt(state[own(state, PARAMETERS, PULLS) + a])


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest index."""
    level = parameter(state, BETA) * math.sqrt(math.log(rounds(state)))
    play(state, row, leader(index, state, row, level), 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean reward by one observation."""
    learn_mean(state, decision, observation, payoff(False, decision, observation))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    forget_mean(state, factor)


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
