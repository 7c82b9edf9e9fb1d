"""Arms that may offload where the offload is not offered: passed over while they are untried, and later on."""

import math

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, Engine, Observation, Quote
from offramp.bandits.discounted_ucb import DiscountedUCB
from offramp.bandits.rows import CUT, thresholds_at
from offramp.bandits.state import T

INF = math.inf
GRID = Arms.grid(exits=3, thresholds=(-INF, 0.5, INF))
CLOSED = Quote(edge_cost=[0, 0.1, 0.2, 0.4], offload_cost=[INF, INF, 0.1, 0.0], mu=1.0)
FREE = Quote(edge_cost=[0, 0.1, 0.2, 0.4], offload_cost=[INF, INF, 0.1, 0.0], mu=0.0)


def may_be_carried_out(row):
    cut = int(row[CUT])
    return cut > 1 or row[thresholds_at(3)] == -INF


@pytest.mark.parametrize("quote", [CLOSED, FREE])
@pytest.mark.parametrize("policy", [UCB1(), DiscountedUCB()])
def test_an_index_policy_passes_them_over(policy, quote):
    state, rng, cuts = policy.initial(GRID, 0), np.random.default_rng(0), set()
    for _ in range(40):
        row = quote.row.copy()
        policy.kernels.select(state, row)
        assert may_be_carried_out(row)
        cuts.add(int(row[CUT]))
        seen = np.full(11, np.nan)
        seen[:3] = (row[CUT], 0.0, 0.0)  # answered on the edge at the cut
        seen[5 + int(row[CUT]) - 1] = rng.random()
        policy.kernels.update(state, row, seen)
    assert cuts == {1, 2, 3}
    assert state[T] > 0.0


@pytest.mark.parametrize("policy", [UCB1(), DiscountedUCB()], ids=lambda p: type(p).__name__)
def test_what_is_not_offered_is_no_nan_where_cost_is_worth_nothing(policy):
    """mu = 0 times +inf is nan: in plain Python a warning, and warnings are errors here."""
    engine = Engine(policy, arms=Arms.grid(exits=3, thresholds=(0.5, 0.8)), seed=0, compiled=False)
    rng = np.random.default_rng(0)
    for t in range(80):
        closed = t % 40 >= 20
        offload = [np.inf] * 3 + [0.0] if closed else [0.3, 0.2, 0.1, 0.0]
        decision = engine.decide(Quote(edge_cost=[0.0, 0.1, 0.2, 0.6], offload_cost=offload, mu=0.0))
        seen = rng.random(3)
        at = next((j + 1 for j in range(decision.cut) if seen[j] >= decision.thresholds[j]), 0)
        seen[at if at else decision.cut : 3 if at else 2] = np.nan
        engine.update(decision, Observation(confidence=seen, answered_at=at or 3, offloaded=at == 0))
        if closed:
            assert decision.thresholds[decision.cut - 1] == -np.inf
