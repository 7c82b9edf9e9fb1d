"""ChainUCB: its plan against brute force, its cells against a chain whose truth is known, its alarms, its edges."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import Arm, Arms, Engine, Observation, Profile, Quote
from offramp.bandits import exit_chain as chain
from offramp.bandits.chain_ucb import (
    CONFIDENCES,
    DIRECT,
    DIRECTLY,
    HOPEFUL,
    KERNELS,
    PLANNED,
    RESIDUALS,
    RULES,
    SINCE,
    ChainUCB,
    plan,
)
from offramp.bandits.checks import policy_checks
from offramp.bandits.listed import Listed
from offramp.bandits.rows import ARM, AUDIT, CONFIDENCE, CUT, OFFLOADED, P_REVEAL, offload_cost_at, thresholds_at
from offramp.bandits.state import CURSOR, FREE, MADE, T
from offramp.bandits.two_window import HELD, TICK
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


def world(confidence, prices, arms=None, **rules):
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
    return World(cache=cache, prices=prices, arms=arms or Arms.grid(exits=exits), **rules)


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


# The alarms.


def fed(confidence, policy=None, cut=2):
    """A state after requests that were all offloaded from a cut, and in which of them it forgot all or the cloud's."""
    state = (policy or ChainUCB(memory=1e12)).initial(GRID, 0)
    row = Quote(**PRICES, mu=1.0).row.copy()
    row[CUT] = cut
    rang = [], []
    before = 0.0, 0.0
    for t, c in enumerate(confidence):
        state[int(state[FREE]) + SINCE] = 1.0
        KERNELS.update(state, row, Observation(confidence=c, answered_at=3, offloaded=True).row)
        now = field(state, chain.SEEN, 3).sum(), field(state, chain.KNOWN, 3).sum()
        for which in range(2):
            if now[which] < before[which]:
                rang[which].append(t)
                assert own(state, SINCE) > 1e6  # planned for at once
        before = now
    return state, rang


def requests(n, first, last, seed=0):
    rng = np.random.default_rng(seed)
    out = np.clip(rng.normal([first, 0.8, last], [0.1, 0.05, 0.03], (n, 3)), 0.0, 1.0)
    return np.round(out, 12)


def test_a_jump_at_exit_1_rings_the_first_alarm_and_all_is_forgotten():
    _, (everything, cloud) = fed(np.concatenate([requests(700, 0.8, 0.9), requests(100, 0.4, 0.9, 1)]))
    assert len(everything) == 1
    assert 700 <= everything[0] < 760
    assert set(cloud) >= set(everything)


def test_a_change_of_the_last_exit_alone_rings_the_second_and_keeps_what_is_known_of_the_edge():
    calm, changed = (np.concatenate([requests(700, 0.8, 0.9), requests(150, 0.8, last, 1)]) for last in (0.9, 0.6))
    state, (everything, cloud) = fed(changed)
    other, _ = fed(calm)
    assert not everything
    assert 700 <= cloud[0] < 760
    for name in (chain.SEEN, chain.OWN, chain.PASSED):
        assert np.array_equal(field(state, name, 3), field(other, name, 3))
    assert np.array_equal(moves(state, 3), moves(other, 3))
    assert field(state, chain.KNOWN, 3).sum() < 0.5 * field(other, chain.KNOWN, 3).sum()


def test_nothing_rings_where_nothing_changes():
    for seed in range(3):
        _, rang = fed(requests(800, 0.8, 0.9, seed), ChainUCB(memory=1e12, alarm=6.0))
        assert rang == ([], [])
    assert fed(np.full((900, 3), 1.0))[1] == ([], [])


def test_deeper_confidences_from_the_cloud_are_what_it_is_surprised_by():
    """Exit 2 was seen, so what it makes one expect counts, although the request was sent from exit 1."""
    state, _ = fed(requests(200, 0.8, 0.9), cut=1)
    at = int(own(state, RESIDUALS))
    assert state[at + HELD] > 150.0
    assert field(state, chain.KNOWN, 3).sum(axis=1) == pytest.approx([200.0, 200.0])
    state[chain.field(state, chain.CLOUD) :][: 2 * 20] = 0.5
    at = chain.field(state, chain.CLOUD) + 20 + chain.bin_of(state, 0.8)
    state[at] = 0.25
    assert chain.surprise(state, np.array([0.9, 0.8, 0.75])) == pytest.approx(0.5)


