"""Index policies against steps computed by hand, the rules that they share, and the traps of other libraries."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from offramp.bandits import (
    UCB1,
    AdaEE,
    Arm,
    Arms,
    Engine,
    Observation,
    Quote,
    SplitEE,
    SplitEES,
)
from offramp.bandits.bayes_ucb import BayesUCB
from offramp.bandits.beta_thompson import BetaThompson
from offramp.bandits.epsilon_greedy import EpsilonGreedy
from offramp.bandits.kl_ucb import KLUCB, divergence, upper_mean
from offramp.bandits.pulls import CHOSEN, MEAN, PARAMETERS, PULLS, SHARE, SQUARES, TOGETHER, variance, worth
from offramp.bandits.thompson import GaussianThompson
from offramp.bandits.ucb_tuned import UCBTuned
from offramp.bandits.ucb_v import UCBV

NAN, INF = float("nan"), math.inf
ARMS = Arms.grid(exits=3, thresholds=(-INF, 0.5, 0.7, INF), raw_input_allowed=True)
EDGE, OFFLOAD = [0.0, 0.1, 0.3, 0.6], [0.4, 0.3, 0.2, 0.0]
QUOTE = Quote(edge_cost=EDGE, offload_cost=OFFLOAD, mu=1.0)
FIVE = {"cuts": (1, 2, 3), "thresholds": (0.5, 0.7)}
DETERMINISTIC = [UCBV, UCBTuned, KLUCB, BayesUCB]
ALL = [*DETERMINISTIC, EpsilonGreedy, GaussianThompson, BetaThompson, UCB1]


def seen(confidence, decision):
    """What a decision reveals of a sample, one head at a time; exits = 3."""
    shown = [NAN] * 3
    cut = decision.cut
    local = cut > 0 and confidence[cut - 1] >= decision.threshold
    if cut:
        shown[cut - 1] = confidence[cut - 1]
    if not local:
        shown[2] = confidence[2]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local)


def feed(policy, samples, quotes=QUOTE):
    """Play samples in order, in plain Python; returns the engine, the table's indices, and the rewards."""
    engine, played, rewards = Engine(policy, arms=ARMS, seed=0, compiled=False), [], []
    for t, confidence in enumerate(samples):
        quote = quotes if isinstance(quotes, Quote) else quotes[t]
        decision = engine.decide(quote)
        observation = seen(confidence, decision)
        engine.update(decision, observation)
        played.append(decision.arm)
        cost = quote.edge_cost[decision.cut] + (quote.offload_cost[decision.cut] if observation.offloaded else 0.0)
        rewards.append(observation.confidence[observation.answered_at - 1] - quote.mu * cost)
    return engine, played, rewards


def column(state, k):
    arms = int(state[1])
    start = int(state[7]) + PARAMETERS + k * arms
    return state[start : start + arms]


def samples(n, seed=0):
    return np.sort(np.random.default_rng(seed).random((n, 3)), axis=1)


def textbook(index, n, data):
    """A bandit on whole rewards, in plain words: each arm once, then the largest index; the table's indices."""
    plays = UCB1(**FIVE).plays(ARMS)
    rewards, played = [[] for _ in plays], []
    for t, confidence in enumerate(data[:n]):
        a = t if t < len(plays) else int(np.argmax([index(np.array(r), t) for r in rewards]))
        arm = plays[a]
        local = confidence[arm.cut - 1] >= arm.threshold
        cost = EDGE[arm.cut] + (0.0 if local else OFFLOAD[arm.cut])
        rewards[a].append((confidence[arm.cut - 1] if local else confidence[2]) - cost)
        played.append(ARMS.table.index(arm))
    return played


def ucb_v(r, t):
    rate = math.log(t) / len(r)
    return r.mean() + math.sqrt(2.0 * r.var() * rate) + 3.0 * 0.2 * rate


def tuned(r, t):
    rate = math.log(t) / len(r)
    return r.mean() + math.sqrt(rate * min(0.25, r.var() + math.sqrt(2.0 * rate)))


