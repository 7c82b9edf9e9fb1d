"""The one loop that plays a policy against plain arrays, and the checked single steps that an engine takes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.bandits.kernel import fetch, kernel, whole
from offramp.bandits.reveal import FALLBACK, answer_confidence, depth, edge_cost, fall_back, offload_cost
from offramp.bandits.rows import (
    ANSWERED_AT,
    ARM,
    AUDITED,
    COSTS,
    CUT,
    EXITS,
    FAULT,
    FOREIGN,
    MU,
    OFFLOADED,
    PLAY,
    REFILL,
    WIDTH,
    FloatArray,
    IntArray,
    check_given,
    check_hidden,
    check_observation,
    context_at,
    thresholds_at,
)
from offramp.bandits.state import ARMS, FEATURES, HEADER, SEES_ALL, dry
from offramp.bandits.state import EXITS as STATE_EXITS

Select = Callable[[FloatArray, FloatArray], None]
Update = Callable[[FloatArray, FloatArray, FloatArray], None]
Reveal = Callable[[FloatArray, npt.NDArray[Any], FloatArray, IntArray, FloatArray], None]

# What a record sums up, in this order; then one count for each arm of the table.
FIELDS = (
    "reward",
    "edge_cost",
    "offload_cost",
    "regret",
    "offloads",
    "audits",
    "correct",
    "agreement",
    "macs",
    "bytes",
)
REWARD, EDGE, OFFLOAD, REGRET, OFFLOADS, AUDITS, CORRECT, AGREEMENT, MACS, BYTES = range(len(FIELDS))

AHEAD = 8  # rounds from asking for a sample's facts to reading them: they lie all over the memory


class World(NamedTuple):
    """The facts of a world as arrays; S conditions, N samples, L exits, P price lists, A arms, d context features."""

    confidence: FloatArray  # (S, N, L) float64
    prediction: npt.NDArray[np.int16]  # (S, N, L)
    label: npt.NDArray[np.int16]  # (N,), read by the scorer alone
    context: FloatArray  # (S, N, d)
    quotes: FloatArray  # (P, W) decision rows that hold a quote
    gap: FloatArray  # (S, P, A) pseudo-regret of each arm
    work: FloatArray  # (2, L + 1) multiply-accumulates up to each cut, and bytes sent from there
    options: IntArray  # (4,) see `offramp.bandits.reveal`


class Block(NamedTuple):
    """A stretch of a stream: which sample under which condition at which price, round by round."""

    sample: IntArray  # (n,)
    condition: IntArray  # (n,)
    price: IntArray  # (n,)


class Record(NamedTuple):
    """The running sums and their values at the checkpoints."""

    totals: FloatArray  # (len(FIELDS) + A,)
    checkpoints: IntArray  # (R,) rounds after which the sums are kept, increasing
    kept: FloatArray  # (R, len(FIELDS) + A)
    at: IntArray  # (2,) rounds played, checkpoints kept
    row: FloatArray  # scratch: a decision row
    seen: FloatArray  # scratch: an observation row
    # Rules outside the table of arms, from the round in which they were first played: after a row that counts them,
    # (round, cut, thresholds) each.  Without room for them their regret is nan.
    rules: FloatArray = np.zeros((0, 1))


@kernel
def score(
    truth: FloatArray,
    classes: npt.NDArray[Any],
    label: int,
    gap: FloatArray,
    work: FloatArray,
    row: FloatArray,
    seen: FloatArray,
    totals: FloatArray,
    rules: FloatArray,
    at_round: int,
) -> None:
    """Add one round to the sums.  Only here is a label read."""
    at = whole(seen[ANSWERED_AT] - 1.0)
    edge = edge_cost(row, seen)
    offload = offload_cost(row, seen)
    guess = classes[at]
    totals[REWARD] += truth[at] - row[MU] * (edge + offload)
    totals[EDGE] += edge
    totals[OFFLOAD] += offload
    totals[OFFLOADS] += seen[OFFLOADED]
    totals[AUDITS] += seen[AUDITED]
    final = classes[whole(row[EXITS] - 1.0)]
    totals[CORRECT] += 1.0 if guess == label else 0.0
    totals[AGREEMENT] += 1.0 if guess == final else 0.0
    totals[MACS] += work[0, depth(row, seen)]
    totals[BYTES] += (seen[OFFLOADED] + seen[AUDITED]) * work[1, whole(row[CUT])]
    if seen[AUDITED] == 1.0:  # what an arm is worth leaves audits out: the offload, and the way from the answer to it
        totals[REGRET] += row[MU] * (offload + (edge - row[COSTS + at + 1]))
    arm = row[ARM]
    if arm >= 0.0:
        totals[REGRET] += gap[whole(arm)]
        totals[len(FIELDS) + whole(arm)] += 1.0
    else:
        note_rule(row, at_round, rules, totals)


@kernel
def note_rule(row: FloatArray, at_round: int, rules: FloatArray, totals: FloatArray) -> None:
    """Note a rule outside the table of arms where it is not the last one: what it is worth is added up afterwards."""
    if rules.shape[0] == 0:
        totals[REGRET] = math.nan  # better no regret than a wrong one
        return
    exits, noted = whole(row[EXITS]), whole(rules[0, 0])
    rule = thresholds_at(exits)
    same = noted > 0 and rules[noted, 1] == row[CUT]
    for j in range(exits):
        same = same and rules[noted, 2 + j] == row[rule + j]
    if not same:
        rules[0, 0] = noted + 1
        rules[noted + 1, 0] = at_round
        rules[noted + 1, 1] = row[CUT]
        for j in range(exits):
            rules[noted + 1, 2 + j] = row[rule + j]


@kernel
def full(rules: FloatArray) -> bool:
    """Is there no room left for one more rule?"""
    return rules.shape[0] > 0 and rules[0, 0] + 1.0 >= rules.shape[0]  # type: ignore[no-any-return]


@kernel
def due(checkpoints: IntArray, kept: int) -> int:
    """Round of the next checkpoint, -1 after the last."""
    return checkpoints[kept] if kept < checkpoints.shape[0] else -1


@kernel
def keep(totals: FloatArray, kept: FloatArray, at: IntArray) -> None:
    """Keep the sums of a checkpoint."""
    for f in range(totals.shape[0]):
        kept[at[1], f] = totals[f]
    at[1] += 1


@kernel
def loop(
    select: Select, update: Update, reveal: Reveal, state: FloatArray, world: World, block: Block, record: Record
) -> int:
    """Play a block of rounds; returns how many were played before the uniforms, or the room for rules, ran out.

    `reveal` is one of `offramp.bandits.reveal`: all that a decision reveals, or no more than the answer.
    """
    confidence, prediction, label, context, quotes, gap, work, options = world
    samples, conditions, prices = block
    totals, checkpoints, kept, at, row, seen, rules = record
    width = context_at(confidence.shape[2])
    features = context.shape[2]
    rounds, before, stop = samples.shape[0], at[0], due(checkpoints, at[1])
    quoted, doubted = -1, options[FALLBACK] == 1
    for i in range(rounds):
        if dry(state) or full(rules):
            at[0] = before + i
            return int(i)
        if i + AHEAD < rounds:
            fetch(confidence[whole(conditions[i + AHEAD]), whole(samples[i + AHEAD])])
            fetch(prediction[whole(conditions[i + AHEAD]), whole(samples[i + AHEAD])])
        sample, condition, price = whole(samples[i]), whole(conditions[i]), whole(prices[i])
        if price != quoted:  # select leaves the quote in a row as it is
            for k in range(width):
                row[whole(k)] = quotes[price, whole(k)]
            quoted = price
        for k in range(features):
            row[whole(width + k)] = context[condition, sample, whole(k)]
        select(state, row)
        truth, classes = confidence[condition, sample], prediction[condition, sample]
        reveal(truth, classes, row, options, seen)
        if doubted:
            fall_back(truth, row, options, seen)
        update(state, row, seen)
        score(truth, classes, label[sample], gap[condition, price], work, row, seen, totals, rules, before + i)
        if before + i + 1 == stop:
            keep(totals, kept, at)
            stop = due(checkpoints, at[1])
    at[0] = before + rounds
    return int(rounds)


@kernel
def check_origin(state: FloatArray, decision: FloatArray) -> int:
    """0 if this state's policy can have made the decision: a row from elsewhere would be learnt out of bounds."""
    if decision.shape[0] <= CUT:
        return FAULT * WIDTH + int(decision.shape[0])
    arms, play = state[ARMS], decision[PLAY]
    if not (play >= 0.0 and play < arms and play == math.floor(play)):
        return FAULT * FOREIGN
    at = HEADER + int(play)
    if state[at] != decision[ARM] or state[at + int(arms)] != decision[CUT]:
        return FAULT * FOREIGN
    return 0


