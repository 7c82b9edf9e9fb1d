"""What wrappers that pace a policy share: prices that come and go, arms in place of others, and a ring of rounds."""

import math

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import ARM, AUDIT, COSTS, EXITS, MU, P_REVEAL, PLAY, FloatArray, set_rule, thresholds_at
from offramp.bandits.state import ARMS, HEADER
from offramp.bandits.state import EXITS as STATE_EXITS

SLOTS = 512  # rounds that are remembered
FIELDS = 4
KEY, DUAL, TURNED, RESERVED = range(FIELDS)  # round + 1 (0 = none), its dual, was another arm played, use set aside


@kernel
def slot(ring: int, round: float) -> int:
    """Where a round is remembered, in the ring that starts at `ring`."""
    return ring + FIELDS * (whole(round) % SLOTS)


@kernel
def remember(state: FloatArray, at: int, round: float, dual: float, turned: float, reserved: float) -> None:
    """Keep what a late update of this round must know."""
    state[at + KEY] = round + 1.0
    state[at + DUAL] = dual
    state[at + TURNED] = turned
    state[at + RESERVED] = reserved


@kernel
def keep_prices(state: FloatArray, at: int, row: FloatArray) -> None:
    """Copy mu and all prices of a row into the state; -1 stands for +inf, so that the state stays finite."""
    exits = whole(row[EXITS])
    state[at] = row[MU]
    for i in range(2 * (exits + 1)):
        price = row[COSTS + i]
        state[at + 1 + i] = price if price < math.inf else -1.0


@kernel
def restore_prices(state: FloatArray, at: int, row: FloatArray) -> None:
    """Make mu and all prices of a row what they were."""
    exits = whole(row[EXITS])
    row[MU] = state[at]
    for i in range(2 * (exits + 1)):
        price = state[at + 1 + i]
        row[COSTS + i] = price if price >= 0.0 else math.inf


@kernel
def may_send(state: FloatArray, play: int) -> bool:
    """Can this arm lead to an offload?  A confidence is never below 0."""
    arms = whole(state[ARMS])
    cut = state[HEADER + arms + play]
    return cut < state[STATE_EXITS] and (cut == 0.0 or state[HEADER + 2 * arms + play] > 0.0)  # type: ignore[no-any-return]


@kernel
def turn(state: FloatArray, row: FloatArray, play: int) -> None:
    """Write another of the policy's arms into a decision, without an audit."""
    arms, first = whole(state[ARMS]), thresholds_at(whole(row[EXITS]))
    for i in range(whole(row[EXITS])):
        row[first + i] = math.inf
    set_rule(row, whole(state[HEADER + arms + play]), state[HEADER + 2 * arms + play])
    row[ARM] = state[HEADER + play]
    row[PLAY] = play


@kernel
def without_audit(row: FloatArray) -> None:
    """Take the audit off a decision, and its probability."""
    row[AUDIT] = 0.0
    row[P_REVEAL] = 0.0


@kernel
def sends_surely(state: FloatArray, play: int) -> bool:
    """Does this arm serve the final exit's answer whatever the edge finds?"""
    arms = whole(state[ARMS])
    cut = state[HEADER + arms + play]
    return cut == state[STATE_EXITS] or state[HEADER + 2 * arms + play] == math.inf  # type: ignore[no-any-return]
