"""Paired comparisons over seeds: Student's t, Holm's correction, and who dominates whom."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from offramp.experiments.results import interval


def two_sided(t: float, freedom: int) -> float:
    """Probability that Student's t with so many degrees of freedom lies farther from 0 than `t`.

    The finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4); exact to about 1e-15, so
    that what is smaller than that comes out as 0.

    Examples
    --------
    >>> round(two_sided(2.093, 19), 4)
    0.05

    """
    if freedom < 1:
        raise ValueError(f"freedom is {freedom}, allowed is 1 or more")
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(freedom // 2):
        total += term
        term *= cosine * cosine * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    inside = (angle + sine * total) * 2.0 / math.pi if odd else sine * total
    return min(max(1.0 - inside, 0.0), 1.0)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours minus theirs, seed by seed: mean, half-width of the 95 % interval, and p of "there is no difference".

    Differences that are all alike have no scatter to measure: p is then 0, or 1 where they are all 0.
    """
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    found = interval(difference.tolist())
    if len(difference) < 2:
        return {**found, "p": math.nan}
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if error == 0.0:
        return {**found, "p": 1.0 if found["mean"] == 0.0 else 0.0}
    return {**found, "p": two_sided(found["mean"] / error, len(difference) - 1)}


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: the chance of one false claim or more among all of them is at most the level.

    Examples
    --------
    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}

    """
    adjusted, worst = {}, 0.0
    order = sorted(p, key=lambda name: p[name])
    for rank, name in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p}


def dominates(cost: Mapping[str, float], accuracy: Mapping[str, float]) -> str:
    """What paired differences (theirs minus ours) of cost and accuracy say of them: "no", "on average", or "surely".

    "on average": cheaper and more accurate by the means; "surely": both 95 % intervals say so too.
    """
    if not (cost["mean"] < 0.0 and accuracy["mean"] > 0.0):
        return "no"
    return "surely" if cost["mean"] + cost["half"] < 0.0 < accuracy["mean"] - accuracy["half"] else "on average"
