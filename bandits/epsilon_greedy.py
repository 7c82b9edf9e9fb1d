"""Epsilon-greedy over any set of (cut, threshold) arms: the best so far, and now and then any other."""

from dataclasses import dataclass

from offramp.bandits.arms import Arms
from offramp.bandits.index_policy import IndexPolicy
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import (
    CHOSEN,
    FIRST,
    KNOWN,
    PARAMETERS,
    PULLS,
    coldest,
    forget_mean,
    fresh,
    leader,
    learn_mean,
    offered,
    parameter,
    payoff,
    play,
    worth,
)
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, T, own, uniform

EPSILON, DECAY = range(FIRST, FIRST + 2)


@kernel
def index(state: FloatArray, row: FloatArray, a: int, level: float, highest: float) -> float:
    """Mean reward at these prices."""
    return worth(state, row, a)


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once; then any offered arm with probability epsilon, else the one with the largest mean."""
    best = leader(index, state, row, 0.0)
    cold = coldest(state, row, own(state, PARAMETERS, CHOSEN), own(state, PARAMETERS, PULLS)) >= 0
    count = 0
    for a in range(whole(state[ARMS])):
        count += 1 if offered(state, row, a) else 0
    if cold or count == 0:
        play(state, row, best, 1.0)
    else:
        epsilon = min(1.0, max(parameter(state, EPSILON), parameter(state, DECAY) / (state[T] + 1.0)))
        chosen, u = best, uniform(state)
        if u < epsilon:
            skip = min(whole(u / epsilon * count), count - 1)
            for a in range(whole(state[ARMS])):
                if offered(state, row, a):
                    if skip == 0:
                        chosen = a
                    skip -= 1
        play(state, row, chosen, epsilon / count + (1.0 - epsilon if chosen == best else 0.0))


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's mean and offload share by one observation."""
    learn_mean(state, decision, observation, payoff(parameter(state, KNOWN) == 1.0, decision, observation))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    forget_mean(state, factor)


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy(IndexPolicy):
    r"""Exploration by chance.

    Plays each arm once.  Then, with probability :math:`\epsilon_t = \min\{1, \max(\epsilon, c / t)\}`, an arm drawn
    uniformly from those that are offered, else the arm with the largest mean reward at the prices quoted now; of equals
    the lowest.

    Parameters
    ----------
    epsilon
        :math:`\epsilon`, in [0, 1].
    decay
        c, >= 0; with epsilon = 0 the schedule is the paper's :math:`\min\{1, c / t\}`.
    cuts, thresholds, known_costs
        As in `offramp.bandits.index_policy.IndexPolicy`: what to play, and whether the price is subtracted as quoted.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.epsilon_greedy import EpsilonGreedy
    >>> engine = Engine(EpsilonGreedy(cuts=(1, 2), thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # each arm once
    >>> engine.update(decision, Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False))
    True
    >>> engine.decide(quote).cut
    2

    Notes
    -----
    Auer, Cesa-Bianchi, Fischer (2002), figure 3; there c is a constant times K over the squared gap.  `p_action` is
    exact: epsilon over the number of offered arms, plus 1 - epsilon for the best.  It is 1 while arms are tried once.

    """

    epsilon: float = 0.1
    decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon is {self.epsilon}, allowed is a number in [0, 1]")
        positive("decay", self.decay)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        constants = (self.epsilon, self.decay)
        return fresh(arms, self.plays(arms), features, known_costs=self.known_costs, parameters=constants, draws=1)


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
