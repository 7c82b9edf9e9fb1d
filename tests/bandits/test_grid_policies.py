"""UCB-N and TS-N on the grid: which observations count, that they are unbiased, and the propensities."""

import math
from dataclasses import replace

import numpy as np
import pytest

from offramp.bandits import UCB1, Arm, Arms, Engine, Observation, Quote
from offramp.bandits.kernel import HAVE_NUMBA
from offramp.bandits.largest_draw import SCALE
from offramp.bandits.pulls import CHOSEN, MEAN, PARAMETERS, PULLS, SHARE
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import AUDIT
from offramp.bandits.thompson import CENTRE
from offramp.bandits.ts_n import GridThompson
from offramp.bandits.ucb_n import OneSidedUCB
from offramp.environments import RandomWalk, replay, rollout
from offramp.environments.regret import served

INF = math.inf
ARMS = Arms.grid(exits=4, thresholds=(-INF, 0.4, 0.6, 0.8, INF), raw_input_allowed=True)
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.2, 0.35, 0.5], offload_cost=[0.4, 0.3, 0.2, 0.15, 0.0], mu=1.0)
WORLDS = {"prefix": (1, 0, 0, 0), "own": (0, 0, 0, 0), "all": (1, 1, 0, 0), "own, all": (0, 1, 0, 0)}
POLICIES = [OneSidedUCB(beta=0.3), GridThompson(sd=0.2)]


def population(n, seed=0):
    """Confidences of four exits, (n, 4): deeper ones are surer, and all hang together."""
    rng = np.random.default_rng(seed)
    base = rng.random(n)
    exits = [0.8 * base + rng.normal(0.02 * j, s, n) for j, s in enumerate((0.3, 0.2, 0.1, 0.05))]
    return np.clip(np.stack(exits, axis=1), 0.0, 1.0)


def columns(state):
    """Times chosen, weight, mean and share of offloads of each arm."""
    first, arms = int(state[7]) + PARAMETERS, int(state[1])
    return state[first : first + 4 * arms].reshape(4, arms)[[CHOSEN, PULLS, MEAN, SHARE]]


def observe(confidence, row, options):
    seen = Observation(confidence=[math.nan] * 4, answered_at=1, offloaded=False)
    reveal(np.asarray(confidence), np.arange(4), row, np.array(options), seen.row)
    return seen


def row_of(arm, arms=ARMS, quote=QUOTE):
    """A decision row for one arm of the table, as a policy that plays all of them writes it."""
    row = quote.row.copy()
    index = arms.table.index(arm)
    row[2] = row[3] = index
    row[4] = arm.cut
    row[6] = 1.0
    if arm.cut:
        row[len(row) - 4 + arm.cut - 1] = arm.threshold
    return row


def tells(confidence, arm):
    """Is the outcome of an arm known from these confidences?"""
    own = confidence[arm.cut - 1] if arm.cut else 0.0
    return own >= arm.threshold or (own < arm.threshold and not math.isnan(confidence[3]))


@pytest.mark.parametrize("world", WORLDS)
def test_an_edge_counts_where_every_sample_has_it(world):
    """Arm b learns from a play of a if, and only if, the outcome of b is known after it whatever the sample is."""
    truth = np.concatenate([population(200), np.random.default_rng(1).random((200, 4))])
    policy = OneSidedUCB()
    update = policy.kernels.learn
    for audit in (0.0, 1.0):
        for arm in ARMS.table:
            row = row_of(arm)
            row[AUDIT] = audit
            seen = [observe(c, row, WORLDS[world]) for c in truth]
            shown = [s.confidence for s in seen]
            for b, other in enumerate(ARMS.table):
                always = all(tells(c, other) for c in shown)
                learnt = set()
                for s in seen[::40]:
                    state = policy.initial(ARMS, 0)
                    assert update(state, row, s.row) == 0
                    learnt.add(columns(state)[1][b])
                assert learnt == {float(always)}, (arm, other, audit)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_side_observations_are_unbiased(policy, world):
    """Whatever was played, mean and share of each arm are those of the population."""
    truth = population(20_000)
    engine = Engine(policy, arms=ARMS, seed=0)
    for confidence in truth[:4_000]:
        decision = engine.decide(QUOTE)
        engine.update(decision, observe(confidence, decision.row, WORLDS[world]))
    chosen, pulls, mean, share = columns(engine.state())
    for a, arm in enumerate(ARMS.table):
        answer, sent = served(truth, arm, np.array(WORLDS[world]))
        assert mean[a] == pytest.approx(answer.mean(), abs=5 * 0.35 / math.sqrt(pulls[a]))
        assert share[a] == pytest.approx(sent.mean(), abs=5 * 0.5 / math.sqrt(pulls[a]))
    assert (pulls >= chosen).all()
    assert (pulls > chosen).sum() > len(ARMS) / 2


