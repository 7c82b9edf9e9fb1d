"""Ceilings in hindsight: the best arm and mixture by brute force, and rounds that add up to a trace."""

import math

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, Fixed, RandomArm
from offramp.bandits.budget import Budget
from offramp.environments import Abrupt, blocks, rollout
from offramp.environments.budgets import best_within, round_by_round, uses, worst_window
from offramp.environments.regret import values

STREAM = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0), ("clear", 3.0)))


@pytest.fixture
def arrays(small):
    return small.arrays(STREAM.conditions, STREAM.links)


def rounds():
    return blocks(STREAM, samples=60, horizon=900, seed=0)


def test_uses_are_what_arms_are_charged(small, arrays):
    """Against plays of fixed arms over whole passes, where sample means are population means."""
    for cut, threshold in ((1, 0.5), (3, 0.8), (2, math.inf), (4, -math.inf)):
        arm = next(i for i, a in enumerate(small.arms.table) if (a.cut, a.threshold) == (cut, threshold))
        each, _ = round_by_round(Fixed(cut=cut, threshold=threshold), small, STREAM, horizon=900, seed=0)
        for of, used in (("cost", each["edge_cost"] + each["offload_cost"]), ("offloads", each["offloads"])):
            expected = uses(arrays, small.arms, of)[:, :, arm]
            for first, condition, price in ((0, 0, 0), (300, 1, 1), (600, 0, 1)):
                assert used[first : first + 300].mean() == pytest.approx(expected[condition, price])


def test_listed_uses_follow_the_link_no_more(small, arrays):
    edge, offload = [0.0, 1.0, 2.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0, 0.0]
    used = uses(arrays, small.arms, "latency", edge_use=edge, offload_use=offload)
    share = uses(arrays, small.arms, "offloads")
    cuts = [arm.cut for arm in small.arms.table]
    assert np.allclose(used, np.array(edge)[cuts] + share * np.array(offload)[cuts])
    with pytest.raises(ValueError, match=r"allowed is \(L \+ 1,\)"):
        uses(arrays, small.arms, "energy", edge_use=edge)
    with pytest.raises(ValueError, match="of is 'time'"):
        uses(arrays, small.arms, "time")


@pytest.mark.parametrize(("of", "ceiling"), [("offloads", 0.15), ("offloads", 0.5), ("cost", 0.16), ("cost", 0.3)])
def test_the_best_in_hindsight_by_brute_force(small, arrays, of, ceiling):
    used = uses(arrays, small.arms, of)
    best = best_within(arrays, small.arms, rounds(), ceiling, used)
    worth = np.zeros(len(small.arms))
    spent = np.zeros(len(small.arms))
    value = values(arrays.confidence, arrays.quotes, small.arms)
    for block in rounds():
        worth += value[block.condition, block.price].sum(axis=0) / 900
        spent += used[block.condition, block.price].sum(axis=0) / 900
    keeping = [i for i in range(len(worth)) if spent[i] <= ceiling]
    assert best.reward == pytest.approx(max(worth[i] for i in keeping))
    assert best.use <= ceiling
    mixed = max(
        p * worth[i] + (1.0 - p) * worth[j]
        for i in range(len(worth))
        for j in range(len(worth))
        for p in np.linspace(0.0, 1.0, 101)
        if p * spent[i] + (1.0 - p) * spent[j] <= ceiling
    )
    assert mixed - 1e-12 <= best.mixture_reward <= mixed + 0.01
    places = [small.arms.table.index(arm) for arm, _ in best.mixture]
    shares = [p for _, p in best.mixture]
    assert sum(shares) == pytest.approx(1.0)
    assert np.dot(shares, worth[places]) == pytest.approx(best.mixture_reward)
    assert np.dot(shares, spent[places]) <= ceiling + 1e-12


def test_no_arm_keeps_a_ceiling_below_the_cheapest(small, arrays):
    best = best_within(arrays, small.arms, rounds(), 1e-6, uses(arrays, small.arms, "cost"))
    assert best.arm is None
    assert math.isnan(best.reward)


def test_rounds_add_up_to_the_trace(small):
    for policy in (UCB1(), RandomArm()):
        trace, state = rollout(policy, small, STREAM, horizon=1_500, seed=2)
        each, mine = round_by_round(policy, small, STREAM, horizon=1_500, seed=2)
        assert np.array_equal(state, mine)
        for name, values_ in each.items():
            assert values_.sum() == pytest.approx(trace.sums[name][-1])


def test_windows():
    assert worst_window(np.array([1.0, 5.0, 1.0, 2.0]), 2) == 3.0
    assert worst_window(np.array([1.0, 5.0, 1.0, 2.0]), 4) == 2.25
    with pytest.raises(ValueError, match=r"rounds is 5, allowed is 1\.\.4"):
        worst_window(np.ones(4), 5)


def test_a_budget_earns_nearly_what_the_best_arm_within_it_does(embedded):
    """On a world that does not change; the regret against the best arm that keeps the ceiling."""
    from offramp.bandits import MacsAndBytes
    from offramp.environments import World

    world = World(cache=embedded.part("test"), prices=MacsAndBytes(), arms=Arms.grid(exits=7))
    stream = Abrupt(segments=(("pristine", 1.0), ("pristine", 1.0)))
    arrays = world.arrays(stream.conditions, stream.links)
    for of, ceiling in (("cost", 0.1), ("offloads", 0.1)):
        laid = blocks(stream, samples=len(arrays.label), horizon=20_000, seed=0)
        best = best_within(arrays, world.arms, laid, ceiling, uses(arrays, world.arms, of))
        policy = Budget(policy=UCB1(beta=0.3), ceiling=ceiling, of=of)
        each, _ = round_by_round(policy, world, stream, horizon=20_000, seed=0, arrays=arrays)
        assert each["reward"].mean() > best.reward - 0.03
