"""One policy per context: each learns from its own rounds alone, and a new one begins with what all have learnt."""

import math

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, Engine, Observation, Quote
from offramp.bandits.nested import LENGTH, start_of
from offramp.bandits.per_context import MET, PerContext
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FREE, MADE, T

NAN = float("nan")
ARMS = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.8, math.inf))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.5, 0.4, 0.3, 0.0], mu=1.0)
BARE = UCB1(beta=0.3)


def seen(decision, confidence):
    """What playing (cut, threshold) on a sample reveals in a world that evaluates the prefix; exits = 3."""
    cut = decision.cut
    local = cut > 0 and confidence[cut - 1] >= decision.threshold
    shown = [c if j < cut or (j == 2 and not local) else NAN for j, c in enumerate(confidence)]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local)


def samples(rounds, seed=0):
    """Sorted confidences."""
    return np.sort(np.random.default_rng(seed).beta(8, 2, (rounds, 3)), axis=1)


def play(engine, truth, context=None):
    """Play samples in order; returns the decisions."""
    made = []
    for t, confidence in enumerate(truth):
        decision = engine.decide(QUOTE, None if context is None else context[t])
        engine.update(decision, seen(decision, confidence))
        made.append(decision)
    return made


def inner_of(state, k=0):
    """The k-th inner state."""
    at = start_of(state, k)
    return state[at : at + int(state[int(state[FREE]) + LENGTH])]


def pulls(state):
    """Counts of a UCB1 state."""
    n, free = int(state[COUNT]), int(state[FREE])
    return state[free + 2 + n : free + 2 + 2 * n]


def same(one, two):
    """Equal but for the number of the decision, which goes on in every layer."""
    differ = set(np.flatnonzero(one != two))
    return differ <= {MADE}


def test_each_context_has_a_policy_of_its_own():
    """Interleaved contexts: each copy is bit for bit a bare policy that saw its context's rounds alone."""
    rng = np.random.default_rng(0)
    context = rng.integers(0, 3, 300)
    truth = samples(300)
    engine = Engine(PerContext(policy=BARE, contexts=3), arms=ARMS, seed=0, features=2, compiled=False)
    alone = [Engine(BARE, arms=ARMS, seed=0, features=2, compiled=False) for _ in range(3)]
    waiting = []
    for t, confidence in enumerate(truth):
        given = [float(context[t]), 0.5]
        one, two = engine.decide(QUOTE, given), alone[context[t]].decide(QUOTE, given)
        assert one.arm == two.arm
        assert one.round == t, "one number for all copies"
        waiting.append((context[t], one, two, seen(one, confidence)))
        while len(waiting) > 7:
            k, first, second, observation = waiting.pop(int(rng.integers(len(waiting))))
            engine.update(first, observation)
            alone[k].update(second, observation)
            assert same(inner_of(engine.state(), k), alone[k].state())
    assert not pulls(inner_of(engine.state(), 3)).any()


@pytest.mark.parametrize("value", [-1.0, 3.0, 1.5, 1e300, -1e-9])
def test_a_value_that_names_no_context_spoils_none(value):
    engine = Engine(PerContext(policy=BARE, contexts=3), arms=ARMS, seed=0, features=1, compiled=False)
    play(engine, samples(20), context=[[value]] * 20)
    state = engine.state()
    assert [pulls(inner_of(state, k)).sum() for k in range(4)] == [0, 0, 0, 20]


def test_the_likeliest_context_decides():
    engine = Engine(
        PerContext(policy=BARE, contexts=3, feature=1, likeliest=True), arms=ARMS, seed=0, features=4, compiled=False
    )
    given = [[9.0, 0.2, 0.7, 0.1], [9.0, 0.4, 0.2, 0.4], [0.0, 0.1, 0.1, 0.8]]
    play(engine, samples(3), context=given)
    assert [pulls(inner_of(engine.state(), k)).sum() for k in range(4)] == [1, 1, 1, 0]


def test_without_features_there_is_one_context():
    one, two = (Engine(p, arms=ARMS, seed=0, compiled=False) for p in (PerContext(policy=BARE, contexts=3), BARE))
    assert [d.arm for d in play(one, samples(50))] == [d.arm for d in play(two, samples(50))]


@pytest.mark.parametrize("prior", [1.0, 0.25])
def test_a_new_context_begins_with_what_all_have_learnt(prior):
    engine = Engine(PerContext(policy=BARE, contexts=2, prior=prior), arms=ARMS, seed=0, features=1, compiled=False)
    play(engine, samples(80), context=[[0.0]] * 80)
    state = engine.state()
    assert state[int(state[FREE]) + MET : int(state[FREE]) + MET + 3].tolist() == [1, 0, 0]
    assert np.array_equal(pulls(inner_of(state, 3)), pulls(inner_of(state, 0)))
    engine.decide(QUOTE, [1.0])
    after = engine.state()
    assert pulls(inner_of(after, 1)) == pytest.approx(prior * pulls(inner_of(state, 3)))
    assert inner_of(after, 1)[T] == pytest.approx(prior * 80 + 1)
    fresh = Engine(PerContext(policy=BARE, contexts=2), arms=ARMS, seed=0, features=1, compiled=False)
    play(fresh, samples(80), context=[[0.0]] * 80)
    fresh.decide(QUOTE, [1.0])
    assert not pulls(inner_of(fresh.state(), 1)).any()
