"""Regret and trace agree with a slow and obvious reference, sample by sample, on a small random cache."""

import math
from dataclasses import replace

import numpy as np
import pytest

from offramp.bandits import Arm, Arms, FinalExit, Fixed, MacsAndBytes, OffloadFirst, Profile, SendInput
from offramp.bandits.contract import Quote
from offramp.bandits.loop import Block
from offramp.environments import (
    Abrupt,
    Comparators,
    ConfidenceCache,
    RandomWalk,
    Stationary,
    World,
    blocks,
    rollout,
)
from offramp.environments.regret import bin_values, gaps, outcomes, realised, values
from offramp.environments.trace import EVEN, PER_DECADE, checkpoints

SAMPLES, EXITS = 23, 3
CONDITIONS, LINKS = ("a", "b"), (0.5, 1.0, 4.0)
WALK = RandomWalk(conditions=CONDITIONS, links=LINKS, stay=0.5)
PROFILE = Profile(segment_macs=[5, 4, 3], head_macs=[1, 1, 1], payload_bytes=[3072, 8000, 2000, 0], layers=[3, 6, 9])


def cache():
    rng = np.random.default_rng(7)
    confidence = rng.random((2, 1, SAMPLES, EXITS)).round(2)  # ties with thresholds do occur
    confidence[0, 0, :4] = (0.5, 0.9, 0.8), (0.4, 0.4, 0.2), (0.2, 0.4, 0.4), (0.8, 0.4, 0.5)  # so do equals
    prediction = rng.integers(0, 4, confidence.shape)
    prediction[0, 0, :3] = 0, 1, 2
    return ConfidenceCache.from_arrays(
        confidence=confidence,
        prediction=prediction,
        label=rng.integers(0, 4, SAMPLES),
        conditions=CONDITIONS,
        profile=PROFILE,
    )


RULES = {
    "plain": {},
    "fallback": {"fallback": "most_confident"},
    "fallback among evaluated heads": {"fallback": "most_confident", "evaluate": "own"},
}
EACH_RULE = pytest.mark.parametrize("rules", RULES)


def world(raw_input_allowed=True, prices=None, rules="plain"):
    arms = Arms.grid(exits=EXITS, thresholds=(-math.inf, 0.3, 0.5, 0.9, math.inf), raw_input_allowed=raw_input_allowed)
    prices = prices or MacsAndBytes(mu=0.8)
    return World(cache=cache(), prices=prices, arms=arms, raw_input_allowed=raw_input_allowed, **RULES[rules])


def played(confidence, quote, arm, w=None):
    """Exit that answers (-1: the last), was it sent, and cost: one sample under one arm, in plain words."""
    for k, early in enumerate(arm.early):
        if confidence[k] >= early:
            return k, False, float(quote.edge_cost[k + 1])
    cost = float(quote.edge_cost[arm.cut])
    if arm.cut > 0 and confidence[arm.cut - 1] >= arm.threshold:
        return arm.cut - 1, False, cost
    cost += float(quote.offload_cost[arm.cut])
    doubted = arm.cut > 0 and confidence[-1] < arm.threshold < math.inf
    if w is None or w.fallback == "none" or not doubted:
        return -1, True, cost
    asked = [k for k, early in enumerate(arm.early) if early < math.inf]
    spoke = range(arm.cut) if w.evaluate == "prefix" else [*asked, arm.cut - 1]
    surest = max(confidence[i] for i in [*spoke, -1])
    return next(i for i in [-1, *reversed(spoke)] if confidence[i] == surest), True, cost


def rewarded(confidence, quote, arm, w=None):
    """Confidence of the answer, was it sent, and cost."""
    at, sent, cost = played(confidence, quote, arm, w)
    return float(confidence[at]), sent, cost


def quotes(w, links=LINKS):
    return [w.prices.quote(PROFILE, link=x, evaluate=w.evaluate, raw_input_allowed=w.raw_input_allowed) for x in links]