def bayes(r, t):
    n, m = len(r), r.mean()
    weight, shape, rate = 1e-6 + n, 1.0 + n / 2, 1.0 + 0.5 * (n * r.var() + 1e-6 * n * m * m / (1e-6 + n))
    scale = math.sqrt(rate / (shape * weight))
    return n * m / weight + scale * stats.t.ppf(1.0 - min(0.5, 1.0 / (t * math.log(t))), 2.0 * shape)


@pytest.mark.parametrize(
    ("policy", "index"),
    [(UCBV(bound=0.2, **FIVE), ucb_v), (UCBTuned(**FIVE), tuned), (BayesUCB(**FIVE), bayes)],
)
@pytest.mark.parametrize("known", [True, False])
def test_the_published_index_and_the_same_with_known_prices(policy, index, known):
    """Mean and variance at the prices of now are those of whole rewards where prices are constant."""
    policy = type(policy)(**{**{f: getattr(policy, f) for f in policy.__dataclass_fields__}, "known_costs": known})
    data = samples(150)
    _, played, _ = feed(policy, data)
    assert played == textbook(index, 150, data)
    assert len(set(played[5:])) > 2


def test_variance_at_the_prices_of_now():
    """The second moments of confidence and offload give the variance that the rewards would have had."""
    cheap = Quote(edge_cost=EDGE, offload_cost=[1.0, 0.05, 0.1, 0.0], mu=2.0)
    policy = UCBV(cuts=(1,), thresholds=(0.5,))
    data = samples(60, seed=3)
    engine, _, _ = feed(policy, data)
    state = engine.state()
    local = data[:, 0] >= 0.5
    answer, sent = np.where(local, data[:, 0], data[:, 2]), 1.0 - local
    assert column(state, SQUARES)[0] / 60 == pytest.approx(answer.var())
    assert column(state, TOGETHER)[0] / 60 == pytest.approx(np.cov(answer, sent, bias=True)[0, 1])
    for quote in (QUOTE, cheap):
        reward = answer - quote.mu * (quote.edge_cost[1] + sent * quote.offload_cost[1])
        assert variance(state, quote.row, 0) == pytest.approx(reward.var())
        assert worth(state, quote.row, 0) == pytest.approx(reward.mean())
    engine.forget(0.25)
    assert column(engine.state(), PULLS)[0] == 15.0
    assert variance(engine.state(), cheap.row, 0) == pytest.approx(reward.var())
    engine.forget(1e-300)
    assert column(engine.state(), PULLS)[0] == 1e-9
    assert variance(engine.state(), cheap.row, 0) == pytest.approx(reward.var())


def test_welford_goes_on_after_forgetting():
    """A share of the past's weight: the weighted mean and variance, computed at once."""
    engine = Engine(UCBTuned(cuts=(1,), thresholds=(-INF,)), arms=ARMS, seed=0, compiled=False)
    values, weights = [0.3, 0.9, 0.6, 0.4], [0.25, 0.25, 0.5, 1.0]
    for t, value in enumerate(values):
        decision = engine.decide(QUOTE)
        engine.update(decision, seen((value, 0.0, 0.0), decision))
        if t in (1, 2):
            engine.forget(0.5)
    mean = np.average(values, weights=weights)
    state = engine.state()
    assert column(state, PULLS)[0] == pytest.approx(sum(weights))
    assert column(state, MEAN)[0] == pytest.approx(mean)
    assert column(state, SQUARES)[0] == pytest.approx(np.dot(weights, (np.array(values) - mean) ** 2))


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.02, 0.5, 0.83, 0.999, 1.0 - 1e-12, 1.0])
@pytest.mark.parametrize("budget", [0.0, 1e-9, 1e-4, 0.05, 1.0, 30.0, 1e9])
def test_upper_mean_solves_the_divergence(p, budget):
    q = upper_mean(p, budget)
    assert p <= q <= 1.0
    if 0.0 < p < 1.0 and budget > 0.0 and divergence(p, 1.0 - 1e-16) > budget:
        root = optimize.brentq(lambda x: divergence(p, x) - budget, p, 1.0 - 1e-16, xtol=1e-15)
        assert q == pytest.approx(root, abs=1e-10)


