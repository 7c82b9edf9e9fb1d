"""Probability matching: the chances on the grid against integrals and against draws, and what is done with them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from offramp.bandits import Arms, Engine, Observation, Quote, beta_thompson, thompson
from offramp.bandits.beta_thompson import BetaThompson
from offramp.bandits.largest_draw import CHANCE, match
from offramp.bandits.pulls import MEAN, PARAMETERS, PULLS, SHARE
from offramp.bandits.state import CURSOR
from offramp.bandits.thompson import GaussianThompson

ARMS = Arms.grid(exits=3, thresholds=(0.5, 0.7, 0.9))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.2, 0.3], offload_cost=[1.0, 0.2, 0.1, 0.0], mu=1.0)
K = len(ARMS)
CUT = np.array([arm.cut for arm in ARMS.table])
KINDS = {GaussianThompson: (thompson, 0.005), BetaThompson: (beta_thompson, 0.02)}


def column(state, k):
    start = int(state[7]) + PARAMETERS + k * K
    return state[start : start + K]


def known(policy, pulls, means, shares):
    """A state that has seen so much."""
    state = policy.initial(ARMS, 0)
    column(state, PULLS)[:], column(state, MEAN)[:], column(state, SHARE)[:] = pulls, means, shares
    column(state, SHARE)[-1] = 0.0
    state[CURSOR] = 0.0
    return state


def posteriors(policy, state):
    n, mean, share = (column(state, k) for k in (PULLS, MEAN, SHARE))
    price = QUOTE.edge_cost[CUT] + share * QUOTE.offload_cost[CUT]
    if isinstance(policy, GaussianThompson):
        return [stats.norm(m - c, policy.beta / math.sqrt(k)) for k, m, c in zip(n, mean, price, strict=True)]
    return [stats.beta(1 + k * m, 1 + k * (1 - m), loc=-c) for k, m, c in zip(n, mean, price, strict=True)]


def integral(laws):
    """The chances, by masses on a fine grid."""
    x = np.linspace(-6.0, 7.0, 40_001)
    below = np.array([law.cdf(x) for law in laws])
    middle = 0.5 * (below[:, 1:] + below[:, :-1])
    return np.array([(np.diff(below[a]) * np.delete(middle, a, 0).prod(0)).sum() for a in range(len(laws))])


def stated(policy, state):
    """The chances that a decision is drawn with, in plain Python."""
    module, _ = KINDS[type(policy)]
    match(module.describe, module.below, state, QUOTE.row.copy())
    chance = column(state, CHANCE)
    return chance / chance.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_chances_are_those_of_independent_draws(kind):
    rng = np.random.default_rng(0)
    policy, close = kind(), KINDS[kind][1]
    for trial in range(12):
        pulls = np.exp(rng.uniform(0, (1, 3, 6, 8)[trial % 4], K)).round()
        means = rng.uniform(0.3, 1.0, K) if trial % 2 else 0.8 + 0.05 * rng.random(K)
        state = known(policy, pulls, means, rng.random(K))
        exact = integral(posteriors(policy, state))
        assert stated(policy, state) == pytest.approx(exact, abs=close)


@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_of_drawn_values(kind):
    """Thompson sampling as it is written: a value from each posterior, the largest is played."""
    rng = np.random.default_rng(1)
    policy = kind()
    state = known(policy, [3, 50, 20, 8, 400, 5, 30], [0.6, 0.7, 0.8, 0.75, 0.7, 0.9, 0.85], [0.5] * 7)
    draws = np.array([law.rvs(20_000, random_state=rng) for law in posteriors(policy, state)])
    frequency = np.bincount(draws.argmax(0), minlength=K) / 20_000
    assert stated(policy, state) == pytest.approx(frequency, abs=KINDS[kind][1] + 0.01)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_chances_are_a_law_whatever_was_seen(kind, data):
    """Finite, not negative, in all 1; also for posteriors that are sharp beyond measure, equal, or at an end."""
    pulls = data.draw(st.lists(st.sampled_from([1e-9, 1.0, 7.0, 300.0, 1e7, 1e12]), min_size=K, max_size=K))
    means = data.draw(st.lists(st.sampled_from([0.0, 1e-12, 0.4, 0.9, 1.0]), min_size=K, max_size=K))
    state = known(kind(), pulls, means, [0.5] * K)
    total = stated(kind(), state)
    assert np.isfinite(total).all()
    assert (total >= 0.0).all()
    assert 0.5 < column(state, CHANCE).sum() < 1.5


def test_equal_arms_have_equal_chances():
    free = Arms.grid(exits=4, thresholds=(-math.inf,))
    engine = Engine(GaussianThompson(), arms=free, seed=0, compiled=False)
    quote = Quote(edge_cost=[0.0] * 5, offload_cost=[0.0] * 5, mu=1.0)
    for _ in range(4):
        decision = engine.decide(quote)
        assert decision.p_action == 1.0
        shown = [float("nan")] * 4
        shown[decision.cut - 1] = 0.5
        engine.update(decision, Observation(confidence=shown, answered_at=decision.cut, offloaded=False))
    assert engine.decide(quote).p_action == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_arm_and_its_probability(kind):
    """One uniform picks the arm: every value of it leads to the arm whose share of the chances holds it."""
    policy = kind()
    module, _ = KINDS[kind]
    pulls, means = [3, 50, 20, 8, 400, 5, 30], [0.6, 0.7, 0.8, 0.75, 0.7, 0.9, 0.85]
    chance = stated(policy, known(policy, pulls, means, [0.5] * K))
    edges = np.cumsum(chance)
    for u in np.linspace(0.0, 1.0 - 2**-53, 41):
        state, row = known(policy, pulls, means, [0.5] * K), QUOTE.row.copy()
        state[-1024] = u
        match(module.describe, module.below, state, row)
        arm = int(row[3])
        assert edges[arm] - chance[arm] - 1e-12 <= u <= edges[arm] + 1e-12
        assert row[6] == pytest.approx(chance[arm], rel=1e-12)


def test_a_confident_wrong_arm_is_still_left():
    """An arm that is sampled rarely keeps a chance that its posterior width gives it, however sharp the best is."""
    state = known(GaussianThompson(beta=0.2), [4, 1, 1, 1, 10**7, 1, 1], [0.5, 0, 0, 0, 0.8, 0, 0], [0.0] * K)
    chance = stated(GaussianThompson(beta=0.2), state)
    best = 0.8 - QUOTE.edge_cost[CUT[4]]
    assert chance[0] == pytest.approx(stats.norm(0.5 - 0.1, 0.1).sf(best), rel=0.02)
