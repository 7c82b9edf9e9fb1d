"""What the pages that play share: a stationary world at paper prices, and the means of all seeds of some policies."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from offramp.bandits import Policy
from offramp.bandits.policy import needs_oracle
from offramp.bandits.rows import FloatArray
from offramp.environments import Stationary, Trace, World, rollout
from offramp.experiments.results import interval

Runs = dict[str, FloatArray]


def traces(
    policies: Mapping[str, Policy], world: World, stream: Any, *, horizon: int, seeds: int, pool: ThreadPoolExecutor
) -> dict[str, list[Trace]]:
    """Every policy with every seed; a replica that reads what was never sent gets it."""
    at = (stream.conditions, stream.links)
    arrays = {o: world.arrays(*at, oracle=o) for o in {needs_oracle(p) for p in policies.values()}}

    def one(policy: Policy, seed: int) -> Trace:
        return rollout(policy, world, stream, horizon=horizon, seed=seed, arrays=arrays[needs_oracle(policy)])[0]

    jobs = {name: [pool.submit(one, policy, seed) for seed in range(seeds)] for name, policy in policies.items()}
    return {name: [job.result() for job in waiting] for name, waiting in jobs.items()}


def means(found: dict[str, list[Trace]]) -> dict[str, Runs]:
    """Accuracy, cost and share of offloads of each seed, (R,) each."""
    return {
        name: {
            "accuracy": np.array([t.mean("correct") for t in runs]),
            "cost": np.array([t.cost[-1] / t.rounds[-1] for t in runs]),
            "offloads": np.array([t.mean("offloads") for t in runs]),
        }
        for name, runs in found.items()
    }


def beside(one: Runs, final: Runs) -> dict[str, dict[str, float]]:
    """Cost saved in per cent and accuracy gained in points against the final exit, paired by seed."""
    return {
        "saved": interval((100.0 * (1.0 - one["cost"] / final["cost"])).tolist()),
        "gained": interval((100.0 * (one["accuracy"] - final["accuracy"])).tolist()),
        "offloads": interval((100.0 * one["offloads"]).tolist()),
    }


def under(condition: str) -> Stationary:
    """One condition throughout."""
    return Stationary(condition=condition)
