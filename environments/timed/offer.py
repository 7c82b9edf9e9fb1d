"""The quote of one request in time: prices by the estimated link, and the codec that each split would send with."""

import math

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.rows import COSTS, EXITS, MU, context_at, offload_cost_at
from offramp.environments.link_estimate import push, rate, round_trip
from offramp.environments.link_kernels import LinkArrays, capacity, down, rate_at, round_trip_at
from offramp.environments.physical import PER_MJ, edge_price, offload_price
from offramp.environments.timed.tables import (
    BYTES,
    DECODE_MS,
    ENCODE_MJ,
    ENCODE_MS,
    HEARD,
    LINK_FREE,
    PENALTY,
    Desk,
    Facts,
    Rounds,
)


@kernel
def prices(facts: Facts, desk: Desk, closed: bool, waited: float, backlog: float) -> None:
    """Write the quote of one request into the decision row, and which codec each split would send with.

    Of the codecs of a split the quote takes the one that costs least, the confidence that it is known to lose
    included: what a codec loses was measured beforehand, so there is nothing to explore.
    """
    row, terms, expected = desk.row, facts.terms, facts.expected
    for k in range(facts.blank.shape[0]):
        row[k] = facts.blank[k]
    exits = whole(row[EXITS])
    offers = offload_cost_at(exits)
    per_ms, trip = rate(desk.estimate), round_trip(desk.estimate)
    for i in range(exits + 1):
        computed = waited + facts.edge[0, i]
        row[COSTS + i] = edge_price(terms, facts.edge[0, i], facts.edge[1, i], computed)
        best, chosen, lowest = math.inf, -1, math.inf
        if i < exits and not closed and per_ms > 0.0:
            for v in range(facts.first[i], facts.first[i + 1]):
                sending = expected[BYTES, v] / per_ms
                ready = facts.edge[0, i] + expected[ENCODE_MS, v]
                ms = expected[ENCODE_MS, v] + max(backlog / per_ms - ready, 0.0) + sending
                ms += trip + expected[DECODE_MS, v] + facts.cloud[i]
                cost = offload_price(terms, ms, sending, expected[BYTES, v], computed, computed + ms)
                cost += terms[PER_MJ] * expected[ENCODE_MJ, v]
                if row[MU] * cost + expected[PENALTY, v] < best:
                    best, chosen, lowest = row[MU] * cost + expected[PENALTY, v], v, cost
        row[offers + i] = lowest if i < exits else 0.0
        desk.chosen[i] = chosen


@kernel
def begin(facts: Facts, link: LinkArrays, rounds: Rounds, desk: Desk, i: int, start: float) -> None:
    """Fill the decision row for a request whose turn has come: prices as estimated, and its context."""
    arrival = rounds.arrival[i]
    backlog = capacity(link, start, desk.clock[LINK_FREE]) if desk.clock[LINK_FREE] > start else 0.0
    if start - desk.clock[HEARD] >= facts.probe_ms[0]:
        push(desk.estimate, rate_at(link, start), 1.0, round_trip_at(link, start))
        desk.clock[HEARD] = start
    prices(facts, desk, down(link, start), start - arrival, backlog)
    at = context_at(whole(facts.blank[EXITS]))
    for k in range(facts.context.shape[2]):
        desk.row[at + k] = facts.context[rounds.condition[i], rounds.sample[i], k]
