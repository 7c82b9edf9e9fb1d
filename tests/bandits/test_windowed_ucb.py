"""Discounted and sliding-window UCB against their definitions, summed anew each round, with feedback late and lost."""

import math

import numpy as np
import pytest

from offramp.bandits import UCB1, Arm, Arms, Engine, MacsAndBytes, Observation, Quote
from offramp.bandits.discounted_ucb import EXTRA, LARGE, TOTAL, UNIT, DiscountedUCB
from offramp.bandits.sliding_window_ucb import (
    ARM_OF,
    CHOSEN,
    COLUMNS,
    GRAIN,
    HELD,
    MEAN,
    OFFLOAD,
    PULLS,
    RING,
    ROOT,
    SENT,
    SHARE,
    SUM,
    VALUE,
    SlidingWindowUCB,
)
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FADED, FREE, HEADER, T
from offramp.environments import Abrupt, Stationary, World, replay, rollout

NAN = float("nan")
ARMS = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.8, math.inf), raw_input_allowed=True)
QUOTES = [
    Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.5 * x, 0.4 * x, 0.3 * x, 0.0], mu=1.0) for x in (1.0, 0.3)
]


def seen(decision, confidence):
    """What playing (cut, threshold) on a sample reveals; exits = 3."""
    cut = decision.cut
    local = cut > 0 and confidence[cut - 1] >= decision.threshold
    shown = [c if j < cut or (j == 2 and not local) else NAN for j, c in enumerate(confidence)]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local)


def price(quote, arm, share):
    return quote.edge_cost[arm.cut] + (share * quote.offload_cost[arm.cut] if share > 0 else 0.0)


