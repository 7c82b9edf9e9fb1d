"""UCB1-Tuned over any set of (cut, threshold) arms: UCB1 with a bound on the variance instead of the range."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arms
from offramp.bandits.index_policy import IndexPolicy
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import (
    FIRST,
    KNOWN,
    PARAMETERS,
    PULLS,
    SPREAD,
    forget_spread,
    fresh,
    leader,
    learn_spread,
    parameter,
    payoff,
    play,
    rounds,
    variance,
    worth,
)
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

BETA, BOUND = range(FIRST, FIRST + 2)


@kernel
def index(state: FloatArray, row: FloatArray, a: int, level: float, highest: float) -> float:
    """Mean reward at these prices, and what it may be above that; `level` is ln t."""
    rate = level / state[own(state, PARAMETERS, PULLS) + a]
    square = parameter(state, BOUND) * parameter(state, BOUND)
    most = min(0.25 * square, variance(state, row, a) + square * math.sqrt(2.0 * rate))
    return worth(state, row, a) + parameter(state, BETA) * math.sqrt(rate * most)


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest index."""
    play(state, row, leader(index, state, row, math.log(rounds(state))), 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean, variance and offload share by one observation."""
    learn_spread(state, decision, observation, payoff(parameter(state, KNOWN) == 1.0, decision, observation))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means and variances, but only a share of their weight."""
    forget_spread(state, factor)


@dataclass(frozen=True, kw_only=True)
class UCBTuned(IndexPolicy):
    r"""Optimism with an upper bound on the variance of each arm.

    Plays each arm once, then the arm with the largest

    .. math:: \hat r_a + \beta\sqrt{\frac{\ln t}{N_a}
              \min\{B^2/4, \hat V_a + B^2 \sqrt{2 \ln t / N_a}\}},

    where :math:`\hat r_a` and :math:`\hat V_a` are mean and variance of the rewards that arm a's pulls would have had
    at the prices quoted now.

    Parameters
    ----------
    beta
        Width of the bonus, >= 0; 1 in the paper.
    bound
        B, width of an interval that holds all rewards, in units of confidence, >= 0; 1 in the paper, where rewards lie
        in [0, 1].
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.ucb_tuned import UCBTuned
    >>> engine = Engine(UCBTuned(cuts=(1, 2), thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # each arm once
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True
    >>> engine.decide(quote).cut
    2

    Notes
    -----
    Auer, Cesa-Bianchi, Fischer (2002), section 4, UCB1-Tuned, which has no proof there; B = 1 is the published form.
    The variance has the divisor N.  With known costs both moments follow the quote (see `offramp.bandits.pulls`).

    """

    beta: float = 1.0
    bound: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("beta", self.beta)
        positive("bound", self.bound)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        constants = (self.beta, self.bound)
        return fresh(
            arms, self.plays(arms), features, known_costs=self.known_costs, parameters=constants, columns=SPREAD
        )


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
