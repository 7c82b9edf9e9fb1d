"""Prices of any size: no policy crashes, hangs, plays what is not in its table, or learns what is no number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp import bandits
from offramp.bandits import (
    EXP3,
    EXP3S,
    KLUCB,
    UCB1,
    UCBV,
    UEEUCB,
    Arms,
    BayesUCB,
    BetaThompson,
    ChainUCB,
    ConformalFloor,
    ContractError,
    DiscountedUCB,
    Engine,
    EpsilonGreedy,
    Exp3IX,
    GaussianThompson,
    GridThompson,
    LinUCB,
    MuLinUCB,
    Observation,
    OneSidedUCB,
    PageHinkley,
    Quote,
    RandomArm,
    Restarting,
    SlidingWindowUCB,
    UCBTuned,
    WindowedERM,
)

NAN = float("nan")
TABLE = Arms.grid(exits=2, thresholds=(0.5, 0.8, math.inf))
POLICIES = [
    ChainUCB(),
    ConformalFloor(policy=UCB1()),
    DiscountedUCB(),
    EXP3S(),
    EpsilonGreedy(),
    GridThompson(),
    LinUCB(),
    MuLinUCB(),
    OneSidedUCB(),
    RandomArm(),
    Restarting(policy=UCB1(), detector=PageHinkley()),
    SlidingWindowUCB(),
    UEEUCB(),
    WindowedERM(),
]
LEARNING = (UCB1, UCBV, UCBTuned, KLUCB, BayesUCB, GaussianThompson, BetaThompson, EXP3, Exp3IX)
POLICIES += [policy(known_costs=known) for policy in LEARNING for known in (True, False)]
size = st.integers(-300, 308).map(lambda k: 10.0**k) | st.sampled_from((0.0, 1.0, 0.3, 1e9, 1e15, 1e16, 1e17))
WEIGHED_DOWN = [  # by what they may be weighed down and stay usable
    (cost, mu) for cost, mu in ((1e9, 1.0), (1e9, 1e7), (1e9, 1e9), (1e16, 1.0), (1e150, 1e150))
]


def seen(decision, sure):
    """What an exit that is so sure makes of the decision."""
    confidence = [NAN, NAN]
    if decision.cut == 2:
        confidence[1] = sure
        return Observation(confidence=confidence, answered_at=2, offloaded=False)
    confidence[0] = sure
    if sure >= decision.threshold:
        return Observation(confidence=confidence, answered_at=1, offloaded=False)
    confidence[1] = 0.7
    return Observation(confidence=confidence, answered_at=2, offloaded=True)


def played(engine, quote, rounds=4):
    """Decide and learn for a while; every rule must be one of the table, and the state stay a state of numbers."""
    features = [0.5, 1.0] if engine.features else None
    for i in range(rounds):
        decision = engine.decide(quote, features)
        assert 0 <= decision.cut <= 2
        assert -1 <= decision.arm < len(TABLE)
        assert 0.0 < decision.p_action <= 1.0
        engine.update(decision, seen(decision, (0.9, 0.4, 0.6)[i % 3]))


def made(policy):
    features = 2 if isinstance(policy, LinUCB | MuLinUCB) else 0
    return Engine(policy, arms=TABLE, seed=1, features=features, compiled=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # plain Python says where numbers end; compiled kernels do not
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_prices_of_any_size_are_refused_or_survived(policy, data):
    engine = made(policy)
    for _ in range(3):
        edge, offload, mu = data.draw(st.tuples(*[size] * 3)), data.draw(st.tuples(*[size] * 2)), data.draw(size)
        try:
            quote = Quote(edge_cost=edge, offload_cost=[*offload, 0.0], mu=mu)
        except ContractError:
            continue
        played(engine, quote)
    before = np.isnan(made(policy).state())
    assert (np.isnan(engine.state()) <= before).all()
    played(engine, Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0), 8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_where_every_arm_is_dear_the_policy_still_ends(policy):
    for cost, mu in WEIGHED_DOWN:
        engine = made(policy)
        played(engine, Quote(edge_cost=[0.0, cost, cost], offload_cost=[cost, cost, 0.0], mu=mu), 12)


def test_every_policy_that_learns_prices_or_draws_is_here():
    shown = {type(policy).__name__ for policy in POLICIES}
    drawing = {n for n in bandits.__all__ if "Thompson" in n or n.upper().startswith("EXP3") or n.endswith("UCB")}
    assert drawing <= shown
