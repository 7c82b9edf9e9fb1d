"""Sums over the suite and choices among policies, from the record of one cache."""

from collections.abc import Collection
from typing import Any

import numpy as np

from offramp.experiments.joint_policy.statistics import dominates, paired

JOINT, AT_THE_CUT = "joint", "joint_at_the_cut"
LEARNING = ("joint", "published", "aware", "unaware")
Found = dict[str, Any]


def worlds_of(found: Found) -> dict[str, Found]:
    """The worlds that were played."""
    return {name: here for name, here in found["worlds"].items() if here.get("lacks") is None and here["played"]}


def totals(found: Found) -> dict[str, dict[str, list[float]]]:
    """Policy -> regret summed over all worlds, and cost and accuracy averaged over them, seed by seed.

    Policies that were not played in every world are left out; "static" is the best single arm of each world and seed.
    """
    worlds = list(worlds_of(found).values())
    summed: dict[str, dict[str, list[float]]] = {}
    for key in found["policies"]:
        ones = [here["played"][key] for here in worlds if key in here["played"]]
        if ones and len(ones) == len(worlds):
            summed[key] = {
                "regret": np.sum([one["regret"] for one in ones], axis=0).tolist(),
                "cost": np.mean([one["cost"] for one in ones], axis=0).tolist(),
                "accuracy": np.mean([one["accuracy"] for one in ones], axis=0).tolist(),
            }
    if summed:
        summed["static"] = {"regret": np.sum([here["oracles"]["static"] for here in worlds], axis=0).tolist()}
    return summed


def learners(found: Found, groups: Collection[str] = LEARNING) -> list[str]:
    """The policies of some groups."""
    return [k for k, policy in found["policies"].items() if policy["group"] in groups]


def best_of(found: Found, played: Found, groups: Collection[str], without: str | None = None) -> str | None:
    """The policy of some groups with the least mean regret in one world."""
    keys = [k for k in learners(found, groups) if k in played and k != without]
    return min(keys, key=lambda k: float(np.mean(played[k]["regret"]))) if keys else None


def reference(found: Found) -> str | None:
    """Who everybody is compared with: the joint policy, or the best learner over the suite where it was not played."""
    if JOINT in found["policies"]:
        return JOINT
    sums = {k: v for k, v in totals(found).items() if k in learners(found)}
    return min(sums, key=lambda k: float(np.mean(sums[k]["regret"]))) if sums else None


def dominated(ours: Found, theirs: Found) -> str:
    """Are they at once cheaper and more accurate?  "no", "on average", or "surely"; paired by seed."""
    return dominates(paired(theirs["cost"], ours["cost"]), paired(theirs["accuracy"], ours["accuracy"]))
