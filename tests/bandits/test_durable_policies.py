"""Every policy can be kept as text, and learn from decisions that other copies of it made."""

import random
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.bandits import Arms, Engine, Observation, Quote, SlidingWindowUCB
from offramp.bandits.durable import policy_from_json, policy_to_json
from offramp.bandits.durable.follower import Follower
from offramp.bandits.policy import needs_oracle
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import prediction_at
from offramp.bandits.sliding_window_ucb import PARAMETERS, PULLS
from offramp.bandits.state import MADE, own


def load(name):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return instantiate(compose("compare", overrides=[f"policy={name}"]).policy)


FILES = sorted(p.stem for p in (Path(__file__).parents[2] / "conf" / "policy").glob("*.yaml") if p.stem != "standard")
POLICIES = {name: load(name) for name in FILES}
HONEST = {name: p for name, p in POLICIES.items() if not needs_oracle(p)}
TABLE = Arms.grid(exits=7, raw_input_allowed=True)
PRICE = Quote(edge_cost=np.linspace(0, 0.3, 8), offload_cost=[*np.linspace(0.4, 0.1, 7), 0], mu=1.0)


def seen(decision, rng):
    """What a random sample reveals by a decision, audits included."""
    truth = np.array([rng.random() ** 0.4 for _ in range(decision.exits)])
    classes, options = np.zeros(decision.exits, dtype=np.int16), np.array([1, 0, 0, 0])
    made = Observation.of(np.zeros(prediction_at(decision.exits) + decision.exits))
    reveal(truth, classes, decision.row, options, made.row)
    return made


@pytest.mark.parametrize("policy", HONEST.values(), ids=HONEST)
def test_a_copy_that_follows_ends_where_the_engine_ends(policy):
    """Feedback before the next decision: the follower's state is the engine's, bit for bit."""
    there = Engine(policy, arms=TABLE, seed=3, compiled=False)
    here = Follower(policy, arms=TABLE, seed=3, compiled=False)
    rng = random.Random(5)
    for _ in range(60):
        decision = there.decide(PRICE)
        observation = seen(decision, rng)
        assert there.update(decision, observation)
        assert here.follow(decision, observation)
    assert there.state().tobytes() == here.state().tobytes()


@pytest.mark.parametrize("policy", HONEST.values(), ids=HONEST)
def test_a_copy_follows_decisions_that_were_made_without_it(policy):
    """Two deciders that know nothing of each other, feedback out of order: all of it is learnt, nothing breaks."""
    deciders = [Engine(policy, arms=TABLE, seed=s, compiled=False) for s in (1, 2)]
    here, rng = Follower(policy, arms=TABLE, seed=3, compiled=False), random.Random(6)
    feedback = []
    for t in range(40):
        decision = deciders[t % 2].decide(PRICE)
        feedback.append((decision, seen(decision, rng)))
    rng.shuffle(feedback)
    for decision, observation in feedback:
        assert here.follow(decision, observation)
    assert here.state()[MADE] == len(feedback)
    assert np.isfinite(here.state()[:MADE]).all()


def test_a_window_holds_what_others_decided():
    """Each arm was played once elsewhere; here none is left that was not."""
    policy = SlidingWindowUCB(window=100)
    here, rng = Follower(policy, arms=TABLE, seed=0, compiled=False), random.Random(1)
    for arm in reversed(TABLE.table):
        alone = Engine(policy, arms=Arms(exits=7, table=(arm,)), seed=0, compiled=False)
        decision = alone.decide(PRICE)
        assert here.follow(decision, seen(decision, rng), made_here=False)
    again = here.decide(PRICE)
    assert again.round == len(TABLE)
    pulls = own(here.state(), PARAMETERS, PULLS)
    assert here.state()[pulls : pulls + len(TABLE)].tolist() == [1.0] * len(TABLE)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_specs_survive_as_text(policy):
    assert policy_from_json(policy_to_json(policy)) == policy
