"""Estimates of a link: what each says by hand, and that they stay within what was seen."""

import math

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as some

from offramp.bandits.kernel import HAVE_NUMBA, compile_here
from offramp.environments.link_estimate import EWMA, HarmonicMean, LastThroughput, push, rate, round_trip

KINDS = (LastThroughput(), EWMA(weight=0.3), HarmonicMean(window=3), HarmonicMean(window=1), EWMA(weight=1.0))
TRANSFERS = some.lists(
    some.tuples(some.floats(1.0, 1e8), some.floats(0.01, 1e6), some.floats(0.0, 1e3)), min_size=1, max_size=12
)


def seen(spec, *transfers):
    estimate = spec.initial()
    for transfer in transfers:
        push(estimate, *transfer)
    return rate(estimate), round_trip(estimate)


def test_by_hand():
    transfers = [(1_000.0, 1.0, 10.0), (1_000.0, 2.0, 20.0), (1_000.0, 5.0, 60.0)]  # 1,000, 500 and 200 bytes per ms
    assert seen(LastThroughput(), *transfers) == (200.0, 60.0)
    assert seen(EWMA(weight=0.5), *transfers) == (0.5 * 200.0 + 0.5 * 750.0, 37.5)
    assert seen(HarmonicMean(window=3), *transfers) == pytest.approx((3_000.0 / 8.0, 30.0))
    assert seen(HarmonicMean(window=2), *transfers) == pytest.approx((2_000.0 / 7.0, 40.0))
    assert seen(HarmonicMean(window=2), *transfers, transfers[0]) == pytest.approx((2_000.0 / 6.0, 35.0))


@pytest.mark.parametrize("kind", [LastThroughput, EWMA, HarmonicMean])
def test_the_prior_holds_until_the_first_transfer_and_no_longer(kind):
    spec = kind(mbit_s=4.0, round_trip_ms=70.0)
    assert seen(spec) == (500.0, 70.0)
    assert seen(spec, (100.0, 4.0, math.nan)) == (25.0, 70.0)
    assert seen(spec, (100.0, 4.0, math.nan), (0.0, 0.0, 30.0)) == (25.0, 30.0)


@pytest.mark.parametrize("spec", KINDS)
@pytest.mark.parametrize(("n_bytes", "ms"), [(0.0, 5.0), (10.0, 0.0), (10.0, math.inf), (10.0, math.nan), (-1.0, 1.0)])
def test_a_transfer_that_says_nothing_changes_nothing(spec, n_bytes, ms):
    estimate = spec.initial()
    push(estimate, 500.0, 2.0, 8.0)
    before = estimate.copy()
    for trip in (math.nan, math.inf, -1.0):
        push(estimate, n_bytes, ms, trip)
    assert estimate.tobytes() == before.tobytes()


@settings(deadline=None)
@given(transfers=TRANSFERS, which=some.integers(0, len(KINDS) - 1))
def test_an_estimate_lies_within_what_was_seen_and_keeps_its_size(transfers, which):
    estimate = KINDS[which].initial()
    size = estimate.shape
    for transfer in transfers:
        push(estimate, *transfer)
    rates, trips = [n / ms for n, ms, _ in transfers], [trip for _, _, trip in transfers]
    assert estimate.shape == size
    assert min(rates) * (1 - 1e-9) <= rate(estimate) <= max(rates) * (1 + 1e-9)
    assert min(trips) - 1e-9 <= round_trip(estimate) <= max(trips) + 1e-9
    if which in (0, 3, 4):  # three names of the last transfer
        assert rate(estimate) == pytest.approx(rates[-1], rel=1e-12)


def test_two_estimates_of_one_spec_share_nothing():
    spec = HarmonicMean()
    first, second = spec.initial(), spec.initial()
    push(first, 1.0, 1.0, 1.0)
    assert rate(second) == 1_250.0


def _walk(estimate, n_bytes, ms, trips, out):
    for k in range(len(ms)):
        push(estimate, n_bytes[k], ms[k], trips[k])
        out[k, 0], out[k, 1] = rate(estimate), round_trip(estimate)


@pytest.mark.skipif(not HAVE_NUMBA, reason="nothing is compiled")
def test_compiled_and_plain_agree_to_the_last_bit():
    rng = np.random.default_rng(0)
    walk = compile_here(_walk)
    given = rng.uniform(1.0, 1e6, 80), rng.uniform(1.0, 1e3, 80), rng.uniform(1.0, 1e2, 80)
    given[1][7], given[2][9], given[0][11] = math.inf, math.nan, 0.0
    for spec in KINDS:
        plain, fast = np.empty((80, 2)), np.empty((80, 2))
        _walk(spec.initial(), *given, plain)
        walk(spec.initial(), *given, fast)
        assert plain.tobytes() == fast.tobytes()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LastThroughput(mbit_s=0.0), "mbit_s is 0, allowed is a rate > 0"),
        (lambda: EWMA(mbit_s=math.nan), "mbit_s is nan"),
        (lambda: EWMA(weight=0.0), r"weight is 0.0, allowed is a number in \(0, 1\]"),
        (lambda: EWMA(weight=1.1), "weight is 1.1"),
        (lambda: EWMA(round_trip_ms=-1.0), "round_trip_ms is -1.0"),
        (lambda: HarmonicMean(window=0), "window is 0"),
        (lambda: HarmonicMean(window=2.0), "window is 2.0, allowed is a whole number"),
        (lambda: HarmonicMean(window=True), "window is True"),
        (lambda: HarmonicMean(window=1_001), "window is 1001"),
    ],
)
def test_what_is_no_estimate_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_every_file_of_the_group_is_an_estimate():
    with initialize_config_module("offramp.conf", version_base=None):
        specs = [instantiate(compose(f"estimate/{name}").estimate) for name in ("last", "ewma", "harmonic_mean")]
    assert specs == [LastThroughput(), EWMA(), HarmonicMean()]
