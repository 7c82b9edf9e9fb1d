"""Bad input: what cannot have been seen, paid, played or told is a clear error, and nothing has changed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import UCB1, Arm, Arms, ContractError, Engine, Fixed, ISplitEE, Observation, Quote, SplitEES
from offramp.bandits.conformal_floor import ConformalFloor
from offramp.bandits.reveal import fall_back, reveal
from offramp.bandits.rows import AUDIT, CUT, EXITS, check_hidden, check_observation, context_at, thresholds_at

NAN = float("nan")
ARMS = Arms.grid(exits=3, thresholds=(0.5, 0.8, math.inf))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)


def refused(engine, decision, message, **told):
    before, open_before = engine.state(), dict(engine._streams["default"].pending)
    with pytest.raises(ContractError, match=message):
        engine.update(decision, Observation(**told))
    with pytest.raises(ContractError, match=message):
        engine.step(decision, Observation(**told), QUOTE)
    assert np.array_equal(engine.state(), before)
    assert engine._streams["default"].pending == open_before


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"confidence": [0.6, 0.7, 0.9], "answered_at": 2, "offloaded": False},
            r"exit 3 is revealed \(confidence 0.9\), allowed is nan without class: exit 2 answered on the edge",
        ),
        (
            {"confidence": [0.6, 0.7, NAN], "answered_at": 2, "offloaded": False, "prediction": [1, 1, 4]},
            "exit 3 is revealed",
        ),
        (
            {"confidence": [0.6, 0.7, NAN], "answered_at": 2, "offloaded": False, "audited": True},
            "audited is 1, allowed is 0",
        ),
        (
            {"confidence": [0.2, 0.7, NAN], "answered_at": 2, "offloaded": False, "prediction": [1, NAN, -1]},
            "prediction of exit 2 is nan, allowed is a whole number >= -1",
        ),
        (
            {"confidence": [0.2, 0.7, NAN], "answered_at": 2, "offloaded": False, "prediction": [1, 2.5, -1]},
            "prediction of exit 2 is 2.5",
        ),
        (
            {"confidence": [0.2, 0.7, NAN], "answered_at": 2, "offloaded": False, "prediction": [-2, 2, -1]},
            "prediction of exit 1 is -2.0",
        ),
        ({"confidence": [0.2, 0.7, NAN], "answered_at": 2, "offloaded": False, "edge_cost": -0.1}, "edge_cost is -0.1"),
        (
            {"confidence": [0.2, 0.7, NAN], "answered_at": 2, "offloaded": True, "offload_cost": -1.0},
            "offload_cost is -1.0",
        ),
    ],
)
def test_what_an_answer_on_the_edge_cannot_show(told, message):
    engine = Engine(Fixed(cut=2, threshold=0.5), arms=ARMS, seed=0)
    decision = engine.decide(QUOTE)
    refused(engine, decision, message, **told)
    assert engine.update(decision, Observation(confidence=[0.6, 0.7, NAN], answered_at=2, offloaded=False))


def test_what_the_cloud_likes_to_return_is_taken():
    """One confidence or all deeper ones; and an audit shows them as well."""
    for told in ([0.2, 0.3, 0.9], [NAN, 0.3, 0.9], [0.2, NAN, 0.9], [NAN, NAN, 0.9]):
        engine = Engine(Fixed(cut=1, threshold=0.5), arms=ARMS, seed=0)
        decision = engine.decide(QUOTE)
        assert engine.update(decision, Observation(confidence=told, answered_at=3, offloaded=True))
    engine = Engine(ConformalFloor(policy=Fixed(cut=1, threshold=0.5), audit=1.0), arms=ARMS, seed=0)
    decision = engine.decide(QUOTE)
    audited = Observation(confidence=[0.6, 0.7, 0.9], answered_at=1, offloaded=False, audited=True)
    assert engine.update(decision, audited)
    decision = engine.decide(QUOTE)
    refused(engine, decision, "exit 3 is revealed", confidence=[0.6, NAN, 0.9], answered_at=1, offloaded=False)


def test_an_audit_of_what_leaves_nothing_to_send():
    engine = Engine(Fixed(cut=3, threshold=-math.inf), arms=ARMS, seed=0)
    decision = engine.decide(QUOTE)
    decision.row[AUDIT] = 1.0
    told = {"confidence": [0.6, 0.7, 0.9], "answered_at": 3, "offloaded": False, "audited": True}
    refused(engine, decision, "or left nothing to send", **told)
    decision.row[AUDIT] = 0.0
    assert engine.update(decision, Observation(**told | {"audited": False}))  # the audit was all that was wrong


def test_an_earlier_exit_that_was_sure_enough():
    row, seen = np.zeros(context_at(3)), np.full(11, -1.0)
    row[EXITS], row[CUT] = 3, 2
    row[thresholds_at(3) : thresholds_at(3) + 3] = 0.5, 0.6, math.inf
    seen[:8] = 2, 0, 0, NAN, NAN, 0.55, 0.7, NAN
    assert check_observation(row, seen, 3) != 0
    seen[5] = 0.45
    assert check_observation(row, seen, 3) == 0
    seen[5] = NAN
    assert check_observation(row, seen, 3) == 0


def test_replicas_of_published_code_see_all_and_nobody_else():
    told = {"confidence": [0.9, 0.7, 0.9], "answered_at": 1, "offloaded": False}
    for policy in (
        SplitEES(threshold=0.5, oracle_side_information=True),
        ISplitEE(oracle_side_information=True, as_released=True),
        ConformalFloor(policy=SplitEES(threshold=0.5, oracle_side_information=True)),
    ):
        engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
        assert engine.update(engine.decide(QUOTE), Observation(**told))
    engine = Engine(SplitEES(threshold=0.5), arms=ARMS, seed=0, compiled=False)
    refused(engine, engine.decide(QUOTE), "exit 2 is revealed", **told)


SURE = st.sampled_from([0.2, 0.3, 0.5, 0.7])
RULE = st.sampled_from([-np.inf, 0.3, 0.5, 0.6, np.inf, np.inf])


@settings(max_examples=400)
@given(
    st.lists(SURE, min_size=4, max_size=4),
    st.lists(RULE, min_size=4, max_size=4),
    st.integers(0, 4),
    st.tuples(*[st.integers(0, 1)] * 3),
    st.booleans(),
    st.integers(0, 3),
)
def test_what_a_world_reveals_is_taken_and_no_more(truth, rule, cut, rules, audit, also):
    row, seen = np.zeros(context_at(4)), np.zeros(5 + 8)
    row[EXITS], row[CUT], row[AUDIT] = 4, cut, audit
    thresholds = [t if i < cut else np.inf for i, t in enumerate(rule)]
    if cut == 4:
        thresholds[3] = -np.inf
    row[thresholds_at(4) : thresholds_at(4) + 4] = thresholds
    prefix, cloud_all, fallback = rules
    options = np.array([prefix, cloud_all, 0, fallback])
    reveal(np.array(truth), np.arange(4), row, options, seen)
    if fallback:
        fall_back(np.array(truth), row, options, seen)
    assert check_observation(row, seen, 4) == 0
    assert check_hidden(seen, 4) == 0
    if not seen[1] and not seen[2] and also >= seen[0]:  # an exit beyond the one that answered
        seen[5 + also] = 0.5
        assert check_hidden(seen, 4) != 0


@pytest.mark.parametrize("at", range(9, 17))
@pytest.mark.parametrize("value", [NAN, -0.1])
def test_prices_that_are_none(at, value):
    """Also where the quote was changed after it was made; the costs of cut 0 stand at 9 and 13."""
    engine = Engine(UCB1(), arms=ARMS, seed=0)
    quote = Quote(edge_cost=QUOTE.edge_cost, offload_cost=QUOTE.offload_cost, mu=1.0)
    quote.row[at] = value
    before = engine.state()
    with pytest.raises(ContractError, match=rf"cost of cut \d is {value}, allowed is"):
        engine.decide(quote)
    assert np.array_equal(engine.state(), before)
    assert not engine._streams["default"].pending


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((), "empty"),
        ((Arm(1, 0.5), Arm(1, 0.5)), "holds an arm twice"),
        ((Arm(1.5, 0.5),), "is not an arm: the cut must be in"),
        ((Arm(1, NAN),), "the threshold a number"),
        ((Arm(-1, 0.5),), "is not an arm"),
    ],
)
def test_arm_sets_that_are_none(table, message):
    with pytest.raises(ValueError, match=message):
        Arms(exits=2, table=table)


@pytest.mark.parametrize("context", [None, [], [0.1], [0.1, 0.2, 0.3], [0.1, NAN], [0.1, math.inf], [[0.1] * 3], "ab"])
def test_contexts_that_do_not_fit(context):
    engine = Engine(UCB1(), arms=ARMS, seed=0, features=2)
    before = engine.state()
    with pytest.raises(ContractError, match="context"):
        engine.decide(QUOTE, context)
    assert np.array_equal(engine.state(), before)
    decision = engine.decide(QUOTE, [0.1, 0.2])
    seen = Observation(confidence=[0.9, NAN, NAN], answered_at=1, offloaded=False)
    assert engine.update(decision, seen)