def test_averaging_what_a_sample_happens_to_show_would_be_biased():
    """The trap: a play shows more of an arm when the sample is sure, so what is known is not a fair sample of it."""
    truth = population(50_000)
    played, other = Arm(3, 0.6), Arm(1, 0.8)
    row = row_of(played)
    known = []
    for confidence in truth[:10_000]:
        c = observe(confidence, row, WORLDS["prefix"]).confidence
        if c[0] >= other.threshold or not math.isnan(c[3]):
            known.append(c[0] if c[0] >= other.threshold else c[3])
    answer, _ = served(truth, other, np.array(WORLDS["prefix"]))
    assert len(known) > 2_000
    assert abs(np.mean(known) - answer.mean()) > 0.05
    state = OneSidedUCB().initial(ARMS, 0)
    OneSidedUCB().kernels.learn(state, row, observe(truth[0], row, WORLDS["prefix"]).row)
    assert columns(state)[1][ARMS.table.index(other)] == 0.0


def test_ucb_n_by_hand():
    """One play of the last cut shows all; then mean - mu (gamma + p o) + beta sqrt(ln t / O), ties to the highest."""
    arms = Arms.grid(exits=2, thresholds=(0.5, 0.8))
    quote = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.3, 0.0], mu=1.0)
    engine = Engine(OneSidedUCB(beta=0.2), arms=arms, seed=0)
    nan = math.nan
    first = engine.decide(quote)
    assert first.cut == 2
    engine.update(first, Observation(confidence=[0.7, 0.9], answered_at=2, offloaded=False))
    _, pulls, mean, share = columns(engine.state())
    assert pulls.tolist() == [1, 1, 1]
    assert mean.tolist() == [0.7, 0.9, 0.9]
    assert share.tolist() == [0, 1, 0]
    second = engine.decide(quote)
    assert second.threshold == 0.5  # .5, .4 and .3, and the same bonus
    engine.update(second, Observation(confidence=[0.4, 1.0], answered_at=2, offloaded=True))
    _, pulls, mean, share = columns(engine.state())
    assert pulls.tolist() == [2, 1, 1]
    assert (mean[0], share[0]) == (pytest.approx(0.85), 0.5)
    bonus = 0.2 * np.sqrt(math.log(2) / pulls)
    index = mean - [0.2 + 0.5 * 0.3, 0.2 + 0.3, 0.6] + bonus
    assert engine.decide(quote).arm == int(index.argmax()) == 0
    dear = Quote(edge_cost=[0, 0.2, 0.6], offload_cost=[0.5, 0.9, 0.0], mu=1.0)
    assert engine.decide(dear).cut == 2
    engine.update(second, Observation(confidence=[nan, 1.0], answered_at=2, offloaded=True))
    free = Quote(edge_cost=[0, 0.2, 0.2], offload_cost=[0.5, 0.0, 0.0], mu=1.0)
    tied = Engine(OneSidedUCB(beta=0.2), arms=arms, seed=0)
    tied.update(tied.decide(free), Observation(confidence=[0.9, 0.9], answered_at=2, offloaded=False))
    assert tied.decide(free).cut == 2


def test_the_published_form_learns_the_price():
    """At constant prices both forms hold the same index; a new price counts at once in one alone."""
    truth = population(300)
    two = [Engine(OneSidedUCB(beta=0.3, known_costs=known), arms=ARMS, seed=0) for known in (True, False)]
    for confidence in truth:
        one, other = (engine.decide(QUOTE) for engine in two)
        for engine, decision in zip(two, (one, other), strict=True):
            engine.update(decision, observe(confidence, decision.row, WORLDS["prefix"]))
    (_, pulls, mean, share), (_, same, reward, none) = (columns(engine.state()) for engine in two)
    cut = np.array([arm.cut for arm in ARMS.table])
    assert np.array_equal(pulls, same)
    assert reward == pytest.approx(mean - QUOTE.edge_cost[cut] - share * QUOTE.offload_cost[cut])
    assert not none.any()
    dear = Quote(edge_cost=[0, 1, 1, 1, 0.5], offload_cost=[9, 9, 9, 9, 0.0], mu=1.0)
    assert two[0].decide(dear).cut == 4
    assert two[1].decide(dear).cut != 4


