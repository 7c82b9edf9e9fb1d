"""From traces to numbers with intervals: what is reported, in which unit, against whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from offramp.bandits.arms import Arms
from offramp.bandits.rows import IntArray
from offramp.environments import Comparators, Trace
from offramp.environments.stream import Stream
from offramp.experiments.closer import Closer, changes

# Two-sided 95 % quantiles of Student's t for 1..30 degrees of freedom, and of the normal distribution.
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
Z95 = 1.959964
REFERENCE = "final_exit"
WITHIN_METRIC = "ceiling_regret_total"  # of policies that keep a ceiling, against the best arm that keeps it
RECOVERED = 0.05  # regret a round, in units of confidence, below which a policy has caught up with a change


@dataclass(frozen=True, eq=False)
class Played:
    """All that one world yielded.

    Parameters
    ----------
    name
        The world's name.
    arms, stream, seeds, horizon
        What was played.
    traces
        Policy name -> one trace for each seed.
    refused
        Policy name -> why this world does not offer what it plays.
    comparators
        One for each seed.
    best
        Index of the best arm under each (condition, link) of the stream, (S, P).
    kept
        Name of a policy with a budget -> regret of the best arm that keeps its ceiling, one for each seed.
    closer
        Policy name -> what was looked at more closely than a trace does, one for each seed.

    """

    name: str
    arms: Arms
    stream: Stream
    seeds: Sequence[int]
    horizon: int
    traces: Mapping[str, Sequence[Trace]]
    refused: Mapping[str, str]
    comparators: Sequence[Comparators]
    best: IntArray
    kept: Mapping[str, Sequence[float]] = field(default_factory=dict)
    closer: Mapping[str, Sequence[Closer]] = field(default_factory=dict)


def student(degrees: float, terms: int = 4) -> float:
    """The t distribution's 97.5 % quantile by so many terms of its series; by all four within .004 from 3 degrees on.

    Notes
    -----
    The series in Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5.

    Examples
    --------
    >>> round(student(10.0), 3), round(student(30.0), 3), round(student(math.inf), 3)
    (2.228, 2.042, 1.96)

    """
    z = Z95
    series = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / degrees**k for k, term in enumerate(series[:terms], 1))


def t95(n: int) -> float:
    """Student's two-sided 95 % quantile for the mean of n values; nan for fewer than two.

    Notes
    -----
    Up to 31 values from a table. Beyond it by two terms of `student`: the first that is left out is below 1e-4 there.

    Examples
    --------
    >>> t95(2), round(t95(32), 3), round(t95(1_000_000), 3)
    (12.706, 2.039, 1.96)

    """
    if n < 2:
        return math.nan
    if n - 2 < len(T95):
        return T95[n - 2]
    return student(n - 1, terms=2)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and the half-width of its 95 % interval over seeds; nan for a single seed."""
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2:
        return {"mean": float(x.mean()), "half": math.nan}
    return {"mean": float(x.mean()), "half": float(t95(n) * x.std(ddof=1) / math.sqrt(n))}


def metrics(trace: Trace, comparators: Comparators) -> dict[str, float]:
    """What one run says, per round unless it says otherwise."""
    rounds = float(trace.rounds[-1])
    best_static = float(comparators.static[-1].max())
    return {
        "cost": float(trace.cost[-1]) / rounds,
        "edge_cost": trace.mean("edge_cost"),
        "offload_cost": trace.mean("offload_cost"),
        "reward": trace.mean("reward"),
        "accuracy": trace.mean("correct"),
        "agreement": trace.mean("agreement"),
        "offload_share": trace.mean("offloads"),
        "audit_share": trace.mean("audits"),
        "regret_total": float(trace.sums["regret"][-1]),
        "realised_regret_total": float(comparators.dynamic[-1] - trace.sums["reward"][-1]),
        "static_regret_total": best_static - float(trace.sums["reward"][-1]),
        "clairvoyant_gap_total": float(comparators.clairvoyant[-1] - trace.sums["reward"][-1]),
        "bin_rule_gap_total": float(comparators.binned[-1] - trace.sums["reward"][-1]),
        "edge_megamacs": trace.mean("macs") / 1e6,
        "kilobytes_sent": trace.mean("bytes") / 1e3,
        "microseconds_per_round": trace.seconds / rounds * 1e6,
    }


def recovery(trace: Trace, at: IntArray, tolerance: float = RECOVERED) -> float:
    """Mean rounds from a change until regret stays below `tolerance` a round for one interval between checkpoints.

    A change that is never recovered from counts with the rounds to the next one; nan where nothing changes, or where
    changes come closer than the trace can resolve.
    """
    rounds, regret = trace.rounds, trace.sums["regret"]
    ends = np.append(at[1:], rounds[-1])
    if len(at) == 0 or (ends - at).min() < 4 * np.diff(rounds).max():
        return math.nan
    taken = []
    for start, end in zip(at, ends, strict=True):
        inside = np.flatnonzero((rounds[:-1] >= start) & (rounds[1:] <= end))
        rate = np.diff(regret)[inside] / np.diff(rounds)[inside]
        calm = np.flatnonzero(rate <= tolerance)
        taken.append((rounds[1:][inside[calm[0]]] if len(calm) else end) - start)
    return float(np.mean(taken))


def table(played: Played) -> pd.DataFrame:
    """One row for each policy and seed, with every metric and the paired differences to the final exit."""
    rows = []
    for policy, traces in played.traces.items():
        for seed, trace, comparators in zip(played.seeds, traces, played.comparators, strict=True):
            rows.append({"world": played.name, "policy": policy, "seed": seed, **metrics(trace, comparators)})
            rows[-1]["recovery_rounds"] = recovery(trace, changes(played.stream, played.horizon, seed))
        for row, closer in zip(rows[-len(traces) :], played.closer.get(policy, ()), strict=False):
            row["calibration_error"] = closer.calibration_error
        for row, allowed in zip(rows[-len(traces) :], played.kept.get(policy, ()), strict=False):
            row[WITHIN_METRIC] = row["regret_total"] - allowed
    frame = pd.DataFrame(rows)
    if REFERENCE in played.traces:
        final = frame[frame.policy == REFERENCE].set_index("seed")
        frame["cost_saved"] = 1.0 - frame.cost / frame.seed.map(final.cost)
        frame["accuracy_change"] = frame.accuracy - frame.seed.map(final.accuracy)
    return frame


def summary(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Policy -> metric -> mean and half-width of the 95 % interval over seeds (paired where it is a difference)."""
    return {
        str(policy): {
            str(metric): interval(group[metric].tolist())
            for metric in frame.columns
            if metric not in ("world", "policy", "seed")
            and not (metric == WITHIN_METRIC and group[metric].isna().all())
        }
        for policy, group in frame.groupby("policy", sort=False)
    }


def long_traces(played: Played) -> pd.DataFrame:
    """Every trace at every checkpoint, one row for each (policy, seed, round)."""
    parts = []
    for policy, traces in played.traces.items():
        for seed, trace in zip(played.seeds, traces, strict=True):
            columns: dict[str, Any] = {"world": played.name, "policy": policy, "seed": seed, "round": trace.rounds}
            parts.append(pd.DataFrame(columns | trace.sums))
    return pd.concat(parts, ignore_index=True)
