"""The theorem of the house: the engine, round by round in plain Python, and the compiled loop agree bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offramp.bandits import Arm, Decision, Engine, FinalExit, Fixed, Observation, RandomArm, SplitEES
from offramp.bandits.contract import ContractError
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import FIELDS, score
from offramp.bandits.policy import Kernels, needs_oracle
from offramp.bandits.reveal import fall_back, reveal
from offramp.bandits.rows import (
    ANSWERED_AT,
    AUDIT,
    CONFIDENCE,
    CUT,
    EXITS,
    OFFLOADED,
    check_observation,
    context_at,
    thresholds_at,
)
from offramp.bandits.state import choose, pack
from offramp.environments import Abrupt, RandomWalk, Stationary, blocks, replay, rollout

CONF = Path(__file__).parents[2] / "conf"
POLICIES = sorted(p.stem for p in (CONF / "policy").glob("*.yaml") if p.stem != "standard")
STREAMS = sorted(p.stem for p in (CONF / "stream").glob("*.yaml"))


def made(group, name):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return instantiate(compose("compare", overrides=[f"{group}={name}"])[group], _convert_="all")


def assert_equal(policy, world, stream, horizon, seed, compiled=False):
    fast, fast_state = rollout(policy, world, stream, horizon=horizon, seed=seed)
    slow, slow_state = replay(policy, world, stream, horizon=horizon, seed=seed, compiled=compiled)
    assert np.array_equal(fast.arms, slow.arms), "different arms"
    assert np.array_equal(fast_state, slow_state), "different states"
    assert np.array_equal(fast.rounds, slow.rounds)
    for name, values in fast.sums.items():
        assert np.array_equal(values, slow.sums[name]), f"different {name}"


@pytest.mark.parametrize("stream", ["abrupt", pytest.param("random_walk", marks=pytest.mark.long)])
@pytest.mark.parametrize("policy", POLICIES)
def test_replay_equals_rollout(policy, stream, world):
    """Uniforms that are drawn anew in between have a test of their own; `make check-long` has all streams, and more."""
    assert_equal(made("policy", policy), world, made("stream", stream), 400, 0)


# In plain Python these take two to six milliseconds a round, mostly the chances of their draws.
SLOW = {"beta_thompson", "gaussian_thompson"}


@pytest.mark.long
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("policy", POLICIES)
def test_replay_equals_rollout_long(policy, stream, world):
    """The first seed wholly in plain Python (fewer rounds of the slow), four more with compiled steps."""
    spec, changes = made("policy", policy), made("stream", stream)
    assert_equal(spec, world, changes, 2_000 if policy in SLOW else 20_000, 0)
    for seed in range(1, 5):
        assert_equal(spec, world, changes, 20_000, seed, compiled=True)


def test_a_policy_from_outside_runs_in_both_executors(small):
    inside = SplitEES(threshold=0.7).kernels

    class Outside(SplitEES):
        @property
        def kernels(self):
            return Kernels.of(inside.select, inside.update, inside.forget)

    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    assert_equal(Outside(threshold=0.7), small, stream, 500, 0)
    mine, _ = rollout(Outside(threshold=0.7), small, stream, horizon=500, seed=0)
    theirs, _ = rollout(SplitEES(threshold=0.7), small, stream, horizon=500, seed=0)
    assert np.array_equal(mine.arms, theirs.arms)


@pytest.mark.parametrize("policy", POLICIES)
def test_poisoned_hidden_values_change_no_decision(policy, world):
    """Before each decision every confidence that is not about to be revealed is overwritten with noise."""
    world = replace(world, evaluate="own")
    spec, stream = made("policy", policy), made("stream", "abrupt")
    _honest, honest_state = replay(spec, world, stream, horizon=300, seed=1, compiled=True)
    rng = np.random.default_rng(5)
    truth = world.arrays(stream.conditions, stream.links).confidence.copy()
    poisoned = 0

    def poison(t, engine, arrays, sample, condition):
        nonlocal poisoned
        arrays.confidence[condition, sample] = truth[condition, sample]
        peek = type(engine)(spec, arms=engine.arms, seed=0)
        peek.restore(engine.snapshot())
        row = peek.decide(quote_of(arrays, stream, t)).row
        seen = np.zeros(5 + 14)
        reveal(arrays.confidence[condition, sample], arrays.prediction[condition, sample], row, arrays.options, seen)
        hidden = np.isnan(seen[5:12])
        arrays.confidence[condition, sample, hidden] = rng.random(int(hidden.sum()))
        poisoned += int(hidden.sum())

    def quote_of(arrays, stream, t):
        if not prices:
            rounds = blocks(stream, samples=len(arrays.label), horizon=300, seed=1)
            prices.extend(np.concatenate([b.price for b in rounds]).tolist())
        return Decision(arrays.quotes[prices[t]], 0, "").quote

    prices: list[int] = []
    _, poisoned_state = replay(spec, world, stream, horizon=300, seed=1, compiled=True, look=poison)
    assert np.array_equal(honest_state, poisoned_state)
    assert (poisoned > 0) != needs_oracle(spec)


def test_uniforms_are_refilled_alike(small):
    """More rounds than one block of uniforms lasts."""
    assert_equal(RandomArm(), small, Stationary(condition="clear"), 3_000, 0)


def test_the_stream_does_not_depend_on_the_policy(small):
    stream = RandomWalk(conditions=("clear", "foggy"), links=(1.0, 2.0), stay=0.9)
    traces = [rollout(FinalExit(), small, stream, horizon=400, seed=3)[0] for _ in range(2)]
    assert np.array_equal(traces[0].sums["correct"], traces[1].sums["correct"])
    assert (
        traces[0].sums["correct"][-1] != rollout(FinalExit(), small, stream, horizon=400, seed=4)[0].sums["correct"][-1]
    )


def test_a_rule_outside_the_table_has_no_regret(small):
    """Better none than a wrong one, or one read out of bounds."""
    arrays = small.arrays(("clear",), (1.0,))
    row, seen = arrays.quotes[0].copy(), np.zeros(5 + 8)
    row[2], row[4] = -1.0, 4.0
    row[rows_of_thresholds(4)] = -np.inf
    truth, classes = arrays.confidence[0, 0], arrays.prediction[0, 0]
    reveal(truth, classes, row, arrays.options, seen)
    totals = np.zeros(len(FIELDS) + len(small.arms))
    score(truth, classes, int(arrays.label[0]), arrays.gap[0, 0], arrays.work, row, seen, totals, np.zeros((0, 1)), 0)
    assert np.isnan(totals[FIELDS.index("regret")])
    assert totals[FIELDS.index("reward")] != 0.0
    assert totals[len(FIELDS) :].sum() == 0.0


def test_an_audit_of_the_whole_network_on_the_edge_reveals_no_more(small):
    """A cascade that answers early with cut L has sent nothing, so the last exit stays hidden."""
    arrays = small.arrays(("clear",), (1.0,))
    for cut, shown in ((4, False), (3, True)):
        row, seen = arrays.quotes[0].copy(), np.zeros(5 + 8)
        row[4], row[5] = cut, 1.0
        row[rows_of_thresholds(4)] = -np.inf
        reveal(arrays.confidence[0, 0], arrays.prediction[0, 0], row, arrays.options, seen)
        assert seen[0] == 1.0
        assert seen[2] == float(shown)
        assert np.isnan(seen[5 + 3]) != shown


def rows_of_thresholds(exits):
    """Where the thresholds stand in a decision row."""
    return slice(thresholds_at(exits), thresholds_at(exits) + exits)


MIXED = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)


@pytest.mark.parametrize("evaluate", ["prefix", "own"])
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "send_input"])
def test_replay_equals_rollout_with_experts_and_fallback(policy, evaluate, routed):
    world = replace(routed, fallback="most_confident", evaluate=evaluate)
    spec = made("policy", policy)
    spec = replace(spec, cut=3) if hasattr(spec, "cut") else spec  # here are four exits
    assert_equal(spec, world, MIXED, 200, 0)


def test_an_arm_is_played_with_fallback_as_without_but_for_the_answer(routed):
    policy = Fixed(cut=2, threshold=0.9)
    without, _ = rollout(policy, routed, MIXED, horizon=300, seed=0)
    with_it, _ = rollout(policy, replace(routed, fallback="most_confident"), MIXED, horizon=300, seed=0)
    for name in ("edge_cost", "offload_cost", "offloads", "macs", "bytes"):
        assert np.array_equal(without.sums[name], with_it.sums[name])
    assert with_it.sums["reward"][-1] > without.sums["reward"][-1] + 1.0


@kernel
def select_by_expert(state, row):
    """Exit 1, 2 or 3: that of the expert's index, the first feature of the context."""
    choose(state, row, whole(row[context_at(whole(row[EXITS]))]), 1.0)