# The life of an engine.


def answer(decision, sample):
    """The observation that a decision leads to on one sample."""
    for j in range(decision.cut):
        if sample[j] >= decision.thresholds[j]:
            shown = [*sample[: j + 1], *[NAN] * (len(sample) - j - 1)]
            if decision.audit:
                shown = [*sample[: decision.cut], *[NAN] * (len(sample) - decision.cut - 1), sample[-1]]
            return Observation(confidence=shown, answered_at=j + 1, offloaded=False, audited=decision.audit)
    shown = [*sample[: decision.cut], *[NAN] * (len(sample) - decision.cut - 1), sample[-1]]
    return Observation(confidence=shown[: len(sample)], answered_at=len(sample), offloaded=True)


def served(engine, quote, rounds, samples, seed=0):
    rng = np.random.default_rng(seed)
    decisions = []
    for _ in range(rounds):
        decision = engine.decide(quote)
        engine.update(decision, answer(decision, samples[rng.integers(len(samples))]))
        decisions.append(decision)
    return decisions


SAMPLE = np.array([[0.3, 0.95, 0.97], [0.97, 0.98, 0.99], [0.5, 0.6, 0.9]])
QUOTE = Quote(edge_cost=[0, 0.02, 0.05, 0.5], offload_cost=[1, 0.5, 0.2, 0], mu=1.0)


def test_an_exit_that_is_withdrawn_answers_no_more_and_what_it_taught_is_kept():
    arms = Arms.grid(exits=3, thresholds=(0.5, 0.9))
    engine = Engine(ChainUCB(), arms=arms, seed=0)
    decisions = served(engine, QUOTE, 400, SAMPLE)
    assert decisions[-1].cut == 2
    assert decisions[-1].thresholds[0] <= 0.97
    state = engine.state()
    late = engine.decide(QUOTE)
    engine.change(arms.without(cuts=[1]))
    for name in range(chain.SEEN, chain.FIELDS):
        if name <= chain.PASSED:
            assert np.array_equal(field(engine.state(), name, 3), field(state, name, 3))
    assert np.array_equal(moves(engine.state(), 3), moves(state, 3))
    decision = engine.decide(QUOTE)
    assert decision.cut == 2
    assert decision.thresholds[0] == chain.NEVER
    before = engine.state()
    assert engine.update(late, answer(late, SAMPLE[1]))  # a decision from before teaches still
    assert field(engine.state(), chain.SEEN, 3).sum() > field(before, chain.SEEN, 3).sum()
    assert all(d.thresholds[0] == chain.NEVER for d in served(engine, QUOTE, 50, SAMPLE))
    engine.change(arms.without(cuts=[1]).plus([Arm(1, 0.5)]))
    decision = engine.decide(QUOTE)
    assert decision.thresholds[0] <= 0.97
    assert np.isfinite(decision.thresholds[:2]).any()


def test_other_thresholds_in_the_table_are_no_other_arms_for_open_decisions():
    engine = Engine(ChainUCB(), arms=Arms.grid(exits=3, thresholds=(0.5, 0.9)), seed=0)
    late = engine.decide(QUOTE)
    engine.change(Arms.grid(exits=3, thresholds=(0.7,)))
    assert engine.update(late, answer(late, SAMPLE[0]))
    assert field(engine.state(), chain.SEEN, 3).sum() > 0.0


