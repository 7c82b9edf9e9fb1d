"""What `offramp compare` says of policies that keep a ceiling: their regret against the best arm that keeps it too."""

import math

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.progress import Progress

from offramp.bandits import UCB1, Arms, MacsAndBytes
from offramp.bandits.budget import Budget
from offramp.bandits.discounted import Discounted
from offramp.environments import Abrupt, ConfidenceCache, World, blocks
from offramp.environments.budgets import best_within, budget_of, regret_allowed, uses
from offramp.experiments.compare import HEADS, WITHIN, cells, heads, markdown, play
from offramp.experiments.report_parts import columns
from offramp.experiments.results import WITHIN_METRIC, summary, table

STREAM = Abrupt(segments=(("pristine", 1.0), ("noise 20", 4.0)))
HORIZON, SEEDS = 400, [0, 1]
POLICIES = {
    "ucb1": UCB1(),
    "budget": Budget(policy=UCB1(), ceiling=0.2, of="offloads"),
    "impossible": Budget(policy=UCB1(), ceiling=1e-6, of="cost"),
}


@pytest.fixture(scope="module")
def world():
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    return World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=7))


@pytest.fixture(scope="module")
def played(world):
    cfg = OmegaConf.create({"threads": 1, "horizon": HORIZON, "lateness": None})
    with Progress(disable=True) as bar:
        return play("small", world, POLICIES, STREAM, SEEDS, cfg, bar)


def laid(seed):
    return list(blocks(STREAM, samples=2_000, horizon=HORIZON, seed=seed))


def test_what_the_best_arm_within_a_ceiling_regrets(world):
    arrays = world.arrays(STREAM.conditions, STREAM.links)
    for budget in (POLICIES["budget"], Budget(policy=UCB1(), ceiling=0.3, of="cost")):
        best = best_within(arrays, world.arms, laid(0), budget.ceiling, uses(arrays, world.arms, budget.of))
        at = world.arms.table.index(best.arm)
        expected = sum(arrays.gap[block.condition, block.price, at].sum() for block in laid(0))
        assert regret_allowed(arrays, world.arms, laid(0), budget) == pytest.approx(expected)
    assert math.isnan(regret_allowed(arrays, world.arms, laid(0), POLICIES["impossible"]))


def test_the_outermost_budget_counts():
    inner = POLICIES["budget"]
    outer = Budget(policy=inner, ceiling=0.5, of="cost")
    assert budget_of(UCB1()) is None
    assert budget_of(inner) is inner
    assert budget_of(Discounted(policy=inner)) is inner
    assert budget_of(outer) is outer
    assert budget_of(Budget(policy=UCB1(), ceiling=5.0, of="latency", uses_at=0)) is None


def test_the_column_is_there_for_those_alone_who_have_a_ceiling(played):
    frame = table(played)
    rows = frame[frame.policy == "budget"]
    assert np.allclose(rows[WITHIN_METRIC], rows.regret_total - np.array(played.kept["budget"]))
    assert frame[WITHIN_METRIC][frame.policy != "budget"].isna().all()
    means = summary(frame)
    assert [WITHIN_METRIC in means[p] for p in POLICIES] == [False, True, False]
    assert means["budget"][WITHIN_METRIC]["mean"] == pytest.approx(rows[WITHIN_METRIC].mean())
    shown = heads(means)
    assert set(shown) - set(HEADS) == {WITHIN}
    assert all(len(cells(found, shown)) == len(shown) for found in means.values())
    assert WITHIN in markdown(played, means)
    assert WITHIN_METRIC in [name for name, *_ in columns(frame)]
    without = {"ucb1": means["ucb1"]}
    assert heads(without) == HEADS
    assert len(cells(without["ucb1"])) == len(HEADS)
    assert WITHIN_METRIC not in [name for name, *_ in columns(frame[frame.policy == "ucb1"])]
