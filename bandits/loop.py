"""The one loop that plays a policy against plain arrays, and the checked single steps that an engine takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.bandits.kernel import kernel
from offramp.bandits.reveal import answer_confidence, depth, edge_cost, offload_cost, reveal
from offramp.bandits.rows import (
    ANSWERED_AT,
    ARM,
    AUDITED,
    CUT,
    EXITS,
    MU,
    OFFLOADED,
    REFILL,
    FloatArray,
    IntArray,
    check_given,
    check_observation,
    context_at,
)
from offramp.bandits.state import EXITS as STATE_EXITS
from offramp.bandits.state import FEATURES, dry

Select = Callable[[FloatArray, FloatArray], None]
Update = Callable[[FloatArray, FloatArray, FloatArray], None]

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


class World(NamedTuple):
    """The facts of a world as arrays; S conditions, N samples, L exits, P price lists, A arms, d context features."""

    confidence: FloatArray  # (S, N, L) float64
    prediction: npt.NDArray[np.int16]  # (S, N, L)
    label: npt.NDArray[np.int16]  # (N,), read by the scorer alone
    context: FloatArray  # (S, N, d)
    quotes: FloatArray  # (P, W) decision rows that hold a quote
    gap: FloatArray  # (S, P, A) pseudo-regret of each arm
    work: FloatArray  # (2, L + 1) multiply-accumulates up to each cut, and bytes sent from there
    options: IntArray  # (3,) see `offramp.bandits.reveal`


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


@kernel
def score(
    confidence: FloatArray,
    prediction: npt.NDArray[Any],
    label: npt.NDArray[Any],
    gap: FloatArray,
    work: FloatArray,
    condition: int,
    sample: int,
    price: int,
    row: FloatArray,
    seen: FloatArray,
    totals: FloatArray,
) -> None:
    """Add one round to the sums.  Only here is a label read."""
    at = int(seen[ANSWERED_AT]) - 1
    edge = edge_cost(row, seen)
    offload = offload_cost(row, seen)
    arm = int(row[ARM])
    guess = prediction[condition, sample, at]
    totals[REWARD] += confidence[condition, sample, at] - row[MU] * (edge + offload)
    totals[EDGE] += edge
    totals[OFFLOAD] += offload
    totals[REGRET] += gap[condition, price, arm]
    totals[OFFLOADS] += seen[OFFLOADED]
    totals[AUDITS] += seen[AUDITED]
    final = prediction[condition, sample, int(row[EXITS]) - 1]
    totals[CORRECT] += 1.0 if guess == label[sample] else 0.0
    totals[AGREEMENT] += 1.0 if guess == final else 0.0
    totals[MACS] += work[0, depth(row, seen)]
    totals[BYTES] += (seen[OFFLOADED] + seen[AUDITED]) * work[1, int(row[CUT])]
    totals[len(FIELDS) + arm] += 1.0


@kernel
def keep(totals: FloatArray, checkpoints: IntArray, kept: FloatArray, at: IntArray) -> None:
    """Count one round, and keep the sums if it is a checkpoint."""
    at[0] += 1
    k = at[1]
    if k < checkpoints.shape[0] and at[0] == checkpoints[k]:
        for f in range(totals.shape[0]):
            kept[k, f] = totals[f]
        at[1] += 1


@kernel
def loop(select: Select, update: Update, state: FloatArray, world: World, block: Block, record: Record) -> int:
    """Play a block of rounds; returns how many were played before the uniforms ran out."""
    # Fields are taken out once: a compiled loop counts references at every access to a named tuple (200 ns a round).
    confidence, prediction, label, context, quotes, gap, work, options = world
    samples, conditions, prices = block
    totals, checkpoints, kept, at, row, seen = record
    exits = confidence.shape[2]
    width = context_at(exits)
    features = context.shape[2]
    quoted = -1
    for i in range(samples.shape[0]):
        if dry(state):
            return int(i)
        sample, condition, price = samples[i], conditions[i], prices[i]
        if price != quoted:  # select leaves the quote in a row as it is
            for k in range(width):
                row[k] = quotes[price, k]
            quoted = price
        for k in range(features):
            row[width + k] = context[condition, sample, k]
        select(state, row)
        reveal(confidence, prediction, condition, sample, row, options, seen)
        update(state, row, seen)
        score(confidence, prediction, label, gap, work, condition, sample, price, row, seen, totals)
        keep(totals, checkpoints, kept, at)
    return int(samples.shape[0])


@kernel
def guarded_select(select: Select, state: FloatArray, row: FloatArray) -> int:
    """Check the quote, then select; 0, `REFILL`, or a flag that says what is wrong."""
    flag = check_given(row, int(state[STATE_EXITS]), int(state[FEATURES]))
    if flag != 0:
        return flag
    if dry(state):
        return REFILL
    select(state, row)
    return 0


@kernel
def guarded_update(update: Update, state: FloatArray, decision: FloatArray, observation: FloatArray) -> int:
    """Check the observation, then learn from it unless the answer's confidence was lost; 0 or a flag."""
    flag = check_observation(decision, observation, int(state[STATE_EXITS]))
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
