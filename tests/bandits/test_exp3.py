"""Exponential weights: steps by hand, unbiased losses on the realised graph, and the ways in which others overflow."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import Arm, Arms, ConformalFloor, Engine, MacsAndBytes, Observation, Profile, Quote
from offramp.bandits.exp3 import EXP3
from offramp.bandits.exp3_ix import Exp3IX
from offramp.bandits.exp3_s import EXP3S
from offramp.bandits.policy import fresh
from offramp.bandits.rearm import rearmed
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import AUDIT, P_ACTION, PLAY, ROUND, prediction_at, set_rule
from offramp.bandits.state import ARMS, FREE, MADE, OWN_PARAMETERS
from offramp.environments import Abrupt, ConfidenceCache, Stationary, World, replay, rollout

INF, NAN = math.inf, math.nan
TWO = Arms.grid(exits=2, thresholds=(0.8,))
FREE_OF_CHARGE = Quote(edge_cost=[0.0, 0.0, 0.0], offload_cost=[0.0, 0.0, 0.0], mu=0.0)
QUOTE = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0.0], mu=1.0)
ALL = [EXP3(), EXP3(known_costs=False), EXP3S(), Exp3IX(share=1e-3), Exp3IX(known_costs=False)]


def columns(state, count):
    """The first so many columns of a policy's own, (count, K)."""
    first, arms = int(state[FREE] + state[OWN_PARAMETERS]), int(state[ARMS])
    return state[first : first + count * arms].reshape(count, arms)


def local(confidence):
    return Observation(confidence=[confidence, NAN], answered_at=1, offloaded=False)


def cloud(first, last):
    return Observation(confidence=[first, last], answered_at=2, offloaded=True)


def play(engine, cut, quote=QUOTE):
    """Decide until the wanted cut comes up; the others are never answered."""
    while (decision := engine.decide(quote)).cut != cut:
        pass
    return decision


def test_exp3_by_hand():
    """One gain of (1 - (1 - r) / span) / p, and the distribution that follows."""
    engine = Engine(EXP3(gamma=0.2, span=2.0, known_costs=False), arms=TWO, seed=0, compiled=False)
    decision = play(engine, 1)
    assert decision.p_action == 0.5
    engine.update(decision, local(0.9))
    x = 1.0 - (1.0 - (0.9 - 0.2)) / 2.0
    weight = math.exp(0.2 / 2 * x / 0.5)
    assert play(engine, 1).p_action == pytest.approx(0.8 * weight / (weight + 1.0) + 0.1, abs=1e-14)


def test_exp3_with_known_costs_by_hand():
    """Confidence and offload are weighted, the edge cost is exact, and a new quote counts at once."""
    engine = Engine(EXP3(gamma=0.2, span=2.0), arms=TWO, seed=0, compiled=False)
    engine.update(play(engine, 1), cloud(0.5, 0.9))
    for link in (1.0, 3.0):
        quote = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[0.5, 0.3 * link, 0.0], mu=1.0)
        value = [0.9 / 0.5 - (1 * 0.2 + 2 * 0.3 * link), -1 * 0.6]
        weight = np.exp(0.2 / (2 * 2.0) * np.array(value))
        assert play(engine, 1, quote).p_action == pytest.approx(0.8 * weight[0] / weight.sum() + 0.1, abs=1e-14)


def test_exp3_s_by_hand():
    """w <- w exp(gamma x / (p K)) + e alpha / K * (sum of the weights before)."""
    engine = Engine(EXP3S(gamma=0.2, alpha=0.01, span=2.0), arms=TWO, seed=0, compiled=False)
    weight = np.ones(2)
    for confidence in (0.9, 0.8, 1.0):
        decision = play(engine, 1)
        p = 0.8 * weight[0] / weight.sum() + 0.1
        assert decision.p_action == pytest.approx(p, abs=1e-14)
        engine.update(decision, local(confidence))
        x = 1.0 - (1.0 - (confidence - 0.2)) / 2.0
        weight = weight * [math.exp(0.2 * x / (p * 2)), 1.0] + math.e * 0.01 / 2 * weight.sum()


