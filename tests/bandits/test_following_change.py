"""The wrappers that follow change: what the inner policy is left with, late feedback, nesting, and real streams."""

import math

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, ConformalFloor, Engine, MacsAndBytes, Observation, Quote, RandomArm, SplitEE
from offramp.bandits.adwin import ADWIN
from offramp.bandits.checks import policy_checks
from offramp.bandits.discounted import Discounted
from offramp.bandits.nested import FIRST, LENGTH, start_of
from offramp.bandits.page_hinkley import PageHinkley
from offramp.bandits.per_context import PerContext
from offramp.bandits.restarting import SINCE, Restarting, alarms
from offramp.bandits.rows import ROUND
from offramp.bandits.sliding_window import AGE, ELDER, SlidingWindow
from offramp.bandits.state import ARMS as COUNT
from offramp.bandits.state import FREE, MADE, T
from offramp.environments import Abrupt, World, replay, rollout

NAN = float("nan")
ARMS = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.8, math.inf))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.5, 0.4, 0.3, 0.0], mu=1.0)
BARE = UCB1(beta=0.3)
LISTENER = PageHinkley(threshold=3.0)


def seen(decision, confidence):
    """What playing (cut, threshold) on a sample reveals in a world that evaluates the prefix; exits = 3."""
    cut = decision.cut
    local = cut > 0 and confidence[cut - 1] >= decision.threshold
    shown = [c if j < cut or (j == 2 and not local) else NAN for j, c in enumerate(confidence)]
    return Observation(confidence=shown, answered_at=cut if local else 3, offloaded=not local)


def samples(rounds, change, seed=0):
    """Sorted confidences that fall at `change`."""
    rng = np.random.default_rng(seed)
    base = np.sort(rng.beta(8, 2, (rounds, 3)), axis=1)
    base[change:] = np.sort(rng.beta(3, 5, (rounds - change, 3)), axis=1)
    return base


def play(engine, truth, context=None, between=None):
    """Play samples in order; returns the decisions."""
    made = []
    for t, confidence in enumerate(truth):
        if between is not None:
            between(t)
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


def test_discounting_is_forgetting_after_each_decision():
    """Bit for bit a bare policy that is told to forget between decision and feedback."""
    truth = samples(400, 200)
    wrapped, bare = (
        Engine(p, arms=ARMS, seed=0, compiled=False) for p in (Discounted(policy=BARE, discount=0.98), BARE)
    )
    for confidence in truth:
        one, two = wrapped.decide(QUOTE), bare.decide(QUOTE)
        assert np.array_equal(one.row, two.row)
        bare.forget(0.98)
        wrapped.update(one, seen(one, confidence))
        bare.update(two, seen(two, confidence))
        assert np.array_equal(inner_of(wrapped.state()), bare.state())
    assert pulls(bare.state()).sum() == pytest.approx(1 / (1 - 0.98), rel=1e-3)
    assert wrapped.state()[T] == bare.state()[T] < 50


def test_lazy_discounting_is_off_by_no_more_than_it_says():
    """Where the same is played, each weight is within discount^(n - 1) of the exact one, either way."""
    policy, ratios = SplitEE(threshold=0.8), []
    exact, lazy = (
        Engine(Discounted(policy=policy, discount=0.99, every=n), arms=ARMS, seed=0, compiled=False) for n in (1, 10)
    )
    lost = Observation(confidence=[NAN] * 3, answered_at=3, offloaded=True)
    for t in range(60):
        weights = []
        for engine in (exact, lazy):
            decision = engine.decide(QUOTE)
            engine.update(decision, seen(decision, (0.9, 0.9, 0.9)) if t < 3 or decision.cut == 3 else lost)
            weights.append(pulls(inner_of(engine.state())))
        if t >= 3:
            ratios.append(weights[1][0] / weights[0][0])
    assert 0.99**9 - 1e-9 <= min(ratios) < 1.0 < max(ratios) <= 0.99**-9 + 1e-9