def reference_values(w):
    """Mean reward of each arm under each condition and link, sample by sample, (S, P, A)."""
    confidence = w.cache.confidence[:, 0]
    table = np.zeros((len(CONDITIONS), len(LINKS), len(w.arms)))
    for s in range(len(CONDITIONS)):
        for p, quote in enumerate(quotes(w)):
            for a in range(len(w.arms)):
                total = 0.0
                for n in range(SAMPLES):
                    answer, _, cost = rewarded(confidence[s, n], quote, w.arms[a], w)
                    total += answer - quote.mu * cost
                table[s, p, a] = total / SAMPLES
    return table


@EACH_RULE
def test_outcomes_equal_a_loop_over_samples(rules):
    w = world(rules=rules)
    answered, offloaded = outcomes(w.cache.confidence[:, 0], w.arms, w.arrays(CONDITIONS, LINKS).options)
    quote = quotes(w)[0]
    for s in range(len(CONDITIONS)):
        for a, arm in enumerate(w.arms.table):
            seen = [rewarded(w.cache.confidence[s, 0, n], quote, arm, w) for n in range(SAMPLES)]
            assert answered[s, a] == pytest.approx(sum(x[0] for x in seen) / SAMPLES, abs=1e-12)
            assert offloaded[s, a] == pytest.approx(sum(x[1] for x in seen) / SAMPLES, abs=1e-12)


def test_confidence_equal_to_the_threshold_answers():
    confidence = np.array([[[0.5, 0.9, 0.8], [0.4, 0.9, 0.6]]])
    answered, offloaded = outcomes(confidence, Arms(exits=3, table=(Arm(1, 0.5),)))
    assert answered[0, 0] == pytest.approx((0.5 + 0.6) / 2)
    assert offloaded[0, 0] == 0.5


@EACH_RULE
def test_values_equal_a_loop_over_samples(rules):
    w = world(rules=rules)
    arrays = w.arrays(CONDITIONS, LINKS)
    found = values(arrays.confidence, arrays.quotes, w.arms, arrays.options)
    assert np.allclose(found, reference_values(w), rtol=0.0, atol=1e-12)


@EACH_RULE
def test_gaps_are_distances_to_the_best_arm(rules):
    w = world(rules=rules)
    arrays = w.arrays(CONDITIONS, LINKS)
    reference = reference_values(w)
    found = gaps(arrays.confidence, arrays.quotes, w.arms, arrays.options)
    for s in range(len(CONDITIONS)):
        for p in range(len(LINKS)):
            best = max(reference[s, p].tolist())
            assert np.allclose(found[s, p], [best - v for v in reference[s, p]], rtol=0.0, atol=1e-12)
    assert (found >= 0.0).all()
    assert (found.min(axis=2) == 0.0).all()
    assert np.array_equal(arrays.gap, found)


def reference_bin_values(w, bins):
    """Mean reward of the best rule per bin of confidence, bin by bin, (S, P)."""
    table = np.zeros((len(CONDITIONS), len(LINKS)))
    for s in range(len(CONDITIONS)):
        for p, quote in enumerate(quotes(w)):
            samples = w.cache.confidence[s, 0].tolist()
            found = []
            for cut in range(EXITS + 1):
                answer, send = Arm(cut, -math.inf), Arm(cut, math.inf)
                total = 0.0
                for b in range(bins):
                    here = [c for c in samples if min(int(c[cut - 1] * bins), bins - 1) == b]
                    ways = {0: [send], EXITS: [answer]}.get(cut, [answer, send])
                    rewards = [[rewarded(c, quote, way) for c in here] for way in ways]
                    total += max(sum(a - quote.mu * cost for a, _, cost in way) for way in rewards)
                found.append(total / SAMPLES)
            table[s, p] = max(found)
    return table


@pytest.mark.parametrize("raw_input_allowed", [True, False])
@pytest.mark.parametrize("bins", [20, 3])
def test_bin_values_equal_a_loop_over_bins(bins, raw_input_allowed):
    w = world(raw_input_allowed=raw_input_allowed)
    arrays = w.arrays(CONDITIONS, LINKS)
    found = bin_values(arrays.confidence, arrays.quotes, EXITS, bins)
    assert np.allclose(found, reference_bin_values(w, bins), rtol=0.0, atol=1e-12)
    if bins == 20:  # every threshold of the table lies between two of these bins
        assert (found >= values(arrays.confidence, arrays.quotes, w.arms).max(axis=2) - 1e-12).all()


