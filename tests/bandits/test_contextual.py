"""Policies that read the context: LinUCB against NumPy, where a context decides; muLinUCB's schedule and its bills."""

import math

import numpy as np
import pytest

from offramp.bandits import UCB1, Arm, Arms, Engine, MacsAndBytes, Observation, Profile, Quote
from offramp.bandits.checks import policy_checks
from offramp.bandits.lin_ucb import COLUMNS, PARAMETERS, PULLS, RING, LinUCB
from offramp.bandits.linear import size
from offramp.bandits.mu_lin_ucb import EVERY, MuLinUCB, forced
from offramp.bandits.mu_lin_ucb import PARAMETERS as MU_PARAMETERS
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FREE, own
from offramp.environments import ConfidenceCache, RandomWalk, Stationary, World, replay, rollout

NAN = float("nan")
INF = math.inf
ARMS = Arms.grid(exits=3, thresholds=(-INF, 0.7, INF), raw_input_allowed=True)
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
DEAR = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.9, 0.6, 0.1, 0.0], mu=1.0)
NOWHERE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[INF, INF, INF, 0.0], mu=1.0)
MIXED = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)


def seen(confidence, decision, bill=NAN):
    """What a decision reveals of a sample, all heads up to the cut evaluated; exits = 3."""
    cut, shown = decision.cut, [NAN] * 3
    shown[:cut] = confidence[:cut]
    local = cut > 0 and confidence[cut - 1] >= decision.threshold
    if not local:
        shown[2] = confidence[2]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local, offload_cost=bill)


def own_reward(decision, observation):
    cost = decision.quote.edge_cost[decision.cut]
    if observation.offloaded:
        cost += decision.quote.offload_cost[decision.cut]
    return observation.confidence[observation.answered_at - 1] - decision.quote.mu * cost


def assert_equal(policy, world, stream, horizon=300, seed=0):
    fast, fast_state = rollout(policy, world, stream, horizon=horizon, seed=seed)
    slow, slow_state = replay(policy, world, stream, horizon=horizon, seed=seed)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(fast_state, slow_state)


