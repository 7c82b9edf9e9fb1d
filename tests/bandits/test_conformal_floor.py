"""The floor: its bound for every sequence, what the inner policy sees, and the embedded cache under drift."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import UCB1, AdaEE, Arm, Arms, Engine, Fixed, ISplitEE, Observation, Quote, RandomArm, SplitEES
from offramp.bandits.conformal_floor import FLOOR, ConformalFloor, moved, put_back, show
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import AUDIT, P_REVEAL
from offramp.bandits.state import FREE
from offramp.environments import Abrupt, Stationary, replay, rollout

NAN = float("nan")
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
ARMS = Arms.grid(exits=3, thresholds=(-math.inf, 0.5, 0.7, 0.9, math.inf), raw_input_allowed=True)
DRIFT = Abrupt(segments=(("pristine", 1.0), ("noise 20", 1.0), ("pristine", 1.0)))
ONE = UCB1(cuts=(2,), thresholds=(0.5,))  # one arm, by the kernels that are compiled here anyway


def floor_of(state):
    return state[int(state[FREE]) + FLOOR]


def seen(decision, confidence, classes):
    """What a decision reveals of one sample; exits = 3."""
    cut = decision.cut
    local = cut == 3 or (cut > 0 and confidence[cut - 1] >= decision.threshold)
    last = not local or cut == 3 or decision.audit
    shown = [c if j < cut or (j == 2 and last) else NAN for j, c in enumerate(confidence)]
    told = [k if not math.isnan(c) else -1 for k, c in zip(classes, shown, strict=True)]
    audited = local and cut < 3 and decision.audit
    return Observation(
        confidence=shown, answered_at=cut if local else 3, offloaded=not local, audited=audited, prediction=told
    )


@pytest.mark.parametrize("inner", [UCB1(), RandomArm()], ids=str)
def test_replay_equals_rollout(inner, world):
    policy = ConformalFloor(policy=inner, rate=0.02)
    fast, fast_state = rollout(policy, world, DRIFT, horizon=1_500, seed=1)
    slow, slow_state = replay(policy, world, DRIFT, horizon=1_500, seed=1)
    assert np.array_equal(fast_state, slow_state)
    assert np.array_equal(fast.arms, slow.arms)
    assert all(np.array_equal(values, slow.sums[name]) for name, values in fast.sums.items())
    assert np.isfinite(fast.sums["regret"]).all(), "the floor stays inside the table of arms"


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_bound_holds_for_every_sequence(data):
    """Whenever errors come: mean of the estimates <= target + (1 + rate / q - start) / (rate T)."""
    target, rate = data.draw(st.floats(0.01, 0.5)), data.draw(st.floats(0.001, 1.0))
    q, start = data.draw(st.sampled_from((0.1, 0.5, 1.0))), data.draw(st.floats(0, 1))
    policy = ConformalFloor(policy=Fixed(cut=1, threshold=-math.inf), target=target, rate=rate, audit=q, start=start)
    engine = Engine(policy, arms=ARMS, seed=data.draw(st.integers(0, 99)), compiled=False)
    errs = data.draw(st.lists(st.booleans(), min_size=1, max_size=60) | st.just([True] * 300))
    total, clipped, expected = 0.0, 0.0, start
    for err in errs:
        decision = engine.decide(QUOTE)
        engine.update(decision, seen(decision, (1.0, 1.0, 1.0), (0, 0, int(err))))
        z = err / q if decision.audit and decision.threshold < math.inf else 0.0
        total += z
        clipped += max(0.0, -(expected + rate * (z - target)))
        expected = max(0.0, expected + rate * (z - target))
    assert floor_of(engine.state()) == expected
    assert total / len(errs) <= target + (1 + rate / q - start) / (rate * len(errs)) + 1e-9
    assert (expected - start - clipped) / rate == pytest.approx(total - target * len(errs), abs=1e-6 / rate)


@settings(max_examples=200)
@given(st.floats(0, 2), st.floats(0, 10), st.floats(0.01, 0.5), st.floats(1e-4, 1))
def test_the_step_of_the_floor(floor, error, target, rate):
    assert moved(floor, error, target, rate) == max(0.0, floor + rate * (error - target))
    assert moved(0.0, 0.0, target, rate) == 0.0


@pytest.mark.parametrize(
    ("inner", "floor", "played"),
    [
        (-math.inf, 0.0, -math.inf),
        (-math.inf, 0.2, 0.5),
        (0.5, 0.5, 0.5),
        (0.5, 0.500001, 0.7),
        (0.9, 0.6, 0.9),
        (0.7, 0.95, math.inf),
    ],
)
def test_the_next_threshold_at_the_same_cut(inner, floor, played):
    engine = Engine(
        ConformalFloor(policy=Fixed(cut=2, threshold=inner), start=floor), arms=ARMS, seed=0, compiled=False
    )
    decision = engine.decide(QUOTE)
    assert (decision.cut, decision.threshold) == (2, played)
    assert ARMS[decision.arm] == Arm(2, played)


@pytest.mark.parametrize(
    "inner",
    [UCB1(), SplitEES(threshold=0.7), AdaEE(side_observations=True), ISplitEE(oracle_side_information=True)],
    ids=str,
)
def test_the_inner_policy_learns_as_if_there_were_no_floor(inner, world):
    """Its state is bit for bit that of the bare policy, though other arms are played and more is revealed."""
    _, alone = replay(inner, world, DRIFT, horizon=1_200, seed=0)
    trace, state = replay(
        ConformalFloor(policy=inner, rate=0.05, audit=0.3, start=0.8), world, DRIFT, horizon=1_200, seed=0
    )
    n, at = len(alone), int(state[int(state[FREE]) + FLOOR - 1])
    differ = np.flatnonzero(state[at : at + n] != alone)
    assert set(differ) <= {4, 5, 6}, "all but the header's uniforms"
    assert trace.sums["audits"][-1] > 100
    free, _ = replay(inner, world, DRIFT, horizon=1_200, seed=0)
    assert not np.array_equal(free.arms, trace.arms), "the floor did act"


@pytest.mark.parametrize("options", [(1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0)], ids=str)
def test_the_inner_policy_is_shown_what_its_own_decision_would_have_revealed(options):
    """Row by row: beside a bare policy that plays its own arms, in every world; afterwards all is as it was."""
    outer = ConformalFloor(policy=UCB1(), rate=0.05, audit=0.5, start=0.8)
    floored, bare = Engine(outer, arms=ARMS, seed=0, compiled=False), Engine(UCB1(), arms=ARMS, seed=0, compiled=False)
    rng, flags, changed = np.random.default_rng(0), np.array(options, dtype=np.int64), 0
    for _ in range(400):
        truth, classes = np.sort(rng.random(3)), rng.integers(0, 2, 3)
        played, own = floored.decide(QUOTE), bare.decide(QUOTE)
        told, mine = (Observation(confidence=[NAN] * 3, answered_at=1, offloaded=False) for _ in range(2))
        reveal(truth, classes, played.row, flags, told.row)
        reveal(truth, classes, own.row, flags, mine.row)
        rows = played.row.copy(), told.row.copy()
        state = floored.state()
        shown = show(state, played.row, told.row)
        assert np.array_equal(played.row, own.row)
        assert np.array_equal(told.row, mine.row, equal_nan=True)
        changed += not np.array_equal(told.row, rows[1], equal_nan=True)
        put_back(state, played.row, told.row, shown)
        assert np.array_equal(played.row, rows[0])
        assert np.array_equal(told.row, rows[1], equal_nan=True)
        assert floored.update(played, told)
        assert bare.update(own, mine)
    assert changed > 50


def test_drift_on_the_embedded_cache(world):
    """Clear, noisy, clear: the floor holds the disagreement, the bare policy does not; the whole run and each third."""
    horizon = 30_000
    bare, _ = rollout(ONE, world, DRIFT, horizon=horizon, seed=0)
    assert 1 - bare.mean("agreement") > 0.12
    runs = [rollout(ConformalFloor(policy=ONE), world, DRIFT, horizon=horizon, seed=s)[0] for s in range(8)]
    risk = np.array([1 - run.mean("agreement") for run in runs])
    slack = (1 + 0.005 / 0.1) / (0.005 * horizon)
    scatter = math.sqrt(0.05 / 0.1 / horizon)
    assert risk.mean() <= 0.05 + slack + 2 * scatter / math.sqrt(len(runs))
    assert risk.mean() >= 0.04, "held by offloading no more than it takes"
    assert abs(risk - 0.05).max() <= slack + 3 * scatter
    for run in runs:
        third = np.searchsorted(run.rounds, [horizon // 3, 2 * horizon // 3, horizon])
        agreed = np.diff(run.sums["agreement"][third], prepend=0.0)
        assert (1 - agreed / (horizon / 3)).max() < 0.09


def test_audits_are_drawn_blind_and_paid(world):
    """A share q of the early answers is audited, whatever their confidence, and each pays its offload."""
    policy = ConformalFloor(policy=ONE, audit=0.2, target=0.5)
    trace, _ = rollout(policy, world, Stationary(condition="pristine"), horizon=20_000, seed=0)
    bare, _ = rollout(ONE, world, Stationary(condition="pristine"), horizon=20_000, seed=0)
    early = 20_000 - trace.sums["offloads"][-1]
    assert trace.sums["offloads"][-1] == bare.sums["offloads"][-1], "a target this loose leaves the floor at 0"
    assert trace.sums["audits"][-1] / early == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / early))
    price = bare.sums["offload_cost"][-1] / bare.sums["offloads"][-1]
    extra = trace.sums["offload_cost"][-1] - bare.sums["offload_cost"][-1]
    assert extra == pytest.approx(price * trace.sums["audits"][-1])


def test_what_an_audit_teaches_and_what_tells_nothing():
    engine = Engine(
        ConformalFloor(policy=Fixed(cut=1, threshold=-math.inf), rate=0.1, audit=1.0), arms=ARMS, seed=0, compiled=False
    )

    def feed(classes, confidence=(0.6, 0.7, 0.8)):
        before, decision = floor_of(engine.state()), engine.decide(QUOTE)
        engine.update(decision, seen(decision, confidence, classes))
        return floor_of(engine.state()) - before

    assert feed((1, 1, 2)) == pytest.approx(0.1 * 0.95)
    assert feed((1, 2, 1)) == pytest.approx(-0.1 * 0.05)
    assert feed((1, 2, -1)) == pytest.approx(0.1 * 0.95), "an audit that does not tell counts as a disagreement"
    assert feed((-1, -1, -1)) == pytest.approx(0.1 * 0.95)
    assert feed((1, 1, 2), (0.1, 0.7, 0.8)) == pytest.approx(-0.1 * 0.05), "offloaded: the final exit answered"


def test_late_feedback_and_forgetting():
    """As the contract asks: what is finite at first stays so; forgetting keeps the floor and fades what was learnt."""
    policy = ConformalFloor(policy=UCB1(), rate=0.05, audit=0.5)
    engine, rng, waiting = Engine(policy, arms=ARMS, seed=0), np.random.default_rng(0), []
    finite = np.isfinite(policy.initial(ARMS, 0))
    for _ in range(400):
        decision = engine.decide(QUOTE)
        waiting.append((decision, seen(decision, np.sort(rng.random(3)), rng.integers(0, 3, 3))))
        while len(waiting) > 60:
            decision, observation = waiting.pop(int(rng.integers(len(waiting))))
            rows = decision.row.copy(), observation.row.copy()
            assert engine.update(decision, observation)
            assert np.array_equal(decision.row, rows[0])
            assert np.array_equal(observation.row, rows[1], equal_nan=True)
    state = engine.state()
    assert np.isfinite(state[finite]).all()
    assert floor_of(state) > 0.0
    engine.forget(0.5)
    after = engine.state()
    at = int(state[int(state[FREE]) + FLOOR - 1])
    assert floor_of(after) == floor_of(state)
    assert after[0] == state[0] / 2
    assert after[at] == state[at] / 2


def test_an_inner_policy_that_audits_by_itself_sees_all_audits():
    """A floor over a floor: both audit, and the inner one weighs what it sees by the probability of either."""
    inner = ConformalFloor(policy=Fixed(cut=1, threshold=-math.inf), rate=0.01, audit=0.4)
    engine = Engine(ConformalFloor(policy=inner, rate=0.01, audit=0.5), arms=ARMS, seed=0, compiled=False)
    audits = 0
    for _ in range(400):
        decision = engine.decide(QUOTE)
        assert decision.row[P_REVEAL] == pytest.approx(0.7)
        audits += decision.row[AUDIT]
        engine.update(decision, seen(decision, (1.0, 1.0, 1.0), (0, 0, 0)))
    assert audits / 400 == pytest.approx(0.7, abs=0.1)
    decision = engine.decide(QUOTE)
    while not decision.audit:
        decision = engine.decide(QUOTE)
    engine.update(decision, seen(decision, (1.0, 1.0, 1.0), (0, 0, 1)))
    state = engine.state()
    at = int(state[int(state[FREE]) + FLOOR - 1])
    assert floor_of(state) == floor_of(state[at:]) == pytest.approx(0.01 * (1 / 0.7 - 0.05))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.0}, r"target is 0.0, allowed is a number in \(0, 1\)"),
        ({"rate": 0.0}, "rate is 0.0, allowed is a finite number > 0"),
        ({"rate": math.inf}, "rate is inf"),
        ({"audit": 0.0}, r"audit is 0.0, allowed is a number in \(0, 1\]"),
        ({"start": 1.5}, r"start is 1.5, allowed is a number in \[0, 1\]"),
        ({"start": NAN}, "start is nan"),
        ({"policy": "ucb1"}, "policy is 'ucb1', allowed is a policy"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ConformalFloor(**{"policy": UCB1(), **change})


def test_a_table_in_which_early_answers_cannot_be_stopped_is_refused():
    with pytest.raises(ValueError, match="cut 1 has no threshold inf in the table of arms"):
        ConformalFloor(policy=UCB1()).initial(Arms.grid(exits=3, thresholds=(0.5, 0.8)), 0)