def histories(policy, rounds, delay, check):
    """Play with feedback that is up to `delay` rounds late and sometimes lost; `check` sees all that was known."""
    rng = np.random.default_rng(1)
    engine = Engine(policy, arms=ARMS, seed=0)
    waiting, known = [], []  # known: round, arm, confidence, offloaded
    for t in range(rounds):
        quote = QUOTES[t // 150 % 2]
        decision = engine.decide(quote)
        check(t, quote, decision, known, engine)
        truth = np.sort(rng.random(3)) * (1.0 if t < rounds // 2 else 0.6)
        waiting.append((t, decision, seen(decision, truth)))
        while len(waiting) > delay:
            s, late, observation = waiting.pop(int(rng.integers(len(waiting))))
            if rng.random() < 0.9 or delay == 0:
                assert engine.update(late, observation)
                answer = observation.confidence[observation.answered_at - 1]
                known.append((s, late.arm, answer, observation.offloaded))
    return engine


@pytest.mark.parametrize("delay", [0, 25])
def test_discounted_ucb_by_its_definition(delay):
    """The chosen arm's index, from sums over all rounds, is never below another's by more than rounding."""
    discount, beta = 0.97, 0.4

    def check(t, quote, decision, known, engine):
        weight, total, sent = np.zeros(len(ARMS)), np.zeros(len(ARMS)), np.zeros(len(ARMS))
        for s, arm, answer, offloaded in known:
            w = discount ** (t - 1 - s)
            weight[arm] += w
            total[arm] += w * answer
            sent[arm] += w * offloaded
        if (weight == 0).any():
            assert weight[decision.arm] == 0
            return
        bonus = beta * np.sqrt(math.log(max(weight.sum(), 1.0)) / weight)
        cost = [price(quote, arm, s) for arm, s in zip(ARMS, sent / weight, strict=True)]
        index = total / weight - np.array(cost) + bonus
        assert index[decision.arm] >= index.max() - 1e-9

    engine = histories(DiscountedUCB(discount=discount, beta=beta), 900, delay, check)
    state = engine.state()
    extra = len(state) - EXTRA
    assert 1.0 <= state[extra + UNIT] <= LARGE, "the unit was renewed"
    assert state[extra + TOTAL] / state[extra + UNIT] <= 1 / (1 - discount)


@pytest.mark.parametrize("delay", [0, 25])
def test_sliding_window_ucb_by_its_definition(delay):
    """Choices are exactly those of sums over the last rounds, and so is the state."""
    window, beta, arms = 60, 0.4, []

    def within(t, known):
        count, total, sent = np.zeros(len(ARMS)), np.zeros(len(ARMS)), np.zeros(len(ARMS))
        for s, arm, answer, offloaded in known:
            if s >= t - window:
                count[arm] += 1
                total[arm] += math.floor(answer * GRAIN + 0.5) / GRAIN
                sent[arm] += offloaded
        return count, total, sent

    def check(t, quote, decision, known, engine):
        count, total, sent = within(t, known)
        asked = np.bincount(arms[-window:], minlength=len(ARMS))
        arms.append(decision.arm)
        if (asked == 0).any():
            assert decision.arm == np.flatnonzero(asked == 0)[0], "an arm that was not played in the window"
        elif not count.any():
            assert decision.arm == asked.argmin(), "nothing is known: the arm played least often"
        else:
            width = beta * math.sqrt(math.log(min(t, window)))
            index = np.full(len(ARMS), -math.inf)
            for a, arm in enumerate(ARMS):
                if count[a]:
                    mean, share, root = total[a] / count[a], sent[a] / count[a], 1.0 / math.sqrt(count[a])
                    index[a] = mean + width * root - quote.mu * price(quote, arm, share)
            assert decision.arm == int(index.argmax())

    engine = histories(SlidingWindowUCB(window=window, beta=beta), 900, delay, check)
    state = engine.state()
    own = state[int(state[FREE]) + 4 :][: COLUMNS * len(ARMS)].reshape(COLUMNS, len(ARMS))
    assert own[CHOSEN].tolist() == np.bincount(arms[-window:], minlength=len(ARMS)).tolist()
    ring = state[-RING * window :].reshape(RING, window)
    for a in range(len(ARMS)):
        mine = (ring[ARM_OF] == a) & (ring[VALUE] >= 0)
        assert own[PULLS, a] == mine.sum()
        assert own[SUM, a] == ring[VALUE, mine].sum(), "exact in any order"
        assert own[SENT, a] == ring[OFFLOAD, mine].sum()


def test_sums_are_exact_after_many_rounds(small):
    _, state = rollout(SlidingWindowUCB(window=500), small, Stationary(condition="clear"), horizon=200_000, seed=0)
    arms = int(state[COUNT])
    own = state[int(state[FREE]) + 4 :][: COLUMNS * arms].reshape(COLUMNS, arms)
    ring = state[-RING * 500 :].reshape(RING, 500)
    for a in range(arms):
        values = ring[VALUE, ring[ARM_OF] == a]
        assert own[SUM, a] == math.fsum(values)
        assert own[MEAN, a] == own[SUM, a] / len(values)
        assert own[SHARE, a] == own[SENT, a] / len(values)
        assert own[ROOT, a] == 1 / math.sqrt(len(values))


def test_weights_stay_bounded_after_many_rounds(small):
    policy = DiscountedUCB(discount=0.99, beta=0.2)
    _, state = rollout(policy, small, Stationary(condition="foggy"), horizon=200_000, seed=0)
    finite = np.isfinite(policy.initial(small.arms, 0))
    assert np.isfinite(state[finite]).all()
    unit, total = state[-EXTRA + UNIT], state[-EXTRA + TOTAL]
    assert 1 <= unit <= LARGE
    assert total / unit == pytest.approx(1 / (1 - 0.99), rel=1e-6)
    pulls = state[int(state[FREE]) + 2 :][: 5 * int(state[COUNT])].reshape(5, -1)[1]
    assert pulls.sum() == pytest.approx(total, rel=1e-6)
    assert (pulls > 0).all()


def test_without_discount_it_is_ucb1(small):
    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    one, _ = rollout(DiscountedUCB(discount=1.0), small, stream, horizon=3_000, seed=0)
    two, _ = rollout(UCB1(), small, stream, horizon=3_000, seed=0)
    assert np.array_equal(one.arms, two.arms)


@pytest.mark.parametrize("policy", [DiscountedUCB(discount=0.95, beta=0.3), SlidingWindowUCB(window=60)], ids=str)
def test_replay_equals_rollout(policy, small):
    stream = Abrupt(segments=(("clear", 1.0), ("foggy", 3.0)))
    fast, fast_state = rollout(policy, small, stream, horizon=1_500, seed=1)
    slow, slow_state = replay(policy, small, stream, horizon=1_500, seed=1)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(fast_state, slow_state)


def test_the_bonus_counts_what_the_means_count():
    """The trap of windowed means beside plain counts: an arm last played long ago must become interesting again."""
    arms = Arms.grid(exits=2, thresholds=(-math.inf,))  # two arms: answer at exit 1, or at exit 2
    quote = Quote(edge_cost=[0.0, 0.0, 0.0], offload_cost=[0.0, 0.0, 0.0], mu=1.0)
    for policy in (DiscountedUCB(discount=0.95, beta=0.3), SlidingWindowUCB(window=40, beta=0.3)):
        engine, played = Engine(policy, arms=arms, seed=0), []
        for t in range(600):
            decision = engine.decide(quote)
            played.append(decision.cut)
            better = 2 if t < 300 else 1
            answer = 0.9 if decision.cut == better else 0.5
            shown = [answer, NAN] if decision.cut == 1 else [NAN, answer]
            engine.update(decision, Observation(confidence=shown, answered_at=decision.cut, offloaded=False))
        waits = np.diff(np.flatnonzero(np.array(played[50:300]) == 1))
        assert waits.max() < 120, "the worse arm is looked at again and again, at a steady pace"
        assert np.mean(np.array(played[400:]) == 1) > 0.8, "and the change is found"
    plain, found = Engine(UCB1(beta=0.3), arms=arms, seed=0), []
    for _ in range(300):
        decision = plain.decide(quote)
        found.append(decision.cut)
        answer = 0.9 if decision.cut == 2 else 0.5
        shown = [answer, NAN] if decision.cut == 1 else [NAN, answer]
        plain.update(decision, Observation(confidence=shown, answered_at=decision.cut, offloaded=False))
    assert np.sum(np.array(found[150:]) == 1) <= 2, "undiscounted counts all but stop looking"


def test_an_arm_that_may_not_send_is_left_alone():
    closed = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[math.inf, 0.4, math.inf, 0.0], mu=1.0)
    for mu in (1.0, 0.0):
        quote = Quote(edge_cost=closed.edge_cost, offload_cost=closed.offload_cost, mu=mu)
        engine = Engine(SlidingWindowUCB(window=30), arms=ARMS, seed=0)
        for _ in range(200):
            decision = engine.decide(quote)
            assert decision.cut not in (0, 2) or decision.threshold == -math.inf
            engine.update(decision, seen(decision, (0.4, 0.6, 0.9)))
        assert np.isfinite(engine.state()[np.isfinite(SlidingWindowUCB(window=30).initial(ARMS, 0))]).all()
        faded = Engine(DiscountedUCB(), arms=ARMS, seed=0)
        for t in range(200):
            decision = faded.decide(quote)
            if t >= len(ARMS) and decision.threshold > 0.6:
                assert decision.cut not in (0, 2), "arms that have sent are avoided, whatever mu is"
            faded.update(decision, seen(decision, (0.4, 0.6, 0.9)))


def test_forgetting():
    def check(*_):
        pass

    engine = histories(DiscountedUCB(discount=0.99), 300, 0, check)
    before = engine.state()
    engine.forget(0.25)
    after, k = engine.state(), len(ARMS)
    pulls = slice(int(before[FREE]) + 2 + k, int(before[FREE]) + 2 + 2 * k)
    assert after[pulls] == pytest.approx(before[pulls] / 4)
    assert after[-EXTRA + TOTAL] == before[-EXTRA + TOTAL] / 4
    for _ in range(40):
        engine.forget(0.25)
    assert (engine.state()[pulls] >= FADED * engine.state()[-EXTRA + UNIT]).all()

    engine = histories(SlidingWindowUCB(window=100), 300, 0, check)
    before = engine.state()
    engine.forget(0.25)
    after = engine.state()
    free = int(after[FREE])
    assert (before[free + HELD], after[free + HELD]) == (100, 25)
    assert after[free + 4 + PULLS * k : free + 4 + (PULLS + 1) * k].sum() == 25
    assert after[T] == before[T] / 4


def test_another_table_of_arms():
    """Arms that stay keep their numbers, bit for bit; the window loses the others."""

    def check(*_):
        pass

    after = ARMS.without(cuts=[0]).plus([Arm(1, 0.9)])
    stays = [i for i, arm in enumerate(ARMS) if arm.cut > 0]
    for policy, columns, first in ((DiscountedUCB(discount=0.99), 5, 2), (SlidingWindowUCB(window=100), COLUMNS, 4)):
        engine = histories(policy, 300, 0, check)
        state = engine.state()
        new = policy.rearm(state, ARMS, after, 0)
        old, now = (
            s[int(s[FREE]) + first :][: columns * int(s[COUNT])].reshape(columns, int(s[COUNT])) for s in (state, new)
        )
        where = [list(after).index(ARMS[i]) for i in stays]
        assert np.array_equal(now[:, where], old[:, stays])
        assert not now[:, list(after).index(Arm(1, 0.9))].any()
        if isinstance(policy, SlidingWindowUCB):
            held = int(new[int(new[FREE]) + HELD])
            ring = new[-RING * 100 :].reshape(RING, 100)[:, :held]
            assert held == now[CHOSEN].sum() == now[PULLS].sum()
            assert (np.diff(ring[0]) > 0).all()
            assert [np.sum(ring[ARM_OF] == a) for a in range(len(after))] == now[CHOSEN].tolist()
        second = Engine(policy, arms=after, seed=0)
        assert second.policy.initial(after, 0).shape == new.shape


def test_both_beat_ucb1_after_a_change_on_real_confidences(embedded):
    """Pristine for 12,000 rounds, then noise for 4,000: pseudo-regret after the change, mean of three runs."""
    arms = Arms.grid(exits=7)
    world = World(cache=embedded.part("test"), prices=MacsAndBytes(), arms=arms)
    stream = Abrupt(segments=(("pristine", 1.0), ("pristine", 1.0), ("pristine", 1.0), ("noise 40", 1.0)))

    def after(policy):
        total = 0.0
        for seed in range(3):
            trace, _ = rollout(policy, world, stream, horizon=16_000, seed=seed)
            at = np.searchsorted(trace.rounds, [12_000, 16_000])
            total += np.diff(trace.sums["regret"][at])[0] / 3
        return total

    some = {"beta": 0.1, "thresholds": (-math.inf, 0.9)}
    bare = after(UCB1(**some))
    assert after(DiscountedUCB(discount=0.999, **some)) < 0.8 * bare
    assert after(SlidingWindowUCB(window=2_000, **some)) < 0.8 * bare


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiscountedUCB(discount=0.0), r"discount is 0.0, allowed is a number in \(0, 1\]"),
        (lambda: DiscountedUCB(beta=-1.0), "beta is -1.0"),
        (lambda: SlidingWindowUCB(window=1), "window is 1, allowed is a whole number in 2.."),
        (lambda: SlidingWindowUCB(window=2**21), "window is 2097152"),
        (lambda: SlidingWindowUCB(window=10).initial(ARMS, 0), "window is 10, allowed is more than the 10 arms"),
        (lambda: SlidingWindowUCB(thresholds=(0.1,)).initial(ARMS, 0), "thresholds are"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_header_is_what_it_was():
    """Columns stand where UCB1's do, whose kernels read them."""
    state = DiscountedUCB(beta=0.3).initial(ARMS, 0)
    bare = UCB1(beta=0.3).initial(ARMS, 0)
    free = int(bare[FREE])
    assert free == HEADER + 3 * len(ARMS)
    assert np.array_equal(state[free : free + 2], bare[free : free + 2])
    assert len(state) == len(bare) + EXTRA