def test_exp3_ix_by_hand():
    """Both arms need nothing but what the network on the edge shows, so one decision charges both."""
    policy = Exp3IX(eta=0.5, gamma=0.1, span=2.0, known_costs=False)
    engine = Engine(policy, arms=TWO, seed=0, compiled=False)
    decision = play(engine, 2)
    engine.update(decision, Observation(confidence=[0.85, 0.9], answered_at=2, offloaded=False))
    # The first exit answers at .8 and is shown by both arms; the last is shown by the second alone.
    assert columns(engine.state(), 1)[0] == pytest.approx([(0.15 + 0.2) / 1.1, (0.1 + 0.6) / 0.6], abs=1e-14)
    weight = np.exp(-0.5 / 2.0 * columns(engine.state(), 1)[0])
    assert play(engine, 1).p_action == pytest.approx(weight[0] / weight.sum(), abs=1e-14)


@pytest.mark.parametrize("policy", ALL, ids=str)
def test_late_feedback_is_weighted_by_the_probability_of_its_own_round(policy):
    """What river does not do: it divides by the probabilities of the latest decision."""
    first, second = (Engine(policy, arms=TWO, seed=0, compiled=False) for _ in range(2))
    answers = [0.9, 0.95, 1.0, 0.85]
    early = [play(first, 1) for _ in answers]
    late = [play(second, 1) for _ in answers]
    for decision, confidence in zip(early, answers, strict=True):
        first.update(decision, local(confidence))
    for decision, confidence in zip(late[::-1], answers[::-1], strict=True):
        second.update(decision, local(confidence))
    assert [d.p_action for d in late] == [d.p_action for d in early] == [0.5] * 4 or policy == ALL[3]
    shown = columns(first.state(), 1)[0], columns(second.state(), 1)[0]
    assert shown[0] - shown[0][0] == pytest.approx(shown[1] - shown[1][0], abs=1e-4)
    assert abs(shown[0][0] - shown[0][1]) > 0.1


GRID = Arms(
    exits=4,
    table=(
        Arm(0, INF),
        *(Arm(cut, threshold) for cut in (1, 2, 3) for threshold in (-INF, 0.3, 0.6, INF)),
        Arm(4, -INF),
    ),
)
PRICES = Quote(edge_cost=[0.0, 0.1, 0.2, 0.3, 0.4], offload_cost=[0.5, 0.4, 0.3, 0.2, 0.0], mu=1.0)


def outcome(arm, truth):
    """Confidence of the answer, and whether the sample is sent."""
    if arm.cut == 4 or (arm.cut > 0 and truth[arm.cut - 1] >= arm.threshold):
        return truth[arm.cut - 1], 0.0
    return truth[3], 1.0


def taught(policy, chance, played, truth, options, *, audit=False, memory=True):
    """What one observation of one arm adds to losses and offloads, (2, K)."""
    state = fresh(policy, GRID, 0)
    ring = len(state) - int(state[4]) * 1_024 - policy.memory * (len(GRID) + 1)
    state[ring] = 1.0 if memory else 7.0
    state[ring + 1 : ring + 1 + len(GRID)] = chance
    row, seen = PRICES.row.copy(), np.zeros(prediction_at(4) + 4)
    set_rule(row, GRID[played].cut, GRID[played].threshold)
    row[PLAY], row[P_ACTION], row[ROUND], row[AUDIT] = played, chance[played], 0.0, audit
    reveal(truth, np.arange(4), row, np.array([*options, 0, 0]), seen)
    policy.kernels.update(state, row, seen)
    return columns(state, 2)


WORLDS = [(1, 1), (1, 0), (0, 1), (0, 0)]
SURE = st.sampled_from([0.1, 0.3, 0.4, 0.6, 0.9])


def told(options):
    return {"evaluate": ("own", "prefix")[options[0]], "cloud_returns": ("final", "all")[options[1]]}


