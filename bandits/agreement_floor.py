"""A floor under any policy's agreement with the final exit: mu sinks as the answers drift away from it."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from offramp.bandits.arms import Arms
from offramp.bandits.conformal_floor import disagreement
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, count, enter, start_of, wrappable
from offramp.bandits.nested import PARAMETERS as NESTED
from offramp.bandits.pacing import (
    DUAL,
    FIELDS,
    KEY,
    RESERVED,
    SLOTS,
    TURNED,
    remember,
    sends_surely,
    slot,
    turn,
)
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rearm import renested
from offramp.bandits.rows import (
    ANSWERED_AT,
    AUDIT,
    AUDITED,
    COSTS,
    CUT,
    EXITS,
    MU,
    OFFLOADED,
    P_ACTION,
    P_REVEAL,
    PLAY,
    ROUND,
    FloatArray,
)
from offramp.bandits.state import ARMS, FREE, HEADER, T, own, uniform

ALLOWED, CAPACITY, CHANCE, KEPT, LEVEL, TURNS, WEIGHT, SQUARE, SUM, SUM_SQUARE, KNOWN = range(NESTED, NESTED + 11)
PARAMETERS = NESTED + 11


class Agreement(NamedTuple):
    """Share of answers that are the final exit's, estimated without labels."""

    estimate: float  # nan before anything came back
    standard_error: float
    known: int  # answers of which it is known: audited, offloaded, or given by the final exit


@kernel
def sunk(state: FloatArray) -> float:
    """The share of mu that is left: 1 with a full bucket, 0 from a half-empty one on."""
    free = whole(state[FREE])
    return min(max(2.0 * state[free + LEVEL] / state[free + CAPACITY] - 1.0, 0.0), 1.0)  # type: ignore[no-any-return]


@kernel
def surest(state: FloatArray, row: FloatArray) -> int:
    """Of the arms that always serve the final exit's answer the one that costs least; ties: the lowest."""
    exits, arms = whole(row[EXITS]), whole(state[ARMS])
    best, least = -1, math.inf
    for a in range(arms):
        cut = whole(state[HEADER + arms + a])
        if sends_surely(state, a):
            cost = row[COSTS + cut] + row[COSTS + exits + 1 + cut]
            if best < 0 or cost < least:
                best = a
                least = cost
    return best