def test_best_arm_differs_between_conditions_and_links():
    """Else the reference above would compare little."""
    assert len(set(reference_values(world()).argmax(axis=2).ravel().tolist())) > 1


def test_rules_differ():
    """Likewise.  Doubting the cloud never lowers a confidence, and more heads to ask never do either."""
    plain, fallback, among = (reference_values(world(rules=rules)) for rules in RULES)
    dearer = reference_values(replace(world(), evaluate="own")) - plain  # own heads are cheaper as well
    assert (fallback >= plain - 1e-12).all()
    assert (fallback > plain + 0.01).any()
    assert (fallback + dearer > among + 0.001).any()
    assert (fallback + dearer >= among - 1e-12).all()


def test_world_picks_conditions_in_the_order_of_the_stream():
    w = world()
    straight, turned = w.arrays(CONDITIONS, LINKS), w.arrays(CONDITIONS[::-1], LINKS[::-1])
    assert np.array_equal(turned.confidence, straight.confidence[::-1])
    assert np.array_equal(turned.gap, straight.gap[::-1, ::-1])


def reference_comparators(w, rounds, kept):
    """Dynamic, clairvoyant and static sums at the kept rounds, round by round."""
    value = reference_values(w)
    price = quotes(w)
    dynamic = clairvoyant = 0.0
    static = [0.0] * len(w.arms)
    found = []
    for t, (n, s, p) in enumerate(rounds, start=1):
        rewards = []
        for a in range(len(w.arms)):
            answer, _, cost = rewarded(w.cache.confidence[s, 0, n], price[p], w.arms[a], w)
            rewards.append(answer - price[p].mu * cost)
            static[a] += value[s, p, a]
        dynamic += rewards[int(value[s, p].argmax())]
        clairvoyant += max(rewards)
        if t in kept:
            found.append((dynamic, clairvoyant, list(static)))
    return found


@pytest.mark.parametrize(("size", "rules"), [(7, "plain"), (65_536, "plain"), *((50, rules) for rules in RULES)])
def test_comparators_equal_a_loop_over_rounds(size, rules):
    w, horizon = world(rules=rules), 200
    at = checkpoints(horizon)
    stream = list(blocks(WALK, samples=SAMPLES, horizon=horizon, seed=5, size=size))
    rounds = [t for b in stream for t in zip(*(part.tolist() for part in b), strict=True)]
    found = Comparators(w.arrays(CONDITIONS, LINKS), w.arms, stream, at)
    expected = reference_comparators(w, rounds, set(at.tolist()))
    assert len(expected) == len(at)
    assert np.allclose(found.dynamic, [e[0] for e in expected], rtol=0.0, atol=1e-10)
    assert np.allclose(found.clairvoyant, [e[1] for e in expected], rtol=0.0, atol=1e-10)
    assert np.allclose(found.static, [e[2] for e in expected], rtol=0.0, atol=1e-10)
    rule = reference_bin_values(w, 20)
    binned = np.cumsum([rule[s, p] for _, s, p in rounds])[at - 1]
    assert np.allclose(found.binned, binned, rtol=0.0, atol=1e-10)


def test_clairvoyant_is_never_below_dynamic():
    w = world()
    for seed in range(5):
        stream = blocks(WALK, samples=SAMPLES, horizon=500, seed=seed)
        found = Comparators(w.arrays(CONDITIONS, LINKS), w.arms, stream, checkpoints(500))
        assert (found.clairvoyant >= found.dynamic).all()
        assert found.clairvoyant[-1] > found.dynamic[-1] + 1.0


def test_dynamic_is_not_below_the_best_static_arm_over_whole_passes():
    w = world()
    stream = Abrupt(segments=tuple((c, x) for c in CONDITIONS for x in LINKS), length=SAMPLES)
    horizon = 6 * SAMPLES
    found = Comparators(
        w.arrays(stream.conditions, stream.links),
        w.arms,
        blocks(stream, samples=SAMPLES, horizon=horizon, seed=0),
        checkpoints(horizon),
    )
    assert found.dynamic[-1] == pytest.approx(SAMPLES * reference_values(w).max(axis=2).sum(), abs=1e-10)
    assert found.dynamic[-1] >= found.static[-1].max()


