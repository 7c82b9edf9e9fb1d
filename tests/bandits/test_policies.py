"""Each policy against steps computed by hand from its paper, and the faults of the published code as tests."""

import math

import numpy as np
import pytest

from offramp.bandits import (
    UCB1,
    AdaEE,
    Arms,
    Engine,
    FinalExit,
    Fixed,
    ISplitEE,
    MacsAndBytes,
    Observation,
    OffloadFirst,
    PaperUnits,
    Profile,
    Quote,
    RandomArm,
    SendInput,
    SplitEE,
    SplitEES,
    adaee,
    splitee_s,
)
from offramp.environments import ConfidenceCache, Stationary, World, rollout

NAN = float("nan")
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
ARMS = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.7, 0.9, math.inf), raw_input_allowed=True)


def seen(confidence, cut, threshold, *, prefix=True):
    """What playing (cut, threshold) on a sample reveals; exits = 3."""
    shown = [NAN] * 3
    for j in range(cut):
        if prefix or j == cut - 1:
            shown[j] = confidence[j]
    local = cut > 0 and confidence[cut - 1] >= threshold
    if not local:
        shown[2] = confidence[2]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local)


def feed(policy, samples):
    """Play samples in order; returns the engine and the cuts and thresholds chosen."""
    engine = Engine(policy, arms=ARMS, seed=0)
    played = []
    for confidence in samples:
        decision = engine.decide(QUOTE)
        played.append((decision.cut, decision.threshold))
        engine.update(decision, seen(confidence, decision.cut, decision.threshold))
    return engine, played


def test_splitee_by_hand():
    """Three first pulls, then the index of equation r_i + beta sqrt(ln t / N_i)."""
    samples = [(0.8, 0.85, 0.9), (0.6, 0.65, 0.95), (0.5, 0.6, 0.99), (0.9, 0.9, 0.9)]
    engine, played = feed(SplitEE(threshold=0.7), samples)
    assert [cut for cut, _ in played[:3]] == [1, 2, 3]
    bonus = math.sqrt(math.log(3))
    index = [0.8 - 0.1 + bonus, 0.95 - (0.3 + 0.2) + bonus, 0.99 - 0.6 + bonus]
    assert played[3][0] == 1 + int(np.argmax(index)) == 1
    chosen = engine.decide(QUOTE)
    means = [(0.8 + 0.9) / 2 - 0.1, 0.95 - 0.5, 0.99 - 0.6]
    pulls = [2, 1, 1]
    index = [m + math.sqrt(math.log(4) / n) for m, n in zip(means, pulls, strict=True)]
    assert chosen.cut == 1 + int(np.argmax(index)) == 2


def test_known_price_equals_learnt_price_where_it_is_constant():
    """UCB1 on rewards that hold the price, in plain Python, makes the same choices under a constant quote."""
    rng = np.random.default_rng(0)
    samples = np.sort(rng.random((400, 3)), axis=1)
    _, played = feed(UCB1(cuts=(1, 2, 3), thresholds=(0.7, 0.9)), samples)
    arms = [a for a in ARMS.table if a.cut == 3 or (a.cut in (1, 2) and a.threshold in (0.7, 0.9))]
    total, pulls = np.zeros(len(arms)), np.zeros(len(arms))
    for t, c in enumerate(samples):
        a = t if t < len(arms) else int(np.argmax(np.round(total / pulls + np.sqrt(math.log(t) / pulls), 12)))
        assert (arms[a].cut, arms[a].threshold) == played[t]
        sent = arms[a].cut < 3 and c[arms[a].cut - 1] < arms[a].threshold
        cost = QUOTE.edge_cost[arms[a].cut] + (QUOTE.offload_cost[arms[a].cut] if sent else 0.0)
        total[a] += (c[2] if sent else c[arms[a].cut - 1]) - cost
        pulls[a] += 1


def test_a_new_price_counts_at_once():
    engine, _ = feed(UCB1(beta=0.0, cuts=(1, 3), thresholds=(math.inf,)), [(0.5, 0.6, 0.9)] * 10)
    cheap = Quote(edge_cost=[0, 0.1, 0.3, 0.6], offload_cost=[1, 0.01, 1, 0], mu=1.0)
    dear = Quote(edge_cost=[0, 0.1, 0.3, 0.6], offload_cost=[1, 5.0, 1, 0], mu=1.0)
    assert [engine.decide(q).cut for q in (cheap, dear, cheap)] == [1, 3, 1]


