"""Arms that come and go: what stays is kept bit for bit, what comes was never tried, open decisions stay welcome."""

import math

import numpy as np
import pytest

from offramp.bandits import (
    UCB1,
    AdaEE,
    Arm,
    Arms,
    ConformalFloor,
    ContractError,
    Engine,
    Fixed,
    ISplitEE,
    Observation,
    Quote,
    RandomArm,
    SplitEE,
    SplitEES,
)
from offramp.bandits.agreement_floor import AgreementFloor
from offramp.bandits.budget import Budget, spending
from offramp.bandits.reveal import reveal
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FREE, HEADER
from offramp.bandits.ucb1 import CHOSEN, COLD, COLUMNS, PARAMETERS, PULLS

NAN = float("nan")
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
TABLE = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.7))
CARRIED = [
    UCB1(),
    SplitEE(),
    SplitEES(),
    AdaEE(cut=2, side_observations=True),
    ISplitEE(oracle_side_information=True, as_released=True),
    RandomArm(),
    Fixed(cut=3, threshold=-math.inf),
    Budget(policy=UCB1(), ceiling=0.35),
    AgreementFloor(policy=Budget(policy=RandomArm(), ceiling=0.4)),
]


def seen(decision, rng, oracle=False):
    made = Observation(confidence=[NAN] * 3, answered_at=1, offloaded=False)
    reveal(np.sort(rng.random(3)), np.arange(3), decision.row, np.array([1, 0, int(oracle), 0]), made.row)
    return made


def play(engine, rounds, rng):
    oracle = getattr(engine.policy, "oracle_side_information", False)
    for _ in range(rounds):
        decision = engine.decide(QUOTE)
        engine.update(decision, seen(decision, rng, oracle))


def columns(engine):
    """What UCB1 knows of each arm: its own numbers by (cut, threshold)."""
    state = engine.state()
    n, at = int(state[COUNT]), int(state[FREE]) + PARAMETERS
    known = state[at : at + COLUMNS * n].reshape(COLUMNS, n)
    return {(state[HEADER + n + a], state[HEADER + 2 * n + a]): known[:, a].tolist() for a in range(n)}


def test_what_stays_is_kept_and_what_comes_was_never_tried():
    engine, rng = Engine(UCB1(), arms=TABLE, seed=0, compiled=False), np.random.default_rng(0)
    play(engine, 200, rng)
    before, rounds = columns(engine), engine.state()[0]
    engine.change(engine.arms.without(cuts=[1]).plus([Arm(2, 0.9), Arm(2, 0.6)]))
    after = columns(engine)
    assert set(after) == {(2, -math.inf), (2, 0.5), (2, 0.6), (2, 0.7), (2, 0.9), (3, -math.inf)}
    for arm, known in after.items():
        assert known == before.get(arm, [0.0] * COLUMNS)
    assert engine.state()[0] == rounds
    assert engine.state()[int(engine.state()[FREE]) + COLD] == 2.0
    tried = [engine.decide(QUOTE).threshold for _ in range(2)]
    assert tried == [0.6, 0.9]
    assert {d.cut for d in (engine.decide(QUOTE) for _ in range(20))} <= {2, 3}


@pytest.mark.parametrize("policy", CARRIED, ids=str)
def test_an_arm_that_comes_and_goes_untouched_leaves_no_trace(policy):
    one, two = (Engine(policy, arms=TABLE, seed=3, compiled=False) for _ in range(2))
    for engine in (one, two):
        play(engine, 60, np.random.default_rng(1))
    one.change(one.arms.plus([Arm(1, 0.1), Arm(2, 0.6)]))
    one.change(one.arms.without([Arm(1, 0.1), Arm(2, 0.6)]))
    if not isinstance(policy, AgreementFloor):  # its inner policy's last draws are used up, and not kept
        assert np.array_equal(one.state(), two.state())
    for engine in (one, two):
        play(engine, 40, np.random.default_rng(2))
    assert np.array_equal(one.state(), two.state())


@pytest.mark.parametrize("policy", [*CARRIED[:3], AdaEE(cut=2), CARRIED[7]], ids=str)
def test_open_decisions_teach_the_arm_that_was_played(policy):
    """Feedback after a change that shifts all places, or after two, teaches as feedback before it."""
    late, early = (Engine(policy, arms=TABLE, seed=0, compiled=False) for _ in range(2))
    rng = np.random.default_rng(5)
    wait = [(late.decide(QUOTE), early.decide(QUOTE)) for _ in range(5)]
    told = [seen(d, rng) for d, _ in wait]
    for (_, decision), observation in zip(wait, told, strict=True):
        early.update(decision, observation)
    for engine in (late, early):
        engine.change(engine.arms.plus([Arm(1, 0.2), Arm(2, 0.2)]))
        engine.change(engine.arms.without([Arm(1, 0.2)]))
    restored = Engine(policy, arms=late.arms, seed=9, compiled=False)
    restored.restore(late.snapshot())
    for engine in (late, restored):
        for (decision, _), observation in zip(wait, told, strict=True):
            row = decision.row.copy()
            assert engine.update(decision, observation)
            assert not engine.update(decision, observation)
            assert np.array_equal(decision.row, row)
        assert np.array_equal(engine.state(), early.state())


