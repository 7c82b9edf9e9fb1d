"""HI-LCB: how often each confidence bin of one exit agrees with the last exit, and a threshold that follows from it."""

import math
from dataclasses import dataclass
from itertools import pairwise

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.hedge_hi import LOSSES, local_loss, thresholds_at_cut
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh, positive
from offramp.bandits.rearm import carry
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import CONFIDENCE, CUT, EXITS, MU, FloatArray, offload_cost_at
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack

PARAMETERS, COLUMNS = 3, 4
ALPHA, GAP, MONOTONE = range(PARAMETERS)
VISITS, PULLS, MEAN, BOUND = range(COLUMNS)


@kernel
def lower_bounds(state: FloatArray) -> None:
    """How good the answers in each bin are at least, never below 0; with `monotone`, nor below that of a lower bin."""
    free = whole(state[FREE])
    pulls, mean, bound = own(state, PARAMETERS, PULLS), own(state, PARAMETERS, MEAN), own(state, PARAMETERS, BOUND)
    width = state[free + ALPHA] * math.log(max(state[T], 1.0))
    floor = 0.0
    for b in range(whole(state[ARMS])):
        value = 0.0
        if state[pulls + b] > 0.0:
            value = max(state[mean + b] - math.sqrt(width / state[pulls + b]), 0.0)
        state[bound + b] = max(value, floor)
        if state[free + MONOTONE] == 1.0:
            floor = state[bound + b]


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """The threshold that serves the bins best by their lower bounds; ties go to the highest."""
    arms = whole(state[ARMS])
    price = row[offload_cost_at(whole(row[EXITS])) + whole(state[HEADER + arms])]
    best = 0
    if price < math.inf:
        lower_bounds(state)
        visits, bound = own(state, PARAMETERS, VISITS), own(state, PARAMETERS, BOUND)
        spared = 0.0
        highest = -math.inf
        for down in range(arms):
            b = arms - 1 - down
            spared += state[visits + b] * (row[MU] * price - 1.0 + state[bound + b])
            if spared > highest:
                highest = spared
                best = b
    choose(state, row, best, 1.0)


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Count the sample in its bin; where the last exit's answer is known, learn how good the exit's own was."""
    arms = whole(state[ARMS])
    confidence = observation[CONFIDENCE + whole(decision[CUT]) - 1]
    b = -1
    for a in range(arms):
        if confidence >= state[HEADER + 2 * arms + a]:
            b = a
    if b < 0:
        return
    state[own(state, PARAMETERS, VISITS) + b] += 1.0
    loss = local_loss(decision, observation, state[whole(state[FREE]) + GAP] == 1.0)
    if not math.isnan(loss):
        pulls, mean = own(state, PARAMETERS, PULLS) + b, own(state, PARAMETERS, MEAN) + b
        state[pulls] += 1.0
        state[mean] += (1.0 - loss - state[mean]) / state[pulls]


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    state[T] *= factor
    visits = own(state, PARAMETERS, VISITS)
    for a in range(2 * whole(state[ARMS])):
        if state[visits + a] > 0.0:
            state[visits + a] = max(state[visits + a] * factor, FADED)


@dataclass(frozen=True, kw_only=True)
class HILCBLite:
    r"""Offloads where a confidence bin may be worse at answering than the offload costs.

    With :math:`O_b` samples of bin b whose last exit's answer became known, and :math:`\hat f_b` the mean of the
    exit's own worth on them (1 where both agree), bin b offloads while

    .. math:: 1 - \max\Big\{0, \hat f_b - \sqrt{a \ln t / O_b}\Big\} \ge \mu o,

    with the maximum read as 0 while :math:`O_b` = 0.  Offloads teach; a bin that answers learns no more, and is offered
    again as t grows.

    Parameters
    ----------
    cut
        The exit, 1..L-1.
    alpha
        a, width of the bound, finite, >= 0; the theorem asks for more than 1/2.
    monotone
        A bin is held to be no worse than the bins below it (HI-LCB proper); False: each is judged by itself (lite).
    loss
        What an answer loses: "disagreement" with the last exit's, 0 or 1; or "confidence", what the last exit is
        surer by, which is the scale of the common reward.

    Raises
    ------
    ValueError
        A parameter is outside its range.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote
    >>> from offramp.bandits.hi_lcb import HILCBLite
    >>> engine = Engine(HILCBLite(cut=1), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0)
    >>> agreed = Observation(confidence=[0.85, 0.9], answered_at=2, offloaded=True, prediction=[3, 3])
    >>> rounds = 0
    >>> while (decision := engine.decide(quote)).threshold == float("inf"):
    ...     rounds += engine.update(decision, agreed)
    >>> rounds, decision.threshold
    (1, 0.8)

    Notes
    -----
    Chattopadhyay, Sutar, Champati, Moharir (arXiv 2508.08985); the rule is reconstructed.  There a sample is judged
    once its confidence is seen.  Here a decision is one threshold, stated before: the bins lie between the table's
    thresholds at the cut, and the threshold is played that is best for the samples counted in each bin, at the lower
    bounds.  Where all bins above some confidence answer and all below offload, which `monotone` enforces, this is the
    rule itself.  Else a bin may be outvoted by those above or below it.  That keeps the optimism: lower bounds
    make answering look worse than it is, so what is offloaded too often is learnt about.  A bin that no sample comes
    from decides nothing.  Samples below the lowest threshold are always sent, whatever is played.

    The price is today's.  Where it is +inf the lowest threshold is played.  The answer of the exit is compared with the
    last exit's, which takes the cloud for the truth.  Which samples teach depends on nothing but bin and decision, so
    the means need no weights; audits by a wrapper teach as well.

    """

    cut: int = 4
    alpha: float = 0.6
    monotone: bool = False
    loss: str = "disagreement"

    def __post_init__(self) -> None:
        positive("alpha", self.alpha)
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}, allowed are {LOSSES}")

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """All thresholds at the cut."""
        return thresholds_at_cut(arms, self.cut)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No sample seen."""
        return pack(
            table=arms.part(self.plays(arms)),
            exits=arms.exits,
            features=features,
            draws=0,
            parameters=(self.alpha, float(self.loss == "confidence"), float(self.monotone)),
            columns=COLUMNS,
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: bins that keep both their edges stay, others begin anew."""
        new = fresh(self, after, features)
        carry(self, state, fresh(self, before, features), new)
        old, mine = (
            list(pairwise([*(arm.threshold for arm in self.plays(table)), math.inf])) for table in (before, after)
        )
        for b, edges in enumerate(mine):
            if edges not in old:
                for column in (VISITS, PULLS, MEAN):
                    new[own(new, PARAMETERS, column) + b] = 0.0
        return new


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
