"""Streaming recalibration: the step is the minimum it claims, weights undo the selection, and drift is followed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits.kernel import compile_here
from offramp.bandits.recalibrate import (
    BIAS,
    DISCOUNT,
    FLATTEST,
    H_BIAS,
    H_CROSS,
    H_SLOPE,
    PRIOR,
    SIZE,
    SLOPE,
    StreamingCalibration,
    learn,
    log_odds,
    recalibrated,
)
from offramp.environments.reliability import ece

probability = st.floats(0.0, 1.0)
seen = st.lists(st.tuples(probability, st.booleans(), st.floats(0.01, 1.0)), max_size=30)


def fed(observations, **parameters):
    made = StreamingCalibration(**parameters)
    for confidence, agreed, propensity in observations:
        made.update(confidence, agreed=bool(agreed), propensity=float(propensity))
    return made


def objective(state, x, agreed, weight, bias, slope):
    """What a step minimises, written out."""
    discount, prior = state[DISCOUNT], state[PRIOR]
    h = discount * np.array([[state[H_BIAS], state[H_CROSS]], [state[H_CROSS], state[H_SLOPE]]])
    h += (1 - discount) * prior * np.eye(2)
    moved = np.array([bias - state[BIAS], slope - state[SLOPE]])
    odds = bias + slope * x
    return 0.5 * moved @ h @ moved + weight * np.logaddexp(0.0, -odds if agreed else odds)


@given(seen, st.floats(0.02, 0.98), st.booleans(), st.floats(1e-4, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_step_ends_in_the_minimum(history, confidence, agreed, propensity):
    made = fed(history)
    before = made.state.copy()
    made.update(confidence, agreed=agreed, propensity=propensity)
    bias, slope = made.state[BIAS], made.state[SLOPE]
    if slope == FLATTEST:
        return
    x = log_odds(confidence)
    least = objective(before, x, agreed, 1 / propensity, bias, slope)
    for shift in (1e-3, -1e-3):
        assert least <= objective(before, x, agreed, 1 / propensity, bias + shift, slope) + 1e-9 * (1 + abs(least))
        assert least <= objective(before, x, agreed, 1 / propensity, bias, slope + shift) + 1e-9 * (1 + abs(least))


def test_where_confidence_misleads_the_map_is_nearly_level_at_the_right_height():
    """The surer, the rarer right: no rising map says so, and the mean is what is left to get right, step by step."""
    rng = np.random.default_rng(6)
    made, before, floored = StreamingCalibration(), None, 0
    for confidence in rng.choice([0.3, 0.98], 400):
        agreed = bool(rng.random() < (0.9 if confidence < 0.5 else 0.1))
        before = made.state.copy()
        made.update(float(confidence), agreed=agreed)
        if made.state[SLOPE] == FLATTEST and before[SLOPE] == FLATTEST:
            floored += 1
            grid = made.state[BIAS] + np.linspace(-0.5, 0.5, 101)
            losses = [objective(before, log_odds(confidence), agreed, 1.0, b, FLATTEST) for b in grid]
            assert abs(int(np.argmin(losses)) - 50) <= 2
    assert floored > 100
    assert made(0.3) == pytest.approx(made(0.98), abs=0.1)
    assert made(0.7) == pytest.approx(0.5, abs=0.1)


@given(seen)
@settings(max_examples=60, deadline=None)
def test_the_map_rises_strictly_and_stays_inside(history):
    made = fed(history)
    grid = np.linspace(0.001, 0.999, 50)
    values = np.array([made(c) for c in grid])
    assert ((values >= 0.0) & (values <= 1.0)).all()
    inside = (values > 1e-12) & (values < 1 - 1e-12)
    assert (np.diff(values[inside]) > 0.0).all()


def test_nothing_seen_changes_nothing():
    made = StreamingCalibration()
    assert [made(c) for c in (0.1, 0.5, 0.83)] == pytest.approx([0.1, 0.5, 0.83], abs=1e-15)


def test_a_known_map_is_found():
    """Agreement with log-odds .6 * logit(c) - .5."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.99, 20_000)
    true = 1 / (1 + np.exp(0.5 - 0.6 * np.log(confidence / (1 - confidence))))
    made = fed(zip(confidence, rng.random(20_000) < true, np.ones(20_000), strict=True), discount=0.9999)
    assert made.state[BIAS] == pytest.approx(-0.5, abs=0.08)
    assert made.state[SLOPE] == pytest.approx(0.6, abs=0.05)


def test_no_weight_and_no_certainty_breaks_it():
    made = StreamingCalibration()
    for _ in range(300):
        made.update(1.0, agreed=False, propensity=1e-6)
        made.update(0.0, agreed=False, propensity=1e-6)
    assert np.isfinite(made.state).all()
    assert made(1.0) < 0.01
    for _ in range(300):
        made.update(1.0, agreed=True, propensity=1e-6)
    assert np.isfinite(made.state).all()
    assert made(1.0) > 0.9


@pytest.fixture(scope="module")
def exits(embedded):
    """Of the shipped network by condition: confidence, agreement with the last exit, and truth, (n, 7) each."""
    part = embedded.part("test")
    names = [c.name for c in part.conditions]
    found = {}
    for name in ("pristine", "noise 20", "blur 1.0"):
        c, p = part.confidence[names.index(name), 0], part.prediction[names.index(name), 0]
        found[name] = (c, p == p[:, -1:], p == part.label[:, None])
    return found


