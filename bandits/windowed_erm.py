"""WindowedERM: the arm that would have done best on the last fully revealed samples, at today's prices."""

import math
from dataclasses import dataclass

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import compiled, kernel, whole
from offramp.bandits.loop import Block, Record, World, guarded_select, guarded_step, guarded_update, loop
from offramp.bandits.policy import Kernels, fresh
from offramp.bandits.rearm import carry
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import (
    AUDIT,
    CONFIDENCE,
    COSTS,
    CUT,
    EXITS,
    MU,
    P_REVEAL,
    FloatArray,
    offload_cost_at,
    thresholds_at,
)
from offramp.bandits.state import ARMS, FADED, FREE, HEADER, T, choose, own, pack, uniform
from offramp.bandits.state import EXITS as STATE_EXITS
from offramp.bandits.ucb1 import UCB1

REVEAL_BY = ("final", "audit")
PARAMETERS, COLUMNS = 10, 4
PROBE, EVERY, WARMUP, AUDITS, WINDOW, STORED, NEXT, WEIGHT, SINCE, NEWS = range(PARAMETERS)  # NEWS 2: tune at once
ANSWER, SHARE, LOCAL, CLOUD = range(COLUMNS)


@kernel
def prober(state: FloatArray) -> int:
    """The arm that reveals everything: the last exit, or the highest threshold at the deepest cut before it."""
    arms = whole(state[ARMS])
    last = arms - 1
    if state[whole(state[FREE]) + AUDITS] == 1.0 and state[HEADER + arms + last] == state[STATE_EXITS]:
        last -= 1
    return last


@kernel
def largest(state: FloatArray, row: FloatArray) -> int:
    """The arm with the largest value over the window at these prices; ties go to the lowest arm."""
    arms, exits, mu = whole(state[ARMS]), whole(row[EXITS]), row[MU]
    answers, shares = own(state, PARAMETERS, ANSWER), own(state, PARAMETERS, SHARE)
    highest = -math.inf
    best = 0
    for a in range(arms):
        cut = whole(state[HEADER + arms + a])
        price, offload = row[COSTS + cut], row[offload_cost_at(exits) + cut]
        if state[HEADER + 2 * arms + a] == -math.inf or offload < math.inf:
            if state[shares + a] > 0.0:
                price += state[shares + a] * offload
            value = state[answers + a] - mu * price
            if value > highest:
                highest = value
                best = a
    return best


@kernel
def select(state: FloatArray, row: FloatArray) -> None:
    """The best arm over the window; with the stated probability, and always at first, one that reveals everything."""
    arms, free, exits = whole(state[ARMS]), whole(state[FREE]), whole(row[EXITS])
    state[free + SINCE] += 1.0
    best, seer = largest(state, row), prober(state)
    cut = whole(state[HEADER + arms + seer])
    chance = 1.0 if state[free + WEIGHT] < state[free + WARMUP] else state[free + PROBE]
    if cut < exits and not row[offload_cost_at(exits) + cut] < math.inf:
        chance = 0.0
    probing = uniform(state) < chance
    play = seer if probing else best
    p = (chance if play == seer else 0.0) + (1.0 - chance if play == best else 0.0)
    choose(state, row, play, p)
    if play == seer and cut > 0 and cut < exits:
        row[AUDIT] = 1.0 if probing else 0.0
        row[P_REVEAL] = chance / p


