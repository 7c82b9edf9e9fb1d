"""ChainUCB: cut and thresholds of all exits on the way, learnt jointly from all that a decision reveals."""

import math
from dataclasses import dataclass

from offramp.bandits import exit_chain, two_window
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.exit_chain import (
    BINS,
    CHAIN,
    RULE,
    SIGHTS,
    age,
    faded,
    field,
    hope,
    learn_request,
    lost,
    scale,
    surprise,
    value_of,
)
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh, positive
from offramp.bandits.rearm import carry
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import (
    AUDIT,
    CONFIDENCE,
    COSTS,
    CUT,
    MU,
    OFFLOADED,
    P_REVEAL,
    FloatArray,
    thresholds_at,
)
from offramp.bandits.state import ARMS, EXITS, FREE, HEADER, T, choose, pack, uniform
from offramp.bandits.two_window import TwoWindow

PARAMETERS = CHAIN + 15
(
    GROWTH,
    KEEP,
    CHANCE,
    SPEND,
    EVERY,
    TOLERANCE,
    SINCE,
    PLANNED,
    DIRECT,
    DIRECTLY,
    LOOKS,
    PRICED,
    RULES,
    CONFIDENCES,
    RESIDUALS,
) = range(CHAIN, PARAMETERS)
TABLE = -1.0  # the rules that are played stand in no table of arms
ENOUGH = 100.0  # requests seen at exit 1 after an alarm, before the input may be sent again
STALE = 1e300  # rounds since the last plan, of a plan that no longer holds


@kernel
def apart(now: float, planned: float, tolerance: float) -> bool:
    """Do two prices differ by more than a share of the smaller one?  Any two do where one of them is 0 or infinite."""
    if now == planned:
        return False
    gap = abs(now - planned)
    return gap == math.inf or gap > tolerance * min(now, planned)


@kernel
def repriced(state: FloatArray, row: FloatArray) -> bool:
    """Is this quote too far from the one that was planned for?"""
    free, exits = whole(state[FREE]), whole(row[0])
    at, tolerance = whole(state[free + PRICED]), state[free + TOLERANCE]
    changed = apart(row[MU], state[at], tolerance)
    for i in range(2 * exits + 2):
        changed = changed or apart(row[COSTS + i], state[at + 1 + i], tolerance)
    return changed


@kernel
def value_of_input(state: FloatArray, row: FloatArray, total: float) -> float:
    """Expected reward of sending the input: what the last exit says of it, seen directly or through exit 1."""
    free = whole(state[FREE])
    bins = whole(state[free + BINS])
    sights, upper = field(state, SIGHTS), field(state, exit_chain.HOPE)
    direct = state[free + DIRECT]
    sum_ = direct * state[free + DIRECTLY]
    for b in range(bins):
        sum_ += state[sights + b] * state[upper + b]
    price = lost(row[MU], row[COSTS + whole(row[0]) + 1])
    return (sum_ / (direct + total) if direct + total > 0.0 else 1.0) - price


@kernel
def plan(state: FloatArray, row: FloatArray) -> None:
    """Value every cut at this quote, and keep the best one with its thresholds; ties go to the deepest."""
    free, arms, exits = whole(state[FREE]), whole(state[ARMS]), whole(state[EXITS])
    total = hope(state)
    rule, kept = field(state, RULE), whole(state[free + RULES])
    highest = -math.inf
    for p in range(arms):
        cut = whole(state[HEADER + arms + p])
        if cut == 0 and arms > 1 and state[free + LOOKS] > 0.0:
            continue
        value = value_of_input(state, row, total) if cut == 0 else value_of(state, row, cut, total)
        if value >= highest:
            highest = value
            state[free + PLANNED] = p
            for j in range(exits):
                state[kept + j] = state[rule + j] if cut > 0 else math.inf
    state[free + SINCE] = 0.0
    at = whole(state[free + PRICED])
    state[at] = row[MU]
    for i in range(2 * exits + 2):
        state[at + 1 + i] = row[COSTS + i]


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """The planned cut and thresholds; a new plan every few decisions, and whenever the quote is quite another."""
    free, exits = whole(state[FREE]), whole(state[EXITS])
    state[free + SINCE] += 1.0
    if repriced(state, row) or state[free + SINCE] >= state[free + EVERY]:
        plan(state, row)
    choose(state, row, whole(state[free + PLANNED]), 1.0)
    rule, kept = thresholds_at(exits), whole(state[free + RULES])
    for j in range(exits):
        row[rule + j] = state[kept + j]
    if state[free + CHANCE] > 0.0:
        drawn = uniform(state)
        price = row[COSTS + exits + 1 + whole(row[CUT])]
        if row[CUT] > 0.0 and row[CUT] < exits and price < math.inf:
            price *= row[MU]
            chance = state[free + CHANCE]
            if chance * price > state[free + SPEND]:
                chance = state[free + SPEND] / price
            row[AUDIT] = 1.0 if drawn < chance else 0.0
            row[P_REVEAL] = chance


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Learn from every confidence that was revealed; forget on an alarm."""
    free, exits, cut = whole(state[FREE]), whole(state[EXITS]), whole(decision[CUT])
    confidence = observation[CONFIDENCE : CONFIDENCE + exits]
    last = confidence[exits - 1]
    state[free + DIRECT] = faded(state[free + DIRECT], age(state, state[free + GROWTH]))
    doubt = math.nan
    if cut == 0 and last >= 0.0:
        doubt = last - state[free + DIRECTLY] if state[free + DIRECT] > 0.0 else math.nan
        state[free + DIRECT] += state[free + exit_chain.WEIGHT]
        share = state[free + exit_chain.WEIGHT] / state[free + DIRECT]
        state[free + DIRECTLY] += share * (last - state[free + DIRECTLY])
    elif observation[OFFLOADED] == 1.0:
        doubt = surprise(state, confidence)
    learn_request(state, confidence)
    state[free + LOOKS] = max(state[free + LOOKS] - (1.0 if confidence[0] >= 0.0 else 0.0), 0.0)
    if doubt >= -1.0 and two_window.push(state, whole(state[free + RESIDUALS]), doubt) == 1.0:
        alarm(state, cut > 0)
    if confidence[0] >= 0.0 and two_window.push(state, whole(state[free + CONFIDENCES]), confidence[0]) == 1.0:
        alarm(state, False)


@kernel
def alarm(state: FloatArray, known_only: bool) -> None:
    """Forget most of it all, or of what the cloud says alone, and look at exit 1 for a while where the input is sent.

    Who sends the input sees no exit, and would never learn that one has become the better choice.
    """
    free = whole(state[FREE])
    scale(state, state[free + KEEP], known_only)
    state[free + DIRECT] = 0.0
    state[free + LOOKS] = ENOUGH
    state[free + SINCE] = STALE


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Keep the means, but only a share of their weight."""
    free = whole(state[FREE])
    state[T] *= factor
    scale(state, factor, False)
    state[free + DIRECT] = faded(state[free + DIRECT], factor)
    if factor != 1.0:
        state[free + SINCE] = STALE


