"""TS-N: Gaussian Thompson sampling over all (cut, threshold) arms that learns of all arms a play always shows."""

from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel
from offramp.bandits.largest_draw import match
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.pulls import forget_mean, fresh, play
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import FloatArray
from offramp.bandits.thompson import CENTRE, below, describe
from offramp.bandits.ucb_n import learn_shown, most_telling


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """What was never observed first, then an arm with the probability that its draw is the largest."""
    cold = most_telling(state, row)
    if cold >= 0:
        play(state, row, cold, 1.0)
    else:
        match(describe, below, state, row)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn of every arm that the decision always shows."""
    learn_shown(state, decision, observation)


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    forget_mean(state, factor)


@dataclass(frozen=True, kw_only=True)
class GridThompson:
    r"""Plays each arm of the grid with the probability that it is the best (TS-N on always-observed edges).

    After :math:`O_a` observations of arm a, own plays and side observations alike, its posterior at the prices quoted
    now is

    .. math:: N(\hat C_a - \mu(\gamma_a + \hat p_a o_a), \; \sigma^2 / O_a),

    and the arm is drawn with the probability that an independent draw from there would be the largest; `p_action` is
    that probability.  Which observations count is said at `offramp.bandits.ucb_n.OneSidedUCB`.

    Parameters
    ----------
    sd
        :math:`\sigma`, standard deviation of a single reward in units of confidence, finite, > 0; .1 to .2 measured.
    side_observations, known_costs
        As for `OneSidedUCB`.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.ts_n import GridThompson
    >>> engine = Engine(GridThompson(sd=0.1), arms=Arms.grid(exits=2, thresholds=(0.5, 0.8)), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)  # the last cut: it shows all three arms
    >>> engine.update(decision, Observation(confidence=[0.7, 0.9], answered_at=2, offloaded=False))
    True
    >>> round(engine.decide(quote).p_action, 2)
    0.72

    Notes
    -----
    Tossou, Dimitrakakis, Dubhashi (2017), TS-N, reconstructed: each posterior takes in all side observations of its
    arm.  Here one observation of each arm stands in for the prior, and the chances are computed on a grid
    (`offramp.bandits.largest_draw`), within .005 of what independent draws would give.  Draws are independent although
    side observations tie the means of neighbours together: arms with equal outcomes share the chance of being played.
    A cloud answer counts with the last exit's confidence also in a world with a fallback.

    """

    sd: float = 0.2
    side_observations: bool = True
    known_costs: bool = True

    def __post_init__(self) -> None:
        positive("sd", self.sd, zero=False)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All arms without early thresholds."""
        return list(arms.single)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing observed."""
        return fresh(
            arms,
            self.plays(arms),
            features,
            known_costs=self.known_costs,
            parameters=(self.sd, float(self.side_observations)),
            columns=CENTRE + 1,
            draws=1,
        )


@compiled
def rollout(state: FloatArray, world: World, block: Block, record: Record) -> int:
    """Play a block of rounds."""
    return loop(select, update, reveal, state, world, block, record)


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