@EACH_RULE
@pytest.mark.parametrize(
    ("policy", "arm"),
    [
        (FinalExit(), Arm(3, -math.inf)),
        (OffloadFirst(), Arm(1, math.inf)),
        (SendInput(), Arm(0, math.inf)),
        (Fixed(cut=2, threshold=0.5), Arm(2, 0.5)),
    ],
)
def test_trace_of_a_fixed_arm_equals_sums_round_by_round(policy, arm, rules):
    w, horizon = world(rules=rules), 300
    trace, _ = rollout(policy, w, WALK, horizon=horizon, seed=5)
    value, price, table = reference_values(w), quotes(w), w.arms.table.index(arm)
    assert np.array_equal(trace.rounds, checkpoints(horizon))
    sums = dict.fromkeys(trace.sums, 0.0)
    k = 0
    stream = blocks(WALK, samples=SAMPLES, horizon=horizon, seed=5, size=64)
    rounds = [t for b in stream for t in zip(*(part.tolist() for part in b), strict=True)]
    for t, (n, s, p) in enumerate(rounds, start=1):
        at, sent, cost = played(w.cache.confidence[s, 0, n], price[p], arm, w)
        guesses = w.cache.prediction[s, 0, n]
        guess = guesses[at]
        sums["reward"] += w.cache.confidence[s, 0, n, at] - price[p].mu * cost
        sums["edge_cost"] += price[p].edge_cost[arm.cut]
        sums["offload_cost"] += price[p].offload_cost[arm.cut] if sent else 0.0
        sums["regret"] += value[s, p].max() - value[s, p, table]
        heads = PROFILE.head_macs[0 if w.evaluate == "prefix" else max(0, arm.cut - 1) : arm.cut]
        sums["macs"] += sum(PROFILE.segment_macs[: arm.cut]) + sum(heads)
        sums["bytes"] += PROFILE.payload_bytes[arm.cut] if sent else 0
        sums["offloads"] += sent
        sums["correct"] += guess == w.cache.label[n]
        sums["agreement"] += guess == guesses[-1]
        if t == trace.rounds[k]:
            for name, total in sums.items():
                assert trace.sums[name][k] == pytest.approx(total, abs=1e-10), name
            assert trace.arms[k, table] == t
            assert trace.arms[k].sum() == t
            k += 1
    assert k == len(trace.rounds)
    assert trace.mean("regret") == pytest.approx(sums["regret"] / horizon)
    assert trace.cost[-1] == pytest.approx(sums["edge_cost"] + sums["offload_cost"])


def test_regret_of_the_final_exit_is_the_sum_of_its_gaps():
    w, horizon = world(), 1000
    trace, _ = rollout(FinalExit(), w, WALK, horizon=horizon, seed=2)
    gap = gaps(w.cache.confidence[:, 0], w.arrays(CONDITIONS, LINKS).quotes, w.arms)[:, :, -1]
    total = 0.0
    for block in blocks(WALK, samples=SAMPLES, horizon=horizon, seed=2):
        for s, p in zip(block.condition.tolist(), block.price.tolist(), strict=True):
            total += gap[s, p]
    assert trace.sums["regret"][-1] == pytest.approx(total, abs=1e-9)
    assert total > 1.0


@pytest.mark.parametrize("horizon", [1, 2, 5, 12, 31])
def test_short_runs_are_recorded_to_their_end(horizon):
    trace, _ = rollout(FinalExit(), world(), Stationary(condition="a"), horizon=horizon, seed=0)
    assert trace.rounds[-1] == horizon
    assert np.array_equal(trace.arms.sum(axis=1), trace.rounds)


def test_checkpoints_increase_and_end_at_the_horizon():
    for horizon in [*range(1, 400), 1000, 12_345, 20_000, 10**6 + 1, 10**8]:
        at = checkpoints(horizon)
        assert at.dtype == np.int64
        assert at[0] >= 1
        assert (np.diff(at) > 0).all()
        assert at[-1] == horizon


