"""The compiled detectors against river's and against plain definitions; false alarms and delays on real confidences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from offramp.bandits.adwin import ADWIN
from offramp.bandits.cusum import CUSUM
from offramp.bandits.detectors import Detector, alarms
from offramp.bandits.glr import GLR
from offramp.bandits.page_hinkley import PageHinkley
from offramp.bandits.two_window import TwoWindow

ALL = (CUSUM(), PageHinkley(), ADWIN(), GLR(), TwoWindow())


def theirs(detector, values):
    """Indices at which river's detector reports a drift."""
    found = []
    for i, x in enumerate(values):
        detector.update(float(x))
        if detector.drift_detected:
            found.append(i)
    return found


def pieces(seed, count=4, longest=400):
    """A stream in pieces, each with a distribution of its own on [0, 1]."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.beta(*rng.uniform(0.2, 5.0, 2), int(rng.integers(1, longest))) for _ in range(count)])


@pytest.fixture(scope="module")
def real(embedded):
    part = embedded.part("test")

    def of(condition, exit_index=0):
        return part.confidence[part.condition(condition), 0, :, exit_index].astype(np.float64)

    return of


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    delta=st.sampled_from((0.002, 0.05, 0.3, 0.9)),
    clock=st.sampled_from((1, 3, 32)),
    max_buckets=st.integers(2, 6),
    min_window_length=st.sampled_from((1, 5, 20)),
    grace_period=st.sampled_from((1, 10, 50)),
)
def test_adwin_rings_where_rivers_does(seed, **options):
    values = pieces(seed)
    assert alarms(ADWIN(**options), values).tolist() == theirs(drift.ADWIN(**options), values)


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    min_instances=st.sampled_from((1, 30, 100)),
    delta=st.sampled_from((0.0, 0.005, 0.1)),
    threshold=st.sampled_from((0.5, 5.0, 20.0)),
    alpha=st.sampled_from((1.0, 0.9999, 0.9)),
    mode=st.sampled_from(("up", "down", "both")),
)
def test_page_hinkley_rings_where_rivers_does(seed, **options):
    values = pieces(seed)
    assert alarms(PageHinkley(**options), values).tolist() == theirs(drift.PageHinkley(**options), values)


def test_both_ring_where_rivers_do_on_real_confidences(real):
    """100,000 confidences under eight conditions; some of the changes are found by each, at the same index."""
    rng = np.random.default_rng(0)
    names = ("pristine", "noise 20", "pristine", "blur 1.0", "blur 2.0", "noise 10", "noise 40", "pristine")
    values = np.concatenate([rng.choice(real(name, exit_index), 6_250) for exit_index in (0, 3) for name in names])
    for ours, other in (
        (ADWIN(), drift.ADWIN()),
        (PageHinkley(threshold=15.0), drift.PageHinkley(delta=0.02, threshold=15.0, alpha=1.0)),
        (PageHinkley(delta=0.005, threshold=50.0, alpha=0.9999), drift.PageHinkley()),
    ):
        found = alarms(ours, values).tolist()
        assert found == theirs(other, values)
        assert len(found) >= 10


@pytest.mark.parametrize("seed", range(20))
def test_cusum_by_its_definition(seed):
    """Both sums as the largest of all sums that end here, which no recursion computes."""
    values, found, start = pieces(seed), [], 0
    warmup, slack, threshold = 20, 0.03, 2.0
    for i in range(len(values)):
        past = values[start : i + 1]
        if len(past) <= warmup:
            continue
        off = past[warmup:] - past[:warmup].mean()
        tails = [np.cumsum((sign * off - slack)[::-1]).max() for sign in (1, -1)]
        if max(tails) > threshold:
            found.append(i)
            start = i + 1
    assert alarms(CUSUM(warmup=warmup, slack=slack, threshold=threshold), values).tolist() == found
    assert found or seed


def divergence(a, b, variance):
    if variance is not None:
        return (a - b) ** 2 / (2 * variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nansum([a * np.log(a / b), (1 - a) * np.log((1 - a) / (1 - b))])


@pytest.mark.parametrize("variance", [None, 0.04])
@pytest.mark.parametrize("seed", range(10))
def test_glr_by_its_definition(seed, variance):
    values, found, start = pieces(seed, longest=300), [], 0
    delta, stride, window = 0.01, 10, 200
    for i in range(stride - 1, len(values)):
        if (i + 1 - start) % stride or i < start:
            continue
        past = values[start : i + 1][-window:]
        n = len(past)
        ratio = 0.0
        for s in range(stride, n, stride):
            older, newer, one = past[:s].mean(), past[s:].mean(), past.mean()
            ratio = max(ratio, s * divergence(older, one, variance) + (n - s) * divergence(newer, one, variance))
        if ratio >= math.log(3 * n**1.5 / delta):
            found.append(i)
            start = i + 1
    mine = GLR(delta=delta, stride=stride, window=window, variance=variance)
    assert alarms(mine, values).tolist() == found


@pytest.mark.parametrize("seed", range(20))
def test_two_windows_by_their_definition(seed):
    values, found, start = pieces(seed), [], 0
    older, newer, every, z = 60, 30, 7, 4.0
    for i in range(len(values)):
        past = values[start : i + 1][-older - newer :]
        if len(past) < older + newer or (i + 1 - (found[-1] + 1 if found else 0)) % every:
            continue
        first, second = past[:older], past[older:]
        error = math.sqrt(first.var(ddof=1) / older + second.var(ddof=1) / newer)
        if abs(second.mean() - first.mean()) > z * error:
            found.append(i)
            start = i + 1
    assert alarms(TwoWindow(older=older, newer=newer, every=every, z=z), values).tolist() == found


@pytest.mark.parametrize("detector", ALL, ids=str)
def test_plain_python_and_compiled_code_ring_alike(detector):
    assert isinstance(detector, Detector)
    state, found = detector.initial(), []
    values = pieces(7, count=3)
    for i, x in enumerate(values.tolist()):
        if detector.push(state, 0, x) > 0.0:
            found.append(i)
    assert alarms(detector, values).tolist() == found
    assert len(state) == len(detector.initial())


@pytest.mark.parametrize("detector", ALL, ids=str)
def test_a_detector_stands_anywhere_and_touches_nothing_else(detector):
    own = detector.initial()
    state = np.concatenate([np.full(5, 7.0), own, np.full(5, 9.0)])
    alone = own.copy()
    for x in pieces(3).tolist():
        assert detector.push(state, 5, x) == detector.push(alone, 0, x)
    assert (state[:5] == 7.0).all()
    assert (state[-5:] == 9.0).all()
    assert np.array_equal(state[5:-5], alone)


@pytest.mark.parametrize("detector", ALL, ids=str)
def test_constants_ring_no_bell(detector):
    assert not len(alarms(detector, np.full(20_000, 0.1)))


# Measured: false alarms in 5 x 20,000 confidences of one condition, and the median delay to blur and noise.
@pytest.mark.parametrize(
    ("detector", "false", "late"),
    [(CUSUM(), 0, 160), (PageHinkley(), 1, 110), (ADWIN(), 1, 180), (GLR(), 1, 130), (TwoWindow(), 1, 180)],
    ids=str,
)
def test_false_alarms_and_delay_on_real_confidences(real, detector, false, late):
    clear, rang, delays = real("pristine"), 0, []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rang += len(alarms(detector, rng.choice(clear, 20_000)))
    assert rang <= false
    for condition in ("blur 1.0", "noise 20"):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            values = np.concatenate([rng.choice(clear, 2_000), rng.choice(real(condition), 1_000)])
            found = alarms(detector, values)
            assert len(found[found >= 2_000]) >= 1, "each of these changes is found"
            delays.append(found[found >= 2_000][0] - 2_000)
    assert np.median(delays) <= late


def test_a_fading_sum_rings_by_itself(real):
    """Why alpha is 1 here: with .9999 the same threshold rings although nothing changes."""
    rng = np.random.default_rng(0)
    values = rng.choice(real("pristine"), 100_000)
    assert len(alarms(PageHinkley(alpha=0.9999), values)) >= 3
    assert len(alarms(PageHinkley(), values)) == 0


def test_the_published_slack_of_cusum_is_within_its_own_error(real):
    rng = np.random.default_rng(0)
    values = rng.choice(real("pristine"), 100_000)
    published = CUSUM(warmup=100, slack=0.01, threshold=math.log(20_000 / 5))
    assert len(alarms(published, values)) >= 10


def test_numbers_outside_the_unit_interval_break_no_detector():
    values = np.concatenate([np.full(500, -3.0), np.full(500, 5.0)])
    for detector in (*ALL, GLR(variance=None)):
        assert len(alarms(detector, values)) >= 1


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (CUSUM, {"warmup": 0}, "warmup is 0, allowed is a whole number >= 1"),
        (CUSUM, {"threshold": 0.0}, "threshold is 0.0, allowed is a finite number > 0"),
        (PageHinkley, {"alpha": 0.0}, r"alpha is 0.0, allowed is a number in \(0, 1\]"),
        (PageHinkley, {"mode": "left"}, "mode is 'left', allowed are"),
        (PageHinkley, {"min_instances": 0}, "min_instances is 0"),
        (ADWIN, {"delta": 1.0}, r"delta is 1.0, allowed is a number in \(0, 1\)"),
        (ADWIN, {"clock": 0}, "clock is 0, allowed is a whole number >= 1"),
        (GLR, {"delta": 0.0}, "delta is 0.0"),
        (GLR, {"stride": 0}, "stride is 0"),
        (GLR, {"window": 105}, "window is 105, allowed is a multiple of stride, from 20 on"),
        (GLR, {"variance": 0.0}, "variance is 0.0, allowed is a finite number > 0"),
        (TwoWindow, {"older": 1}, "older is 1, allowed is a whole number >= 2"),
        (TwoWindow, {"z": -1.0}, "z is -1.0"),
    ],
)
def test_what_is_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**change)


def test_a_stream_is_one_row_of_finite_numbers():
    for values in ([[0.1, 0.2]], [0.1, math.nan]):
        with pytest.raises(ValueError, match="values have shape"):
            alarms(CUSUM(), values)
