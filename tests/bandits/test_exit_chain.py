"""What ChainUCB learns and plans: its plan against brute force, its cells against a chain whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import Arm, Arms, Observation, Profile, Quote
from offramp.bandits import exit_chain as chain
from offramp.bandits.chain_ucb import (
    DIRECT,
    DIRECTLY,
    HOPEFUL,
    KERNELS,
    PLANNED,
    RULES,
    SINCE,
    ChainUCB,
    plan,
)
from offramp.bandits.listed import Listed
from offramp.bandits.rows import ARM, CONFIDENCE, CUT, thresholds_at
from offramp.bandits.state import FREE
from offramp.environments import ConfidenceCache, Stationary, World, rollout

NAN, INF = math.nan, math.inf
GRID = Arms.grid(exits=3, raw_input_allowed=True)
PRICES = {"edge_cost": [0, 0.05, 0.1, 0.3], "offload_cost": [0.4, 0.3, 0.2, 0]}


def field(state, name, exits):
    """A copy of one of the M x B tables of a state."""
    bins = int(state[int(state[FREE]) + chain.BINS])
    at = chain.field(state, name)
    return state[at : at + (exits - 1) * bins].reshape(exits - 1, bins).copy()


def moves(state, exits):
    """How often each bin of an exit (second index) led to each of the next one (third), copied."""
    bins = int(state[int(state[FREE]) + chain.BINS])
    tables = [state[at : at + bins * bins] for at in (chain.moves(state, j) for j in range(exits - 1))]
    return np.array([table.reshape(bins, bins).T for table in tables])


def own(state, name):
    return state[int(state[FREE]) + name]


# The plan.


def written(policy, arms, rng):
    """A state with random statistics, in which many cells are empty."""
    state = policy.initial(arms, 0)
    bins, m = policy.bins, arms.exits - 1
    shape = m, bins
    table = rng.random((m, bins, bins)) * (rng.random((m, bins, bins)) < 0.6) * 20.0
    known = rng.integers(1, 40, shape) * (rng.random(shape) < 0.7)
    numbers = {
        chain.SEEN: rng.random(shape) * 50.0 * (rng.random(shape) < 0.8),
        chain.OWN: rng.random(shape),
        chain.KNOWN: known,
        chain.CLOUD: rng.random(shape),
        chain.SPREAD: rng.random(shape) * 0.1,
        chain.PASSED: table.sum(axis=2),
    }
    for name, values in numbers.items():
        at = chain.field(state, name)
        state[at : at + m * bins] = values.ravel()
    for j in range(m):
        at = chain.moves(state, j)
        state[at : at + bins * bins] = table[j].T.ravel()
    at = chain.field(state, chain.SIGHTS)
    state[at : at + bins] = rng.random(bins) * 30.0 * (rng.random() < 0.9)
    free = int(state[FREE])
    state[free + DIRECT], state[free + DIRECTLY] = rng.integers(0, 2) * 5.0, rng.random()
    return state


def bounds(state, policy, exits):
    """Upper bounds on the last exit's confidence from each cell, in plain NumPy."""
    n, mean, variance = (field(state, name, exits) for name in (chain.KNOWN, chain.CLOUD, chain.SPREAD))
    at = chain.field(state, chain.SIGHTS)
    log = 2.0 * np.log(max(state[at : at + policy.bins].sum(), 2.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (n * variance + chain.SHRUNK * chain.SMALL) / (n + chain.SHRUNK)
        return np.where(n > 0.0, np.minimum(1.0, mean + policy.width * np.sqrt(log * pooled / n)), 1.0)


def led_to(state, policy, exits, j, value):
    """Mean of a value at the next exit: each bin has a share of a request that came out at 1."""
    table = np.column_stack([moves(state, exits)[j], np.full(policy.bins, HOPEFUL)])
    passed = field(state, chain.PASSED, exits)[j] + HOPEFUL
    return table @ np.append(value, 1.0) / passed


def best_rule(state, policy, exits, quote, cut, fixed=None):
    """Value of the best rule with a cut, by trying every bin to answer from at every exit; or of the given bins."""
    mu, edge = quote.mu, quote.edge_cost
    upper, mine = bounds(state, policy, exits), field(state, chain.OWN, exits)
    mass = field(state, chain.SEEN, exits) + chain.EMPTY
    at = chain.field(state, chain.OPEN)
    opened = state[at : at + exits - 1] == 1.0
    deepest = min(cut, exits - 1) - 1
    value = upper[deepest]
    for j in range(deepest, -1, -1):
        if j < deepest:
            on = led_to(state, policy, exits, j, value) - mu * (edge[j + 2] - edge[j + 1])
        elif cut == exits:
            on = upper[j] - mu * (edge[exits] - edge[exits - 1])
        else:
            price = quote.offload_cost[cut]
            on = upper[j] - (mu * price if price < INF else INF)
        last = j + 1 == cut
        choices = range(policy.bins + 1) if last or (policy.on_the_way and opened[j]) else [policy.bins]
        if fixed is not None:
            assert fixed[j] in choices
            choices = [fixed[j]]
        rules = [np.where(np.arange(policy.bins) >= k, mine[j], on) for k in choices]
        value = rules[int(np.argmax([mass[j] @ rule if (mass[j] @ rule) > -INF else -INF for rule in rules]))]
    at = chain.field(state, chain.SIGHTS)
    sights = state[at : at + policy.bins]
    share = sights / sights.sum() if sights.sum() > 0.0 else np.full(policy.bins, 1.0 / policy.bins)
    return share @ value - mu * edge[1]


def input_value(state, policy, exits, quote):
    at = chain.field(state, chain.SIGHTS)
    weights = np.append(state[at : at + policy.bins], own(state, DIRECT))
    seen = np.append(bounds(state, policy, exits)[0], own(state, DIRECTLY))
    price = quote.offload_cost[0]
    mean = weights @ seen / weights.sum() if weights.sum() > 0.0 else 1.0
    return mean - (quote.mu * price if price < INF else INF)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    exits=st.integers(2, 4),
    bins=st.integers(2, 6),
    mu=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    on_the_way=st.booleans(),
    width=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_the_plan_is_the_best_rule_by_brute_force(seed, exits, bins, mu, on_the_way, width):
    rng = np.random.default_rng(seed)
    cuts = [c for c in range(exits + 1) if rng.random() < 0.7] or [int(rng.integers(1, exits + 1))]
    arms = Arms(exits=exits, table=tuple(Arm(c, INF if c == 0 else -INF if c == exits else 0.5) for c in cuts))
    policy = ChainUCB(bins=bins, on_the_way=on_the_way, width=width)
    state = written(policy, arms, rng)
    offload = np.where(rng.random(exits + 1) < 0.25, INF, rng.random(exits + 1))
    offload[exits] = 0.0
    quote = Quote(edge_cost=np.cumsum(rng.random(exits + 1)) * 0.2, offload_cost=offload, mu=mu)
    plan(state, quote.row)

    value = {
        c: best_rule(state, policy, exits, quote, c) if c else input_value(state, policy, exits, quote) for c in cuts
    }
    chosen = cuts[int(own(state, PLANNED))]
    assert value[chosen] == pytest.approx(max(value.values()), abs=1e-9) or max(value.values()) == -INF
    rule = state[int(own(state, RULES)) : int(own(state, RULES)) + exits]
    assert (rule[chosen:] == INF).all()
    if chosen:
        lower = np.concatenate([[-INF], chain.edges(bins)])
        starts = [
            bins if t >= chain.NEVER else int(np.flatnonzero(lower == t)[0]) for t in rule[: min(chosen, exits - 1)]
        ]
        assert best_rule(state, policy, exits, quote, chosen, starts) == pytest.approx(value[chosen], abs=1e-9)
        assert chosen < exits or rule[-1] == -INF
        assert all(t < INF for t in rule[: chosen - 1])  # heads on the way are evaluated in every world
    if max(value.values()) > -INF and 0 < chosen < exits and offload[chosen] == INF:
        assert rule[chosen - 1] == -INF  # what is not offered is not asked for, whatever mu


def test_ties_go_to_the_deepest_cut_and_nothing_seen_is_hoped_for():
    free = Quote(edge_cost=[0, 0, 0, 0], offload_cost=[0, 0, 0, 0], mu=1.0)
    policy = ChainUCB()
    state, row = policy.initial(GRID, 0), free.row.copy()
    KERNELS.select(state, row)
    assert row[CUT] == 3.0
    assert row[ARM] == -1.0
    dear = Quote(edge_cost=[0, 0, 1, 5], offload_cost=[5, 0, 5, 0], mu=1.0)
    KERNELS.select(state, row := dear.row.copy())
    assert row[CUT] == 1.0


# What is learnt.

BINS, EXITS, SAMPLES = 5, 4, 60_000
LOWER = np.concatenate([[0.0], chain.edges(BINS), [1.0]])
FINAL = np.array([0.35, 0.55, 0.7, 0.85, 0.95])  # mean of the last exit from each bin of the one before


@pytest.fixture(scope="module")
def markov():
    """Four exits, each of which depends on the one before alone, and where in its bin a confidence lies is chance."""
    rng = np.random.default_rng(0)
    bin_ = rng.choice(BINS, size=SAMPLES, p=[0.15, 0.2, 0.2, 0.25, 0.2])
    bins = [bin_]
    for _ in range(EXITS - 2):
        p = np.array([rng.dirichlet(4.0 * np.exp(-0.7 * np.abs(np.arange(BINS) - b - 0.5))) for b in range(BINS)])
        bin_ = (rng.random(SAMPLES)[:, None] > np.cumsum(p[bin_], axis=1)).sum(axis=1).clip(0, BINS - 1)
        bins.append(bin_)
    last = (FINAL[bin_] + rng.uniform(-0.05, 0.05, SAMPLES)).clip(0.0, 1.0)
    sure = [LOWER[b] + np.diff(LOWER)[b] * rng.random(SAMPLES) for b in bins]
    return np.stack([*sure, last], axis=1), np.stack(bins)


def world(confidence, prices, **rules):
    """A world of one condition with these confidences (N, L) and prices."""
    exits = confidence.shape[1]
    cache = ConfidenceCache.from_arrays(
        confidence=confidence[None, None],
        prediction=np.zeros((1, 1, *confidence.shape), dtype=int),
        label=np.zeros(len(confidence), dtype=int),
        conditions=["same"],
        classes=2,
        profile=Profile(
            segment_macs=(1,) * exits,
            head_macs=(1,) * exits,
            payload_bytes=(*(2,) * exits, 0),
            layers=tuple(range(1, exits + 1)),
        ),
    )
    return World(cache=cache, prices=prices, arms=Arms.grid(exits=exits), **rules)


def error(values, n):
    """Standard error of the mean of n of them; 1 where there is none."""
    return values.std() / math.sqrt(n) if n > 0.0 else 1.0


@pytest.mark.parametrize(("returns", "audit"), [("final", 0.0), ("final", 0.1), ("all", 0.0), ("all", 0.1)])
def test_no_cell_is_biased_by_what_the_policy_selects(markov, returns, audit):
    confidence, bins = markov
    # Cut 3 is the best: what earlier exits are not sure of goes on, and the cloud sees what no exit was sure of.
    prices = Listed(edge=(0, 0.01, 0.02, 0.03, 0.3), offload=(1, 0.3, 0.18, 0.08, 0))
    here = world(confidence, prices, cloud_returns=returns)
    policy = ChainUCB(bins=BINS, memory=1e12, alarm=1e6, audit=audit)
    trace, state = rollout(policy, here, Stationary(condition="same"), horizon=30_000, seed=0)
    assert 0.1 < trace.mean("offloads") < 0.5
    seen, mine, n, mean, passed = (
        field(state, name, EXITS) for name in (chain.SEEN, chain.OWN, chain.KNOWN, chain.CLOUD, chain.PASSED)
    )
    table = moves(state, EXITS)
    assert table[:-1].sum(axis=2) == pytest.approx(passed[:-1], rel=1e-9)
    compared = 0
    for j in range(EXITS - 1):
        for b in range(BINS):
            there = bins[j] == b
            assert abs(mine[j, b] - confidence[there, j].mean()) < 4.5 * error(confidence[there, j], seen[j, b]), (j, b)
            # Without audits, what a sure exit was never sent for is known from few requests, or hoped to be 1.
            sure = 0.0 if audit > 0.0 or j + 2 == EXITS else 0.1
            if n[j, b] >= 30.0:
                compared += 1
                off = abs(mean[j, b] - confidence[there, -1].mean())
                assert off < 4.5 * error(confidence[there, -1], n[j, b]) + sure, (j, b)
            if j + 2 < EXITS and passed[j, b] >= 100.0:
                p = np.bincount(bins[j + 1][there], minlength=BINS) / there.sum()
                slack = 4.5 * np.sqrt(p * (1.0 - p) / passed[j, b]) + 1.0 / passed[j, b]
                assert (np.abs(table[j, b] / passed[j, b] - p) < slack).all(), (j, b)
    assert compared >= 5


def test_a_first_request_by_hand():
    """Exits 1 and 2 at 0.5 and 0.9, sent from there, twice; and one that exit 2 answers."""
    state = ChainUCB(bins=2, memory=1e12).initial(GRID, 0)
    row = Quote(**PRICES, mu=1.0).row.copy()
    row[CUT] = 2.0
    seen = Observation(confidence=[0.5, 0.9, 0.7], answered_at=3, offloaded=True).row
    KERNELS.update(state, row, seen)
    assert chain.edges(2)[0] == pytest.approx(1.0 - 0.5**1.5)  # 0.646
    assert field(state, chain.SEEN, 3) == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert field(state, chain.OWN, 3)[[0, 1], [0, 1]].tolist() == [0.5, 0.9]
    assert field(state, chain.KNOWN, 3) == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert field(state, chain.CLOUD, 3)[[0, 1], [0, 1]].tolist() == [0.7, 0.7]
    assert field(state, chain.PASSED, 3) == pytest.approx(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert moves(state, 3)[0] == pytest.approx(np.array([[0.0, 1.0], [0.0, 0.0]]))
    seen[CONFIDENCE + 2] = 0.3
    KERNELS.update(state, row, seen)
    assert field(state, chain.CLOUD, 3)[1, 1] == pytest.approx(0.5)
    assert field(state, chain.SPREAD, 3)[1, 1] == pytest.approx(0.5 * 0.4 * 0.2)  # half of gap times what is left of it
    for sure, expected in ((0.95, 0.5), (0.6, 1.0)):  # what the cloud said from there; what nobody knows
        before = field(state, chain.KNOWN, 3), field(state, chain.CLOUD, 3)
        row[thresholds_at(3) + 1] = 0.6
        KERNELS.update(state, row, Observation(confidence=[0.9, sure, NAN], answered_at=2, offloaded=False).row)
        n, mean = field(state, chain.KNOWN, 3), field(state, chain.CLOUD, 3)
        assert n - before[0] == pytest.approx(np.array([[0.0, 1.0], [0.0, 0.0]]))
        assert mean[0, 1] == pytest.approx((before[0][0, 1] * before[1][0, 1] + expected) / n[0, 1])
        assert np.array_equal(mean[1], before[1][1])


@pytest.mark.parametrize("bins", [2, 3, 20, 50])
def test_a_bin_begins_exactly_at_the_threshold(bins):
    state = ChainUCB(bins=bins).initial(GRID, 0)
    edges = chain.edges(bins)
    near = np.concatenate([edges, np.nextafter(edges, 0.0), np.nextafter(edges, 1.0), [0.0, 1.0, 0.3, 0.9999999]])
    for c in near:
        assert chain.bin_of(state, c) == (edges <= c).sum()
    at = chain.field(state, chain.SEEN)
    state[at : at + bins] = 1.0
    for lowest in range(bins + 1):
        at = chain.field(state, chain.ON)
        state[at : at + bins] = np.where(np.arange(bins) >= lowest, -1.0, 2.0)
        threshold = chain.stop_from(state, 0, True)
        for c in near:
            assert (c >= threshold) == (chain.bin_of(state, c) >= lowest)


# When it plans.


def test_a_plan_holds_for_some_decisions_unless_the_price_changes():
    policy = ChainUCB(plan_every=5)
    state, row = policy.initial(GRID, 0), Quote(**PRICES, mu=1.0).row
    since = []
    for _ in range(11):
        KERNELS.select(state, row.copy())
        since.append(own(state, SINCE))
    assert since == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    for other in (Quote(**PRICES, mu=2.0), Quote(**(PRICES | {"offload_cost": [0.4, 0.3, 0.1, 0]}), mu=2.0)):
        KERNELS.select(state, other.row.copy())
        assert own(state, SINCE) == 0.0
        KERNELS.select(state, other.row.copy())
        assert own(state, SINCE) == 1.0


def test_the_plan_of_a_new_price_is_that_of_a_fresh_plan():
    state = ChainUCB(plan_every=10**9).initial(GRID, 0)
    for mu, cut in ((1.0, 1), (0.0, 3), (1.0, 1)):
        row = Quote(edge_cost=[0, 0.01, 0.5, 0.9], offload_cost=[1, 0.05, 0.05, 0], mu=mu).row.copy()
        KERNELS.select(state, row)
        assert row[CUT] == cut


def test_forgetting_is_planned_for_and_an_unchanged_factor_is_not():
    state, row = ChainUCB(plan_every=100).initial(GRID, 0), Quote(**PRICES, mu=1.0).row
    for factor, since in ((1.0, 1.0), (0.5, 0.0)):
        KERNELS.select(state, row.copy())
        KERNELS.forget(state, factor)
        KERNELS.select(state, row.copy())
        assert own(state, SINCE) == since