def test_checkpoints_are_few_and_dense_on_both_scales():
    at = checkpoints(10**8)
    assert len(at) <= 8 * PER_DECADE + EVEN + 2
    assert len(at) > 8 * PER_DECADE * 0.8 + EVEN
    assert at[0] == 1
    assert np.diff(at).max() <= 10**8 / EVEN + 1
    assert (at[1:] / at[:-1]).max() <= 2.0  # the first rounds are whole numbers; later 13 a decade
    late = at[at >= 100]
    assert (late[1:] / late[:-1]).max() < 10 ** (1.05 / PER_DECADE)


@pytest.mark.parametrize("horizon", [0, -3])
def test_horizon_without_rounds(horizon):
    with pytest.raises(ValueError, match=f"horizon is {horizon}, allowed is 1 or more"):
        checkpoints(horizon)


@pytest.mark.parametrize("mu", [1.0, 0.0])
def test_a_cut_that_is_not_offered_is_never_nan(mu):
    """Sending the input is quoted at +inf where it is not allowed; the arm is worth -inf, and nothing else changes."""
    w = world(prices=MacsAndBytes(mu=mu))
    prices = MacsAndBytes(mu=mu)
    rows = np.stack([prices.quote(PROFILE, link=x, raw_input_allowed=False).row for x in LINKS])
    arrays = w.arrays(CONDITIONS, LINKS)._replace(quotes=rows)
    value = values(arrays.confidence, rows, w.arms)
    gap = gaps(arrays.confidence, rows, w.arms)
    without = world(raw_input_allowed=False, prices=prices)
    assert w.arms[0] == Arm(0, math.inf)
    assert (value[:, :, 0] == -math.inf).all()
    assert (gap[:, :, 0] == math.inf).all()
    assert np.array_equal(value[:, :, 1:], values(arrays.confidence, rows, without.arms))
    assert np.array_equal(gap[:, :, 1:], gaps(arrays.confidence, rows, without.arms))
    for stream in (WALK, Stationary(condition="a")):  # the second never visits most (condition, link)
        made = [
            Comparators(arrays, arms, blocks(stream, samples=SAMPLES, horizon=60, seed=1, size=16), checkpoints(60))
            for arms in (w.arms, without.arms)
        ]
        assert np.array_equal(made[0].dynamic, made[1].dynamic)
        assert np.array_equal(made[0].clairvoyant, made[1].clairvoyant)
        assert np.allclose(made[0].static[:, 1:], made[1].static, rtol=0.0, atol=1e-12)
        assert (made[0].static[:, 0] == -math.inf).all()


@pytest.mark.parametrize("mu", [1.0, 0.0])
def test_a_cut_that_can_be_computed_but_not_offloaded(mu):
    """Where an arm never offloads, what an offload would cost does not touch it, not even infinitely."""
    confidence = np.array([[[0.6, 0.9], [0.8, 0.7]]])
    row = Quote(edge_cost=[0.0, 0.25, 0.5], offload_cost=[math.inf, math.inf, 0.0], mu=mu).row[None]
    arms = Arms.grid(exits=2, thresholds=(-math.inf, 0.5, 0.7), raw_input_allowed=True)
    value = values(confidence, row, arms)[0, 0]
    kept = 0.7 - mu * 0.25
    assert value == pytest.approx([-math.inf, kept, kept, -math.inf, 0.8 - mu * 0.5])
    assert bin_values(confidence, row, 2)[0, 0] == pytest.approx(max(kept, 0.8 - mu * 0.5))
    w = world().arrays(CONDITIONS[:1], LINKS[:1])._replace(confidence=confidence, quotes=row)
    reward = realised(w, arms, Block(*np.array([[0, 1], [0, 0], [0, 0]])))
    assert reward[0] == pytest.approx([-math.inf, 0.6 - mu * 0.25, 0.6 - mu * 0.25, -math.inf, 0.9 - mu * 0.5])
    assert reward[1] == pytest.approx([-math.inf, *[0.8 - mu * 0.25] * 3, 0.7 - mu * 0.5])
