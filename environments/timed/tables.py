"""What a world in time is made of, as arrays: its facts, its requests, and what changes while it runs."""

from typing import Any, NamedTuple

import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray

# Of each (split, codec) variant: bytes to expect, milliseconds of coding on either side, confidence it costs, and the
# edge's millijoules of coding.
BYTES, ENCODE_MS, DECODE_MS, PENALTY, ENCODE_MJ = range(5)


class Facts(NamedTuple):
    """What is true in a world in time; S conditions, N samples, L exits, V variants, d context features."""

    confidence: FloatArray  # (S, N, L)
    prediction: npt.NDArray[Any]  # (S, N, L) int16
    label: npt.NDArray[Any]  # (N,) int16, read by the scorer alone
    context: FloatArray  # (S, N, d)
    sent_confidence: FloatArray  # (S, V, N) of the last exit, when the cloud goes on from a variant's payload
    sent_prediction: npt.NDArray[Any]  # (S, V, N) int16
    sent_bytes: FloatArray  # (S, V, N)
    first: IntArray  # (L + 1,) variants of split i are first[i]..first[i + 1] - 1
    expected: FloatArray  # (5, V)
    edge: FloatArray  # (2, L + 1) milliseconds and millijoules up to each cut
    cloud: FloatArray  # (L + 1,) milliseconds from each cut to the end
    terms: FloatArray  # see `offramp.environments.physical`
    options: IntArray  # (4,) see `offramp.bandits.reveal`
    probe_ms: FloatArray  # (1,) after so long without a transfer the radio reports the link's state
    blank: FloatArray  # (W,) a decision row with mu, and no price yet


class Rounds(NamedTuple):
    """The requests: which sample under which condition, when it arrives, and whether its feedback is lost."""

    sample: IntArray  # (n,)
    condition: IntArray  # (n,)
    arrival: FloatArray  # (n,) ms, not decreasing
    lost: IntArray  # (n,) 1 = the feedback never arrives


# The clock: when edge and uplink are free again, feedback on its way, the next round, feedback given up for lack of
# room, requests accepted, when the link was last heard of.
EDGE_FREE, LINK_FREE, WAITING, ROUND, GIVEN_UP, ACCEPTED, HEARD = range(7)
CLOCK = 7
# Feedback on its way: when it is back, whose it is, what its transfer showed; then the decision and the observation.
BACK, OF, SENT_BYTES, SENT_MS, SENT_ROUND_TRIP, ROWS = range(6)
# A page of the journal: one row for each request.
FIELDS = (
    "dropped",
    "arm",
    "cut",
    "variant",
    "answered_at",
    "offloaded",
    "audited",
    "outage",
    "waited_ms",
    "edge_ms",
    "sending_ms",
    "latency_ms",
    "energy_mj",
    "bytes",
    "quoted_cost",
    "edge_cost",
    "offload_cost",
    "confidence",
    "reward",
    "missed",
    "correct",
    "agreement",
)
DROPPED, PLAYED, CUT_AT, VARIANT, ANSWERED, OFFLOAD, AUDIT, OUTAGE, WAITED, EDGE, SENDING = range(11)
LATENCY, ENERGY, SIZE, QUOTED, EDGE_COST, OFFLOAD_COST, CONFIDENCE, REWARD, MISSED, CORRECT, AGREEMENT = range(11, 22)


class Desk(NamedTuple):
    """What changes while the world runs."""

    clock: FloatArray  # (CLOCK,)
    estimate: FloatArray  # see `offramp.environments.link_estimate`
    waiting: FloatArray  # (M, ROWS + W + O) feedback on its way
    left: FloatArray  # (B,) when the last B accepted requests left the edge, B - 1 may wait; (0,) = endless buffer
    chosen: IntArray  # (L + 1,) the variant that the current quote sends from each split, -1 = none
    row: FloatArray  # (W,) scratch: a decision row
    seen: FloatArray  # (O,) scratch: an observation row
    truth: FloatArray  # (L,) scratch: confidences, with the last exit's after coding
    classes: npt.NDArray[Any]  # (L,) int16 scratch
    journal: FloatArray  # (n, FIELDS)
