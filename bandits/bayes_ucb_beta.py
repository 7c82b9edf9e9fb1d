"""The kernels of Bayes-UCB with Beta posteriors; the spec is `offramp.bandits.bayes_ucb.BayesUCB`."""

import math

from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels
from offramp.bandits.pulls import (
    FIRST,
    KNOWN,
    MEAN,
    PARAMETERS,
    PULLS,
    charge,
    forget_mean,
    leader,
    learn_mean,
    parameter,
    payoff,
    play,
    rounds,
    unit,
)
from offramp.bandits.quantiles import lower_beta_quantile
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

C, BOUND, SUCCESSES, FAILURES = range(FIRST, FIRST + 4)


@kernel
def tail(t: float, c: float) -> float:
    """Probability above the quantile, 1 / (t ln(t)^c), at most 1/2."""
    log = math.log(max(t, 2.0))
    return min(0.5, math.exp(-log - c * math.log(log)))


@kernel
def index(state: FloatArray, row: FloatArray, a: int, level: float, highest: float) -> float:
    """Quantile of the posterior that `level` lies above, minus the price; -inf where a cheap bound rules the arm out.

    A Beta number is sub-Gaussian with variance 1 / (4 (a + b + 1)) (Marchal and Arbel 2017).
    """
    n, mean = state[own(state, PARAMETERS, PULLS) + a], state[own(state, PARAMETERS, MEAN) + a]
    yes, no = parameter(state, SUCCESSES) + n * mean, parameter(state, FAILURES) + n * (1.0 - mean)
    price, bound = charge(state, row, a), parameter(state, BOUND)
    most = yes / (yes + no) + math.sqrt(-0.5 * math.log(level) / (yes + no + 1.0))
    if 1.0 - (1.0 - most) * bound - price <= highest:
        return -math.inf
    return 1.0 - lower_beta_quantile(level, no, yes) * bound - price


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest quantile."""
    play(state, row, leader(index, state, row, tail(rounds(state), parameter(state, C))), 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean, on the scale of [0, 1], and offload share by one observation."""
    x = payoff(parameter(state, KNOWN) == 1.0, decision, observation)
    if x > -math.inf:
        learn_mean(state, decision, observation, unit(x, parameter(state, BOUND)))


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
