"""Hierarchical inference at one exit: rules by hand, estimates without bias, and a threshold said before it is used."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import Arm, Arms, Engine, MacsAndBytes, Observation, Profile, Quote
from offramp.bandits.hedge_hi import HedgeHI
from offramp.bandits.hi_lcb import HILCBLite
from offramp.bandits.policy import fresh
from offramp.bandits.rearm import rearmed
from offramp.bandits.rows import AUDIT, P_ACTION, P_REVEAL, PLAY, set_rule
from offramp.bandits.state import FREE, HEADER, MADE, OWN_PARAMETERS, T
from offramp.environments import Abrupt, ConfidenceCache, Stationary, World, replay, rollout

INF, NAN = math.inf, math.nan
LADDER = (-INF, 0.5, 0.7, 0.9, INF)
ARMS = Arms.grid(exits=2, thresholds=LADDER)
QUOTE = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0.0], mu=1.0)
CLOSED = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[INF, INF, 0.0], mu=1.0)
K = len(LADDER)


def columns(state, count, arms=K):
    """The first so many columns of a policy's own, (count, K)."""
    first = int(state[FREE] + state[OWN_PARAMETERS])
    return state[first : first + count * arms].reshape(count, arms)


def seen(decision, first, last, classes=(1, 1)):
    """What a decision at exit 1 of 2 reveals."""
    if first >= decision.threshold:
        shown = last if decision.audit else NAN
        return Observation(
            confidence=[first, shown],
            answered_at=1,
            offloaded=False,
            audited=decision.audit,
            prediction=[classes[0], classes[1] if decision.audit else -1],
        )
    return Observation(confidence=[first, last], answered_at=2, offloaded=True, prediction=classes)


def test_hedge_hi_by_hand():
    """Offloads cost who offloads, exactly; a disagreement counts against who answers, by the chance to see it."""
    policy = HedgeHI(cut=1, epsilon=0.1, eta=0.5, restart=False)
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    local, sent = np.zeros(K), np.zeros(K)
    rng = np.random.default_rng(1)
    for _ in range(60):
        weight = np.exp(-0.5 * (local + 0.3 * sent))
        p = 0.9 * weight / weight.sum() + [0, 0, 0, 0, 0.1]
        decision = engine.decide(QUOTE)
        play = LADDER.index(decision.threshold)
        assert decision.p_action == pytest.approx(p[play], rel=1e-9)
        first, differs = rng.random(), int(rng.random() < 0.5)
        engine.update(decision, seen(decision, first, 0.9, (1, 1 + differs)))
        answers = np.array(LADDER) <= first
        sent += ~answers
        if decision.threshold == INF:
            local += answers * differs / p[4]
    assert columns(engine.state(), 2) == pytest.approx(np.stack([local, sent]), rel=1e-9)


def taught(policy, played, chance, first, last, classes, audit=False):
    """What one observation adds to the sum of each threshold's own losses."""
    state = fresh(policy, ARMS, 0)
    row = QUOTE.row.copy()
    set_rule(row, 1, LADDER[played])
    row[PLAY], row[P_ACTION], row[AUDIT], row[P_REVEAL] = played, chance, audit, policy.epsilon * policy.audits
    sent = first < LADDER[played]
    shown = sent or audit
    observation = Observation(
        confidence=[first, last if shown else NAN],
        answered_at=2 if sent else 1,
        offloaded=sent,
        audited=audit and not sent,
        prediction=[classes[0], classes[1] if shown else -1],
    )
    policy.kernels.update(state, row, observation.row)
    return columns(state, 2)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.sampled_from([0.3, 0.9]), st.booleans(), st.integers(0, 9_999))
