"""Late and lost feedback: the same in both executors, learnt in the stated order, and nothing where there is none."""

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import UCB1, Engine, Fixed, RandomArm, SplitEE
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.policy import Kernels
from offramp.bandits.rows import ROUND, context_at
from offramp.bandits.state import FREE, choose, pack
from offramp.environments import Lateness, RandomWalk, Stationary, replay, rollout
from offramp.environments.lateness import learnt, waiting

MIXED = RandomWalk(conditions=("clear", "foggy"), links=(0.5, 1.0, 3.0), stay=0.9)
ROUTED = RandomWalk(conditions=("packed", "clear", "soft", "grainy"), links=(0.5, 1.0, 3.0), stay=0.9)
LATE = Lateness(delay=7, spread=5, lost=0.3)


def assert_equal(policy, world, stream, lateness, horizon=300, seed=0):
    how = {"horizon": horizon, "seed": seed, "lateness": lateness}
    fast, fast_state = rollout(policy, world, stream, **how)
    slow, slow_state = replay(policy, world, stream, **how)
    assert np.array_equal(fast.arms, slow.arms), "different arms"
    assert np.array_equal(fast_state, slow_state), "different states"
    for name, values in fast.sums.items():
        assert np.array_equal(values, slow.sums[name]), f"different {name}"
    return fast, fast_state


@kernel
def select_kept(state, row):
    choose(state, row, 0, 1.0)


@kernel
def update_kept(state, decision, observation):
    """Write the rounds down in the order in which they are learnt."""
    at = whole(state[FREE])
    state[at + 1 + whole(state[at])] = decision[ROUND]
    state[at] += 1.0


@kernel
def forget_kept(state, factor):
    state[whole(state[FREE])] *= factor


DIARY = Kernels.of(select_kept, update_kept, forget_kept)


class Diary(Fixed):
    """A policy that keeps the order in which its decisions came back."""

    def initial(self, arms, features):
        return pack(
            table=arms.part(self.plays(arms)), exits=arms.exits, features=features, draws=0, parameters=(), extra=400
        )

    @property
    def kernels(self):
        return DIARY


def diary(state):
    at = int(state[FREE])
    return state[at + 1 : at + 1 + int(state[at])].astype(int).tolist()


@pytest.mark.parametrize(
    "lateness",
    [
        Lateness(),
        Lateness(delay=1),
        Lateness(delay=100, lost=0.1),
        Lateness(spread=9),
        LATE,
        Lateness(delay=299),
        Lateness(delay=300),
        Lateness(delay=10**9),
        Lateness(lost=1.0),
        Lateness(delay=3, spread=20, lost=0.2, twice=0.5),
    ],
)
def test_feedback_is_learnt_when_it_is_due_and_in_the_order_of_the_decisions(small, lateness):
    _, state = assert_equal(Diary(cut=2, threshold=0.7), small, MIXED, lateness)
    delays = lateness.rounds(horizon=300, seed=0)
    arrived = [(r + d, r) for r, d in enumerate(delays.tolist()) if d >= 0 and r + d < 300]
    assert diary(state) == [r for _, r in sorted(arrived)]


@pytest.mark.parametrize("policy", [UCB1(), SplitEE(threshold=0.7), RandomArm()], ids=lambda p: type(p).__name__)
def test_replay_equals_rollout_with_late_feedback(small, policy):
    for seed in range(2):
        assert_equal(policy, small, MIXED, LATE, seed=seed)


def test_replay_equals_rollout_with_late_feedback_and_context(routed):
    assert_equal(UCB1(), routed, ROUTED, LATE)


def test_uniforms_are_refilled_alike_with_late_feedback(small):
    """More rounds than one block of uniforms lasts; who draws at random plays the same arms, late or not."""
    late, _ = assert_equal(RandomArm(), small, Stationary(condition="clear"), LATE, horizon=1_500)
    prompt, _ = rollout(RandomArm(), small, Stationary(condition="clear"), horizon=1_500, seed=0)
    assert np.array_equal(late.arms, prompt.arms)


