"""The least and the most that a rule can have earned on a request that another rule carried out."""

import math

from offramp.bandits import rows
from offramp.bandits.rows import FloatArray


def value_bounds(row: FloatArray, observation: FloatArray) -> tuple[float, float]:
    """The least and the most reward that a rule can have had on a request, by what another rule revealed of it.

    Parameters
    ----------
    row
        Decision row of the rule in question, with the quote.
    observation
        What was revealed by the rule that was played.

    Returns
    -------
    tuple
        Both ends; they are equal where the answer shows.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.bandits import Arms, Engine, Fixed, Observation, Quote
    >>> engine = Engine(Fixed(cut=1, threshold=0.8), arms=Arms.grid(exits=2, thresholds=(0.8,)), seed=0)
    >>> row = engine.decide(Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)).row
    >>> seen = Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False)
    >>> tuple(round(v, 6) for v in value_bounds(row, seen.row))
    (0.8, 0.8)
    >>> unsure = Observation(confidence=[0.6, float("nan")], answered_at=1, offloaded=False)
    >>> tuple(round(v, 6) for v in value_bounds(row, unsure.row))
    (-0.3, 0.7)

    """
    exits, cut, mu = int(row[rows.EXITS]), int(row[rows.CUT]), row[rows.MU]
    rule, offers = rows.thresholds_at(exits), rows.offload_cost_at(exits)
    low, high = math.inf, -math.inf
    for j in range(cut):
        threshold, seen = row[rule + j], observation[rows.CONFIDENCE + j]
        if threshold == math.inf:
            continue
        price = mu * row[rows.COSTS + j + 1]
        if seen >= threshold:
            return float(min(low, seen - price)), float(max(high, seen - price))
        if math.isnan(seen) and threshold <= 1.0:
            low, high = min(low, max(threshold, 0.0) - price), max(high, 1.0 - price)
            if threshold <= 0.0:
                return float(low), float(high)
    last = observation[rows.CONFIDENCE + exits - 1]
    price = mu * (row[rows.COSTS + cut] + row[offers + cut]) if mu > 0.0 else 0.0
    worst, best = (0.0, 1.0) if math.isnan(last) else (last, last)
    return float(min(low, worst - price)), float(max(high, best - price))
