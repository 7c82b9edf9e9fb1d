"""Calibration measures agree with slow loops that read like their definitions, and with what is known of a forecast."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments.reliability import (
    adaptive_ece,
    auroc,
    brier,
    class_brier,
    classwise_ece,
    ece,
    nll,
    reliability,
    wilson,
)

BINS = 15
sixteenths = st.integers(0, 16).map(lambda k: k / 16)  # bin ends of 16 bins, exact in binary
samples = st.lists(st.tuples(st.one_of(sixteenths, st.floats(0, 1)), st.booleans()), min_size=1, max_size=40)


def columns(pairs):
    return np.array([c for c, _ in pairs]), np.array([y for _, y in pairs])


def slow_ece(c, y, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i in range(len(c)) if low < c[i] <= high or (b == 0 and c[i] == 0.0)]
        if inside:
            total += abs(sum(float(y[i]) for i in inside) - sum(c[i] for i in inside)) / len(c)
    return total


def slow_auroc(c, y):
    pairs = [(a, b) for a, ra in zip(c, y, strict=True) if ra for b, rb in zip(c, y, strict=True) if not rb]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs) if pairs else math.nan


@pytest.fixture(scope="module")
def exits(embedded):
    part = embedded.part("test")
    confidence = part.confidence[0, 0, :3000]
    return confidence, part.prediction[0, 0, :3000] == part.label[:3000, None]


@given(samples)
@settings(max_examples=100, deadline=None)
def test_intervals_are_open_below_and_closed_above(pairs):
    c, y = columns(pairs)
    assert ece(c, y, 16) == pytest.approx(slow_ece(c, y, 16), abs=1e-12)


def test_a_confidence_on_an_end_belongs_to_the_bin_below():
    found = reliability([0.0, 0.25, 0.26, 0.5, 1.0], [0, 1, 0, 1, 1], 4)
    assert found.count.tolist() == [2, 2, 0, 1]
    assert found.accuracy.tolist()[:2] == [0.5, 0.5]
    assert np.isnan(found.accuracy[2])


@given(samples)
@settings(max_examples=100, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    c, y = columns(pairs)
    assert auroc(c, y) == pytest.approx(slow_auroc(c, y), abs=1e-12, nan_ok=True)


def test_auroc_counts_ties_half_and_needs_both_kinds():
    assert auroc([0.5] * 4, [1, 1, 0, 0]) == 0.5
    assert auroc([0.2, 0.9], [0, 1]) == 1.0
    assert auroc([0.9, 0.2], [0, 1]) == 0.0
    assert np.isnan(auroc([0.9, 0.2], [1, 1]))


def test_every_exit_on_its_own_is_its_column(exits):
    c, y = exits
    for measure in (ece, adaptive_ece, brier, auroc):
        alone = [measure(c[:, i], y[:, i]) for i in range(c.shape[1])]
        assert np.allclose(measure(c, y), alone, rtol=0, atol=1e-12)
        assert np.shape(measure(c[:, 0], y[:, 0])) == ()
    both = reliability(c, y)
    one = reliability(c[:, 2], y[:, 2])
    for name in ("count", "confidence", "accuracy", "low", "high"):
        assert np.allclose(getattr(both, name)[:, 2], getattr(one, name), equal_nan=True, rtol=0, atol=1e-12)


def test_diagram_and_error_are_one_story(exits):
    c, y = exits
    found = reliability(c, y, BINS)
    assert found.count.sum(axis=0).tolist() == [len(c)] * c.shape[1]
    gap = np.where(found.count > 0, found.count * np.abs(found.accuracy - found.confidence), 0.0)
    assert np.allclose(gap.sum(axis=0) / len(c), ece(c, y, BINS), atol=1e-12)
    some = found.count > 0
    assert (found.low[some] <= found.accuracy[some]).all()
    assert (found.accuracy[some] <= found.high[some]).all()


def test_adaptive_bins_hold_equally_many():
    rng = np.random.default_rng(0)
    c = rng.random(103)
    y = rng.random(103) < 0.6
    order = np.argsort(c)
    ends = [int(k * 103 / 10) for k in range(11)]
    slow = sum(abs((y[order[a:b]] - c[order[a:b]]).sum()) for a, b in itertools.pairwise(ends)) / 103
    assert adaptive_ece(c, y, 10) == pytest.approx(slow, abs=1e-12)
    assert adaptive_ece(c, y, 500) == pytest.approx(np.abs(y - c).mean(), abs=1e-12)


def test_an_honest_forecast_has_no_error_and_an_overconfident_one_has_its_gap():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.3, 0.8, 200_000)
    y = rng.random(p.size) < p
    for measure in (ece, adaptive_ece):
        assert measure(p, y) < 0.006
        assert measure(p + 0.2, y) == pytest.approx(0.2, abs=0.006)
    assert brier(p, y) == pytest.approx((p * (1 - p)).mean(), abs=0.003)


def test_class_measures_against_loops():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(4), (60, 2))
    label = rng.integers(0, 4, 60)
    for exit_ in range(2):
        of_classes = [slow_ece(p[:, exit_, k], label == k, BINS) for k in range(4)]
        assert classwise_ece(p, label)[exit_] == pytest.approx(np.mean(of_classes), abs=1e-12)
        squares = [sum((p[i, exit_, k] - (label[i] == k)) ** 2 for k in range(4)) for i in range(60)]
        assert class_brier(p, label)[exit_] == pytest.approx(np.mean(squares), abs=1e-12)
    true = p[np.arange(60), :, label]
    assert np.allclose(nll(true), [-np.mean([math.log(x) for x in true[:, e]]) for e in range(2)])
    assert nll([1.0, 0.0]) == math.inf


def test_wilson_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    for p, n in ((0.5, 30), (0.9, 30), (0.97, 100)):
        low, high = wilson(rng.binomial(n, p, 20_000), n)
        assert ((low <= p) & (p <= high)).mean() == pytest.approx(0.95, abs=0.03)
    low, high = wilson([0, 10, 0], [10, 10, 0])
    assert low[0] == 0.0
    assert high[0] == pytest.approx(0.2775, abs=1e-4)
    assert high[1] == 1.0
    assert np.isnan(low[2])


@pytest.mark.parametrize("measure", [ece, adaptive_ece, brier, auroc, reliability])
def test_what_is_wrong_is_named(measure):
    for confidence, correct, message in (
        ([0.5, 1.5], [0, 1], r"confidence holds 1\.5, allowed is \[0, 1\]"),
        ([0.5, math.nan], [0, 1], "confidence holds nan"),
        ([], [], r"confidence has shape \(0,\), allowed is at least one sample"),
        ([0.5], [0, 1], r"correct has shape \(2,\), allowed is that of confidence, \(1,\)"),
        ([0.5, 0.5], [0, 2], "correct holds 2, allowed are 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(confidence, correct)


def test_bins_and_labels_that_do_not_fit_are_named():
    for measure in (ece, adaptive_ece, reliability):
        with pytest.raises(ValueError, match="bins is 0, allowed is a whole number >= 1"):
            measure([0.5], [1], 0)
    with pytest.raises(ValueError, match=r"allowed are 2 whole numbers in 0\.\.1"):
        classwise_ece([[0.5, 0.5]] * 2, [0, 2])
    with pytest.raises(ValueError, match=r"probabilities has shape \(2,\)"):
        class_brier([0.5, 0.5], [0, 1])
    with pytest.raises(ValueError, match=r"probability holds -0\.5"):
        nll([-0.5])