def test_no_lateness_changes_no_bit(small):
    """Neither through the plain loop, nor through the waiting one with a delay of 0."""
    plain, state = rollout(UCB1(), small, MIXED, horizon=300, seed=0)
    none, same = rollout(UCB1(), small, MIXED, horizon=300, seed=0, lateness=Lateness())
    assert np.array_equal(plain.arms, none.arms)
    assert np.array_equal(state, same)

    class AlwaysWaits(Lateness):
        @property
        def none(self):
            return False

    waited, parked = rollout(UCB1(), small, MIXED, horizon=300, seed=0, lateness=AlwaysWaits())
    assert np.array_equal(plain.arms, waited.arms)
    assert np.array_equal(state, parked)


def test_the_stream_does_not_depend_on_lateness(small):
    prompt, _ = rollout(Fixed(cut=2, threshold=0.7), small, MIXED, horizon=300, seed=4)
    late, _ = rollout(Fixed(cut=2, threshold=0.7), small, MIXED, horizon=300, seed=4, lateness=LATE)
    assert all(np.array_equal(prompt.sums[name], late.sums[name]) for name in prompt.sums)


def test_all_lost_is_never_having_learnt(small):
    _, state = rollout(UCB1(), small, MIXED, horizon=50, seed=0, lateness=Lateness(lost=1.0))
    engine = Engine(UCB1(), arms=small.arms, seed=0)
    quotes = small.arrays(MIXED.conditions, MIXED.links).quotes
    assert len(np.unique(quotes, axis=0)) == 3  # the cold arms are tried whatever the quote
    for _ in range(50):
        engine.decide(small.prices.quote(small.profile))
    assert np.array_equal(state, engine.state())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 12), st.floats(0.0, 1.0), st.integers(0, 10**9), st.integers(1, 60))
def test_delays_are_within_bounds_and_do_not_depend_on_the_horizon(delay, spread, lost, seed, horizon):
    spec = Lateness(delay=delay, spread=spread, lost=lost)
    longer = spec.rounds(horizon=100, seed=seed)
    assert np.array_equal(longer[:horizon], spec.rounds(horizon=horizon, seed=seed))
    arriving = longer[longer >= 0]
    assert ((arriving >= delay) & (arriving <= delay + spread)).all()
    assert (longer[longer < 0] == -1).all()


def test_delays_have_the_rates_that_were_asked_for():
    found = Lateness(delay=2, spread=3, lost=0.25).rounds(horizon=40_000, seed=3)
    share = np.array([(found == d).mean() for d in (-1, 2, 3, 4, 5)])
    np.testing.assert_allclose(share, [0.25, 0.1875, 0.1875, 0.1875, 0.1875], atol=0.01)


def test_the_state_that_waits_holds_the_policys_own_and_never_grows(small):
    inner = UCB1().initial(small.arms, 0)
    for horizon in (10, 300):
        state = waiting(inner, LATE, LATE.rounds(horizon=horizon, seed=0))
        assert np.array_equal(learnt(state), inner)
    row = context_at(4) + 5 + 8
    assert len(waiting(inner, Lateness(delay=10**9), np.zeros(10, dtype=np.int64))) < len(inner) + 200 + 11 * row


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delay": -1}, r"delay is -1, allowed is a whole number"),
        ({"spread": 1.5}, r"spread is 1\.5, allowed"),
        ({"lost": 1.1}, r"lost is 1\.1, allowed"),
        ({"lost": float("nan")}, r"lost is nan, allowed"),
    ],
)
def test_what_no_lateness_can_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Lateness(**wrong)


@pytest.mark.parametrize(("name", "spec"), [("none", Lateness()), ("late", Lateness(delay=100, lost=0.1))])
def test_a_comparison_has_it_as_an_option(name, spec):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        config = compose("compare", overrides=[] if name == "none" else [f"lateness={name}"])
    assert instantiate(config.lateness) == spec