def test_a_window_knows_between_half_of_it_and_all_of_it():
    """The decider's state is bit for bit that of a policy that began half a window or more ago."""
    window, truth = 60, samples(400, 200)
    engine = Engine(SlidingWindow(policy=BARE, window=window), arms=ARMS, seed=0, compiled=False)
    knows, begins = [], []
    for t, confidence in enumerate(truth):
        decision = engine.decide(QUOTE)
        state = engine.state()
        elder = int(state[int(state[FREE]) + ELDER])
        knows.append(pulls(inner_of(state, elder)).sum())
        begins.append(t - knows[-1])
        engine.update(decision, seen(decision, confidence))
        assert decision.round == t
    assert max(knows[:window]) == window - 1
    assert min(knows[window:]) == window / 2
    assert max(knows[window:]) == window - 1
    assert set(begins) == {30.0 * k for k in range(13)}
    state = engine.state()
    assert state[int(state[FREE]) + AGE] == 10
    younger = inner_of(state, 1 - int(state[int(state[FREE]) + ELDER]))
    assert pulls(younger).sum() == younger[T], "it counted every decision since it began, and learnt from each"


def test_a_window_drops_what_is_older_than_its_copies():
    engine = Engine(SlidingWindow(policy=BARE, window=20), arms=ARMS, seed=0, compiled=False)
    truth = samples(100, 100)
    old = engine.decide(QUOTE)
    play(engine, truth[:45])
    before = engine.state()
    assert engine.update(old, seen(old, truth[0]))
    assert np.array_equal(engine.state(), before), "made 45 rounds ago: older than both copies"
    young = engine.decide(QUOTE)
    play(engine, truth[45:50])
    before = engine.state()
    assert engine.update(young, seen(young, truth[0]))
    after = engine.state()
    learnt = [pulls(inner_of(after, k)).sum() - pulls(inner_of(before, k)).sum() for k in range(3)]
    assert sorted(learnt) == [0.0, 0.0, 1.0], "one copy began since; the third is what restarts go back to"


@pytest.mark.parametrize("keep", [0.0, 0.05])
def test_a_restart_leaves_what_it_says(keep):
    """Up to the alarm as the bare policy, at the alarm the share that is kept, and from there as a policy so begun."""
    policy = Restarting(policy=BARE, detector=LISTENER, keep=keep)
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    bare = Engine(BARE, arms=ARMS, seed=0, compiled=False)
    truth = samples(400, 200)
    rang = 0
    for t, confidence in enumerate(truth):
        one, two = engine.decide(QUOTE), bare.decide(QUOTE)
        assert (one.arm, one.cut, one.threshold) == (two.arm, two.cut, two.threshold)
        engine.update(one, seen(one, confidence))
        if alarms(engine.state()) > rang:
            rang += 1
            assert 200 <= t < 230
            if keep > 0.0:
                bare.forget(keep)
            else:
                mine = seen(two, confidence)
                bare = Engine(BARE, arms=ARMS, seed=0, compiled=False)
                free = bare._streams["default"]
                free.state[MADE] = t + 1
                bare.policy.kernels.update(free.state, two.row, mine.row)
                assert same(inner_of(engine.state()), bare.state())
                continue
        bare.update(two, seen(two, confidence))
        assert same(inner_of(engine.state()), bare.state())
    assert rang == 1
    assert engine.state()[T] == bare.state()[T]
    assert engine.state()[MADE] == 400


def test_feedback_from_before_an_alarm_is_dropped():
    """Neither policy nor detector hears of it; decisions after the alarm count, however late."""
    engine = Engine(Restarting(policy=BARE, detector=LISTENER, keep=0.0), arms=ARMS, seed=0, compiled=False)
    truth = samples(500, 200)
    open_ = []
    for t, confidence in enumerate(truth):
        decision = engine.decide(QUOTE)
        if t % 10 == 0:
            open_.append((decision, seen(decision, confidence)))
        else:
            engine.update(decision, seen(decision, confidence))
    state = engine.state()
    since = state[int(state[FREE]) + SINCE]
    assert alarms(state) == 1
    assert 200 < since < 240
    heard = 0
    for decision, observation in open_:
        before = engine.state()
        assert engine.update(decision, observation)
        changed = not np.array_equal(engine.state(), before)
        assert changed == (decision.row[ROUND] >= since)
        heard += changed
    assert 20 < heard < 35
    assert alarms(engine.state()) == 1


