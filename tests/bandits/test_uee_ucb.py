"""UEE-UCB by hand, its assumption, and what tells that the assumption does not hold."""

import math
from dataclasses import replace

import numpy as np
import pytest

from offramp.bandits import UCB1, Arm, Arms, Engine, Observation, Quote
from offramp.bandits.pulls import MEAN, PARAMETERS, PULLS
from offramp.bandits.uee_ucb import UEEUCB, dominance
from offramp.environments import Abrupt, replay, rollout

NAN = float("nan")
ARMS = Arms.grid(exits=4, thresholds=(-math.inf, 0.5, math.inf), raw_input_allowed=True)
PRICES = np.array([0.0, 0.1, 0.2, 0.35, 0.5])
QUOTE = Quote(edge_cost=PRICES, offload_cost=[0.1, 0.1, 0.1, 0.1, 0.0], mu=1.0)


def statistics(engine):
    """Weight and mean of each arm."""
    state = engine.state()
    first, arms = int(state[7]) + PARAMETERS, int(state[1])
    return state[first : first + 4 * arms].reshape(4, arms)[[PULLS, MEAN]]


def play(engine, answers, confidence=0.5, quote=QUOTE, prefix=True):
    """One round; shows the classes up to the cut, or that of the cut alone."""
    decision = engine.decide(quote)
    shown = [prefix or j == decision.cut - 1 for j in range(decision.cut)] + [False] * (4 - decision.cut)
    sure = [confidence if show else NAN for show in shown]
    classes = [answer if show else -1 for show, answer in zip(shown, answers, strict=True)]
    seen = Observation(confidence=sure, prediction=classes, answered_at=decision.cut, offloaded=False)
    assert engine.update(decision, seen)
    return decision.cut


def answers(rng, n, errors, *, agree=True, classes=10, dominant=True):
    """Classes of four exits; the true one is 0.  One draw for all exits makes them dominate each other."""
    draw = rng.random((n, 1)) if dominant else rng.random((n, 4))
    wrong = 1 + (rng.integers(0, classes - 1, (n, 1)) if agree else rng.integers(0, classes - 1, (n, 4)))
    return np.where(draw < np.array(errors), wrong, 0)


def test_by_hand():
    """The last exit first; then disagreement with the first exit, minus the price, plus sqrt(alpha ln(t + 1) / n)."""
    engine = Engine(UEEUCB(beta=math.sqrt(0.04)), arms=ARMS, seed=0)
    assert [arm.cut for arm in engine.policy.plays(ARMS)] == [1, 2, 3, 4]
    assert play(engine, [3, 7, 7, 7]) == 4
    pulls, mean = statistics(engine)
    assert pulls.tolist() == [1, 1, 1, 1]
    assert mean.tolist() == [0, 1, 1, 1]
    assert play(engine, [3, 3, 7, 7]) == 2
    pulls, mean = statistics(engine)
    assert pulls.tolist() == [2, 2, 1, 1]
    assert mean.tolist() == [0, 0.5, 1, 1]
    index = mean - PRICES[1:] + np.sqrt(0.04 * math.log(3) / pulls)
    assert play(engine, [3, 3, 3, 3]) == 1 + int(index.argmax()) == 3
    pulls, mean = statistics(engine)
    assert pulls.tolist() == [3, 3, 2, 1]
    assert mean == pytest.approx([0, 1 / 3, 0.5, 1])
    dear = Quote(edge_cost=[0.0, 0.1, 5.0, 5.0, 5.0], offload_cost=[0.1, 0.1, 0.1, 0.1, 0.0], mu=1.0)
    assert engine.decide(dear).cut == 1


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_under_strong_dominance_it_finds_the_exit_with_the_least_error_and_cost(mu):
    errors = [0.5, 0.25, 0.15, 0.1]
    quote = Quote(edge_cost=PRICES, offload_cost=[0.1] * 4 + [0.0], mu=mu)
    best = 1 + int(np.argmin(np.array(errors) + mu * PRICES[1:]))
    engine = Engine(UEEUCB(beta=0.3), arms=ARMS, seed=0)
    played = [play(engine, row, quote=quote) for row in answers(np.random.default_rng(1), 3_000, errors).tolist()]
    assert played[-1_000:].count(best) > 800
    pulls, mean = statistics(engine)
    assert mean == pytest.approx(0.5 - np.array(errors), abs=5 * 0.5 / math.sqrt(pulls.min()))
    assert all(d.excess == 0.0 and d.error == 0.0 for d in dominance(engine.state()))