def test_splitee_s_is_causal_and_unbiased():
    """The means of shallow arms equal those of the population, although most samples never reach the cloud."""
    rng = np.random.default_rng(1)
    base = rng.random(40_000)
    confidence = np.clip(np.stack([base + rng.normal(0, s, base.size) for s in (0.15, 0.1, 0.05)], 1), 0.0, 1.0)
    alpha = 0.7
    engine = Engine(SplitEES(threshold=alpha), arms=ARMS, seed=0)
    for c in confidence[:20_000]:
        decision = engine.decide(QUOTE)
        engine.update(decision, seen(c, decision.cut, decision.threshold))
    state = engine.state()
    free, arms = int(state[7]), int(state[1])
    own = state[free + splitee_s.PARAMETERS :][: 6 * arms].reshape(6, arms)
    count, above, below, sent, cloud = own[1:]
    for a in range(2):
        short = confidence[:, a] < alpha
        assert count[a] >= sent[a]
        assert below[a] == pytest.approx(short.mean(), abs=4 / math.sqrt(count[a]))
        assert above[a] == pytest.approx(np.where(short, 0, confidence[:, a]).mean(), abs=4 / math.sqrt(count[a]))
        if sent[a] > 100:
            assert cloud[a] == pytest.approx(confidence[short, 2].mean(), abs=4 / math.sqrt(sent[a]))


def test_dropping_unknown_cases_would_be_biased():
    """The tempting shortcut, counting only what happened to be known, misses the mean."""
    rng = np.random.default_rng(2)
    base = rng.random(20_000)
    c = np.clip(np.stack([base + rng.normal(0, s, base.size) for s in (0.15, 0.1, 0.05)], 1), 0.0, 1.0)
    alpha = 0.7
    truth = np.where(c[:, 0] >= alpha, c[:, 0], c[:, 2]).mean()
    known = (c[:, 0] >= alpha) | (c[:, 1] < alpha)  # while exit 2 is played
    shortcut = np.where(c[:, 0] >= alpha, c[:, 0], c[:, 2])[known].mean()
    assert abs(shortcut - truth) > 0.005


def test_oracle_variant_counts_each_round_once():
    engine, played = feed(SplitEES(threshold=0.7, oracle_side_information=True), [(0.9, 0.9, 0.9)] * 3)
    assert [cut for cut, _ in played] == [1, 2, 3]
    state = engine.state()
    counts = state[int(state[7]) + splitee_s.PARAMETERS + 3 :][:3]
    assert counts.tolist() == [3.0, 2.0, 1.0]


def test_released_isplitee_drowns_its_means():
    """The fault I-2: means of all arms flow together, while a clean update keeps them apart."""
    rng = np.random.default_rng(0)
    n = 872
    confidence = np.clip(rng.normal(np.linspace(0.6, 0.95, 7), 0.15, (n, 7)), 0.1, 1.0)[None]
    profile = Profile(
        segment_macs=(1,) * 7, head_macs=(1,) * 7, payload_bytes=(1,) * 7 + (0,), layers=(3, 6, 9, 12, 15, 18, 19)
    )
    cache = ConfidenceCache.from_arrays(
        confidence=confidence,
        prediction=np.zeros((1, n, 7)),
        label=np.zeros(n),
        conditions=["a"],
        classes=2,
        profile=profile,
    )
    world = World(cache=cache, prices=PaperUnits(), arms=Arms.grid(exits=7))
    stream = Stationary(condition="a")
    released = ISplitEE(oracle_side_information=True, as_released=True)
    _, state = rollout(released, world, stream, horizon=n, seed=0)
    free = int(state[7]) + 1
    means = state[free + 7 : free + 14] / state[free : free + 7]
    assert means.max() - means.min() < 0.15
    trace, clean = rollout(ISplitEE(), world, stream, horizon=n, seed=0)
    above = clean[int(clean[7]) + splitee_s.PARAMETERS + 14 :][:7]
    assert above[-1] == pytest.approx(0.93, abs=0.1)
    best = int(trace.arms[-1].argmax())
    assert world.arms[best].cut == 1
    with pytest.raises(ValueError, match="as_released is True"):
        ISplitEE(as_released=True)