@pytest.mark.parametrize("condition", ["pristine", "noise 20", "blur 1.0"])
def test_selected_feedback_biases_the_unweighted_estimate_only(exits, condition):
    """Exit 2 hears of a sample where exit 3 sends it, sure or not itself; of a tenth of the others by audits."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(exits[condition][0]))
    (c, after), agreed = exits[condition][0][order, 1:3].T, exits[condition][1][order, 1]
    propensity = np.where(after < 0.8, 1.0, 0.1)
    shown = rng.random(len(c)) < propensity
    weighted = fed(zip(c[shown], agreed[shown], propensity[shown], strict=True), discount=0.9998)
    trusting = fed(zip(c[shown], agreed[shown], np.ones(shown.sum()), strict=True), discount=0.9998)
    full = fed(zip(c, agreed, np.ones(len(c)), strict=True), discount=0.9998)
    error, biased, least = (ece([m(x) for x in c], agreed) for m in (weighted, trusting, full))
    assert error < least + 0.015
    assert biased > error + 0.04
    of_all = agreed.mean()
    assert np.mean([weighted(x) for x in c]) == pytest.approx(of_all, abs=0.015)
    assert np.mean([trusting(x) for x in c]) < of_all - 0.05


@pytest.mark.parametrize(("truth", "settled"), [("cloud", 0.045), ("label", 0.075)])
def test_drift_is_followed(exits, truth, settled):
    """Exit 3: pristine, noise 20, blur 1.0, 4,000 samples each; sent below .8, a twentieth of the rest audited."""
    rng = np.random.default_rng(2)
    made, errors, raw = StreamingCalibration(), [], []
    for condition in ("pristine", "noise 20", "blur 1.0"):
        confidence, of_cloud, of_label = exits[condition]
        chosen = rng.permutation(len(confidence))[:4000]
        c, right = confidence[chosen, 2], (of_cloud if truth == "cloud" else of_label)[chosen, 2]
        said = np.empty(4000)
        for i, x in enumerate(c):
            said[i] = made(x)
            sent = x < 0.8
            if sent or rng.random() < 0.05:
                made.update(float(x), agreed=bool(right[i]), propensity=1.0 if sent else 0.05)
        errors.append(ece(said[2000:], right[2000:]))
        raw.append(ece(c[2000:], right[2000:]))
    assert max(errors) < settled
    factor = 3 if truth == "label" else 1  # the last exit is wrong in the same places: agreement with it is no news
    assert raw[1] > factor * errors[1]
    assert raw[2] > factor * errors[2]


def test_a_snapshot_goes_on_bit_for_bit_alone_and_inside_a_larger_state():
    rng = np.random.default_rng(3)
    rows = list(zip(rng.random(200), rng.random(200) < 0.5, rng.uniform(0.05, 1.0, 200), strict=True))
    whole, half = fed(rows), fed(rows[:100])
    other = StreamingCalibration()
    other.state[:] = half.state.copy()
    large = np.full(SIZE + 7, -3.0)
    large[5 : 5 + SIZE] = half.state
    for c, agreed, p in rows[100:]:
        other.update(c, agreed=bool(agreed), propensity=p)
        learn(large, 5, c, float(agreed), p)
    assert np.array_equal(other.state, whole.state)
    assert np.array_equal(large[5 : 5 + SIZE], whole.state)
    assert recalibrated(large, 5, 0.7) == whole(0.7)
    assert (np.delete(large, range(5, 5 + SIZE)) == -3.0).all()


def test_compiled_and_plain_agree_bit_for_bit():
    learn_compiled = compile_here(lambda state, c, y, p: learn(state, 0, c, y, p))
    rng = np.random.default_rng(4)
    plain, quick = StreamingCalibration(), StreamingCalibration()
    for c, y, p in zip(rng.random(500), rng.random(500) < 0.6, rng.uniform(0.02, 1.0, 500), strict=True):
        learn(plain.state, 0, c, float(y), p)
        learn_compiled(quick.state, c, float(y), p)
    assert np.array_equal(plain.state, quick.state)


def test_what_is_wrong_is_named_and_nothing_is_learnt():
    made = StreamingCalibration()
    before = made.state.copy()
    for call, message in (
        (lambda: StreamingCalibration(discount=1.0), r"discount is 1\.0, allowed is a number in \(0, 1\)"),
        (lambda: StreamingCalibration(discount=math.nan), "discount is nan"),
        (lambda: StreamingCalibration(prior=0.0), r"prior is 0\.0, allowed is a finite number > 0"),
        (lambda: made.update(1.1, agreed=True), r"confidence is 1\.1, allowed is \[0, 1\]"),
        (lambda: made.update(math.nan, agreed=True), "confidence is nan"),
        (
            lambda: made.update(0.5, agreed=True, propensity=0.0),
            r"propensity is 0\.0, allowed is a number in \[1e-06, 1\]",
        ),
        (lambda: made.update(0.5, agreed=True, propensity=math.nan), "propensity is nan"),
        (lambda: made.update(0.5, agreed=-1), "agreed is -1, allowed are True and False"),
        (lambda: made(-0.1), r"confidence is -0\.1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert np.array_equal(made.state, before)
