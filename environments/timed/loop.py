"""The one loop of a world in time: room, turn, feedback that is back, quote, decision, journey."""

from collections.abc import Callable

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import dry
from offramp.environments.link_estimate import push
from offramp.environments.link_kernels import LinkArrays
from offramp.environments.timed.journey import carry_out
from offramp.environments.timed.offer import begin
from offramp.environments.timed.tables import (
    ACCEPTED,
    BACK,
    DROPPED,
    EDGE_FREE,
    HEARD,
    OF,
    ROUND,
    ROWS,
    SENT_BYTES,
    SENT_MS,
    SENT_ROUND_TRIP,
    WAITING,
    Desk,
    Facts,
    Rounds,
)

Decide = Callable[[FloatArray, FloatArray], int]
Learn = Callable[[FloatArray, FloatArray, FloatArray], int]


@kernel
def next_back(desk: Desk, now: float) -> int:
    """Which feedback is to be learnt next, of what is back by now: the earliest, of equals the oldest; -1 = none."""
    best = -1
    for k in range(whole(desk.clock[WAITING])):
        back, of = desk.waiting[k, BACK], desk.waiting[k, OF]
        if back <= now and (
            best < 0
            or back < desk.waiting[best, BACK]
            or (back == desk.waiting[best, BACK] and of < desk.waiting[best, OF])
        ):
            best = k
    return best


@kernel
def take(desk: Desk, k: int) -> None:
    """Take a piece of feedback off the list, after it was learnt, and note what its transfer showed of the link."""
    if desk.waiting[k, SENT_BYTES] > 0.0:
        push(desk.estimate, desk.waiting[k, SENT_BYTES], desk.waiting[k, SENT_MS], desk.waiting[k, SENT_ROUND_TRIP])
        desk.clock[HEARD] = max(desk.clock[HEARD], desk.waiting[k, BACK])
    last = whole(desk.clock[WAITING]) - 1
    for j in range(desk.waiting.shape[1]):
        desk.waiting[k, j] = desk.waiting[last, j]
    desk.clock[WAITING] = last


@kernel
def admit(desk: Desk, arrival: float) -> bool:
    """Is there room for a request that arrives now?"""
    room = desk.left.shape[0]
    accepted = whole(desk.clock[ACCEPTED])
    return not (room > 0 and accepted >= room and desk.left[accepted % room] > arrival)


@kernel
def leave(desk: Desk) -> None:
    """Count the request that was just accepted, and note when it leaves the edge."""
    room = desk.left.shape[0]
    if room > 0:
        desk.left[whole(desk.clock[ACCEPTED]) % room] = desk.clock[EDGE_FREE]
    desk.clock[ACCEPTED] += 1.0


@kernel
def turn(rounds: Rounds, desk: Desk, i: int) -> float:
    """When the edge can begin with a request."""
    return max(rounds.arrival[i], desk.clock[EDGE_FREE])  # type: ignore[no-any-return]


@kernel
def loop(
    decide: Decide, learn: Learn, state: FloatArray, facts: Facts, link: LinkArrays, rounds: Rounds, desk: Desk
) -> int:
    """Play all rounds that are left; returns the next round, which is not played where the uniforms ran out, or -1.

    -1: a step refused what the world showed it, and nothing after it would be true.

    `decide` and `learn` are a policy's checked steps: they are compiled once and found on disk again, where a loop
    around the bare kernels would be compiled anew for each policy in each process.
    """
    width, length = desk.row.shape[0], desk.seen.shape[0]
    for i in range(whole(desk.clock[ROUND]), rounds.sample.shape[0]):
        desk.clock[ROUND] = i
        if not admit(desk, rounds.arrival[i]):
            desk.journal[i, DROPPED] = 1.0
            continue
        if dry(state):
            return whole(i)
        desk.clock[ROUND] = i + 1.0
        start = turn(rounds, desk, i)
        k = next_back(desk, start)
        while k >= 0:
            waiting = desk.waiting[k]
            if learn(state, waiting[ROWS : ROWS + width], waiting[ROWS + width : ROWS + width + length]) != 0:
                return -1
            take(desk, k)
            k = next_back(desk, start)
        begin(facts, link, rounds, desk, i, start)
        if decide(state, desk.row) != 0:
            return -1
        carry_out(facts, link, rounds, desk, i, start)
        leave(desk)
    return whole(rounds.sample.shape[0])
