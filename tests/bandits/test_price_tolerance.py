"""ChainUCB under prices that move in every round: when it plans, what waiting costs, the same in both executors."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.bandits import Arms, ConformalFloor, Engine, MacsAndBytes, Quote
from offramp.bandits.ceebert import CeeBERT
from offramp.bandits.chain_ucb import KERNELS, SINCE, ChainUCB, apart
from offramp.bandits.rows import COSTS, MU
from offramp.bandits.state import FREE
from offramp.bandits.ucb1 import UCB1
from offramp.environments import ConfidenceCache, World, replay, rollout

INF = math.inf
GRID = Arms.grid(exits=3, raw_input_allowed=True)
EDGE, OFFLOAD = [0.0, 0.05, 0.1, 0.3], [0.4, 0.3, 0.2, 0.0]


def quote(edge=EDGE, offload=OFFLOAD, mu=1.0):
    return Quote(edge_cost=edge, offload_cost=offload, mu=mu)


def planned(policy, quotes):
    """In which of these rounds was a plan made?"""
    state, found = policy.initial(GRID, 0), []
    for each in quotes:
        KERNELS.select(state, each.row.copy())
        found.append(bool(state[int(state[FREE]) + SINCE] == 0.0))
    return found


@dataclass(frozen=True, kw_only=True)
class Wandering:
    """One condition; the link's price is another one in every round."""

    links: tuple[float, ...]
    conditions: tuple[str, ...] = ("noise 10",)

    def schedule(self, start, n, horizon, rng, carry):
        return np.zeros(n, dtype=np.int64), np.arange(start, start + n) % len(self.links)


def wandering(share, rounds):
    """A random walk of so large a share a round that ends where it began."""
    steps = np.random.default_rng(3).normal(0.0, share, rounds)
    return Wandering(links=tuple(np.exp(np.cumsum(steps - steps.mean())).tolist()))


@pytest.fixture(scope="module")
def world():
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    return World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=len(cache.exits)))


@given(
    now=st.floats(0.0, INF),
    before=st.floats(0.0, INF),
    tolerance=st.floats(0.0, 10.0),
)
def test_apart_is_symmetric_and_exact_at_zero(now, before, tolerance):
    assert apart(now, before, tolerance) == apart(before, now, tolerance)
    assert apart(now, before, 0.0) == (now != before)
    assert not apart(now, now, tolerance)
    if (now == INF) != (before == INF) or (now == 0.0) != (before == 0.0):
        assert apart(now, before, tolerance)


def test_small_changes_wait_for_the_next_plan_and_large_ones_do_not():
    policy = ChainUCB(plan_every=4, price_tolerance=0.1)
    first, near, far = quote(), quote(offload=[0.4, 0.3, 0.21, 0.0]), quote(offload=[0.4, 0.3, 0.23, 0.0])
    assert planned(policy, [first, near, near, near, near, near]) == [True, False, False, False, True, False]
    assert planned(policy, [first, near, far, far]) == [True, False, True, False]
    assert planned(policy, [first, quote(mu=1.09), quote(mu=1.11)]) == [True, False, True]
    assert planned(policy, [first, quote(edge=[0.0, 0.05, 0.12, 0.3])]) == [True, True]


def test_small_changes_add_up():
    """It is the distance from the plan that counts, not from the round before."""
    steps = [quote(mu=1.04**i) for i in range(4)]
    assert planned(ChainUCB(plan_every=100, price_tolerance=0.1), steps) == [True, False, False, True]


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 1e9])
def test_an_offload_that_goes_or_comes_back_is_planned_for_at_once(tolerance):
    policy = ChainUCB(plan_every=100, price_tolerance=tolerance)
    gone = quote(offload=[0.4, 0.3, INF, 0.0])
    assert planned(policy, [quote(), gone, gone, quote(), quote()]) == [True, True, False, True, False]


def test_zero_plans_at_any_change():
    policy = ChainUCB(plan_every=100, price_tolerance=0.0)
    assert planned(policy, [quote(), quote(mu=1.0 + 1e-15), quote(mu=1.0 + 1e-15)]) == [True, True, False]


@pytest.mark.parametrize("value", [-0.1, math.nan, INF])
def test_tolerance_is_checked(value):
    with pytest.raises(ValueError, match=r"price_tolerance is .*, allowed is a finite number >= 0"):
        ChainUCB(price_tolerance=value)


def test_rollout_equals_replay_under_prices_that_move_in_every_round(world):
    stream = wandering(0.03, 300)
    (fast, fast_state), (slow, slow_state) = (
        play(ChainUCB(), world, stream, horizon=300, seed=1) for play in (rollout, replay)
    )
    assert np.array_equal(fast_state, slow_state)
    assert np.array_equal(fast.arms, slow.arms)
    for name, values in fast.sums.items():
        assert np.array_equal(values, slow.sums[name]), name


def test_waiting_costs_little(world):
    """A random walk of 3 % a round: no less is earned than with a plan in every round, but for what runs scatter by."""
    stream, rounds = wandering(0.03, 250), 10_000
    patient, eager = (
        rollout(ChainUCB(price_tolerance=x), world, stream, horizon=rounds, seed=2)[0].sums["reward"][-1] / rounds
        for x in (0.1, 0.0)
    )
    assert patient > eager - 0.004


def test_the_quote_of_the_plan_is_what_the_state_remembers():
    state = ChainUCB(plan_every=100).initial(GRID, 0)
    for each in (quote(), quote(mu=1.05)):
        KERNELS.select(state, each.row.copy())
    noted = quote().row[[MU, *range(COSTS, COSTS + 8)]]
    assert any(np.array_equal(state[i : i + len(noted)], noted) for i in range(len(state) - len(noted)))


# Tables of arms that some policies cannot take over.


def test_a_floor_holds_no_other_floor():
    with pytest.raises(ValueError, match="allowed is one that lists each once: a floor holds no other floor"):
        Engine(ConformalFloor(policy=ConformalFloor(policy=UCB1())), arms=GRID, seed=0)


@pytest.mark.parametrize("policy", [ConformalFloor(policy=UCB1()), CeeBERT(cut=2)])
def test_who_cannot_change_its_table_says_so_and_goes_on(policy):
    engine = Engine(policy, arms=GRID, seed=0)
    before = engine.state()
    with pytest.raises(ValueError, match=r"cannot take another table of arms: it keeps .* numbers besides those"):
        engine.change(engine.arms.without(cuts=[1]))
    assert np.array_equal(engine.state(), before, equal_nan=True)
    assert engine.arms == GRID
    engine.decide(quote())
