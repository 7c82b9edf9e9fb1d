"""A cache without confidences: who needs none plays it, in both executors alike; everybody else is refused by name."""

import math

import numpy as np
import pytest

from offramp.bandits import (
    CUSUM,
    UCB1,
    UEEUCB,
    Arm,
    Arms,
    FinalExit,
    Fixed,
    OffloadFirst,
    PaperUnits,
    RandomArm,
    Restarting,
    SendInput,
    SplitEE,
)
from offramp.environments import CacheError, ConfidenceCache, Stationary, World, replay, rollout
from offramp.environments.confidences import has_confidences, needs_confidence
from offramp.environments.operating_points import exit_quality, operating_points
from offramp.environments.published import read_published

ENDS = (-math.inf, math.inf)
BLIND = Arms(exits=4, table=(*(Arm(cut, end) for cut in (1, 2, 3) for end in ENDS), Arm(4, -math.inf)))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Predictions of four exits in the tab-separated layout, wrong in 4, 3, 2 and 1 of 10."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    wrong = rng.random((200, 4)) < np.array([0.4, 0.3, 0.2, 0.1])
    rows = np.concatenate([np.where(wrong, 1 - label[:, None], label[:, None]), label[:, None]], axis=1)
    path = tmp_path_factory.mktemp("bare") / "Exit_Predictions.csv"
    path.write_text("0\t1\t2\t3\top_labels\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    return read_published(path, layers=(1, 3, 7, 12)).cache


def world(cache, arms=BLIND, **options):
    return World(cache=cache, prices=PaperUnits(), arms=arms, **options)


def test_who_needs_confidences():
    grid = Arms.grid(exits=4, raw_input_allowed=True)
    for policy in (UEEUCB(), FinalExit(), OffloadFirst(), SendInput(), Fixed(cut=2, threshold=math.inf)):
        assert not needs_confidence(policy, grid)
    assert needs_confidence(RandomArm(), grid)
    assert not needs_confidence(RandomArm(), BLIND)
    for policy in (Fixed(cut=2, threshold=0.5), SplitEE(), UCB1(), Restarting(policy=UCB1(), detector=CUSUM())):
        assert needs_confidence(policy, grid)


def test_policies_that_need_none_play_alike_in_both_executors(bare):
    stream = Stationary(condition="as published")
    for policy in (UEEUCB(), RandomArm()):
        fast, end = rollout(policy, world(bare), stream, horizon=200, seed=1)
        slow, state = replay(policy, world(bare), stream, horizon=200, seed=1)
        assert end.tobytes() == state.tobytes()
        assert fast.sums["correct"].tobytes() == slow.sums["correct"].tobytes()
    always, _ = rollout(FinalExit(), world(bare), stream, horizon=200, seed=1)
    assert always.mean("correct") == np.mean(bare.prediction[0, 0, :, 3] == bare.label)


def test_everybody_else_is_refused(bare, tmp_path, embedded):
    assert has_confidences(embedded)
    bare.save(tmp_path / "bare.safetensors")
    for cache in (bare, ConfidenceCache.load(tmp_path / "bare.safetensors").part("test")):
        assert not has_confidences(cache)
        for run in (rollout, replay):
            with pytest.raises(CacheError, match=r"^SplitEE\(.* needs confidences, and this cache has none"):
                run(SplitEE(), world(cache), Stationary(condition="as published"), horizon=10, seed=0)
        with pytest.raises(CacheError, match="fallback 'most_confident' needs confidences"):
            world(cache, fallback="most_confident")
        for look in (exit_quality, lambda c: operating_points(c, [0.5])):
            with pytest.raises(CacheError, match="operating points needs confidences"):
                look(cache)