def test_where_dominance_is_broken_it_errs_for_good_and_the_diagnostic_tells():
    """Exits that err independently differ often although none is better: the surrogate pays for a deep one."""
    errors = [0.3, 0.3, 0.3, 0.3]
    engine = Engine(UEEUCB(beta=1.0), arms=ARMS, seed=0)
    table = answers(np.random.default_rng(2), 3_000, errors, agree=False, dominant=False)
    played = [play(engine, row) for row in table.tolist()]
    assert played[-1_000:].count(1) < 100  # the cheapest would be the best
    first, second = dominance(engine.state())
    one, two, three = table[:, :3].T
    truth = (one != two).mean() + (two != three).mean() - (one != three).mean()
    assert (first.exit, second.exit) == (2, 3)
    assert first.seen > 100
    assert first.excess > 4 * first.error
    assert first.excess == pytest.approx(truth, abs=5 * first.error)


def test_the_diagnostic_is_mean_and_standard_error_of_the_excess():
    engine = Engine(UEEUCB(beta=0.0), arms=Arms(exits=4, table=(Arm(4, -math.inf), Arm(2, -math.inf))), seed=0)
    free = Quote(edge_cost=[0.0, 0.0, 5.0, 5.0, 0.0], offload_cost=[0.1] * 4 + [0.0], mu=1.0)
    rounds = [(1, 2, 1, 3), (1, 1, 2, 2), (1, 2, 3, 3), (1, 2, 1, 5)]
    excess = []
    for row in rounds:
        assert play(engine, row, quote=free) == 4
        excess.append((row[0] != row[1]) + (row[1] != row[2]) - (row[0] != row[2]))
    assert excess == [2, 0, 1, 2]
    (found,) = dominance(engine.state())
    assert found[:2] == (2, 4.0)
    assert found.excess == pytest.approx(np.mean(excess))
    assert found.error == pytest.approx(np.std(excess, ddof=1) / 2)
    engine.forget(0.5)
    assert dominance(engine.state())[0][:3] == (2, 2.0, pytest.approx(np.mean(excess)))
    with pytest.raises(ValueError, match=r"state has 5 columns, allowed are 7"):
        dominance(UCB1().initial(ARMS, 0))


def test_no_excess_is_no_proof():
    """A right first exit before deeper ones that are wrong alike breaks dominance, and leaves no trace."""
    engine = Engine(UEEUCB(), arms=ARMS, seed=0)
    for _ in range(50):
        play(engine, [0, 4, 4, 4])
    assert [d.excess for d in dominance(engine.state())] == [0.0, 0.0]
    assert statistics(engine)[1].tolist() == [0, 1, 1, 1]


def test_it_reads_no_confidence():
    rng = np.random.default_rng(3)
    table = answers(rng, 300, [0.5, 0.3, 0.2, 0.1]).tolist()
    two = [Engine(UEEUCB(), arms=ARMS, seed=0) for _ in range(2)]
    for row in table:
        assert play(two[0], row, confidence=0.1) == play(two[1], row, confidence=rng.random())
    assert np.array_equal(two[0].state(), two[1].state())


def test_where_only_the_cut_speaks_nothing_can_be_compared():
    engine = Engine(UEEUCB(), arms=ARMS, seed=0)
    played = [play(engine, [1, 2, 3, 4], prefix=False) for _ in range(40)]
    assert played[:4] == [4, 3, 2, 1]
    assert {cut: played[10:].count(cut) for cut in (1, 2, 3, 4)} == {1: 0, 2: 10, 3: 10, 4: 10}
    assert statistics(engine)[0].tolist() == [1, 0, 0, 0]
    assert [d.seen for d in dominance(engine.state())] == [0.0, 0.0]
    assert all(math.isnan(d.excess) and math.isnan(d.error) for d in dominance(engine.state()))


def test_replay_equals_rollout(small):
    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    for world in (small, replace(small, evaluate="own")):
        fast, state = rollout(UEEUCB(beta=0.3), world, stream, horizon=300, seed=0)
        slow, other = replay(UEEUCB(beta=0.3), world, stream, horizon=300, seed=0)
        assert np.array_equal(fast.arms, slow.arms)
        assert np.array_equal(state, other)
        assert all(np.array_equal(values, slow.sums[name]) for name, values in fast.sums.items())