class ByExpert(FinalExit):
    """A policy that reads nothing but the context."""

    def plays(self, arms):
        return [Arm(cut, 0.7) for cut in (1, 2, 3)]

    def initial(self, arms, features):
        return pack(
            table=arms.part(self.plays(arms)), exits=arms.exits, features=features, draws=0, parameters=(), extra=1
        )

    @property
    def kernels(self):
        return Kernels.of(select_by_expert, FinalExit().kernels.update, FinalExit().kernels.forget)


def test_both_executors_show_a_policy_whom_the_router_chose(routed):
    assert_equal(ByExpert(), routed, MIXED, 400, 0)
    trace, _ = rollout(ByExpert(), routed, MIXED, horizon=400, seed=0)
    asked = np.zeros(3)
    for block in blocks(MIXED, samples=60, horizon=400, seed=0):
        for sample, condition in zip(block.sample.tolist(), block.condition.tolist(), strict=True):
            probability = routed.cache.router[routed.cache.condition(MIXED.conditions[condition]), sample].tolist()
            asked[probability.index(max(probability))] += 1
    assert (asked > 50).all()
    for expert in range(3):
        assert trace.arms[-1, routed.arms.table.index(Arm(expert + 1, 0.7))] == asked[expert]


SURE = st.sampled_from([0.2, 0.3, 0.5, 0.7])  # few values: equals do occur
RULE = st.sampled_from([-np.inf, 0.3, 0.5, 0.6, 0.6, np.inf, np.inf])


