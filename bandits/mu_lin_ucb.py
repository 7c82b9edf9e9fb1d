"""MuLinUCB: where to split when the price of an offload is unknown and is learnt from the bills."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.linear import absorb, bounded, correct, doubt, fade, predicted, size, start
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh, positive
from offramp.bandits.rearm import carry
from offramp.bandits.reveal import answer_confidence, reveal_answer
from offramp.bandits.rows import (
    AUDITED,
    COSTS,
    CUT,
    EXITS,
    MU,
    OFFLOAD_PAID,
    OFFLOADED,
    PLAY,
    FloatArray,
    context_at,
    offload_cost_at,
)
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack

VALUES = ("cost", "confidence")
D = 3  # features of a cut: 1, the share of the network that is left, the offload cost as quoted
PARAMETERS, COLUMNS = 13, 2
ALPHA, RIDGE, EXPONENT, DOUBLING, KEY, ORDINARY, IMPORTANT, SURE, LENGTH, EVERY, FRAME, ANSWERS, MEAN = range(13)
PULLS, CONFIDENCE = range(COLUMNS)


@kernel
def interval(length: float, exponent: float) -> float:
    """Frames from one forced exclusion to the next, the power of the horizon rounded up."""
    return float(math.ceil(math.pow(length, exponent) - 1e-9))  # the power of 16 to 1/4 is 2 on every machine


@kernel
def features_at(state: FloatArray) -> int:
    """Where D features stand, then D numbers of scratch, then the model."""
    return own(state, PARAMETERS, COLUMNS)


@kernel
def describe(state: FloatArray, row: FloatArray, cut: int) -> None:
    """Write down the features of a cut as this row quotes it."""
    x, exits = features_at(state), whole(row[EXITS])
    network = row[COSTS + exits]
    state[x] = 1.0
    state[x + 1] = bounded((network - row[COSTS + cut]) / network) if network > 0.0 else 0.0
    state[x + 2] = bounded(row[offload_cost_at(exits) + cut])


@kernel
def forced(state: FloatArray) -> bool:
    """Count a frame; is it one in which the arm without feedback is left out?"""
    free = whole(state[FREE])
    state[free + FRAME] += 1.0
    frame = state[free + FRAME]
    while state[free + DOUBLING] == 1.0 and frame > state[free + LENGTH]:
        state[free + LENGTH] *= 2.0
        state[free + EVERY] = interval(state[free + LENGTH], state[free + EXPONENT])
    every = state[free + EVERY]
    return frame == every * math.floor(frame / every)  # type: ignore[no-any-return]


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """The cut that costs least in the best case; now and then any but the one on the device."""
    arms, free, exits = whole(state[ARMS]), whole(state[FREE]), whole(row[EXITS])
    pulls, means, x = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, CONFIDENCE), features_at(state)
    weight = state[free + ORDINARY]
    if state[free + KEY] >= 0.0 and row[context_at(exits) + whole(state[free + KEY])] >= 0.5:
        weight = state[free + IMPORTANT]
    alpha = state[free + ALPHA] * math.sqrt(1.0 - weight)
    excluded = forced(state)
    highest = -math.inf
    best, device = -1, -1
    for a in range(arms):
        cut = whole(state[HEADER + arms + a])
        cost = row[COSTS + cut]
        candidate = True
        if cut == exits:
            device = a
            candidate = not excluded
        elif row[offload_cost_at(exits) + cut] < math.inf:
            describe(state, row, cut)
            cost += predicted(state, x + 2 * D, 1, D, 0, x)
            cost -= alpha * math.sqrt(doubt(state, x + 2 * D, 1, D, x, x + D))
        else:
            candidate = False
        value = -cost
        if state[free + SURE] == 1.0:
            mean = (state[pulls + a] * state[means + a] + state[free + MEAN]) / (state[pulls + a] + 1.0)
            value = mean - row[MU] * cost
        if candidate and value > highest:
            highest = value
            best = a
    if best < 0:
        best = max(device, 0)
    choose(state, row, best, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn what an offload was billed, as quoted where no bill came, and how sure the arm's answers are."""
    free, exits, a = whole(state[FREE]), whole(decision[EXITS]), whole(decision[PLAY])
    x = features_at(state)
    confidence = answer_confidence(observation)
    pulls, mean = own(state, PARAMETERS, PULLS) + a, own(state, PARAMETERS, CONFIDENCE) + a
    state[pulls] += 1.0
    state[mean] += (confidence - state[mean]) / state[pulls]
    state[free + ANSWERS] += 1.0
    state[free + MEAN] += (confidence - state[free + MEAN]) / state[free + ANSWERS]
    if observation[OFFLOADED] + observation[AUDITED] > 0.0:
        cut = whole(decision[CUT])
        quoted, bill = decision[offload_cost_at(exits) + cut], observation[OFFLOAD_PAID]
        if not bill >= 0.0:
            bill = quoted
        if quoted < math.inf and bill < math.inf:
            describe(state, decision, cut)
            absorb(state, x + 2 * D, 1, D, x, x + D)
            correct(state, x + 2 * D, 1, D, 0, x, x + D, bounded(bill))


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep coefficients and means, but only a share of their weight; frames are counted on."""
    free, pulls, x = whole(state[FREE]), own(state, PARAMETERS, PULLS), features_at(state)
    state[T] *= factor
    state[free + ANSWERS] *= factor
    fade(state, x + 2 * D, 1, D, x + D, state[free + RIDGE], factor)
    for a in range(whole(state[ARMS])):
        if state[pulls + a] > 0.0:
            state[pulls + a] = max(state[pulls + a] * factor, FADED)


@dataclass(frozen=True, kw_only=True)
class MuLinUCB:
    r"""A bandit over partition points that learns what offloading costs.

    Arms are the cuts from which everything is sent, and the whole network on the device.  The edge cost of a cut is
    known, the offload cost is linear in features x of the cut, and is learnt from what offloads were billed.  Played is
    the cut with the least

    .. math:: \gamma_p + x_p^\top\hat\theta - \alpha\sqrt{(1 - w_t)\, x_p^\top M^{-1} x_p},

    with one ridge regression for all cuts.  The device itself has x = 0, and teaches nothing about offloads: in every
    :math:`\lceil T^{e}\rceil`-th frame it is left out, or a link that was bad once would never be tried again.

    Features are what the request's prices tell of a cut: the constant 1, the share of the network's edge cost that is
    still to be paid there (the work left for the cloud), and the offload cost as quoted (payload over link, as far as
    the quote knows them).

    Parameters
    ----------
    alpha
        :math:`\alpha`, width of the bonus in cost units, >= 0.
    ridge
        :math:`\lambda`, weight of the prior, > 0.
    exponent
        e, in (0, 1): how rarely the device is left out; .25 in the paper.
    horizon
        T, frames to be played.  None = it is not known: it is taken to be 1, and doubled whenever it is over.
    weight
        w of a frame, in [0, 1): the larger, the less is tried; .2 in the paper for frames that are no key frames.
    key_weight
        w of a key frame, in [0, 1); .8 in the paper.
    key
        Context feature, counted from 0, that is 1 for a key frame and 0 for others.  None = there are no key frames.
    trusts_quote
        Begin with the belief that bills are as quoted.  False: begin with 0 for everything, as the paper.
    values
        "cost": the least cost, as published.  "confidence": the largest mean confidence of the answers minus mu times
        the cost; an arm's mean counts the mean of all answers as one of its own, so that every arm has one.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.mu_lin_ucb import MuLinUCB
    >>> engine = Engine(MuLinUCB(), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> decision = engine.decide(quote)
    >>> decision.cut, decision.threshold
    (1, inf)
    >>> nan = float("nan")
    >>> seen = Observation(confidence=[0.4, 0.9], answered_at=2, offloaded=True, offload_cost=0.7)
    >>> engine.update(decision, seen)
    True

    Notes
    -----
    Zhang, Chen, Xu, ANS (WWW 2021, arXiv 2102.02638); the rule is reconstructed from public re-implementations.  There
    the cost is a delay, and x has seven features: multiply-accumulates and counts of convolutions, dense layers and
    activations behind the cut, and the size of what is sent.  A decision here carries prices alone, so x is made of
    them; under prices by work and bytes (`MacsAndBytes`) they are shares of the same quantities.

    The doubling restarts the schedule of exclusions, and keeps what was learnt.  One forced frame plays the best arm
    that offloads; where none is offered (+inf), the device is played all the same.  While the first bill is on its way
    the same cut is played again: cuts share one model, so none needs a turn of its own.  Ties go to the shallowest cut.

    All arms serve the last exit's answer, from the cloud or from the device.  Where both run the same network,
    confidence says nothing about the arms, and "confidence" only adds its noise: it is for a device whose copy of the
    last exit is another one (quantised, say).

    In the worlds of `offramp.environments` bills are as quoted.  They can show what it costs to learn a price that
    everybody else is told, and that the policy finds the cheapest cut of those without early answers.  They cannot show
    what it is made for, quotes that are wrong: for that an engine must be told the offload cost as measured.

    """

    alpha: float = 0.1
    ridge: float = 1.0
    exponent: float = 0.25
    horizon: int | None = None
    weight: float = 0.2
    key_weight: float = 0.8
    key: int | None = None
    trusts_quote: bool = True
    values: str = "cost"

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)
        positive("ridge", self.ridge, zero=False)
        for name, value, allowed, fits in (
            ("exponent", self.exponent, "a number in (0, 1)", 0.0 < self.exponent < 1.0),
            ("horizon", self.horizon, "1 or more, or None", self.horizon is None or self.horizon >= 1),
            ("weight", self.weight, "a number in [0, 1)", 0.0 <= self.weight < 1.0),
            ("key_weight", self.key_weight, "a number in [0, 1)", 0.0 <= self.key_weight < 1.0),
            ("key", self.key, "0 or more, or None", self.key is None or self.key >= 0),
            ("values", repr(self.values), f"one of {VALUES}", self.values in VALUES),
        ):
            if not fits:
                raise ValueError(f"{name} is {value}, allowed is {allowed}")

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """Of each cut, the arm that always offloads; the last cut.

        Raises
        ------
        ValueError
            The table has no arm that always offloads: nothing could be learnt.

        """
        sends = [Arm(cut, math.inf) for cut in range(arms.exits)]
        offered = set(arms.table)
        if offered.isdisjoint(sends):
            raise ValueError("the table of arms has no threshold inf, allowed is one with an arm that always offloads")
        return [arm for arm in (*sends, Arm(arms.exits, -math.inf)) if arm in offered]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No bill seen.

        Raises
        ------
        ValueError
            The context has no such feature as `key`.

        """
        if self.key is not None and self.key >= features:
            raise ValueError(f"key is {self.key}, allowed with {features} context features is less than that, or None")
        length = 1.0 if self.horizon is None else float(self.horizon)
        key = -1.0 if self.key is None else float(self.key)
        constants = (
            *(self.alpha, self.ridge, self.exponent, float(self.horizon is None), key, self.weight, self.key_weight),
            *(float(self.values == "confidence"), length, interval(length, self.exponent), 0.0, 0.0, 0.0),
        )
        state = pack(
            table=arms.part(self.plays(arms)),
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=constants,
            columns=COLUMNS,
            extra=2 * D + size(D, 1),
        )
        model = features_at(state) + 2 * D
        start(state, model, 1, D, 1, self.ridge)
        state[model + size(D, 1) - 1] = float(self.trusts_quote)
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: cuts share one model, which stays."""
        new = fresh(self, after, features)
        carry(self, state, fresh(self, before, features), new)
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
