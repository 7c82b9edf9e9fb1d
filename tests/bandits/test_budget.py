"""Budgets: the bucket by hand, its bound for every sequence, what the inner policy sees, and a cache that changes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import UCB1, Arm, Arms, Engine, Fixed, ISplitEE, Observation, Quote, RandomArm, SplitEE
from offramp.bandits.agreement_floor import LEVEL as TOKENS
from offramp.bandits.agreement_floor import AgreementFloor, agreement
from offramp.bandits.budget import Budget, spending
from offramp.bandits.checks import policy_checks
from offramp.bandits.nested import LENGTH, start_of
from offramp.bandits.reveal import reveal
from offramp.bandits.state import FREE
from offramp.environments import Abrupt, rollout
from offramp.environments.budgets import round_by_round, worst_window
from offramp.environments.replay import replay

NAN = float("nan")
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
ARMS = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.7, 0.9, math.inf))
CHANGES = Abrupt(
    segments=(
        ("pristine", 1.0),
        ("blur 1.0", 1.0),
        ("noise 20", 0.25),
        ("pristine", 4.0),
        ("noise 10", 4.0),
        ("blur 0.8", 0.25),
        ("blur 2.0", 1.0),
        ("pristine", 0.25),
    )
)


def seen(decision, confidence, classes=(0, 0, 0)):
    """What a decision reveals of one sample of a network of three exits."""
    made = Observation(confidence=[NAN] * 3, answered_at=1, offloaded=False)
    reveal(np.array(confidence), np.array(classes), decision.row, np.array([1, 0, 0, 0]), made.row)
    return made


def used(decision, observation, of="cost"):
    sent = observation.offloaded or observation.audited
    if of == "offloads":
        return float(sent)
    return decision.quote.edge_cost[decision.cut] + sent * decision.quote.offload_cost[decision.cut]


def inner_of(state):
    at = start_of(state, 0)
    return state[at : at + int(state[int(state[FREE]) + LENGTH])]


def test_the_bucket_by_hand():
    policy = Budget(policy=Fixed(cut=1, threshold=0.7), ceiling=0.2, burst=2.0, gain=0.05)
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    assert spending(engine.state()).left == pytest.approx(0.4)
    one = engine.decide(QUOTE)  # full: the bucket gains nothing; .1 + .3 can be used
    assert (one.cut, one.threshold) == (1, 0.7)
    assert spending(engine.state()).left == pytest.approx(0.0)
    engine.update(one, seen(one, [0.8, 0.8, 0.9]))  # answered at the edge: .3 come back
    assert spending(engine.state()).left == pytest.approx(0.3)
    two = engine.decide(QUOTE)  # .5 is more than the bucket holds: .4, and all of that is set aside
    engine.update(two, seen(two, [0.5, 0.8, 0.9]))
    assert spending(engine.state()).left == pytest.approx(0.0)
    assert spending(engine.state()).dual == pytest.approx(0.05 * 0.4 / 0.2**2)
    three = engine.decide(QUOTE)  # .2 are not enough for .4: the only arm that never needs more takes over
    assert (three.cut, three.threshold) == (1, -math.inf)
    assert spending(engine.state())[2:] == (1, 0)
    assert np.array_equal(three.quote.row, QUOTE.row)
    engine.update(three, seen(three, [0.5, 0.8, 0.9]))
    assert spending(engine.state()).left == pytest.approx(0.1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_rounds_in_a_row_keep_the_bound(data):
    """Whatever comes, at whatever price of the link: n rounds use at most n b + c b."""
    of, ceiling = data.draw(st.sampled_from([("cost", 0.15), ("cost", 0.3), ("offloads", 0.1), ("offloads", 0.5)]))
    burst = data.draw(st.sampled_from([1.0, 12.0]))
    engine = Engine(
        Budget(policy=RandomArm(), ceiling=ceiling, of=of, burst=max(burst, 1.0 / ceiling)),
        arms=ARMS,
        seed=data.draw(st.integers(0, 99)),
        compiled=False,
    )
    spent, largest = [0.0], 0.0
    rounds = st.tuples(st.floats(0, 1), st.sampled_from([0.25, 1.0, 4.0]))
    for sure, link in data.draw(st.lists(rounds, min_size=40, max_size=150)):
        quote = Quote(edge_cost=QUOTE.edge_cost, offload_cost=QUOTE.offload_cost * link, mu=1.0)
        decision = engine.decide(quote)
        observation = seen(decision, [sure] * 3)
        spent.append(used(decision, observation, of))
        engine.update(decision, observation)
        largest = max(largest, spent[-1] if spent[-1] > max(burst, 1.0 / ceiling) * ceiling else 0.0)
    total, n = np.cumsum(spent), len(spent)
    over = max(total[j] - total[i] - (j - i) * ceiling for i in range(n) for j in range(i + 1, n))
    assert over <= max(burst, 1.0 / ceiling) * ceiling + largest + 1e-9


@pytest.mark.parametrize("inner", [UCB1(), ISplitEE(oracle_side_information=True, as_released=True)], ids=str)
def test_late_feedback_teaches_at_the_prices_of_its_own_round(inner):
    """The inner policy learns what it would learn alone, if it were quoted those prices."""
    arms = Arms.grid(exits=3, thresholds=(-math.inf, 0.5))
    paced = Engine(Budget(policy=inner, ceiling=0.45, gain=0.01), arms=arms, seed=0, compiled=False)
    alone = Engine(inner, arms=arms, seed=0, compiled=False)
    rng, waiting = np.random.default_rng(0), []
    for _ in range(300):
        dual = max(0.0, 0.01 * (45.0 - min(spending(paced.state()).left + 0.45, 45.0)) / 0.45**2)
        decision = paced.decide(QUOTE)
        mine = alone.decide(Quote(edge_cost=QUOTE.edge_cost, offload_cost=QUOTE.offload_cost, mu=1.0 + dual))
        assert decision.arm == mine.arm
        waiting.append((decision, mine, seen(decision, np.sort(rng.random(3)))))
        if len(waiting) > 10:
            decision, mine, observation = waiting.pop(int(rng.integers(10)))
            paced.update(decision, observation)
            alone.update(mine, observation)
    assert spending(paced.state()).replaced == 0
    assert spending(paced.state()).dual > 0.0
    learnt, itself = inner_of(paced.state()), alone.state()
    assert np.allclose(learnt[15:], itself[15:], rtol=1e-12, atol=0.0)


def test_a_ceiling_that_never_binds_changes_nothing():
    for of in ("cost", "offloads"):
        paced, alone = (
            Engine(p, arms=ARMS, seed=0, compiled=False) for p in (Budget(policy=UCB1(), ceiling=5.0, of=of), UCB1())
        )
        rng = np.random.default_rng(1)
        for _ in range(300):
            one, two = paced.decide(QUOTE), alone.decide(QUOTE)
            assert one.arm == two.arm
            observation = seen(one, np.sort(rng.random(3)))
            paced.update(one, observation)
            alone.update(two, observation)
        assert np.array_equal(inner_of(paced.state())[15:], alone.state()[15:])


def test_uses_are_listed_or_come_with_the_request():
    listed = Budget(
        policy=UCB1(), ceiling=0.2, of="latency", edge_use=QUOTE.edge_cost, offload_use=QUOTE.offload_cost, gain=0.0
    )
    stated = Budget(policy=UCB1(), ceiling=0.2, of="energy", uses_at=1, gain=0.0)
    costs = Budget(policy=UCB1(), ceiling=0.2, gain=0.0)
    engines = [Engine(p, arms=ARMS, seed=0, features=9, compiled=False) for p in (listed, stated, costs)]
    rng = np.random.default_rng(2)
    context = [7.0, *QUOTE.edge_cost, *QUOTE.offload_cost]
    for _ in range(200):
        decisions = [e.decide(QUOTE, context) for e in engines]
        assert len({d.arm for d in decisions}) == 1
        observation = seen(decisions[0], np.sort(rng.random(3)))
        for engine, decision in zip(engines, decisions, strict=True):
            engine.update(decision, observation)
    assert spending(engines[0].state()) == spending(engines[1].state()) == spending(engines[2].state())
    assert spending(engines[0].state()).replaced > 0


def test_where_mu_is_nothing_and_where_nothing_can_be_sent():
    engine = Engine(Budget(policy=RandomArm(), ceiling=0.1, of="offloads"), arms=ARMS, seed=0, compiled=False)
    free = Quote(edge_cost=QUOTE.edge_cost, offload_cost=[math.inf, math.inf, 0.2, 0.0], mu=0.0)
    rng = np.random.default_rng(3)
    for t in range(200):
        decision = engine.decide(free if t > 60 else QUOTE)
        engine.update(decision, seen(decision, np.sort(rng.random(3))))
        assert not np.isnan(engine.state()).any()
    assert spending(engine.state()).dual > 0.0


def test_unreachable_ceilings_are_refused_or_approached():
    never = Arms(exits=3, table=(Arm(1, 0.5), Arm(2, 0.5)))
    with pytest.raises(ValueError, match=r"ceiling is 0\.5, allowed is 1 or more"):
        Engine(Budget(policy=UCB1(), ceiling=0.5, of="offloads"), arms=never, seed=0)
    engine = Engine(Budget(policy=UCB1(), ceiling=0.05), arms=ARMS, seed=0, compiled=False)
    rng = np.random.default_rng(4)
    late = []
    for t in range(400):
        decision = engine.decide(QUOTE)
        observation = seen(decision, np.sort(rng.random(3)))
        late += [used(decision, observation)] if t >= 200 else []
        engine.update(decision, observation)
    assert np.mean(late) == pytest.approx(0.1)  # the cheapest arm, and no other
    assert spending(engine.state()).short > 100


def test_lost_feedback_is_settled_as_the_worst_case():
    engine = Engine(Budget(policy=Fixed(cut=1, threshold=0.7), ceiling=0.2), arms=ARMS, seed=0, compiled=False)
    could = 0.0
    for _ in range(500):
        decision = engine.decide(QUOTE)
        could += 0.4 if decision.threshold > 0.0 else 0.1
    assert could <= 500 * 0.2 + 20.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ceiling": 0.0}, "ceiling is 0.0, allowed is a finite number > 0"),
        ({"ceiling": 0.1, "of": "money"}, "of is 'money', allowed are"),
        ({"ceiling": 0.1, "burst": 0.5}, "burst is 0.5, allowed is a finite number >= 1"),
        ({"ceiling": 0.1, "gain": -1.0}, "gain is -1.0"),
        ({"ceiling": 0.1, "of": "latency"}, "allowed are both uses or a place"),
        ({"ceiling": 0.1, "uses_at": 0}, "allowed are both uses or a place"),
        ({"ceiling": 0.1, "of": "energy", "edge_use": (0, 1), "offload_use": (1,)}, "differ in length"),
        ({"ceiling": 0.1, "of": "energy", "edge_use": (0, 1), "offload_use": (1, 1)}, "of the last cut is 1.0"),
        ({"ceiling": 0.1, "of": "energy", "edge_use": (0, NAN), "offload_use": (1, 0)}, "edge_use is nan"),
        ({"ceiling": 0.1, "of": "offloads", "policy": Budget(policy=UCB1(), ceiling=1.0)}, "the cost's budget outside"),
        ({"ceiling": 0.1, "policy": "UCB1"}, "policy is 'UCB1', allowed is a policy"),
    ],
)
def test_specs_validate(wrong, message):
    with pytest.raises(ValueError, match=message):
        Budget(**{"policy": UCB1(), **wrong})


def test_uses_must_fit_the_network():
    with pytest.raises(ValueError, match="edge_use has 2 values, allowed are 4"):
        Engine(Budget(policy=UCB1(), ceiling=1, of="energy", edge_use=(0, 1), offload_use=(1, 0)), arms=ARMS, seed=0)
    with pytest.raises(ValueError, match="uses_at is 1 with 8 context features"):
        Engine(Budget(policy=UCB1(), ceiling=1.0, of="energy", uses_at=1), arms=ARMS, seed=0, features=8)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(
            Budget(policy=Budget(policy=UCB1(), ceiling=0.2, of="offloads"), ceiling=0.15), marks=pytest.mark.long
        ),
        AgreementFloor(policy=RandomArm(), floor=0.9),
    ],
    ids=["two", "agreement"],
)
def test_contract_and_both_executors(policy, world):
    for check in policy_checks(policy):
        check()
    world = replace(world, arms=Arms.grid(exits=7), raw_input_allowed=False)
    fast, fast_state = rollout(policy, world, CHANGES, horizon=400, seed=1)
    slow, slow_state = replay(policy, world, CHANGES, horizon=400, seed=1)
    assert np.array_equal(fast_state, slow_state)
    assert np.array_equal(fast.arms, slow.arms)
    assert all(np.array_equal(values, slow.sums[name]) for name, values in fast.sums.items())


@pytest.mark.parametrize(
    ("inner", "seeds"),
    [(UCB1(), 20), pytest.param(SplitEE(), 5, marks=pytest.mark.long), (RandomArm(), 5)],
    ids=str,
)
def test_every_window_keeps_the_ceiling_across_changes(inner, seeds, embedded, world):
    """20,000 rounds through eight distortions and links: the mean of any 2,000 in a row, at most 5 % above."""
    world = replace(world, arms=Arms.grid(exits=7), raw_input_allowed=False)
    arrays = world.arrays(CHANGES.conditions, CHANGES.links)
    for of, ceiling in (("cost", 0.08), ("cost", 0.12), ("offloads", 0.1), ("offloads", 0.3)):
        policy = Budget(policy=inner, ceiling=ceiling, of=of)
        for seed in range(seeds):
            each, _ = round_by_round(policy, world, CHANGES, horizon=20_000, seed=seed, arrays=arrays)
            use = each["edge_cost"] + each["offload_cost"] if of == "cost" else each["offloads"] + each["audits"]
            assert worst_window(use, 2_000) <= 1.05 * ceiling + 1e-9
            assert use.mean() >= 0.3 * ceiling


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=120), st.integers(0, 99))
def test_the_estimated_disagreement_keeps_its_bound(differ, seed):
    policy = AgreementFloor(policy=Fixed(cut=1, threshold=-math.inf), floor=0.8, audit=0.5, burst=3.0)
    table = Arms(exits=3, table=(Arm(1, -math.inf), Arm(3, -math.inf)))
    with pytest.raises(ValueError, match="by which the final exit always answers"):
        Engine(policy, arms=table, seed=seed)
    engine = Engine(replace(policy, policy=RandomArm()), arms=table, seed=seed, compiled=False)
    total, since = 0.0, 0.0
    for wrong in differ:
        decision = engine.decide(QUOTE)
        observation = seen(decision, [0.5, 0.6, 0.9], (0, 0, int(wrong)))
        engine.update(decision, observation)
        found = 2.0 * (observation.audited and wrong)
        since = max(since + found - 0.2, 0.0)  # the largest excess of any rounds in a row that end here
        total = max(total, since)
    assert total <= 3.0 + 2.0 + 1e-9


def test_mu_sinks_before_the_final_exit_takes_over():
    policy = AgreementFloor(policy=UCB1(beta=0.0), floor=0.9, burst=10.0)
    table = Arms(exits=3, table=(Arm(1, -math.inf), Arm(3, -math.inf)))
    engine = Engine(policy, arms=table, seed=0, compiled=False)
    for _ in range(2):
        decision = engine.decide(QUOTE)
        engine.update(decision, seen(decision, [0.7, 0.8, 0.9]))
    state = engine._streams["default"].state
    at = int(state[FREE]) + TOKENS
    for tokens, cut in ((10.0, 1), (8.0, 1), (5.9, 3), (0.0, 3)):  # .7 - .1 mu against .9 - .6 mu: even at mu = .4
        state[at] = tokens
        assert engine.decide(QUOTE).cut == cut
    assert engine.decide(QUOTE).quote.mu == 1.0


def test_agreement_is_estimated_from_audits():
    engine = Engine(AgreementFloor(policy=UCB1(), audit=1.0, rounds=10.0), arms=ARMS, seed=0, compiled=False)
    assert math.isnan(agreement(engine.state()).estimate)
    worth = weight = 0.0
    for t in range(30):
        decision = engine.decide(QUOTE)
        observation = seen(decision, [0.6, 0.7, 0.9], (t % 3 == 0, t % 3 == 0, 0))
        engine.update(decision, observation)
        wrong = observation.audited and t % 3 == 0
        worth, weight = 0.9 * worth + wrong, 0.9 * weight + 1.0
    estimate = agreement(engine.state())
    assert estimate.estimate == pytest.approx(1.0 - worth / weight)
    assert 0.05 < estimate.standard_error < 0.5
    assert estimate.known == 30


def test_the_floor_is_kept_where_the_bare_policy_sinks_below(world):
    """Through eight distortions; both estimates and facts are noisy, hence the room of 5 %."""
    world = replace(world, arms=Arms.grid(exits=7), raw_input_allowed=False)
    arrays = world.arrays(CHANGES.conditions, CHANGES.links)
    for seed in range(3):
        bare, _ = round_by_round(UCB1(), world, CHANGES, horizon=20_000, seed=seed, arrays=arrays)
        policy = AgreementFloor(policy=UCB1(), floor=0.9)
        each, state = round_by_round(policy, world, CHANGES, horizon=20_000, seed=seed, arrays=arrays)
        assert each["agreement"].mean() > 0.9 > bare["agreement"].mean()
        assert -worst_window(-each["agreement"], 2_000) >= 0.95 * 0.9
        known = agreement(state)
        assert abs(known.estimate - each["agreement"][-4_000:].mean()) < 4.0 * known.standard_error
