"""Hedge-HI: weights over the thresholds of one exit, whose answers are checked against the cloud's now and then."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.exp3 import draw, inherited, proportion, spread
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, positive
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import (
    AUDIT,
    CONFIDENCE,
    CUT,
    EXITS,
    MU,
    P_ACTION,
    P_REVEAL,
    PLAY,
    FloatArray,
    offload_cost_at,
    prediction_at,
)
from offramp.bandits.state import ARMS, FREE, HEADER, T, choose, own, pack, uniform

PARAMETERS, COLUMNS = 7, 3
EPSILON, ETA, AUDITS, GAP, EPOCH, LENGTH, LEFT = range(PARAMETERS)
LOCAL, SENT, CHANCE = range(COLUMNS)
LOSSES = ("disagreement", "confidence")
EPSILON_STEP, ETA_STEP = 0.5 ** (1 / 3), 0.5 ** (2 / 3)  # what doubling an epoch does to either rate


def thresholds_at_cut(arms: Arms, cut: int) -> list[Arm]:
    """All arms at an exit before the last.

    Raises
    ------
    ValueError
        There is no such exit.

    """
    if not 1 <= cut < arms.exits:
        raise ValueError(f"cut is {cut}, allowed is 1..{arms.exits - 1}: an exit before the last")
    return [arm for arm in arms.single if arm.cut == cut]


@kernel
def local_loss(decision: FloatArray, observation: FloatArray, gap: bool) -> float:
    """What the exit's own answer loses against the last one's; nan where that is not known.

    Its disagreement, where classes that are not passed on count as one; or the confidence that it lacks.
    """
    exits, cut = whole(decision[EXITS]), whole(decision[CUT])
    difference = observation[CONFIDENCE + exits - 1] - observation[CONFIDENCE + cut - 1]
    classes = prediction_at(exits)
    mine, final = observation[classes + cut - 1], observation[classes + exits - 1]
    if gap or math.isnan(difference):
        return difference  # type: ignore[no-any-return]
    return 0.0 if mine == final and mine >= 0.0 else 1.0


@kernel
def restart(state: FloatArray) -> None:
    """Count down the epoch; at its end begin one of twice the length from equal weights, with smaller rates."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    if state[free + LEFT] <= 0.0:
        state[free + LENGTH] *= 2.0
        state[free + LEFT] = state[free + LENGTH]
        state[free + EPSILON] *= EPSILON_STEP
        state[free + ETA] *= ETA_STEP
        local = own(state, PARAMETERS, LOCAL)
        for a in range(2 * arms):
            state[local + a] = 0.0
    state[free + LEFT] -= 1.0


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """A threshold by its weight; with a small probability, the sample is sent whatever its confidence."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    if state[free + EPOCH] == 1.0:
        restart(state)
    local, sent, chance = own(state, PARAMETERS, LOCAL), own(state, PARAMETERS, SENT), own(state, PARAMETERS, CHANCE)
    price = row[offload_cost_at(whole(row[EXITS])) + whole(state[HEADER + arms])]
    audits = state[free + AUDITS] == 1.0
    explore = state[free + EPSILON] if price < math.inf else 0.0
    for a in range(arms):
        value = state[local + a]
        if price < math.inf:
            value += row[MU] * price * state[sent + a]
        state[chance + a] = -state[free + ETA] * value
    spread(state, row, chance, 0.0)
    if not audits:
        for a in range(arms):
            state[chance + a] *= 1.0 - explore
        state[chance + arms - 1] = min(state[chance + arms - 1] + explore, 1.0)
    best = draw(state, chance)
    choose(state, row, best, state[chance + best])
    if audits:
        row[AUDIT] = 1.0 if uniform(state) < explore else 0.0
        row[P_REVEAL] = explore


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Count who would have sent this sample; where it was sent for exploration, charge all who would not have."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    confidence = observation[CONFIDENCE + whole(decision[CUT]) - 1]
    if not confidence >= 0.0:
        return
    threshold = HEADER + 2 * arms
    weight = 0.0
    if state[free + AUDITS] == 1.0:
        if decision[AUDIT] == 1.0:
            weight = 1.0 / decision[P_REVEAL]
    elif state[threshold + whole(decision[PLAY])] == math.inf:
        weight = 1.0 / decision[P_ACTION]
    loss = 0.0
    if weight > 0.0:
        loss = local_loss(decision, observation, state[free + GAP] == 1.0)
        if math.isnan(loss):
            return
    local, sent = own(state, PARAMETERS, LOCAL), own(state, PARAMETERS, SENT)
    for a in range(arms):
        if confidence < state[threshold + a]:
            state[sent + a] += 1.0
        else:
            state[local + a] += weight * loss


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Shrink all sums, so that the log-weights draw together; epochs go on."""
    state[T] *= factor
    local = own(state, PARAMETERS, LOCAL)
    for a in range(2 * whole(state[ARMS])):
        state[local + a] *= factor