@pytest.mark.parametrize("audits", [False, True])
@pytest.mark.parametrize("loss", ["disagreement", "confidence"])
def test_hedge_hi_estimates_are_unbiased(audits, loss, first, last, differs, seed):
    """Summed over all that may be drawn, each threshold's estimate is its loss."""
    policy = HedgeHI(cut=1, epsilon=0.2, audits=audits, loss=loss)
    chance = np.random.default_rng(seed).dirichlet(np.ones(K)) * 0.8 + [0, 0, 0, 0, 0.2]
    mean = np.zeros((2, K))
    for a, p in enumerate(chance):
        for audit, q in ((False, 1.0 - 0.2 * audits), (True, 0.2 * audits)):
            if q > 0.0:
                mean += p * q * taught(policy, a, p, first, last, (1, 1 + differs), audit)
    answers = np.array(LADDER) <= first
    worth = last - first if loss == "confidence" else float(differs)
    assert mean[0] == pytest.approx(answers * worth, abs=1e-12)
    assert mean[1] == pytest.approx(1.0 - answers, abs=1e-12)


def test_hedge_hi_reads_no_answer_that_was_not_asked_for():
    """An offload by a threshold shows the last exit under selection; it is not used."""
    policy = HedgeHI(cut=1)
    assert taught(policy, 3, 0.2, 0.8, 0.9, (1, 2))[0].sum() == 0.0
    assert taught(policy, 4, 0.2, 0.8, 0.9, (1, 2))[0].tolist() == [5.0, 5.0, 5.0, 0.0, 0.0]
    assert taught(policy, 4, 0.2, 0.8, 0.9, (-1, -1))[0].sum() == 15.0  # classes that are not passed on


def test_audits_serve_the_answer_of_the_edge():
    policy = HedgeHI(cut=1, epsilon=0.5, audits=True, restart=False)
    engine = Engine(policy, arms=Arms.grid(exits=2, thresholds=(0.5, 0.7)), seed=0, compiled=False)
    audits = [engine.decide(QUOTE) for _ in range(400)]
    assert sum(d.audit for d in audits) == pytest.approx(200, abs=50)
    assert {d.p_reveal for d in audits} == {0.5}
    assert {d.p_action for d in audits} == {0.5}
    assert not any(engine.decide(CLOSED).audit for _ in range(50))
    assert engine.decide(CLOSED).p_reveal == 0.0


def test_epochs_double_and_begin_anew():
    policy = HedgeHI(cut=1, epsilon=0.4, eta=0.1, epoch=20)
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    rates, emptied = [], []
    for t in range(140):
        decision = engine.decide(QUOTE)
        state = engine.state()
        rates.append(tuple(state[int(state[FREE]) : int(state[FREE]) + 2]))
        if (columns(state, 2) == 0.0).all():
            emptied.append(t)
        engine.update(decision, seen(decision, 0.6, 0.9, (1, 2)))
    assert emptied == [0, 20, 60]
    for epoch, t in enumerate((0, 20, 60)):
        assert rates[t] == pytest.approx((0.4 * 2 ** (-epoch / 3), 0.1 * 2 ** (-2 * epoch / 3)))


@pytest.mark.parametrize("policy", [HedgeHI(cut=1, eta=2.0, restart=False), HILCBLite(cut=1)], ids=str)
def test_the_quoted_price_counts_at_once(policy):
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    rng = np.random.default_rng(0)

    def played(quote, rounds):
        thresholds = []
        for _ in range(rounds):
            decision = engine.decide(quote)
            thresholds.append(decision.threshold)
            first = rng.choice([0.6, 0.8])
            differs = first < 0.7 and rng.random() < 0.5
            engine.update(decision, seen(decision, first, 0.95, (1, 1 + int(differs))))
        return np.array(thresholds)

    played(QUOTE, 400)
    dear = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[2.0, 2.0, 0.0], mu=1.0)
    assert (played(QUOTE, 30) == 0.7).mean() > 0.6
    assert (played(dear, 30) < 0.7).mean() > 0.6
    assert (played(QUOTE, 30) == 0.7).mean() > 0.6
    assert all(engine.decide(CLOSED).threshold == -INF for _ in range(20))
    nothing = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[INF, INF, 0.0], mu=0.0)
    assert all(engine.decide(nothing).threshold == -INF for _ in range(20))


