"""The Gymnasium environment is the very world of `rollout`: same rounds, same rewards, nothing revealed beyond it."""

import copy
import math
import subprocess
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from offramp.bandits import UCB1, Arm, Arms, Engine, Fixed, Quote, SplitEE
from offramp.bandits.policy import needs_oracle
from offramp.bandits.reveal import fall_back, reveal, reward
from offramp.environments import Abrupt, RandomWalk, blocks, replay, rollout
from offramp.environments.gymnasium_env import NAME, OfframpEnv, register
from offramp.environments.rounds import Rounds, numbers_of, observation_of, quote_of, rules_of

CHANGING = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0), ("clear", 0.5)))
WANDERING = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)


def play(env, arm, seed, steps):
    """All rewards and infos of one arm."""
    env.reset(seed=seed)
    stepped = [env.step(arm) for _ in range(steps)]
    return [s[1] for s in stepped], [s[4] for s in stepped], [s[3] for s in stepped]


def summed(values):
    total = 0.0
    for value in values:
        total += value
    return total


def test_check_env_has_nothing_to_say():
    check_env(gymnasium.make(NAME).unwrapped)


@pytest.mark.parametrize("routed_world", [False, True])
def test_check_env_in_worlds_of_ones_own(small, routed, routed_world):
    world, stream = (routed, WANDERING) if routed_world else (small, CHANGING)
    check_env(gymnasium.make(NAME, world=world, stream=stream, horizon=50, score=True).unwrapped)


def test_it_is_registered_once():
    register()
    register()
    assert gymnasium.spec(NAME).vector_entry_point is not None


def test_the_package_imports_neither_gymnasium_nor_river():
    code = (
        "import sys, offramp.environments, offramp.environments.rounds, offramp.environments.views;"
        "bad = {'gymnasium', 'river', 'pandas', 'xarray', 'pyarrow'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seed", [0, 7])
def test_rewards_are_those_of_rollout(small, seed):
    env = OfframpEnv(small, CHANGING, horizon=200, score=True)
    for arm in (Arm(1, 0.6), Arm(2, -math.inf), Arm(3, math.inf), Arm(4, -math.inf)):
        policy = Fixed(cut=arm.cut, threshold=arm.threshold)
        trace, _ = rollout(policy, small, CHANGING, horizon=200, seed=seed)
        rewards, infos, ends = play(env, small.arms.table.index(arm), seed, 200)
        assert summed(rewards) == trace.sums["reward"][-1]
        assert summed(i["edge_cost"] for i in infos) == trace.sums["edge_cost"][-1]
        assert summed(i["offload_cost"] for i in infos) == trace.sums["offload_cost"][-1]
        assert sum(i["offloaded"] for i in infos) == trace.sums["offloads"][-1]
        assert sum(i["correct"] for i in infos) == trace.sums["correct"][-1]
        assert ends == [False] * 199 + [True]


def test_cascades_and_fallback_are_played_as_they_are_revealed(routed):
    arms = Arms.cascades(exits=4, at=(1, 2), thresholds=(0.5, 0.8), cut=3)
    world = replace(routed, arms=arms, fallback="most_confident", evaluate="own")
    env = OfframpEnv(world, WANDERING, horizon=120)
    arrays = world.arrays(WANDERING.conditions, WANDERING.links)
    assert np.array_equal(rules_of(arms)[0], [3, 0.5, 0.5, np.inf, np.inf])
    rewards, infos, _ = play(env, 0, 3, 120)
    assert {i["answered_at"] for i in infos} >= {1, 2, 4}
    (block,) = blocks(WANDERING, samples=60, horizon=120, seed=3)
    for got, info, sample, condition, price in zip(rewards, infos, *(p.tolist() for p in block), strict=True):
        row, seen = arrays.quotes[price].copy(), np.zeros(5 + 8)
        row[4], row[19:23] = 3, [0.5, 0.5, np.inf, np.inf]
        truth = arrays.confidence[condition, sample]
        reveal(truth, arrays.prediction[condition, sample], row, arrays.options, seen)
        fall_back(truth, row, arrays.options, seen)
        assert got == reward(row, seen)
        assert np.array_equal(np.where(info["confidence"] < 0, np.nan, info["confidence"]), seen[5:9], equal_nan=True)
        assert np.array_equal(info["prediction"], seen[9:])
        assert info["answered_at"] == seen[0]


@pytest.mark.parametrize("policy", [UCB1(), SplitEE(threshold=0.7)])
def test_an_engine_outside_learns_what_replay_teaches(small, policy):
    assert not needs_oracle(policy)
    env = OfframpEnv(small, CHANGING, horizon=300)
    engine = Engine(policy, arms=small.arms, seed=5)
    numbers, _ = env.reset(seed=5)
    gained, end = [], False
    while not end:
        decision = engine.decide(*quote_of(numbers, small.arms.exits))
        numbers, reward, _, end, info = env.step(decision.arm)
        gained.append(reward)
        engine.update(decision, observation_of(info))
    trace, state = replay(policy, small, CHANGING, horizon=300, seed=5, compiled=True)
    assert summed(gained) == trace.sums["reward"][-1]
    assert np.array_equal(engine.state(), state)


