"""The contract as executable checks, for every policy here and for those that are written elsewhere.

Use it from any test runner::

    import pytest
    from offramp.bandits.checks import policy_checks

    @pytest.mark.parametrize("check", policy_checks(MyPolicy()), ids=str)
    def test_contract(check):
        check()

A check raises `AssertionError` with one sentence that says what the contract asks for.
"""

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.contract import ContractError, Decision, Observation, Quote
from offramp.bandits.engine import DEFAULT, Engine
from offramp.bandits.policy import Policy, fresh, needs_oracle
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import ARM, prediction_at
from offramp.bandits.state import CURSOR, DRAWS, HEADER, UNIFORMS

ROUNDS = 400


@dataclass(frozen=True)
class Check:
    """One requirement of the contract, applied to one policy; call it to test."""

    policy: Policy
    arms: Arms
    body: Callable[[Policy, Arms], None]

    def __call__(self) -> None:
        """Raise `AssertionError` where the policy breaks the requirement."""
        self.body(self.policy, self.arms)

    def __str__(self) -> str:
        return f"{self.body.__name__}[{self.policy!r}]"


def policy_checks(policy: Policy, arms: Arms | None = None) -> list[Check]:
    """Every check for one policy.

    Parameters
    ----------
    policy
        The spec to test.
    arms
        A table that the policy can play; None = seven exits, the default thresholds, input allowed.

    """
    table = Arms.grid(exits=7, raw_input_allowed=True) if arms is None else arms
    return [Check(policy, table, body) for body in CHECKS]


