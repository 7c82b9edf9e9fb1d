"""Threshold vectors as arms, and CeeBERT, which plays them: by hand, without bias, and in both executors alike."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.bandits import (
    UCB1,
    AdaEE,
    Arm,
    Arms,
    ConformalFloor,
    Engine,
    Fixed,
    Observation,
    Quote,
    RandomArm,
    SplitEE,
)
from offramp.bandits.ceebert import BASE, BASES, CeeBERT
from offramp.bandits.checks import policy_checks
from offramp.bandits.pulls import MEAN, PARAMETERS, PULLS, SHARE
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import thresholds_at
from offramp.environments import RandomWalk, replay, rollout
from offramp.environments.regret import served, stops

NAN, INF = float("nan"), math.inf
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
STEPS = (0.5, 0.8, INF)
VECTORS = Arms.cascades(exits=3, at=(1, 2), thresholds=STEPS)
PREFIX, OWN = np.array([1, 0, 0, 0]), np.array([0, 0, 0, 0])


def columns(state):
    """Weight, mean and share of offloads of each arm."""
    first, arms = int(state[7]) + PARAMETERS, int(state[1])
    return state[first : first + 4 * arms].reshape(4, arms)[[PULLS, MEAN, SHARE]]


def play(engine, confidence, quote=QUOTE, options=PREFIX):
    """One round on a sample; returns the decision."""
    decision = engine.decide(quote)
    seen = Observation(confidence=[NAN] * 3, answered_at=1, offloaded=False)
    reveal(np.array(confidence), np.arange(3), decision.row, options, seen.row)
    assert engine.update(decision, seen)
    return decision


def test_a_vector_that_is_infinite_throughout_is_no_cascade():
    assert Arm(3, 0.7, (INF, INF)) == Arm(3, 0.7)
    assert hash(Arm(3, 0.7, (INF, INF))) == hash(Arm(3, 0.7))
    assert Arm(3, 0.7).early == ()
    assert repr(Arm(3, 0.7)) == "Arm(cut=3, threshold=0.7)"
    assert eval(repr(Arm(3, 0.7, (0.5, 1))), {"Arm": Arm}) == Arm(3, 0.7, [0.5, 1])


@pytest.mark.parametrize(("cut", "early"), [(3, (0.5,)), (1, (0.5,)), (0, (0.5,)), (2, (NAN,)), (3, (INF,))])
def test_early_thresholds_are_one_for_each_exit_before_the_cut(cut, early):
    with pytest.raises(ValueError, match=rf"early is .* at cut {cut}, allowed are {max(cut - 1, 0)} numbers"):
        Arm(cut, INF, early)


def test_cascades_are_all_vectors_over_the_chosen_exits():
    assert len(VECTORS) == 9
    assert set(VECTORS.table) == {Arm(2, b, (a,)) for a in STEPS for b in STEPS}
    assert VECTORS.single == tuple(Arm(2, b) for b in STEPS)
    onwards = Arms.cascades(exits=5, at=(3, 1), thresholds=(0.5, 0.9), cut=5)
    assert set(onwards.table) == {Arm(5, -INF, (a, INF, b, INF)) for a in (0.5, 0.9) for b in (0.5, 0.9)}
    offloaded = Arms.cascades(exits=5, at=(1,), thresholds=(0.5,), cut=3)
    assert offloaded.table == (Arm(3, INF, (0.5, INF)),)
    grid = Arms.grid(exits=3, thresholds=STEPS)
    both = grid.joined(VECTORS)
    assert set(both.table) == {*grid.table, *VECTORS.table}
    assert both.single == grid.table
    assert both.joined(grid) == both


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"at": ()}, r"at is \[\], allowed is one exit or more in 1\.\.2"),
        ({"at": (0, 1)}, r"at is \[0, 1\]"),
        ({"at": (3,)}, r"at is \[3\]"),
        ({"at": (1,), "thresholds": ()}, "thresholds are empty"),
        ({"at": (1, 2), "cut": 1}, r"cut is 1, allowed is 2\.\.3, or None"),
        ({"at": (1, 2), "cut": 4}, r"cut is 4, allowed is 2\.\.3"),
    ],
)
def test_impossible_cascades_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Arms.cascades(exits=3, **wrong)
    with pytest.raises(ValueError, match="exits is 4, allowed is 3"):
        VECTORS.joined(Arms.grid(exits=4))


@given(st.lists(st.tuples(*[st.sampled_from([-INF, 0.2, 0.5, INF])] * 3), min_size=1, max_size=20, unique=True))
def test_a_vector_that_is_nowhere_higher_stands_before_the_other(vectors):
    table = Arms(exits=4, table=tuple(Arm(3, v[2], v[:2]) for v in vectors)).table
    full = [(*(arm.early or (INF, INF)), arm.threshold) for arm in table]
    for i, j in product(range(len(table)), repeat=2):
        if all(a <= b for a, b in zip(full[i], full[j], strict=True)):
            assert i <= j


def test_other_policies_leave_cascades_alone():
    grid = Arms.grid(exits=3, thresholds=(-INF, 0.5, 0.8, INF))
    both = grid.joined(VECTORS)
    for policy in (
        UCB1(),
        UCB1(thresholds=(0.8,)),
        SplitEE(threshold=0.5),
        AdaEE(cut=2),
        RandomArm(),
        Fixed(cut=2, threshold=0.5),
    ):
        assert policy.plays(both) == policy.plays(grid)
    floor = ConformalFloor(policy=UCB1(cuts=(2,)))
    assert floor.plays(both) == floor.plays(grid)
    with pytest.raises(ValueError, match=r"policy plays Arm\(cut=2.*allowed are arms without early thresholds"):
        ConformalFloor(policy=CeeBERT(cut=2)).plays(both)
    with pytest.raises(ValueError, match=r"cut is 5, allowed is 1\.\.3"):
        CeeBERT(cut=5).plays(both)
    with pytest.raises(ValueError, match="numbers besides those of its arms"):
        Engine(CeeBERT(cut=2), arms=both, seed=0).change(grid)


def test_ceebert_by_hand():
    """The highest vector shows all on two exits; then the index with shares of stops and offloads at the quote."""
    arms = Arms.cascades(exits=3, at=(1, 2), thresholds=(0.5, 0.8))
    low, mixed, other, high = (Arm(2, b, (a,)) for b, a in product((0.5, 0.8), repeat=2))
    assert arms.table == (low, mixed, other, high)
    engine = Engine(CeeBERT(cut=2, beta=0.1), arms=arms, seed=0)
    samples = [(0.6, 0.7, 0.9), (0.4, 0.45, 0.95), (0.85, 0.9, 0.9)]
    first = play(engine, samples[0])
    assert arms[first.arm] == high
    assert first.thresholds.tolist() == [0.8, 0.8, INF]
    pulls, mean, share = columns(engine.state())
    assert pulls.tolist() == [1, 1, 1, 1]
    assert mean.tolist() == [0.6, 0.7, 0.6, 0.9]
    assert share.tolist() == [0, 0, 0, 1]
    values = [0.6 - 0.1, 0.7 - 0.3, 0.6 - 0.1, 0.9 - 0.3 - 0.2]
    second = play(engine, samples[1])  # low and other are level: the higher one shows more
    assert arms[second.arm] == other
    assert values[0] == values[2] == max(values)
    pulls, mean, share = columns(engine.state())
    assert pulls.tolist() == [2, 1, 2, 1]
    assert mean == pytest.approx([(0.6 + 0.95) / 2, 0.7, (0.6 + 0.95) / 2, 0.9])
    stops_at_one = 0.5 * 0.1 + 0.5 * 0.3 + 0.5 * 0.2
    width = 0.1 * math.sqrt(math.log(2))
    value = [
        0.775 - stops_at_one + width / math.sqrt(2),
        0.4 + width,
        0.775 - stops_at_one + width / math.sqrt(2),
        0.4 + width,
    ]
    third = engine.decide(QUOTE)
    assert value[0] > value[1]
    assert arms[third.arm] == other
    dear = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 2.0, 0.0], mu=1.0)
    assert arms[engine.decide(dear).arm] == mixed  # the one vector that never offloaded


def test_published_reward_by_hand():
    """0, C_2 - C_1 - o_1, C_L - C_1 - o_1 - o_2: gains over the first exit and overheads beyond it."""
    arms = Arms.cascades(exits=3, at=(1, 2), thresholds=(0.5, 0.8))
    engine = Engine(CeeBERT(cut=2, beta=0.0, known_costs=False), arms=arms, seed=0)
    play(engine, (0.6, 0.7, 0.9))
    answered_at_two, sent = 0.7 - 0.6 - (0.3 - 0.1), 0.9 - 0.6 - (0.3 - 0.1) - 0.2
    assert columns(engine.state())[1] == pytest.approx([0.0, answered_at_two, 0.0, sent])
    never = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, INF, 0.0], mu=0.0)
    before = engine.state()
    play(engine, (0.1, 0.2, 0.9), never)  # none is offered: nothing that could be averaged
    assert np.array_equal(columns(engine.state()), columns(before))


def test_what_is_not_offered_is_passed_over():
    table = Arms(exits=3, table=(Arm(2, -INF), Arm(2, -INF, (0.5,)), Arm(2, 0.5, (0.5,)), Arm(2, INF)))
    engine = Engine(CeeBERT(cut=2), arms=table, seed=0)
    for mu in (0.0, 1.0):
        quote = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[INF, INF, INF, 0.0], mu=mu)
        for confidence in [(0.1, 0.2, 0.9), (0.7, 0.8, 0.9)] * 5:
            assert play(engine, confidence, quote).threshold == -INF


@pytest.mark.parametrize("options", [PREFIX, OWN])
@pytest.mark.parametrize("known_costs", [True, False])
def test_side_observations_are_unbiased(options, known_costs):
    """Whatever was played, the mean of each vector is that of the population, in a world of either kind."""
    rng = np.random.default_rng(0)
    base = rng.random(20_000)
    truth = np.clip(np.stack([base + rng.normal(0, s, base.size) for s in (0.3, 0.15, 0.05)], 1), 0.0, 1.0)
    engine = Engine(CeeBERT(cut=2, beta=2.0, known_costs=known_costs), arms=VECTORS, seed=0)
    seen = Observation(confidence=[NAN] * 3, answered_at=1, offloaded=False)
    for confidence in truth[:6_000]:
        decision = engine.decide(QUOTE)
        reveal(confidence, np.arange(3), decision.row, options, seen.row)
        engine.update(decision, seen)
    state = engine.state()
    pulls, mean, share = columns(state)
    for a, arm in enumerate(VECTORS.table):
        answer, sent = served(truth, arm, options)
        at = stops(truth, arm)
        expected = answer.mean()
        if not known_costs:
            cost = QUOTE.edge_cost[at] - QUOTE.edge_cost[1] + sent * QUOTE.offload_cost[2]
            expected -= truth[:, 0].mean() + cost.mean()
        slack = 5 * 0.5 / math.sqrt(pulls[a])
        assert mean[a] == pytest.approx(expected, abs=slack)
        assert share[a] == pytest.approx(sent.mean(), abs=slack)
    assert pulls.max() >= 5_999 or not options[0]  # in a world with all heads, every round tells of the lowest
    assert (pulls > pulls.max() / 50).sum() >= 4
    free = int(state[7])
    assert state[free + BASE] == pytest.approx(truth[:, 0].mean(), abs=0.05)
    assert state[free + BASES] > 0


def test_the_released_sets_would_be_biased():
    """Updating every vector with a lower first threshold after an answer at exit 1, and the like, misses the means."""
    rng = np.random.default_rng(0)
    base = rng.random(100_000)
    truth = np.clip(np.stack([base + rng.normal(0, s, base.size) for s in (0.3, 0.15, 0.05)], 1), 0.0, 1.0)
    high, low = Arm(2, 0.8, (0.8,)), Arm(2, 0.8, (0.5,))
    answered_at_one = truth[:, 0] >= high.early[0]
    answer, _ = served(truth, low, PREFIX)
    assert abs(answer[answered_at_one].mean() - answer.mean()) > 0.1


def test_no_threshold_is_left_behind():
    """A row that goes through many decisions holds the last vector, and nothing of those before."""
    arms = Arms.grid(exits=3, thresholds=STEPS).joined(VECTORS)
    policy = CeeBERT(cut=2)
    state, row = policy.initial(arms, 0), QUOTE.row.copy()
    rule = thresholds_at(3)
    vectors = set()
    for _ in range(20):
        policy.kernels.select(state, row)
        arm = arms[int(row[2])]
        assert row[rule : rule + 3].tolist() == [*(arm.early or (INF,)), arm.threshold, INF]
        vectors.add(arm)
    assert len(vectors) == 9  # without feedback, each in turn


TABLE = Arms.grid(exits=5).joined(Arms.cascades(exits=5, at=(1, 3), thresholds=STEPS))


@pytest.mark.parametrize("check", policy_checks(CeeBERT(cut=3), TABLE), ids=lambda c: c.body.__name__)
def test_contract_with_cascades(check):
    assert check() is None


@pytest.mark.parametrize("evaluate", ["prefix", "own"])
def test_replay_equals_rollout_with_cascades(evaluate, routed):
    arms = routed.arms.joined(Arms.cascades(exits=4, at=(1, 2), thresholds=(0.5, 0.7, 0.9), cut=3))
    arms = arms.joined(Arms.cascades(exits=4, at=(1, 3), thresholds=(0.5, 0.7, 0.9)))
    world = replace(routed, arms=arms, evaluate=evaluate, fallback="most_confident")
    stream = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)
    for policy in (CeeBERT(cut=3, beta=0.2), CeeBERT(cut=3, beta=0.2, known_costs=False), UCB1(beta=0.2)):
        fast, state = rollout(policy, world, stream, horizon=300, seed=0)
        slow, other = replay(policy, world, stream, horizon=300, seed=0)
        assert np.array_equal(fast.arms, slow.arms)
        assert np.array_equal(state, other)
        for name, values in fast.sums.items():
            assert np.array_equal(values, slow.sums[name]), name