def test_audits_come_as_often_as_they_say_and_only_where_there_is_an_offload():
    engine = Engine(ChainUCB(audit=0.2), arms=Arms.grid(exits=3), seed=0)
    decisions = served(engine, QUOTE, 3_000, SAMPLE)
    inside = [d for d in decisions if d.cut < 3]
    assert len(inside) > 2_500
    assert {d.p_reveal for d in inside} == {0.2}
    assert {(d.p_reveal, d.audit) for d in decisions if d.cut == 3} <= {(0.0, False)}
    share = np.mean([d.audit for d in inside])
    assert abs(share - 0.2) < 4.5 * math.sqrt(0.16 / len(inside))
    assert all(np.array_equal(d.quote.row, QUOTE.row) for d in decisions[::100])
    closed = Quote(edge_cost=[0, 0.02, 1.5, 3], offload_cost=[INF, INF, INF, 0], mu=1.0)
    engine = Engine(ChainUCB(audit=0.2, on_the_way=False), arms=Arms.grid(exits=3), seed=0)
    for decision in served(engine, closed, 200, SAMPLE):
        assert not decision.audit
        assert decision.p_reveal == 0.0
        assert decision.cut == 1
        assert decision.threshold == -INF


def test_audits_become_rarer_where_they_are_dear():
    policy = ChainUCB(audit=0.5, audit_spend=0.01, on_the_way=False)
    state = policy.initial(Arms.grid(exits=3, thresholds=(0.5,)).without(cuts=[2, 3]), 0)
    for price, chance in ((0.0, 0.5), (0.02, 0.5), (0.1, 0.1), (1.0, 0.01), (INF, 0.0)):
        state[CURSOR] = 0.0
        row = Quote(edge_cost=[0, 0.1, 0.2, 0.3], offload_cost=[0, price / 2.0, 0, 0], mu=2.0).row.copy()
        KERNELS.select(state, row)
        assert row[P_REVEAL] == pytest.approx(chance)
        assert row[AUDIT] == (chance > 0.0)  # the uniforms are 0 here


def test_a_row_that_is_used_again_carries_no_old_audit():
    policy = ChainUCB(audit=1.0, on_the_way=False)
    row = Quote(edge_cost=[0, 0.01, 1.5, 3], offload_cost=[1, 0.05, 0.05, 0], mu=1.0).row.copy()
    state = policy.initial(Arms.grid(exits=3), 0)
    state[CURSOR] = 0.0
    KERNELS.select(state, row)
    assert (row[AUDIT], row[P_REVEAL]) == (1.0, 1.0)
    row[offload_cost_at(3) : offload_cost_at(3) + 3] = INF
    KERNELS.select(state, row)
    assert row[CUT] == 1.0
    assert (row[AUDIT], row[P_REVEAL]) == (0.0, 0.0)
    assert (row[thresholds_at(3) + int(row[CUT]) : thresholds_at(3) + 3] == INF).all()


# The edges of what it can be asked.


@pytest.mark.parametrize(("exits", "bins"), [(2, 2), (2, 50), (12, 2), (12, 50)])
def test_few_and_many_exits_and_bins(exits, bins):
    rng = np.random.default_rng(exits)
    sure = np.sort(rng.random((300, exits)), axis=1)
    prices = Listed(edge=tuple(np.linspace(0.0, 0.4, exits + 1)), offload=(1.0, *np.linspace(0.3, 0.1, exits - 1), 0.0))
    trace, state = rollout(
        ChainUCB(bins=bins), world(sure, prices), Stationary(condition="same"), horizon=2_000, seed=0
    )
    assert np.isfinite(trace.sums["regret"]).all()
    assert field(state, chain.SEEN, exits)[0].sum() > 0.0


def test_one_exit_leaves_nothing_to_choose():
    with pytest.raises(ValueError, match="exits is 1, allowed is 2 or more"):
        Engine(ChainUCB(), arms=Arms(exits=1, table=(Arm(1, -INF),)), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": -0.1}, "width is -0.1"),
        ({"memory": 0.5}, "memory is 0.5, allowed is a finite number >= 1"),
        ({"memory": INF}, "memory is inf"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"alarm": 0.0}, "alarm is 0.0"),
        ({"audit": 1.1}, "audit is 1.1"),
        ({"audit_spend": -1.0}, "audit_spend is -1"),
        ({"bins": 1}, "bins is 1"),
        ({"bins": 2.5}, "bins is 2.5"),
        ({"plan_every": 0}, "plan_every is 0"),
    ],
)
def test_parameters_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ChainUCB(**options)


def test_the_contract_holds():
    for check in policy_checks(ChainUCB(audit=0.1)):
        check()


