"""The engine as a service sees it: bad input, feedback late, twice or never, many streams, stop and go on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import (
    UCB1,
    AdaEE,
    Arms,
    ContractError,
    Engine,
    ISplitEE,
    Observation,
    Quote,
    RandomArm,
    SplitEE,
    SplitEES,
)

NAN = float("nan")
ARMS = Arms.grid(exits=3, thresholds=(0.5, 0.8))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)


def observed(decision, confidence=(0.6, 0.7, 0.9)):
    cut = decision.cut
    local = confidence[cut - 1] >= decision.threshold
    shown = [c if j < cut or (not local and j == 2) else NAN for j, c in enumerate(confidence)]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_cost": [0, -0.1, 0.3, 0.6]}, r"edge_cost of cut 1 is -0.1, allowed is a finite number >= 0"),
        ({"edge_cost": [0, NAN, 0.3, 0.6]}, r"edge_cost of cut 1 is nan"),
        ({"edge_cost": [0, 0.1, math.inf, 0.6]}, r"edge_cost of cut 2 is inf"),
        ({"offload_cost": [0.4, NAN, 0.2, 0]}, r"offload_cost of cut 1 is nan, allowed is a number >= 0 or \+inf"),
        ({"offload_cost": [0.4, 0.3, 0.2, 0.1]}, r"offload_cost of the last cut is 0.1, allowed is 0"),
        ({"offload_cost": [0.4, 0.3, 0]}, r"edge_cost has shape \(4,\) and offload_cost \(3,\)"),
        ({"mu": -1.0}, r"mu is -1.0, allowed is a finite number >= 0"),
        ({"mu": math.inf}, r"mu is inf"),
    ],
)
def test_bad_quotes(change, message):
    good = {"edge_cost": [0, 0.1, 0.3, 0.6], "offload_cost": [0.4, 0.3, 0.2, 0], "mu": 1.0}
    with pytest.raises(ContractError, match=message):
        Quote(**good | change)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"confidence": [1.2, NAN, NAN], "answered_at": 1, "offloaded": False},
            r"confidence of exit 1 is 1.2, allowed is \[0, 1\]",
        ),
        (
            {"confidence": [0.9, NAN, NAN], "answered_at": 4, "offloaded": False},
            r"answered_at is 4.0, allowed is a whole number in 1..3",
        ),
        ({"confidence": [0.9, NAN, NAN], "answered_at": 0, "offloaded": False}, r"answered_at is 0"),
        ({"confidence": [0.9, NAN, NAN], "answered_at": 1, "offloaded": True}, r"sure enough to answer"),
        ({"confidence": [0.2, NAN, NAN], "answered_at": 1, "offloaded": False}, r"does not let exit 1 answer"),
        ({"confidence": [NAN, NAN, NAN], "answered_at": 1, "offloaded": False}, r"does not let exit 1 answer"),
        ({"confidence": [0.2, 0.9, NAN], "answered_at": 2, "offloaded": False}, r"does not let exit 2 answer"),
        ({"confidence": [0.2, 0.9], "answered_at": 2, "offloaded": True}, r"confidence has 2 values, allowed are 3"),
    ],
)
def test_bad_observations_teach_nothing_and_leave_the_decision_open(bad, message):
    engine = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0)
    decision = engine.decide(QUOTE)
    before = engine.state()
    with pytest.raises(ContractError, match=message):
        engine.update(decision, Observation(**bad))
    assert np.array_equal(engine.state(), before)
    assert engine.update(decision, observed(decision))


def test_wrong_engine_inputs():
    engine = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0)
    with pytest.raises(ContractError, match="speaks of 2 exits, the engine was built for 3"):
        engine.decide(Quote(edge_cost=[0, 1, 2], offload_cost=[1, 1, 0], mu=1))
    with pytest.raises(ContractError, match="the context has 2 features, the engine was built for 0"):
        engine.decide(QUOTE, [1.0, 2.0])
    with pytest.raises(ValueError, match="stream 'left' is not open"):
        engine.decide(QUOTE, stream="left")
    with pytest.raises(ValueError, match="open already"):
        engine.start("default")
    with pytest.raises(ValueError, match=r"factor is 0\.0"):
        engine.forget(0.0)
    with pytest.raises(ValueError, match="open_decisions 0"):
        Engine(SplitEE(), arms=ARMS, seed=0, open_decisions=0)


def test_context_travels_and_is_checked():
    engine = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0, features=2)
    assert engine.decide(QUOTE, [0.25, 0.5]).context.tolist() == [0.25, 0.5]
    with pytest.raises(ContractError, match="context feature 1 is nan, allowed is a finite number"):
        engine.decide(QUOTE, [0.25, NAN])
    with pytest.raises(ContractError, match="the context has 0 features"):
        engine.decide(QUOTE)


def test_the_decision_is_complete():
    decision = Engine(RandomArm(), arms=ARMS, seed=0).decide(QUOTE)
    assert decision.p_action == 1 / len(ARMS)
    assert decision.quote.edge_cost.tolist() == QUOTE.edge_cost.tolist()
    assert decision.quote.offload_cost.tolist() == QUOTE.offload_cost.tolist()
    assert (decision.id, decision.stream, decision.round, decision.audit, decision.p_reveal) == (
        0,
        "default",
        0,
        False,
        0.0,
    )
    assert len(decision.thresholds) == 3
    assert np.isfinite(decision.thresholds).sum() <= 1


def test_propensity_of_late_feedback_is_that_of_its_own_decision():
    engine = Engine(RandomArm(), arms=ARMS, seed=0)
    first = engine.decide(QUOTE)
    kept = first.row.copy()
    for _ in range(50):
        engine.decide(QUOTE)
    assert np.array_equal(first.row, kept)


def test_open_decisions_are_bounded():
    engine = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0, open_decisions=10)
    decisions = [engine.decide(QUOTE) for _ in range(25)]
    counted = [engine.update(d, observed(d)) for d in decisions]
    assert counted == [False] * 15 + [True] * 10


def test_batches_equal_single_calls():
    one, many = (Engine(UCB1(), arms=ARMS, seed=0) for _ in range(2))
    for size in (1, 5, 17):
        single = [one.decide(QUOTE) for _ in range(size)]
        batch = many.decide_many([QUOTE] * size)
        assert all(np.array_equal(a.row, b.row) for a, b in zip(single, batch, strict=True))
        for d in single:
            one.update(d, observed(d))
        assert many.update_many((d, observed(d)) for d in batch) == size
        assert np.array_equal(one.state(), many.state())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=60), st.integers(0, 2**31))
def test_any_order_of_feedback_counts_each_decision_once(plan, seed):
    """Whatever comes late, twice or never: counted once each, and only the order of arrival matters."""
    engine = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0)
    rng = np.random.default_rng(seed)
    decisions = [engine.decide(QUOTE) for _ in range(41)]
    seen = [observed(d, np.sort(rng.random(3))) for d in decisions]
    counted = set()
    for which, times in plan:
        for _ in range(times):
            assert engine.update(decisions[which], seen[which]) == (which not in counted)
            counted.add(which)
    clean = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0)
    mine = [clean.decide(QUOTE) for _ in range(41)]
    for which in dict.fromkeys(w for w, _ in plan):
        clean.update(mine[which], seen[which])
    assert np.array_equal(engine.state(), clean.state())


def test_snapshot_keeps_open_decisions_and_refuses_another_policy():
    engine = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0)
    decision = engine.decide(QUOTE)
    kept = engine.snapshot()
    engine.update(decision, observed(decision))
    other = Engine(SplitEE(threshold=0.5), arms=ARMS, seed=1)
    other.restore(kept)
    assert other.update(decision, observed(decision))
    assert np.array_equal(other.state(), engine.state())
    with pytest.raises(ValueError, match="the snapshot's policy is"):
        Engine(SplitEE(threshold=0.8), arms=ARMS, seed=0).restore(kept)
    with pytest.raises(ValueError, match="the snapshot's arms is"):
        Engine(SplitEE(threshold=0.5), arms=Arms.grid(exits=3, thresholds=(0.5,)), seed=0).restore(kept)


def test_a_decision_of_another_engine_is_refused():
    """It would be learnt for the wrong arm, or out of bounds."""
    large, small = Engine(UCB1(), arms=Arms.grid(exits=3), seed=0), Engine(SplitEE(threshold=0.5), arms=ARMS, seed=0)
    for _ in range(15):
        foreign, own = large.decide(QUOTE), small.decide(QUOTE)
    before = small.state()
    with pytest.raises(ContractError, match="made by another engine"):
        small.update(foreign, observed(foreign))
    foreign.row[2] = own.row[2]  # not even when its arm's number fits
    with pytest.raises(ContractError, match="not made by this engine"):
        small.update(foreign, observed(foreign))
    assert np.array_equal(small.state(), before)
    assert small.update(own, observed(own))


@pytest.mark.parametrize("policy", [UCB1(), AdaEE(cut=2, side_observations=True), SplitEES(threshold=0.5), ISplitEE()])
def test_forgetting_for_ever_leaves_a_working_policy(policy):
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    for _ in range(1_500):
        decision = engine.decide(QUOTE)
        engine.update(decision, observed(decision))
        engine.forget(0.3)
    assert np.isfinite(engine.state()[int(engine.state()[7]) :]).all()


def test_adaee_learns_nothing_where_its_own_confidence_was_lost():
    engine = Engine(AdaEE(cut=2, side_observations=True), arms=ARMS, seed=0)
    for _ in range(20):
        decision = engine.decide(QUOTE)
        lost = Observation(confidence=[NAN, NAN, 0.9], answered_at=3, offloaded=True)
        engine.update(decision, lost)
    assert np.isfinite(engine.state()[int(engine.state()[7]) :]).all()


def test_streams_draw_their_own_randomness():
    engine = Engine(RandomArm(), arms=ARMS, seed=0)
    engine.start("left")
    engine.start("right", like="left")
    engine.start("")
    engine.start("\x00")
    drawn = {s: [engine.decide(QUOTE, stream=s).arm for _ in range(64)] for s in engine.streams}
    assert len({tuple(a) for a in drawn.values()}) == 5
    again = Engine(RandomArm(), arms=ARMS, seed=0)
    again.start("left")
    assert [again.decide(QUOTE, stream="left").arm for _ in range(64)] == drawn["left"]


def test_an_outage_is_a_price():
    """Where sending is quoted at +inf, an arm that has offloaded before is not chosen."""
    engine = Engine(UCB1(beta=0.1, thresholds=(0.8,)), arms=ARMS, seed=0)
    for _ in range(30):
        decision = engine.decide(QUOTE)
        engine.update(decision, observed(decision))
    outage = Quote(edge_cost=QUOTE.edge_cost, offload_cost=[math.inf, math.inf, math.inf, 0.0], mu=1.0)
    assert engine.decide(outage).cut == 3


def test_arms_validate():
    from offramp.bandits import Arm

    with pytest.raises(ValueError, match=r"is not an arm: the cut must be in 0\.\.2"):
        Arms(exits=2, table=(Arm(3, 0.5),))
    with pytest.raises(ValueError, match=r"cut 0 goes with threshold \+inf"):
        Arms(exits=2, table=(Arm(0, 0.5),))
    with pytest.raises(ValueError, match="holds an arm twice"):
        Arms(exits=2, table=(Arm(1, 0.5), Arm(1, 0.5)))
    with pytest.raises(ValueError, match="empty"):
        Arms(exits=2, table=())
    assert Arms(exits=2, table=(Arm(2, -math.inf), Arm(1, 0.9), Arm(1, 0.2))).table[0] == Arm(1, 0.2)