def surest(truth, thresholds, cut, prefix):
    """The exit that answers when nobody on the edge is sure enough, 1..L, in plain words."""
    last, target = truth[-1], thresholds[cut - 1] if cut else np.inf
    if target == np.inf or last >= target:
        return len(truth)
    heads = [i for i in range(cut) if prefix or i == cut - 1 or thresholds[i] < np.inf]
    best = max(truth[i] for i in heads)
    return len(truth) if last >= best else max(i for i in heads if truth[i] == best) + 1


@settings(max_examples=600)
@given(
    st.lists(SURE, min_size=4, max_size=4),
    st.lists(RULE, min_size=4, max_size=4),
    st.integers(0, 4),
    st.tuples(*[st.integers(0, 1)] * 3),
    st.booleans(),
)
@example([0.7, 0.2, 0.3, 0.5], [np.inf, 0.5, np.inf, np.inf], 2, (1, 0, 1), False)  # the last meets the target just so
def test_fallback_answers_with_the_surest_that_spoke_and_an_engine_takes_it(truth, rule, cut, rules, audit):
    prefix, cloud_all, fallback = rules
    thresholds = [t if i < cut else np.inf for i, t in enumerate(rule)]
    if cut == 4:
        thresholds[3] = -np.inf
    row, seen = np.zeros(context_at(4)), np.zeros(5 + 8)
    row[EXITS], row[CUT], row[AUDIT] = 4, cut, audit
    row[rows_of_thresholds(4)] = thresholds
    options = np.array([prefix, cloud_all, 0, fallback])
    reveal(np.array(truth), np.arange(4), row, options, seen)
    if fallback:
        fall_back(np.array(truth), row, options, seen)
    local = [i + 1 for i in range(cut) if truth[i] >= thresholds[i]]
    expected = local[0] if local else surest(truth, thresholds, cut, prefix) if fallback else 4
    assert seen[ANSWERED_AT] == expected
    assert seen[OFFLOADED] == (not local)
    assert check_observation(row, seen, 4) == 0
    sent = not local or (audit and cut < 4)
    computed = cut if sent else local[0]
    spoke = {i for i in range(computed) if prefix or i == computed - 1 or thresholds[i] < np.inf}
    spoke |= set(range(cut, 4) if cloud_all else [3]) if sent else set()
    assert {i for i in range(4) if not np.isnan(seen[CONFIDENCE + i])} == spoke


NOBODY = float("nan")


@pytest.mark.parametrize(
    ("confidence", "at", "taken"),
    [
        ([0.3, 0.6, NOBODY, 0.5], 2, True),
        ([0.6, 0.3, NOBODY, 0.5], 1, True),
        ([0.3, 0.6, NOBODY, 0.5], 4, True),
        ([0.3, 0.6, NOBODY, 0.6], 2, False),  # the last is as sure
        ([0.8, 0.6, NOBODY, 0.75], 1, False),  # the last is above the threshold
        ([0.8, 0.6, NOBODY, 0.65], 1, True),
        ([0.3, 0.6, NOBODY, NOBODY], 2, False),  # the last is hidden
        ([0.3, NOBODY, NOBODY, 0.5], 2, False),  # who answers is hidden
        ([0.3, 0.6, 0.65, 0.5], 3, False),  # beyond the cut
        ([0.3, 0.7, NOBODY, 0.5], 2, False),  # would have answered on the edge
        ([0.3, 0.7, NOBODY, 0.5], 4, False),
    ],
)
def test_an_engine_takes_an_answer_of_the_edge_for_an_offload_only_where_the_cloud_is_doubted(
    small, confidence, at, taken
):
    engine = Engine(Fixed(cut=2, threshold=0.7), arms=small.arms, seed=0)
    decision = engine.decide(small.prices.quote(small.profile))
    seen = Observation(confidence=confidence, answered_at=at, offloaded=True)
    if taken:
        assert engine.update(decision, seen)
    else:
        with pytest.raises(ContractError):
            engine.update(decision, seen)
        assert engine.update(decision, Observation(confidence=[0.3, 0.6, NOBODY, 0.5], answered_at=4, offloaded=True))


@pytest.mark.parametrize("cut", [0, 2])
def test_a_cut_that_never_answers_has_no_target_to_stay_below(small, cut):
    world = replace(small, arms=type(small.arms).grid(exits=4, raw_input_allowed=True), raw_input_allowed=True)
    engine = Engine(Fixed(cut=cut, threshold=float("inf")), arms=world.arms, seed=0)
    decision = engine.decide(world.prices.quote(world.profile, raw_input_allowed=True))
    with pytest.raises(ContractError):
        engine.update(decision, Observation(confidence=[0.9, 0.9, NOBODY, 0.1], answered_at=2, offloaded=True))