@pytest.mark.parametrize("evaluate", ["own", "prefix"])
def test_heads_on_the_way_are_evaluated_in_every_world(evaluate):
    rng = np.random.default_rng(0)
    prices = Listed(edge=(0, 0.01, 0.02, 0.03, 0.04), offload=(1, 0.9, 0.9, 0.5, 0))
    arms = Arms.grid(exits=4, raw_input_allowed=True)
    here = world(
        np.sort(rng.random((300, 4)), axis=1),
        prices,
        arms,
        evaluate=evaluate,
        raw_input_allowed=True,
        fallback="most_confident",
    )
    for policy in (ChainUCB(), ChainUCB(on_the_way=False)):
        trace, state = rollout(policy, here, Stationary(condition="same"), horizon=1_000, seed=0)
        assert np.isfinite(trace.sums["regret"]).all()
        assert field(state, chain.PASSED, 4)[:-1].sum(axis=1).min() > 10.0


def sound(state):
    """Everything is a number, and each cell's moves add up to the requests that left it."""
    passed, table = field(state, chain.PASSED, 3), moves(state, 3)
    assert np.isfinite(state[np.isfinite(ChainUCB().initial(Arms.grid(exits=3), 0))]).all()
    assert table.sum(axis=2) == pytest.approx(passed, rel=1e-6, abs=1e-6)
    for name in (chain.OWN, chain.CLOUD):
        assert (field(state, name, 3) >= 0.0).all()
        assert (field(state, name, 3) <= 1.0).all()
    assert (field(state, chain.SPREAD, 3) >= 0.0).all()
    assert 1.0 <= own(state, chain.WEIGHT) < 1e9


@pytest.mark.parametrize("kind", ["zeros and ones", "constant"])
def test_numbers_stay_sound_for_a_million_rounds(kind):
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 2, (500, 3)).astype(float) if kind == "zeros and ones" else np.full((500, 3), 0.5)
    here = world(confidence, Listed(edge=(0, 0.05, 0.1, 0.3), offload=(1, 0.3, 0.2, 0)))
    policy = ChainUCB(memory=500.0)
    trace, state = rollout(policy, here, Stationary(condition="same"), horizon=1_000_000, seed=0)
    sound(state)
    assert np.isfinite(trace.sums["regret"]).all()
    assert state[MADE] == 1_000_000
    # What fades away is faded, not gone.
    for name in (chain.SEEN, chain.KNOWN, chain.PASSED):
        values = field(state, name, 3)
        assert values[values > 0.0].min() >= 1e-9
    means = field(state, chain.OWN, 3)
    for _ in range(200):
        KERNELS.forget(state, 1e-6)
    sound(state)
    assert state[T] < 1e-6
    assert np.array_equal(field(state, chain.OWN, 3), means)
    row = here.quotes((1.0,))[0]
    KERNELS.select(state, row)
    assert 1.0 <= row[CUT] <= 3.0
    before = own(state, chain.WEIGHT)
    seen = Observation(confidence=[0.5, 0.5, 0.5], answered_at=3, offloaded=True).row
    assert seen[OFFLOADED] == 1.0
    row[CUT] = 2.0
    KERNELS.update(state, row, seen)
    assert own(state, chain.WEIGHT) > before
    sound(state)


def test_a_short_memory_and_no_width_are_played_as_they_are():
    prices = Listed(edge=(0, 0.05, 0.1, 0.3), offload=(1, 0.3, 0.2, 0))
    here = world(np.random.default_rng(0).random((500, 3)), prices)
    for policy in (ChainUCB(memory=1.0), ChainUCB(width=0.0), replace(ChainUCB(), keep=1e-9, alarm=0.1)):
        trace, state = rollout(policy, here, Stationary(condition="same"), horizon=20_000, seed=0)
        sound(state)
        assert np.isfinite(trace.sums["regret"]).all()


def test_the_windows_hear_every_request_that_shows_exit_1():
    state, _ = fed(requests(30, 0.8, 0.9))
    at = int(own(state, CONFIDENCES))
    assert state[at + HELD] == 30.0
    assert state[at + TICK] == 10.0