def test_kl_ucb_by_hand():
    data = samples(80, seed=5)
    _, played, _ = feed(KLUCB(**FIVE), data)
    plays = UCB1(**FIVE).plays(ARMS)
    answers, sent = [[] for _ in plays], [[] for _ in plays]
    for t, confidence in enumerate(data):
        index = [
            upper_mean(float(np.mean(c)), math.log(t) / len(c)) - EDGE[arm.cut] - np.mean(s) * OFFLOAD[arm.cut]
            for arm, c, s in zip(plays, answers, sent, strict=True)
            if c
        ]
        a = t if t < len(plays) else int(np.argmax(index))
        assert ARMS[played[t]] == plays[a]
        local = confidence[plays[a].cut - 1] >= plays[a].threshold
        answers[a].append(confidence[plays[a].cut - 1] if local else confidence[2])
        sent[a].append(not local)


def test_bayes_ucb_with_beta_posteriors_by_hand():
    data = samples(60, seed=6)
    _, played, _ = feed(BayesUCB(posterior="beta", **FIVE), data)
    plays = UCB1(**FIVE).plays(ARMS)
    answers, sent = [[] for _ in plays], [[] for _ in plays]
    for t, confidence in enumerate(data):
        tail = min(0.5, 1.0 / (t * math.log(t))) if t > 1 else 0.5
        index = [
            stats.beta.isf(tail, 1.0 + sum(c), 1.0 + len(c) - sum(c)) - EDGE[arm.cut] - np.mean(s) * OFFLOAD[arm.cut]
            for arm, c, s in zip(plays, answers, sent, strict=True)
            if c
        ]
        a = t if t < len(plays) else int(np.argmax(index))
        assert ARMS[played[t]] == plays[a]
        local = confidence[plays[a].cut - 1] >= plays[a].threshold
        answers[a].append(confidence[plays[a].cut - 1] if local else confidence[2])
        sent[a].append(not local)


def test_published_kl_ucb_learns_rewards_on_the_unit_scale():
    engine, _, rewards = feed(KLUCB(known_costs=False, bound=2.0, **FIVE), samples(5))
    assert column(engine.state(), MEAN) == pytest.approx(1.0 - (1.0 - np.array(rewards)) / 2.0)
    assert column(engine.state(), SHARE).tolist() == [0.0] * 5


def test_epsilon_greedy():
    """The stated probability, and the schedule of the paper."""
    data = samples(400)
    engine, played, rewards = feed(EpsilonGreedy(epsilon=0.2, **FIVE), data)
    decision = engine.decide(QUOTE)
    means = [np.mean([r for r, a in zip(rewards, played, strict=True) if a == k]) for k in sorted(set(played))]
    best = sorted(set(played))[int(np.argmax(means))]
    assert decision.p_action == pytest.approx(0.04 + 0.8 * (decision.arm == best))
    falling = Engine(EpsilonGreedy(epsilon=0.0, decay=20.0, **FIVE), arms=ARMS, seed=1, compiled=False)
    stated = []
    for confidence in data[:200]:
        decision = falling.decide(QUOTE)
        falling.update(decision, seen(confidence, decision))
        stated.append(decision.p_action)
    assert stated[:5] == [1.0] * 5
    assert stated[5:20] == pytest.approx([0.2] * 15)
    for t in range(20, 200):
        epsilon = 20.0 / (t + 1)
        assert min(abs(stated[t] - epsilon / 5), abs(stated[t] - (1.0 - 0.8 * epsilon))) < 1e-12


