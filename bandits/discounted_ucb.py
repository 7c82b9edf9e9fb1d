"""Discounted UCB: UCB1 whose observations fade with their age, in the means and in the bonus alike."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh
from offramp.bandits.pulls import coldest, offered
from offramp.bandits.rearm import carry
from offramp.bandits.reveal import answer_confidence, reveal_answer
from offramp.bandits.rows import OFFLOADED, PLAY, ROUND, FloatArray
from offramp.bandits.state import ARMS, FADED, FREE, MADE, T, choose, own, pack
from offramp.bandits.ucb1 import (
    BETA,
    CHOSEN,
    COLD,
    COLUMNS,
    CONFIDENCE,
    PARAMETERS,
    PULLS,
    ROOT,
    SHARE,
    UCB1,
    largest,
    largest_offered,
)

# Behind UCB1's own numbers.  The weights are kept in the unit of round 0, in which a fresh observation weighs UNIT.
EXTRA = 4
DISCOUNT, LOG, UNIT, TOTAL = range(EXTRA)
LARGE = 1e12  # UNIT beyond which all weights are put into the unit of the day


@kernel
def rescale(state: FloatArray) -> None:
    """Make the latest round the one whose observations weigh 1."""
    extra, pulls, root = (
        own(state, PARAMETERS, COLUMNS),
        own(state, PARAMETERS, PULLS),
        own(state, PARAMETERS, ROOT),
    )
    unit = state[extra + UNIT]
    state[extra + UNIT] = 1.0
    state[extra + TOTAL] /= unit
    for a in range(whole(state[ARMS])):
        if state[pulls + a] > 0.0:
            state[pulls + a] = max(state[pulls + a] / unit, FADED)
            state[root + a] = 1.0 / math.sqrt(state[pulls + a])


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """Each arm once, then the largest index; then everything fades."""
    free, extra, chosen = whole(state[FREE]), own(state, PARAMETERS, COLUMNS), own(state, PARAMETERS, CHOSEN)
    unit = state[extra + UNIT]
    width = state[free + BETA] * math.sqrt(math.log(max(state[extra + TOTAL] / unit, 1.0)) * unit)
    if state[free + COLD] > 0.0:
        best = coldest(state, row, chosen, own(state, PARAMETERS, PULLS))
    else:
        best = largest(state, row, width)
    if best < 0 or not offered(state, row, whole(best)):
        best = largest_offered(state, row, width)
    best = whole(best)
    state[chosen + best] += 1.0
    choose(state, row, best, 1.0)
    state[extra + UNIT] = unit / state[extra + DISCOUNT]
    if state[extra + UNIT] > LARGE:
        rescale(state)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Move the played arm's means by one observation, weighed by its age."""
    a, extra = whole(decision[PLAY]), own(state, PARAMETERS, COLUMNS)
    pulls = own(state, PARAMETERS, PULLS) + a
    mean, share = own(state, PARAMETERS, CONFIDENCE) + a, own(state, PARAMETERS, SHARE) + a
    weight = state[extra + UNIT]
    late = state[MADE] - 1.0 - decision[ROUND]
    if late > 0.0:
        weight *= max(math.exp(late * state[extra + LOG]), FADED)
    if state[pulls] == 0.0:
        state[whole(state[FREE]) + COLD] -= 1.0
    state[pulls] += weight
    state[extra + TOTAL] += weight
    step = weight / state[pulls]
    state[mean] += step * (answer_confidence(observation) - state[mean])
    state[share] += step * (observation[OFFLOADED] - state[share])
    state[own(state, PARAMETERS, ROOT) + a] = 1.0 / math.sqrt(state[pulls])


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    extra, pulls, root = (
        own(state, PARAMETERS, COLUMNS),
        own(state, PARAMETERS, PULLS),
        own(state, PARAMETERS, ROOT),
    )
    if factor < 1.0:
        state[T] *= factor
        state[extra + TOTAL] *= factor
        for a in range(whole(state[ARMS])):
            if state[pulls + a] > 0.0:
                state[pulls + a] = max(state[pulls + a] * factor, FADED * state[extra + UNIT])
                state[root + a] = 1.0 / math.sqrt(state[pulls + a])


@dataclass(frozen=True, kw_only=True)
class DiscountedUCB:
    r"""D-UCB over (cut, threshold) arms: the price is known, the confidence is learnt and fades.

    Plays each arm once, then the arm with the largest

    .. math:: \hat C_a - \mu (\gamma_a + \hat p_a o_a) + \beta \sqrt{\ln n_t / N_a},
              \qquad N_a = \sum_{s < t} \gamma^{t - 1 - s} 1\{I_s = a\}, \quad n_t = \sum_a N_a,

    where mean confidence :math:`\hat C_a` and share of offloads :math:`\hat p_a` are weighted by the same
    :math:`\gamma^{t - 1 - s}`; :math:`\gamma_a, o_a` are the quoted costs of its cut.

    Parameters
    ----------
    discount
        :math:`\gamma`, in (0, 1]; 1 is UCB1.  The memory is about 1 / (1 - discount) decisions.
    beta
        Width of the bonus, in units of confidence, >= 0.  :math:`2 B \sqrt\xi` in the paper, with :math:`\xi > 1/2` and
        B the range of the rewards.
    cuts, thresholds
        What to play, as in `UCB1`; None = all in the table.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.discounted_ucb import DiscountedUCB
    >>> engine = Engine(DiscountedUCB(thresholds=(0.8,)), arms=Arms.grid(exits=2), seed=0)
    >>> engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)).threshold
    0.8

    Notes
    -----
    Garivier, Moulines (ALT 2011), section 2, with regret of order :math:`\sqrt{Y T} \ln T` at
    :math:`\gamma = 1 - \sqrt{Y / T} / 4B` for Y changes.  There the reward is observed whole; here the price is
    subtracted as quoted.  The bonus uses the discounted counts: a discounted mean beside plain counts would stop
    exploring, however old what it knows.

    What is d rounds late is weighed by :math:`\gamma^d`, as if it had come at once.  Time passes with decisions, also
    where feedback is lost.  Weights are kept in the unit of one round for thousands of rounds, so that a step touches
    one arm.

    """

    discount: float = 0.999
    beta: float = 1.0
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.discount <= 1.0:
            raise ValueError(f"discount is {self.discount}, allowed is a number in (0, 1]")
        inner = UCB1(beta=self.beta, cuts=self.cuts, thresholds=self.thresholds)
        object.__setattr__(self, "cuts", inner.cuts)
        object.__setattr__(self, "thresholds", inner.thresholds)

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """As `UCB1`."""
        return UCB1(cuts=self.cuts, thresholds=self.thresholds).plays(arms)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No arm pulled."""
        table = arms.part(self.plays(arms))
        state = pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=(self.beta, float(len(table))),
            columns=COLUMNS,
            extra=EXTRA,
            untried=(COLD, PULLS),
        )
        at = own(state, PARAMETERS, COLUMNS)
        state[at : at + EXTRA] = self.discount, math.log(self.discount), 1.0, 0.0
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """What was learnt about the arms that stay, with the same weights; see `offramp.bandits.rearm`."""
        new = fresh(self, after, features)
        carry(self, state, fresh(self, before, features), new)
        total, pulls = own(new, PARAMETERS, COLUMNS) + TOTAL, own(new, PARAMETERS, PULLS)
        new[total] = new[pulls : pulls + whole(new[ARMS])].sum()
        return new


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
