"""Rules outside the table of arms: what they are worth, and the regret of a policy that plays them."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from offramp.bandits import Arm, Arms, Engine, Observation
from offramp.bandits.chain_ucb import ChainUCB
from offramp.bandits.listed import Listed
from offramp.bandits.loop import FIELDS, REGRET, note_rule
from offramp.bandits.reveal import fall_back, reveal, reward
from offramp.bandits.rows import AUDIT, CUT, MU, thresholds_at
from offramp.environments import Abrupt, Lateness, RandomWalk, blocks, replay, rollout
from offramp.environments.off_table import OffTable
from offramp.environments.regret import values
from offramp.environments.replay import _quote
from offramp.environments.trace import Trace, record

LINKS = (0.5, 1.0, 3.0)
MIXED = RandomWalk(conditions=("clear", "foggy"), links=LINKS, stay=0.9)
ROUTED = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=LINKS, stay=0.9)
JOINT = ChainUCB(bins=5, plan_every=4)


def rule_of(arm, exits):
    """(cut, thresholds) of an arm."""
    rule = np.full(exits + 1, np.inf)
    rule[0] = arm.cut
    rule[1 : len(arm.early) + 1] = arm.early
    if arm.cut:
        rule[arm.cut] = arm.threshold
    return rule


def value_of(truth, quote, cut, thresholds, options):
    """Mean reward of a rule over samples (N, L), in plain NumPy."""
    prefix, _, _, fallback = options
    exits = truth.shape[1]
    mu, edge, offload = quote[MU], quote[9 : 10 + exits], quote[10 + exits : 11 + 2 * exits]
    sure = truth[:, :cut] >= thresholds[:cut]
    stops = sure.any(axis=1)
    at = np.where(stops, sure.argmax(axis=1) if cut else 0, exits - 1)
    answer = truth[np.arange(len(truth)), at]
    if fallback and cut and thresholds[cut - 1] < np.inf:
        heads = [k for k in range(cut) if prefix or k == cut - 1 or thresholds[k] < np.inf]
        doubted = ~stops & (truth[:, -1] < thresholds[cut - 1])
        answer = np.where(doubted, np.maximum(truth[:, -1], truth[:, heads].max(axis=1)), answer)
    spent = np.where(stops, edge[at + 1], edge[cut])
    if not stops.all():
        spent = spent + np.where(stops, 0.0, offload[cut])
    return (answer - mu * spent).mean()


@pytest.fixture(params=["none", "most_confident"])
def here(request, small):
    grid = Arms.grid(exits=4, raw_input_allowed=True)
    cascades = Arms.cascades(exits=4, at=(1, 2), thresholds=(0.4, 0.7), cut=3)
    prices = Listed(edge=(0, 0.02, 0.1, 0.2, 0.5), offload=(1, 0.5, 0.3, 0.05, 0))
    deeper = replace(small.cache, confidence=np.sort(small.cache.confidence, axis=-1))
    return replace(
        small,
        cache=deeper,
        arms=grid.joined(cascades),
        prices=prices,
        raw_input_allowed=True,
        fallback=request.param,
    )


@pytest.mark.parametrize("evaluate", ["prefix", "own"])
def test_a_rule_that_is_an_arm_has_its_gap(here, evaluate):
    world = replace(here, evaluate=evaluate)
    arrays = world.arrays(("clear", "foggy"), LINKS)
    table = OffTable(arrays, world.arms)
    assert (arrays.gap < 0.0).any()  # a cascade beats what it is measured against
    for s in range(2):
        for p in range(3):
            found = [table.gap(s, p, rule_of(arm, 4)) for arm in world.arms]
            assert found == pytest.approx(arrays.gap[s, p], abs=1e-12)
            assert min(found[a] for a, arm in enumerate(world.arms) if not arm.early) == 0.0


def test_in_a_table_of_cascades_the_best_of_them_is_the_yardstick(small):
    world = replace(small, arms=Arms.cascades(exits=4, at=(1, 2), thresholds=(0.4, 0.7), cut=3))
    arrays = world.arrays(("clear",), LINKS)
    table = OffTable(arrays, world.arms)
    found = [table.gap(0, 1, rule_of(arm, 4)) for arm in world.arms]
    assert found == pytest.approx(arrays.gap[0, 1], abs=1e-12)
    assert min(found) == 0.0


@pytest.mark.parametrize("evaluate", ["prefix", "own"])
def test_any_rule_has_the_value_that_numpy_finds(here, evaluate):
    world = replace(here, evaluate=evaluate)
    arrays = world.arrays(("clear", "foggy"), LINKS)
    table = OffTable(arrays, world.arms)
    best = values(arrays.confidence, arrays.quotes, Arms(exits=4, table=world.arms.single), arrays.options).max(axis=2)
    rng = np.random.default_rng(0)
    for _ in range(150):
        cut = int(rng.integers(0, 5))
        rule = np.full(5, np.inf)
        rule[0] = cut
        rule[1 : cut + 1] = rng.choice([-np.inf, 0.3, 0.5, 0.7, 0.9, 2.0, np.inf], cut)
        if cut == 4:
            rule[4] = -np.inf
        s, p = int(rng.integers(2)), int(rng.integers(3))
        value = value_of(arrays.confidence[s], arrays.quotes[p], cut, rule[1:], arrays.options)
        assert table.gap(s, p, rule) == pytest.approx(best[s, p] - value, abs=1e-12)


def test_what_is_not_offered_is_infinitely_dear_also_where_cost_is_nothing(small):
    world = replace(small, prices=Listed(edge=(0, 0.1, 0.2, 0.3, 0.4), offload=(1, np.inf, 0.1, 0.1, 0), mu=0.0))
    arrays = world.arrays(("clear",), (1.0,))
    table = OffTable(arrays, world.arms)
    assert table.gap(0, 0, rule_of(Arm(1, 0.7), 4)) == np.inf
    assert table.gap(0, 0, rule_of(Arm(1, -np.inf), 4)) < 1.0


def slowly(policy, world, stream, horizon, seed):
    """Regret and rounds by cut, round by round: the yardstick's value minus that of the rule just played, and what its
    audit cost.
    """
    arrays = world.arrays(stream.conditions, stream.links)
    engine = Engine(policy, arms=world.arms, seed=seed, features=arrays.context.shape[2])
    best = values(arrays.confidence, arrays.quotes, world.arms, arrays.options).max(axis=2)
    exits = world.arms.exits
    regret, cuts = [], []
    for block in blocks(stream, samples=len(arrays.label), horizon=horizon, seed=seed):
        for sample, s, p in zip(*(part.tolist() for part in block), strict=True):
            context = arrays.context[s, sample]
            decision = engine.decide(_quote(arrays.quotes[p]), context if len(context) else None)
            seen = Observation(confidence=np.full(exits, np.nan), answered_at=1, offloaded=False)
            truth, classes = arrays.confidence[s, sample], arrays.prediction[s, sample]
            reveal(truth, classes, decision.row, arrays.options, seen.row)
            fall_back(truth, decision.row, arrays.options, seen.row) if arrays.options[3] else None
            engine.update(decision, seen)
            gap = best[s, p] - value_of(
                arrays.confidence[s], arrays.quotes[p], decision.cut, decision.thresholds, arrays.options
            )
            if seen.audited:  # what the same rule would have earned here without the audit
                plain, bare = decision.row.copy(), seen.row.copy()
                plain[AUDIT] = 0.0
                reveal(truth, classes, plain, arrays.options, bare)
                gap += reward(plain, bare) - reward(decision.row, seen.row)
            regret.append(gap)
            cuts.append(np.arange(exits + 1) == decision.cut)
    return np.cumsum(regret), np.cumsum(cuts, axis=0)


@pytest.mark.parametrize("audit", [0.0, 0.3])
@pytest.mark.parametrize("fallback", ["none", "most_confident"])
def test_regret_is_that_of_a_slow_count(small, audit, fallback):
    world = replace(small, fallback=fallback)
    policy = replace(JOINT, audit=audit)
    regret, cuts = slowly(policy, world, MIXED, 600, 1)
    for checkpoints in (None, np.arange(1, 601), np.array([1, 2, 97, 600])):
        trace, _ = rollout(policy, world, MIXED, horizon=600, seed=1, checkpoints=checkpoints)
        assert (trace.sums["audits"][-1] > 0.0) == (audit > 0.0)
        assert trace.sums["regret"] == pytest.approx(regret[trace.rounds - 1], abs=1e-9)
        assert np.array_equal(trace.cuts, cuts[trace.rounds - 1])


def assert_same(one, two):
    for name in FIELDS:
        assert np.array_equal(one.sums[name], two.sums[name]), name
    assert np.array_equal(one.cuts, two.cuts)


def test_regret_does_not_depend_on_how_often_it_is_added_up(small, monkeypatch):
    policy = replace(JOINT, audit=0.1)  # whose uniforms run out in between as well
    whole, _ = rollout(policy, small, MIXED, horizon=2_500, seed=0)
    assert np.isfinite(whole.sums["regret"]).all()
    for rules in (1, 3, 50):
        monkeypatch.setattr("offramp.environments.trace.RULES", rules)
        assert_same(rollout(policy, small, MIXED, horizon=2_500, seed=0)[0], whole)
    monkeypatch.undo()
    for size in (1, 97):
        monkeypatch.setattr(sys.modules[rollout.__module__], "blocks", partial(blocks, size=size))
        assert_same(rollout(policy, small, MIXED, horizon=2_500, seed=0)[0], whole)


def test_arms_of_the_table_in_between_leave_no_regret(small):
    """A record says when a rule outside the table was begun, not when it was left for an arm."""
    arrays = small.arrays(("clear",), (1.0,))
    kept = record(small.arms, 10, 0, np.array([10]))
    row = arrays.quotes[0].copy()
    row[CUT], row[thresholds_at(4)] = 1.0, 0.5
    note_rule(row, 0, kept.rules, kept.totals)
    kept.at[:] = 10, 1
    there = np.zeros(10, dtype=np.int64)
    OffTable(arrays, small.arms).add(kept, there, there)
    assert np.isfinite(kept.kept[0, REGRET])
    kept.at[:] = 10, 1
    note_rule(row, 0, kept.rules, kept.totals)
    kept.totals[len(FIELDS)] = 3.0
    kept.kept[0] = kept.totals
    OffTable(arrays, small.arms).add(kept, there, there)
    assert np.isnan(Trace.of(kept, [], 0.0).sums["regret"]).all()


def assert_equal(policy, world, stream, horizon, seed, lateness=None):
    fast, fast_state = rollout(policy, world, stream, horizon=horizon, seed=seed, lateness=lateness)
    slow, slow_state = replay(policy, world, stream, horizon=horizon, seed=seed, lateness=lateness)
    assert np.array_equal(fast_state, slow_state), "different states"
    assert_same(fast, slow)
    assert np.isfinite(fast.sums["regret"]).all()
    return fast


@pytest.mark.parametrize("audit", [0.0, 0.2])
@pytest.mark.parametrize("rules", [{}, {"cloud_returns": "all", "evaluate": "own"}, {"fallback": "most_confident"}])
def test_replay_equals_rollout(small, rules, audit):
    world = replace(small, arms=Arms.grid(exits=4, raw_input_allowed=True), raw_input_allowed=True, **rules)
    world = replace(world, prices=Listed(edge=(0, 0.01, 0.02, 0.03, 0.3), offload=(0.5, 0.3, 0.2, 0.08, 0)))
    trace = assert_equal(replace(JOINT, audit=audit), world, MIXED, 1_200, 0)
    assert (trace.sums["audits"][-1] > 0.0) == (audit > 0.0)


def test_replay_equals_rollout_where_a_router_gives_the_context(routed):
    assert_equal(replace(JOINT, audit=0.1), routed, ROUTED, 300, 0)


def test_replay_equals_rollout_with_seven_exits(world):
    assert_equal(ChainUCB(), world, Abrupt(segments=(("pristine", 1.0), ("noise 40", 0.2))), 300, 0)


@pytest.mark.parametrize("audit", [0.0, 0.2])
def test_replay_equals_rollout_with_late_and_lost_feedback(small, audit):
    lateness = Lateness(delay=20, spread=10, lost=0.2)
    assert_equal(replace(JOINT, audit=audit), small, MIXED, 1_200, 0, lateness)


def test_replay_equals_rollout_where_a_record_has_little_room(small, monkeypatch):
    monkeypatch.setattr("offramp.environments.trace.RULES", 2)
    assert_equal(replace(JOINT, audit=0.2), small, MIXED, 1_200, 0)
