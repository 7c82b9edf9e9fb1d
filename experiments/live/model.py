"""What the simulator's cost model says of decisions that were carried out live: its error without that of the path."""

import math

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments.links import LinkArrays, down, round_trip_at, transfer_end
from offramp.environments.timed.tables import DECODE_MS, ENCODE_MS, Facts

EDGE, CLOUD, FALLBACK, DROPPED = range(4)
KINDS = ("answered on the edge", "answered by the cloud", "fallback", "dropped")


def kinds(columns: dict[str, FloatArray]) -> npt.NDArray[np.int64]:
    """Who answered each request, from the columns of a journal, (n,)."""
    kind = np.where(columns["outage"] > 0.5, FALLBACK, np.where(columns["offloaded"] > 0.5, CLOUD, EDGE))
    return np.where(columns["dropped"] > 0.5, DROPPED, kind).astype(np.int64)


def modelled(
    facts: Facts, link: LinkArrays, arrival: FloatArray, columns: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """Milliseconds that the model gives to requests whose decisions, exits and bytes are known.

    The text is that of `offramp.environments.timed.journey`, without what it decides and draws.  A fallback computed up
    to its cut, and coded where the link was found down after that; one that waited for the cloud in vain is given no
    latency (nan), since the model knows no failing cloud.

    Parameters
    ----------
    facts, link
        Of the world that stands for the live one.
    arrival
        When each request arrived, ms, not decreasing, (n,).
    columns
        Of the live journal, by name, (n,) each; "variant" is -1 where nothing was sent.

    Returns
    -------
    dict
        "waited_ms", "edge_ms", "coding_ms", "sending_ms", "away_ms" (round trip, decoding and the cloud's computing),
        "latency_ms", (n,) each.

    """
    n = len(arrival)
    names = ("waited_ms", "edge_ms", "coding_ms", "sending_ms", "away_ms", "latency_ms")
    made = {name: np.zeros(n) for name in names}
    edge_free, link_free = 0.0, 0.0
    kind = kinds(columns)
    for i in range(n):
        if kind[i] == DROPPED:
            for name in names:
                made[name][i] = math.nan
            continue
        start = max(float(arrival[i]), edge_free)
        cut, variant = int(columns["cut"][i]), int(columns["variant"][i])
        waited, coding, sending, away = start - float(arrival[i]), 0.0, 0.0, 0.0
        if kind[i] == CLOUD:
            edge, coding = float(facts.edge[0, cut]), float(facts.expected[ENCODE_MS, variant])
            ready = start + edge + coding
            first = max(ready, link_free)
            done = transfer_end(link, first, float(columns["bytes"][i]))
            sending = done - first
            away = round_trip_at(link, done) + float(facts.expected[DECODE_MS, variant]) + float(facts.cloud[cut])
            edge_free, link_free = ready, done
            latency = done + away - float(arrival[i])
        else:
            deepest = max(cut, 1) if kind[i] == FALLBACK else int(columns["answered_at"][i])
            edge = float(facts.edge[0, deepest])
            edge_free = start + edge
            tried = kind[i] == FALLBACK and float(columns["bytes"][i]) > 0.0
            latency = math.nan if tried else edge_free - float(arrival[i])
        for name, value in zip(names, (waited, edge, coding, sending, away, latency), strict=True):
            made[name][i] = value
    return made


def also_down(link: LinkArrays, at_ms: FloatArray) -> npt.NDArray[np.bool_]:
    """Is the link down at these times?"""
    return np.array([bool(down(link, float(t))) for t in at_ms], dtype=np.bool_)