def test_adaee_by_hand():
    """Reward: nothing for a local answer, the clipped gain minus the overhead for an offload."""
    policy = AdaEE(cut=1, beta=1.0)
    thresholds = [a.threshold for a in policy.plays(ARMS)]
    assert thresholds == [-math.inf, 0.5, 0.7, 0.9, math.inf]
    samples = [(0.6, 0.6, 0.9)] * 5
    engine, played = feed(policy, samples)
    assert [t for _, t in played] == thresholds
    gain = 0.9 - 0.6 - 0.3
    index = [0, 0, gain, gain, gain]
    assert engine.decide(QUOTE).threshold == thresholds[int(np.argmax(np.round(index, 12)))]
    lossy, _ = feed(AdaEE(cut=1, beta=0.0, clipped=False), [(0.6, 0.6, 0.2)] * 5)
    clipped, _ = feed(AdaEE(cut=1, beta=0.0, clipped=True), [(0.6, 0.6, 0.2)] * 5)
    at = [e.state()[int(e.state()[7]) + adaee.PARAMETERS + 2 * 5 + 4] for e in (lossy, clipped)]
    assert at == pytest.approx([-0.4, 0.0])


def test_adaee_side_observations_go_down_only():
    """Playing a threshold tells of every lower one, whatever happened, and of no higher one."""
    engine = Engine(AdaEE(cut=1, side_observations=True), arms=ARMS, seed=0)
    first = engine.decide(QUOTE)
    assert first.threshold == math.inf
    engine.update(first, seen((0.6, 0.6, 0.9), 1, math.inf))
    state = engine.state()
    own = state[int(state[7]) + adaee.PARAMETERS :].reshape(5, 5)
    assert own[1].tolist() == [1.0] * 5
    assert own[2] == pytest.approx([0.0, 0.0, 0.3, 0.3, 0.3])
    assert own[3].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("policy", "cut", "threshold"),
    [
        (FinalExit(), 3, -math.inf),
        (OffloadFirst(), 1, math.inf),
        (SendInput(), 0, math.inf),
        (Fixed(cut=2, threshold=0.7), 2, 0.7),
    ],
)
def test_trivial_policies(policy, cut, threshold):
    _, played = feed(policy, [(0.5, 0.6, 0.7)] * 4)
    assert played == [(cut, threshold)] * 4


def test_offload_first_saves_58_percent_at_the_papers_constants():
    """1 - (3 lambda + o) / 19 lambda: what a learner has to beat."""
    profile = Profile(
        segment_macs=(1,) * 7, head_macs=(1,) * 7, payload_bytes=(1,) * 7 + (0,), layers=(3, 6, 9, 12, 15, 18, 19)
    )
    quote = PaperUnits().quote(profile)
    assert 1 - (quote.edge_cost[1] + quote.offload_cost[1]) / quote.edge_cost[7] == pytest.approx(0.5789, abs=1e-4)


def test_random_arm_is_uniform():
    engine = Engine(RandomArm(), arms=ARMS, seed=0)
    n = 12_000
    counts = np.bincount([engine.decide(QUOTE).arm for _ in range(n)], minlength=len(ARMS))
    p = 1 / len(ARMS)
    assert abs(counts / n - p).max() < 5 * math.sqrt(p * (1 - p) / n)


def test_an_arm_that_is_not_offered_is_named():
    with pytest.raises(ValueError, match=r"threshold=0.65.*offered at cut 1 are.*0.7"):
        Fixed(cut=1, threshold=0.65).initial(ARMS, 0)
    with pytest.raises(ValueError, match=r"threshold 0.65 is not in the table"):
        SplitEE(threshold=0.65).initial(ARMS, 0)
    with pytest.raises(ValueError, match=r"cut is 3, allowed is 1\.\.2"):
        AdaEE(cut=3).initial(ARMS, 0)
    with pytest.raises(ValueError, match=r"beta is -1, allowed is a finite number >= 0"):
        UCB1(beta=-1)


def test_prices_of_macs_and_bytes():
    profile = Profile(segment_macs=(60, 39), head_macs=(1, 1), payload_bytes=(3000, 8000, 0), layers=(1, 2))
    quote = MacsAndBytes(network=0.5, kilobyte=0.01, mu=2.0).quote(profile, link=3.0)
    assert quote.edge_cost == pytest.approx([0.0, 0.5 * 61 / 100, 0.5 * 101 / 100])
    assert quote.offload_cost.tolist() == [math.inf, pytest.approx(0.24), 0.0]
    own = MacsAndBytes(network=0.5).quote(profile, evaluate="own", raw_input_allowed=True)
    assert own.edge_cost[2] == pytest.approx(0.5)
    assert math.isfinite(own.offload_cost[0])
    with pytest.raises(ValueError, match="evaluate is 'all'"):
        MacsAndBytes().quote(profile, evaluate="all")
    with pytest.raises(ValueError, match="link is 0, allowed"):
        MacsAndBytes().quote(profile, link=0)