@pytest.mark.parametrize("signal", ["first_exit", "answer", "reward"])
def test_each_signal_rings(signal):
    policy = Restarting(policy=SplitEE(threshold=0.8), detector=LISTENER, signal=signal)
    engine = Engine(policy, arms=ARMS, seed=0, compiled=False)
    play(engine, samples(300, 300))
    quiet = alarms(engine.state())
    play(engine, samples(100, 0))
    assert alarms(engine.state()) > quiet
    assert quiet == 0 or signal != "first_exit"


def test_a_signal_that_is_hidden_or_infinite_is_not_heard():
    closed = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[math.inf, math.inf, math.inf, 0.0], mu=1.0)
    for signal in ("first_exit", "reward"):
        engine = Engine(Restarting(policy=BARE, detector=LISTENER, signal=signal), arms=ARMS, seed=0, compiled=False)
        for _ in range(100):
            decision = engine.decide(closed)
            local = decision.cut == 3 or decision.threshold <= 0.5
            shown = [NAN, NAN, 0.9 if not local or decision.cut == 3 else NAN]
            if decision.cut < 3:
                shown[decision.cut - 1] = 0.5
            engine.update(
                decision, Observation(confidence=shown, answered_at=decision.cut if local else 3, offloaded=not local)
            )
        assert not np.isnan(engine.state()).any()


NESTED = (
    PerContext(policy=Restarting(policy=BARE, detector=LISTENER), contexts=3),
    Restarting(policy=ConformalFloor(policy=RandomArm(), rate=0.02), detector=ADWIN(), keep=0.0),
    SlidingWindow(policy=Discounted(policy=RandomArm(), discount=0.99, every=5), window=100),
    ConformalFloor(policy=PerContext(policy=RandomArm(), contexts=2, prior=0.5), rate=0.02),
)


@pytest.mark.parametrize("policy", NESTED, ids=str)
def test_wrappers_nest(policy, routed):
    """Replay equals rollout, bit for bit, in a world with context; every layer counts the same decisions."""
    stream = Abrupt(segments=(("clear", 1.0), ("grainy", 3.0), ("soft", 1.0)))
    fast, fast_state = rollout(policy, routed, stream, horizon=400, seed=1)
    slow, slow_state = replay(policy, routed, stream, horizon=400, seed=1)
    assert np.array_equal(fast.arms, slow.arms)
    assert np.array_equal(fast_state, slow_state)
    assert all(np.array_equal(values, slow.sums[name]) for name, values in fast.sums.items())
    assert fast_state[MADE] == 400
    assert inner_of(fast_state)[MADE] > 350
    assert fast_state[int(fast_state[FREE]) + FIRST] == start_of(fast_state, 0)


def test_uniforms_are_those_of_the_whole():
    """The contract, for a wrapper around what draws."""
    wanted = ("uniforms_are_declared", "same_seed_same_history", "snapshots_continue_bit_for_bit")
    checks = policy_checks(SlidingWindow(policy=RandomArm(), window=100))
    assert [check() for check in checks if check.body.__name__ in wanted] == [None] * len(wanted)


def test_a_wrapper_draws_what_the_inner_policy_would():
    bare, wrapped = RandomArm(), SlidingWindow(policy=RandomArm(), window=50)
    one, two = (Engine(p, arms=ARMS, seed=4, compiled=False) for p in (bare, wrapped))
    assert [d.arm for d in play(one, samples(300, 300))] == [d.arm for d in play(two, samples(300, 300))]


def test_rounds_have_one_number_each_whatever_is_forgotten():
    engine = Engine(
        Discounted(policy=Restarting(policy=BARE, detector=LISTENER), discount=0.9), arms=ARMS, seed=0, compiled=False
    )
    made = play(engine, samples(300, 150), between=lambda t: engine.forget(0.5) if t % 50 == 49 else None)
    assert [d.round for d in made] == list(range(300))


