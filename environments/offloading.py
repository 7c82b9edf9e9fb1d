"""What calibration is for: who answers at a target, how often the edge does and how well, and when the answer is there.

A device runs the exits 1..k in turn, answers at the first whose confidence is at least the target, and otherwise sends
the sample to the cloud, whose final exit answers.  Pacheco, Couto and Simeone (ICC 2021, arXiv 2010.16335), and their
journal paper (JNCA 217, 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A way to the cloud: rate in Mbit/s > 0 and round trip time in ms >= 0."""

    name: str
    mbit_per_s: float
    rtt_ms: float

    def __post_init__(self) -> None:
        if not 0.0 < self.mbit_per_s < np.inf:
            raise ValueError(f"mbit_per_s is {self.mbit_per_s}, allowed is a finite number > 0")
        if not 0.0 <= self.rtt_ms < np.inf:
            raise ValueError(f"rtt_ms is {self.rtt_ms}, allowed is a finite number >= 0")

    def ms(self, payload_bytes: float) -> float:
        """Time on the way of one offload: half a round trip each way, and the payload at the link's rate."""
        return self.rtt_ms + 8.0 * payload_bytes / (1e3 * self.mbit_per_s)


FALLBACKS = ("last", "most_confident")

LINKS = {
    "sao_paulo": Link(name="São Paulo", mbit_per_s=93.6, rtt_ms=10.0),
    "fremont": Link(name="Fremont", mbit_per_s=73.3, rtt_ms=180.0),
    "paris": Link(name="Paris", mbit_per_s=60.0, rtt_ms=216.0),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """Who answered each of n samples.

    Attributes
    ----------
    stopped
        Place at which the sample left the edge, (n,) in 0..k: k = it was sent to the cloud.
    correct
        Was the answer that was served right, (n,)?
    edge_exits
        k.

    """

    stopped: npt.NDArray[np.int64]
    correct: Mask
    edge_exits: int

    @property
    def edge(self) -> Mask:
        """Was it answered at the edge, (n,)?"""
        return self.stopped < self.edge_exits


def answers(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    target: float,
    *,
    edge_exits: int | None = None,
    fallback: str = "last",
) -> Answers:
    r"""Run the cascade at a target, first exit with confidence :math:`\geq` it.

    Parameters
    ----------
    confidence, correct
        Of every exit, (n, L) with L >= 2: calibrated, in [0, 1]; and whether its prediction is right.
    target
        p_tar >= 0; one above every confidence sends everything.
    edge_exits
        k in 1..L-1; None: all but the final exit.  Exits between k and the final one are never asked.
    fallback
        "last": the final exit answers what was sent.  "most_confident": only where it reaches the target; elsewhere
        the most confident of the k edge exits and the final one does, the last among equals.

    Raises
    ------
    ValueError
        An argument is out of its range.

    """
    c, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if c.ndim != 2 or c.shape[1] < 2 or len(c) < 1:
        raise ValueError(f"confidence has shape {c.shape}, allowed is (samples, exits) with at least 2 exits")
    if right.shape != c.shape:
        raise ValueError(f"correct has shape {right.shape}, allowed is that of confidence, {c.shape}")
    if not ((c >= 0.0) & (c <= 1.0)).all():
        raise ValueError(f"confidence holds {c[~((c >= 0.0) & (c <= 1.0))][0]}, allowed is [0, 1]")
    if not target >= 0.0:  # nan among the refused
        raise ValueError(f"target is {target}, allowed is a number >= 0")
    exits = c.shape[1]
    k = exits - 1 if edge_exits is None else edge_exits
    if not 1 <= k < exits:
        raise ValueError(f"edge_exits is {edge_exits}, allowed is 1..{exits - 1}")
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback is {fallback!r}, allowed are {FALLBACKS}")
    places = np.r_[:k, exits - 1]
    reached = c[:, places] >= target
    reached[:, k] = True
    stopped = reached.argmax(axis=1)
    answering = places[stopped]
    if fallback == "most_confident":
        surest = places[::-1][c[:, places[::-1]].argmax(axis=1)]
        answering = np.where(stopped == k, surest, answering)  # which is the final one where that reaches the target
    return Answers(stopped=stopped, correct=right[np.arange(len(c)), answering], edge_exits=k)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Share and accuracy of the edge (nan without any answer), accuracy of all, and share of each place (k + 1,)."""

    edge_probability: float
    edge_accuracy: float
    accuracy: float
    by_exit: tuple[float, ...]


def shares(found: Answers) -> Shares:
    """Sum up who answered; the offloading probability is the last share of `by_exit`."""
    edge = found.edge
    return Shares(
        edge_probability=float(edge.mean()),
        edge_accuracy=float(found.correct[edge].mean()) if edge.any() else float("nan"),
        accuracy=float(found.correct.mean()),
        by_exit=tuple(float(s) for s in np.bincount(found.stopped, minlength=found.edge_exits + 1) / len(edge)),
    )


def latency(
    found: Answers, *, edge_ms: Sequence[float], cloud_ms: float, payload_bytes: float, link: Link
) -> FloatArray:
    """Time of each sample in ms, (n,).

    Parameters
    ----------
    found
        Who answered.
    edge_ms
        Time of each segment with its exit on the device, (k,), >= 0.
    cloud_ms
        Time of the rest of the network in the cloud, >= 0.
    payload_bytes
        What is sent at exit k, >= 0.
    link
        The way there and back; the answer itself weighs nothing.

    Raises
    ------
    ValueError
        A time or size is negative, not finite, or missing.

    """
    spent = np.asarray(edge_ms, dtype=np.float64)
    if spent.shape != (found.edge_exits,) or not (np.isfinite(spent) & (spent >= 0.0)).all():
        raise ValueError(f"edge_ms is {edge_ms}, allowed are {found.edge_exits} finite numbers >= 0")
    for name, value in (("cloud_ms", cloud_ms), ("payload_bytes", payload_bytes)):
        if not 0.0 <= value < np.inf:
            raise ValueError(f"{name} is {value}, allowed is a finite number >= 0")
    through = np.cumsum(spent)
    by_place = np.append(through, through[-1] + link.ms(payload_bytes) + cloud_ms)
    times: FloatArray = by_place[found.stopped]
    return times


def refuse_target(target: float) -> None:
    """Raise ValueError for a target outside (0, 1)."""
    if not 0.0 < target < 1.0:
        raise ValueError(f"target is {target}, allowed is a number in (0, 1)")
