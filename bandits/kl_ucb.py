"""KL-UCB over any set of (cut, threshold) arms: the largest mean that the divergence from what was seen allows."""

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
    MEAN,
    PARAMETERS,
    PULLS,
    charge,
    forget_mean,
    fresh,
    leader,
    learn_mean,
    parameter,
    payoff,
    play,
    rounds,
    unit,
)
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

BETA, C, BOUND = range(FIRST, FIRST + 3)
STEPS = 50  # Newton steps at most; three to five are usual


@kernel
def divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli laws, p in [0, 1], q in (0, 1)."""
    value = 0.0
    if p > 0.0:
        value += p * math.log(p / q)
    if p < 1.0:
        value += (1.0 - p) * math.log((1.0 - p) / (1.0 - q))
    return value


@kernel
def ceiling(p: float, budget: float) -> float:
    """A number that `upper_mean` does not exceed, cheap: Pinsker's bound, or a sharper one near 0 or 1."""
    gap = min(math.sqrt(0.5 * budget), math.sqrt(2.0 * budget * (1.0 - p)))
    gap = min(gap, budget + math.sqrt(budget * (budget + 2.0 * p)))
    return min(p + gap, 1.0)


@kernel
def upper_mean(p: float, budget: float) -> float:
    """The largest q in [p, 1] whose divergence from p is at most the budget (>= 0): Newton from above.

    The divergence is convex in q, so that from a start above the root no step passes it.
    """
    if p >= 1.0 or budget <= 0.0:
        return p
    entropy = p * math.log(p) if p > 0.0 else 0.0
    last = 1.0 - (1.0 - p) * math.exp((entropy - budget) / (1.0 - p))
    q = min(ceiling(p, budget), last)
    if p <= 0.0:
        return last
    for _ in range(STEPS):
        if q >= 1.0 or q <= p:
            break
        move = (divergence(p, q) - budget) * q * (1.0 - q) / (q - p)
        if move <= 1e-14:
            break
        q -= move
    return max(min(q, 1.0), p)


@kernel
def index(state: FloatArray, row: FloatArray, a: int, level: float, highest: float) -> float:
    """Upper mean minus price; -inf where even the cheap ceiling is not above the highest index so far."""
    p, budget = state[own(state, PARAMETERS, MEAN) + a], level / state[own(state, PARAMETERS, PULLS) + a]
    price, bound = charge(state, row, a), parameter(state, BOUND)
    if 1.0 - (1.0 - ceiling(p, budget)) * bound - price <= highest:
        return -math.inf
    return 1.0 - (1.0 - upper_mean(p, budget)) * bound - price


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest index."""
    log = math.log(rounds(state))
    level = parameter(state, BETA) * log + parameter(state, C) * math.log(max(log, 1.0))
    play(state, row, leader(index, state, row, level), 1.0)


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
class KLUCB(IndexPolicy):
    r"""Optimism by the Kullback-Leibler divergence of Bernoulli laws.

    Plays each arm once, then the arm with the largest :math:`U_a - \mu(\gamma_a + \hat p_a o_a)`, with

    .. math:: U_a = \max\{q : N_a\, d(\hat C_a, q) \le \beta \ln t + c \ln\ln t\},

    :math:`d(p, q) = p \ln(p/q) + (1-p) \ln((1-p)/(1-q))`, mean confidence :math:`\hat C_a`, offload share
    :math:`\hat p_a`, and :math:`\gamma_a, o_a` the costs quoted now.

    Parameters
    ----------
    beta
        Multiplies :math:`\ln t`, >= 0; 1 in the paper.
    c
        Multiplies :math:`\ln\ln t`, >= 0; the theorem needs 3, the authors advise 0.
    bound
        Used without known costs alone: rewards are taken to lie in [1 - bound, 1], and clipped to it, > 0.
        1 + mu * (largest edge cost + offload cost) holds them all.
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.kl_ucb import KLUCB
    >>> engine = Engine(KLUCB(cuts=(1, 2), thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # each arm once
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True
    >>> engine.decide(quote).cut
    2

    Notes
    -----
    Garivier and Cappé (2011), algorithm 1.  For rewards in [0, 1] that are no Bernoulli numbers, as confidences, the
    bound holds and is wide.  With known costs the optimism is about the confidence alone, as in `UCB1`: the offload
    share enters as measured.  Without, the reward is first carried onto [0, 1].  Until :math:`\ln t`
    reaches 1 the second term is 0.

    """

    beta: float = 1.0
    c: float = 0.0
    bound: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("beta", self.beta)
        positive("c", self.c)
        positive("bound", self.bound, zero=False)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        constants = (self.beta, self.c, 1.0 if self.known_costs else self.bound)
        return fresh(arms, self.plays(arms), features, known_costs=self.known_costs, parameters=constants)


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
