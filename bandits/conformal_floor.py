"""A floor under any policy's thresholds, moved until early answers disagree with the final exit as rarely as asked."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, enter, start_of, wrappable
from offramp.bandits.nested import PARAMETERS as OWN
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rows import (
    ANSWERED_AT,
    ARM,
    AUDIT,
    AUDITED,
    CONFIDENCE,
    CUT,
    EXITS,
    OFFLOAD_PAID,
    OFFLOADED,
    P_ACTION,
    P_REVEAL,
    PLAY,
    FloatArray,
    prediction_at,
    thresholds_at,
)
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FREE, HEADER, T, choose, uniform

PARAMETERS = OWN + 5
FLOOR, TARGET, RATE, CHANCE, ORACLE = range(OWN, PARAMETERS)
KEPT = 3  # fields of a decision that stand before a whole observation where rows are kept for `put_back`
LOST, PLAIN, CHANGED = range(3)


@kernel
def moved(floor: float, error: float, target: float, rate: float) -> float:
    """The floor after one round: it rises with the error's excess over the target, and rests at 0, where none is."""
    return max(floor + rate * (error - target), 0.0)


@kernel
def floored(state: FloatArray, play: int) -> int:
    """The pair that plays the inner policy's arm: its own threshold, or the next of the table that the floor allows."""
    arms = whole(state[COUNT])
    at = whole(state[FREE]) + PARAMETERS
    floor = state[whole(state[FREE]) + FLOOR]
    pair = whole(state[at + arms + play])
    while (
        pair + 1 < arms and state[at + pair + 1] == play and max(state[HEADER + 2 * arms + pair], 0.0) < floor
    ):  # a confidence is >= 0 always, so a threshold below 0 is one of 0
        pair += 1
    return pair


@kernel
def disagreement(decision: FloatArray, observation: FloatArray) -> float:
    """An unbiased estimate of 1[the answer is another than the final exit's].

    Of answers that were served early only an audit tells, and counts for all it stands for.  One that does not tell, as
    its answer was lost or classes are not passed on, counts as a disagreement.
    """
    exits = whole(decision[EXITS])
    at, classes = whole(observation[ANSWERED_AT]), prediction_at(exits)
    weight = 1.0
    if observation[OFFLOADED] == 0.0:
        if decision[AUDIT] != 1.0:
            return 0.0
        weight = 1.0 / decision[P_REVEAL]
    if at == exits:
        return 0.0
    own, final = observation[classes + at - 1], observation[classes + exits - 1]
    return 0.0 if own == final and own >= 0.0 else weight


@kernel
def show(state: FloatArray, decision: FloatArray, observation: FloatArray) -> int:
    """Turn both rows into the inner policy's own decision and what that would have revealed, until `put_back`.

    Returns LOST, with nothing changed, where its outcome is not known; PLAIN, where the observation is as it was; or
    CHANGED, where it was kept in the state.
    """
    free, exits, cut = whole(state[FREE]), whole(decision[EXITS]), whole(decision[CUT])
    inner = state[start_of(state, 0) :]
    play = whole(state[free + PARAMETERS + whole(decision[PLAY])])
    early = cut > 0 and cut < exits
    own, threshold, raised = 0.0, 0.0, False
    if early:
        own, rule = observation[CONFIDENCE + cut - 1], thresholds_at(exits) + cut - 1
        threshold = inner[HEADER + 2 * whole(inner[COUNT]) + play]
        raised = threshold < decision[rule]
        if raised and observation[OFFLOADED] == 1.0 and not own >= 0.0:
            return LOST
        decision[rule] = threshold
    kept = start_of(state, 0) - KEPT - prediction_at(exits) - exits
    state[kept], state[kept + 1], state[kept + 2] = decision[PLAY], decision[AUDIT], decision[P_REVEAL]
    sees_audits = decision[P_REVEAL] > state[free + CHANCE]  # audits of its own: then it learns from all of them
    audited = decision[AUDIT] == 1.0 and not sees_audits
    decision[ARM], decision[PLAY] = inner[HEADER + play], play
    if early and not sees_audits:
        decision[AUDIT] = 0.0
        decision[P_REVEAL] = 0.0
    if not (early and (raised or audited)):
        return PLAIN
    for i in range(prediction_at(exits) + exits):
        value = observation[i]
        state[kept + KEPT + i] = value if value >= 0.0 else -1.0
    if observation[OFFLOADED] == 1.0 and own < threshold:
        if observation[CONFIDENCE + exits - 1] >= threshold:  # sure enough for the lower threshold: nothing to doubt
            observation[ANSWERED_AT] = exits
    elif observation[OFFLOADED] == 1.0 or audited:
        if observation[OFFLOADED] == 1.0:
            observation[ANSWERED_AT] = cut
        observation[OFFLOADED] = 0.0
        observation[AUDITED] = 0.0
        observation[OFFLOAD_PAID] = math.nan
        for j in range(cut, exits if state[free + ORACLE] == 0.0 else cut):
            observation[CONFIDENCE + j] = math.nan
            observation[CONFIDENCE + exits + j] = -1.0
    return CHANGED


