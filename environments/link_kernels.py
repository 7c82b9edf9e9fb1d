"""Links over time as arrays, and the kernels that walk them by bytes: what can be sent when, and when it has been."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.bandits.kernel import compile_here, kernel, whole
from offramp.bandits.rows import FloatArray

BYTES_PER_MS = 125.0  # 1 Mbit/s


class LinkArrays(NamedTuple):
    """A link whose rate is constant in each of K segments; after the last one the first comes again.

    `ends`: end of each segment, (K,) ms, strictly increasing, > 0.  `sent`: bytes that can have been sent from 0 to
    each end, (K,).  `rate`: (K,) bytes per ms, >= 0, where 0 is an outage.  `round_trip`: (K,) ms, >= 0.
    """

    ends: FloatArray
    sent: FloatArray
    rate: FloatArray
    round_trip: FloatArray


def link_arrays(lengths_ms: npt.ArrayLike, mbit_s: npt.ArrayLike, round_trip_ms: npt.ArrayLike) -> LinkArrays:
    """The arrays of segments that follow one another, (K,) each; a length that adds nothing to the time is left out."""
    return arrays_to(np.cumsum(np.asarray(lengths_ms, dtype=np.float64)), mbit_s, round_trip_ms)


def arrays_to(ends_ms: npt.ArrayLike, mbit_s: npt.ArrayLike, round_trip_ms: npt.ArrayLike) -> LinkArrays:
    """As `link_arrays`, from the end of each segment instead of its length."""
    ends = np.asarray(ends_ms, dtype=np.float64)
    kept = np.diff(ends, prepend=0.0) > 0.0
    ends = ends[kept]
    rate = np.broadcast_to(np.asarray(mbit_s, dtype=np.float64), kept.shape)[kept] * BYTES_PER_MS
    trips = np.broadcast_to(np.asarray(round_trip_ms, dtype=np.float64), kept.shape)[kept].copy()
    return LinkArrays(ends, np.cumsum(np.diff(ends, prepend=0.0) * rate), rate, trips)


@kernel
def place(link: LinkArrays, ms: float) -> float:
    """How far into the link's arrays a time is, ms in [0, its end)."""
    period = float(link.ends[len(link.ends) - 1])
    if 0.0 <= ms < period:
        return ms
    left = float(ms % period)  # exact: a remainder is not rounded
    return left if left < period else 0.0


@kernel
def segment_at(link: LinkArrays, offset: float) -> int:
    """The segment of a place: the first that ends later."""
    low, high = 0, len(link.ends) - 1
    while low < high:
        middle = whole((low + high) >> 1)
        if link.ends[middle] > offset:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def rate_at(link: LinkArrays, ms: float) -> float:
    """The rate at a time, bytes per ms."""
    return float(link.rate[whole(segment_at(link, place(link, ms)))])


@kernel
def round_trip_at(link: LinkArrays, ms: float) -> float:
    """The round trip at a time, ms."""
    return float(link.round_trip[whole(segment_at(link, place(link, ms)))])


@kernel
def down(link: LinkArrays, ms: float) -> bool:
    """Can nothing be sent at this time?"""
    return rate_at(link, ms) == 0.0


@kernel
def sent_by(link: LinkArrays, offset: float, i: int) -> float:
    """Bytes that can have been sent from the start of the arrays to a place in segment i."""
    if i == 0:
        return float(offset * link.rate[0])
    return float(link.sent[i - 1] + (offset - link.ends[i - 1]) * link.rate[i])


@kernel
def capacity(link: LinkArrays, start_ms: float, end_ms: float) -> float:
    """Bytes that can be sent between two times, start_ms <= end_ms; 0 where the second is the earlier."""
    last = len(link.ends) - 1
    if not end_ms > start_ms:
        return 0.0
    if end_ms == math.inf:
        return math.inf if link.sent[last] > 0.0 else 0.0
    first, final = place(link, start_ms), place(link, end_ms)
    i, j = whole(segment_at(link, first)), whole(segment_at(link, final))
    cycles = float(math.floor(((end_ms - final) - (start_ms - first)) / link.ends[last] + 0.5))
    if cycles == 0.0 and i == j:
        return float((end_ms - start_ms) * link.rate[i])
    return float(cycles * link.sent[last] + (sent_by(link, final, j) - sent_by(link, first, i)))


@kernel
def transfer_end(link: LinkArrays, start_ms: float, n_bytes: float) -> float:
    """When the last of so many bytes has been sent, ms; +inf where the link never carries that much.

    Parameters
    ----------
    link
        The arrays; they repeat.
    start_ms
        When the first byte may be sent, finite and >= 0; during an outage it waits.
    n_bytes
        How many, >= 0.  None at all end where they start.

    Notes
    -----
    Exact by bytes: the rate of each segment counts for the time spent in it, not the rate at the start for all.
    In bytes and in start the end is monotone up to rounding, and never before the start.

    """
    last = len(link.ends) - 1
    if not n_bytes > 0.0 or not start_ms < math.inf:
        return start_ms
    offset = place(link, start_ms)
    i = whole(segment_at(link, offset))
    if link.rate[i] > 0.0 and (last == 0 or n_bytes <= (link.ends[i] - offset) * link.rate[i]):
        return float(start_ms + n_bytes / link.rate[i])
    whole_link = float(link.sent[last])
    if not whole_link > 0.0 or not n_bytes < math.inf:
        return math.inf
    sought, begin = sent_by(link, offset, i) + n_bytes, start_ms - offset
    if sought > whole_link:
        left = sought % whole_link
        if not left > 0.0:
            left = whole_link
        begin += (sought - left) / whole_link * link.ends[last]
        sought = left
    low, high = 0, last
    while low < high:  # the first segment by whose end so much has been sent: its rate is > 0
        middle = whole((low + high) >> 1)
        if link.sent[middle] >= sought:
            high = middle
        else:
            low = middle + 1
    j = whole(low)
    before = link.sent[j - 1] if j > 0 else 0.0
    at = (link.ends[j - 1] if j > 0 else 0.0) + (sought - before) / link.rate[j]
    return float(max(start_ms, begin + min(at, link.ends[j])))


@compile_here
def send_in_order(link: LinkArrays, ready_ms: FloatArray, n_bytes: FloatArray, ends_ms: FloatArray) -> None:
    """Send one transfer after another: each starts when it is ready and its predecessor has ended; fills `ends_ms`."""
    free = 0.0
    for k in range(len(ready_ms)):
        free = transfer_end(link, max(free, ready_ms[k]), n_bytes[k])
        ends_ms[k] = free


@kernel
def transmit_mj(energy: FloatArray, ms: float, n_bytes: float) -> float:
    """Millijoules of a transfer of so many bytes that took so long; `energy` as `Energy.array` returns it."""
    if not n_bytes > 0.0:
        return 0.0
    return float((energy[0] * (n_bytes / BYTES_PER_MS) + energy[1] * ms) / 1000.0 + energy[2])
