"""Two bytes an answer, and what a temperature does to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offramp.environments import ConfidenceCache
from offramp.environments.compact import decode, encode
from offramp.environments.temperature import spread_of, tempered

UNIT = arrays(np.float64, (7,), elements=st.floats(0.0, 1.0))


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


@given(UNIT, st.sampled_from([(10, 3.7e-4), (16, 3.7e-4), (17, 2.4e-5), (1_000, 2.4e-5)]), st.integers(0, 2**32 - 1))
def test_decoded_is_what_was_encoded(confidence, kind, seed):
    classes, error = kind
    prediction = np.random.default_rng(seed).integers(0, classes, 7)
    codes = encode(confidence, prediction, classes)
    found, guess = decode(codes, classes)
    assert codes.itemsize == (2 if classes <= 16 else 4)
    assert np.array_equal(guess, prediction)
    assert np.abs(found - confidence).max() <= error
    assert np.array_equal(encode(found, guess, classes), codes)


@given(UNIT)
def test_order_is_kept_and_certainty_is_exact(confidence):
    confidence = np.sort(confidence)
    found, _ = decode(encode(confidence, np.zeros(7, dtype=int), 10), 10)
    assert (np.diff(found) >= 0.0).all()
    assert decode(encode(np.array([0.0, 1.0]), np.zeros(2, dtype=int), 10), 10)[0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize("temperature", [0.8, 1.0, 1.4, 2.0, 3.0])
def test_two_numbers_stand_for_the_logits(classes, temperature):
    rng = np.random.default_rng(classes)
    logits = rng.normal(0.0, rng.uniform(0.5, 4.0, (20_000, 1)), (20_000, classes))
    confidence = softmax(logits).max(axis=1)
    found = tempered(confidence, spread_of(logits), temperature, classes)
    apart = np.abs(found - softmax(logits / temperature).max(axis=1))
    if temperature == 1.0:
        assert apart.max() < 1e-12
    between = 1.0 <= temperature <= 2.0
    assert apart.max() < (0.04 if between else 0.10)
    assert apart.mean() < (0.004 if between else 0.02)


@pytest.mark.parametrize("rivals", [1, 9])
def test_rivals_of_one_kind_are_exact_at_any_temperature(rivals):
    """One rival, or all rivals alike: the two ends of the spread, where f is a straight line but for its start."""
    gap = np.linspace(0.0, 12.0, 200)[:, None]
    logits = np.concatenate([gap, np.zeros((200, rivals))], axis=1)
    confidence = softmax(logits).max(axis=1)
    for temperature in (0.5, 1.7, 4.0):
        found = tempered(confidence, spread_of(logits), temperature, rivals + 1)
        assert np.allclose(found, softmax(logits / temperature).max(axis=1), atol=0.02)


def test_hotter_is_never_surer():
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 3.0, (5_000, 10))
    confidence, spread = softmax(logits).max(axis=1), spread_of(logits)
    curve = np.stack([tempered(confidence, spread, t, 10) for t in (0.5, 0.8, 1.0, 1.3, 2.0, 5.0, 20.0)])
    assert (np.diff(curve, axis=0) <= 1e-9).all()
    assert np.isfinite(curve).all()


def test_an_answer_without_doubt_keeps_none():
    sure = tempered(np.ones(3), np.zeros(3, dtype=np.uint8), 2.0, 10)
    assert np.allclose(sure, 1.0)


@pytest.mark.parametrize("small", [False, True])
def test_arrays_of_any_memory_order_are_kept(small, tmp_path):
    """A library that writes strided memory as it lies would mix samples up: confidences are often transposed views."""
    rng = np.random.default_rng(1)
    order = (3, 2, 1, 0)
    parts = {
        "confidence": rng.random((3, 20, 2, 2)).transpose(order),
        "prediction": rng.integers(0, 10, (3, 20, 2, 2)).transpose(order),
        "spread": rng.integers(0, 256, (3, 20, 2, 2)).transpose(order),
        "router": np.full((20, 2, 2), 0.5).transpose(1, 0, 2),
    }
    cache = ConfidenceCache.from_arrays(
        **parts, label=np.zeros(20, int), classes=10, conditions=["a", "b"], experts=["x", "y"]
    )
    cache.save(tmp_path / "c.safetensors", small=small)
    found = ConfidenceCache.load(tmp_path / "c.safetensors")
    assert np.abs(found.confidence - parts["confidence"]).max() < 4e-4
    assert np.abs(found.router - parts["router"]).max() < 0.0021
    for name in ("prediction", "spread"):
        assert np.array_equal(getattr(found, name), parts[name])