def test_what_an_arm_did_not_pay_for_is_hidden(small):
    env = OfframpEnv(small, CHANGING, horizon=200)
    arm = small.arms.table.index(Arm(2, 0.6))
    for info in play(env, arm, 0, 200)[1]:
        shown = info["confidence"] >= 0.0
        assert np.array_equal(shown, info["prediction"] >= 0)
        assert shown.tolist() == [True, True, False, info["offloaded"]]
        assert "correct" not in info


def test_an_offload_that_is_not_offered_is_minus_one(small):
    env = OfframpEnv(small, CHANGING, horizon=10)
    numbers, _ = env.reset(seed=0)
    assert numbers in env.observation_space
    assert numbers[6] == -1.0
    quote, context = quote_of(numbers, 4)
    assert context is None
    assert quote.offload_cost[0] == math.inf
    again = numbers_of(quote.row[None], 4)[0]
    assert np.array_equal(again, numbers)
    assert Quote(edge_cost=quote.edge_cost, offload_cost=quote.offload_cost, mu=quote.mu).mu == 1.0


def test_context_is_that_of_the_sample(routed):
    env = OfframpEnv(routed, WANDERING, horizon=30)
    numbers, _ = env.reset(seed=1)
    for _ in range(30):
        _, context = quote_of(numbers, 4)
        assert context.shape == (4,)
        assert context[0] == context[1:].argmax()
        assert numbers in env.observation_space
        numbers = env.step(0)[0]


def test_seeds_rebuild_streams_and_free_resets_differ(small):
    env = OfframpEnv(small, CHANGING, horizon=60)
    first = play(env, 0, 3, 60)[0]
    _, free = env.reset()
    assert play(env, 0, 3, 60)[0] == first
    assert env.reset()[1] == free
    assert free["seed"] != 3
    assert play(env, 0, free["seed"], 60)[0] != first


def test_a_deep_copy_goes_on_alone_and_shares_the_world(small):
    env = OfframpEnv(small, CHANGING, horizon=60)
    env.reset(seed=0)
    env.step(1)
    other = copy.deepcopy(env)
    assert other._rounds.arrays.confidence is env._rounds.arrays.confidence
    ahead = [env.step(2)[1] for _ in range(20)]
    assert [other.step(2)[1] for _ in range(20)] == ahead
    other.action_space.seed(1)
    assert other.reset()[1] == env.reset()[1]


@pytest.mark.parametrize("action", [-1, 31, 1_000])
def test_actions_outside_the_table_are_refused(small, action):
    env = OfframpEnv(small, CHANGING, horizon=5)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"action is {action}, allowed is 0\.\.{len(small.arms) - 1}"):
        env.step(action)


def test_steps_outside_an_episode_are_refused(small):
    env = OfframpEnv(small, CHANGING, horizon=1)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(0)


@pytest.mark.parametrize(("name", "value"), [("horizon", 0), ("horizon", 2.5), ("count", 0), ("horizon", True)])
def test_impossible_sizes_are_refused(small, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Rounds(small, CHANGING, **{"horizon": 5, "count": 1, name: value})


def test_the_vector_environment_is_n_environments(small):
    kwargs = {"world": small, "stream": CHANGING, "horizon": 40, "score": True}
    ours = gymnasium.make_vec(NAME, num_envs=3, **kwargs)
    theirs = gymnasium.make_vec(NAME, num_envs=3, vectorization_mode="sync", **kwargs)
    assert type(ours).__name__ == "OfframpVectorEnv"
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    ours.action_space.seed(0)
    assert_same(ours.reset(seed=11), theirs.reset(seed=11))
    for _ in range(40):
        actions = ours.action_space.sample()
        stepped = ours.step(actions)
        assert_same(stepped, theirs.step(actions))
    assert stepped[3].all()


def assert_same(one, other):
    *arrays, info = one
    *others, theirs = other
    for a, b in zip(arrays, others, strict=True):
        assert np.array_equal(a, b)
    assert set(info) == set(theirs)
    for name, values in info.items():
        assert np.array_equal(values, theirs[name]), name


def test_the_step_after_the_last_begins_the_next_episodes(small):
    envs = gymnasium.make_vec(NAME, num_envs=2, world=small, stream=CHANGING, horizon=10)
    envs.reset(seed=4)
    for _ in range(10):
        *_, cut, _ = envs.step(np.array([3, 4]))
    assert cut.all()
    numbers, rewards, terminated, cut, info = envs.step(np.array([3, 4]))
    assert rewards.tolist() == [0.0, 0.0]
    assert not terminated.any()
    assert not cut.any()
    assert numbers.shape == (2, 11)
    again = np.array([envs.step(np.array([3, 4]))[1] for _ in range(10)])
    one = OfframpEnv(small, CHANGING, horizon=10)
    for i, arm in enumerate((3, 4)):
        assert play(one, arm, int(info["seed"][i]), 10)[0] == again[:, i].tolist()


@pytest.mark.parametrize(
    ("actions", "said"),
    [([0, 1], "allowed are 3"), ([0.0, 1.0, 2.0], "float64"), ([0, -1, 2], "allowed are 0"), ([0, 99, 2], "0..")],
)
def test_wrong_actions_of_a_vector_are_refused(small, actions, said):
    envs = gymnasium.make_vec(NAME, num_envs=3, world=small, stream=CHANGING, horizon=4)
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="seed holds 2 seeds"):
        envs.reset(seed=[1, 2])
    envs.reset(seed=[1, None, 3])
    with pytest.raises(ValueError, match=said):
        envs.step(np.array(actions))
