"""The alarms that `offramp edge` shows are those that the detectors inside a policy ring, update by update."""

import math

import numpy as np

from offramp.bandits import UCB1, Arms, ChainUCB, Engine, Observation, Quote
from offramp.bandits.chain_ucb import ENOUGH, LOOKS
from offramp.bandits.detectors import alarms as rings
from offramp.bandits.restarting import Restarting, alarms
from offramp.bandits.state import FREE
from offramp.bandits.two_window import TwoWindow
from offramp.experiments.edge_alarms import Listened


def fed(policy, rows, offered):
    """An engine behind `Listened` that plays images with these confidences (n, L); alarms as seen, update by update."""
    arms = Arms.grid(exits=3)
    engine = Engine(policy, arms=arms, seed=0)
    heard, seen, states = Listened(engine, policy), [], []
    price = [math.inf, *([0.05] * 2 if offered else [math.inf] * 2), 0.0]
    quote = Quote(edge_cost=[0.0, 0.05, 0.1, 0.2], offload_cost=price, mu=1.0)
    for row in rows:
        decision = heard.decide(quote)
        at = next((j + 1 for j in range(decision.cut) if row[j] >= decision.thresholds[j]), 0)
        shown = np.where(np.arange(3) < (at or decision.cut), row, math.nan)
        shown[-1] = row[-1] if not at else shown[-1]
        assert heard.update(decision, Observation(confidence=shown, answered_at=at or 3, offloaded=at == 0))
        seen.append(heard.alarms)
        states.append(engine.state())
    return seen, states


def drawn(means, n=700):
    rng = np.random.default_rng(3)
    return np.concatenate([np.clip(rng.normal(mean, 0.1, (n, 3)), 0.05, 0.99) for mean in means])


def test_alarms_of_chain_ucb_are_those_that_its_windows_ring():
    rows = drawn([(0.8, 0.8, 0.9), (0.5, 0.6, 0.7), (0.8, 0.8, 0.9)])
    seen, _ = fed(ChainUCB(), rows, offered=False)
    rang = rings(TwoWindow(every=20, z=4.0), rows[:, 0])
    assert len(rang) >= 2
    assert np.flatnonzero(np.diff(seen, prepend=0)).tolist() == list(rang)


def test_alarms_of_what_the_cloud_says_are_counted_as_well():
    """Exit 1 stays as it is, and the last exit falls; after an alarm the policy has a number of looks to take."""
    seen, states = fed(ChainUCB(), drawn([(0.5, 0.5, 0.95), (0.5, 0.5, 0.6)]), offered=True)
    looks = np.array([state[int(state[FREE]) + LOOKS] for state in states])
    assert np.flatnonzero(np.diff(seen, prepend=0)).tolist() == np.flatnonzero(looks == ENOUGH).tolist()
    assert seen[-1] > 0


def test_alarms_of_a_policy_that_counts_them_and_of_one_that_has_none():
    policy = Restarting(policy=UCB1(), detector=TwoWindow())
    seen, states = fed(policy, drawn([(0.8, 0.8, 0.9), (0.4, 0.6, 0.7)]), offered=True)
    assert seen == [alarms(state) for state in states]
    assert seen[-1] > 0
    assert not Listened(Engine(UCB1(), arms=Arms.grid(exits=3), seed=0), UCB1()).known