@kernel
def keep(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Keep a sample of which every cut in play is known, if it would have been revealed whatever its confidence."""
    arms, free, exits = whole(state[ARMS]), whole(state[FREE]), whole(decision[EXITS])
    cut = whole(decision[CUT])
    known = cut == 0 or cut == exits or decision[AUDIT] == 1.0 or decision[thresholds_at(exits) + cut - 1] == math.inf
    if not observation[CONFIDENCE + exits - 1] >= 0.0:
        known = False
    for a in range(arms):
        at = whole(state[HEADER + arms + a])
        if at > 0 and not observation[CONFIDENCE + at - 1] >= 0.0:
            known = False
    if known:
        window = whole(state[free + WINDOW])
        first = own(state, PARAMETERS, COLUMNS) + whole(state[free + NEXT]) * exits
        for i in range(exits):
            confidence = observation[CONFIDENCE + i]
            state[first + i] = confidence if confidence >= 0.0 else 0.0
        state[free + NEXT] = (whole(state[free + NEXT]) + 1) % window
        state[free + STORED] = min(state[free + STORED] + 1.0, state[free + WINDOW])
        before = state[free + WEIGHT]
        state[free + WEIGHT] = min(before + 1.0, state[free + WINDOW])
        enough = before < state[free + WARMUP] and state[free + WEIGHT] >= state[free + WARMUP]
        state[free + NEWS] = 2.0 if enough else max(state[free + NEWS], 1.0)


@kernel
def replay_sample(state: FloatArray, sample: int) -> None:
    """Add a sample, at each cut, to the first arm that offloads it and to the last one that does not."""
    arms, last = whole(state[ARMS]), state[sample + whole(state[STATE_EXITS]) - 1]
    cuts, thresholds = HEADER + arms, HEADER + 2 * arms
    answers, shares = own(state, PARAMETERS, ANSWER), own(state, PARAMETERS, SHARE)
    local, cloud = own(state, PARAMETERS, LOCAL), own(state, PARAMETERS, CLOUD)
    a = 0
    while a < arms:
        cut = whole(state[cuts + a])
        confidence = state[sample + cut - 1] if cut > 0 else -1.0
        low, stop = a, whole(a + state[answers + a])
        high = stop
        while low < high:
            middle = whole((low + high) // 2)
            if confidence < state[thresholds + middle]:
                high = middle
            else:
                low = middle + 1
        if low < stop:
            state[shares + low] += 1.0
            state[cloud + low] += last
        if low > a:
            state[local + low - 1] += confidence
        a = stop


@kernel
def tune(state: FloatArray) -> None:
    """What each arm would have answered and sent over the window: sums along the thresholds of each cut."""
    arms, free, exits = whole(state[ARMS]), whole(state[FREE]), whole(state[STATE_EXITS])
    cuts = HEADER + arms
    answers, shares = own(state, PARAMETERS, ANSWER), own(state, PARAMETERS, SHARE)
    local, cloud = own(state, PARAMETERS, LOCAL), own(state, PARAMETERS, CLOUD)
    for k in range(arms):  # for now, in place of the answer: arms from here on that have this cut
        a = arms - 1 - k
        same = a + 1 < arms and state[cuts + a + 1] == state[cuts + a]
        state[answers + a] = state[answers + a + 1] + 1.0 if same else 1.0
        state[shares + a], state[local + a], state[cloud + a] = 0.0, 0.0, 0.0
    samples = whole(min(state[free + STORED], math.ceil(state[free + WEIGHT])))
    window, after = whole(state[free + WINDOW]), whole(state[free + NEXT])
    for k in range(samples):
        at = whole((after + window - 1 - k) % window)
        replay_sample(state, own(state, PARAMETERS, COLUMNS) + at * exits)
    for a in range(1, arms):
        if state[cuts + a] == state[cuts + a - 1]:
            state[shares + a] += state[shares + a - 1]
            state[cloud + a] += state[cloud + a - 1]
    for k in range(arms):
        a = arms - 1 - k
        if a + 1 < arms and state[cuts + a] == state[cuts + a + 1]:
            state[local + a] += state[local + a + 1]
    for a in range(arms):
        state[answers + a] = (state[local + a] + state[cloud + a]) / samples
        state[shares + a] /= samples
    state[free + SINCE] = 0.0
    state[free + NEWS] = 0.0


@kernel
def update(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
    """Keep the sample if it tells everything, and tune where that is due."""
    free = whole(state[FREE])
    keep(state, decision, observation)
    due = state[free + SINCE] >= state[free + EVERY] and state[free + NEWS] == 1.0
    if state[free + WEIGHT] >= state[free + WARMUP] and (due or state[free + NEWS] == 2.0):
        tune(state)


@kernel
def forget(state: FloatArray, factor: float) -> None:
    """Shorten the window to a share: older samples go, and where too few are left new ones are asked for first."""
    free = whole(state[FREE])
    state[T] *= factor
    if state[free + WEIGHT] > 0.0:
        state[free + WEIGHT] = max(state[free + WEIGHT] * factor, FADED)


@dataclass(frozen=True, kw_only=True)
class WindowedERM:
    r"""Empirical risk minimisation over a window of samples of which everything is known.

    Every so many rounds each arm is replayed on the last samples of which all confidences were revealed; then the arm
    with the largest

    .. math:: \frac1n \sum_{s} \bigl(C_i^s 1\{C_i^s \ge \alpha\} + C_L^s 1\{C_i^s < \alpha\}\bigr)
              - \mu (\gamma_i + \hat p\, o_i)

    is played, at the prices of each request.  There is no bonus: what is not known of an arm is asked for by probes, a
    fixed share of the rounds in which an arm is played that reveals everything.

    Parameters
    ----------
    window
        Samples that are kept, >= 1.
    every
        Rounds between two tunings, >= 1.
    probe
        Probability of a probe, in (0, 1].
    warmup
        Samples below which every round is a probe, 1..window.
    reveal_by
        What a probe plays.  "final": the whole network on the edge.  "audit": the highest threshold at the deepest cut
        in play before the last exit, audited: the sample is offloaded in any case.
    cuts
        Cuts to play, None = all in the table.
    thresholds
        Thresholds to play at cuts that have one, None = all in the table.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Quote
    >>> from offramp.bandits.windowed_erm import WindowedERM
    >>> engine = Engine(WindowedERM(), arms=Arms.grid(exits=2), seed=0)
    >>> decision = engine.decide(Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0], mu=1.0))
    >>> decision.cut, decision.p_action
    (2, 1.0)

    Notes
    -----
    The idea is that of Apparate (Dai et al., SOSP 2024), a server that lets every input run to the end and so sees all
    exits of all requests.  On a device that is the dearest thing to do, and this policy shows the price: its probes.
    Apparate tunes one threshold for each of several active exits under a budget of lost accuracy, and searches for them
    by coordinate ascent.  An arm here has one threshold, and the objective is the common reward: at each cut, sums
    along the ordered thresholds give the value of every arm exactly, and nothing is searched.  A tuning places each
    sample among the thresholds of each cut, by one binary search.  Between tunings the price is that of each request.

    A sample is kept only if it would have been revealed whatever its confidence: after a probe, an audit, the last exit
    or an arm that always offloads.  What an ordinary threshold sends to the cloud are the samples that it was unsure
    of, and a window of those would be worth less than the stream.

    Needs a world that evaluates the heads before the cut ("prefix").  In one that does not, no arm reveals everything,
    and the policy keeps probing: it plays the last exit for good.  A probe is left out where its cut is not offered
    (+inf), and so is an arm that may offload from such a cut.

    Ties go to the lowest arm.  Before the first tuning all arms are worth the same but for their edge cost.
    Offloads are valued by the last exit, also in a world that lets another one answer.

    """

    window: int = 500
    every: int = 50
    probe: float = 0.05
    warmup: int = 50
    reveal_by: str = "final"
    cuts: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, allowed, fits in (
            ("window", self.window, "a whole number >= 1", self.window >= 1 and self.window == int(self.window)),
            ("every", self.every, "a number of rounds >= 1", 1 <= self.every < math.inf),
            ("probe", self.probe, "a number in (0, 1]", 0.0 < self.probe <= 1.0),
            ("warmup", self.warmup, f"a number in 1..{self.window}", 1 <= self.warmup <= self.window),
            ("reveal_by", repr(self.reveal_by), f"one of {REVEAL_BY}", self.reveal_by in REVEAL_BY),
        ):
            if not fits:
                raise ValueError(f"{name} is {value}, allowed is {allowed}")
        for name in ("cuts", "thresholds"):
            listed = getattr(self, name)
            if listed is not None:
                object.__setattr__(self, name, tuple(listed))

    @property
    def kernels(self) -> Kernels:
        """The functions of this file."""
        return KERNELS

    def plays(self, arms: Arms) -> list[Arm]:
        """The arms with one of the cuts and, below the last cut, one of the thresholds, as `UCB1` picks them.

        Raises
        ------
        ValueError
            None of them can be a probe.

        """
        mine = UCB1(cuts=self.cuts, thresholds=self.thresholds).plays(arms)
        cuts = {arm.cut for arm in mine}
        if self.reveal_by == "final" and arms.exits not in cuts:
            raise ValueError(f"reveal_by is 'final', allowed with cuts {sorted(cuts)} is 'audit': the last is missing")
        if self.reveal_by == "audit" and not cuts - {0, arms.exits}:
            raise ValueError(f"reveal_by is 'audit', allowed with cuts {sorted(cuts)} is 'final': none can be audited")
        return mine

    def initial(self, arms: Arms, features: int) -> FloatArray:
        """No sample kept."""
        audits = float(self.reveal_by == "audit")
        given = (self.probe, float(self.every), float(self.warmup), audits, float(self.window))
        return pack(
            table=arms.part(self.plays(arms)),
            exits=arms.exits,
            features=features,
            draws=1,
            parameters=(*given, 0.0, 0.0, 0.0, 0.0, 0.0),
            columns=COLUMNS,
            extra=self.window * arms.exits,
        )

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for another table: the window stays, unless a cut comes in that its samples may not know."""
        new = fresh(self, after, features)
        carry(self, state, fresh(self, before, features), new)
        free = whole(new[FREE])
        if not {a.cut for a in self.plays(after)} <= {a.cut for a in self.plays(before)}:
            new[free + STORED] = new[free + NEXT] = new[free + WEIGHT] = 0.0
        new[free + NEWS] = 2.0 if new[free + STORED] > 0.0 else 0.0
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