@settings(max_examples=15, deadline=None)
@given(st.lists(SURE, min_size=4, max_size=4), st.integers(0, 2**31))
@pytest.mark.parametrize("options", WORLDS)
def test_losses_are_unbiased_on_the_realised_graph(options, truth, seed):
    """Summed over the arm that is drawn, every arm's estimate is its loss: exactly, in each kind of world."""
    truth = np.array(truth)
    chance = np.random.default_rng(seed).dirichlet(np.full(len(GRID), 0.5)) + 1e-3
    chance /= chance.sum()
    policy = Exp3IX(gamma=0.0, memory=3, **told(options))
    mean = sum(p * taught(policy, chance, a, truth, options) for a, p in enumerate(chance))
    expected = np.array([outcome(arm, truth) for arm in GRID])
    assert mean[0] == pytest.approx(1.0 - expected[:, 0], abs=1e-9)
    assert mean[1] == pytest.approx(expected[:, 1], abs=1e-9)


@pytest.mark.parametrize("options", WORLDS)
@pytest.mark.parametrize("memory", [True, False])
def test_the_graph_shows_more_than_the_played_arm_and_never_less(options, memory):
    """What is charged beside it is right, an audit adds nothing, and without the distribution the arm stands alone."""
    truth, chance = np.array([0.4, 0.7, 0.2, 0.9]), np.full(len(GRID), 1.0 / len(GRID))
    expected = np.array([outcome(arm, truth) for arm in GRID]).T
    edges = knowable = 0
    for played in range(len(GRID)):
        policy = Exp3IX(gamma=0.0, memory=3, **told(options))
        loss, sent = taught(policy, chance, played, truth, options, memory=memory)
        assert loss[played] >= (1.0 - expected[0, played]) * (1.0 - 1e-12)
        assert (sent[expected[1] == 0.0] == 0.0).all()
        charged = {GRID[int(a)] for a in np.flatnonzero(loss)}
        assert charged <= known(GRID[played], truth, options)
        edges, knowable = edges + len(charged), knowable + len(known(GRID[played], truth, options))
        audited = taught(policy, chance, played, truth, options, memory=memory, audit=True)
        assert np.array_equal(audited, [loss, sent])
        if not memory:
            assert charged == {GRID[played]}
            assert loss[played] == pytest.approx((1.0 - expected[0, played]) * len(GRID))
    if memory:
        assert len(GRID) < edges <= knowable
        assert edges == knowable or options != (1, 1)


def known(played, truth, options):
    """The arms whose outcome is certain from what an arm reveals, in plain words."""
    prefix, everything = options
    sent = outcome(played, truth)[1] == 1.0
    heads = set(range(1, played.cut + 1)) if prefix else {played.cut} - {0}
    heads |= (set(range(played.cut + 1, 5)) if everything else {4}) if sent else set()
    found = set()
    for arm in GRID.table:
        judged = arm.cut in (0, 4) or math.isinf(arm.threshold) or arm.cut in heads
        if judged and (4 if outcome(arm, truth)[1] else arm.cut) in heads:
            found.add(arm)
    return found


def test_promises_that_the_world_does_not_keep_are_counted_on_no_more():
    """Told to see everything, in a world that shows the cut's own head and the last exit."""
    policy = Exp3IX(gamma=0.0, evaluate="prefix", cloud_returns="all")
    engine = Engine(policy, arms=GRID, seed=1, compiled=False)
    while (decision := engine.decide(PRICES)).threshold != INF or decision.cut != 2:
        pass
    engine.update(decision, Observation(confidence=[NAN, 0.5, NAN, 0.9], answered_at=4, offloaded=True))
    state = engine.state()
    assert state[int(state[FREE]) + 6 : int(state[FREE]) + 8].tolist() == [0.0, 0.0]


