"""Coarse logits keep what they round to, lose no more than half a step, and a table that is none is refused."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offramp.bandits import sealed
from offramp.environments import CacheError, ConfidenceCache
from offramp.environments.logits import SCHEMA, STEP, LogitTable, codes_of

LOGITS = arrays(np.float64, (4, 6), elements=st.floats(-60.0, 60.0))


@functools.cache
def made():
    """2 conditions, 3 experts, 7 samples, 2 exits, 6 classes."""
    rng = np.random.default_rng(0)
    return table(codes_of(rng.normal(0.0, 6.0, (2, 3, 7, 2, 6))))


def table(codes, **changed):
    given = {
        "label": np.array([0, 1, 2, 3, 4, 5, 0], dtype=np.int16),
        "sample": np.array([10, 11, 12, 0, 1, 2, 2**40]),
        "split": np.array([0, 0, 0, 1, 1, 1, 1], dtype=np.int8),
        "conditions": ("pristine", "blur 1.0"),
        "experts": ("pristine", "blur", "noise"),
        "hashes": {"model": "ab" * 32},
    }
    return LogitTable(codes=codes, **{**given, **changed})


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


@given(LOGITS)
def test_codes_are_distances_from_the_largest_logit_in_steps(logits):
    codes = codes_of(logits)
    assert codes.dtype == np.uint8
    gaps = logits.max(axis=-1, keepdims=True) - logits
    for code, gap in zip(codes.ravel().tolist(), gaps.ravel().tolist(), strict=True):
        if gap <= 255 * STEP:
            assert abs(code * STEP - gap) <= STEP / 2 + 1e-9
        else:
            assert code == 255
    assert (codes[np.arange(4), logits.argmax(axis=-1)] == 0).all()
    assert np.array_equal(codes_of(codes * -STEP), codes)


@given(LOGITS, st.sampled_from([1.0, 0.5, 3.0]))
def test_probabilities_move_by_a_quarter_of_a_step_at_most(logits, temperature):
    """A logit that is off by e moves p by no more than e p (1 - p), and all others together by as much."""
    apart = softmax(codes_of(logits) * -STEP / temperature) - softmax(logits / temperature)
    assert np.abs(apart).max() <= STEP / temperature / 4 + 1e-12


def test_of_gives_the_samples_of_a_split():
    found = made()
    for s, condition in enumerate(found.conditions):
        for e, expert in enumerate(found.experts):
            for split, rows in (("validation", slice(0, 3)), ("test", slice(3, 7))):
                logits, labels = found.of(condition, expert, split)
                assert np.array_equal(logits, -STEP * found.codes[s, e, rows].astype(float))
                assert (logits.max(axis=-1) == 0.0).all()
                assert labels.tolist() == found.label[rows].tolist()
                assert (logits.dtype, labels.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("fog", "blur", "test"), "condition is 'fog', allowed are ('pristine', 'blur 1.0')"),
        (("pristine", "light", "test"), "expert is 'light', allowed are ('pristine', 'blur', 'noise')"),
        (("pristine", "blur", "train"), "split is 'train', allowed are ('validation', 'test')"),
    ],
)
def test_unknown_name_is_answered_with_the_names_there_are(asked, said):
    with pytest.raises(CacheError) as caught:
        made().of(*asked)
    assert str(caught.value) == said


def test_round_trip_is_exact(tmp_path):
    found = made()
    found.save(tmp_path / "t.safetensors")
    again = LogitTable.load(tmp_path / "t.safetensors")
    for name in ("codes", "label", "sample", "split"):
        one, other = getattr(found, name), getattr(again, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    for name in ("conditions", "experts", "hashes"):
        assert getattr(again, name) == getattr(found, name)
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_table_of_the_sure_is_small(tmp_path):
    """What is far behind says always the same, and that deflates."""
    sure = np.full((2, 3, 7, 200, 6), 255, dtype=np.uint8)
    sure[..., 0] = 0
    table(sure).save(tmp_path / "t")
    assert (tmp_path / "t").stat().st_size < 0.1 * sure.size


@pytest.mark.parametrize(
    ("codes", "changed", "said"),
    [
        (np.zeros((2, 3, 7, 2), np.uint8), {}, ["codes have shape (2, 3, 7, 2)", "(2, 3, 7) and exits, classes"]),
        (np.zeros((2, 2, 7, 2, 6), np.uint8), {}, ["codes have shape (2, 2, 7, 2, 6)"]),
        (np.zeros((2, 3, 7, 2, 6), np.uint8), {"conditions": ("pristine",)}, ["codes have shape"]),
        (np.zeros((2, 3, 7, 2, 6), np.uint8), {"sample": np.arange(6)}, ["sample and split have (6,) and (7,)"]),
        (np.zeros((2, 3, 7, 2, 6), np.uint8), {"split": np.zeros(8, np.int8)}, ["sample and split have (7,) and (8,)"]),
        (np.ones((2, 3, 7, 2, 6), np.uint8), {}, ["codes of an answer lack a 0"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(codes, changed, said):
    with pytest.raises(CacheError, match="allowed is") as caught:
        table(codes, **changed)
    for words in said:
        assert words in str(caught.value)


def test_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t"
    made().save(path)
    before = path.read_bytes()

    def killed(*_):
        raise OSError("killed")

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(OSError, match="killed"):
        table(made().codes, hashes={}).save(path)
    assert path.read_bytes() == before


def test_missing_file_and_unknown_table(tmp_path):
    with pytest.raises(CacheError, match="cannot be read"):
        LogitTable.load(tmp_path / "nothing")
    with pytest.raises(CacheError, match="embedded table of logits 'nobody' does not exist, allowed are"):
        LogitTable.embedded("nobody")


def test_table_and_cache_are_not_taken_for_each_other(tmp_path):
    made().save(tmp_path / "table")
    with pytest.raises(CacheError, match="schema is 'offramp-logits-1', allowed is 'offramp-cache-2'"):
        ConfidenceCache.load(tmp_path / "table")
    ConfidenceCache.from_arrays(confidence=[[[0.5]]], prediction=[[[0]]], label=[0], conditions=["a"]).save(
        tmp_path / "cache"
    )
    with pytest.raises(CacheError, match="schema is 'offramp-cache-2', allowed is 'offramp-logits-1'"):
        LogitTable.load(tmp_path / "cache")


@pytest.fixture
def forge(tmp_path):
    """Load a table with tensors and manifest changed, under a hash that is right."""

    def load(tensors=None, **manifest):
        made().save(tmp_path / "t")
        found, written = sealed.parse((tmp_path / "t").read_bytes(), "t", SCHEMA)
        found = {k: v for k, v in {**found, **(tensors or {})}.items() if v is not None}
        written = {k: v for k, v in {**written, **manifest}.items() if v is not None}
        sealed.write(tmp_path / "t", found, written, SCHEMA)
        return LogitTable.load(tmp_path / "t")

    return load


def test_a_file_that_is_rewritten_as_it_was_is_accepted(forge):
    """So the forgeries below are refused for what they hold."""
    assert np.array_equal(forge().codes, made().codes)


@pytest.mark.parametrize(
    ("tensors", "manifest"),
    [
        ({"deflated": np.frombuffer(b"no stream", np.uint8)}, {}),
        ({"deflated": None}, {}),
        ({"label": None}, {}),
        ({"more": np.zeros(3)}, {}),
        ({"label": np.zeros(6, np.int16)}, {}),
        ({"sample": np.arange(6)}, {}),
        ({}, {"shape": [2, 3, 7, 2, 7]}),
        ({}, {"shape": [2, 3, 7, 6, 2]}),
        ({}, {"shape": [3, 2, 7, 2, 6]}),
        ({}, {"shape": [504]}),
        ({}, {"conditions": ["pristine"]}),
        ({}, {"shape": [2.0, 3, 7, 2, 6]}),
        ({}, {"shape": "abcde"}),
        ({}, {"shape": [[2]]}),
        ({}, {"conditions": ["pristine", "pristine"]}),
        ({}, {"conditions": [1, 2]}),
        ({}, {"experts": 3}),
        ({}, {"hashes": 3}),
        ({"label": np.full(7, 6, np.int16)}, {}),
        ({"label": np.full(7, -1, np.int16)}, {}),
        ({"label": np.zeros(7)}, {}),
        ({"label": np.zeros((7, 1), np.int16)}, {}),
        ({"split": np.full(7, 2, np.int8)}, {}),
        ({}, {"hashes": None}),
        ({}, {"more": 1}),
    ],
)
def test_what_save_would_not_write(forge, tensors, manifest):
    with pytest.raises(CacheError):
        forge(tensors, **manifest)
