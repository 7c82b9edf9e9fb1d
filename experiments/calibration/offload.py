"""What calibration does to a cascade that offloads: edge share and accuracy, outage, missed deadlines over links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.bandits import Profile
from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import ConfidenceCache
from offramp.environments.offloading import LINKS, Answers, answers, latency, shares
from offramp.environments.outage import inference_outage, missed_deadline
from offramp.environments.reliability import wilson
from offramp.experiments.calibration.samples import ROUTED, SYSTEMS, Caches, View, answering, mixed, view

Rows = list[dict[str, Any]]
FINE = np.round(np.arange(0.5, 0.975, 0.01), 2)
DEADLINES = 61


@dataclass(frozen=True, kw_only=True)
class Machines:
    """How fast edge and cloud are, in 1e9 multiply-accumulates a second > 0, and how many exits lie at the edge."""

    edge_gmacs: float
    cloud_gmacs: float
    edge_exits: int

    def __post_init__(self) -> None:
        for name in ("edge_gmacs", "cloud_gmacs"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is a finite number > 0")

    def times(self, profile: Profile, system: str) -> dict[str, Any]:
        """Arguments of `latency`: ms of each edge segment with its exit, ms of the cloud's rest, bytes at the cut."""
        k = self.edge_exits
        edge = np.array(profile.segment_macs[:k], dtype=np.float64) + np.array(profile.head_macs[:k])
        edge[0] += profile.router_macs if system == ROUTED else 0
        rest = sum(profile.segment_macs[k:]) + profile.head_macs[-1]
        return {
            "edge_ms": (edge / (1e6 * self.edge_gmacs)).tolist(),
            "cloud_ms": rest / (1e6 * self.cloud_gmacs),
            "payload_bytes": float(profile.payload_bytes[k]),
        }


def places(cache: ConfidenceCache, names: Sequence[str], segments: Sequence[str]) -> dict[str, IntArray]:
    """Condition of each sample, by the name of what is measured: single conditions, and the mixed stream's in turn."""
    return {name: mixed(cache, [name]) for name in names} | {"mixed stream": mixed(cache, segments)}


def effect_rows(
    caches: Caches, where: Mapping[str, IntArray], machines: Machines, targets: Sequence[float], rounds: int
) -> Rows:
    """One row for each system, condition, calibration and target: who answers, how well, and how often that fails."""
    rows = []
    for system in SYSTEMS:
        for condition, at in where.items():
            for calibration, cache in caches.items():
                found = view(cache, at, answering(cache, at, system))
                for target in targets:
                    surest = shares(_answers(found, target, machines, "most_confident")).accuracy
                    rows.append(
                        {"system": system, "condition": condition, "calibration": calibration, "target": target}
                        | _effect(_answers(found, target, machines), target, rounds)
                        | {"accuracy_most_confident": surest}
                    )
    return rows


def _answers(found: View, target: float, machines: Machines, fallback: str = "last") -> Answers:
    k = machines.edge_exits
    return answers(found.confidence, found.correct, float(target), edge_exits=k, fallback=fallback)


def _effect(who: Answers, target: float, rounds: int) -> dict[str, Any]:
    summed, outage = shares(who), inference_outage(who, target, rounds=rounds)
    n, edge = len(who.correct), int(who.edge.sum())
    share = wilson(edge, n)
    right = wilson(int(who.correct[who.edge].sum()), edge)
    return {
        "n": n,
        "edge_probability": summed.edge_probability,
        "edge_probability_low": float(share[0]),
        "edge_probability_high": float(share[1]),
        "edge_accuracy": summed.edge_accuracy,
        "edge_accuracy_low": float(right[0]),
        "edge_accuracy_high": float(right[1]),
        "accuracy": summed.accuracy,
        "outage": outage.mean,
        "outage_low": outage.low,
        "outage_high": outage.high,
        "outage_empty": outage.empty,
    }


def balanced_target(found: View, machines: Machines) -> float:
    """The target, in steps of .01, at which the overall accuracy is nearest to it: half of all batches miss it."""
    gap = [abs(shares(_answers(found, p, machines)).accuracy - p) for p in FINE]
    return float(FINE[int(np.argmin(gap))])


def deadline_rows(
    caches: Caches, where: Mapping[str, IntArray], machines: Machines, targets: Sequence[float] | None, rounds: int
) -> Rows:
    """One row for each system, condition, link, target and calibration: the curve of missed deadlines in short.

    Parameters
    ----------
    caches, where, machines, rounds
        What is measured.
    targets
        Targets p_tar; None: one for each system and condition, at which half of the uncalibrated batches miss it.

    Returns
    -------
    list
        `drop_ms`: the least deadline of the grid below which more than half of what can be avoided is missed, nan
        where all is; `plateau`: what is missed however long one waits, with its interval, and the same where the most
        confident exit answers what the last one is unsure of; `edge_best` and `cloud`: accuracy of the best edge exit
        and of the last one over all samples; and the curve itself, where targets is None.

    """
    rows = []
    for system in SYSTEMS:
        for condition, at in where.items():
            views = {name: view(cache, at, answering(cache, at, system)) for name, cache in caches.items()}
            for target in [balanced_target(views["raw"], machines)] if targets is None else targets:
                for calibration, found in views.items():
                    who = _answers(found, target, machines)
                    edge, final = (
                        found.correct[:, : machines.edge_exits].mean(axis=0).max(),
                        found.correct[:, -1].mean(),
                    )
                    surest = _answers(found, target, machines, "most_confident")
                    waited = missed_deadline(surest, np.zeros(len(at)), [1.0], target, rounds=rounds).mean[0]
                    for link in LINKS.values():
                        profile = caches[calibration].profile
                        assert profile is not None  # the study refuses a cache without one
                        times = latency(who, link=link, **machines.times(profile, system))
                        longest = latency(_everything_sent(who), link=link, **machines.times(profile, system))[0]
                        grid = np.linspace(0.0, 1.05 * longest, DEADLINES)
                        missed = missed_deadline(who, times, grid, target, rounds=rounds)
                        rows.append(
                            {"system": system, "condition": condition, "link": link.name, "target": float(target)}
                            | {"calibration": calibration, "mean_ms": float(times.mean())}
                            | _drop(grid, missed.mean)
                            | {"plateau_low": float(missed.low[-1]), "plateau_high": float(missed.high[-1])}
                            | {"plateau_most_confident": float(waited), "edge_best": float(edge), "cloud": float(final)}
                        )
                        if targets is None:
                            curve = {"deadline_ms": grid, "missed": missed.mean, "low": missed.low, "high": missed.high}
                            rows[-1]["curve"] = {name: np.round(x, 4).tolist() for name, x in curve.items()}
    return rows


def _everything_sent(who: Answers) -> Answers:
    return Answers(stopped=np.full(1, who.edge_exits), correct=np.ones(1, dtype=bool), edge_exits=who.edge_exits)


def _drop(grid: FloatArray, missed: FloatArray) -> dict[str, float]:
    low = missed < 0.5 * (1.0 + missed[-1])
    return {"drop_ms": float(grid[low.argmax()]) if low.any() else float("nan"), "plateau": float(missed[-1])}