@pytest.mark.parametrize("kind", ALL)
def test_a_new_price_counts_at_once_if_it_is_known(kind):
    """Where the offload gets dear the policy leaves it at once; the published form has to learn that first."""
    cheap = Quote(edge_cost=EDGE, offload_cost=[1.0, 0.01, 1.0, 0.0], mu=1.0)
    dear = Quote(edge_cost=EDGE, offload_cost=[1.0, 50.0, 1.0, 0.0], mu=1.0)
    extra = {"epsilon": 0.0} if kind is EpsilonGreedy else {"beta": 0.05} if kind is GaussianThompson else {}
    sure = [(0.5, 0.6, 0.9)] * 40
    engine, _, _ = feed(kind(cuts=(1, 3), thresholds=(INF,), **extra), sure, cheap)
    assert engine.decide(dear).cut == 3
    published, _, _ = feed(kind(cuts=(1, 3), thresholds=(INF,), known_costs=False, **extra), sure, cheap)
    if kind not in (GaussianThompson, BetaThompson):
        assert published.decide(dear).cut == published.decide(cheap).cut


@pytest.mark.parametrize("mu", [0.0, 1.0])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ALL)
def test_an_arm_that_is_not_offered_is_passed_over(kind, known, mu):
    """From the first round on, also where nothing costs anything; when it is offered again, it gets its turn."""
    closed = Quote(edge_cost=EDGE, offload_cost=[INF, INF, 0.2, 0.0], mu=mu)
    engine = Engine(kind(known_costs=known), arms=ARMS, seed=0, compiled=False)
    for confidence in samples(40):
        decision = engine.decide(closed)
        assert decision.cut in (2, 3) or decision.threshold == -INF
        assert 0.0 < decision.p_action <= 1.0
        engine.update(decision, seen(confidence, decision))
    state = engine.state()
    assert not np.isnan(state).any()
    tried = {engine.decide(QUOTE).arm for _ in range(4)}
    assert {ARMS[a].cut for a in tried} == {0, 1}


@pytest.mark.parametrize("kind", ALL)
def test_where_nothing_is_offered_the_lowest_arm_is_played_and_teaches_no_infinite_reward(kind):
    closed = Quote(edge_cost=EDGE, offload_cost=[INF, INF, INF, 0.0], mu=0.0)
    engine = Engine(kind(cuts=(0, 1), thresholds=(0.7, INF), known_costs=False), arms=ARMS, seed=0, compiled=False)
    for confidence in samples(3):
        decision = engine.decide(closed)
        assert (decision.cut, decision.p_action) == (0, 1.0)
        engine.update(decision, seen(confidence, decision))
    assert np.isfinite(column(engine.state(), MEAN)).all()
    assert column(engine.state(), PULLS).sum() == 0.0


@pytest.mark.parametrize("kind", ALL)
def test_late_feedback_leaves_each_arm_its_turn(kind):
    """Trap: by pulls alone, a feedback delay of a hundred rounds would play the first arm a hundred times."""
    engine = Engine(kind(**FIVE), arms=ARMS, seed=0, compiled=False)
    decisions = [engine.decide(QUOTE) for _ in range(12)]
    assert [d.arm for d in decisions[:5]] == [d.arm for d in decisions[5:10]]
    assert len({d.arm for d in decisions}) == 5
    for decision, confidence in zip(decisions[::-1], samples(12), strict=True):
        engine.update(decision, seen(confidence, decision))
    assert 0.0 < engine.decide(QUOTE).p_action <= 1.0