@kernel
def pay(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Pay for what was found out, and move the estimate by it."""
    free = whole(state[FREE])
    found = disagreement(decision, observation)
    allowed, capacity = state[free + ALLOWED], state[free + CAPACITY]
    state[free + LEVEL] = max(state[free + LEVEL] + (allowed - found), -capacity - 1.0 / state[free + CHANCE])
    state[free + LEVEL] = min(state[free + LEVEL], capacity)
    kept = state[free + KEPT]
    state[free + WEIGHT] = kept * state[free + WEIGHT] + 1.0
    state[free + SQUARE] = kept * kept * state[free + SQUARE] + 1.0
    state[free + SUM] = kept * state[free + SUM] + found
    state[free + SUM_SQUARE] = kept * state[free + SUM_SQUARE] + found * found
    if observation[OFFLOADED] + observation[AUDITED] > 0.0 or observation[ANSWERED_AT] == decision[EXITS]:
        state[free + KNOWN] += 1.0


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_agreeing(state: FloatArray, row: FloatArray) -> None:
        free = whole(state[FREE])
        at = start_of(state, 0)
        inner = state[at : at + whole(state[free + LENGTH])]
        enter(state, inner)
        mine = uniform(state) < state[free + CHANCE]
        mu, share, turned = row[MU], sunk(state), 0.0
        row[MU] = mu * share
        select(inner, row)
        row[MU] = mu
        cut, drawn = whole(row[CUT]), row[P_ACTION]
        if state[free + LEVEL] <= 0.0:
            turn(state, row, surest(state, row))
            row[P_ACTION] = 1.0  # whatever the inner policy would have drawn
            turned = 1.0
            state[free + TURNS] += 1.0
        elif cut > 0 and cut < whole(row[EXITS]):
            chance, seen = state[free + CHANCE], row[P_REVEAL]
            if mine:
                row[AUDIT] = 1.0
            row[P_REVEAL] = chance if seen == 0.0 else 1.0 - (1.0 - seen) * (1.0 - chance)
        remember(state, slot(own(state, PARAMETERS, 0), row[ROUND]), row[ROUND], share, turned, drawn)
        count(state)

    @kernel
    def update_agreeing(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        at = slot(own(state, PARAMETERS, 0), decision[ROUND])
        share, untaught = sunk(state), decision[P_REVEAL] == 0.0 and sends_surely(state, whole(decision[PLAY]))
        if state[at + KEY] == decision[ROUND] + 1.0:
            share, untaught = state[at + DUAL], state[at + TURNED] == 1.0 and state[at + RESERVED] < 1.0
            state[at + KEY] = 0.0
        pay(state, decision, observation)
        if not untaught:
            mu = decision[MU]
            decision[MU] = mu * share
            inner = start_of(state, 0)
            update(state[inner : inner + whole(state[whole(state[FREE]) + LENGTH])], decision, observation)
            decision[MU] = mu

    @kernel
    def forget_agreeing(state: FloatArray, factor: float) -> None:
        free = whole(state[FREE])
        state[T] *= factor
        state[free + WEIGHT] *= factor
        state[free + SQUARE] *= factor * factor
        state[free + SUM] *= factor
        state[free + SUM_SQUARE] *= factor
        inner = start_of(state, 0)
        forget(state[inner : inner + whole(state[free + LENGTH])], factor)

    return Kernels.of(select_agreeing, update_agreeing, forget_agreeing)


@dataclass(frozen=True, kw_only=True)
class AgreementFloor(Wrapper):
    r"""Keeps the share of answers that are the final exit's above a floor, without labels, whatever the policy inside.

    With probability q, drawn before anything is seen, a sample is offloaded although the edge answers.  In a round the
    disagreement :math:`Z_t` is 1/q where such an audit shows another class than the one that was served, else 0; its
    mean is that of the disagreements.  A bucket of c disagreements gains :math:`1 - f` (f is the floor) with each
    feedback, and pays :math:`Z_t`.  Between full and half full, the mu that the inner policy sees sinks from the quoted
    one to 0.  If even that is not enough and the bucket is empty, the cheapest arm that always serves the final exit's
    answer is played until it is not.  So for every stream, if feedback comes before the next decision, any n rounds in
    a row have

    .. math:: \sum Z_t \le n (1 - f) + c + 1/q .

    Parameters
    ----------
    policy
        Whose answers are watched: any policy that plays arms of the table, one of which never answers early.
    floor
        f, least share of answers that are the final exit's, in (0, 1).
    audit
        q, probability of an audit of an early answer, in (0, 1].  Each audit pays the offload.
    burst
        c, disagreements that the bucket holds, > 0: 20 is 1 % of 2,000 rounds.
    rounds
        Rounds that the estimate remembers, >= 1.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arms, Engine, Observation, Quote
    >>> from offramp.bandits.agreement_floor import AgreementFloor, agreement
    >>> engine = Engine(AgreementFloor(policy=UCB1(), floor=0.9), arms=Arms.grid(exits=2), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> decision.p_reveal
    0.1
    >>> seen = Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False)
    >>> engine.update(decision, seen)
    True
    >>> agreement(engine.state())
    Agreement(estimate=1.0, standard_error=5.0, known=0)

    Notes
    -----
    The bound is on the estimates, which scatter around the disagreements by about :math:`\sqrt{(1 - f) n / q}` in n
    rounds: frequent audits follow closely and cost much.  `ConformalFloor` bounds the same estimates by raising
    thresholds; it is the finer tool where mu is given, this one where mu is what should give way.  One may be put
    inside the other.  An audit that did not tell, since the cloud's answer was lost, counts as a disagreement.

    The inner policy sees the audits, at the probability of both.  It is taught what the played arm did, at the mu of
    its round, unless it drew an arm and another came in its place (or may have, more than 512 rounds ago).

    """

    policy: Policy
    floor: float = 0.95
    audit: float = 0.1
    burst: float = 20.0
    rounds: float = 2_000.0

    def __post_init__(self) -> None:
        wrappable(self.policy)
        for name, value, allowed, fits in (
            ("floor", self.floor, "a number in (0, 1)", 0.0 < self.floor < 1.0),
            ("audit", self.audit, "a number in (0, 1]", 0.0 < self.audit <= 1.0),
            ("burst", self.burst, "a finite number > 0", 0.0 < self.burst < math.inf),
            ("rounds", self.rounds, "a finite number >= 1", 1.0 <= self.rounds < math.inf),
        ):
            if not fits:
                raise ValueError(f"{name} is {value}, allowed is {allowed}")

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget)

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """The inner policy's first state behind a full bucket.

        Raises
        ------
        ValueError
            Every arm of the policy may answer early.

        """
        kept = 1.0 - 1.0 / self.rounds
        state = around(
            bare(self.policy, arms, features),
            parameters=(1.0 - self.floor, self.burst, self.audit, kept, self.burst, *[0.0] * 6),
            extra=FIELDS * SLOTS,
            draws=1,
        )
        if not any(sends_surely(state, a) for a in range(whole(state[ARMS]))):
            raise ValueError(
                f"policy is {self.policy!r}, allowed is one that plays an arm by which the final exit always answers"
            )
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """Another table for the inner policy, with the same bucket; see `offramp.bandits.rearm`."""
        return renested(self, self.policy, state, before, after, features)


def agreement(state: FloatArray) -> Agreement:
    """The agreement with the final exit in recent rounds, as a state knows it (see `Engine.state`).

    The standard error is that of the weighted mean with one more disagreement counted than was found: it never says 0.
    """
    free = whole(state[FREE])
    weight, square, total, squares = (float(state[free + i]) for i in (WEIGHT, SQUARE, SUM, SUM_SQUARE))
    if weight == 0.0:
        return Agreement(math.nan, math.nan, 0)
    one = 1.0 / float(state[free + CHANCE])
    mean = (total + one) / (weight + 1.0)
    variance = (squares + one * one) / (weight + 1.0) - mean * mean
    error = math.sqrt(variance * square) / weight
    return Agreement(1.0 - total / weight, error, int(state[free + KNOWN]))