@pytest.mark.parametrize("known_costs", [True, False])
@pytest.mark.parametrize("kind", [OneSidedUCB, GridThompson])
def test_what_is_not_offered_is_passed_over(kind, known_costs):
    engine = Engine(kind(known_costs=known_costs), arms=ARMS, seed=0)
    for mu in (0.0, 1.0):
        quote = Quote(edge_cost=[0.0, 0.1, 0.2, 0.35, 0.5], offload_cost=[INF, INF, 0.2, INF, 0.0], mu=mu)
        for confidence in population(150, seed=int(mu)):
            decision = engine.decide(quote)
            assert decision.cut == 2 or decision.threshold == -INF
            engine.update(decision, observe(confidence, decision.row, WORLDS["prefix"]))
    assert np.isfinite(columns(engine.state())).all()


def test_without_side_observations_only_the_played_arm_learns():
    engine = Engine(OneSidedUCB(side_observations=False), arms=ARMS, seed=0)
    for confidence in population(100):
        decision = engine.decide(QUOTE)
        engine.update(decision, observe(confidence, decision.row, WORLDS["all"]))
    chosen, pulls, _, _ = columns(engine.state())
    assert np.array_equal(chosen, pulls)


def test_never_observed_arms_come_from_the_most_telling_down():
    """In a world of own heads one always-offload arm per cut is enough; where feedback is late each gets its turn."""
    engine = Engine(OneSidedUCB(beta=0.0), arms=ARMS, seed=0)
    played = []
    for confidence in population(6):
        decision = engine.decide(QUOTE)
        played.append((decision.cut, decision.threshold))
        engine.update(decision, observe(confidence, decision.row, WORLDS["own"]))
    assert played[:4] == [(4, -INF), (3, INF), (2, INF), (1, INF)]
    assert (columns(engine.state())[1] > 0).all()
    late = Engine(OneSidedUCB(), arms=ARMS, seed=0)
    assert [late.decide(QUOTE).arm for _ in range(2 * len(ARMS))] == [*range(len(ARMS) - 1, -1, -1)] * 2


def test_propensities_of_ts_n_are_those_of_independent_draws():
    engine = Engine(GridThompson(sd=0.3), arms=ARMS, seed=0)
    for confidence in population(60):
        decision = engine.decide(QUOTE)
        engine.update(decision, observe(confidence, decision.row, WORLDS["prefix"]))
    engine.decide(QUOTE)
    state = engine.state()
    first, arms = int(state[7]) + PARAMETERS, int(state[1])
    centre, scale = (state[first + k * arms : first + (k + 1) * arms] for k in (CENTRE, SCALE))
    _, pulls, mean, share = columns(state)
    cut = np.array([arm.cut for arm in ARMS.table])
    assert centre == pytest.approx(mean - QUOTE.edge_cost[cut] - share * QUOTE.offload_cost[cut])
    assert scale == pytest.approx(0.3 / np.sqrt(pulls))
    draws = np.random.default_rng(0).normal(centre, scale, (100_000, arms)).argmax(axis=1)
    frequency = np.bincount(draws, minlength=arms) / len(draws)
    stated = {}
    for _ in range(300):
        decision = engine.decide(QUOTE)
        stated[decision.arm] = decision.p_action
    assert len(stated) > 5
    for arm, p in stated.items():
        assert p == pytest.approx(frequency[arm], abs=0.01)


@pytest.mark.parametrize("evaluate", ["prefix", "own"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_replay_equals_rollout(policy, evaluate, routed):
    world = replace(routed, evaluate=evaluate, cloud_returns="all", fallback="most_confident")
    stream = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)
    fast, state = rollout(policy, world, stream, horizon=300, seed=0)
    slow, other = replay(policy, world, stream, horizon=300, seed=0)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(state, other)
    assert all(np.array_equal(values, slow.sums[name]) for name, values in fast.sums.items())


@pytest.mark.skipif(not HAVE_NUMBA, reason="too long in plain Python")
def test_one_sided_feedback_beats_own_feedback(world):
    """Where one round shows a hundred arms, finding the best of them costs a fraction."""
    stream = RandomWalk(conditions=("pristine",), stay=0.5)
    regret = {}
    for policy in (UCB1(beta=0.2), OneSidedUCB(beta=0.2), GridThompson(sd=0.2)):
        traces = [rollout(policy, world, stream, horizon=4_000, seed=seed)[0] for seed in range(2)]
        regret[type(policy).__name__] = sum(t.sums["regret"][-1] for t in traces)
    assert regret["OneSidedUCB"] < 0.6 * regret["UCB1"]
    assert regret["GridThompson"] < 0.6 * regret["UCB1"]
