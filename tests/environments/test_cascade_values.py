"""Arms with a threshold at every exit, valued against a loop over samples, beside a comparator they do not move."""

import math
from dataclasses import replace

import numpy as np
import pytest

from offramp.bandits import Arm, Arms, MacsAndBytes, Profile
from offramp.bandits.ceebert import CeeBERT
from offramp.environments import (
    Comparators,
    ConfidenceCache,
    RandomWalk,
    World,
    blocks,
    rollout,
)
from offramp.environments.regret import best_arms, outcomes, realised, values
from offramp.environments.trace import checkpoints

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


def world(rules="plain"):
    arms = Arms.grid(exits=EXITS, thresholds=(-math.inf, 0.3, 0.5, 0.9, math.inf), raw_input_allowed=True)
    return World(cache=cache(), prices=MacsAndBytes(mu=0.8), arms=arms, raw_input_allowed=True, **RULES[rules])


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


VECTORS = (
    Arm(2, 0.9, (0.5,)),
    Arm(2, 0.5, (-math.inf,)),
    Arm(2, math.inf, (0.3,)),
    Arm(3, -math.inf, (0.9, math.inf)),
    Arm(3, -math.inf, (0.5, 0.3)),
)


def with_cascades(rules):
    plain = world(rules=rules)
    return replace(plain, arms=plain.arms.plus(VECTORS))


@EACH_RULE
def test_values_of_cascades_equal_a_loop_over_samples(rules):
    w = with_cascades(rules)
    arrays = w.arrays(CONDITIONS, LINKS)
    found = values(arrays.confidence, arrays.quotes, w.arms, arrays.options)
    assert np.allclose(found, reference_values(w), rtol=0.0, atol=1e-12)
    answered, offloaded = outcomes(arrays.confidence, w.arms, arrays.options)
    a = w.arms.table.index(VECTORS[0])
    seen = [rewarded(c, quotes(w)[0], VECTORS[0], w) for c in w.cache.confidence[1, 0]]
    assert answered[1, a] == pytest.approx(np.mean([x[0] for x in seen]), abs=1e-12)
    assert offloaded[1, a] == pytest.approx(np.mean([x[1] for x in seen]), abs=1e-12)
    block = next(iter(blocks(WALK, samples=SAMPLES, horizon=90, seed=3)))
    each, price = realised(arrays, w.arms, block), quotes(w)
    for t, (n, s, p) in enumerate(zip(*(part.tolist() for part in block), strict=True)):
        for i, arm in enumerate(w.arms.table):
            answer, _, cost = rewarded(w.cache.confidence[s, 0, n], price[p], arm, w)
            assert each[t, i] == pytest.approx(answer - 0.8 * cost, abs=1e-12)


@EACH_RULE
def test_cascades_do_not_move_the_comparator(rules):
    """The regret of all other arms stays the same, bit for bit; that of a cascade may be negative."""
    plain, w = world(rules=rules), with_cascades(rules)
    before, after = (x.arrays(CONDITIONS, LINKS).gap for x in (plain, w))
    alone = [w.arms.table.index(arm) for arm in plain.arms.table]
    assert np.array_equal(after[..., alone], before)
    assert (after < -0.001).any()
    best = best_arms(after, w.arms)
    assert [[w.arms[a] for a in row] for row in best] == [[plain.arms[a] for a in row] for row in before.argmin(axis=2)]
    stream = list(blocks(WALK, samples=SAMPLES, horizon=200, seed=5))
    two = [Comparators(x.arrays(CONDITIONS, LINKS), x.arms, stream, checkpoints(200)) for x in (plain, w)]
    assert np.array_equal(two[0].dynamic, two[1].dynamic)
    assert np.allclose(two[0].static, two[1].static[:, alone], rtol=0.0, atol=1e-12)


def test_a_table_of_cascades_alone_is_measured_against_its_best():
    w = replace(world(), arms=Arms(exits=EXITS, table=VECTORS))
    gap = w.arrays(CONDITIONS, LINKS).gap
    assert (gap >= 0.0).all()
    assert (gap.min(axis=2) == 0.0).all()


@EACH_RULE
@pytest.mark.parametrize("arm", [VECTORS[0], VECTORS[4]])
def test_trace_of_a_cascade_equals_sums_round_by_round(arm, rules):
    """Edge cost and work up to the exit that answered, regret from the population."""
    w, horizon = world(rules=rules), 200
    w = replace(w, arms=w.arms.without(cuts=[arm.cut]).plus([arm]))
    trace, _ = rollout(CeeBERT(cut=arm.cut), w, WALK, horizon=horizon, seed=5)
    value, price, table = reference_values(w), quotes(w), w.arms.table.index(arm)
    alone = [a for a in range(len(w.arms)) if a != table]
    sums = dict.fromkeys(("reward", "edge_cost", "offload_cost", "regret", "macs", "bytes", "correct"), 0.0)
    for block in blocks(WALK, samples=SAMPLES, horizon=horizon, seed=5):
        for n, s, p in zip(*(part.tolist() for part in block), strict=True):
            confidence = w.cache.confidence[s, 0, n]
            at, sent, cost = played(confidence, price[p], arm, w)
            stop = arm.cut if sent else at + 1
            heads = PROFILE.head_macs[0 if w.evaluate == "prefix" else stop - 1 : stop]
            sums["reward"] += confidence[at] - 0.8 * cost
            sums["edge_cost"] += price[p].edge_cost[stop]
            sums["offload_cost"] += price[p].offload_cost[arm.cut] if sent else 0.0
            sums["regret"] += value[s, p, alone].max() - value[s, p, table]
            sums["macs"] += sum(PROFILE.segment_macs[:stop]) + sum(heads)
            sums["bytes"] += PROFILE.payload_bytes[arm.cut] if sent else 0
            sums["correct"] += w.cache.prediction[s, 0, n, at] == w.cache.label[n]
    for name, total in sums.items():
        assert trace.sums[name][-1] == pytest.approx(total, abs=1e-9), name
    assert trace.arms[-1, table] == horizon
