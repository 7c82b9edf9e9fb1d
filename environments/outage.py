"""Failures batch by batch: an edge that is right less often than promised, and answers that come late or are wrong.

Pacheco, Couto and Simeone (ICC 2021, arXiv 2010.16335), and their journal paper (JNCA 217, 2023).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments.offloading import Answers, refuse_target

BATCH, ROUNDS = 256, 100
EMPTY = ("exclude", "success")
Z = 1.96  # of a two-sided 95 % interval


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Mean over rounds of the share of failing batches, its 95 % interval, and the share of batches not counted."""

    mean: float
    low: float
    high: float
    empty: float


def inference_outage(
    found: Answers,
    target: float,
    *,
    batch: int = BATCH,
    rounds: int = ROUNDS,
    empty: str = "exclude",
    seed: int = 0,
) -> Outage:
    """Share of batches in which the answers of the edge alone are right less often than the target.

    Parameters
    ----------
    found
        Who answered, at this target.
    target
        p_tar in (0, 1).
    batch, rounds
        Samples in a batch, of which the last of a round may be shorter, and shuffles of all samples; >= 1 and >= 2.
    empty
        Batches without an answer of the edge: "exclude" leaves them out and reports their share; "success" counts
        them as no outage, as the published code does.
    seed
        Of the shuffles.

    Raises
    ------
    ValueError
        An argument is out of its range.

    Notes
    -----
    The interval (1.96 standard errors over rounds) is that of shuffling these samples; it does not know how far other
    samples would differ.  All of nan: no batch had an answer of the edge.

    """
    refuse_target(target)
    if empty not in EMPTY:
        raise ValueError(f"empty is {empty!r}, allowed are {EMPTY}")
    order = _shuffles(len(found.correct), batch, rounds, np.random.default_rng(seed))
    answered = _sums(found.edge, order, batch)
    right = _sums(found.edge & found.correct, order, batch)
    some = answered > 0
    failed = some & (right / np.maximum(answered, 1) < target)
    counted = some.sum(axis=1) if empty == "exclude" else np.full(rounds, some.shape[1])
    share = failed.sum(axis=1)[counted > 0] / counted[counted > 0]
    mean, half = (float(x[0]) for x in _mean(share[:, None]))
    return Outage(mean=mean, low=max(mean - half, 0.0), high=min(mean + half, 1.0), empty=float(1.0 - some.mean()))


@dataclass(frozen=True, eq=False, kw_only=True)
class MissedDeadline:
    """Mean over rounds of the share of batches that miss, and its 95 % interval, for each deadline, (T,) each."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


def missed_deadline(
    found: Answers,
    times_ms: npt.ArrayLike,
    deadlines_ms: npt.ArrayLike,
    target: float,
    *,
    batch: int = BATCH,
    rounds: int = ROUNDS,
    joint: bool = True,
    seed: int = 0,
) -> MissedDeadline:
    """Share of batches whose mean time exceeds the deadline, or of whose answers too few are right.

    Parameters
    ----------
    found
        Who answered, at this target.
    times_ms
        Of each sample, (n,), see `latency`.
    deadlines_ms
        t_tar, (T,).
    target
        p_tar in (0, 1), which the accuracy of edge and cloud together has to reach.
    batch, rounds, seed
        See `inference_outage`.
    joint
        Are time and correctness those of the same samples?  False shuffles them apart, as the published code does: it
        loses that what is sent costs time but is right more often.

    Raises
    ------
    ValueError
        An argument is out of its range.

    """
    refuse_target(target)
    times, deadlines = np.asarray(times_ms, dtype=np.float64), np.asarray(deadlines_ms, dtype=np.float64)
    n = len(found.correct)
    if times.shape != (n,) or not np.isfinite(times).all():
        raise ValueError(f"times_ms has shape {times.shape}, allowed are {n} finite numbers")
    if deadlines.ndim != 1 or np.isnan(deadlines).any():
        raise ValueError(f"deadlines_ms has shape {deadlines.shape}, allowed is a list of numbers")
    rng = np.random.default_rng(seed)
    order = _shuffles(n, batch, rounds, rng)
    of_times = order if joint else _shuffles(n, batch, rounds, rng)
    size = _sums(np.ones(n, dtype=bool), order, batch)
    wrong = _sums(found.correct, order, batch) / size < target
    late = (_sums(times, of_times, batch) / size)[..., None] > deadlines
    mean, half = _mean((late | wrong[..., None]).mean(axis=1))
    return MissedDeadline(mean=mean, low=np.maximum(mean - half, 0.0), high=np.minimum(mean + half, 1.0))


def _shuffles(n: int, batch: int, rounds: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The samples in an order of its own for each round, (rounds, n)."""
    if batch < 1:
        raise ValueError(f"batch is {batch}, allowed is a whole number >= 1")
    if rounds < 2:
        raise ValueError(f"rounds is {rounds}, allowed is a whole number >= 2")
    return rng.permuted(np.broadcast_to(np.arange(n), (rounds, n)), axis=1)


def _sums(values: npt.NDArray[np.generic], order: npt.NDArray[np.int64], batch: int) -> FloatArray:
    """Sum over each batch, (rounds, batches)."""
    starts = np.arange(0, order.shape[1], batch)
    total: FloatArray = np.add.reduceat(values[order].astype(np.float64), starts, axis=1)
    return total


def _mean(share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean over rounds (R, T), and half of its 95 % interval, (T,) each."""
    if len(share) < 1:
        return np.full(share.shape[1], np.nan), np.full(share.shape[1], np.nan)
    spread = share.std(axis=0, ddof=1) if len(share) > 1 else np.zeros(share.shape[1])
    return share.mean(axis=0), Z * spread / np.sqrt(len(share))
