"""Gaussian Thompson sampling over any set of (cut, threshold) arms."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arms
from offramp.bandits.index_policy import IndexPolicy
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.largest_draw import DOWN, FREE_COLUMN, HIGH, LOW, SCALE, UP, match
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import (
    FIRST,
    KNOWN,
    PARAMETERS,
    PULLS,
    forget_mean,
    fresh,
    learn_mean,
    parameter,
    payoff,
    worth,
)
from offramp.bandits.quantiles import normal_cdf
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

BETA = FIRST
CENTRE = FREE_COLUMN


@kernel
def describe(state: FloatArray, row: FloatArray, a: int) -> None:
    """Mean and standard deviation of an arm's posterior at these prices."""
    centre = worth(state, row, a)
    scale = parameter(state, BETA) / math.sqrt(state[own(state, PARAMETERS, PULLS) + a])
    state[own(state, PARAMETERS, CENTRE) + a] = centre
    state[own(state, PARAMETERS, SCALE) + a] = scale
    state[own(state, PARAMETERS, LOW) + a] = centre - DOWN * scale
    state[own(state, PARAMETERS, HIGH) + a] = centre + UP * scale


@kernel
def below(state: FloatArray, a: int, x: float) -> float:
    """Distribution function of an arm's posterior."""
    return normal_cdf((x - state[own(state, PARAMETERS, CENTRE) + a]) / state[own(state, PARAMETERS, SCALE) + a])


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then an arm with the probability that its draw is the largest."""
    match(describe, below, state, row)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean and offload share by one observation."""
    learn_mean(state, decision, observation, payoff(parameter(state, KNOWN) == 1.0, decision, observation))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    forget_mean(state, factor)


@dataclass(frozen=True, kw_only=True)
class GaussianThompson(IndexPolicy):
    r"""Plays each arm with the probability that it is the best, under normal posteriors.

    Plays each arm once.  Then the posterior of arm a's mean reward at the prices quoted now is

    .. math:: N(\hat C_a - \mu(\gamma_a + \hat p_a o_a), \; \beta^2 / N_a),

    and the arm is drawn with the probability that its draw from there would be the largest; `p_action` is that
    probability.

    Parameters
    ----------
    beta
        Standard deviation of a single reward, in units of confidence, > 0; 1 in the paper, .1 to .2 measured.
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.thompson import GaussianThompson
    >>> engine = Engine(GaussianThompson(cuts=(1, 2), thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # each arm once
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True
    >>> engine.decide(quote).cut
    2

    Notes
    -----
    Agrawal and Goyal (2013), Thompson sampling with Gaussian priors, :math:`N(\sum r / (k + 1), 1 / (k + 1))` after k
    pulls.  Here each arm is pulled once instead of the prior, and the price is subtracted as quoted.  The chances are
    computed on a grid (`offramp.bandits.largest_draw`): they are exactly those the arm is drawn with, and within .005
    of what independent draws would give.

    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("beta", self.beta, zero=False)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        return fresh(
            arms,
            self.plays(arms),
            features,
            known_costs=self.known_costs,
            parameters=(self.beta,),
            columns=CENTRE + 1,
            draws=1,
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
