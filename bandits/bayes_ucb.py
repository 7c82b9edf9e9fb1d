"""Bayes-UCB over any set of (cut, threshold) arms: a quantile of the posterior of each mean reward."""

import math
from dataclasses import dataclass

from offramp.bandits import bayes_ucb_beta
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
from offramp.bandits.quantiles import student_quantile
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import own

C, MEAN, WEIGHT, SHAPE, RATE = range(FIRST, FIRST + 5)
PRIORS = {"normal": (0.0, 1e-6, 1.0, 1.0), "beta": (1.0, 1.0)}


@kernel
def index(state: FloatArray, row: FloatArray, a: int, level: float, highest: float) -> float:
    """Quantile of the mean's posterior that `level` lies above; -inf where a cheap bound rules the arm out.

    The bound is what the tail of Student's t, at most (1 + x^2 / dof)^(-dof / 2) / 2, leaves.
    """
    n, weight = state[own(state, PARAMETERS, PULLS) + a], parameter(state, WEIGHT)
    value, total = worth(state, row, a), weight + n
    gap = value - parameter(state, MEAN)
    shape = parameter(state, SHAPE) + 0.5 * n
    rate = parameter(state, RATE) + 0.5 * n * (variance(state, row, a) + weight * gap * gap / total)
    centre, scale = value - weight * gap / total, math.sqrt(rate / (shape * total))
    dof = 2.0 * shape
    if centre + scale * math.sqrt(dof * (math.exp(-2.0 / dof * math.log(2.0 * level)) - 1.0)) <= highest:
        return -math.inf
    return centre + scale * student_quantile(level, dof)  # type: ignore[no-any-return]


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest quantile."""
    level = bayes_ucb_beta.tail(rounds(state), parameter(state, C))
    play(state, row, leader(index, state, row, level), 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean, variance and offload share by one observation."""
    learn_spread(state, decision, observation, payoff(parameter(state, KNOWN) == 1.0, decision, observation))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means and variances, but only a share of their weight."""
    forget_spread(state, factor)


@dataclass(frozen=True, kw_only=True)
class BayesUCB(IndexPolicy):
    r"""Optimism by a quantile of the posterior.

    Plays each arm once, then the arm whose mean reward has the largest posterior quantile at

    .. math:: 1 - \frac{1}{t (\ln t)^c}.

    Parameters
    ----------
    c
        Exponent of the logarithm, >= 0; the theorem needs 5, the authors advise 0, the comparison of UCB variants for
        early exits takes 1.
    posterior
        "normal": rewards at the prices quoted now are normal with unknown mean and variance, so that the mean has a
        Student-t posterior.  "beta": the mean confidence has a Beta posterior, with C successes and 1 - C failures for
        an answer of confidence C, and the price is subtracted.
    prior
        For "normal" mean, weight (> 0), shape (>= 1/2) and rate (> 0) of a Normal-Inverse-Gamma law; None = (0, 1e-6,
        1, 1), which says that rewards scatter by about 1 until many pulls say otherwise.  For "beta" successes and
        failures (>= 0.01); None = (1, 1).
    bound
        Used with "beta" and without known costs alone: rewards are taken to lie in [1 - bound, 1], and clipped, > 0.
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.bayes_ucb import BayesUCB
    >>> engine = Engine(BayesUCB(cuts=(1, 2), thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # each arm once
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True
    >>> engine.decide(quote).cut
    2

    Notes
    -----
    Kaufmann, Cappé, Garivier (2012), algorithm 1; there the logarithm is that of the horizon.  The prior and c = 1 of
    "normal" are those of arXiv 2604.24810.  With known costs the posterior is that of the rewards as the prices of now
    would have made them.  Before the second round, and while t ln(t)^c is below 2, the median is taken.

    """

    c: float = 1.0
    posterior: str = "normal"
    prior: tuple[float, ...] | None = None
    bound: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("c", self.c)
        positive("bound", self.bound, zero=False)
        if self.posterior not in PRIORS:
            raise ValueError(f"posterior is {self.posterior!r}, allowed are {tuple(PRIORS)}")
        if self.prior is None:
            return
        prior = tuple(self.prior)
        object.__setattr__(self, "prior", prior)
        least = (-math.inf, 1e-300, 0.5, 1e-300) if self.posterior == "normal" else (0.01, 0.01)
        if len(prior) != len(least) or not all(low <= x < math.inf for x, low in zip(prior, least, strict=True)):
            wanted = "mean, weight > 0, shape >= 0.5, rate > 0" if len(least) == 4 else "two numbers >= 0.01"
            raise ValueError(f"prior is {prior}, allowed are {wanted} for posterior {self.posterior!r}")

    @property
    def kernels(self) -> Kernels:
        """The functions of this file, or those of the Beta posterior."""
        return KERNELS if self.posterior == "normal" else bayes_ucb_beta.KERNELS

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        prior = PRIORS[self.posterior] if self.prior is None else self.prior
        plays, known = self.plays(arms), self.known_costs
        if self.posterior == "normal":
            return fresh(arms, plays, features, known_costs=known, parameters=(self.c, *prior), columns=SPREAD)
        constants = (self.c, 1.0 if known else self.bound, *prior)
        return fresh(arms, plays, features, known_costs=known, parameters=constants)


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
