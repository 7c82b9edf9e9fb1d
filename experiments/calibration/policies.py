"""What a learner makes of honest confidences: I-SplitEE and AdaEE on the mixed stream under each calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from offramp.bandits import Policy
from offramp.environments import Stream, Trace, rollout
from offramp.experiments.calibration.samples import PRISTINE, ROUTED, Caches
from offramp.experiments.compare import make_world
from offramp.experiments.results import interval

Rows = list[dict[str, Any]]


def metrics(trace: Trace, mu: float) -> dict[str, float]:
    """Accuracy, cost, offloads, and how far the confidence that was served exceeds the accuracy; per round."""
    rounds = float(trace.rounds[-1])
    cost, accuracy = float(trace.cost[-1]) / rounds, trace.mean("correct")
    said = trace.mean("reward") + mu * cost
    return {
        "accuracy": accuracy,
        "cost": cost,
        "offload_share": trace.mean("offloads"),
        "overstated": said - accuracy,
        "net": accuracy - mu * cost,
    }


def policy_rows(
    caches: Caches,
    policies: Mapping[str, Policy],
    world: DictConfig,
    stream: Stream,
    *,
    horizon: int,
    seeds: Sequence[int],
    done: Callable[[], None] = lambda: None,
) -> Rows:
    """One row for each policy, system and calibration: means with 95 % intervals, and differences paired by seed.

    Parameters
    ----------
    caches
        The test part under each calibration.
    policies, world, stream
        Who plays where against what; the world's own routing and calibration are replaced.
    horizon, seeds
        Rounds and runs.
    done
        Called after each row.

    Returns
    -------
    list
        `net` is accuracy less mu times cost: what the reward would be, were confidence the truth.

    """
    rows = []
    for system, routing in ((ROUTED, "predicted"), (PRISTINE, None)):
        raw: dict[str, list[dict[str, float]]] = {}
        for calibration, cache in caches.items():
            here = make_world(_with(world, routing), cache)
            arrays = here.arrays(stream.conditions, stream.links)
            for name, policy in policies.items():
                runs = [
                    metrics(rollout(policy, here, stream, horizon=horizon, seed=s, arrays=arrays)[0], world.prices.mu)
                    for s in seeds
                ]
                reference = raw.setdefault(name, runs)
                row: dict[str, Any] = {"policy": name, "system": system, "calibration": calibration}
                for metric in runs[0]:
                    row[metric] = interval([r[metric] for r in runs])
                    paired = [a[metric] - b[metric] for a, b in zip(runs, reference, strict=True)]
                    row[f"{metric}_change"] = interval(paired)
                rows.append(row)
                done()
    return rows


def _with(world: DictConfig, routing: str | None) -> DictConfig:
    """The world with another routing; its caches come calibrated."""
    made = OmegaConf.merge(world, {"routing": routing, "calibration": "raw"})
    assert isinstance(made, DictConfig)
    return made