def test_open_decisions_of_a_withdrawn_arm_are_accepted_and_teach_nothing():
    engine = Engine(UCB1(), arms=TABLE, seed=0, compiled=False)
    gone = engine.decide(QUOTE)
    assert (gone.cut, gone.threshold) == (1, -math.inf)
    engine.change(engine.arms.without([Arm(1, -math.inf)]))
    before = engine.state()
    with pytest.raises(ContractError, match="does not let exit 2 answer"):
        engine.update(gone, Observation(confidence=[0.4, 0.5, NAN], answered_at=2, offloaded=False))
    with pytest.raises(ContractError, match="exit 2 is revealed"):
        engine.update(gone, Observation(confidence=[0.4, 0.5, NAN], answered_at=1, offloaded=False))
    told = Observation(confidence=[0.4, NAN, NAN], answered_at=1, offloaded=False)
    nxt = engine.step(gone, told, QUOTE)
    assert (nxt.cut, nxt.threshold) == (1, 0.5)
    assert not engine.update(gone, told)
    state = engine.state()
    chosen = int(state[FREE]) + PARAMETERS
    state[chosen] -= 1.0
    state[[0, 14]] -= 1.0
    assert np.array_equal(state, before)


def test_all_streams_change_or_none():
    engine, rng = Engine(SplitEE(), arms=TABLE, seed=0, compiled=False), np.random.default_rng(0)
    play(engine, 20, rng)
    engine.start("left", like="default")
    engine.start("empty")
    arms, before = engine.arms, {s: engine.state(s) for s in engine.streams}
    for table, message in (
        (lambda: arms.without([Arm(1, 0.7), Arm(2, 0.7)]), r"threshold 0\.7 is not in the table"),
        (lambda: arms.without(arms.table), "the table of arms is empty"),
        (lambda: arms.without(cuts=[9]), r"cuts are \[9\], allowed are those in the table"),
        (lambda: arms.without([Arm(1, 0.99)]), "withdrawn are"),
        (lambda: arms.plus([Arm(1, 0.7)]), "holds an arm twice"),
        (lambda: Arms.grid(exits=2), "exits is 2, allowed is 3 as before"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.change(table())
        assert engine.arms == arms
        assert all(np.array_equal(engine.state(s), before[s]) for s in engine.streams)
    engine.change(arms.without(cuts=[1]))
    assert {s: engine.state(s)[COUNT] for s in engine.streams} == dict.fromkeys(engine.streams, 2.0)


def test_what_a_policy_plays_must_stay():
    engine = Engine(Fixed(cut=2, threshold=0.5), arms=TABLE, seed=0)
    with pytest.raises(ValueError, match="is not in the table of arms"):
        engine.change(engine.arms.without(cuts=[2]))
    engine = Engine(AdaEE(cut=1), arms=TABLE, seed=0)
    with pytest.raises(ValueError, match="plays none of the arms"):
        engine.change(engine.arms.without(cuts=[1]))


class Keeps(UCB1):
    """A policy with a number that nobody has said how to carry over."""

    def initial(self, arms, features):
        state = super().initial(arms, features)
        state[9] -= 1.0
        state[10] = 1.0
        return state


@pytest.mark.parametrize("policy", [Keeps(), ConformalFloor(policy=UCB1())], ids=["extra", "wrapper"])
def test_who_keeps_more_is_refused(policy):
    table = Arms.grid(exits=3, thresholds=(0.5, math.inf))
    engine = Engine(policy, arms=table, seed=0, compiled=False)
    before = engine.state()
    with pytest.raises(ValueError, match=r"cannot take another table of arms: it keeps .*, allowed are policies"):
        engine.change(table.without([Arm(1, 0.5)]))
    assert np.array_equal(engine.state(), before)


def test_a_decision_that_was_never_made_is_refused_after_a_change():
    engine = Engine(UCB1(), arms=TABLE, seed=0, compiled=False)
    decision = engine.decide(QUOTE)
    engine.change(engine.arms.without(cuts=[2]))
    decision.row[3] = 6.0
    with pytest.raises(ContractError, match="not made by this engine"):
        engine.update(decision, Observation(confidence=[0.9, NAN, NAN], answered_at=1, offloaded=False))


def test_a_bucket_goes_over_to_the_new_table():
    engine, rng = (
        Engine(Budget(policy=UCB1(), ceiling=0.3), arms=TABLE, seed=0, compiled=False),
        np.random.default_rng(0),
    )
    play(engine, 200, rng)
    before = spending(engine.state())
    engine.change(engine.arms.without([Arm(1, 0.5)]).plus([Arm(2, 0.9)]))
    assert spending(engine.state()) == before
    play(engine, 200, rng)


def test_a_new_price_list_needs_no_change():
    """Prices come with each quote: the next decision knows them, and no arm is tried anew."""
    engine, rng = Engine(UCB1(beta=0.05), arms=TABLE, seed=0, compiled=False), np.random.default_rng(0)
    play(engine, 300, rng)
    assert engine.decide(QUOTE).cut < 3
    pulled = [known[PULLS] for known in columns(engine).values()]
    dear = Quote(edge_cost=[0.0, 0.9, 0.95, 0.3], offload_cost=[9.0, 9.0, 9.0, 0.0], mu=1.0)
    assert engine.decide(dear).cut == 3
    assert [known[PULLS] for known in columns(engine).values()] == pulled
    assert CHOSEN == 0
