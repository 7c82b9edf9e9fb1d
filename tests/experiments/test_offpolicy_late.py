"""Evaluation from logs whose feedback came late and in no order, or whose decisions were made by several deciders."""

import sqlite3

import numpy as np
import pytest

from offramp.bandits import EXP3, EXP3S, Arm, Arms, EpsilonGreedy, Exp3IX, Observation, Quote, rows
from offramp.bandits.durable import Decider, DurableEngine
from offramp.bandits.durable.fold import Fold
from offramp.bandits.reveal import reveal
from offramp.experiments.offpolicy import Log, evaluate
from offramp.experiments.offpolicy.chances import Recomputed
from offramp.experiments.offpolicy.simulated import Setting, logged, played

ARMS = Arms.grid(exits=3, thresholds=(0.5, 0.75))
QUOTE = Quote(edge_cost=[0.0, 0.125, 0.25, 0.5], offload_cost=[0.5, 0.375, 0.25, 0.0], mu=0.5)
KEY = bytes(32)
POLICIES = [EpsilonGreedy(epsilon=0.2, decay=20.0), EXP3(gamma=0.3), EXP3S(), Exp3IX(share=0.05, memory=4)]


def named(policy):
    return type(policy).__name__


def seen(ticket, truth):
    """What a decision reveals of a sample."""
    row = np.full(11, np.nan)
    reveal(truth, np.zeros(3, dtype=int), ticket.row, np.array([1, 0, 0, 0]), row)
    return Observation(
        confidence=row[rows.CONFIDENCE : rows.CONFIDENCE + 3],
        answered_at=int(row[rows.ANSWERED_AT]),
        offloaded=bool(row[rows.OFFLOADED]),
    )


def store_of(path, policy, *, late, deciders, board=25, lost=()):
    """A store with feedback `late` decisions late and in no order; the engine decides too, between its deciders."""
    rng = np.random.default_rng(1)
    with DurableEngine(path, policy, arms=ARMS, key=KEY) as engine:
        engine.publish()
        makers = [engine, *(Decider(f"{path}.board", key=KEY) for _ in range(deciders))]
        open_ = []
        for t in range(400):
            ticket = makers[t % len(makers)].decide(QUOTE)
            if t not in lost:
                open_.append((ticket, seen(ticket, rng.choice((0.25, 0.5, 0.75, 1.0), 3))))
            while len(open_) > (late if t < 399 else 0):
                engine.update(*open_.pop(int(rng.integers(len(open_)))))
            if t % board == 0:
                engine.publish()
    return path


def stated_again(log):
    """Is the recomputed probability of what was played the one that was stated, on every request?"""
    at = [int(np.flatnonzero((log.rules == rule).all(axis=1))[0]) for rule in log.played]
    assert np.allclose(log.chance[np.arange(len(log)), at], log.decision[:, rows.P_ACTION], rtol=1e-9, atol=0.0)
    assert np.allclose(log.chance.sum(axis=1), 1.0)
    return True


@pytest.mark.parametrize("policy", POLICIES, ids=named)
@pytest.mark.parametrize(("late", "deciders"), [(100, 0), (3, 2), (60, 2)])
def test_what_a_decision_was_drawn_from_follows_from_its_cursor(tmp_path, policy, late, deciders):
    log = Log.read(store_of(tmp_path / "store", policy, late=late, deciders=deciders))
    assert (len(log), log.why) == (400, "")
    assert stated_again(log)
    assert len(np.unique(log.chance, axis=0)) > 5  # it learnt


def test_requests_stand_in_the_order_in_which_they_were_decided(small):
    arrays = small.arrays(("clear",), (0.5, 2.0))
    policy = EpsilonGreedy(epsilon=0.3)
    entries = list(played(policy, small.arms, arrays, requests=200, seed=3, late=40))
    order = [e.number for e in entries]
    assert order != sorted(order)
    assert max(e.seq - 1 - e.cursor for e in entries) > 40
    log = logged(policy, small.arms, arrays, requests=200, seed=3, late=40)
    assert np.array_equal(log.decision, np.array([e.decision for e in sorted(entries, key=lambda e: e.number)]))


def test_where_the_log_lacks_decisions_there_is_no_distribution(tmp_path):
    path = store_of(tmp_path / "store", Exp3IX(share=0.05, memory=4), late=20, deciders=0, lost=(50,))
    log = Log.read(path)
    assert log.chance is None
    assert "a decider states a probability of" in log.why
    played_alone = evaluate([(1.0, Arm(3, -np.inf))], log)
    assert played_alone.refusal == ""
    assert set(played_alone.estimates) == {"ips", "snips", "dr"}


def test_a_log_of_the_first_schema_counts_plays_alone(tmp_path):
    path = store_of(tmp_path / "store", EpsilonGreedy(epsilon=0.5), late=7, deciders=0)
    assert evaluate([(1.0, Arm(2, 0.6))], Log.read(path)).refusal == ""
    made = sqlite3.connect(path)
    made.execute("update feedback set cursor = null")
    made.commit()
    made.close()
    log = Log.read(path)
    assert log.chance is None
    assert "begun by an earlier version, does not say what its decisions were made with" in log.why
    assert set(evaluate([(1.0, Arm(3, -np.inf))], log).estimates) == {"ips", "snips", "dr"}
    other = evaluate([(1.0, Arm(2, 0.6))], log)
    assert other.best is None
    assert "counts by its own plays, and the target was hardly drawn; request" in other.refusal


def test_cursors_that_cannot_be_are_refused(small):
    arrays = small.arrays(("clear",), (1.0,))
    policy = EpsilonGreedy(epsilon=0.3)
    entries = list(played(policy, small.arms, arrays, requests=60, seed=3, late=10))
    for wrong in (-1, 45):  # before the log begins; more than it held
        spoilt = [e._replace(cursor=wrong) if e.seq == 40 else e for e in entries]
        fold = Fold(policy, arms=small.arms, features=0, seed=3, streams=("default",))
        found = Recomputed.along(fold, spoilt)
        assert found.chance is None
        assert f"line 40 was decided with {wrong} lines, and the log begins after 0" in found.why


def test_late_logs_hold_the_truth(small):
    """Over 60 late logs the estimates of a rule outside the table scatter around what it is worth."""
    arrays = small.arrays(("clear", "foggy"), (1.0,))
    policy, target = Exp3IX(share=0.2, thresholds=(0.5, 0.8)), Arm(2, 0.65)
    truth = Setting(small, ("clear", "foggy"), (1.0,)).truth(arrays, [(1.0, target)])
    found = []
    for seed in range(60):
        log = logged(policy, small.arms, arrays, requests=300, seed=seed, late=100)
        found.append(evaluate([(1.0, target)], log).estimates)
    for name in ("dr", "adaptive_dr"):
        values = np.array([one[name].value for one in found])
        assert abs(values.mean() - truth) < 4.0 * values.std() / np.sqrt(60)
        assert sum(one[name].covers(truth) for one in found) >= 51  # of 60 at 95 %; fewer come once in a thousand times


def test_first_pulls_that_wait_for_feedback_tell_of_nothing_else(small):
    """Arms are tried first, without chance, until their feedback is there: if that is 100 late, on a third of 300."""
    arrays = small.arrays(("clear",), (1.0,))
    log = logged(EpsilonGreedy(epsilon=0.4), small.arms, arrays, requests=300, seed=0, late=100)
    assert log.why == ""
    found = evaluate([(1.0, Arm(2, 0.65))], log)
    assert log.sure.mean() > 0.3
    assert "nothing that could have been decided was sure to reveal" in found.refusal