@pytest.mark.parametrize("known", [True, False])
def test_lin_ucb_is_the_papers_index(known):
    """Algorithm 1 of the paper in NumPy, round by round, on the same requests."""
    policy = LinUCB(alpha=0.4, ridge=0.5, known_costs=known)
    engine = Engine(policy, arms=ARMS, seed=0, features=2, compiled=False)
    arms, d = list(ARMS.table), 4
    m, b = np.stack([0.5 * np.eye(d)] * len(arms)), np.zeros((len(arms), 2, d))
    rng = np.random.default_rng(0)
    for t in range(250):
        context, quote = rng.random(2), (QUOTE, DEAR)[t // 20 % 2]
        x = [np.array([1.0, *context, quote.offload_cost[arm.cut]]) for arm in arms]
        decision = engine.decide(quote, context)
        if t < len(arms):
            assert decision.arm == t
        else:
            index = np.empty(len(arms))
            for a, arm in enumerate(arms):
                theta = np.linalg.solve(m[a], b[a].T).T
                index[a] = theta[0] @ x[a] + 0.4 * math.sqrt(x[a] @ np.linalg.solve(m[a], x[a]))
                if known:
                    share = min(max(theta[1] @ x[a], 0.0), 1.0)
                    index[a] -= quote.edge_cost[arm.cut] + share * quote.offload_cost[arm.cut]
            assert index[decision.arm] >= index.max() - 1e-9
        confidence = np.clip(context[0] * np.array([0.4, 0.7, 1.0]) + 0.2 * rng.random(3), 0.0, 1.0)
        observation = seen(confidence, decision)
        engine.update(decision, observation)
        a, served = decision.arm, observation.confidence[observation.answered_at - 1]
        y = served if known else own_reward(decision, observation)
        m[a] += np.outer(x[a], x[a])
        b[a] += np.outer([y, float(observation.offloaded)], x[a])


def contextual_world():
    """Two experts in turn: the exits of the one are sure at once, those of the other only at the end."""
    rng = np.random.default_rng(5)
    n = 400
    expert = rng.integers(0, 2, n)
    confidence = np.empty((1, 2, n, 3))
    confidence[0, 0] = np.clip([0.9, 0.92, 0.93] + 0.05 * rng.normal(size=(n, 3)), 0.0, 1.0)
    confidence[0, 1] = np.clip([0.3, 0.5, 0.95] + 0.05 * rng.normal(size=(n, 3)), 0.0, 1.0)
    router = np.where(expert[:, None] == [0, 1], 0.9, 0.1)[None]
    cache = ConfidenceCache.from_arrays(
        confidence=confidence,
        prediction=np.zeros((1, 2, n, 3), dtype=int),
        label=np.zeros(n),
        conditions=["all"],
        experts=["easy", "hard"],
        classes=2,
        router=router,
        profile=Profile(
            segment_macs=(10, 30, 60), head_macs=(1, 1, 1), payload_bytes=(9_000, 9_000, 9_000, 0), layers=(1, 2, 3)
        ),
    )
    arms = Arms.grid(exits=3, thresholds=(-INF,))
    return World(cache=cache, prices=MacsAndBytes(network=0.4), arms=arms, routing="predicted")


@pytest.mark.long
def test_where_the_context_decides_lin_ucb_finds_the_arm_and_ucb1_cannot():
    world, stream, horizon = contextual_world(), Stationary(condition="all"), 4_000
    static = [rollout(UCB1(cuts=(c,)), world, stream, horizon=horizon, seed=0)[0].sums["reward"][-1] for c in (1, 2, 3)]
    blind = rollout(UCB1(beta=0.1), world, stream, horizon=horizon, seed=0)[0].sums["reward"][-1]
    for context in ("expert", "plain"):
        trace, _ = rollout(LinUCB(context=context), world, stream, horizon=horizon, seed=0)
        assert trace.sums["reward"][-1] > max(static) + 0.1 * horizon
    without, _ = rollout(LinUCB(context="none"), world, stream, horizon=horizon, seed=0)
    for reward in (blind, without.sums["reward"][-1]):
        assert reward < max(static) + 0.005 * horizon
    assert_equal(LinUCB(context="expert", recent=20), world, stream)


@pytest.mark.parametrize(
    "policy", [LinUCB(context="expert", recent=30), LinUCB(known_costs=False), MuLinUCB(key=1, values="confidence")]
)
def test_replay_equals_rollout_with_context(policy, routed):
    assert_equal(policy, routed, MIXED)


@pytest.mark.parametrize(
    "policy", [LinUCB(recent=20, context="expert", ridge=0.1), MuLinUCB(trusts_quote=False, horizon=1_000)]
)
def test_contract(policy):
    for check in policy_checks(policy):
        assert check() is None


def test_an_experts_index_is_read_as_one_hot_and_never_out_of_bounds():
    engine = Engine(LinUCB(context="expert", link=False), arms=ARMS, seed=0, features=4, compiled=False)
    for index, expected in ((0, [1, 0, 0]), (2, [0, 0, 1]), (7, [0, 0, 1]), (-3, [1, 0, 0]), (1.4, [0, 1, 0])):
        decision = engine.decide(QUOTE, [index, 0.2, 0.3, 0.5])
        engine.update(decision, seen([0.5, 0.6, 0.9], decision))
        state = engine.state()
        x = state[own(state, PARAMETERS, COLUMNS) + decision.arm :: len(ARMS)][:7]
        assert x.tolist() == [1, *expected, 0.2, 0.3, 0.5]
    with pytest.raises(ValueError, match="context is 'expert' with 1 feature"):
        LinUCB(context="expert").initial(ARMS, 1)
    assert len(LinUCB(context="expert").initial(ARMS, 0)) == len(LinUCB(context="none").initial(ARMS, 0))


def model(state, arm, d):
    """Factor and coefficients of an arm's answer."""
    first = own(state, PARAMETERS, COLUMNS + 2 * d)
    numbers = state[first + arm :: int(state[COUNT])][: size(d, 2)]
    factor = np.zeros((d, d))
    factor[np.tril_indices(d)] = numbers[: size(d, 0)]
    return factor, numbers[size(d, 0) : size(d, 1)]


def test_late_feedback_is_learnt_with_the_features_of_its_own_decision():
    """The mean of exit 1 has moved on by the time that the feedback comes; so has the price."""
    d, arms = 3, Arms.grid(exits=3, thresholds=(INF,))
    engine = Engine(LinUCB(recent=4, ridge=0.5), arms=arms, seed=0, compiled=False)
    rng = np.random.default_rng(3)
    m, b = np.stack([0.5 * np.eye(d)] * len(arms)), np.zeros((len(arms), d))
    mean, weight, waiting = 0.0, 0.0, []
    for t in range(200):
        quote = (QUOTE, DEAR)[t % 2]
        decision = engine.decide(quote)
        waiting.append((decision, rng.random(3), np.array([1.0, mean, quote.offload_cost[decision.cut]])))
        if len(waiting) > 12:
            late, confidence, x = waiting.pop(int(rng.integers(len(waiting))))
            engine.update(late, seen(confidence, late))
            m[late.arm] += np.outer(x, x)
            b[late.arm] += confidence[2] * x
            weight = 0.75 * weight + 1.0
            mean += (confidence[0] - mean) / weight
    for a in range(len(arms)):
        factor, theta = model(engine.state(), a, d)
        assert np.allclose(factor @ factor.T, m[a])
        assert np.allclose(theta, np.linalg.solve(m[a], b[a]))


def test_feedback_later_than_the_ring_still_teaches():
    engine = Engine(LinUCB(recent=4), arms=Arms.grid(exits=3, thresholds=(INF,)), seed=0)
    first = engine.decide(QUOTE)
    for _ in range(RING + 1):
        decision = engine.decide(QUOTE)
        engine.update(decision, seen([0.5, 0.6, 0.9], decision))
    before = engine.state()
    assert engine.update(first, seen([0.1, 0.2, 0.3], first))
    after = engine.state()
    assert np.isfinite(after[~np.isinf(before)]).all()
    pulls = own(after, PARAMETERS, PULLS) + first.arm
    assert after[pulls] == before[pulls] + 1


def test_each_arm_comes_once_although_no_feedback_comes():
    engine = Engine(LinUCB(), arms=ARMS, seed=0, compiled=False)
    played = [engine.decide(QUOTE).arm for _ in range(2 * len(ARMS))]
    assert played == 2 * list(range(len(ARMS)))


@pytest.mark.parametrize("mu", [0.0, 1.0])
@pytest.mark.parametrize("policy", [LinUCB(), LinUCB(known_costs=False), MuLinUCB(), MuLinUCB(values="confidence")])
def test_what_is_not_offered_is_not_played(policy, mu):
    """Neither for the first time nor later, and whatever offloads were worth before."""
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    partly = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[INF, 0.3, INF, 0.0], mu=mu)
    nowhere = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[INF, INF, INF, 0.0], mu=mu)
    for t in range(90):
        quote = (partly, nowhere, QUOTE)[t // 30]
        decision = engine.decide(quote)
        assert decision.threshold == -INF or quote.offload_cost[decision.cut] < INF
        engine.update(decision, seen([0.2, 0.5, 0.9], decision))
    assert engine.decide(nowhere).threshold == -INF
    assert not np.isnan(engine.state()).any()


def test_where_no_arm_is_left_the_first_is_taken():
    engine = Engine(LinUCB(cuts=(1, 2), thresholds=(0.7,)), arms=ARMS, seed=0, compiled=False)
    decision = engine.decide(NOWHERE)
    assert (decision.cut, decision.threshold) == (1, 0.7)
    engine.update(decision, Observation(confidence=[0.4, NAN, 0.9], answered_at=3, offloaded=True))
    assert not np.isnan(engine.state()).any()


def test_forgetting_keeps_what_is_predicted():
    engine = Engine(LinUCB(recent=5), arms=ARMS, seed=0, compiled=False)
    rng = np.random.default_rng(8)
    for _ in range(60):
        decision = engine.decide(QUOTE)
        engine.update(decision, seen(rng.random(3), decision))
    before = [model(engine.state(), a, 3) for a in range(len(ARMS))]
    engine.forget(0.1)
    for a, (factor, theta) in enumerate(before):
        after = model(engine.state(), a, 3)
        assert np.array_equal(after[1], theta)
        assert np.allclose(after[0] @ after[0].T, 0.1 * factor @ factor.T + 0.9 * np.eye(3))


def test_another_table_of_arms_keeps_the_models_of_those_that_stay():
    engine = Engine(LinUCB(), arms=ARMS, seed=0, compiled=False)
    rng = np.random.default_rng(8)
    for _ in range(60):
        decision = engine.decide(QUOTE)
        engine.update(decision, seen(rng.random(3), decision))
    before = engine.state()
    open_one = engine.decide(QUOTE)
    added = Arm(2, 0.5)
    engine.change(ARMS.without([Arm(1, 0.7)]).plus([added]))
    for a, arm in enumerate(engine.arms.table):
        factor, theta = model(engine.state(), a, 2)
        expected = (np.eye(2), np.zeros(2)) if arm == added else model(before, ARMS.table.index(arm), 2)
        assert np.array_equal(factor, expected[0])
        assert np.array_equal(theta, expected[1])
    assert engine.update(open_one, seen(rng.random(3), open_one))
    decision = engine.decide(QUOTE)
    assert engine.arms[decision.arm] == added, "the new arm comes first"
    engine.update(decision, seen(rng.random(3), decision))
    bills = Engine(MuLinUCB(), arms=ARMS, seed=0, compiled=False)
    decision = bills.decide(QUOTE)
    bills.update(decision, seen([0.1, 0.2, 0.9], decision, bill=0.7))
    learnt = bills.state()[own(bills.state(), MU_PARAMETERS, 2) :]
    bills.change(ARMS.without(cuts=[1]))
    assert np.array_equal(bills.state()[own(bills.state(), MU_PARAMETERS, 2) :], learnt)


def test_a_million_rounds_leave_lin_ucb_finite(small):
    policy = LinUCB(cuts=(1, 2, 4), thresholds=(0.5, 0.7), recent=100)
    stream = RandomWalk(conditions=("clear", "foggy"), links=(0.2, 1.0, 5.0), stay=0.99)
    _, state = rollout(policy, small, stream, horizon=1_000_000, seed=0)
    assert np.isfinite(state[np.isfinite(policy.initial(small.arms, 0))]).all()
    first = own(state, PARAMETERS, COLUMNS + 2 * 3)
    for i in (0, 2, 5):  # the diagonal of the factor
        assert (state[first + i * 5 : first + (i + 1) * 5] >= 1.0).all()


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        # T is taken to be 1, 2, 4, 8, ...: every 1, 2, 2, 2, 2 (up to 16), 3 (up to 64), 4 (up to 256)
        ({}, [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45, 48, 51, 54, 57, 60, 63, 68]),
        ({"horizon": 81}, list(range(3, 70, 3))),
        ({"horizon": 82}, list(range(4, 70, 4))),
        ({"exponent": 0.5, "horizon": 100}, list(range(10, 70, 10))),
    ],
)
def test_frames_without_the_device_by_hand(options, frames):
    state = MuLinUCB(**options).initial(ARMS, 0)
    assert [t for t in range(1, 70) if forced(state)] == frames


