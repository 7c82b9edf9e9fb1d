"""EXP3.S: exponential weights that keep a share for every arm, so that the best one may change."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.exp3 import draw, inherited, proportion, spread, whole_gain
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.reveal import reveal_answer
from offramp.bandits.rows import P_ACTION, PLAY, FloatArray
from offramp.bandits.state import ARMS, FREE, T, choose, own, pack
from offramp.bandits.ucb1 import UCB1

PARAMETERS, COLUMNS = 3, 2
GAMMA, ALPHA, SPAN = range(PARAMETERS)
LOG, CHANCE = range(COLUMNS)
LEAST = 1e-300  # what a share that underflowed counts as: its logarithm is finite


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """An arm by its weight, mixed with any arm."""
    log, chance = own(state, PARAMETERS, LOG), own(state, PARAMETERS, CHANCE)
    for a in range(whole(state[ARMS])):
        state[chance + a] = state[log + a]
    spread(state, row, chance, state[whole(state[FREE]) + GAMMA])
    best = draw(state, chance)
    choose(state, row, best, state[chance + best])


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Raise the played arm's weight, then give every arm a share of what all weights were before."""
    arms, free, log = whole(state[ARMS]), whole(state[FREE]), own(state, PARAMETERS, LOG)
    span = state[free + SPAN]
    before = -math.inf
    for a in range(arms):
        before = max(before, state[log + a])
    total = 0.0
    for a in range(arms):
        total += math.exp(state[log + a] - before)
    gain = whole_gain(decision, observation, span) / span
    played = log + whole(decision[PLAY])
    state[played] += state[free + GAMMA] * gain / (decision[P_ACTION] * arms)
    top = max(before, state[played])
    given = math.e * state[free + ALPHA] / arms * total * math.exp(before - top)
    for a in range(arms):
        state[log + a] = math.log(max(math.exp(state[log + a] - top) + given, LEAST))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Draw the log-weights together."""
    state[T] *= factor
    log = own(state, PARAMETERS, LOG)
    for a in range(whole(state[ARMS])):
        state[log + a] *= factor


@dataclass(frozen=True, kw_only=True)
class EXP3S:
    r"""EXP3 against the best sequence of arms with few changes.

    Arms are drawn as by `offramp.bandits.exp3.EXP3`, but the weights, with :math:`\hat x_a = x / p_a` for the played
    arm and 0 for the others, follow

    .. math:: w_a \leftarrow w_a \exp(\gamma \hat x_a / K) + \frac{e \alpha}{K} \sum_b w_b .

    Parameters
    ----------
    gamma
        :math:`\gamma`, share of decisions that are drawn uniformly, and the step of the weights, in (0, 1].
    alpha
        :math:`\alpha`, share of the weight that is handed out anew in each round, in (0, 1]: 1 / T in the theorem.
    span
        Width of the interval [1 - span, 1] that rewards are scaled from, finite, > 0: 1 + mu times the largest cost.
    cuts
        Cuts to play, None = all in the table.
    thresholds
        Thresholds to play at cuts that have one, None = all in the table.

    Raises
    ------
    ValueError
        A parameter is outside its range.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.exp3_s import EXP3S
    >>> engine = Engine(EXP3S(thresholds=(0.8,)), arms=Arms.grid(exits=4), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.1, 0.2, 0.3, 0.4], offload_cost=[0.5, 0.4, 0.3, 0.2, 0], mu=1.0)
    >>> engine.decide(quote).p_action
    0.25

    Notes
    -----
    Auer, Cesa-Bianchi, Freund, Schapire (SIAM J. Comput. 32(1), 2002), section 8.  Y changes in T rounds call for
    :math:`\alpha = 1 / T` and :math:`\gamma = \min(1, \sqrt{K (Y \ln(K T) + e) / ((e - 1) T)})`.  Weights are kept as
    logarithms, of which the largest stays near 0.

    It learns the whole reward, price included, as published.  A form that subtracts known prices when it is decided
    does not follow from it: what is handed out anew carries no record of the rounds that it stands for, so that no
    price can be put on them.  `offramp.bandits.exp3_ix.Exp3IX` keeps that record.

    """

    gamma: float = 0.1
    alpha: float = 1e-4
    span: float = 2.0
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        proportion("gamma", self.gamma)
        proportion("alpha", self.alpha)
        positive("span", self.span, zero=False)
        for name in ("cuts", "thresholds"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """As `UCB1`: the arms with one of the cuts and, below the last cut, one of the thresholds."""
        return UCB1(cuts=self.cuts, thresholds=self.thresholds).plays(arms)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """All weights alike."""
        return pack(
            table=arms.part(self.plays(arms)),
            exits=arms.exits,
            features=features,
            draws=1,
            parameters=(self.gamma, self.alpha, self.span),
            columns=COLUMNS,
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: a new arm begins as the one that was likeliest last."""
        return inherited(self, state, before, after, features)


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
