"""Thresholds with a guarantee: by hand, against exact arithmetic, and over 200 random splits of the embedded cache."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import risk
from offramp.bandits.risk import GRID, LOSSES, METHODS, binomial_tail, by_group, losses, pick, threshold, worst

SPLITS, EPS, DELTA = 200, 0.05, 0.1


@pytest.fixture(scope="module")
def facts(embedded):
    """Confidence, prediction and label of the test part, by condition; and a mixture, one condition for each image."""
    test = embedded.part("test")
    names = [c.name for c in test.conditions]
    confidence, prediction = test.confidence[:, 0], test.prediction[:, 0]
    found = {name: (confidence[s], prediction[s], test.label) for s, name in enumerate(names)}
    each = np.random.default_rng(0).integers(len(names), size=len(test.label)), np.arange(len(test.label))
    found["mixture"] = confidence[each], prediction[each], test.label
    return found


def risks_of(calibration, test, *, method, n, splits=SPLITS):
    """Risk, on the rest of each split, of the threshold chosen on n; the rest may come under another condition."""
    found = np.zeros(splits)
    for i in range(splits):
        order = np.random.default_rng(i).permutation(len(calibration))
        chosen = pick(calibration[order[:n]], method=method, eps=EPS, delta=DELTA)
        if chosen.value < math.inf:
            found[i] = test[order[n:], GRID.index(chosen.value)].mean()
    return found


def above(risks):
    return risks.mean() - 2 * risks.std() / math.sqrt(len(risks)), (risks > EPS).mean()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["pristine", "mixture"])
def test_over_200_random_splits(facts, name, loss):
    """CRC holds on average, UCB and LTT in a share 1 - delta of splits (two standard errors each), naive does not."""
    table = losses(*facts[name], loss=loss)
    allowed = DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / SPLITS)
    assert above(risks_of(table, table, method="crc", n=1_000))[0] <= EPS
    for method in ("ucb", "ltt"):
        risks = risks_of(table, table, method=method, n=1_000)
        assert above(risks)[1] <= allowed
        assert risks.mean() > EPS / 2, "the guarantee is held by using what it allows"
    if (name, loss) != ("mixture", "consistency"):  # there one step of the grid leaps over eps, and all stop before it
        assert above(risks_of(table, table, method="naive", n=1_000))[1] > allowed


@pytest.mark.parametrize("loss", LOSSES)
def test_naive_exceeds_on_average_what_crc_holds(facts, loss):
    """With 200 samples the correction of CRC is visible in the mean."""
    table = losses(*facts["pristine"], loss=loss)
    naive, crc = (risks_of(table, table, method=m, n=200, splits=600) for m in ("naive", "crc"))
    assert above(naive)[0] > EPS
    assert above(crc)[0] <= EPS


def test_no_guarantee_under_another_condition_and_its_return_by_condition(facts):
    """Calibrated on clear images every split fails on blurred ones; calibrated on those it holds again."""
    clear, blurred = (losses(*facts[name]) for name in ("pristine", "blur 1.0"))
    assert (risks_of(clear, blurred, method="ucb", n=1_000, splits=50) > EPS).all()
    held = risks_of(blurred, blurred, method="ucb", n=1_000)
    assert above(held)[1] <= DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / SPLITS)


def test_by_condition_and_worst(facts):
    names = ("pristine", "noise 20", "blur 1.0")
    parts = [np.concatenate([facts[name][k][:1_000] for name in names]) for k in range(3)]
    found = by_group(*parts, group=np.repeat(names, 1_000))
    for name in names:
        assert found[name] == threshold(*(x[:1_000] for x in facts[name]))
    assert worst(found).value == max(f.value for f in found.values()) > found["pristine"].value
    apart = by_group(*parts, group=[name for name in names for _ in range(1_000)], loss="prediction_gap", method="ltt")
    assert list(apart) == list(names)
    with pytest.raises(ValueError, match=r"group 'few': there are 3 samples, allowed is 200 or more"):
        by_group(*parts, group=["many"] * 2_997 + ["few"] * 3)
    with pytest.raises(ValueError, match="group has 5 entries"):
        by_group(*parts, group=["a"] * 5)
    with pytest.raises(ValueError, match="no group"):
        worst({})


def few(rows, n=200):
    """The rows repeated up to n samples, as an array."""
    return np.array([rows[i % len(rows)] for i in range(n)])


def test_losses_by_hand():
    confidence = few([(0.5, 0.8, 0.3), (0.9, 0.2, 0.6)])
    prediction, label = few([(1, 2, 0), (3, 4, 5)]), few([0, 3])
    grid = (1.0, 0.9, 0.8, 0.5, 0.2)
    assert losses(confidence, prediction, grid=grid)[:2].tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]
    gap = losses(confidence, prediction, label, loss="prediction_gap", grid=grid)
    assert gap[:2].tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], "right where the last exit is wrong costs nothing"
    sames = few([(1, 2, 1), (1, 2, 2)])
    assert losses(few([(0.5, 0.8, 0.3)]), sames, grid=grid)[:2].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize("method", METHODS)
def test_the_first_gap_ends_the_search(method):
    """A threshold below one that fails is never taken, however well it does."""
    table = np.zeros((400, 5))
    table[:, 2] = np.arange(400) % 2
    found = pick(table, method=method, grid=(1.0, 0.9, 0.8, 0.7, 0.6))
    assert (found.value, found.risk) == (0.9, 0.0)
    assert pick(table[:, 2:], method=method, grid=(0.8, 0.7, 0.6)).value == math.inf


def test_each_method_by_hand():
    """200 samples, k errors: where each method stops."""
    table = np.zeros((200, 12))
    for k in range(12):
        table[:k, k] = 1.0
    grid = tuple(1 - k / 100 for k in range(12))
    order = np.random.default_rng(0).permutation(200)
    errors = {m: grid.index(pick(table[order], method=m, grid=grid).value) for m in METHODS}
    assert errors["naive"] == 10
    assert errors["crc"] == 9, "(k + 1) / 201 <= .05"
    tail = [math.e * exact(200, Fraction(5, 100), k) for k in range(12)]
    hoeffding = [math.exp(-200 * kl(k / 200, 0.05)) for k in range(12)]
    p = [min(a, b) for a, b in zip(tail, hoeffding, strict=True)]
    assert errors["ltt"] == next(k for k in range(12) if p[k] > DELTA) - 1
    found = pick(table[order], method="ltt", grid=grid)
    k = errors["ltt"]
    ruled_out = min(
        math.e * exact(200, Fraction(found.bound), k), math.exp(-200 * kl(k / 200, found.bound))
    )  # at the bound itself the p-value is delta
    assert ruled_out == pytest.approx(DELTA, rel=1e-6)
    assert found.risk == k / 200 < found.bound <= EPS


def test_the_betting_bound_by_hand():
    """The wealth of the recursion, sample by sample, is 1 / delta at the bound."""
    table = (np.random.default_rng(1).random((500, 1)) < 0.02).astype(float)
    found = pick(table, method="ucb", grid=(0.9,))
    best, wealth, total, spread = 0.0, 1.0, 0.5, 0.25
    variance = 0.25
    for i, x in enumerate(table[:, 0], start=1):
        wealth *= 1 - min(1, math.sqrt(2 * math.log(1 / DELTA) / (500 * variance))) * (x - found.bound)
        best = max(best, wealth)
        total += x
        spread += (x - total / (i + 1)) ** 2
        variance = spread / (i + 1)
    assert best == pytest.approx(1 / DELTA, rel=1e-6)
    assert found.risk < found.bound <= EPS


def test_crc_counts_each_samples_largest_loss():
    """A loss that comes and goes would leave the theorem: 8 samples err here, 8 others there."""
    table = np.zeros((200, 2))
    table[:8, 0] = 1.0
    table[8:16, 1] = 1.0
    assert pick(table, method="crc", grid=(0.9, 0.8)).value == 0.9
    assert pick(table, method="naive", grid=(0.9, 0.8)).value == 0.8


def kl(a, b):
    return (a * math.log(a / b) if a else 0.0) + (1 - a) * math.log((1 - a) / (1 - b))


def exact(n, p, k):
    return float(sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 99))
def test_the_binomial_tail_is_exact(n, percent):
    p = Fraction(percent, 100)
    assert binomial_tail(n, float(p)) == pytest.approx([exact(n, p, k) for k in range(n + 1)], rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(METHODS[1:]), st.integers(0, 10_000), st.floats(0.02, 0.2))
def test_a_guarantee_costs_something_and_looser_ones_cost_less(method, seed, eps):
    rng = np.random.default_rng(seed)
    table = (rng.random((300, 1)) < rng.random((300, 1)) * 0.6 * np.linspace(0, 1, len(GRID))).astype(float)
    found = pick(table, method=method, eps=eps)
    assert found.value >= pick(table, method="naive", eps=eps).value
    assert found.risk <= found.bound <= eps
    assert pick(table, method=method, eps=min(0.5, 2 * eps)).value <= found.value


def test_no_early_answer_and_all_early_answers():
    none = pick(np.ones((300, len(GRID))))
    assert none == replace(none, value=math.inf, risk=0.0, bound=0.0, n=300, method="ucb")
    assert pick(np.zeros((1_000, len(GRID)))).value == 0.0


GOOD = (few([(0.5, 0.8), (0.9, 0.2)]), few([(1, 2), (3, 4)]), few([0, 3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": GOOD[0][:199], "prediction": GOOD[1][:199]}, "there are 199 samples, allowed is 200 or more"),
        ({"confidence": np.where(GOOD[0] > 0.85, np.nan, GOOD[0])}, r"confidence\[1, 0\] is nan, allowed"),
        ({"confidence": GOOD[0] + 0.15}, r"confidence\[1, 0\] is 1.05, allowed"),
        ({"confidence": GOOD[0][:, :1], "prediction": GOOD[1][:, :1]}, r"allowed is \(n, L\) twice, L >= 2"),
        ({"prediction": GOOD[1][:, :1]}, r"prediction \(200, 1\), allowed"),
        ({"prediction": GOOD[1] * 1.0}, "prediction has type float64"),
        ({"prediction": GOOD[1] - 2}, "least value -1, allowed are whole numbers >= 0"),
        ({"label": None}, "label is None, allowed are 200 whole numbers: prediction_gap needs them"),
        ({"label": GOOD[2][:7]}, r"label is of shape \(7,\)"),
        ({"label": GOOD[2] * 0}, "label is 0 throughout, allowed are two classes or more"),
        ({"loss": "brier"}, "loss is 'brier', allowed are"),
        ({"method": "bayes"}, "method is 'bayes', allowed are"),
        ({"eps": 0.0}, r"eps is 0.0, allowed is a number in \(0, 1\)"),
        ({"eps": math.nan}, "eps is nan"),
        ({"delta": 1.0}, r"delta is 1.0, allowed is a number in \(0, 1\)"),
        ({"grid": (0.5, 0.9)}, "allowed are finite thresholds, decreasing"),
        ({"grid": ()}, "allowed are finite thresholds, decreasing"),
        ({"grid": (math.inf, 0.9)}, "allowed are finite thresholds, decreasing"),
    ],
)
def test_what_is_refused(change, message):
    good = {**dict(zip(("confidence", "prediction", "label"), GOOD, strict=True)), "loss": "prediction_gap"}
    assert threshold(**good).method == "ucb"
    with pytest.raises(ValueError, match=message):
        threshold(**{**good, **change})


def test_losses_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"losses have shape \(300, 4\), allowed is \(n, 101\) with n >= 200"):
        pick(np.zeros((300, 4)))
    assert risk.LEAST == 200