def test_the_first_reward_of_an_arm_counts():
    """Trap, coba: after 1, 0, 0 the mean is a third, not zero."""
    one = Engine(UCBTuned(cuts=(1,), thresholds=(-INF,)), arms=ARMS, seed=0, compiled=False)
    for value in (1.0, 0.0, 0.0):
        decision = one.decide(QUOTE)
        one.update(decision, seen((value, 0.0, 0.0), decision))
    assert column(one.state(), MEAN)[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", ALL)
def test_every_arm_is_tried_and_nothing_is_pulled_before_it_is(kind):
    """Traps: MABWiser never forces an arm it has not pulled; striatum starts with a fake pull of reward 1."""
    engine = Engine(kind(), arms=ARMS, seed=0, compiled=False)
    if kind is not UCB1:
        assert column(engine.state(), PULLS).sum() == column(engine.state(), CHOSEN).sum() == 0.0
    played = []
    for confidence in samples(len(ARMS)):
        decision = engine.decide(QUOTE)
        played.append(decision.arm)
        engine.update(decision, seen(confidence, decision))
    assert played == list(range(len(ARMS)))


@pytest.mark.parametrize("kind", DETERMINISTIC)
def test_ties_go_to_the_lowest_arm_and_the_bonus_is_there(kind):
    """Trap, river: a bonus that is dropped pulls the arm that was sampled more."""
    free = Quote(edge_cost=[0.0] * 4, offload_cost=[0.0] * 4, mu=1.0)
    engine, played, _ = feed(kind(cuts=(1, 2), thresholds=(-INF,)), [(0.5, 0.5, 0.5)] * 6, free)
    assert [ARMS[a].cut for a in played] == [1, 2] * 3
    state = engine.state()
    assert column(state, PULLS).tolist() == [3.0, 3.0]
    decision = engine.decide(free)
    engine.update(decision, seen((0.5, 0.5, 0.5), decision))
    assert decision.cut == 1
    assert engine.decide(free).cut == 2


def test_splitees_leave_a_cut_that_is_not_offered():
    closed = Quote(edge_cost=EDGE, offload_cost=[INF, INF, 0.2, 0.0], mu=0.0)
    for policy in (SplitEE(), SplitEE(known_costs=False), SplitEES(), SplitEES(known_costs=False)):
        _, played, _ = feed(policy, samples(30), closed)
        assert {ARMS[a].cut for a in played} == {2, 3}
    for known in (True, False):
        _, played, _ = feed(AdaEE(cut=1, known_costs=known), samples(10), closed)
        assert {ARMS[a] for a in played} == {Arm(1, -INF)}


def test_published_adaee_by_hand():
    """Its reward holds the overhead: nothing for a local answer, gain minus overhead for an offload."""
    engine, played, _ = feed(AdaEE(cut=1, known_costs=False), [(0.6, 0.6, 0.95)] * 4)
    assert [ARMS[a].threshold for a in played] == [-INF, 0.5, 0.7, INF]
    state = engine.state()
    gain = state[int(state[7]) + 5 + 2 * 4 :][:4]
    assert gain == pytest.approx([0.0, 0.0, 0.35 - 0.3, 0.35 - 0.3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UCBV(beta=-1.0), r"beta is -1.0, allowed is a finite number >= 0"),
        (lambda: UCBTuned(bound=INF), r"bound is inf, allowed"),
        (lambda: KLUCB(bound=0.0), r"bound is 0.0, allowed is a finite number > 0"),
        (lambda: EpsilonGreedy(epsilon=1.5), r"epsilon is 1.5, allowed is a number in \[0, 1\]"),
        (lambda: BayesUCB(posterior="gamma"), r"posterior is 'gamma', allowed are \('normal', 'beta'\)"),
        (lambda: BayesUCB(prior=(0.0, 1.0, 0.1, 1.0)), r"prior is .*allowed are mean, weight > 0, shape >= 0.5"),
        (lambda: BayesUCB(posterior="beta", prior=(1.0,)), r"prior is .*allowed are two numbers >= 0.01"),
        (lambda: GaussianThompson(beta=0.0), r"beta is 0.0, allowed is a finite number > 0"),
        (lambda: BetaThompson(failures=0.0), r"failures is 0.0, allowed is a finite number >= 0.01"),
        (lambda: UCBV(cuts=(9,)).plays(ARMS), r"cuts are \(9,\), allowed are \[0, 1, 2, 3\]"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
