"""The journey of one request: computing, coding, sending, the cloud, the way back; what it reveals and costs."""

import math

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.reveal import PREFIX, answer_confidence, depth, edge_cost, offload_cost, reveal
from offramp.bandits.rows import (
    ANSWERED_AT,
    ARM,
    AUDIT,
    AUDITED,
    CUT,
    EDGE_PAID,
    EXITS,
    MU,
    OFFLOAD_PAID,
    OFFLOADED,
    FloatArray,
    thresholds_at,
)
from offramp.environments.link_kernels import LinkArrays, down, round_trip_at, transfer_end, transmit_mj
from offramp.environments.physical import DEADLINE, ENERGY, PER_MJ, edge_price, offload_price
from offramp.environments.timed import tables as t
from offramp.environments.timed.tables import Desk, Facts, Rounds


@kernel
def best_local(truth: FloatArray, row: FloatArray, prefix: bool) -> int:
    """The exit that answers when nothing can be sent, 1..L: the surest that was evaluated, the deepest of equals.

    Where the input itself was to be sent nothing was evaluated: the device then goes to exit 1.
    """
    cut, rule = whole(row[CUT]), thresholds_at(whole(row[EXITS]))
    deepest = max(cut, 1) - 1
    best = deepest
    for j in range(deepest):
        k = whole(deepest - 1 - j)
        if (prefix or row[rule + k] < math.inf) and truth[k] > truth[best]:
            best = k
    return best + 1


@kernel
def uncover(facts: Facts, desk: Desk, condition: int, sample: int) -> int:
    """Lay out what every exit says of a sample, the last one behind the codec that would be sent.

    Returns what the whole network says without coding.
    """
    exits, variant = whole(desk.row[EXITS]), desk.chosen[whole(desk.row[CUT])]
    for j in range(exits):
        desk.truth[j] = facts.confidence[condition, sample, j]
        desk.classes[j] = facts.prediction[condition, sample, j]
    whole_network: int = desk.classes[exits - 1]
    if variant >= 0:
        desk.truth[exits - 1] = facts.sent_confidence[condition, variant, sample]
        desk.classes[exits - 1] = facts.sent_prediction[condition, variant, sample]
    return whole_network


@kernel
def put_on_its_way(desk: Desk, of: int, back: float, n_bytes: float, sending: float, trip: float) -> None:
    """Put the decision and the observation of a request among what is to be learnt; given up where there is no room."""
    at = whole(desk.clock[t.WAITING])
    if at == desk.waiting.shape[0]:
        desk.clock[t.GIVEN_UP] += 1.0
        return
    waiting = desk.waiting[at]
    waiting[t.BACK], waiting[t.OF] = back, of
    waiting[t.SENT_BYTES], waiting[t.SENT_MS], waiting[t.SENT_ROUND_TRIP] = n_bytes, sending, trip
    for k in range(desk.row.shape[0]):
        waiting[t.ROWS + k] = desk.row[k]
    for k in range(desk.seen.shape[0]):
        waiting[t.ROWS + desk.row.shape[0] + k] = desk.seen[k]
    desk.clock[t.WAITING] = at + 1.0


