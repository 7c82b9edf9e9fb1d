"""river on both sides: what ours does inside its `evaluate`, and what its policies do inside our replay."""

import copy
import itertools
import math
import random

import gymnasium
import numpy as np
import pytest
from river import bandit, proba, stats

from offramp.bandits import UCB1, Arm, ChainUCB, Fixed, RandomArm, SplitEES
from offramp.environments import Abrupt, RandomWalk, replay, rollout
from offramp.environments.gymnasium_env import NAME, OfframpEnv
from offramp.environments.river_adapters import EnginePolicy, Wired, replay_river

STREAM = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0), ("clear", 0.5)))
WANDERING = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)
STEPS = 150


def wired(world, stream=STREAM, horizon=STEPS):
    return Wired(gymnasium.make(NAME, world=world, stream=stream, horizon=horizon))


def episode_seeds(seed, episodes):
    """The seeds that `evaluate` gives the environment: the first of two draws an episode."""
    rng = random.Random(seed)
    return [(rng.randint(0, 2**32), rng.randint(0, 2**32 - 1))[0] for _ in range(episodes)]


class Always(bandit.base.Policy):
    """A river policy that pulls one arm."""

    def __init__(self, arm):
        super().__init__()
        self.arm = arm

    def _pull(self, arm_ids):
        return self.arm


def by_policy(steps):
    """Arms and rewards by (episode, policy)."""
    found = {}
    for step in steps:
        arms, rewards = found.setdefault((step["episode"], step["policy_idx"]), ([], []))
        arms.append(step["arm"])
        rewards.append(step["reward"])
    return found


def summed(values):
    return list(itertools.accumulate(values, initial=0.0))[-1]


def test_evaluate_plays_ours_as_replay_does(small):
    env = wired(small)
    ours = [UCB1(), SplitEES(threshold=0.7), Fixed(cut=2, threshold=0.6)]
    policies = [EnginePolicy(policy, env.wire) for policy in ours]
    policies.insert(1, bandit.EpsilonGreedy(0.1, seed=1))  # others in between disturb nothing
    found = by_policy(bandit.evaluate(policies, env, n_episodes=2, seed=42))
    assert all(len(arms) == STEPS for arms, _ in found.values())
    for episode, seed in enumerate(episode_seeds(42, 2)):
        for index, policy in zip((0, 2, 3), ours, strict=True):
            arms, rewards = found[episode, index]
            trace, _ = replay(policy, small, STREAM, horizon=STEPS, seed=seed, compiled=True)
            assert summed(rewards) == trace.sums["reward"][-1]
            assert np.array_equal(np.bincount(arms, minlength=len(small.arms)), trace.arms[-1])


def test_context_comes_down_the_wire(routed):
    env = wired(routed, WANDERING, 60)
    found = by_policy(bandit.evaluate([EnginePolicy(RandomArm(), env.wire, seed=3)], env, n_episodes=1, seed=0))
    assert len(found[0, 0][0]) == 60
    assert env.wire.features == 4


def test_a_clone_knows_the_spec_and_has_learnt_nothing(small):
    env = wired(small)
    policy = EnginePolicy(UCB1(), env.wire, seed=5)
    env.reset(seed=0)
    for _ in range(40):
        arm = policy.pull(range(env.action_space.n))
        policy.update(arm, env.step(arm)[1])
    assert policy._n == 40
    assert "Pulls" in repr(policy)
    clone = policy.clone()
    assert (clone.policy, clone.seed) == (UCB1(), 5)
    assert clone.wire is policy.wire is copy.deepcopy(policy.wire)
    assert clone._n == 0
    assert np.array_equal(clone._engine.state(), EnginePolicy(UCB1(), env.wire)._engine.state())
    env.reset(seed=0)
    assert clone.pull(range(env.action_space.n)) == EnginePolicy(UCB1(), env.wire).pull(range(env.action_space.n))


def test_a_policy_goes_on_over_a_reset(small):
    env = wired(small)
    policy = EnginePolicy(UCB1(), env.wire)
    for seed in (0, 1):
        env.reset(seed=seed)
        for _ in range(STEPS):
            arm = policy.pull(range(env.action_space.n))
            policy.update(arm, env.step(arm)[1])
    assert policy._engine.state()[0] == 2 * STEPS


