"""The theorem of the house: the engine, round by round in plain Python, and the compiled loop agree bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.bandits import Decision, FinalExit, RandomArm, SplitEES
from offramp.bandits.loop import FIELDS, score
from offramp.bandits.policy import Kernels, needs_oracle
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import thresholds_at
from offramp.environments import Abrupt, RandomWalk, Stationary, blocks, replay, rollout

CONF = Path(__file__).parents[2] / "conf"
POLICIES = sorted(p.stem for p in (CONF / "policy").glob("*.yaml") if p.stem != "standard")
STREAMS = sorted(p.stem for p in (CONF / "stream").glob("*.yaml"))


def made(group, name):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return instantiate(compose("compare", overrides=[f"{group}={name}"])[group], _convert_="all")


def assert_equal(policy, world, stream, horizon, seed):
    fast, fast_state = rollout(policy, world, stream, horizon=horizon, seed=seed)
    slow, slow_state = replay(policy, world, stream, horizon=horizon, seed=seed)
    assert np.array_equal(fast.arms, slow.arms), "different arms"
    assert np.array_equal(fast_state, slow_state), "different states"
    assert np.array_equal(fast.rounds, slow.rounds)
    for name, values in fast.sums.items():
        assert np.array_equal(values, slow.sums[name]), f"different {name}"


@pytest.mark.parametrize("stream", ["abrupt", "random_walk"])
@pytest.mark.parametrize("policy", POLICIES)
def test_replay_equals_rollout(policy, stream, world):
    for seed in range(3):
        assert_equal(made("policy", policy), world, made("stream", stream), 2_000, seed)


@pytest.mark.long
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("policy", POLICIES)
def test_replay_equals_rollout_long(policy, stream, world):
    for seed in range(5):
        assert_equal(made("policy", policy), world, made("stream", stream), 20_000, seed)


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
    _honest, honest_state = replay(spec, world, stream, horizon=600, seed=1, compiled=True)
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
            rounds = blocks(stream, samples=len(arrays.label), horizon=600, seed=1)
            prices.extend(np.concatenate([b.price for b in rounds]).tolist())
        return Decision(arrays.quotes[prices[t]], 0, "").quote

    prices: list[int] = []
    _, poisoned_state = replay(spec, world, stream, horizon=600, seed=1, compiled=True, look=poison)
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
    score(truth, classes, int(arrays.label[0]), arrays.gap[0, 0], arrays.work, row, seen, totals)
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