def test_fixed_share_under_constant_prices_is_the_one_of_the_textbook():
    """Edge costs exact, confidences and offloads weighted, and the weights mixed in every round."""
    policy = Exp3IX(eta=0.3, gamma=0.05, share=0.01, span=2.0, memory=4)
    engine = Engine(policy, arms=TWO, seed=5, compiled=False)
    weight = np.ones(2) / 2
    rng = np.random.default_rng(0)
    for _ in range(300):
        weight = 0.99 * weight / weight.sum() + 0.01 / 2
        decision = engine.decide(QUOTE)
        assert decision.p_action == pytest.approx(weight[decision.cut - 1], rel=1e-9)
        first, last = rng.random(2)
        loss = np.zeros(2)
        if decision.cut == 2:
            seen = Observation(confidence=[first, last], answered_at=2, offloaded=False)
            loss[1] = (1.0 - last) / (weight[1] + 0.05)
        else:
            seen = local(first) if first >= 0.8 else cloud(first, last)
        if first >= 0.8:
            loss[0] = (1.0 - first) / (1.0 + 0.05)
        elif decision.cut == 2:  # the network on the edge shows what would have been sent
            loss[0] = (1.0 - last + 0.3) / (1.0 + 0.05)
        else:
            loss[0] = (1.0 - last + 0.3) / (1.0 + 0.05)
        engine.update(decision, seen)
        weight = weight * np.exp(-0.3 / 2.0 * (loss + np.array([0.2, 0.6])))


def test_a_new_price_counts_at_once_and_what_was_handed_out_anew_is_not_priced():
    arms = Arms(exits=2, table=(Arm(1, INF), Arm(2, -INF)))
    engine = Engine(Exp3IX(eta=0.5, share=1e-3), arms=arms, seed=0, compiled=False)
    cheap = Quote(edge_cost=[0.0, 0.1, 0.6], offload_cost=[0.5, 0.05, 0.0], mu=1.0)
    dear = Quote(edge_cost=[0.0, 0.1, 0.6], offload_cost=[0.5, 4.0, 0.0], mu=1.0)
    for _ in range(400):
        decision = engine.decide(cheap)
        engine.update(decision, Observation(confidence=[0.5, 0.9], answered_at=2, offloaded=decision.cut == 1))
    assert sum(engine.decide(cheap).cut == 1 for _ in range(50)) >= 48
    assert sum(engine.decide(dear).cut == 2 for _ in range(50)) >= 48


@pytest.mark.parametrize("policy", ALL, ids=str)
@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_what_is_not_offered_is_not_drawn(policy, mu):
    """Only arms that cannot send are left; where there is none, any arm."""
    closed = Quote(edge_cost=[0.0, 0.2, 0.6], offload_cost=[INF, INF, 0.0], mu=mu)
    engine = Engine(policy, arms=TWO, seed=0, compiled=False)
    engine.update(play(engine, 1), cloud(0.5, 0.9))
    assert all(engine.decide(closed).cut == 2 for _ in range(30))
    assert 0.0 < play(engine, 1).p_action < 1.0
    engine = Engine(replace(policy, cuts=(1,)), arms=Arms.grid(exits=2, thresholds=(0.5, 0.8)), seed=0, compiled=False)
    for _ in range(30):
        decision = engine.decide(closed)
        engine.update(decision, cloud(0.1, 0.9))
        assert 0.0 < decision.p_action < 1.0
    assert not np.isnan(engine.state()).any()


def extremes(mu):
    """One exit is always sure, the last never, and each round on the last is dear."""
    n = 64
    cache = ConfidenceCache.from_arrays(
        confidence=np.stack([np.ones(n), np.zeros(n)], axis=1)[None],
        prediction=np.zeros((1, n, 2)),
        label=np.zeros(n),
        conditions=["a"],
        profile=Profile(segment_macs=(1, 9), head_macs=(0, 0), payload_bytes=(9, 9, 0), layers=(1, 2)),
    )
    return World(cache=cache, prices=MacsAndBytes(mu=mu), arms=TWO)


