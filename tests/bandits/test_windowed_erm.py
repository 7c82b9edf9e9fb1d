"""WindowedERM against brute force over its window; what its window may hold; its probes and their probabilities."""

import math

import numpy as np
import pytest

from offramp.bandits import Arm, Arms, Engine, Observation, Quote
from offramp.bandits.checks import policy_checks
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import prediction_at
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FREE, own
from offramp.bandits.windowed_erm import ANSWER, PARAMETERS, SHARE, STORED, WEIGHT, WindowedERM
from offramp.environments import Abrupt, replay, rollout

NAN = float("nan")
INF = math.inf
THRESHOLDS = (-INF, 0.3, 0.5, 0.7, 0.9, INF)
ARMS = Arms.grid(exits=3, thresholds=THRESHOLDS, raw_input_allowed=True)
QUOTES = [
    Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=np.multiply([0.4, 0.3, 0.2, 0.0], x), mu=mu)
    for x in (0.1, 1.0, 4.0)
    for mu in (0.0, 0.3, 1.0)
]
NOWHERE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[INF, INF, INF, 0.0], mu=1.0)


def observe(confidence, decision, *, prefix=True, cloud_all=False):
    """What a decision reveals of a sample."""
    seen = Observation.of(np.zeros(prediction_at(3) + 3))
    options = np.array([prefix, cloud_all, 0, 0], dtype=np.int64)
    reveal(np.asarray(confidence), np.zeros(3, dtype=np.int16), decision.row, options, seen.row)
    return seen


def brute_force(window, quote, arms=ARMS.table):
    """Mean reward of each arm over the samples, one after the other."""
    value = []
    for arm in arms:
        total = 0.0
        for c in window:
            own_confidence = c[arm.cut - 1] if arm.cut else -1.0
            sent = own_confidence < arm.threshold
            cost = quote.edge_cost[arm.cut] + (quote.offload_cost[arm.cut] if sent else 0.0)
            total += (c[-1] if sent else own_confidence) - quote.mu * cost
        value.append(total / len(window))
    return np.array(value)


def column(state, k):
    first = own(state, PARAMETERS, k)
    return state[first : first + int(state[COUNT])]


def parameter(state, i):
    return state[int(state[FREE]) + i]


def drawn(rng):
    """A sample, on a coarse grid: confidences that equal a threshold do occur."""
    return np.round(np.clip(rng.random() + 0.3 * rng.normal(size=3), 0.0, 1.0), 1)


def whole_window(decision):
    """Would everything have been revealed, whatever the sample's confidence?"""
    return decision.cut == 3 or decision.audit or (decision.cut == 2 and decision.threshold == INF)


@pytest.mark.parametrize("reveal_by", ["final", "audit"])
def test_every_arm_is_worth_what_brute_force_over_the_window_says(reveal_by):
    policy = WindowedERM(window=40, every=1, probe=0.4, warmup=10, reveal_by=reveal_by)
    engine = Engine(policy, arms=ARMS, seed=1, compiled=False)
    prober = Arm(3, -INF) if reveal_by == "final" else Arm(2, INF)
    rng, kept = np.random.default_rng(0), []
    for t in range(300):
        quote, confidence = QUOTES[t % len(QUOTES)], drawn(rng)
        decision = engine.decide(quote)
        if len(kept) >= 10 and ARMS[decision.arm] != prober:
            value = brute_force(kept[-40:], quote)
            assert value[decision.arm] >= value.max() - 1e-12
        engine.update(decision, observe(confidence, decision))
        if whole_window(decision):
            kept.append(confidence)
        if len(kept) >= 10:
            state = engine.state()
            for quote in QUOTES:
                known = column(state, ANSWER) - quote.mu * (
                    quote.edge_cost[[a.cut for a in ARMS.table]]
                    + column(state, SHARE) * quote.offload_cost[[a.cut for a in ARMS.table]]
                )
                assert np.allclose(known, brute_force(kept[-40:], quote), atol=1e-12)
    assert len(kept) > 100


def test_it_is_tuned_when_it_is_due_and_at_first_as_soon_as_it_can_be():
    engine = Engine(WindowedERM(window=8, every=5, probe=1.0, warmup=3), arms=ARMS, seed=0, compiled=False)
    rng, tuned = np.random.default_rng(1), []
    for t in range(20):
        before = column(engine.state(), ANSWER).copy()
        decision = engine.decide(QUOTES[4])
        engine.update(decision, observe(drawn(rng), decision))
        if not np.array_equal(before, column(engine.state(), ANSWER)):
            tuned.append(t + 1)
    assert tuned == [3, 8, 13, 18]