def test_another_table_of_arms():
    """What stays is carried into every layer."""
    after = ARMS.without(cuts=[2])
    for policy in (
        PerContext(policy=Restarting(policy=BARE, detector=LISTENER, keep=0.0), contexts=2),
        SlidingWindow(policy=BARE, window=40),
    ):
        engine = Engine(policy, arms=ARMS, seed=0, features=1, compiled=False)
        play(engine, samples(90, 90), context=[[0.0]] * 90)
        state = engine.state()
        new = policy.rearm(state, ARMS, after, 1)
        old, now = inner_of(state), inner_of(new)
        if isinstance(policy, PerContext):
            old, now = inner_of(old), inner_of(now)
        stays = [i for i, arm in enumerate(ARMS) if arm.cut != 2]
        assert np.array_equal(pulls(now), pulls(old)[stays])
        assert new[MADE] == state[MADE] == 90


@pytest.mark.long
def test_they_beat_the_bare_policy_after_a_change_on_real_confidences(embedded):
    """Pristine for 12,000 rounds, then noise for 4,000: pseudo-regret after the change, mean of three runs."""
    world = World(cache=embedded.part("test"), prices=MacsAndBytes(), arms=Arms.grid(exits=7))
    stream = Abrupt(segments=(("pristine", 1.0), ("pristine", 1.0), ("pristine", 1.0), ("noise 40", 1.0)))

    def parts(policy):
        before = after = rang = 0.0
        for seed in range(3):
            trace, state = rollout(policy, world, stream, horizon=16_000, seed=seed)
            regret = trace.sums["regret"][np.searchsorted(trace.rounds, [12_000, 16_000])]
            before, after = before + regret[0] / 3, after + (regret[1] - regret[0]) / 3
            rang += alarms(state) if isinstance(policy, Restarting) else 0
        return before, after, rang

    bare = UCB1(beta=0.1, thresholds=(-math.inf, 0.9))
    quiet, lost, _ = parts(bare)
    for policy in (
        Discounted(policy=bare),
        SlidingWindow(policy=bare),
        Restarting(policy=bare, detector=PageHinkley()),
    ):
        before, after, rang = parts(policy)
        assert after < 0.7 * lost
        if isinstance(policy, Restarting):
            assert before == quiet, "it costs nothing while nothing changes"
            assert rang == 3, "one alarm a run"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Discounted(policy="ucb1"), "policy is 'ucb1', allowed is a policy"),
        (lambda: Discounted(policy=BARE, discount=0.0), r"discount is 0.0, allowed is a number in \(0, 1\]"),
        (lambda: Discounted(policy=BARE, every=0), "every is 0, allowed is a whole number >= 1"),
        (lambda: SlidingWindow(policy=BARE, window=7), "window is 7, allowed is an even number >= 2"),
        (lambda: Restarting(policy=BARE, detector="adwin"), "detector is 'adwin', allowed is a change detector"),
        (lambda: Restarting(policy=BARE, detector=ADWIN(), signal="label"), "signal is 'label', allowed are"),
        (lambda: Restarting(policy=BARE, detector=ADWIN(), keep=1.0), r"keep is 1.0, allowed is a number in \[0, 1\)"),
        (lambda: PerContext(policy=BARE, contexts=0), "contexts is 0, allowed is a whole number >= 1"),
        (lambda: PerContext(policy=BARE, contexts=2, feature=-1), "feature is -1, allowed is a whole number >= 0"),
        (lambda: PerContext(policy=BARE, contexts=2, prior=2.0), r"prior is 2.0, allowed is a number in \[0, 1\]"),
        (lambda: PerContext(policy=BARE, contexts=2, feature=3).initial(ARMS, 2), "features is 2, allowed is 0, or 4"),
        (
            lambda: PerContext(policy=BARE, contexts=3, likeliest=True).initial(ARMS, 2),
            "features is 2, allowed is 0, or 3",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