@pytest.mark.parametrize("policy", [ALL[1], ALL[2], ALL[3]], ids=str)
def test_a_million_extreme_rounds_stay_finite(policy):
    """river's weights overflow at round 14,201 of gamma = .1 with rewards of 1 and 0."""
    policy = replace(policy, span=1.0)
    for mu in (0.0, 1e6):
        trace, state = rollout(policy, extremes(mu), Stationary(condition="a"), horizon=500_000, seed=0)
        assert np.isfinite(state[int(state[FREE]) :]).all()
        if mu == 0.0 or isinstance(policy, Exp3IX):  # else both arms lose all that the span allows
            assert trace.arms[-1, 0] > 0.94 * 500_000  # uniform draws leave .95 of them


@pytest.mark.parametrize("policy", ALL[1:4], ids=str)
@pytest.mark.parametrize(("evaluate", "returns"), [("prefix", "all"), ("own", "final")])
def test_replay_equals_rollout(small, policy, evaluate, returns):
    world = replace(small, evaluate=evaluate, cloud_returns=returns)
    if isinstance(policy, Exp3IX):
        policy = replace(policy, cloud_returns=returns)
    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    fast, fast_state = rollout(policy, world, stream, horizon=300, seed=1)
    slow, slow_state = replay(policy, world, stream, horizon=300, seed=1)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(fast_state, slow_state)


def test_more_is_revealed_more_is_learnt(small):
    """On the same world, the realised graph beats the played arm alone."""
    stream, world = Stationary(condition="clear"), replace(small, cloud_returns="all")
    regret = {
        policy: np.mean([rollout(policy, world, stream, horizon=4_000, seed=s)[0].sums["regret"][-1] for s in range(4)])
        for policy in (Exp3IX(cloud_returns="all"), EXP3())
    }
    graph, alone = regret.values()
    assert graph < 0.6 * alone


@pytest.mark.parametrize("policy", ALL, ids=str)
def test_another_table_of_arms(policy):
    """Who stays keeps its numbers; who is new begins as the likeliest, not as one that never lost."""
    engine = Engine(policy, arms=TWO, seed=0, compiled=False)
    for _ in range(40):
        decision = engine.decide(QUOTE)
        last = decision.cut == 2
        engine.update(
            decision,
            Observation(confidence=[0.9, 0.3 if last else NAN], answered_at=2 if last else 1, offloaded=False),
        )
    state, more = engine.state(), TWO.plus([Arm(1, 0.5)])
    new = rearmed(policy, state, TWO, more, 0)
    old, mine = columns(state, 2), columns(new, 2)
    assert np.array_equal(mine[:, 1:], old)
    assert np.array_equal(mine[:, 0], mine[:, 1])
    again = rearmed(policy, new, more, TWO, 0)
    assert np.array_equal(columns(again, 2), old)


def test_under_a_floor_the_distribution_is_found_again():
    """A wrapper hands on round and probability, so that late feedback still finds its distribution."""
    arms = Arms.grid(exits=2, thresholds=(0.5, 0.8, INF))
    engine = Engine(ConformalFloor(policy=Exp3IX(), audit=0.5), arms=arms, seed=0, compiled=False)
    waiting = [engine.decide(QUOTE) for _ in range(9)]
    before = engine.state()
    for decision in waiting:
        sure = decision.cut == 1 and decision.threshold <= 0.6
        audited = sure and decision.audit
        engine.update(
            decision,
            Observation(
                confidence=[0.6, 0.7 if audited or not sure else NAN],
                answered_at=1 if sure else 2,
                offloaded=not sure and decision.cut == 1,
                audited=audited,
            ),
        )
    assert before[MADE] == 9
    assert len({d.round for d in waiting}) == 9
    assert not np.array_equal(engine.state(), before)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (EXP3, {"gamma": 0.0}),
        (EXP3, {"gamma": NAN}),
        (EXP3, {"span": 0.0}),
        (EXP3S, {"alpha": 0.0}),
        (EXP3S, {"gamma": 1.5}),
        (Exp3IX, {"eta": 0.0}),
        (Exp3IX, {"gamma": -1.0}),
        (Exp3IX, {"share": 1.1}),
        (Exp3IX, {"evaluate": "some"}),
        (Exp3IX, {"cloud_returns": "last"}),
        (Exp3IX, {"memory": 0}),
    ],
)
def test_what_is_refused(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)
