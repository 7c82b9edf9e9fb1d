"""Calibration finds what was made wrong, harms nothing by its own measure, and does for offloading what papers say.

The checks of section headings 4 to 6 take any logits: the fixture `logits` names the sets that they run on.
"""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.environments.logits import LogitTable
from offramp.environments.offloading import LINKS, answers, latency, shares
from offramp.environments.outage import inference_outage, missed_deadline
from offramp.environments.reliability import auroc, brier, ece
from offramp.models.calibrate import (
    Temperature,
    best_temperature,
    fit_global,
    fit_temperature,
    likelihood_loss,
    temperature_tables,
)
from offramp.models.calibration_maps import fit_isotonic, fit_vector
from offramp.models.data import normalise
from offramp.models.fitting_set import FITTED_ON, CalibrationError, top
from offramp.models.network import mobilenet_v2_exits
from offramp.models.weights import HERE, load_weights

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"
FACTORS = (2.5, 0.7, 1.7)  # of the exits of `known`
STRENGTHS = (1.2, 1.2, 1.2)  # of the evidence that each exit adds


def known(n, seed, factors=FACTORS):
    """Logits of exits that each see all that earlier ones saw and say it exactly, times a factor of their own.

    Evidence strength * onehot(label) + normal noise has the exact posterior softmax(strength * evidence), and keeps it
    on any samples chosen by earlier exits: the temperature to find is the factor, whatever is fitted on.
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 6, n)
    steps = [s * (s * np.eye(6)[label] + rng.normal(size=(n, 6))) for s in STRENGTHS]
    exact = np.cumsum(steps, axis=0)
    return np.stack([f * z for f, z in zip(factors, exact, strict=True)], axis=1), label


@pytest.fixture(scope="module")
def pictures(embedded):
    """What the shipped network says about 200 CIFAR-10 test images, (200, 7, 10), and their labels."""
    torch.set_num_threads(1)
    network = mobilenet_v2_exits()
    load_weights(network, HERE / "mobilenet_v2_cifar10.safetensors")
    network.eval()
    sheet = np.asarray(Image.open(SHEET))
    images = np.ascontiguousarray(sheet.reshape(10, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(200, 32, 32, 3))
    with torch.no_grad():
        made = network(normalise(images)).numpy()
    return made, embedded.part("test").label[:200]


@pytest.fixture(scope="module")
def committed():
    """The coarse logits of the shipped network: of a condition, an expert and a split, with the labels."""
    return LogitTable.embedded("mobilenet_v2_cifar10").of


@pytest.fixture(params=["200 pictures", "known", "pristine", "blur 1.0", "noise 25.5"])
def logits(request, pictures):
    if request.param == "known":
        return known(4000, 0)
    if request.param == "200 pictures":
        return pictures
    return request.getfixturevalue("committed")(request.param, request.param.split()[0], "validation")


def plain(exits):
    return Temperature(temperature=np.ones(exits), samples=np.zeros(exits, dtype=np.int64))


def loss(z, y):
    return np.array([likelihood_loss(np.asarray(z[:, i], dtype=np.float64), y) for i in range(z.shape[1])])


def error(found, z, y):
    confidence, prediction = found.confidence(z)
    return ece(confidence, prediction == y[:, None])


# Finding what was made wrong


@pytest.mark.parametrize("on", FITTED_ON)
def test_a_known_temperature_is_recovered(on):
    z, y = known(20_000, 1)
    found = fit_temperature(z, y, on=on, target=0.7)
    assert np.allclose(found.temperature, FACTORS, rtol=0.07)
    assert (error(found, z, y) < 0.02).all()
    assert (found.samples[1:] < len(y)).all() == (on != "all")


def test_the_bounded_search_finds_the_minimum_of_a_fine_grid(pictures):
    z, y = pictures
    grid = np.geomspace(1 / 20, 20, 801)
    found = fit_temperature(z, y, on="all").temperature
    for i, t in enumerate(found[:3]):
        own = z[:, i].astype(np.float64)
        losses = [likelihood_loss(own / g, y) for g in grid]
        assert t == pytest.approx(grid[int(np.argmin(losses))], rel=8e-3)
        assert likelihood_loss(own / t, y) <= min(losses) + 1e-12


def test_one_temperature_for_all_is_that_of_the_logits_pooled(pictures):
    z, y = pictures
    one = fit_global(z, y)
    pooled = fit_temperature(z.reshape(-1, 1, z.shape[2]), np.repeat(y, z.shape[1]), on="all")
    assert np.allclose(one.temperature, pooled.temperature[0], rtol=0, atol=1e-12)
    assert one.temperature.shape == (z.shape[1],)
    z, y = known(20_000, 2, factors=(3.0, 3.0, 3.0))
    for on in ("all", "fired"):
        assert np.allclose(fit_global(z, y, on=on, target=0.9).temperature, 3.0, rtol=0.05)


def test_fired_takes_each_sample_once_at_the_exit_that_answers_it(pictures):
    z, y = pictures
    confidence = top(z.astype(np.float64))[0]
    fired = [next((i for i in range(7) if row[i] >= 0.8), 6) for row in confidence]
    chosen = z[np.arange(200), fired][:, None]
    expected = fit_temperature(chosen, y, on="all").temperature[0]
    assert np.allclose(fit_global(z, y, on="fired", target=0.8).temperature, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_fitting_sets_are_those_of_a_cascade_run_by_hand(pictures, target):
    z, y = pictures
    raw = top(z.astype(np.float64))[0]
    exiting = fit_temperature(z, y, on="exiting", target=target, fewest=1)
    left = np.ones(200, dtype=bool)
    for i in range(7):
        leaves = left & (raw[:, i] >= target) if i < 6 else left
        assert exiting.samples[i] == leaves.sum()
        left &= ~leaves
    reaching = fit_temperature(z, y, on="reaching", target=target, fewest=1)
    calibrated = reaching.confidence(z)[0]
    left = np.ones(200, dtype=bool)
    for i in range(7):
        assert reaching.samples[i] == left.sum()
        if left.any():
            assert reaching.temperature[i] == best_temperature(z[left, i].astype(np.float64), y[left])
        left &= calibrated[:, i] < target


def test_an_exit_with_too_few_samples_keeps_what_was_given_and_says_so(pictures):
    z, y = pictures
    found = fit_temperature(z, y, on="exiting", target=0.8, fewest=50, otherwise=1.5)
    kept = found.samples == 0
    assert kept.any()
    assert not kept.all()
    assert (found.temperature[kept] == 1.5).all()
    assert (found.temperature[~kept] != 1.5).all()
    for fit in (fit_vector, fit_isotonic):
        left = fit(z, y)  # 200 samples are too few for these
        assert (left.samples == 0).all()
        assert np.allclose(left.confidence(z)[0], top(z.astype(np.float64))[0], rtol=0, atol=1e-12)


def test_tables_of_a_cache(pictures):
    z, y = known(3000, 3)
    hot, _ = known(3000, 3, factors=(5.0, 1.4, 3.4))
    tables = temperature_tables([(z, y), (hot, y)], on="all")
    assert {k: v.shape for k, v in tables.items()} == {"global": (2, 3), "exit": (2, 3), "expert_exit": (2, 3)}
    assert np.ptp(tables["global"]) == 0.0
    assert (tables["exit"][0] == tables["exit"][1]).all()
    assert np.allclose(tables["expert_exit"][1], 2 * tables["expert_exit"][0], rtol=1e-3)
    both = Temperature(temperature=tables["expert_exit"][:, None], samples=np.zeros((2, 1, 3), dtype=np.int64))
    confidence, prediction = both.confidence(np.stack([z, hot]))
    assert confidence.shape == prediction.shape == (2, 3000, 3)
    assert np.allclose(confidence[0], confidence[1], atol=1e-3)
    with pytest.raises(CalibrationError, match=r"experts have logits of \[\(3, 6\), \(7, 10\)\]"):
        temperature_tables([(z, y), pictures])


# 4: a temperature changes no prediction, no order of classes, and no likelihood for the worse


@pytest.mark.parametrize("on", FITTED_ON)
def test_no_prediction_and_no_order_of_classes_changes(logits, on):
    z, y = logits
    for found in (fit_temperature(z, y, on=on, fewest=20), fit_global(z, y)):
        assert np.array_equal(found.confidence(z)[1], z.argmax(axis=2))
        made, order = found.apply(z), np.argsort(z, axis=2, kind="stable")
        assert (np.diff(np.take_along_axis(made, order, axis=2), axis=2) >= 0.0).all()


def test_likelihood_on_the_fitting_set_never_falls(logits):
    z, y = logits
    found = fit_temperature(z, y, on="all")
    assert (loss(found.apply(z), y) <= loss(z, y)).all()
    one = fit_global(z, y)
    assert loss(one.apply(z), y).mean() <= loss(z, y).mean() + 1e-12
    vector = fit_vector(z, y, on="all", fewest=200)
    assert (loss(vector.apply(z), y) <= loss(found.apply(z), y) + 1e-12).all()
    assert (loss(vector.apply(z), y) < loss(found.apply(z), y)).any()


def test_order_of_samples_may_change_where_there_are_more_than_two_classes():
    """One near rival against four that are farther: what is often said, that a temperature keeps it, is not so."""
    one, four = [2.0, 0.0, -20.0, -20.0, -20.0], [2.5, 0.0, 0.0, 0.0, 0.0]
    z = np.array([[one], [four]])
    for t, surer in ((0.2, 1), (1.0, 0)):
        found = Temperature(temperature=np.array([t]), samples=np.array([1]))
        assert found.confidence(z)[0][:, 0].argmax() == surer


# 5: what calibration is for


def test_an_overconfident_network_offloads_more_and_fails_less():
    """Edge share down, edge accuracy up, outage down; the drop of missed deadlines to the right, its plateau down."""
    z, y = known(6000, 4, factors=(3.0, 3.0, 3.0))
    held, truth = known(6000, 5, factors=(3.0, 3.0, 3.0))
    check_what_calibration_is_for(fit_temperature(z, y, target=0.8), held, truth, target=0.8)


@pytest.mark.parametrize("target", [0.6, 0.7, 0.8, 0.9])
def test_so_does_the_shipped_network(committed, target):
    found = fit_temperature(*committed("pristine", "pristine", "validation"), on="all")
    check_what_calibration_is_for(found, *committed("pristine", "pristine", "test"), target=target)


def check_what_calibration_is_for(found, z, y, target, edge_exits=2):
    """Of a network whose edge exits are overconfident on held-out logits."""
    deadlines = np.arange(0.0, 300.0, 2.0)
    measured = []
    for calibration in (plain(z.shape[1]), found):
        confidence, prediction = calibration.confidence(z)
        right = prediction == y[:, None]
        who = answers(confidence, right, target, edge_exits=edge_exits)
        times = latency(who, edge_ms=[5.0] * edge_exits, cloud_ms=2.0, payload_bytes=8192, link=LINKS["fremont"])
        missed = missed_deadline(who, times, deadlines, shares(who).accuracy, rounds=20).mean
        level = missed_deadline(who, times, deadlines, middle_of(z, y, found, target, edge_exits), rounds=20).mean
        drop = deadlines[np.argmax(missed < 0.5 * (missed[0] + missed[-1]))]
        measured.append((shares(who), inference_outage(who, target, rounds=20).mean, drop, level[-1]))
    (before, outage, drop, plateau), (after, new_outage, new_drop, new_plateau) = measured
    assert after.edge_probability < before.edge_probability
    assert after.edge_accuracy > before.edge_accuracy
    assert new_outage < outage or outage == 0.0
    assert new_drop > drop
    assert new_plateau < plateau


def middle_of(z, y, found, target, edge_exits):
    """An accuracy to ask for between those without and with calibration: elsewhere both plateaus may be 0 or 1."""
    both = []
    for calibration in (plain(z.shape[1]), found):
        confidence, prediction = calibration.confidence(z)
        both.append(shares(answers(confidence, prediction == y[:, None], target, edge_exits=edge_exits)).accuracy)
    return sum(both) / 2


# 6: whom one fits on


def check_fitting_sets(z, y, target, worse=0.02, fewest=200):
    """Fitted on those that exit, some early exit is worse over all samples than without; on survivors, none is."""
    before = error(plain(z.shape[1]), z, y)
    exiting = error(fit_temperature(z, y, on="exiting", target=target, fewest=1), z, y) - before
    reaching = error(fit_temperature(z, y, on="reaching", target=target, fewest=fewest), z, y) - before
    assert exiting[:-1].max() > worse
    assert reaching[:-1].max() < 0.5 * worse


def test_exits_fitted_on_whom_they_answer_get_worse_over_all(pictures):
    check_fitting_sets(*pictures, target=0.99, fewest=20)


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.99])
def test_so_do_those_of_the_shipped_network(committed, target):
    """From the default target on; at .5 and .6 whom its early exits answer are nearly all, and little is spoilt."""
    check_fitting_sets(*committed("pristine", "pristine", "validation"), target=target)


# Beyond one temperature


def test_vector_scaling_finds_a_scale_and_a_bias():
    z, y = known(20_000, 6)
    scale, bias = np.array([0.5, 2.0, 1.0, 1.5, 0.7, 1.2]), np.array([1.0, -1.0, 0.0, 2.0, 0.5, -0.5])
    bent = (z - bias) / scale
    found = fit_vector(bent, y, on="all", penalty=0.0)
    for i, factor in enumerate(FACTORS):
        assert np.allclose(found.scale[i] * factor, scale, atol=0.12)
        shift = found.bias[i] * factor - bias  # a bias common to all classes says nothing
        assert np.allclose(shift - shift.mean(), 0.0, atol=0.25)
    assert (error(found, bent, y) < 0.02).all()
    stiff = fit_vector(bent, y, on="all", penalty=1e6)
    temperature = fit_temperature(bent, y, on="all").temperature
    assert np.allclose(stiff.scale, 1 / temperature[:, None], rtol=1e-3)
    assert np.allclose(stiff.bias, 0.0, atol=1e-3)


def test_isotonic_is_a_rising_map_that_fits_better_than_none(logits):
    z, y = logits
    found = fit_isotonic(z, y, on="all", fewest=200)
    raw, prediction = top(np.asarray(z, dtype=np.float64))
    confidence, same = found.confidence(z)
    right = prediction == y[:, None]
    assert np.array_equal(same, prediction)
    assert (brier(confidence, right) <= brier(raw, right) + 1e-3).all()
    for i, (a, b) in enumerate(itertools.pairwise(found.start)):
        assert (np.diff(found.knot[a:b]) > 0.0).all()
        assert (np.diff(found.value[a:b]) > 0.0).all()
        order = np.argsort(raw[:, i])
        assert (np.diff(confidence[order, i]) >= 0.0).all()
    assert (np.abs(auroc(confidence, right) - auroc(raw, right)) < 0.05).all()


def test_isotonic_levels_are_the_least_squares_fit():
    """Pooled by hand: (0.5: 0), (0.6: 1), (0.7: 0), (0.8: 1), 50 each; the middle two become one level of 1/2."""
    confidence, right = np.repeat([0.5, 0.6, 0.7, 0.8], 50), np.repeat([0, 1, 0, 1], 50)
    z = np.log(np.stack([confidence, 1 - confidence], axis=1))[:, None]
    z[:50, :, 0] += 1e-9  # a tie is not the question here
    found = fit_isotonic(z, 1 - right, on="all", fewest=1)
    assert np.allclose(found.knot, [0.5, 0.65, 0.8])
    assert np.allclose(found.value, [0.0, 0.5, 1.0])


# What cannot be fitted


def test_what_is_wrong_is_named():
    z, y = known(300, 7)
    spoilt = z.copy()
    spoilt[4, 1, 2] = math.nan
    endless = z.copy()
    endless[0, 0, 0] = math.inf
    for bad_z, bad_y, message in (
        (z[:199], y[:199], "logits are of 199 samples, allowed are 200 or more"),
        (z, np.ones_like(y), "labels are all 1, allowed are at least two classes"),
        (spoilt, y, r"logits\[4, 1, 2\] is nan, allowed is a finite number"),
        (endless, y, r"logits\[0, 0, 0\] is inf"),
        (z[:, 0], y, r"logits have shape \(300, 6\), allowed is \(samples, exits, classes >= 2\)"),
        (z[:, :, :1], y, r"logits have shape \(300, 3, 1\)"),
        (z, y[:-1], r"labels have shape \(299,\), allowed is \(300,\)"),
        (z, np.where(y == 5, 6, y), r"labels hold 6, allowed is a whole number in 0\.\.5"),
        (z, y + 0.5, r"labels hold \d\.5"),
        (z.astype(str), y, "logits have type"),
    ):
        for fit in (fit_temperature, fit_global, fit_vector, fit_isotonic):
            with pytest.raises(CalibrationError, match=message):
                fit(bad_z, bad_y)
    for target in (0.0, 1.0, -1.0, math.nan):
        for fit in (fit_temperature, fit_global, fit_vector, fit_isotonic):
            with pytest.raises(CalibrationError, match=r"target is .*, allowed is a number in \(0, 1\)"):
                fit(z, y, target=target)
    for call, message in (
        (lambda: fit_temperature(z, y, on="fired"), "on is 'fired', allowed are"),
        (lambda: fit_global(z, y, on="reaching"), "on is 'reaching', allowed are"),
        (lambda: fit_temperature(z, y, fewest=0), "fewest is 0"),
        (lambda: fit_temperature(z, y, otherwise=0.0), r"otherwise is 0\.0"),
        (lambda: fit_vector(z, y, penalty=-1.0), r"penalty is -1\.0"),
        (lambda: plain(3).apply(spoilt), "logits"),
        (lambda: fit_isotonic(z, y).confidence(z[:, :2]), r"logits give \(300, 2\), allowed is \(samples, 3 exits\)"),
        (lambda: Temperature(temperature=np.array([0.0]), samples=np.array([1])), r"temperature is 0\.0"),
    ):
        with pytest.raises(CalibrationError, match=message):
            call()