def rule(visits, pulls, mean, t, price, alpha, monotone):
    """The best threshold for the counted samples at the lower bounds, by trying each."""
    bound = [max(m - math.sqrt(alpha * math.log(t) / n), 0.0) if n else 0.0 for m, n in zip(mean, pulls, strict=True)]
    if monotone:
        bound = [max(bound[: b + 1]) for b in range(K)]
    answers = [sum(visits[b] * (price - 1 + bound[b]) for b in range(a, K)) for a in range(K)]
    best = max(answers)
    return max(a for a in range(K) if answers[a] >= best - 1e-12), bound


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=K, max_size=K),
    st.lists(st.integers(0, 30), min_size=K, max_size=K),
    st.lists(st.sampled_from([0.0, 0.3, 0.55, 0.8, 0.95, 1.0]), min_size=K, max_size=K),
    st.floats(0.05, 0.95),
    st.booleans(),
)
def test_hi_lcb_by_brute_force(visits, more, mean, price, monotone):
    policy = HILCBLite(cut=1, alpha=0.6, monotone=monotone)
    pulls = [min(v, m) for v, m in zip(visits, more, strict=True)]
    visits[-1] = pulls[-1] = 0  # no confidence reaches inf
    state = fresh(policy, ARMS, 0)
    columns(state, 3)[:] = visits, pulls, mean
    state[T] = state[MADE] = 50.0
    row = Quote(edge_cost=[0, 0, 0], offload_cost=[0, price, 0], mu=1.0).row
    policy.kernels.select(state, row)
    best, bound = rule(visits, pulls, mean, 50.0, price, 0.6, monotone)
    assert LADDER[int(row[PLAY])] == LADDER[best]
    if monotone:  # then it is the published rule for every bin that samples come from
        for b in range(K - 1):
            if visits[b] and abs(1.0 - bound[b] - price) > 1e-9:
                assert (1.0 - bound[b] >= price) == (b < int(row[PLAY]))


def test_hi_lcb_learns_from_offloads_alone():
    policy = HILCBLite(cut=1)
    state = fresh(policy, ARMS, 0)
    kernels = policy.kernels
    for t, (first, classes) in enumerate([(0.8, (1, 1)), (0.8, (1, 2)), (0.95, (1, 1)), (0.2, (3, 3))]):
        row = QUOTE.row.copy()
        kernels.select(state, row)
        set_rule(row, 1, INF)
        kernels.update(
            state, row, Observation(confidence=[first, 0.9], answered_at=2, offloaded=True, prediction=classes).row
        )
        assert state[T] == t + 1
    answered = Observation(confidence=[0.8, NAN], answered_at=1, offloaded=False, prediction=[1, -1])
    kernels.update(state, row, answered.row)
    visits, pulls, mean = columns(state, 3)
    assert visits.tolist() == [1.0, 0.0, 3.0, 1.0, 0.0]
    assert pulls.tolist() == [1.0, 0.0, 2.0, 1.0, 0.0]
    assert mean.tolist() == [1.0, 0.0, 0.5, 1.0, 0.0]


def test_a_bin_that_is_never_visited_stops_nobody():
    """Nothing is ever surer than .9; a rule that waits for the top bin would offload for good."""
    engine = Engine(HILCBLite(cut=1), arms=ARMS, seed=0, compiled=False)
    sent = 0
    for _ in range(600):
        decision = engine.decide(QUOTE)
        sent += decision.threshold > 0.8
        engine.update(decision, seen(decision, 0.8, 0.9))
    assert 10 < sent < 120


def dull():
    """Confidence tells agreement: sure samples agree, others do in one case of four."""
    rng = np.random.default_rng(0)
    n = 2_000
    first = rng.choice([0.4, 0.6, 0.8, 0.95], n)
    wrong = rng.random(n) > np.where(first > 0.7, 0.98, 0.25)
    cache = ConfidenceCache.from_arrays(
        confidence=np.stack([first, np.where(wrong, 1.0, first)], axis=1)[None],
        prediction=np.stack([np.zeros(n), wrong], axis=1)[None],
        label=np.zeros(n),
        conditions=["a"],
        classes=2,
        profile=Profile(segment_macs=(1, 9), head_macs=(0, 0), payload_bytes=(9, 9, 0), layers=(1, 2)),
    )
    return World(cache=cache, prices=MacsAndBytes(network=0.0, kilobyte=30.0), arms=ARMS)


