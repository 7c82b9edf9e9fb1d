"""Experts, router and temperatures in a cache: consistent, exact where they can be, small where asked to be."""

import functools
import json

import numpy as np
import pytest

from offramp.bandits import sealed
from offramp.environments import CacheError, ConfidenceCache
from offramp.environments.cache import SCHEMA
from offramp.environments.temperature import spread_of

S, E, N, L, K = 3, 2, 2_000, 3, 10
TEMPERATURES = {
    "global": np.full((E, L), 1.5),
    "exit": np.tile([1.2, 1.9, 1.6], (E, 1)),
    "expert_exit": np.array([[1.1, 1.3, 2.0], [1.8, 1.0, 1.5]]),
}


@functools.cache
def logits(classes=K):
    """Of all kinds of sureness, rounded as float32."""
    rng = np.random.default_rng(0)
    return rng.normal(0.0, rng.uniform(0.5, 4.0, (S, E, N, L, 1)), (S, E, N, L, classes))


def top(z):
    return 1.0 / np.exp(z - z.max(axis=-1, keepdims=True)).sum(axis=-1)


def arguments(classes=K, **changed):
    rng = np.random.default_rng(1)
    z = logits(classes)
    good = {
        "confidence": top(z),
        "prediction": z.argmax(axis=-1),
        "spread": spread_of(z),
        "router": rng.dirichlet((1.0, 1.0), (S, N)).astype(np.float16),
        "calibrations": TEMPERATURES,
        "label": rng.integers(0, classes, N),
        "split": np.arange(N) % 2,
        "sample": np.arange(N) + 7,
        "conditions": ["pristine", "blur 1.0", "noise 20"],
        "experts": ["pristine", "blur"],
        "classes": classes,
    }
    return {**good, **changed}


def made(classes=K, **changed):
    return ConfidenceCache.from_arrays(**arguments(classes, **changed))


def few(n=5):
    return made().select(np.arange(n) * 3)


def assert_same(one, other, *names):
    for name in names:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name


@pytest.mark.parametrize("scale", [1.0, 0.8, 1.5])
@pytest.mark.parametrize("name", TEMPERATURES)
def test_calibrated_is_the_softmax_at_the_temperature(name, scale):
    """Temperatures of 1 to 2, and beyond that at either end."""
    given = {k: t * scale for k, t in TEMPERATURES.items()}
    cache = made(calibrations=given)
    found = cache.calibrated(name)
    apart = np.abs(found.confidence - top(logits() / given[name][None, :, None, :, None]))
    assert apart.max() < (0.04 if scale == 1.0 else 0.10)
    assert apart.mean() < (0.004 if scale == 1.0 else 0.02)
    assert np.abs(found.confidence - cache.confidence).mean() > 0.02
    assert_same(found, cache, "prediction", "label", "router")


def test_raw_is_the_cache_itself():
    cache = made()
    assert cache.calibrated("raw") is cache
    bare = made(calibrations=None, spread=None, router=None)
    assert bare.calibrated("raw") is bare


@pytest.mark.parametrize(
    ("changed", "name", "allowed"),
    [
        ({}, "isotonic", "('raw', 'global', 'exit', 'expert_exit')"),
        ({"calibrations": {"exit": TEMPERATURES["exit"]}}, "expert_exit", "('raw', 'exit')"),
        ({"calibrations": None}, "global", "('raw',)"),
        ({"calibrations": None, "spread": None}, "exit", "('raw',)"),
    ],
)
def test_calibration_that_is_not_there_is_answered_with_those_that_are(changed, name, allowed):
    with pytest.raises(CacheError) as caught:
        made(**changed).calibrated(name)
    assert str(caught.value) == f"calibration is {name!r}, allowed in this cache are {allowed}"


def test_calibrated_twice_is_refused():
    assert made().calibrated("exit").spread is None  # it belongs to the confidence at temperature 1
    with pytest.raises(CacheError, match=r"calibration is 'exit', allowed in this cache are \('raw',\)"):
        made().calibrated("exit").calibrated("exit")