def test_an_ordinary_offload_is_not_kept_although_it_shows_everything():
    """It shows the samples that its threshold was unsure of: their mean is not the stream's."""
    policy = WindowedERM(window=4_000, every=100, probe=0.1, warmup=20)
    engine = Engine(policy, arms=Arms.grid(exits=3, thresholds=(0.7,)), seed=0)
    rng, samples = np.random.default_rng(2), []
    shown, offloads = [], 0
    for _ in range(4_000):
        confidence = np.clip(rng.random() * np.array([1.0, 1.0, 0.2]) + [0.0, 0.0, 0.75], 0.0, 1.0)
        decision = engine.decide(QUOTES[1])
        seen = observe(confidence, decision, cloud_all=True)
        engine.update(decision, seen)
        samples.append(confidence)
        if not np.isnan(seen.confidence).any():
            shown.append(confidence)
        offloads += seen.offloaded
    state = engine.state()
    assert offloads > 500
    assert parameter(state, STORED) < len(shown) - 400
    truth = np.mean(samples, axis=0)[2]
    assert column(state, ANSWER)[-1] == pytest.approx(truth, abs=0.012)
    assert abs(np.mean(shown, axis=0)[2] - truth) > 0.02, "all that was shown would be biased here"


def test_probes_and_their_probabilities():
    rng = np.random.default_rng(3)
    for reveal_by, prober in (("final", Arm(3, -INF)), ("audit", Arm(2, INF))):
        policy = WindowedERM(window=30, every=10, probe=0.25, warmup=5, reveal_by=reveal_by)
        engine = Engine(policy, arms=ARMS, seed=4, compiled=False)
        audits = 0
        for t in range(400):
            quote = QUOTES[t // 40 % len(QUOTES)]
            ready = parameter(engine.state(), WEIGHT) >= 5
            best = int(np.argmax(values_of(engine.state(), quote)))
            decision = engine.decide(quote)
            arm = ARMS[decision.arm]
            audits += decision.audit
            if not ready:
                assert (arm, decision.p_action) == (prober, 1.0)
                assert decision.audit == (reveal_by == "audit")
            elif best == ARMS.table.index(prober):
                assert (decision.arm, decision.p_action) == (best, 1.0)
                assert decision.p_reveal == (0.25 if reveal_by == "audit" else 0.0)
            else:
                assert decision.p_action == (0.25 if arm == prober else 0.75)
                assert decision.p_reveal == (1.0 if reveal_by == "audit" and arm == prober else 0.0)
                assert arm in (prober, ARMS[best])
            engine.update(decision, observe(drawn(rng), decision))
        assert (audits > 50) == (reveal_by == "audit")


def values_of(state, quote):
    """What the state says of each arm at these prices."""
    cuts = [a.cut for a in ARMS.table]
    cost = quote.edge_cost[cuts] + column(state, SHARE) * quote.offload_cost[cuts]
    return column(state, ANSWER) - quote.mu * cost


def test_without_a_threshold_inf_an_audit_serves_the_edge_and_shows_all():
    arms = Arms.grid(exits=3, thresholds=(-INF, 0.5))
    engine = Engine(WindowedERM(reveal_by="audit", warmup=5), arms=arms, seed=0, compiled=False)
    for _ in range(5):
        decision = engine.decide(QUOTES[4])
        assert (decision.cut, decision.threshold, decision.audit, decision.p_reveal) == (2, 0.5, True, 1.0)
        seen = observe([0.4, 0.8, 0.9], decision)
        assert seen.audited
        engine.update(decision, seen)
    assert column(engine.state(), ANSWER).tolist() == pytest.approx([0.4, 0.9, 0.8, 0.8, 0.9])


def test_where_no_arm_shows_everything_it_stays_with_the_last_exit():
    """In a world that evaluates no heads before the cut."""
    engine = Engine(WindowedERM(warmup=5), arms=ARMS, seed=0, compiled=False)
    for _ in range(40):
        decision = engine.decide(QUOTES[4])
        assert decision.cut == 3
        engine.update(decision, observe([0.4, 0.8, 0.9], decision, prefix=False))
    assert parameter(engine.state(), STORED) == 0.0


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_what_is_not_offered_is_not_played(mu):
    nowhere = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[INF, INF, INF, 0.0], mu=mu)
    for reveal_by in ("final", "audit"):
        policy = WindowedERM(window=20, every=5, probe=0.5, warmup=5, reveal_by=reveal_by)
        engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
        for t in range(120):
            quote = (nowhere, QUOTES[4], nowhere)[t // 40]
            decision = engine.decide(quote)
            if quote is nowhere:
                assert decision.threshold == -INF
                assert (decision.p_action < 1.0 or reveal_by == "audit") or decision.cut == 3
            engine.update(decision, observe([0.2, 0.5, 0.9], decision))
        assert not np.isnan(engine.state()).any()


def test_forgetting_shortens_the_window_and_asks_for_new_samples():
    engine = Engine(WindowedERM(window=50, every=1, probe=1.0, warmup=4), arms=ARMS, seed=0, compiled=False)
    rng, kept = np.random.default_rng(5), []

    def go_on(n):
        for _ in range(n):
            decision = engine.decide(QUOTES[4])
            kept.append(drawn(rng))
            engine.update(decision, observe(kept[-1], decision))

    go_on(40)
    before = column(engine.state(), ANSWER).copy()
    engine.forget(0.2)
    assert np.array_equal(column(engine.state(), ANSWER), before), "what was learnt stays until the next tuning"
    go_on(1)
    assert np.allclose(values_of(engine.state(), QUOTES[4]), brute_force(kept[-9:], QUOTES[4]))
    calm = Engine(WindowedERM(window=50, every=1, probe=1e-6, warmup=4), arms=ARMS, seed=0, compiled=False)
    cuts = []
    for t in range(14):
        if t == 6:
            calm.forget(0.1)  # 4 samples weigh .4 now: 4 more are asked for
        decision = calm.decide(QUOTES[4])
        cuts.append(decision.cut)
        calm.update(decision, observe([0.9, 0.9, 0.9], decision))
    assert cuts == [3] * 4 + [1] * 2 + [3] * 4 + [1] * 4
    for _ in range(200):
        calm.forget(0.5)
    assert 0.0 < parameter(calm.state(), WEIGHT) < 1e-6
    assert calm.decide(QUOTES[4]).cut == 3


def test_another_table_of_arms_keeps_the_window_where_it_still_tells_everything():
    engine = Engine(WindowedERM(window=50, every=1, probe=1.0, warmup=4), arms=ARMS, seed=0, compiled=False)
    rng, kept = np.random.default_rng(5), []

    def go_on():
        decision = engine.decide(QUOTES[4])
        kept.append(drawn(rng))
        engine.update(decision, observe(kept[-1], decision))

    for _ in range(30):
        go_on()
    engine.change(ARMS.without([Arm(1, 0.5)]).plus([Arm(2, 0.6)]))
    go_on()
    state, arms = engine.state(), engine.arms.table
    cuts = [a.cut for a in arms]
    mine = column(state, ANSWER) - QUOTES[4].mu * (
        QUOTES[4].edge_cost[cuts] + column(state, SHARE) * QUOTES[4].offload_cost[cuts]
    )
    assert np.allclose(mine, brute_force(kept, QUOTES[4], arms))
    engine.change(engine.arms.without(cuts=[1]))
    assert parameter(engine.state(), STORED) == 31
    engine.change(engine.arms.plus([Arm(1, 0.5)]))
    assert parameter(engine.state(), STORED) == 0


@pytest.mark.parametrize(
    "policy",
    [
        WindowedERM(window=60, every=20, probe=0.1, warmup=20),
        WindowedERM(window=60, every=7, probe=0.3, warmup=20, reveal_by="audit"),
    ],
)
def test_contract_and_replay(policy, small):
    for check in policy_checks(policy):
        check()
    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    fast, fast_state = rollout(policy, small, stream, horizon=300, seed=0)
    slow, slow_state = replay(policy, small, stream, horizon=300, seed=0)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(fast_state, slow_state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WindowedERM(window=0), "window is 0, allowed"),
        (lambda: WindowedERM(every=0), "every is 0, allowed"),
        (lambda: WindowedERM(probe=0.0), r"probe is 0.0, allowed is a number in \(0, 1\]"),
        (lambda: WindowedERM(warmup=501), r"warmup is 501, allowed is a number in 1\.\.500"),
        (lambda: WindowedERM(reveal_by="all"), "reveal_by is 'all', allowed is one of"),
        (lambda: WindowedERM(cuts=(1, 2)).initial(ARMS, 0), "reveal_by is 'final', allowed with cuts"),
        (lambda: WindowedERM(cuts=(0, 3), reveal_by="audit").initial(ARMS, 0), "none can be audited"),
    ],
)
def test_what_is_not_allowed_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