@pytest.mark.parametrize("policy", [HedgeHI(cut=1, epsilon=0.1, eta=0.05), HILCBLite(cut=1)], ids=str)
def test_it_finds_the_threshold_and_stays_finite(policy):
    """An offload costs .27: worth it below .7 alone.  A million rounds, compiled."""
    trace, state = rollout(policy, dull(), Stationary(condition="a"), horizon=1_000_000, seed=0)
    assert np.isfinite(state[int(state[FREE]) :]).all()
    assert trace.arms[-1, ARMS.table.index(Arm(1, 0.7))] > 0.9 * 1_000_000
    assert trace.sums["agreement"][-1] > 0.97 * 1_000_000


@pytest.mark.parametrize("policy", [HedgeHI(cut=2, epoch=50), HILCBLite(cut=2)], ids=str)
@pytest.mark.parametrize("evaluate", ["prefix", "own"])
def test_replay_equals_rollout(small, policy, evaluate):
    world = replace(small, evaluate=evaluate)
    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    fast, fast_state = rollout(policy, world, stream, horizon=300, seed=1)
    slow, slow_state = replay(policy, world, stream, horizon=300, seed=1)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(fast_state, slow_state)


@pytest.mark.parametrize("policy", [HedgeHI(cut=1, restart=False), HedgeHI(cut=1, audits=True), HILCBLite(cut=1)])
def test_late_feedback_teaches_the_same_in_any_order(policy):
    first, second = (Engine(policy, arms=ARMS, seed=0, compiled=False) for _ in range(2))
    rng = np.random.default_rng(2)
    facts = [(rng.random(), (1, int(rng.integers(1, 3)))) for _ in range(80)]
    early, late = ([engine.decide(QUOTE) for _ in facts] for engine in (first, second))
    for decision, (confidence, classes) in zip(early, facts, strict=True):
        first.update(decision, seen(decision, confidence, 0.9, classes))
    for decision, (confidence, classes) in list(zip(late, facts, strict=True))[::-1]:
        second.update(decision, seen(decision, confidence, 0.9, classes))
    shown = columns(first.state(), 2), columns(second.state(), 2)
    assert shown[0] == pytest.approx(shown[1], rel=1e-12)
    assert shown[0].sum() > 0.0


def test_another_table_of_arms():
    """Thresholds that stay keep what they know; bins keep theirs where both their edges stay."""
    more = ARMS.plus([Arm(1, 0.6)])
    for policy in (HedgeHI(cut=1), HILCBLite(cut=1)):
        engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
        rng = np.random.default_rng(0)
        for _ in range(60):
            decision = engine.decide(QUOTE)
            engine.update(decision, seen(decision, rng.random(), 0.9, (1, int(rng.integers(1, 3)))))
        state = engine.state()
        new = rearmed(policy, state, ARMS, more, 0)
        assert new[HEADER + 2 * (K + 1) : HEADER + 3 * (K + 1)].tolist() == [-INF, 0.5, 0.6, 0.7, 0.9, INF]
        old, mine = columns(state, 2), columns(new, 2, K + 1)
        stay = [0, 3, 4, 5] if isinstance(policy, HILCBLite) else [0, 1, 3, 4, 5]
        assert np.array_equal(mine[:, stay], old[:, [0, 2, 3, 4] if isinstance(policy, HILCBLite) else range(K)])
        if isinstance(policy, HILCBLite):
            assert (mine[:, [1, 2]] == 0.0).all()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (HedgeHI, {"epsilon": 0.0}),
        (HedgeHI, {"eta": 0.0}),
        (HedgeHI, {"epoch": 0}),
        (HedgeHI, {"loss": "error"}),
        (HILCBLite, {"alpha": -1.0}),
        (HILCBLite, {"loss": "error"}),
    ],
)
def test_what_is_refused(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


def test_tables_that_are_refused():
    for policy in (HedgeHI(cut=2), HILCBLite(cut=2), HILCBLite(cut=0)):
        with pytest.raises(ValueError, match="cut"):
            policy.plays(ARMS)
    bounded = Arms.grid(exits=2, thresholds=(0.5, 0.7))
    with pytest.raises(ValueError, match="inf"):
        HedgeHI(cut=1).plays(bounded)
    assert len(HedgeHI(cut=1, audits=True).plays(bounded)) == 2
