"""From which distribution a policy draws at a state of its, and which random number makes it draw a given rule."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from offramp.bandits import EXP3, EXP3S, EpsilonGreedy, Exp3IX, RandomArm, exp3, exp3_ix, exp3_s
from offramp.bandits.epsilon_greedy import DECAY, EPSILON, index
from offramp.bandits.kernel import compiled, whole
from offramp.bandits.policy import Policy
from offramp.bandits.pulls import CHOSEN, PARAMETERS, PULLS, coldest, leader, offered, parameter
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, CURSOR, FREE, UNIFORMS, T, own


@compiled
def greedy(state: FloatArray, row: FloatArray, chance: FloatArray) -> None:
    """Fill in the distribution of `EpsilonGreedy` before it selects, (K,)."""
    arms, count = whole(state[ARMS]), 0
    best = leader(index, state, row, 0.0)
    cold = coldest(state, row, own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS)) >= 0
    for a in range(arms):
        chance[a] = 0.0
        count += 1 if offered(state, row, a) else 0
    epsilon = min(1.0, max(parameter(state, EPSILON), parameter(state, DECAY) / (state[T] + 1.0)))
    if cold or count == 0:
        chance[best] = 1.0
    else:
        for a in range(arms):
            if offered(state, row, a):
                chance[a] = epsilon / count
        chance[best] += 1.0 - epsilon


def _greedy(policy: Policy, state: FloatArray, row: FloatArray) -> FloatArray:
    chance = np.empty(whole(state[ARMS]))
    greedy(state, row, chance)
    return chance


def _uniform(policy: Policy, state: FloatArray, row: FloatArray) -> FloatArray:
    return np.full(whole(state[ARMS]), 1.0 / state[ARMS])


def _column(parameters: int, column: int) -> Callable[[Policy, FloatArray, FloatArray], FloatArray]:
    """For a policy that leaves its distribution in a column of its state when it selects."""

    def found(policy: Policy, state: FloatArray, row: FloatArray) -> FloatArray:
        state[CURSOR] = 0.0  # which number it draws does not matter
        policy.kernels.decide(state, row)
        at = whole(state[FREE]) + parameters + column * whole(state[ARMS])
        return state[at : at + whole(state[ARMS])].copy()

    return found


def _stacked(chance: FloatArray, k: int) -> float:
    """Rules lie one after the other on [0, 1], each as long as it is likely."""
    return float(chance[:k].sum() + 0.5 * chance[k])


def _ranked(chance: FloatArray, k: int) -> float:
    """The share of exploration is divided evenly among the rules that are offered; above it the best is played."""
    offered = np.flatnonzero(chance > 0.0)
    return float((np.searchsorted(offered, k) + 0.5) * chance[offered].min())


class Draw(NamedTuple):
    """How a policy draws.

    `chance`: policy, state (written to) and quoted row -> (K,); `uniform`: distribution and place of a rule in it ->
    a number in [0, 1) by which that rule is drawn.
    """

    chance: Callable[[Policy, FloatArray, FloatArray], FloatArray]
    uniform: Callable[[FloatArray, int], float]


DRAWS: dict[type, Draw] = {
    RandomArm: Draw(_uniform, _stacked),
    EpsilonGreedy: Draw(_greedy, _ranked),
    EXP3: Draw(_column(exp3.PARAMETERS, exp3.CHANCE), _stacked),
    EXP3S: Draw(_column(exp3_s.PARAMETERS, exp3_s.CHANCE), _stacked),
    Exp3IX: Draw(_column(exp3_ix.PARAMETERS, exp3_ix.CHANCE), _stacked),
}


def next_uniform(state: FloatArray, u: float) -> None:
    """Let the next number that a policy draws be this one."""
    state[CURSOR] = state[UNIFORMS] - 1.0
    state[-1] = u