@dataclass(frozen=True, kw_only=True)
class ChainUCB:
    r"""A joint policy over the cut and the thresholds of all exits up to it, by optimistic backward induction.

    The exits are a chain.  With b the bin of :math:`C_j` at exit j, it learns the mean confidence :math:`c_j(b)` there,
    how often bin b leads to bin b' at exit j + 1, and the mean :math:`m_j(b)` of the last exit's confidence, where the
    cloud (or an audit, or the last exit itself) revealed it; a request that a later exit k answered counts as
    :math:`m_k` of its bin there, as 1 where that is unknown.  For each cut i, prices being known,

    .. math:: V_i(b) &= \max\{c_i(b), u_i(b) - \mu o_i\}, \\
              V_j(b) &= \max\{c_j(b), \textstyle\sum_{b'} p_j(b' \mid b) V_{j+1}(b') - \mu(\gamma_{j+1} - \gamma_j)\},

    where :math:`u_j(b) = \min\{1, m_j(b) + \kappa \sqrt{2 v_j(b) \ln t / n_j(b)}\}` is optimistic about nothing but
    what has not been seen, in units of its measured variance.  The cut with the largest :math:`\sum_b p_1(b) V_1(b) -
    \mu\gamma_1` is played, with a threshold at each exit: the maxima are taken over thresholds, not bin by bin.

    Parameters
    ----------
    width
        :math:`\kappa`, width of the bonus in standard errors, >= 0.
    memory
        Requests after which an observation counts 1/e, >= 1.
    keep
        Share of what was learnt that an alarm leaves, in (0, 1].
    alarm
        Standard errors between two windows that ring: one pair on :math:`C_1`, which every request shows, and one on
        what the cloud's answers differ by from what was expected of them, > 0.
    audit
        Largest probability of offloading an early answer's sample as well, in [0, 1].  Each audit pays the offload, and
        what the edge computes up to the cut; where no offload is offered there is none.
    audit_spend
        Largest price of an offload times the probability of its audit, in reward a request, >= 0.
    on_the_way
        May exits before the cut answer?  If not, the rule is one (cut, threshold).
    bins
        B, bins of confidence at each exit, >= 2, finer towards 1.
    plan_every
        Decisions between two plans while prices stay about the same, >= 1; an alarm is planned for at once.
    price_tolerance
        Share by which a price, or mu, may differ from what was planned for until the next plan, >= 0: a larger change
        is planned for at once, and so is an offload that is offered no more, or again.  0 = any change is.

    Examples
    --------
    >>> from offramp.bandits import Arms, ChainUCB, Engine, Observation, Quote
    >>> engine = Engine(ChainUCB(), arms=Arms.grid(exits=3), seed=0)
    >>> quote = Quote(edge_cost=[0, 0.05, 0.1, 0.3], offload_cost=[0.4, 0.3, 0.2, 0], mu=1.0)
    >>> for _ in range(200):
    ...     decision = engine.decide(quote)
    ...     seen = [0.95, 0.97, 0.98][: decision.cut]
    ...     at = next((j + 1 for j, c in enumerate(seen) if c >= decision.thresholds[j]), 0)
    ...     shown = seen[:at] + [float("nan")] * (3 - at) if at else seen + [float("nan")] * (2 - len(seen)) + [0.98]
    ...     _ = engine.update(decision, Observation(confidence=shown, answered_at=at or 3, offloaded=at == 0))
    >>> at, bool(decision.thresholds[0] <= 0.95)
    (1, True)

    Notes
    -----
    Ours; the factored statistics go back to per-bin rules for one exit (HI-LCB, arXiv 2508.08985), the chain to
    stopping problems.  There is no proof of a regret bound.  The cells are unbiased under the policy's own selection as
    long as a bin tells all that matters (see `offramp.bandits.exit_chain`); where it does not, they are right for the
    requests that reach an exit under the policy that is played, which is what is asked of them.

    Prices from an estimate of the link differ a little in every round.  What a plan loses that is up to `plan_every`
    decisions older than its prices is of second order in their change: where two rules cost about the same, either
    will do.  Planning in every round costs five times the rest of the round.

    Its rules stand in no table of arms: of the table it takes the cuts, and `Decision.arm` is -1.  Exits at cuts that
    the table lacks do not answer.  The best (cut, threshold) that regret is measured against answers at one exit only,
    so its regret may be negative.

    Heads before the cut must be evaluated: in a world that evaluates only those that may answer, their thresholds are
    kept below +inf for that, which such a world does not price.  Offloads are valued by the last exit, also in a world
    that lets another one answer.

    """

    width: float = 0.1
    memory: float = 3_000.0
    keep: float = 0.1
    alarm: float = 4.0
    audit: float = 0.0
    audit_spend: float = 1.0
    on_the_way: bool = True
    bins: int = 20
    plan_every: int = 8
    price_tolerance: float = 0.1

    beyond_table = True

    def __post_init__(self) -> None:
        positive("width", self.width)
        positive("alarm", self.alarm, zero=False)
        positive("audit_spend", self.audit_spend)
        positive("price_tolerance", self.price_tolerance)
        for name, value, allowed, fits in (
            ("memory", self.memory, "a finite number >= 1", 1.0 <= self.memory < math.inf),
            ("keep", self.keep, "a number in (0, 1]", 0.0 < self.keep <= 1.0),
            ("audit", self.audit, "a number in [0, 1]", 0.0 <= self.audit <= 1.0),
            ("bins", self.bins, "a whole number >= 2", isinstance(self.bins, int) and self.bins >= 2),
            (
                "plan_every",
                self.plan_every,
                "a whole number >= 1",
                isinstance(self.plan_every, int) and self.plan_every >= 1,
            ),
        ):
            if not fits:
                raise ValueError(f"{name} is {value!r}, allowed is {allowed}")

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """One arm for each cut of the table, which stands for all rules with this cut."""
        if arms.exits < 2:
            raise ValueError(f"exits is {arms.exits}, allowed is 2 or more: with one exit there is nothing to choose")
        return list({arm.cut: arm for arm in reversed(arms.single)}.values())[::-1]

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """Nothing seen."""
        table = arms.part(self.plays(arms))
        table[:, 0] = TABLE
        table[table[:, 1] > 0.0, 2] = -math.inf  # planned anew each time; the cut alone says which arm it is
        cuts = set(table[:, 1])
        windows = TwoWindow(every=20, z=self.alarm).initial(), TwoWindow(older=100, newer=100, z=self.alarm).initial()
        chain = exit_chain.size(arms.exits, self.bins)
        quote = 2 * arms.exits + 3
        first = HEADER + 3 * len(table) + PARAMETERS
        rules = first + chain + quote
        state = pack(
            table=table,
            exits=arms.exits,
            features=features,
            draws=1 if self.audit > 0.0 else 0,
            parameters=(
                *(self.bins, self.width, HOPEFUL, float(self.on_the_way), 0.0, 0.0, 0.0),
                *(math.exp(1.0 / self.memory), self.keep, self.audit, self.audit_spend, self.plan_every),
                *(self.price_tolerance, STALE, 0.0, 0.0, 0.0, 0.0),
                *(first + chain, rules, rules + arms.exits, rules + arms.exits + len(windows[0])),
            ),
            extra=chain + quote + arms.exits + len(windows[0]) + len(windows[1]),
        )
        exit_chain.start(state, first, arms.exits, [j + 1 in cuts for j in range(arms.exits - 1)])
        state[first + chain : rules + arms.exits] = math.inf  # no quote was planned for yet
        at = rules + arms.exits
        for window in windows:
            state[at : at + len(window)] = window
            at += len(window)
        return state

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The same knowledge with the cuts of another table: it is about exits, not about arms."""
        origin, new = fresh(self, before, features), fresh(self, after, features)
        at, m = field(new, exit_chain.OPEN), after.exits - 1
        open_exits = new[at : at + m].copy()
        carry(self, state, origin, new)
        new[at : at + m] = open_exits
        new[whole(new[FREE]) + SINCE] = STALE
        new[whole(new[FREE]) + PLANNED] = 0.0
        return new


HOPEFUL = 0.03  # requests' worth of "leads to a sure answer" that each bin of each exit starts with


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