@kernel
def put_back(state: FloatArray, decision: FloatArray, observation: FloatArray, shown: int) -> None:
    """Make both rows what they were before `show`."""
    exits, cut, arms = whole(decision[EXITS]), whole(decision[CUT]), whole(state[COUNT])
    classes = prediction_at(exits)
    kept = start_of(state, 0) - KEPT - classes - exits
    pair = whole(state[kept])
    decision[ARM], decision[PLAY] = state[HEADER + pair], pair
    decision[AUDIT], decision[P_REVEAL] = state[kept + 1], state[kept + 2]
    if cut > 0 and cut < exits:
        decision[thresholds_at(exits) + cut - 1] = state[HEADER + 2 * arms + pair]
    if shown == CHANGED:
        for i in range(classes + exits):
            value = state[kept + KEPT + i]
            observation[i] = value if value >= 0.0 or i >= classes else math.nan


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_floored(state: FloatArray, row: FloatArray) -> None:
        free = whole(state[FREE])
        at = start_of(state, 0)
        inner = state[at : at + whole(state[free + LENGTH])]
        enter(state, inner)
        select(inner, row)
        audit, seen = row[AUDIT], row[P_REVEAL]
        choose(state, row, floored(state, whole(row[PLAY])), row[P_ACTION])
        chance = state[free + CHANCE]
        mine = uniform(state) < chance
        if row[CUT] > 0.0 and row[CUT] < row[EXITS]:
            row[AUDIT] = 1.0 if mine else audit
            row[P_REVEAL] = chance if seen == 0.0 else 1.0 - (1.0 - seen) * (1.0 - chance)

    @kernel
    def update_floored(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        free = whole(state[FREE])
        error = disagreement(decision, observation)
        state[free + FLOOR] = moved(state[free + FLOOR], error, state[free + TARGET], state[free + RATE])
        shown = show(state, decision, observation)
        if shown != LOST:
            at = start_of(state, 0)
            update(state[at : at + whole(state[free + LENGTH])], decision, observation)
            put_back(state, decision, observation, shown)

    @kernel
    def forget_floored(state: FloatArray, factor: float) -> None:
        at = start_of(state, 0)
        state[T] *= factor
        forget(state[at : at + whole(state[whole(state[FREE]) + LENGTH])], factor)

    return Kernels.of(select_floored, update_floored, forget_floored)


@dataclass(frozen=True, kw_only=True)
class ConformalFloor(Wrapper):
    r"""Holds down the share of requests that get an early answer other than the final exit's, under drift, unlabelled.

    With :math:`A_t` = 1 where the edge answers before the last exit, :math:`D_t` = 1 where that answer differs from the
    last exit's, and :math:`R_t` = 1 where this is revealed, by an audit drawn with probability q before anything is
    seen, the error of a round is estimated by :math:`Z_t = A_t D_t R_t / q`, whose mean is that of :math:`A_t D_t`: one
    minus the agreement that a trace reports, and the consistency loss of `offramp.bandits.risk`.  The floor moves by

    .. math:: \theta_{t+1} = \max(\theta_t + \eta (Z_t - \epsilon), 0),

    and an arm whose threshold lies below it is played at the next threshold of the table at the same cut that does not.
    Above 1 nothing is answered early, so that for every sequence whatsoever

    .. math:: \frac1T \sum_{t \le T} Z_t \le \epsilon + \frac{1 + \eta / q - \theta_1}{\eta T}.

    Parameters
    ----------
    policy
        Whom the floor is put under: any policy that plays arms of the table.
    target
        :math:`\epsilon`, largest long-run share of requests with a disagreeing early answer, in (0, 1).
    rate
        :math:`\eta`, step of the floor in units of confidence, finite, > 0: large follows drift fast and swings wide.
        An error that is seen lifts the floor by rate / audit.
    audit
        q, probability of offloading an early answer's sample as well, in (0, 1].  Each audit pays the offload.
    start
        :math:`\theta_1`, the first floor, in [0, 1]; one chosen by `offramp.bandits.risk.threshold`, say.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arms, Engine, Quote
    >>> from offramp.bandits.conformal_floor import ConformalFloor
    >>> engine = Engine(ConformalFloor(policy=UCB1(), start=0.75), arms=Arms.grid(exits=2), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> decision.cut, decision.threshold, decision.p_reveal
    (1, 0.8, 0.1)

    Notes
    -----
    Gibbs and Candès (NeurIPS 2021).  There the error is seen in every round and the bound has two sides; here it is
    seen on audits, and the floor rests at 0: a policy that offloads more than it must is left alone, and the floor does
    not sink out of reach meanwhile.  The bound is then from above alone.  Each decision that was open when the floor
    passed 1 adds at most 1 / (q T) to it.  It bounds the estimates; they scatter around the disagreements themselves by
    about :math:`\sqrt{\epsilon / (q T)}`.

    Ordinary offloads show the final exit too, but only of samples below the threshold: they tell nothing about those
    that are answered, and are not used (but for answers of the world's fallback, whose disagreement they show).

    The inner policy is shown its own arm and what that arm would have revealed, which a higher threshold always tells.
    So it learns bit for bit what it would learn without a floor (if it draws no random numbers, and in a world without
    the fallback), and no arm starves; but it values its arms as if there were no floor.  A policy that audits by itself
    also sees the audits of the floor, at the probability of both.

    Its table of arms cannot change while it runs: `Engine.change` refuses it, since an arm that comes or goes would
    change what every lower one is lifted to.  Start an engine anew at the floor that was reached (`start`).

    PLAY counts pairs of an inner arm and an arm that it is played as.  `p_action` is what the inner policy says: of one
    that draws its arm, a lower bound where the floor lifts several of its arms to the same one.

    """

    policy: Policy
    target: float = 0.05
    rate: float = 0.005
    audit: float = 0.1
    start: float = 0.0

    def __post_init__(self) -> None:
        for name, value, allowed, fits in (
            ("target", self.target, "a number in (0, 1)", 0.0 < self.target < 1.0),
            ("rate", self.rate, "a finite number > 0", 0.0 < self.rate < math.inf),
            ("audit", self.audit, "a number in (0, 1]", 0.0 < self.audit <= 1.0),
            ("start", self.start, "a number in [0, 1]", 0.0 <= self.start <= 1.0),
        ):
            if not fits:
                raise ValueError(f"{name} is {value}, allowed is {allowed}")
        wrappable(self.policy)

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget)

    def plays(self, arms: Arms) -> list[Arm]:
        """Of each inner arm, itself and every higher threshold at its cut: one entry for each pair, so arms repeat.

        Raises
        ------
        ValueError
            The table has no threshold +inf at a cut of the inner policy: there the floor could not stop early answers;
            or the inner policy plays cascades, or lists arms more than once, as another floor does.

        """
        return [arms[index] for _, index in self._pairs(arms)]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """The inner policy's first state behind the floor's own numbers."""
        inner = bare(self.policy, arms, features)
        pairs = self._pairs(arms)
        of, count = [play for play, _ in pairs], whole(inner[COUNT])
        state = around(
            inner,
            table=np.array([(i, arms[i].cut, arms[i].threshold) for _, i in pairs]),
            parameters=(self.start, self.target, self.rate, self.audit, float(self.oracle_side_information)),
            extra=len(pairs) + count + KEPT + prediction_at(arms.exits) + arms.exits,
            draws=1,
        )
        at = whole(state[FREE]) + PARAMETERS
        state[at : at + len(pairs)] = of
        state[at + len(pairs) : at + len(pairs) + count] = [of.index(play) for play in range(count)]
        return state

    def _pairs(self, arms: Arms) -> list[tuple[int, int]]:
        """(index among the inner policy's arms, index in the table) of each pair, in the table's order."""
        table = self.policy.plays(arms)
        mine = [arms[int(i)] for i in arms.part(table)[:, 0]]
        if len(set(table)) < len(table):
            raise ValueError(
                f"policy is {self.policy!r}, which lists arms more than once, allowed is one that lists each once: "
                "a floor holds no other floor, give one floor the stricter target"
            )
        offered = {arm.cut for arm in arms.single if arm.threshold == math.inf}
        for arm in mine:
            if arm.early:
                raise ValueError(
                    f"policy plays {arm}, allowed are arms without early thresholds: the floor lifts one alone"
                )
            if 0 < arm.cut < arms.exits and arm.cut not in offered:
                raise ValueError(
                    f"cut {arm.cut} has no threshold inf in the table of arms, allowed is a table that has one at each "
                    "cut that the policy plays: without it the floor cannot stop early answers"
                )
        return [
            (play, index)
            for play, own in enumerate(mine)
            for index, arm in enumerate(arms.table)
            if arm.cut == own.cut and arm.threshold >= own.threshold and not arm.early
        ]