@kernel
def guarded_select(select: Select, state: FloatArray, row: FloatArray) -> int:
    """Check the quote, then select; 0, `REFILL`, or a flag that says what is wrong."""
    flag = check_given(row, whole(state[STATE_EXITS]), whole(state[FEATURES]))
    if flag != 0:
        return flag
    if dry(state):
        return REFILL
    select(state, row)
    return 0


@kernel
def guarded_update(update: Update, state: FloatArray, decision: FloatArray, observation: FloatArray) -> int:
    """Check the observation, then learn from it unless the answer's confidence was lost; 0 or a flag.

    A lost answer teaches nothing.  Cloud answers are lost more often than local ones, so losses favour the edge in what
    is learnt: a link that loses much calls for the answer to be asked for again.
    """
    flag = check_origin(state, decision)
    if flag != 0:
        return flag
    exits = whole(state[STATE_EXITS])
    flag = check_observation(decision, observation, exits)
    if flag == 0 and state[SEES_ALL] == 0.0:
        flag = check_hidden(observation, exits)
    if flag != 0:
        return flag
    if answer_confidence(observation) >= 0.0:
        update(state, decision, observation)
    return 0


@kernel
def guarded_step(
    select: Select, update: Update, state: FloatArray, decision: FloatArray, observation: FloatArray, row: FloatArray
) -> int:
    """Update, then select; 0, the update's flag (nothing was done), or minus the quote's flag (the update was)."""
    flag = guarded_update(update, state, decision, observation)
    if flag != 0:
        return flag
    flag = guarded_select(select, state, row)
    return flag if flag == REFILL else -flag