class _Toy:
    """A small world made of random confidences, with the same reveal as the real one."""

    def __init__(self, policy: Policy, arms: Arms, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        base = rng.random((1, ROUNDS, 1))
        noise = rng.random((1, ROUNDS, arms.exits))
        self.exits = arms.exits
        self.confidence = np.clip(0.6 * base + 0.3 * noise + np.linspace(0.0, 0.1, arms.exits), 0.0, 1.0)
        self.prediction = rng.integers(0, 10, self.confidence.shape).astype(np.int16)
        self.options = np.array([1, 0, needs_oracle(policy), 0], dtype=np.int64)
        edge = np.linspace(0.0, 0.3, arms.exits + 1)
        offload = np.append(np.linspace(0.4, 0.1, arms.exits), 0.0)
        self.quotes = [Quote(edge_cost=edge, offload_cost=offload * x, mu=1.0) for x in (1.0, 0.2)]

    def quote(self, t: int) -> Quote:
        return self.quotes[t // 100 % 2]

    def observe(
        self, decision: Decision, t: int, confidence: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None
    ) -> Observation:
        seen = Observation.of(np.zeros(prediction_at(self.exits) + self.exits))
        truth = self.confidence if confidence is None else confidence
        reveal(truth[0, t], self.prediction[0, t], decision.row, self.options, seen.row)
        return seen


def _play(engine: Engine, toy: _Toy, start: int = 0, stop: int = ROUNDS) -> list[int]:
    arms = []
    for t in range(start, stop):
        decision = engine.decide(toy.quote(t))
        engine.update(decision, toy.observe(decision, t))
        arms.append(decision.arm)
    return arms


def spec_is_immutable_and_comparable(policy: Policy, arms: Arms) -> None:
    """A spec is a frozen dataclass that prints, compares, hashes, copies and pickles."""
    spec: Any = policy
    traits = getattr(spec, "__dataclass_params__", None)
    assert traits is not None, "a policy is a dataclass"
    assert traits.frozen, "a policy cannot be changed"
    assert spec == copy.deepcopy(spec) == pickle.loads(pickle.dumps(spec)), "a spec equals its copy"
    assert hash(spec) == hash(copy.deepcopy(spec)), "equal specs hash alike"
    assert repr(spec).startswith(type(spec).__name__), "a spec prints as its constructor"


def state_is_one_flat_array(policy: Policy, arms: Arms) -> None:
    """A fresh state is one flat float64 array with the header of `offramp.bandits.state`."""
    state = policy.initial(arms, 0)
    assert state.dtype == np.float64, "the state is float64"
    assert state.ndim == 1, "the state is flat"
    assert len(state) >= HEADER, "the state begins with the header"
    assert state[1] == len(policy.plays(arms)), "the header counts the arms that the policy plays"
    assert np.isfinite(state[:HEADER]).all(), "the header is finite"
    other = policy.initial(arms, 0)
    assert state is not other, "each call makes a state of its own"
    assert np.array_equal(state, other), "a fresh state is always the same"


def decisions_are_complete_and_legal(policy: Policy, arms: Arms) -> None:
    """Each decision is an arm the policy plays, with its cut and thresholds, and a probability in (0, 1]."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    allowed = set(policy.plays(arms))
    for t in range(ROUNDS):
        decision = engine.decide(toy.quote(t))
        if decision.arm < 0:
            assert getattr(policy, "beyond_table", False), "only a policy that says so plays rules outside the table"
            assert decision.cut in {arm.cut for arm in allowed}, "the cut is one that the policy plays"
            assert not np.isnan(decision.thresholds).any(), "a threshold is a number"
            assert (decision.thresholds[decision.cut :] == math.inf).all(), "no exit beyond the cut answers"
            assert decision.cut < arms.exits or decision.threshold == -math.inf, "the last exit always answers"
        else:
            arm = arms[decision.arm]
            assert arm in allowed, "the arm is one that the policy plays"
            assert decision.cut == arm.cut, "the decision's cut is the arm's"
            if arm.cut:
                assert decision.thresholds[arm.cut - 1] == arm.threshold, "the threshold at the cut is the arm's"
        assert 0.0 < decision.p_action <= 1.0, "the probability of the action is in (0, 1]"
        assert 0.0 <= decision.p_reveal <= 1.0, "the probability of a reveal is in [0, 1]"
        assert np.array_equal(decision.quote.row, toy.quote(t).row), "the decision carries its quote unchanged"
        engine.update(decision, toy.observe(decision, t))


def propensities_match_frequencies(policy: Policy, arms: Arms) -> None:
    """On a frozen state, each arm is chosen as often as its stated probability says."""
    engine, toy = Engine(policy, arms=arms, seed=3), _Toy(policy, arms)
    _play(engine, toy)
    frozen = engine.snapshot()
    chosen: dict[int, int] = {}
    stated: dict[int, float] = {}
    draws = 2_000
    for i in range(draws):
        frozen["streams"][DEFAULT]["random"] = np.random.default_rng(i).bit_generator.state
        engine.restore(frozen)
        engine._streams[DEFAULT].state[6] = engine._streams[DEFAULT].state[5]  # fresh uniforms for each draw
        decision = engine.decide(toy.quote(0))
        chosen[decision.arm] = chosen.get(decision.arm, 0) + 1
        stated[decision.arm] = decision.p_action
    for arm, n in chosen.items():
        p = stated[arm]
        slack = 5.0 * math.sqrt(p * (1.0 - p) / draws) + 1e-12
        assert abs(n / draws - p) <= slack, f"arm {arm} came in {n} of {draws} draws, its stated probability is {p}"


def uniforms_are_declared(policy: Policy, arms: Arms) -> None:
    """No decision draws more uniforms than the state's DRAWS says: beyond them lies memory of somebody else."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    state = engine._streams[DEFAULT].state
    for t in range(ROUNDS):
        before = state[CURSOR]
        decision = engine.decide(toy.quote(t))
        used = state[CURSOR] - (0.0 if before + state[DRAWS] > state[UNIFORMS] else before)
        assert used <= state[DRAWS], f"a decision used {used:g} uniforms, its state declares draws={state[DRAWS]:g}"
        engine.update(decision, toy.observe(decision, t))


def inputs_are_left_alone(policy: Policy, arms: Arms) -> None:
    """Neither quote nor decision nor observation is changed by the engine."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    for t in range(50):
        quote = toy.quote(t)
        before = quote.row.copy()
        decision = engine.decide(quote)
        seen = toy.observe(decision, t)
        rows = decision.row.copy(), seen.row.copy()
        engine.update(decision, seen)
        assert np.array_equal(quote.row, before), "the quote is left alone"
        assert np.array_equal(decision.row, rows[0]), "the decision is left alone"
        assert np.array_equal(seen.row, rows[1], equal_nan=True), "the observation is left alone"


def hidden_values_change_nothing(policy: Policy, arms: Arms) -> None:
    """Whatever a decision does not reveal may be anything: the decisions stay the same."""
    toy = _Toy(policy, arms)
    rng = np.random.default_rng(9)
    plain, poisoned = (Engine(policy, arms=arms, seed=1) for _ in range(2))
    for t in range(ROUNDS):
        one, two = plain.decide(toy.quote(t)), poisoned.decide(toy.quote(t))
        assert np.array_equal(one.row, two.row), "a hidden confidence changed a decision"
        seen = toy.observe(one, t)
        truth = toy.confidence.copy()
        hidden = np.isnan(seen.confidence)
        truth[0, t, hidden] = rng.random(int(hidden.sum()))
        plain.update(one, seen)
        poisoned.update(two, toy.observe(two, t, truth))


def nothing_revealed_teaches_nothing(policy: Policy, arms: Arms) -> None:
    """An observation whose answer's confidence was lost leaves the state as it is."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    for t in range(ROUNDS):
        decision = engine.decide(toy.quote(t))
        seen = toy.observe(decision, t)
        if seen.offloaded:
            state = engine.state()
            lost = Observation(confidence=np.full(arms.exits, np.nan), answered_at=arms.exits, offloaded=True)
            engine.update(decision, lost)
            assert np.array_equal(engine.state(), state), "an answer without confidence taught something"
        else:
            engine.update(decision, seen)


def late_feedback_is_legal(policy: Policy, arms: Arms) -> None:
    """Feedback may come late, out of order, twice or never; every arm is still tried and the state stays finite."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    rng = np.random.default_rng(4)
    waiting: list[tuple[Decision, Observation]] = []
    for t in range(ROUNDS):
        decision = engine.decide(toy.quote(t))
        waiting.append((decision, toy.observe(decision, t)))
        while len(waiting) > 60:
            late = waiting.pop(int(rng.integers(len(waiting))))
            if rng.random() < 0.9:
                assert engine.update(*late), "late feedback is counted"
                state = engine.state()
                assert not engine.update(*late), "a duplicate is refused"
                assert np.array_equal(engine.state(), state), "a duplicate teaches nothing"
    finite = np.isfinite(policy.initial(arms, 0))  # thresholds in a table of arms are not
    assert np.isfinite(engine.state()[finite]).all(), "what is finite at first stays finite"


def snapshots_continue_bit_for_bit(policy: Policy, arms: Arms) -> None:
    """An engine restored from a snapshot goes on as the one it was taken from, randomness included."""
    toy = _Toy(policy, arms)
    first = Engine(policy, arms=arms, seed=5)
    _play(first, toy, 0, 150)
    kept = first.snapshot()
    rest = _play(first, toy, 150)
    second = Engine(policy, arms=arms, seed=99)
    second.restore(kept)
    assert _play(second, toy, 150) == rest, "the restored engine chose differently"
    assert np.array_equal(first.state(), second.state()), "the restored engine ended in another state"


def same_seed_same_history(policy: Policy, arms: Arms) -> None:
    """Two engines with one seed agree, compiled or not."""
    toy = _Toy(policy, arms)
    one, two = Engine(policy, arms=arms, seed=2), Engine(policy, arms=arms, seed=2, compiled=False)
    assert _play(one, toy) == _play(two, toy), "plain Python and compiled code chose differently"
    assert np.array_equal(one.state(), two.state()), "plain Python and compiled code ended in different states"


def step_is_update_then_decide(policy: Policy, arms: Arms) -> None:
    """The fused step is the two calls in one."""
    toy = _Toy(policy, arms)
    engine, fused = (Engine(policy, arms=arms, seed=6) for _ in range(2))
    last: Decision | None = None
    seen: Observation | None = None
    for t in range(ROUNDS):
        decision = engine.decide(toy.quote(t))
        last = fused.step(last, seen, toy.quote(t))
        assert np.array_equal(decision.row, last.row), "the fused step decided differently"
        assert decision.id == last.id, "the fused step counts decisions differently"
        seen = toy.observe(decision, t)
        engine.update(decision, seen)


def memory_does_not_grow(policy: Policy, arms: Arms) -> None:
    """The state keeps its length."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    before = len(engine.state())
    _play(engine, toy)
    assert len(engine.state()) == before, "the state grew"


def forgetting_keeps_the_state_sound(policy: Policy, arms: Arms) -> None:
    """Forgetting nothing changes nothing; forgetting something leaves a state that still decides."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    _play(engine, toy, 0, 200)
    before = engine.state()
    engine.forget(1.0)
    assert np.array_equal(engine.state(), before), "a factor of 1 changed the state"
    engine.forget(0.5)
    assert engine.state()[0] < before[0], "a factor of 1/2 left the weight of the past as it was"
    assert len(_play(engine, toy, 200)) == ROUNDS - 200, "the policy goes on deciding"


def streams_are_independent(policy: Policy, arms: Arms) -> None:
    """A stream started from another's state begins where that one stood, and then goes its own way."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    _play(engine, toy, 0, 100)
    engine.start("second", like=DEFAULT)
    engine.start("third")
    before = engine.state(), engine.state("third")
    for t in range(100, 160):
        decision = engine.decide(toy.quote(t), stream="second")
        engine.update(decision, toy.observe(decision, t))
    assert np.array_equal(engine.state(), before[0]), "one stream changed another"
    assert np.array_equal(engine.state("third"), before[1]), "one stream changed another"


def hidden_confidences_are_refused(policy: Policy, arms: Arms) -> None:
    """An observation that shows more than its decision can have revealed is an error, and teaches nothing."""
    engine, toy = Engine(policy, arms=arms, seed=0), _Toy(policy, arms)
    for t in range(ROUNDS):
        decision = engine.decide(toy.quote(t))
        seen = toy.observe(decision, t)
        if not needs_oracle(policy) and not seen.offloaded and not decision.audit and seen.answered_at < arms.exits:
            state = engine.state()
            shown = seen.confidence
            shown[-1] = 0.5
            try:
                engine.update(decision, Observation(confidence=shown, answered_at=seen.answered_at, offloaded=False))
            except ContractError:
                assert np.array_equal(engine.state(), state, equal_nan=True), "a refused observation taught something"
            else:
                raise AssertionError("a confidence that could not be known was accepted")
        engine.update(decision, seen)


def labels_of_arms_mean_nothing(policy: Policy, arms: Arms) -> None:
    """Arms under other indices of the engine's table are played alike: an index is a name, not a number.

    A policy around another one is as good as that one, and has no labels of its own.
    """
    if hasattr(policy, "policy"):
        return
    toy, rng = _Toy(policy, arms), np.random.default_rng(8)
    state = fresh(policy, arms, 0)
    state[CURSOR] = 0.0
    state[len(state) - int(state[UNIFORMS]) :] = rng.random(int(state[UNIFORMS]))
    other = state.copy()
    own = slice(HEADER, HEADER + int(state[1]))
    other[own] += 1_000.0
    for t in range(ROUNDS):
        rows = []
        for mine in (state, other):
            row = toy.quote(t).row.copy()
            assert policy.kernels.decide(mine, row) == 0, "a decision was refused"
            seen = toy.observe(Decision(row, 0, DEFAULT), t)
            assert policy.kernels.learn(mine, row, seen.row) == 0, "an observation was refused"
            rows.append(row)
        assert rows[1][ARM] == rows[0][ARM] + 1_000.0, "the label is not the arm's"
        rows[1][ARM] = rows[0][ARM]
        assert np.array_equal(rows[0], rows[1]), "another label led to another decision"


def arms_may_come_and_go(policy: Policy, arms: Arms) -> None:
    """Where the table of arms can change, a change to the same table changes nothing; where not, it is refused."""
    engine, plain = (Engine(policy, arms=arms, seed=7) for _ in range(2))
    toy = _Toy(policy, arms)
    assert _play(engine, toy, 0, 100) == _play(plain, toy, 0, 100), "two engines with one seed differ"
    try:
        engine.change(arms)
    except ValueError:
        assert np.array_equal(engine.state(), plain.state(), equal_nan=True), "a refused change left traces"
    assert _play(engine, toy, 100, 200) == _play(plain, toy, 100, 200), "a change to the same table changed decisions"


CHECKS: tuple[Callable[[Policy, Arms], None], ...] = (
    spec_is_immutable_and_comparable,
    state_is_one_flat_array,
    decisions_are_complete_and_legal,
    uniforms_are_declared,
    propensities_match_frequencies,
    inputs_are_left_alone,
    hidden_values_change_nothing,
    nothing_revealed_teaches_nothing,
    late_feedback_is_legal,
    snapshots_continue_bit_for_bit,
    same_seed_same_history,
    step_is_update_then_decide,
    memory_does_not_grow,
    forgetting_keeps_the_state_sound,
    streams_are_independent,
    hidden_confidences_are_refused,
    labels_of_arms_mean_nothing,
    arms_may_come_and_go,
)