@dataclass(frozen=True, kw_only=True)
class HedgeHI:
    r"""Prediction with expert advice over the thresholds of one exit, when an answer given does not show its worth.

    A threshold is drawn with probability :math:`w_\theta / \sum w`.  On a sample of confidence C, thresholds above C
    offload and lose :math:`\mu o`; the others answer and lose l.  That is known only after an offload, so a sample is
    offloaded with probability :math:`\epsilon` in any case, and then counts for all it stands for:

    .. math:: \ln w_\theta = -\eta \sum_s \Big( 1\{C_s < \theta\} \mu o
              + 1\{C_s \ge \theta\} \frac{l_s E_s}{q_s} \Big),

    with :math:`E_s` = 1 where sample s was offloaded whatever its confidence, which had probability :math:`q_s`.

    Parameters
    ----------
    cut
        The exit, 1..L-1.
    epsilon
        :math:`\epsilon`, probability of an offload for exploration, in (0, 1].
    eta
        :math:`\eta`, learning rate, finite, > 0.
    restart
        Begin anew in epochs of doubling length, from equal weights, with :math:`\epsilon \propto n^{-1/3}` and
        :math:`\eta \propto n^{-2/3}` for an epoch of n rounds; `epsilon` and `eta` are then those of the first.
    epoch
        Rounds of the first epoch, >= 1.
    loss
        l: "disagreement" of the exit's answer with the last exit's, 0 or 1; or "confidence", what the last exit is
        surer by, which can be negative and is the scale of the common reward.
    audits
        Explore by audits: the exit's own answer is served, and the sample is sent as well.  False, as published: the
        cloud's answer is served, which needs a threshold of +inf in the table.

    Raises
    ------
    ValueError
        A parameter is outside its range, or the table has no threshold +inf at the cut and `audits` is False.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.hedge_hi import HedgeHI
    >>> arms = Arms.grid(exits=2, thresholds=(0.5, 0.8, float("inf")))
    >>> engine = Engine(HedgeHI(cut=1, epsilon=0.1), arms=arms, seed=1)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> decision.threshold, round(decision.p_action, 6)
    (0.8, 0.3)

    Notes
    -----
    Al-Atat, Datta, Moharir, Champati, "Regret bounds for online learning for hierarchical inference" (MobiHoc 2024),
    after Moothedath, Champati, Gross (arXiv 2304.00891), whose algorithm without local feedback has this estimate;
    rates and restarts are reconstructed.  For n rounds and K thresholds, :math:`\epsilon = (\ln K / 2 n)^{1/3}` and
    :math:`\eta = \sqrt{2 \epsilon \ln K / n}` balance the bound: .1 and .02 for a thousand rounds and ten thresholds.

    There the experts are all confidences seen so far, and restarts keep their number small; here they are the table's
    thresholds, and restarts spare the user the horizon.  There l is the error of the exit's class, told by the cloud's
    answer, which is taken for the truth: that is the disagreement.  With `audits` = False, a drawn threshold of +inf
    shows as much as an exploration and is used like one, with the probability of both.  Offloads by other thresholds
    show l under selection and are not used for it.

    The number of samples that each threshold would have sent is known in every round, so the price is not learnt: the
    sum is taken at today's quote.  Where sending is not offered, only a threshold of -inf is played, if there is one,
    and nothing is explored.

    """

    cut: int = 4
    epsilon: float = 0.1
    eta: float = 0.02
    restart: bool = True
    epoch: int = 1_000
    loss: str = "disagreement"
    audits: bool = False

    def __post_init__(self) -> None:
        proportion("epsilon", self.epsilon)
        positive("eta", self.eta, zero=False)
        if self.epoch < 1:
            raise ValueError(f"epoch is {self.epoch}, allowed is 1 or more")
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}, allowed are {LOSSES}")

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All thresholds at the cut."""
        mine = thresholds_at_cut(arms, self.cut)
        if not self.audits and not any(arm.threshold == math.inf for arm in mine):
            raise ValueError(
                f"cut {self.cut} has no threshold inf in the table of arms, allowed is a table with one, or "
                "audits=True: else nothing can be sent whatever its confidence"
            )
        return mine

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """All weights alike, at the start of the first epoch."""
        flags = (float(self.audits), float(self.loss == "confidence"), float(self.restart))
        return pack(
            table=arms.part(self.plays(arms)),
            exits=arms.exits,
            features=features,
            draws=2 if self.audits else 1,
            parameters=(self.epsilon, self.eta, *flags, float(self.epoch), float(self.epoch)),
            columns=COLUMNS,
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: a new arm begins as the one that was likeliest last."""
        return inherited(self, state, before, after, features)


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