def test_select_and_part_keep_spread_router_and_calibrations_together():
    cache = made()
    order = np.array([5, 1_500, 1])
    picked = cache.select(order)
    assert np.array_equal(picked.spread, cache.spread[:, :, order])
    assert np.array_equal(picked.router, cache.router[:, order])
    for name in TEMPERATURES:
        assert np.array_equal(picked.calibrations[name], TEMPERATURES[name])
        assert np.array_equal(picked.calibrated(name).confidence, cache.calibrated(name).confidence[:, :, order])
    part = cache.part("validation")
    assert_same(part, cache.select(np.arange(0, N, 2)), "confidence", "spread", "router", "sample")
    part._check()
    bare = made(calibrations=None, spread=None, router=None).select(order)
    assert (bare.spread, bare.router) == (None, None)


def test_exact_round_trip_keeps_what_belongs_to_experts(tmp_path):
    cache = made()
    cache.save(tmp_path / "c")
    again = ConfidenceCache.load(tmp_path / "c")
    assert_same(again, cache, "confidence", "prediction", "spread", "router")
    assert again.calibrations.keys() == TEMPERATURES.keys()
    for name in TEMPERATURES:
        assert np.array_equal(again.calibrations[name], TEMPERATURES[name])


@pytest.mark.parametrize(("classes", "error"), [(10, 3.7e-4), (17, 2.4e-5)])
def test_small_round_trip_rounds_once(tmp_path, classes, error):
    cache = made(classes)
    paths = [tmp_path / name for name in ("whole", "small", "again")]
    cache.save(paths[0])
    cache.save(paths[1], small=True)
    small = ConfidenceCache.load(paths[1])
    small.save(paths[2], small=True)
    assert 0.0 < np.abs(small.confidence - cache.confidence).max() <= error
    assert_same(small, cache, "prediction", "spread", "label", "sample", "split")
    assert np.abs(small.router - cache.router).max() < 0.0021
    assert small.experts == cache.experts
    first, second = (sealed.parse(p.read_bytes(), "file", SCHEMA) for p in paths[1:])
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    assert all(np.array_equal(tensor, second[0][name]) for name, tensor in first[0].items())
    answers = S * E * N * L
    assert paths[0].stat().st_size - paths[1].stat().st_size >= answers * (4 if classes == 10 else 2) - 1_000


def test_small_round_trip_without_the_optional_arrays(tmp_path):
    bare = made(calibrations=None, spread=None, router=None)
    bare.save(tmp_path / "c", small=True)
    again = ConfidenceCache.load(tmp_path / "c")
    assert (again.spread, again.router, dict(again.calibrations)) == (None, None, {})
    assert np.array_equal(again.prediction, bare.prediction)


def changed_at(name, at, value):
    array = np.array(arguments()[name], dtype=np.float64)
    array[at] = value
    return {name: array}


def with_temperature(value):
    table = TEMPERATURES["exit"].copy()
    table[1, 2] = value
    return {"calibrations": {"exit": table}}


