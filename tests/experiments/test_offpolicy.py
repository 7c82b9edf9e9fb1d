"""Evaluation from logs: by hand, by enumeration of a small world, on a real store, and what is refused."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from offramp.bandits import (
    EXP3,
    EXP3S,
    Arm,
    EpsilonGreedy,
    Exp3IX,
    Quote,
    RandomArm,
    rows,
)
from offramp.bandits.durable.bounds import value_bounds
from offramp.bandits.reveal import reveal
from offramp.experiments import offpolicy
from offramp.experiments.offpolicy import Log, Logging, evaluate
from offramp.experiments.offpolicy.estimators import Scores, effective, foreseen
from offramp.experiments.offpolicy.intervals import interval, mean, weighted
from offramp.experiments.offpolicy.paths import Delivery, bounds, rule_of
from offramp.experiments.offpolicy.simulated import logged
from offramp.experiments.results import Z95, student

HERE = Path(offpolicy.__file__).parent
INF, NAN = math.inf, math.nan
QUOTE = Quote(edge_cost=[0.0, 0.125, 0.25, 0.5], offload_cost=[0.5, 0.375, 0.25, 0.0], mu=0.5)
RULES = (Arm(0, INF), Arm(1, 0.5), Arm(1, INF), Arm(2, -INF), Arm(2, 0.75), Arm(2, 0.5, (0.75,)), Arm(3, -INF))
MORE = (*RULES, Arm(1, 0.75), Arm(2, INF), Arm(2, 0.25, (0.5,)), Arm(3, -INF, (0.5, 0.5)), Arm(3, -INF, (INF, 0.75)))
WORLDS = tuple(product((0, 1), (0, 1)))  # all heads on the way, all deeper exits
EVERY = [np.array(c) for c in product((0.25, 0.5, 0.75, 1.0), repeat=3)]


def line(arm, truth, *, p=1.0, q=0.0, audit=False, world=(1, 0), quote=QUOTE):
    """Decision and observation row of one request."""
    exits = len(truth)
    decision = quote.row.copy()
    at = rows.thresholds_at(exits)
    decision[rows.CUT], decision[at : at + exits] = arm.cut, rule_of(arm, exits)[1:]
    decision[rows.P_ACTION], decision[rows.P_REVEAL], decision[rows.AUDIT] = p, q, audit
    seen = np.full(rows.prediction_at(exits) + exits, NAN)
    reveal(np.asarray(truth), np.zeros(exits, dtype=int), decision, np.array([*world, 0, 0]), seen)
    return decision, seen


def log_of(lines, **given):
    made = Log.of(*(np.array(part) for part in zip(*lines, strict=True)))
    return Log(**(vars(made) | given))


def value(arm, truth):
    """What a rule earns on a sample, told by its own decision and all that there is to see."""
    decision, _ = line(arm, truth)
    return value_bounds(decision, line(arm, truth, world=(1, 1))[1])[0]


# By hand.

TEN = (  # arm, C_1, stated probability, reward of (1, .5) where it was played: C_1 - .0625, or C_3 - .25
    (Arm(1, 0.5), 0.75, 0.5, 0.6875),
    (Arm(3, -INF), 0.75, 0.5, None),
    (Arm(1, 0.5), 0.25, 0.25, 0.75),
    (Arm(3, -INF), 0.25, 0.75, None),
    (Arm(1, 0.5), 1.0, 0.8, 0.9375),
    (Arm(1, 0.5), 0.5, 0.8, 0.4375),
    (Arm(3, -INF), 0.5, 0.2, None),
    (Arm(1, 0.5), 0.25, 0.5, 0.75),
    (Arm(3, -INF), 0.75, 0.5, None),
    (Arm(1, 0.5), 0.75, 0.4, 0.6875),
)


def test_ips_snips_and_dr_on_ten_lines():
    log = log_of([line(arm, (c, 0.5, 1.0), p=p) for arm, c, p, _ in TEN])
    found = Logging(log).of(rule_of(Arm(1, 0.5), 3))
    w = [1.0 / p if y is not None else 0.0 for _, _, p, y in TEN]
    y = [0.0 if y is None else y for *_, y in TEN]
    assert found.weight.tolist() == w
    assert found.low[found.weight > 0].tolist() == [v for *_, v in TEN if v is not None]
    scores = Scores.of([(1.0, rule_of(Arm(1, 0.5), 3))], log, [found])
    made = scores.estimates()
    ips = [a * b for a, b in zip(w, y, strict=True)]
    assert made["ips"].value == pytest.approx(sum(ips) / 10)
    assert made["ips"].error == pytest.approx(math.sqrt(sum((v - sum(ips) / 10) ** 2 for v in ips) / 9 / 10))
    ratio = sum(ips) / sum(w)
    assert made["snips"].value == pytest.approx(ratio)
    without = [(sum(ips) - v) / (sum(w) - a) for v, a in zip(ips, w, strict=True)]
    jackknife = math.sqrt(sum((ratio - v) ** 2 for v in without) * 9 / 10)
    assert made["snips"].error == pytest.approx(jackknife)
    model = foreseen(rule_of(Arm(1, 0.5), 3), log, found)
    dr = [m + a * (b - m) for m, a, b in zip(model, w, y, strict=True)]
    assert made["dr"].value == pytest.approx(sum(dr) / 10)
    assert "adaptive_dr" not in made  # of what was drawn, the log says one probability
    assert effective(scores.weight) == pytest.approx(sum(w) ** 2 / sum(v * v for v in w))


def test_the_model_by_hand():
    """Before the first line: confidence one half, both ends equally likely; then weighted means, by bins of C_1."""
    log = log_of([line(arm, (c, 0.5, 1.0), p=p) for arm, c, p, _ in TEN])
    found = Logging(log).of(rule_of(Arm(1, 0.5), 3))
    model = foreseen(rule_of(Arm(1, 0.5), 3), log, found)
    answers, offloads = 0.5 * 0.125, 0.5 * (0.125 + 0.375)
    assert model[0] == pytest.approx(0.5 - 0.5 * answers - 0.5 * offloads)
    # Line 2 is in the bin of line 1, which had weight 2: general means first, then those of the bin drawn towards them.
    confidence, answered = (2 * 0.75 + 2 * 0.5) / 4, (2 * 1.0 + 2 * 0.5) / 4
    confidence, answered = (2 * 0.75 + 2 * confidence) / 4, (2 * 1.0 + 2 * answered) / 4
    assert model[1] == pytest.approx(confidence - answered * answers - (1.0 - answered) * offloads)


def test_adaptive_weights_by_hand():
    scores, weight = np.array([1.0, 0.0, 0.5]), np.array([1.0, 2.0, 1.0])
    found = weighted(scores, weight)
    assert found.value == pytest.approx(1.5 / 4.0)
    without = (0.5 / 3.0, 1.5 / 2.0, 1.0 / 3.0)
    assert found.error == pytest.approx(math.sqrt(sum((0.375 - v) ** 2 for v in without) * 2.0 / 3.0))
    assert mean(scores).error == pytest.approx(scores.std(ddof=1) / math.sqrt(3))


# Intervals.


def test_an_interval_knows_how_sure_its_error_is():
    many = mean(np.random.default_rng(0).normal(size=8_000))
    assert many.half == pytest.approx(Z95 * many.error, rel=1e-3)
    few = interval(0.0, np.array([1.0, -1.0] * 8 + [0.0] * 984))  # sixteen outcomes among a thousand requests
    assert few.error == pytest.approx(math.sqrt(16.0 * 0.999))
    assert few.half == pytest.approx(few.error * student(2.0 / (1.0 / 16.0 - 0.001)))
    assert few.half > 1.03 * Z95 * few.error
    assert math.isinf(mean(np.ones(1)).half)
    assert (mean(np.full(9, 0.25)).low, mean(np.full(9, 0.25)).high) == (0.25, 0.25)


def test_few_outcomes_are_covered_where_a_normal_interval_is_not():
    """One in ten of 150 outcomes is revealed, and a model knows their mean."""
    rng, truth, held, plain = np.random.default_rng(0), 8.0 / 9.0, 0, 0
    for _ in range(2_000):
        found = mean(truth + 10.0 * (rng.random(150) < 0.1) * (rng.beta(8.0, 1.0, 150) - truth))
        held += found.covers(truth)
        plain += abs(found.value - truth) <= Z95 * found.error
    assert plain < 1_880  # 94 %
    assert 1_880 <= held <= 1_920
    assert held > plain + 20


def test_outcomes_are_those_of_value_bounds():
    lines = [line(a, c, world=w) for a in RULES for c in EVERY[::5] for w in WORLDS]
    log = log_of(lines)
    for arm in MORE:
        low, high = bounds(rule_of(arm, 3), log)
        for t in range(len(log)):
            one = line(arm, EVERY[0])[0]
            assert value_bounds(one, log.observation[t]) == (low[t], high[t])


# By enumeration: for each sample, the weighted rewards of all that can be drawn sum to what the target earns on it.


@pytest.mark.parametrize("world", WORLDS)
def test_drawn_rules_give_every_sample_its_due(world):
    chance = np.array([0.05, 0.1, 0.15, 0.1, 0.2, 0.25, 0.15])
    lines = [line(a, c, p=p, world=world) for c in EVERY for a, p in zip(RULES, chance, strict=True)]
    rules = np.array([rule_of(a, 3) for a in RULES])
    log = log_of(lines, chance=np.tile(chance, (len(lines), 1)), rules=rules)
    assert Delivery.of(log) == tuple(map(bool, world))
    logging = Logging(log)
    identified = 0
    for arm in MORE:
        found = logging.of(rule_of(arm, 3))
        for s, truth in enumerate(EVERY):
            of = slice(s * len(RULES), (s + 1) * len(RULES))
            due = float(chance @ (found.weight[of] * np.where(found.weight[of] > 0.0, found.low[of], 0.0)))
            assert found.known[of][found.weight[of] > 0.0].all()
            if found.least[of][0] > 0.0:
                assert due == pytest.approx(value(arm, truth)), (arm, truth)
                assert float(chance @ found.weight[of]) == pytest.approx(1.0)
                assert (1.0 / found.weight[of][found.weight[of] > 0.0] >= found.least[of][0] - 1e-12).all()
                identified += 1
    assert identified >= len(EVERY) * len(RULES)  # all that is drawn, and more in worlds that show more


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("played", MORE)
def test_audited_rules_give_every_sample_its_due(world, played):
    q = 0.25
    lines = [line(played, c, q=q, audit=a, world=world) for c in EVERY for a in (True, False)]
    log = log_of(lines)
    logging = Logging(log)
    for arm in MORE:
        found = logging.of(rule_of(arm, 3))
        for s, truth in enumerate(EVERY):
            w, y = found.weight[2 * s : 2 * s + 2], found.low[2 * s : 2 * s + 2]
            total = q * w[0] + (1.0 - q) * w[1]
            assert total == pytest.approx(1.0) or (total == 0.0 and found.least[2 * s] == 0.0)
            if total:
                due = q * w[0] * y[0] + (1.0 - q) * (w[1] * y[1] if w[1] else 0.0)
                assert due == pytest.approx(value(arm, truth)), (arm, truth)
    assert Logging(log).of(rule_of(played, 3)).weight.tolist() == [1.0] * len(lines)


def test_what_a_play_reveals_by_luck_does_not_count():
    """(2, .75) tells of "send from 1" wherever it offloads: counting that alone would take hard samples for all."""
    chance = np.array([0.5, 0.5])
    arms = Arm(2, 0.75), Arm(3, -INF)
    lines = [line(a, c, p=0.5) for c in EVERY for a in arms]
    log = log_of(lines, chance=np.tile(chance, (len(lines), 1)), rules=np.array([rule_of(a, 3) for a in arms]))
    found = Logging(log).of(rule_of(Arm(1, INF), 3))
    assert found.weight[::2].tolist() == [0.0] * len(EVERY)
    assert found.known[::2].mean() == 0.5
    assert (found.chance[1::2] == 0.5).all()


def test_the_model_and_its_weights_know_the_past_alone(small):
    arrays = small.arrays(("clear", "foggy"), (1.0,))
    log = logged(EpsilonGreedy(epsilon=0.4, thresholds=(0.5, 0.8)), small.arms, arrays, requests=300, seed=1)
    other = log.observation.copy()
    other[150:, rows.CONFIDENCE : rows.CONFIDENCE + 4] *= 0.5
    changed = Log(**(vars(log) | {"observation": other}))
    r = rule_of(Arm(2, -INF), 4)
    a, b = (Logging(one).of(r) for one in (log, changed))
    assert np.array_equal(a.scarcity[:151], b.scarcity[:151])
    drawn = log.chance.copy()
    drawn[150:] = 1.0 / drawn.shape[1]  # as if the price of request 151 had been another one
    priced = Logging(Log(**(vars(log) | {"chance": drawn}))).of(r)
    assert np.array_equal(a.scarcity[:151], priced.scarcity[:151])
    assert not np.array_equal(a.scarcity[151:], priced.scarcity[151:])
    assert np.array_equal(foreseen(r, log, a)[:150], foreseen(r, changed, b)[:150])
    assert not np.array_equal(a.low, b.low)


# Probabilities recomputed from the log.


@pytest.mark.parametrize(
    "policy",
    [EpsilonGreedy(epsilon=0.3, decay=2.0), EXP3(gamma=0.3), EXP3S(), Exp3IX(share=0.05, memory=4), RandomArm()],
    ids=lambda p: type(p).__name__,
)
def test_the_distribution_follows_from_the_log(policy, small):
    arrays = small.arrays(("clear",), (0.5, 2.0))
    log = logged(policy, small.arms, arrays, requests=120, seed=3)
    assert log.why == ""
    assert np.allclose(log.chance.sum(axis=1), 1.0)
    at = [int(np.flatnonzero((log.rules == rule).all(axis=1))[0]) for rule in log.played]
    assert np.allclose(log.chance[np.arange(120), at], log.decision[:, rows.P_ACTION], rtol=1e-9)


# Refusals.


def test_what_was_not_offered_has_no_value():
    dear = Quote(edge_cost=[0.0, 0.125, 0.25, 0.5], offload_cost=[INF, INF, 0.25, 0.0], mu=0.5)
    log = log_of([line(Arm(2, 0.5), c, quote=dear) for c in EVERY])
    assert "was not offered (quoted at +inf) on" in evaluate([(1.0, Arm(1, 0.5))], log).refusal
    assert evaluate([(1.0, Arm(2, 0.5))], log).refusal == ""


def test_too_few_chances_and_wrong_probabilities_are_noticed():
    rng = np.random.default_rng(1)
    draws = [EVERY[i] for i in rng.integers(len(EVERY), size=400)]
    rare = log_of([line(Arm(1, 0.5), c, q=0.01, audit=t % 100 == 0) for t, c in enumerate(draws)])
    assert "outcomes were revealed by chance, allowed are 15 or more" in evaluate([(1.0, Arm(1, INF))], rare).refusal
    arms = Arm(1, 0.5), Arm(3, -INF)
    lied = log_of([line(arms[i], c, p=0.25) for i, c in zip(rng.integers(2, size=400), draws, strict=True)])
    assert "the weights have a mean of" in evaluate([(1.0, arms[1])], lied).refusal


def test_logs_and_targets_that_are_none():
    with pytest.raises(ValueError, match="holds no feedback"):
        Log.of(np.zeros((0, 3)), np.zeros((0, 3)))
    log = log_of([line(Arm(1, 0.5), c) for c in EVERY])
    with pytest.raises(ValueError, match="shares are"):
        evaluate([(0.5, Arm(1, 0.5))], log)
    for option in ({"left_out": 1.0}, {"half": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is"):
            evaluate([(1.0, Arm(1, 0.5))], log, **option)
    fallen = log.observation.copy()
    fallen[log.observation[:, rows.OFFLOADED] == 1.0, rows.ANSWERED_AT] = 1
    with pytest.raises(ValueError, match="fallback"):
        Log.of(log.decision, fallen)
    lost = log.observation.copy()
    lost[log.observation[:, rows.OFFLOADED] == 1.0, rows.CONFIDENCE + 2] = NAN
    assert Log.of(log.decision, lost).lost == 16
    hidden = log_of([line(Arm(2, 0.5, (0.75,)), c) for c in EVERY]).observation
    hidden[hidden[:, rows.ANSWERED_AT] == 2, rows.CONFIDENCE] = NAN
    with pytest.raises(ValueError, match="does not reveal exit 1"):
        Delivery.of(Log.of(log_of([line(Arm(2, 0.5, (0.75,)), c) for c in EVERY]).decision, hidden))
