"""A stream is rebuilt from (spec, seed) alone, draws without replacement, and changes condition and link as it says."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments import Abrupt, Gradual, RandomWalk, Recurring, Stationary, blocks

ABC = ("a", "b", "c")
KINDS = {
    "stationary": Stationary(condition="b", link=2.0),
    "abrupt": Abrupt(segments=(("a", 1.0), ("b", 0.25), ("a", 4.0))),
    "abrupt, fixed length": Abrupt(segments=(("a", 1.0), ("b", 0.25)), length=37),
    "gradual": Gradual(conditions=ABC, links=(0.5, 1.0, 2.0, 4.0)),
    "recurring": Recurring(conditions=ABC, links=(0.5, 2.0), period=90),
    "walk": RandomWalk(conditions=ABC, links=(0.5, 1.0, 2.0, 4.0), stay=0.6),
    "walk along links": RandomWalk(conditions=("a",), links=(0.5, 1.0), stay=0.3),
    "walk along conditions": RandomWalk(conditions=ABC, stay=0.9),
}
CONSTANT = ("stationary", "abrupt", "abrupt, fixed length")


def laid_out(stream, *, samples=50, horizon=1000, seed=3, **size):
    """Sample, condition and link of all rounds, (3, horizon)."""
    made = list(blocks(stream, samples=samples, horizon=horizon, seed=seed, **size))
    return np.concatenate([np.stack(block) for block in made], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_same_rounds_whatever_the_block_size(kind):
    whole = laid_out(KINDS[kind])
    assert whole.shape == (3, 1000)
    for size in (1, 7, 64, 999, 1000, 65_536):
        assert np.array_equal(laid_out(KINDS[kind], size=size), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_rounds_other_seed_other_rounds(kind):
    one, again, other = (laid_out(KINDS[kind], seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one[0], other[0])
    if kind not in CONSTANT:
        assert not np.array_equal(one[1:], other[1:])
    else:
        assert np.array_equal(one[1:], other[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_stream_is_not_used_up(kind):
    """Streams hold no state: two that are read in turn do not disturb each other."""
    one, other = (blocks(KINDS[kind], samples=50, horizon=300, seed=3, size=10) for _ in range(2))
    for mine, its in zip(one, other, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, its, strict=True))


def test_samples_do_not_depend_on_the_schedule():
    first = laid_out(KINDS["stationary"])[0]
    assert all(np.array_equal(laid_out(stream)[0], first) for stream in KINDS.values())


def test_blocks_have_the_size_asked_for():
    sizes = [len(b.sample) for b in blocks(KINDS["gradual"], samples=5, horizon=1000, seed=0, size=300)]
    assert sizes == [300, 300, 300, 100]
    for block in blocks(KINDS["gradual"], samples=5, horizon=1000, seed=0, size=300):
        assert all(part.dtype == np.int64 and part.flags.c_contiguous for part in block)


def test_no_sample_twice_within_a_pass_and_another_order_in_the_next():
    passes = laid_out(KINDS["stationary"], samples=50, horizon=1000)[0].reshape(20, 50)
    assert np.array_equal(np.sort(passes, axis=1), np.tile(np.arange(50), (20, 1)))
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(passes))


@pytest.mark.parametrize("kind", KINDS)
def test_indices_lie_within_the_names(kind):
    stream = KINDS[kind]
    _, condition, link = laid_out(stream, horizon=5000)
    assert set(condition.tolist()) == set(range(len(stream.conditions)))
    assert set(link.tolist()) == set(range(len(stream.links)))


def test_stationary_never_changes():
    stream = KINDS["stationary"]
    assert (stream.conditions, stream.links) == (("b",), (2.0,))
    assert not laid_out(stream)[1:].any()


def test_abrupt_segments_have_equal_length():
    stream = KINDS["abrupt"]
    assert stream.conditions == ("a", "b", "a")
    assert stream.links == (1.0, 0.25, 4.0)
    _, condition, link = laid_out(stream, horizon=300)
    assert condition.tolist() == [0] * 100 + [1] * 100 + [2] * 100
    assert np.array_equal(condition, link)


def test_abrupt_of_a_given_length_starts_over():
    _, condition, _ = laid_out(KINDS["abrupt, fixed length"], horizon=100)
    assert condition.tolist() == [0] * 37 + [1] * 37 + [0] * 26


@given(segments=st.integers(1, 12), horizon=st.integers(1, 400))
@settings(max_examples=150, deadline=None, database=None)
def test_abrupt_cuts_any_horizon_into_equal_parts(segments, horizon):
    """Every segment comes where there are rounds enough, in order, and no part is more than a round longer."""
    stream = Abrupt(segments=tuple((f"c{i}", 1.0 + i) for i in range(segments)))
    _, condition, _ = laid_out(stream, horizon=horizon)
    lengths = np.bincount(condition, minlength=segments)
    assert (np.diff(condition) >= 0).all()
    assert lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize("horizon", [2, 3, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_gradual_starts_at_the_first_and_ends_at_the_last(horizon, seed):
    _, condition, link = laid_out(KINDS["gradual"], horizon=horizon, seed=seed)
    assert (condition[0], link[0]) == (0, 0)
    assert (condition[-1], link[-1]) == (2, 3)


def test_gradual_moves_on_linearly_between_neighbours():
    _, condition, _ = laid_out(Gradual(conditions=ABC), horizon=20_000)
    position = np.linspace(0.0, 2.0, 20_000)
    assert (np.abs(condition - position) <= 1.0).all()
    assert np.abs(condition.reshape(20, 1000).mean(axis=1) - position.reshape(20, 1000).mean(axis=1)).max() < 0.08


def test_gradual_of_one_round_and_of_one_place():
    assert laid_out(KINDS["gradual"], horizon=1)[1:].tolist() == [[0], [0]]
    assert not laid_out(Gradual(conditions=("a",)))[1:].any()


def test_recurring_is_at_the_first_at_noon_and_at_the_last_at_midnight():
    _, condition, link = laid_out(KINDS["recurring"], horizon=900)
    assert not condition[::90].any()
    assert not link[::90].any()
    assert (condition[45::90] == 2).all()
    assert (link[45::90] == 1).all()


def test_recurring_is_periodic_in_distribution():
    condition = laid_out(KINDS["recurring"], horizon=90 * 2000)[1].reshape(2000, 90)
    early, late = condition[:1000].mean(axis=0), condition[1000:].mean(axis=0)
    expected = 1.0 - np.cos(2.0 * np.pi * np.arange(90) / 90)
    assert np.abs(early - late).max() < 0.12
    assert np.abs(condition.mean(axis=0) - expected).max() < 0.08
    shares = [(condition == c).mean() for c in range(3)]
    assert abs(shares[0] - shares[2]) < 0.01  # as much day as night


@pytest.mark.parametrize("stay", [0.0, 0.5, 0.9])
def test_walk_moves_by_at_most_one_and_reaches_both_ends(stay):
    stream = RandomWalk(conditions=("a", "b", "c", "d"), links=(1.0, 2.0, 3.0), stay=stay)
    for places, at in zip((4, 3), laid_out(stream, horizon=20_000)[1:], strict=True):
        steps = np.abs(np.diff(at))
        assert steps.max() == 1
        assert {0, places - 1} <= set(at.tolist())
        assert abs((steps == 0).mean() - stay) < 0.02


def test_walk_starts_at_the_first_place():
    for seed in range(20):
        assert laid_out(RandomWalk(conditions=ABC, links=(1.0, 2.0), stay=0.0), seed=seed)[1:, 0].tolist() == [0, 0]


def test_walk_leaves_a_middle_place_both_ways_alike():
    _, condition, _ = laid_out(RandomWalk(conditions=ABC, stay=0.0), horizon=40_000)
    after = condition[1:][condition[:-1] == 1]
    assert abs((after == 2).mean() - 0.5) < 0.02


def test_walks_of_condition_and_link_are_independent():
    _, condition, link = laid_out(RandomWalk(conditions=("a", "b"), links=(1.0, 2.0), stay=0.5), horizon=40_000)
    assert abs(np.corrcoef(np.diff(condition) != 0, np.diff(link) != 0)[0, 1]) < 0.03


def test_sample_of_one_is_always_that_one():
    assert not laid_out(KINDS["walk"], samples=1, horizon=70_000)[0].any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stationary(link=0.0), ["links", "0.0", "finite factors > 0"]),
        (lambda: Stationary(link=float("nan")), ["links", "nan", "finite factors > 0"]),
        (lambda: Abrupt(segments=()), ["conditions", "()", "one or more"]),
        (lambda: Abrupt(segments=(("a", -1.0),)), ["links", "-1.0", "finite factors > 0"]),
        (lambda: Abrupt(segments=(("a", 1.0),), length=0), ["length", "0", "1 or more"]),
        (lambda: Gradual(conditions=()), ["conditions", "()", "one or more"]),
        (lambda: Gradual(conditions=ABC, links=()), ["links", "()", "one or more"]),
        (lambda: Gradual(conditions=ABC, links=(1.0, float("inf"))), ["links", "inf", "finite factors > 0"]),
        (lambda: Recurring(conditions=ABC, period=1), ["period", "1", "2 or more"]),
        (lambda: Recurring(conditions=ABC, links=(0.0,)), ["links", "0.0", "finite factors > 0"]),
        (lambda: RandomWalk(conditions=ABC, stay=1.0), ["stay", "1.0", "[0, 1)"]),
        (lambda: RandomWalk(conditions=ABC, stay=-0.1), ["stay", "-0.1", "[0, 1)"]),
        (lambda: RandomWalk(conditions=ABC, stay=float("nan")), ["stay", "nan", "[0, 1)"]),
        (lambda: laid_out(Stationary(), samples=0), ["samples", "0", "1 or more"]),
        (lambda: laid_out(Stationary(), horizon=0), ["horizon", "0", "1 or more"]),
        (lambda: laid_out(Stationary(), horizon=-5), ["horizon", "-5", "1 or more"]),
        (lambda: laid_out(Stationary(), size=0), ["size", "0", "1 or more"]),
    ],
)
def test_bad_parameters_are_named_with_value_and_what_is_allowed(make, said):
    with pytest.raises(ValueError, match="allowed") as caught:
        make()
    for words in said:
        assert words in str(caught.value)


names = st.integers(1, 5).map(lambda n: tuple("abcde"[:n]))
factors = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=4).map(tuple)
streams = st.one_of(
    st.builds(Stationary, condition=st.sampled_from("abc"), link=st.floats(0.1, 10.0)),
    st.builds(
        Abrupt,
        segments=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 10.0)), min_size=1, max_size=6).map(tuple),
        length=st.none() | st.integers(1, 300),
    ),
    st.builds(Gradual, conditions=names, links=factors),
    st.builds(Recurring, conditions=names, links=factors, period=st.integers(2, 300)),
    st.builds(RandomWalk, conditions=names, links=factors, stay=st.floats(0.0, 0.99)),
)


@given(
    stream=streams,
    samples=st.integers(1, 120),
    horizon=st.integers(1, 400),
    seed=st.integers(0, 2**40),
    size=st.integers(1, 400),
)
@settings(max_examples=200, deadline=None, database=None)
def test_any_stream_is_in_range_without_replacement_and_independent_of_blocks(stream, samples, horizon, seed, size):
    rounds = laid_out(stream, samples=samples, horizon=horizon, seed=seed, size=size)
    assert rounds.shape == (3, horizon)
    assert np.array_equal(rounds, laid_out(stream, samples=samples, horizon=horizon, seed=seed))
    for at, count in zip(rounds, (samples, len(stream.conditions), len(stream.links)), strict=True):
        assert at.min() >= 0
        assert at.max() < count
    for start in range(0, horizon, samples):
        one_pass = rounds[0, start : start + samples]
        assert len(set(one_pass.tolist())) == len(one_pass)