BAD = {
    "spread of other shape": ({"spread": np.zeros((S, E, N, L + 1))}, ["spread", "(3, 2, 2000, 4)", "as confidence"]),
    "spread beyond a byte": (changed_at("spread", (2, 1, 3, 0), 256), ["spread[2, 1, 3, 0]", "256", "[0, 255]"]),
    "spread not whole": (changed_at("spread", (0, 0, 0, 0), 0.5), ["spread[0, 0, 0, 0]", "0.5", "a whole number"]),
    "router of other shape": (
        {"router": np.full((S, E, N), 0.5)},
        ["router", "(3, 2, 2000)", "(3, 2000, 2): condition, label, expert"],
    ),
    "router below 0": (changed_at("router", (1, 2, 0), -0.5), ["router[1, 2, 0]", "-0.5", "[0.0, 1.0]"]),
    "router nan": (changed_at("router", (1, 2, 0), np.nan), ["router[1, 2, 0]", "nan", "[0.0, 1.0]"]),
    "router sums to 2": (changed_at("router", (2, 9), 1.0), ["sum over the experts[2, 9] is 2.0", "allowed is 1"]),
    "unknown calibration": ({"calibrations": {"platt": np.ones((E, L))}}, ["'platt'", "('global', 'exit', "]),
    "calibration called raw": ({"calibrations": {"raw": np.ones((E, L))}}, ["'raw'", "('global', 'exit', "]),
    "temperatures of exits alone": (
        {"calibrations": {"exit": np.ones(L)}},
        ["calibrations['exit'] has shape (3,)", "(2, 3)"],
    ),
    "temperature 0": (with_temperature(0.0), ["calibrations['exit'][1, 2] is 0.0", "a finite temperature > 0"]),
    "temperature below 0": (with_temperature(-1.0), ["calibrations['exit'][1, 2] is -1.0"]),
    "temperature nan": (with_temperature(np.nan), ["calibrations['exit'][1, 2] is nan"]),
    "temperature infinite": (with_temperature(np.inf), ["calibrations['exit'][1, 2] is inf"]),
    "temperatures in words": ({"calibrations": {"exit": "warm"}}, ["calibrations['exit'] cannot be read"]),
    "temperatures without spread": ({"spread": None}, ["calibrations are given without the spread"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_value_and_what_is_allowed(case):
    changed, said = BAD[case]
    with pytest.raises(CacheError) as caught:
        made(**changed)
    for words in [*said, "allowed"]:
        assert words in str(caught.value)


@pytest.fixture
def forge(tmp_path):
    """Load a file of five samples with tensors and manifest changed, under a hash that is right."""

    def load(*, small, tensors=None, **manifest):
        few().save(tmp_path / "c", small=small)
        found, written = sealed.parse((tmp_path / "c").read_bytes(), "c", SCHEMA)
        found = {k: v for k, v in {**found, **(tensors or {})}.items() if v is not None}
        sealed.write(tmp_path / "c", found, {**written, **manifest}, SCHEMA)
        return ConfidenceCache.load(tmp_path / "c")

    return load


def test_a_file_that_is_rewritten_as_it_was_is_accepted(forge):
    """So the forgeries below are refused for what they hold."""
    for small in (True, False):
        assert np.abs(forge(small=small).confidence - few().confidence).max() <= 3.7e-4


ANSWER = np.zeros((S, E, 5, L), dtype=np.uint16)
CONFIDENCE = np.zeros((S, E, 5, L), dtype=np.float32)


@pytest.mark.parametrize(
    ("small", "tensors", "said"),
    [
        (True, {"answer": None}, "confidence is missing"),
        (True, {"answer": ANSWER.astype(np.uint32)}, "answer is uint32, allowed is an array of uint16"),
        (True, {"answer": ANSWER + np.uint16(11)}, r"prediction\[0, 0, 0, 0\] is 11, allowed is \[0, 9\]"),
        (True, {"answer": ANSWER[:, :, :4]}, "confidence has shape"),
        (True, {"confidence": CONFIDENCE}, "allowed are"),
        (False, {"answer": ANSWER}, "allowed"),
        (False, {"prediction": None}, "prediction is missing"),
        (False, {"spread": ANSWER}, "spread is uint16, allowed is an array of uint8"),
        (False, {"spread": None}, "calibrations are given without the spread"),
        (False, {"router": np.full((S, 5, E), 0.5)}, "router is float64, allowed is an array of float16"),
        (False, {"more": ANSWER}, "'more'"),
    ],
)
def test_arrays_that_save_would_not_write(forge, small, tensors, said):
    with pytest.raises(CacheError, match=said):
        forge(small=small, tensors=tensors)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "manifest",
    [
        {"classes": "ten"},
        {"classes": 2},
        {"classes": 17},
        {"classes": True},
        {"calibrations": None},
        {"calibrations": {"exit": [[1.0, 1.0], [1.0, 1.0]]}},
        {"calibrations": {"exit": [[1.0, 1.0, 1.0], [1.0, 1.0]]}},
        {"calibrations": {"platt": [[1.0] * L] * E}},
        {"calibrations": [1.0]},
        {"experts": ["pristine"]},
    ],
    ids=json.dumps,
)
def test_manifest_that_save_would_not_write(forge, small, manifest):
    if manifest == {"calibrations": None} or (manifest == {"classes": 17} and not small):
        forge(small=small, **manifest)  # no calibrations, and one class more than are ever said: both are sound
        return
    with pytest.raises(CacheError):
        forge(small=small, **manifest)
