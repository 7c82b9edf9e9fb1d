"""A ceiling on what any policy spends: its price follows a bucket of tokens, and an empty bucket forbids."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.nested import LENGTH, Wrapper, around, bare, count, enter, start_of, wrappable
from offramp.bandits.pacing import (
    DUAL,
    FIELDS,
    KEY,
    RESERVED,
    SLOTS,
    TURNED,
    keep_prices,
    remember,
    restore_prices,
    slot,
    turn,
    without_audit,
)
from offramp.bandits.policy import Forget, Kernels, Policy, positive
from offramp.bandits.rearm import renested
from offramp.bandits.rows import (
    CUT,
    EXITS,
    P_ACTION,
    P_REVEAL,
    PLAY,
    ROUND,
    FloatArray,
    context_at,
)
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, own
from offramp.bandits.uses import (
    CAPACITY,
    CEILING,
    COLUMNS,
    CONTEXT,
    GAIN,
    IN,
    LEVEL,
    LISTED,
    OFFLOADS,
    OUT,
    PARAMETERS,
    SHORT,
    TRIED,
    TURNS,
    affordable,
    charge,
    edge_use,
    offload_use,
    prices_at,
    ring_at,
    settle,
    substitute,
    worst,
)

OF = ("cost", "offloads", "latency", "energy")


class Spending(NamedTuple):
    """Where a budget stands."""

    left: float  # tokens, in units of use; below 0 is debt
    dual: float  # reward that one unit of use costs the inner policy on top of its price
    replaced: int  # decisions in which another arm was played than the inner policy chose
    short: int  # decisions for which no arm was cheap enough


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels around an inner policy's; the same ones give the same back, and are compiled once in a process."""

    @kernel
    def select_paced(state: FloatArray, row: FloatArray) -> None:
        free = whole(state[FREE])
        ceiling, capacity = state[free + CEILING], state[free + CAPACITY]
        level = min(state[free + LEVEL] + ceiling, capacity)
        state[free + LEVEL] = level
        dual = state[free + GAIN] * min(capacity - level, capacity) / (ceiling * ceiling)
        at = start_of(state, 0)
        inner = state[at : at + whole(state[free + LENGTH])]
        enter(state, inner)
        keep_prices(state, prices_at(state), row)
        charge(state, row, dual)
        select(inner, row)
        restore_prices(state, prices_at(state), row)
        row[PLAY] = state[own(state, PARAMETERS, OUT) + whole(row[PLAY])]
        turned = 0.0
        if row[P_REVEAL] > 0.0:
            cut = whole(row[CUT])
            if not affordable(state, edge_use(state, row, cut) + offload_use(state, row, cut)):
                without_audit(row)  # whether or not it was drawn: its probability is zero now
        if not affordable(state, worst(state, row)):
            play = substitute(state, row, dual)
            turned = 1.0 if play != whole(row[PLAY]) else 0.0
            turn(state, row, play)
            state[free + TURNS] += turned
            if not affordable(state, worst(state, row)):
                state[free + SHORT] += 1.0
        reserved = worst(state, row)
        if reserved < math.inf:
            state[free + LEVEL] = max(level - reserved, -capacity - reserved)
        else:
            reserved = 0.0
        remember(state, slot(ring_at(state), row[ROUND]), row[ROUND], dual, turned, reserved)
        count(state)

    @kernel
    def update_paced(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        free = whole(state[FREE])
        ceiling, capacity = state[free + CEILING], state[free + CAPACITY]
        at = slot(ring_at(state), decision[ROUND])
        known = state[at + KEY] == decision[ROUND] + 1.0
        # A round that is remembered no more is settled as nearly as the decision itself tells.
        dual = state[free + GAIN] * min(capacity - state[free + LEVEL], capacity) / (ceiling * ceiling)
        reserved, turned = worst(state, decision), decision[P_ACTION] < 1.0
        reserved = reserved if reserved < math.inf else 0.0
        if known:
            dual, reserved, turned = state[at + DUAL], state[at + RESERVED], state[at + TURNED] == 1.0
            state[at + KEY] = 0.0
        settle(state, decision, observation, reserved)
        play = decision[PLAY]
        theirs = state[own(state, PARAMETERS, IN) + whole(play)]
        if theirs >= 0.0 and not (turned and decision[P_ACTION] < 1.0):
            keep_prices(state, prices_at(state), decision)
            charge(state, decision, dual)
            decision[PLAY] = theirs
            inner = start_of(state, 0)
            update(state[inner : inner + whole(state[free + LENGTH])], decision, observation)
            decision[PLAY] = play
            restore_prices(state, prices_at(state), decision)

    @kernel
    def forget_paced(state: FloatArray, factor: float) -> None:
        state[T] *= factor
        record = own(state, PARAMETERS, TRIED)
        for a in range(whole(state[ARMS])):
            if state[record + a] > 0.0:
                state[record + a] = max(state[record + a] * factor, FADED)
        inner = start_of(state, 0)
        forget(state[inner : inner + whole(state[whole(state[FREE]) + LENGTH])], factor)

    return Kernels.of(select_paced, update_paced, forget_paced)


@dataclass(frozen=True, kw_only=True)
class Budget(Wrapper):
    r"""Keeps the mean use of something under a ceiling, whatever the policy inside would like to spend.

    A bucket gains :math:`b` tokens (the ceiling) before each decision and holds at most :math:`c b`.  A decision sets
    aside the most that it can use, which is known before acting, and its feedback gives back what was not used.  The
    inner policy sees prices that are dearer by

    .. math:: \lambda_t = \kappa \frac{c b - B_t}{b^2}

    for each unit of use, where :math:`B_t` are the tokens left: the bucket's emptiness is the dual variable.  No arm is
    played for which there are not enough tokens; in its place comes, among those there are enough for, the one whose
    recent confidence less all prices is the largest.  So for every stream, if feedback comes before the next decision
    and some arm never needs more than b, any n decisions in a row use at most

    .. math:: n b + c b .

    Parameters
    ----------
    policy
        Whose spending is paced: any policy that plays arms of the table.
    ceiling
        b, largest mean use of a decision, > 0.
    of
        "cost" (edge and offload, as quoted), "offloads" (their share, audits included), "latency" or "energy" (as
        `edge_use` and `offload_use`, or the context, say; both names mean the same sum in other units).
    edge_use, offload_use
        Milliseconds or millijoules of computing up to each cut, and of an offload from it, (L + 1,) each, finite,
        >= 0; the last of the offloads is 0.  For "latency" and "energy".
    uses_at
        In their place, for links that change: the context feature from which on each request says the same numbers,
        2 (L + 1) of them.  Those below 0 count as 0.
    burst
        c, rounds of use that the bucket holds, >= 1; 100 keeps 2,000 rounds within 5 %.
    gain
        :math:`\kappa`, reward that b costs on top when one round's use is missing from the bucket, finite, >= 0; 0
        leaves the pace to the bucket alone.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arms, Engine, Quote
    >>> from offramp.bandits.budget import Budget, spending
    >>> engine = Engine(Budget(policy=UCB1(), ceiling=0.3, of="offloads"), arms=Arms.grid(exits=2), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> spending(engine.state())  # the first arm never offloads
    Spending(left=30.0, dual=0.0, replaced=0, short=0)

    Notes
    -----
    Primal-dual pacing as for bandits with knapsacks (Badanidiyuru, Kleinberg, Slivkins 2013; Agrawal and Devanur 2014)
    and as ParetoBandit does it for prompts (2026), reconstructed; that the queue itself is the price is Neely's
    drift-plus-penalty (2010).  There budgets hold for a horizon, and a price alone overshoots after every change; here
    they hold for every window, by the bucket.

    Where one decision needs more than the whole bucket, it is played from a full one, and the debt is paid off before
    the next.  Feedback that comes up to D decisions late can add D times the largest reserve to the bound; feedback
    that never comes is settled as the worst case.  If no arm is cheap enough, the one that can use least is played,
    debts beyond the bucket's size are forgiven, and `spending` counts it as short: a ceiling below the cheapest arm is
    approached as nearly as can be.  Where uses are known beforehand, such a ceiling is refused.

    The inner policy is taught what the played arm did, at the prices of its round, unless it drew an arm and another
    came in its place: then the draw's probability would be wrong.  `p_action` of an arm in place of others is a lower
    bound.  An audit that cannot be paid for is not made, and has probability 0.  Of two budgets, one inside the other,
    that of the cost comes outside: the others write their price into the costs.

    """

    policy: Policy
    ceiling: float
    of: str = "cost"
    edge_use: tuple[float, ...] | None = None
    offload_use: tuple[float, ...] | None = None
    uses_at: int | None = None
    burst: float = 100.0
    gain: float = 0.02

    def __post_init__(self) -> None:
        wrappable(self.policy)
        positive("ceiling", self.ceiling, zero=False)
        positive("gain", self.gain)
        if self.of not in OF:
            raise ValueError(f"of is {self.of!r}, allowed are {OF}")
        if not 1.0 <= self.burst < math.inf:
            raise ValueError(f"burst is {self.burst}, allowed is a finite number >= 1")
        for name in ("edge_use", "offload_use"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
                for x in getattr(self, name):
                    positive(name, x)
        listed = (self.edge_use is not None) + (self.offload_use is not None)
        if self.of in OF[:2]:
            fits = listed == 0 and self.uses_at is None
        else:
            fits = (listed == 2 and self.uses_at is None) or (listed == 0 and self.uses_at is not None)
        if not fits or (self.uses_at is not None and self.uses_at < 0):
            raise ValueError(
                f"of is {self.of!r} with edge_use {self.edge_use}, offload_use {self.offload_use} and uses_at "
                f"{self.uses_at}, allowed are both uses or a place >= 0 for latency and energy, none for the others"
            )
        if self.offload_use and (self.edge_use is None or len(self.edge_use) != len(self.offload_use)):
            raise ValueError("edge_use and offload_use differ in length, allowed is (L + 1,) for both")
        if self.offload_use and self.offload_use[-1] != 0.0:
            raise ValueError(f"offload_use of the last cut is {self.offload_use[-1]}, allowed is 0: nothing is sent")
        if isinstance(self.policy, Budget) and self.policy.of == "cost" != self.of:
            raise ValueError(f"of is {self.of!r} around a budget of the cost, allowed is the cost's budget outside")

    @property
    def kernels(self) -> Kernels:
        """Those of this file around the inner policy's."""
        inner = self.policy.kernels
        return kernels_of(inner.select, inner.update, inner.forget)

    def plays(self, arms: Arms) -> list[Arm]:
        """Those of the inner policy, and all arms of the table that never offload, to take over from them."""
        theirs = self.policy.plays(arms)
        return theirs + [arm for arm in arms.single if arm.cut > 0 and arm.threshold <= 0.0 and arm not in theirs]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """The inner policy's first state behind a full bucket.

        Raises
        ------
        ValueError
            No arm keeps the ceiling, or the uses do not fit the network.

        """
        cuts = arms.exits + 1
        edge, offload = np.array(self.edge_use or np.zeros(cuts)), np.array(self.offload_use or np.zeros(cuts))
        kind = OF.index(self.of)
        if kind > OFFLOADS:
            kind = LISTED if self.uses_at is None else CONTEXT
        if len(edge) != cuts:
            raise ValueError(f"edge_use has {len(edge)} values, allowed are {cuts}: one for each cut")
        if self.uses_at is not None and self.uses_at + 2 * cuts > features:
            raise ValueError(
                f"uses_at is {self.uses_at} with {features} context features, allowed is a place with {2 * cuts} behind"
            )
        inner = bare(self.policy, arms, features)
        theirs = inner[HEADER : HEADER + 3 * whole(inner[ARMS])].reshape(3, -1).T
        more = arms.part(self.plays(arms))
        table = np.concatenate([theirs, more[~np.isin(more[:, 0], theirs[:, 0])]])
        order = (
            np.argsort(table[:, 0], kind="stable") if len(set(theirs[:, 0])) == len(theirs) else np.arange(len(table))
        )
        before = COLUMNS * len(table) + FIELDS * SLOTS + 1 + 2 * cuts
        capacity = self.burst * self.ceiling
        state = around(
            inner,
            parameters=(self.ceiling, capacity, self.gain, kind, self.uses_at or 0, capacity, 0.0, 0.0),
            extra=before + 2 * cuts,
            table=table[order],
        )
        out, into = own(state, PARAMETERS, OUT), own(state, PARAMETERS, IN)
        for here, there in enumerate(order.tolist()):
            state[into + here] = there if there < len(theirs) else -1.0
            state[out + there] = here
        at = whole(state[FREE]) + PARAMETERS + before
        state[at : at + 2 * cuts] = *edge, *offload
        if kind in (OFFLOADS, LISTED):
            row = np.zeros(context_at(arms.exits) + features)
            row[EXITS] = arms.exits
            need = []
            for a in range(whole(state[ARMS])):
                turn(state, row, a)
                need.append(worst(state, row))
            if min(need) > self.ceiling:
                raise ValueError(
                    f"ceiling is {self.ceiling}, allowed is {min(need):g} or more: every arm may need as much"
                )
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """Another table for the inner policy, with the same bucket; see `offramp.bandits.rearm`."""
        new = renested(self, self.policy, state, before, after, features, columns=COLUMNS)
        first = self.initial(after, features)
        for column in (OUT, IN):
            at = own(new, PARAMETERS, column)
            new[at : at + whole(new[ARMS])] = first[at : at + whole(new[ARMS])]
        return new


def spending(state: FloatArray) -> Spending:
    """Where the budget of a state stands, as `Engine.state` shows it."""
    free = whole(state[FREE])
    ceiling, capacity, level = (float(state[free + i]) for i in (CEILING, CAPACITY, LEVEL))
    dual = float(state[free + GAIN]) * min(capacity - level, capacity) / ceiling**2
    return Spending(level, dual, int(state[free + TURNS]), int(state[free + SHORT]))
