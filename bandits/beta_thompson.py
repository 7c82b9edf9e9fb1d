"""Beta Thompson sampling over any set of (cut, threshold) arms, with fractional successes."""

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
    MEAN,
    PARAMETERS,
    PULLS,
    charge,
    forget_mean,
    fresh,
    learn_mean,
    parameter,
    payoff,
    unit,
)
from offramp.bandits.quantiles import log_beta, log_beta_cdf
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

BOUND, SUCCESSES, FAILURES = range(FIRST, FIRST + 3)
PRICE, YES, NO, LOG = range(FREE_COLUMN, FREE_COLUMN + 4)


@kernel
def describe(state: FloatArray, row: FloatArray, a: int) -> None:
    """Counts, price and reach of an arm's posterior.

    The reach is that of Bernstein's inequality for Beta numbers (Skorski 2023): sub-Gaussian towards the nearer end,
    with a correction for the third moment on the longer side.
    """
    n, mean = state[own(state, PARAMETERS, PULLS) + a], state[own(state, PARAMETERS, MEAN) + a]
    yes, no = parameter(state, SUCCESSES) + n * mean, parameter(state, FAILURES) + n * (1.0 - mean)
    price, bound, both = charge(state, row, a), parameter(state, BOUND), yes + no
    centre = yes / both
    scale = math.sqrt(centre * (1.0 - centre) / (both + 1.0))
    skew = math.fabs(no - yes) / (3.0 * both * (both + 2.0))
    down, up = DOWN * DOWN * skew if yes > no else 0.0, UP * UP * skew if no > yes else 0.0
    low = max(centre - down - math.sqrt(down * down + DOWN * DOWN * scale * scale), 0.0)
    high = min(centre + up + math.sqrt(up * up + UP * UP * scale * scale), 1.0)
    state[own(state, PARAMETERS, PRICE) + a] = price
    state[own(state, PARAMETERS, YES) + a] = yes
    state[own(state, PARAMETERS, NO) + a] = no
    state[own(state, PARAMETERS, LOG) + a] = log_beta(yes, no)
    state[own(state, PARAMETERS, SCALE) + a] = scale * bound
    state[own(state, PARAMETERS, LOW) + a] = 1.0 - (1.0 - low) * bound - price
    state[own(state, PARAMETERS, HIGH) + a] = 1.0 - (1.0 - high) * bound - price


@kernel
def below(state: FloatArray, a: int, x: float) -> float:
    """Distribution function of an arm's posterior."""
    theta = 1.0 - (1.0 - x - state[own(state, PARAMETERS, PRICE) + a]) / parameter(state, BOUND)
    if theta <= 0.0:
        return 0.0
    if theta >= 1.0:
        return 1.0
    yes, no = state[own(state, PARAMETERS, YES) + a], state[own(state, PARAMETERS, NO) + a]
    return math.exp(log_beta_cdf(math.log(theta), yes, no, state[own(state, PARAMETERS, LOG) + a]))


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then an arm with the probability that its draw is the largest."""
    match(describe, below, state, row)


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


@dataclass(frozen=True, kw_only=True)
class BetaThompson(IndexPolicy):
    r"""Plays each arm with the probability that it is the best, under Beta posteriors.

    Plays each arm once.  An answer of confidence C counts as C successes and 1 - C failures, so that the posterior of
    arm a's mean confidence is :math:`Beta(s + N_a \hat C_a, f + N_a (1 - \hat C_a))`; the price
    :math:`\mu(\gamma_a + \hat p_a o_a)` quoted now is subtracted.  The arm is drawn with the probability that its draw
    from there would be the largest; `p_action` is that probability.

    Parameters
    ----------
    successes, failures
        The prior s, f, >= 0.01 and finite; 1 in the paper.
    bound
        Used without known costs alone: rewards are taken to lie in [1 - bound, 1], and clipped to it, > 0.
        1 + mu * (largest edge cost + offload cost) holds them all.
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.beta_thompson import BetaThompson
    >>> engine = Engine(BetaThompson(cuts=(1, 2), thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # each arm once
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True
    >>> engine.decide(quote).cut
    2

    Notes
    -----
    Agrawal and Goyal (2012), Thompson sampling for rewards in [0, 1].  There a success is drawn with probability r;
    fractional counts have the same mean and need no draw.  Confidences scatter less than Bernoulli numbers, so it
    explores more than it must.  The chances are computed on a grid (`offramp.bandits.largest_draw`): they are exactly
    those the arm is drawn with, and within .02 of what independent draws would give.

    """

    successes: float = 1.0
    failures: float = 1.0
    bound: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("successes", 0.01), ("failures", 0.01)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ValueError(f"{name} is {value}, allowed is a finite number >= {least}")
        positive("bound", self.bound, zero=False)

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
            parameters=(1.0 if self.known_costs else self.bound, self.successes, self.failures),
            columns=LOG + 1,
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
