"""From the record of one cache to what is claimed: the best fixed choice of each link, ratios, paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from offramp.experiments.joint_policy.statistics import paired
from offramp.experiments.joint_policy.sums import JOINT
from offramp.experiments.results import interval

Found = dict[str, Any]
MOST = 1.05  # of the best fixed choice's mean latency
POINT = 0.01  # of accuracy, that the best fixed choice may be behind


def mean(run: Mapping[str, Any], metric: str) -> float:
    """Mean of a metric over seeds."""
    return float(np.mean(run[metric]))


def best_fixed(here: Found, accuracy: float) -> Found | None:
    """The quickest (cut, threshold) of a link in hindsight that is at least so accurate, both as means over seeds."""
    fit = [one for one in here["fixed"] if mean(one, "accuracy") >= accuracy - 1e-12]
    return min(fit, key=lambda one: mean(one, "latency_ms")) if fit else None


def best_earning(here: Found) -> Found:
    """The (cut, threshold) of a link with the largest mean reward in hindsight."""
    earned: Found = max(here["fixed"], key=lambda one: mean(one, "reward"))
    return earned


def ratio(ours: Found, theirs: Found) -> dict[str, float]:
    """Ratio of two mean latencies, with the 95 % interval of the ratios of the seeds."""
    half = interval([a / b for a, b in zip(ours["latency_ms"], theirs["latency_ms"], strict=True)])["half"]
    return {"mean": mean(ours, "latency_ms") / mean(theirs, "latency_ms"), "half": half}


def judged(here: Found, key: str = JOINT, less: float = POINT) -> Found:
    """One link: a policy against the best fixed choice among those at most `less` less accurate.

    Returns
    -------
    dict
        arm: the fixed choice, None where none is that accurate; ratio: of the mean latencies; later: the same without
        the first sixth of requests; accuracy: ours minus its; holds: is the ratio at most 1.05, or none so accurate?

    """
    ours = here["played"][key]
    arm = best_fixed(here, mean(ours, "accuracy") - less)
    if arm is None:
        return {"arm": None, "ratio": None, "later": None, "accuracy": None, "holds": True}
    found = ratio(ours, arm)
    return {
        "arm": arm,
        "ratio": found,
        "later": mean(ours, "later_ms") / mean(arm, "later_ms") if "later_ms" in ours else None,
        "accuracy": paired(ours["accuracy"], arm["accuracy"]),
        "holds": found["mean"] <= MOST,
    }


def counted(case: Mapping[str, Found], key: str = JOINT, less: float = POINT) -> tuple[int, int]:
    """On how many links of a case the claim holds, and of how many."""
    return sum(judged(here, key, less)["holds"] for here in case.values()), len(case)


def over_links(case: Mapping[str, Found], key: str, metric: str) -> list[float]:
    """Mean over seeds of a metric, link by link; "best" is the best fixed choice of each link within a point."""
    values = []
    for here in case.values():
        run = here["played"].get(key) if key != "best" else judged(here)["arm"]
        values.append(float("nan") if run is None else mean(run, metric))
    return values


def differences(case: Mapping[str, Found], key: str, metric: str) -> dict[str, float]:
    """A policy minus the joint one, paired by link: mean and 95 % interval over links."""
    theirs, ours = over_links(case, key, metric), over_links(case, JOINT, metric)
    both = [(a, b) for a, b in zip(theirs, ours, strict=True) if not np.isnan(a)]
    return paired([a for a, _ in both], [b for _, b in both])


def quicker(case: Mapping[str, Found], keys: Sequence[str]) -> list[tuple[str, str]]:
    """(link, policy) where another policy is at once quicker and more accurate than the joint one, by the means."""
    return [
        (trace, key)
        for trace, here in case.items()
        for key in keys
        if key != JOINT
        and mean(here["played"][key], "latency_ms") < mean(here["played"][JOINT], "latency_ms")
        and mean(here["played"][key], "accuracy") > mean(here["played"][JOINT], "accuracy")
    ]
