"""A closer look at runs: confidence of the answers given, and what a change costs, against a count by hand."""

import numpy as np
import pytest

from offramp.bandits import Arms, FinalExit, Fixed, PaperUnits
from offramp.environments import Abrupt, RandomWalk, Stationary, Trace, World, blocks, rollout
from offramp.experiments import closer
from offramp.experiments.playing import Ground
from offramp.experiments.results import changes

PRICES = PaperUnits(per_layer=0.01, offload=0.1, mu=1.5)


@pytest.fixture(scope="module")
def world(embedded):
    arms = Arms.grid(exits=len(embedded.exits), thresholds=(0.8,))
    return World(cache=embedded.part("test"), prices=PRICES, arms=arms)


@pytest.mark.parametrize("policy", [FinalExit(), Fixed(cut=2, threshold=0.8)])
@pytest.mark.parametrize(
    "stream", [Stationary(condition="pristine", link=1.0), Abrupt(segments=(("blur 1.0", 1.0), ("noise 20", 4.0)))]
)
def test_answers_by_confidence_are_those_of_the_cache(world, stream, policy):
    horizon, seed = 1_500, 3
    ground = Ground(world, stream)
    moved = ground.changes(horizon, seed)
    kept = closer.rounds(np.array([horizon]), moved, horizon)
    trace, _ = rollout(policy, world, stream, horizon=horizon, seed=seed, checkpoints=kept)
    found = closer.Closer.of(trace, moved, ground.mu)
    (block,) = blocks(stream, samples=len(world.cache.label), horizon=horizon, seed=seed)
    facts = ground.arrays(False)
    at = closer.looked_at(horizon) - 1
    sample, condition = block.sample[at], block.condition[at]
    sure, guess = facts.confidence[condition, sample], facts.prediction[condition, sample]
    exit_ = np.full(len(at), 6) if isinstance(policy, FinalExit) else np.where(sure[:, 1] >= 0.8, 1, 6)
    rows = np.arange(len(at))
    answer, right = sure[rows, exit_], guess[rows, exit_] == facts.label[sample]
    place = np.minimum((answer * 10).astype(int), 9)
    near = np.abs(answer * 10 - np.round(answer * 10)) < 1e-9  # on the edge of a bin, where a rounding decides
    assert not near[answer < 1.0].any()
    assert found.count.tolist() == np.bincount(place, minlength=10).tolist()
    assert np.allclose(found.confidence, np.bincount(place, answer, 10), atol=1e-6)
    assert found.correct.tolist() == np.bincount(place, right, 10).tolist()
    share = np.abs(found.confidence - found.correct).sum() / len(at)
    assert found.calibration_error == pytest.approx(share)


def test_regret_after_a_change_is_the_mean_over_changes():
    """One regret a round, two for the first 16 rounds after each change."""
    horizon, moved = 1_000, np.array([250, 500, 750])
    rounds = closer.rounds(np.array([horizon]), moved, horizon)
    extra = np.clip(rounds[:, None] - moved[None, :], 0, 16).sum(axis=1)
    sums = {name: np.zeros(len(rounds)) for name in ("reward", "edge_cost", "offload_cost", "correct")}
    trace = Trace(
        rounds,
        {**sums, "regret": (rounds + extra).astype(float)},
        np.zeros((len(rounds), 1)),
        np.zeros((len(rounds), 1)),
        0.0,
    )
    found = closer.Closer.of(trace, moved, 1.0)
    assert found.changes == 3
    assert found.recovery[:4].tolist() == [2.0, 1.0, 1.0, 1.0]
    assert np.isnan(found.recovery[4:]).all(), "the stretches are 250 long: 128 is the last offset that fits"
    assert closer.thinned(trace, np.array([horizon])).sums["regret"].tolist() == [1_048.0]


def test_stretches_too_short_to_look_at():
    assert closer.windows(np.array([10, 20, 30]), 40)[1] == 0
    assert closer.windows(np.zeros(0, dtype=np.int64), 40)[1] == 0
    starts, length = closer.windows(np.array([100, 110, 400]), 800)
    assert (starts.tolist(), length) == ([110, 400], 256)


def test_changes_do_not_depend_on_the_samples():
    stream = RandomWalk(conditions=("pristine", "blur 1.0"), links=(1.0, 4.0), stay=0.99)
    (block,) = blocks(stream, samples=7, horizon=3_000, seed=5)
    expected = np.flatnonzero((np.diff(block.condition) != 0) | (np.diff(block.price) != 0)) + 1
    assert changes(stream, 3_000, 5).tolist() == expected.tolist()