def test_the_device_is_left_out_in_forced_frames_and_nowhere_else():
    """Offloads cost a fortune: played they are only where it is their turn."""
    engine = Engine(MuLinUCB(horizon=256, alpha=0.0), arms=ARMS, seed=0, compiled=False)
    dear = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[9.0, 8.0, 9.0, 0.0], mu=1.0)
    cuts = []
    for _ in range(40):
        decision = engine.decide(dear)
        cuts.append(decision.cut)
        engine.update(decision, seen([0.5, 0.6, 0.9], decision))
    assert cuts == [1 if t % 4 == 0 else 3 for t in range(1, 41)]


def test_mu_lin_ucb_is_the_index_of_the_paper():
    policy = MuLinUCB(alpha=0.3, ridge=0.5, horizon=10_000, key=0, trusts_quote=False)
    engine = Engine(policy, arms=ARMS, seed=0, features=1, compiled=False)
    rng = np.random.default_rng(4)
    m, b = 0.5 * np.eye(3), np.zeros(3)
    for t in range(1, 200):
        quote, key = (QUOTE, DEAR)[t // 15 % 2], float(rng.random() < 0.3)
        decision = engine.decide(quote, [key])
        x = np.array([[1.0, (0.6 - quote.edge_cost[c]) / 0.6, quote.offload_cost[c]] for c in range(3)])
        theta = np.linalg.solve(m, b)
        width = np.sqrt((1.0 - (0.8 if key else 0.2)) * np.einsum("pi,ij,pj->p", x, np.linalg.inv(m), x))
        cost = np.append(quote.edge_cost[:3] + x @ theta - 0.3 * width, INF if t % 10 == 0 else 0.6)
        assert cost[decision.cut] <= cost.min() + 1e-9
        bill = 0.05 + 1.5 * quote.offload_cost[decision.cut] if t % 3 else NAN
        engine.update(decision, seen([0.5, 0.6, 0.9], decision, bill=bill))
        if decision.cut < 3:
            p = decision.cut
            m += np.outer(x[p], x[p])
            b += x[p] * (quote.offload_cost[p] if math.isnan(bill) else bill)


def test_bills_that_differ_from_the_quote_are_found_out():
    """Quoted, the input is cheapest to send; billed, exit 2's feature map.  A policy that believes is had."""
    engine = Engine(MuLinUCB(), arms=ARMS, seed=0)
    quote = Quote(edge_cost=[0.0, 0.1, 0.2, 0.9], offload_cost=[0.4, 0.35, 0.3, 0.0], mu=1.0)
    billed = [1.2, 0.8, 0.4, 0.0]
    cuts = []
    for _ in range(600):
        decision = engine.decide(quote)
        cuts.append(decision.cut)
        engine.update(decision, seen([0.5, 0.6, 0.9], decision, bill=billed[decision.cut]))
    assert np.mean(np.array(cuts[100:]) == 2) > 0.9
    assert int(np.argmin(quote.edge_cost + quote.offload_cost)) == 0


def test_confidence_counts_only_where_it_is_asked_for():
    """The device's own copy of the last exit is less sure than the cloud's."""
    cheap = Quote(edge_cost=[0.0, 0.2, 0.3, 0.3], offload_cost=[0.3, 0.2, 0.2, 0.0], mu=1.0)
    arms = Arms(exits=3, table=(Arm(1, INF), Arm(3, -INF)))
    for values, cut in (("cost", 3), ("confidence", 1)):
        engine = Engine(MuLinUCB(values=values, alpha=0.01), arms=arms, seed=0, compiled=False)
        played = []
        for _ in range(120):
            decision = engine.decide(cheap)
            played.append(decision.cut)
            engine.update(decision, seen([0.5, 0.5, 0.4 if decision.cut == 3 else 0.9], decision))
        assert np.mean(np.array(played[40:]) == cut) > 0.6


def test_what_the_edge_costs_nothing_to_compute_has_no_shares():
    engine = Engine(MuLinUCB(), arms=ARMS, seed=0, compiled=False)
    free = Quote(edge_cost=[0.0] * 4, offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
    for _ in range(20):
        decision = engine.decide(free)
        engine.update(decision, seen([0.5, 0.6, 0.9], decision, bill=1e300))
    assert np.isfinite(engine.state()[~np.isinf(engine.policy.initial(ARMS, 0))]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinUCB(alpha=-1), "alpha is -1"),
        (lambda: LinUCB(ridge=0), "ridge is 0"),
        (lambda: LinUCB(context="all"), "context is 'all', allowed are"),
        (lambda: LinUCB(recent=1), "recent is 1, allowed"),
        (lambda: LinUCB(cuts=(9,)).initial(ARMS, 0), r"cuts are \(9,\)"),
        (lambda: MuLinUCB(exponent=1.0), r"exponent is 1.0, allowed is a number in \(0, 1\)"),
        (lambda: MuLinUCB(horizon=0), "horizon is 0, allowed"),
        (lambda: MuLinUCB(weight=1.0), "weight is 1.0, allowed"),
        (lambda: MuLinUCB(key_weight=-0.1), "key_weight is -0.1, allowed"),
        (lambda: MuLinUCB(values="delay"), "values is 'delay', allowed is one of"),
        (lambda: MuLinUCB(key=2).initial(ARMS, 2), "key is 2, allowed with 2 context features"),
        (lambda: MuLinUCB().initial(Arms.grid(exits=3, thresholds=(0.5,)), 0), "no threshold inf"),
    ],
)
def test_what_is_not_allowed_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lin_ucb_keeps_its_choices_as_tuples():
    assert LinUCB(cuts=[1, 3], thresholds=[0.7]) == LinUCB(cuts=(1, 3), thresholds=(0.7,))
    state = MuLinUCB(horizon=16).initial(ARMS, 0)
    assert state[int(state[FREE]) + EVERY] == 2.0, "the fourth root of 16, not what rounding makes of it"