@kernel
def carry_out(facts: Facts, link: LinkArrays, rounds: Rounds, desk: Desk, i: int, start: float) -> None:
    """Carry the decision in the row out, from `start` on; write the journal, and put the feedback on its way."""
    row, seen, truth, classes, clock = desk.row, desk.seen, desk.truth, desk.classes, desk.clock
    cut = whole(row[CUT])
    condition, sample, arrival = whole(rounds.condition[i]), whole(rounds.sample[i]), rounds.arrival[i]
    variant = desk.chosen[cut]
    whole_network = uncover(facts, desk, condition, sample)
    reveal(truth, classes, row, facts.options, seen)
    sent = seen[OFFLOADED] + seen[AUDITED] > 0.0
    ready, n_bytes, done, coding, coding_mj = 0.0, 0.0, math.inf, 0.0, 0.0
    if sent and variant >= 0:
        coding, coding_mj = facts.expected[t.ENCODE_MS, variant], facts.expected[t.ENCODE_MJ, variant]
        ready = start + facts.edge[0, cut] + coding
        first = max(ready, clock[t.LINK_FREE])
        if first > ready or not down(link, first):  # what has to queue cannot know how the link will be by then
            n_bytes = facts.sent_bytes[condition, variant, sample]
            done = transfer_end(link, first, n_bytes)
    outage = sent and done == math.inf
    in_vain = outage and variant >= 0  # computed and coded before the link was found down
    if outage and seen[AUDITED] == 1.0:  # the answer stands, only the audit fails
        audit = row[AUDIT]
        row[AUDIT] = 0.0
        reveal(truth, classes, row, facts.options, seen)
        row[AUDIT] = audit
        sent, outage = False, False
        n_bytes = 0.0
    answered = whole(seen[ANSWERED_AT])
    computed_to = cut if in_vain else depth(row, seen)
    if outage:
        answered = best_local(truth, row, facts.options[PREFIX] == 1)
        computed_to = whole(max(cut, 1))
        sent = False
    edge_ms, edge_mj = facts.edge[0, computed_to], facts.edge[1, computed_to]
    if in_vain:
        edge_ms, edge_mj = edge_ms + coding, edge_mj + coding_mj
    computed, back = start + edge_ms, start + edge_ms
    served = computed
    if not outage and seen[OFFLOADED] == 0.0:  # an audit computes on after the answer was served
        served = start + facts.edge[0, answered]
    clock[t.EDGE_FREE] = computed
    sending, trip, offload, sending_mj = 0.0, 0.0, 0.0, 0.0
    if sent:
        sending = done - max(ready, clock[t.LINK_FREE])
        sending_mj = coding_mj + transmit_mj(facts.terms[ENERGY:], sending, n_bytes)
        trip = round_trip_at(link, done)
        clock[t.EDGE_FREE], clock[t.LINK_FREE] = ready, done
        back = done + trip + facts.expected[t.DECODE_MS, variant] + facts.cloud[cut]
        late = back if seen[OFFLOADED] == 1.0 else computed
        offload = offload_price(facts.terms, back - computed, sending, n_bytes, computed - arrival, late - arrival)
        offload += facts.terms[PER_MJ] * coding_mj
        served = back if seen[OFFLOADED] == 1.0 else served
    edge = edge_price(facts.terms, edge_ms, edge_mj, min(served, computed) - arrival)
    seen[EDGE_PAID], seen[OFFLOAD_PAID] = edge, offload
    page, guess = desk.journal[i], classes[answered - 1]
    page[t.PLAYED], page[t.CUT_AT], page[t.VARIANT] = row[ARM], cut, variant if sent else -1.0
    page[t.ANSWERED], page[t.OUTAGE] = answered, 1.0 if outage else 0.0
    page[t.OFFLOAD], page[t.AUDIT] = seen[OFFLOADED] if sent else 0.0, seen[AUDITED] if sent else 0.0
    page[t.WAITED], page[t.EDGE], page[t.SENDING] = start - arrival, edge_ms, sending
    page[t.LATENCY], page[t.ENERGY], page[t.SIZE] = served - arrival, edge_mj + sending_mj, n_bytes
    page[t.QUOTED] = edge if outage else edge_cost(row, seen) + offload_cost(row, seen)
    page[t.EDGE_COST], page[t.OFFLOAD_COST] = edge, offload
    page[t.CONFIDENCE] = truth[answered - 1]
    page[t.REWARD] = truth[answered - 1] - row[MU] * (edge + offload)
    page[t.MISSED] = 1.0 if served - arrival > facts.terms[DEADLINE] else 0.0
    page[t.CORRECT] = 1.0 if guess == facts.label[sample] else 0.0
    page[t.AGREEMENT] = 1.0 if guess == whole_network else 0.0
    if not outage and rounds.lost[i] == 0 and answer_confidence(seen) >= 0.0:
        put_on_its_way(desk, i, back, n_bytes, sending, trip)
