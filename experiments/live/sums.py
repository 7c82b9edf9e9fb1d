"""From the columns of two runs to what is told: ratios over blocks, kinds of answers, parts of the model's error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.experiments.joint_policy.statistics import paired
from offramp.experiments.live.model import CLOUD, EDGE, FALLBACK, KINDS, kinds
from offramp.experiments.results import interval

BLOCKS = 24
WITHIN = 0.15  # of the live mean latency
RECOVERED_S = 5.0
Columns = dict[str, FloatArray]
Found = dict[str, Any]
# Columns that are kept of a run, and digits after the point.
KEPT = {
    "dropped": 0, "cut": 0, "variant": 0, "answered_at": 0, "offloaded": 0, "outage": 0, "waited_ms": 2, "edge_ms": 2,
    "sending_ms": 2, "latency_ms": 2, "energy_mj": 1, "bytes": 0, "edge_cost": 4, "offload_cost": 4, "confidence": 4,
    "reward": 4, "missed": 0, "correct": 0, "agreement": 0,
}  # fmt: skip
COMPARED = (
    ("latency_ms", "mean latency, ms", 1.0, 1), ("correct", "accuracy, %", 100.0, 1),
    ("agreement", "as the whole network, %", 100.0, 1), ("offloaded", "answered by the cloud, %", 100.0, 1),
    ("outage", "fallbacks, %", 100.0, 2), ("missed", "later than the deadline, %", 100.0, 2),
    ("bytes", "bytes", 1.0, 0), ("energy_mj", "energy on the edge, mJ", 1.0, 1), ("cost", "cost", 1.0, 4),
    ("reward", "reward", 1.0, 4),
)  # fmt: skip


def columns_of(run: Mapping[str, Sequence[float]]) -> Columns:
    """The columns of a record as arrays; nothing is null but a number that is not known."""
    return {
        name: np.array([np.nan if v is None else v for v in values], dtype=np.float64) for name, values in run.items()
    }


def blocks(values: FloatArray, count: int = BLOCKS) -> list[float]:
    """Means over so many stretches of consecutive requests of about the same length, without what is not known."""
    parts = np.array_split(values, min(count, len(values)))
    return [float(np.nanmean(part)) if np.isfinite(part).any() else float("nan") for part in parts]


def ratio(above: FloatArray, below: FloatArray) -> dict[str, float]:
    """Ratio of two means, with the half-width of the 95 % interval of the ratios of blocks, requests known in both."""
    known = np.isfinite(above) & np.isfinite(below)
    if not known.any():
        return {"mean": float("nan"), "half": float("nan"), "n": 0}
    a, b = above[known], below[known]
    found = interval([x / y for x, y in zip(blocks(a), blocks(b), strict=True)])
    return {"mean": float(a.mean() / b.mean()), "half": found["half"], "n": int(known.sum())}


def against(live: Columns, other: Columns) -> list[Found]:
    """Every metric of two runs side by side, and the other minus the live one with the 95 % interval over blocks."""
    rows = []
    for name, title, scale, digits in COMPARED:
        a, b = (scale * _column(run, name) for run in (live, other))
        difference = paired(blocks(b), blocks(a))
        rows.append(
            {
                "title": title,
                "digits": digits,
                "live": float(np.nanmean(a)),
                "other": float(np.nanmean(b)),
                "difference": {"mean": float(np.nanmean(b) - np.nanmean(a)), "half": difference["half"]},
            }
        )
    return rows


def _column(run: Columns, name: str) -> FloatArray:
    return run["edge_cost"] + run["offload_cost"] if name == "cost" else run[name]


def by_kind(run: Columns, latency: FloatArray | None = None) -> list[Found]:
    """Number, mean, median and 95 % quantile of the latency of the requests that each of the three answered."""
    ms, kind = run["latency_ms"] if latency is None else latency, kinds(run)
    rows = []
    for which in (EDGE, CLOUD, FALLBACK):
        here = ms[(kind == which) & np.isfinite(ms)]
        some = len(here) > 0
        rows.append(
            {
                "kind": KINDS[which],
                "n": int((kind == which).sum()),
                "known": len(here),
                "mean": float(here.mean()) if some else float("nan"),
                "p50": float(np.quantile(here, 0.5)) if some else float("nan"),
                "p95": float(np.quantile(here, 0.95)) if some else float("nan"),
            }
        )
    return rows


def by_condition(run: Columns, condition: FloatArray, names: Sequence[str]) -> list[Found]:
    """Mean latency, accuracy and share of the cloud under each condition."""
    rows = []
    for c, name in enumerate(names):
        here = condition == c
        if here.any():
            rows.append(
                {
                    "condition": name,
                    "n": int(here.sum()),
                    **{k: float(np.nanmean(run[k][here])) for k in ("latency_ms", "correct", "offloaded")},
                }
            )
    return rows


def parts(live: Columns, model: Columns) -> list[Found]:
    """Where the model errs: mean ms of each part of an answer, live and by the model, for the same decisions.

    What a live request spent beyond waiting, computing, coding and sending is the round trip, the cloud, and the
    programs in between.
    """
    rows, kind = [], kinds(live)
    rest = {
        "live": live["latency_ms"] - live["waited_ms"] - live["edge_ms"] - live["sending_ms"],
        "model": model["latency_ms"] - model["waited_ms"] - model["edge_ms"] - model["sending_ms"],
    }
    for which in (EDGE, CLOUD):
        here = (kind == which) & np.isfinite(model["latency_ms"])
        if not here.any():
            continue
        for name, title in (
            ("waited_ms", "waiting for its turn"), ("edge_ms", "computing on the edge"), ("sending_ms", "sending"),
            ("rest", "coding, queue at the link, round trip, cloud, programs in between"), ("latency_ms", "all"),
        ):  # fmt: skip
            a = rest["live"] if name == "rest" else live[name]
            b = rest["model"] if name == "rest" else model[name]
            rows.append(
                {
                    "kind": KINDS[which],
                    "n": int(here.sum()),
                    "part": title,
                    "live": float(a[here].mean()),
                    "model": float(b[here].mean()),
                    "p95": float(np.quantile(a[here] - b[here], 0.95)),
                }
            )
    return rows


def apart(live: Columns, simulated: Columns) -> Found:
    """How far the paths of the two runs part: shares of requests with the same decision, and the first without."""
    same = {
        "cut": live["cut"] == simulated["cut"],
        "answered_at": (live["answered_at"] == simulated["answered_at"])
        & (live["offloaded"] == simulated["offloaded"]),
        "answer": live["correct"] == simulated["correct"],
    }
    first = np.flatnonzero(~same["cut"])
    alike = same["cut"] & same["answered_at"] & (live["variant"] == simulated["variant"])
    gap = np.abs(live["confidence"] - simulated["confidence"])[alike]
    return {
        **{name: float(where.mean()) for name, where in same.items()},
        "first": int(first[0]) if len(first) else None,
        "alike": int(alike.sum()),
        "confidence_median": float(np.median(gap)) if len(gap) else float("nan"),
        "confidence_p99": float(np.quantile(gap, 0.99)) if len(gap) else float("nan"),
        "same_answer": float(same["answer"][alike].mean()) if alike.any() else float("nan"),
    }


def phases(kill: Found) -> list[Found]:
    """Before the cloud was killed, while it was gone, and after its return: answers, latency, accuracy."""
    run, start = columns_of(kill["run"]), np.array(kill["start_ms"])
    bounds = {
        "before": (-np.inf, kill["killed_ms"]),
        "gone": (kill["killed_ms"], kill["back_ms"]),
        "after": (kill["back_ms"], np.inf),
    }
    rows = []
    for name, (low, high) in bounds.items():
        here = (start >= low) & (start < high)
        if not here.any():
            continue
        kind = kinds(run)[here]
        ms = run["latency_ms"][here]
        rows.append(
            {
                "phase": name,
                "n": int(here.sum()),
                "edge": int((kind == EDGE).sum()),
                "cloud": int((kind == CLOUD).sum()),
                "fallback": int((kind == FALLBACK).sum()),
                "mean": float(ms.mean()),
                "p95": float(np.quantile(ms, 0.95)),
                "worst": float(ms.max()),
                "accuracy": interval(run["correct"][here].tolist()),
            }
        )
    return rows


def recovery(kill: Found) -> Found:
    """Requests without an answer or with two, and seconds from the cloud's return to its first answer."""
    run, served = columns_of(kill["run"]), np.array(kill["served_ms"], dtype=np.float64)
    by_cloud = served[(kinds(run) == CLOUD) & (served > kill["back_ms"])]
    seconds = float(by_cloud.min() - kill["back_ms"]) / 1e3 if len(by_cloud) else float("nan")
    counts = np.array(kill["deliveries"])
    return {
        "requests": len(served),
        "unanswered": int((counts == 0).sum()),
        "twice": int((counts > 1).sum()),
        "fallbacks": int((kinds(run) == FALLBACK).sum()),
        "seconds": seconds,
        "holds": bool((counts == 1).all()) and seconds <= RECOVERED_S,
    }


def verdict(live: Columns, simulated: Columns) -> Found:
    """The claim: simulated mean latency over the live one, and whether it is within 15 %."""
    found = ratio(simulated["latency_ms"], live["latency_ms"])
    return {**found, "holds": abs(found["mean"] - 1.0) <= WITHIN + 1e-12}