def test_what_river_cannot_express_is_refused(small):
    env = wired(small)
    arms = range(env.action_space.n)
    with pytest.raises(ValueError, match="allowed is an OfframpEnv: it has no arms"):
        Wired(gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match="nothing came down the wire"):
        EnginePolicy(UCB1(), env.wire).pull(arms)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="allowed are 0"):
        EnginePolicy(UCB1(), env.wire).pull([3, 1])
    policy = EnginePolicy(UCB1(), env.wire)
    policy.pull(arms)
    with pytest.raises(ValueError, match="allowed are those on the wire, None"):
        policy.update(0, 0.5)
    arm = policy.pull(arms)
    reward = env.step(arm)[1]
    for wrong in ((arm + 1, reward), (arm, reward + 0.25)):
        with pytest.raises(ValueError, match="allowed are those on the wire"):
            policy.update(*wrong)
    policy.update(arm, reward)
    joint = EnginePolicy(ChainUCB(), env.wire)
    with pytest.raises(ValueError, match="arms of the table without audit"):
        joint.pull(arms)


@pytest.mark.parametrize("arm", [Arm(1, 0.6), Arm(3, math.inf), Arm(4, -math.inf)])
def test_one_arm_of_rivers_is_a_fixed_policy_of_ours(small, arm):
    """Trace by trace, to the bit: only how an arm is chosen differs."""
    theirs, _ = replay_river(Always(small.arms.table.index(arm)), small, STREAM, horizon=300, seed=4)
    ours, _ = rollout(Fixed(cut=arm.cut, threshold=arm.threshold), small, STREAM, horizon=300, seed=4)
    assert np.array_equal(theirs.rounds, ours.rounds)
    assert np.array_equal(theirs.arms, ours.arms)
    assert np.array_equal(theirs.cuts, ours.cuts)
    for name, values in ours.sums.items():
        assert np.array_equal(theirs.sums[name], values), name


POLICIES = [
    bandit.EpsilonGreedy(0.1, seed=1),
    bandit.UCB(delta=1, seed=1),
    bandit.Exp3(gamma=0.3, seed=1),
    bandit.RandomPolicy(seed=1),
    bandit.ThompsonSampling(reward_obj=proba.Gaussian(), seed=1),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_rivers_policies_see_in_our_replay_what_evaluate_shows_them(small, policy):
    (seed,) = episode_seeds(7, 1)
    env = OfframpEnv(small, STREAM, horizon=STEPS)
    found = by_policy(bandit.evaluate([policy], env, n_episodes=1, seed=7))
    arms, rewards = found[0, 0]
    trace, learnt = replay_river(policy, small, STREAM, horizon=STEPS, seed=seed)
    assert np.array_equal(np.bincount(arms, minlength=len(small.arms)), trace.arms[-1])
    assert summed(rewards) == trace.sums["reward"][-1]
    assert learnt._n == STEPS
    assert policy._n == 0


def test_contextual_policies_get_quote_and_context(routed):
    seen = []

    class Looking(bandit.base.ContextualPolicy):
        def _pull(self, arm_ids, context):
            seen.append(context)
            return arm_ids[0]

    _, learnt = replay_river(Looking(), routed, WANDERING, horizon=20, seed=0)
    assert learnt._n == 20
    expected = ["mu", *(f"{kind} {i}" for kind in ("edge", "offload") for i in range(5))]
    assert all(list(c) == [*expected, *(f"context {i}" for i in range(4))] for c in seen)
    assert all(c["offload 0"] == -1.0 and c["offload 4"] == 0.0 for c in seen)
    assert {round(c["offload 1"], 6) for c in seen} <= {round(0.016 * 9 * link, 6) for link in (0.5, 1.0, 3.0)}


def test_lin_ucb_of_rivers_runs(routed):
    few = [Arm(1, 0.7), Arm(2, 0.7), Arm(4, -math.inf)]
    policy = bandit.LinUCBDisjoint(alpha=1.0, seed=0)
    trace, _ = replay_river(policy, routed, WANDERING, horizon=25, seed=0, arms=few)
    played = set(np.flatnonzero(trace.arms[-1]).tolist())
    assert played <= {routed.arms.table.index(arm) for arm in few}
    assert trace.arms[-1].sum() == 25


def test_other_arms_are_refused(small):
    with pytest.raises(ValueError, match="not in the table of arms"):
        replay_river(Always(0), small, STREAM, horizon=5, seed=0, arms=[Arm(1, 0.123)])
    with pytest.raises(ValueError, match="the policy pulled 99, allowed are"):
        replay_river(Always(99), small, STREAM, horizon=5, seed=0)


def test_rivers_statistics_of_ours_are_those_of_the_rewards(small):
    env = wired(small)
    policies = [EnginePolicy(UCB1(), env.wire)]
    last = list(bandit.evaluate(policies, env, reward_stat=stats.Mean(), n_episodes=1, seed=0))[-1]
    trace, _ = replay(UCB1(), small, STREAM, horizon=STEPS, seed=episode_seeds(0, 1)[0], compiled=True)
    assert last["reward_stat"] == pytest.approx(trace.mean("reward"))
