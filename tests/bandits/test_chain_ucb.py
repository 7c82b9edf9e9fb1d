"""ChainUCB as a policy: its alarms, its audits, other tables of arms, the edges of what it is asked, long runs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from offramp.bandits import Arm, Arms, Engine, Observation, Profile, Quote
from offramp.bandits import exit_chain as chain
from offramp.bandits.chain_ucb import CONFIDENCES, KERNELS, RESIDUALS, SINCE, ChainUCB
from offramp.bandits.checks import policy_checks
from offramp.bandits.listed import Listed
from offramp.bandits.rows import AUDIT, CUT, OFFLOADED, P_REVEAL, offload_cost_at, thresholds_at
from offramp.bandits.state import CURSOR, FREE, MADE, T
from offramp.bandits.two_window import HELD, TICK
from offramp.environments import ConfidenceCache, Stationary, World, rollout

NAN, INF = math.nan, math.inf
GRID = Arms.grid(exits=3, raw_input_allowed=True)
PRICES = {"edge_cost": [0, 0.05, 0.1, 0.3], "offload_cost": [0.4, 0.3, 0.2, 0]}


def field(state, name, exits):
    """A copy of one of the M x B tables of a state."""
    bins = int(state[int(state[FREE]) + chain.BINS])
    at = chain.field(state, name)
    return state[at : at + (exits - 1) * bins].reshape(exits - 1, bins).copy()


def moves(state, exits):
    """How often each bin of an exit (second index) led to each of the next one (third), copied."""
    bins = int(state[int(state[FREE]) + chain.BINS])
    tables = [state[at : at + bins * bins] for at in (chain.moves(state, j) for j in range(exits - 1))]
    return np.array([table.reshape(bins, bins).T for table in tables])


def own(state, name):
    return state[int(state[FREE]) + name]


def world(confidence, prices, arms=None, **rules):
    """A world of one condition with these confidences (N, L) and prices."""
    exits = confidence.shape[1]
    cache = ConfidenceCache.from_arrays(
        confidence=confidence[None, None],
        prediction=np.zeros((1, 1, *confidence.shape), dtype=int),
        label=np.zeros(len(confidence), dtype=int),
        conditions=["same"],
        classes=2,
        profile=Profile(
            segment_macs=(1,) * exits,
            head_macs=(1,) * exits,
            payload_bytes=(*(2,) * exits, 0),
            layers=tuple(range(1, exits + 1)),
        ),
    )
    return World(cache=cache, prices=prices, arms=arms or Arms.grid(exits=exits), **rules)


# The alarms.


def fed(confidence, policy=None, cut=2):
    """A state after requests that were all offloaded from a cut, and in which of them it forgot all or the cloud's."""
    state = (policy or ChainUCB(memory=1e12)).initial(GRID, 0)
    row = Quote(**PRICES, mu=1.0).row.copy()
    row[CUT] = cut
    rang = [], []
    before = 0.0, 0.0
    for t, c in enumerate(confidence):
        state[int(state[FREE]) + SINCE] = 1.0
        KERNELS.update(state, row, Observation(confidence=c, answered_at=3, offloaded=True).row)
        now = field(state, chain.SEEN, 3).sum(), field(state, chain.KNOWN, 3).sum()
        for which in range(2):
            if now[which] < before[which]:
                rang[which].append(t)
                assert own(state, SINCE) > 1e6  # planned for at once
        before = now
    return state, rang


def requests(n, first, last, seed=0):
    rng = np.random.default_rng(seed)
    out = np.clip(rng.normal([first, 0.8, last], [0.1, 0.05, 0.03], (n, 3)), 0.0, 1.0)
    return np.round(out, 12)


def test_a_jump_at_exit_1_rings_the_first_alarm_and_all_is_forgotten():
    _, (everything, cloud) = fed(np.concatenate([requests(700, 0.8, 0.9), requests(100, 0.4, 0.9, 1)]))
    assert len(everything) == 1
    assert 700 <= everything[0] < 760
    assert set(cloud) >= set(everything)


def test_a_change_of_the_last_exit_alone_rings_the_second_and_keeps_what_is_known_of_the_edge():
    calm, changed = (np.concatenate([requests(700, 0.8, 0.9), requests(150, 0.8, last, 1)]) for last in (0.9, 0.6))
    state, (everything, cloud) = fed(changed)
    other, _ = fed(calm)
    assert not everything
    assert 700 <= cloud[0] < 760
    for name in (chain.SEEN, chain.OWN, chain.PASSED):
        assert np.array_equal(field(state, name, 3), field(other, name, 3))
    assert np.array_equal(moves(state, 3), moves(other, 3))
    assert field(state, chain.KNOWN, 3).sum() < 0.5 * field(other, chain.KNOWN, 3).sum()


def test_nothing_rings_where_nothing_changes():
    for seed in range(3):
        _, rang = fed(requests(800, 0.8, 0.9, seed), ChainUCB(memory=1e12, alarm=6.0))
        assert rang == ([], [])
    assert fed(np.full((900, 3), 1.0))[1] == ([], [])


def test_deeper_confidences_from_the_cloud_are_what_it_is_surprised_by():
    """Exit 2 was seen, so what it makes one expect counts, although the request was sent from exit 1."""
    state, _ = fed(requests(200, 0.8, 0.9), cut=1)
    at = int(own(state, RESIDUALS))
    assert state[at + HELD] > 150.0
    assert field(state, chain.KNOWN, 3).sum(axis=1) == pytest.approx([200.0, 200.0])
    state[chain.field(state, chain.CLOUD) :][: 2 * 20] = 0.5
    at = chain.field(state, chain.CLOUD) + 20 + chain.bin_of(state, 0.8)
    state[at] = 0.25
    assert chain.surprise(state, np.array([0.9, 0.8, 0.75])) == pytest.approx(0.5)


# The life of an engine.


def answer(decision, sample):
    """The observation that a decision leads to on one sample."""
    for j in range(decision.cut):
        if sample[j] >= decision.thresholds[j]:
            shown = [*sample[: j + 1], *[NAN] * (len(sample) - j - 1)]
            if decision.audit:
                shown = [*sample[: decision.cut], *[NAN] * (len(sample) - decision.cut - 1), sample[-1]]
            return Observation(confidence=shown, answered_at=j + 1, offloaded=False, audited=decision.audit)
    shown = [*sample[: decision.cut], *[NAN] * (len(sample) - decision.cut - 1), sample[-1]]
    return Observation(confidence=shown[: len(sample)], answered_at=len(sample), offloaded=True)


def served(engine, quote, rounds, samples, seed=0):
    rng = np.random.default_rng(seed)
    decisions = []
    for _ in range(rounds):
        decision = engine.decide(quote)
        engine.update(decision, answer(decision, samples[rng.integers(len(samples))]))
        decisions.append(decision)
    return decisions


SAMPLE = np.array([[0.3, 0.95, 0.97], [0.97, 0.98, 0.99], [0.5, 0.6, 0.9]])
QUOTE = Quote(edge_cost=[0, 0.02, 0.05, 0.5], offload_cost=[1, 0.5, 0.2, 0], mu=1.0)


def test_an_exit_that_is_withdrawn_answers_no_more_and_what_it_taught_is_kept():
    arms = Arms.grid(exits=3, thresholds=(0.5, 0.9))
    engine = Engine(ChainUCB(), arms=arms, seed=0)
    decisions = served(engine, QUOTE, 400, SAMPLE)
    assert decisions[-1].cut == 2
    assert decisions[-1].thresholds[0] <= 0.97
    state = engine.state()
    late = engine.decide(QUOTE)
    engine.change(arms.without(cuts=[1]))
    for name in range(chain.SEEN, chain.FIELDS):
        if name <= chain.PASSED:
            assert np.array_equal(field(engine.state(), name, 3), field(state, name, 3))
    assert np.array_equal(moves(engine.state(), 3), moves(state, 3))
    decision = engine.decide(QUOTE)
    assert decision.cut == 2
    assert decision.thresholds[0] == chain.NEVER
    before = engine.state()
    assert engine.update(late, answer(late, SAMPLE[1]))  # a decision from before teaches still
    assert field(engine.state(), chain.SEEN, 3).sum() > field(before, chain.SEEN, 3).sum()
    assert all(d.thresholds[0] == chain.NEVER for d in served(engine, QUOTE, 50, SAMPLE))
    engine.change(arms.without(cuts=[1]).plus([Arm(1, 0.5)]))
    decision = engine.decide(QUOTE)
    assert decision.thresholds[0] <= 0.97
    assert np.isfinite(decision.thresholds[:2]).any()


def test_other_thresholds_in_the_table_are_no_other_arms_for_open_decisions():
    engine = Engine(ChainUCB(), arms=Arms.grid(exits=3, thresholds=(0.5, 0.9)), seed=0)
    late = engine.decide(QUOTE)
    engine.change(Arms.grid(exits=3, thresholds=(0.7,)))
    assert engine.update(late, answer(late, SAMPLE[0]))
    assert field(engine.state(), chain.SEEN, 3).sum() > 0.0


def test_audits_come_as_often_as_they_say_and_only_where_there_is_an_offload():
    engine = Engine(ChainUCB(audit=0.2), arms=Arms.grid(exits=3), seed=0)
    decisions = served(engine, QUOTE, 3_000, SAMPLE)
    inside = [d for d in decisions if d.cut < 3]
    assert len(inside) > 2_500
    assert {d.p_reveal for d in inside} == {0.2}
    assert {(d.p_reveal, d.audit) for d in decisions if d.cut == 3} <= {(0.0, False)}
    share = np.mean([d.audit for d in inside])
    assert abs(share - 0.2) < 4.5 * math.sqrt(0.16 / len(inside))
    assert all(np.array_equal(d.quote.row, QUOTE.row) for d in decisions[::100])
    closed = Quote(edge_cost=[0, 0.02, 1.5, 3], offload_cost=[INF, INF, INF, 0], mu=1.0)
    engine = Engine(ChainUCB(audit=0.2, on_the_way=False), arms=Arms.grid(exits=3), seed=0)
    for decision in served(engine, closed, 200, SAMPLE):
        assert not decision.audit
        assert decision.p_reveal == 0.0
        assert decision.cut == 1
        assert decision.threshold == -INF


def test_audits_become_rarer_where_they_are_dear():
    policy = ChainUCB(audit=0.5, audit_spend=0.01, on_the_way=False)
    state = policy.initial(Arms.grid(exits=3, thresholds=(0.5,)).without(cuts=[2, 3]), 0)
    for price, chance in ((0.0, 0.5), (0.02, 0.5), (0.1, 0.1), (1.0, 0.01), (INF, 0.0)):
        state[CURSOR] = 0.0
        row = Quote(edge_cost=[0, 0.1, 0.2, 0.3], offload_cost=[0, price / 2.0, 0, 0], mu=2.0).row.copy()
        KERNELS.select(state, row)
        assert row[P_REVEAL] == pytest.approx(chance)
        assert row[AUDIT] == (chance > 0.0)  # the uniforms are 0 here


def test_a_row_that_is_used_again_carries_no_old_audit():
    policy = ChainUCB(audit=1.0, on_the_way=False)
    row = Quote(edge_cost=[0, 0.01, 1.5, 3], offload_cost=[1, 0.05, 0.05, 0], mu=1.0).row.copy()
    state = policy.initial(Arms.grid(exits=3), 0)
    state[CURSOR] = 0.0
    KERNELS.select(state, row)
    assert (row[AUDIT], row[P_REVEAL]) == (1.0, 1.0)
    row[offload_cost_at(3) : offload_cost_at(3) + 3] = INF
    KERNELS.select(state, row)
    assert row[CUT] == 1.0
    assert (row[AUDIT], row[P_REVEAL]) == (0.0, 0.0)
    assert (row[thresholds_at(3) + int(row[CUT]) : thresholds_at(3) + 3] == INF).all()


# The edges of what it can be asked.


@pytest.mark.parametrize(("exits", "bins"), [(2, 2), (2, 50), (12, 2), (12, 50)])
def test_few_and_many_exits_and_bins(exits, bins):
    rng = np.random.default_rng(exits)
    sure = np.sort(rng.random((300, exits)), axis=1)
    prices = Listed(edge=tuple(np.linspace(0.0, 0.4, exits + 1)), offload=(1.0, *np.linspace(0.3, 0.1, exits - 1), 0.0))
    trace, state = rollout(
        ChainUCB(bins=bins), world(sure, prices), Stationary(condition="same"), horizon=2_000, seed=0
    )
    assert np.isfinite(trace.sums["regret"]).all()
    assert field(state, chain.SEEN, exits)[0].sum() > 0.0


def test_one_exit_leaves_nothing_to_choose():
    with pytest.raises(ValueError, match="exits is 1, allowed is 2 or more"):
        Engine(ChainUCB(), arms=Arms(exits=1, table=(Arm(1, -INF),)), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": -0.1}, "width is -0.1"),
        ({"memory": 0.5}, "memory is 0.5, allowed is a finite number >= 1"),
        ({"memory": INF}, "memory is inf"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"alarm": 0.0}, "alarm is 0.0"),
        ({"audit": 1.1}, "audit is 1.1"),
        ({"audit_spend": -1.0}, "audit_spend is -1"),
        ({"bins": 1}, "bins is 1"),
        ({"bins": 2.5}, "bins is 2.5"),
        ({"plan_every": 0}, "plan_every is 0"),
    ],
)
def test_parameters_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ChainUCB(**options)


def test_the_contract_holds():
    for check in policy_checks(ChainUCB(audit=0.1)):
        assert check() is None


@pytest.mark.parametrize("evaluate", ["own", "prefix"])
def test_heads_on_the_way_are_evaluated_in_every_world(evaluate):
    rng = np.random.default_rng(0)
    prices = Listed(edge=(0, 0.01, 0.02, 0.03, 0.04), offload=(1, 0.9, 0.9, 0.5, 0))
    arms = Arms.grid(exits=4, raw_input_allowed=True)
    here = world(
        np.sort(rng.random((300, 4)), axis=1),
        prices,
        arms,
        evaluate=evaluate,
        raw_input_allowed=True,
        fallback="most_confident",
    )
    for policy in (ChainUCB(), ChainUCB(on_the_way=False)):
        trace, state = rollout(policy, here, Stationary(condition="same"), horizon=1_000, seed=0)
        assert np.isfinite(trace.sums["regret"]).all()
        assert field(state, chain.PASSED, 4)[:-1].sum(axis=1).min() > 10.0


def sound(state):
    """Everything is a number, and each cell's moves add up to the requests that left it."""
    passed, table = field(state, chain.PASSED, 3), moves(state, 3)
    assert np.isfinite(state[np.isfinite(ChainUCB().initial(Arms.grid(exits=3), 0))]).all()
    assert table.sum(axis=2) == pytest.approx(passed, rel=1e-6, abs=1e-6)
    for name in (chain.OWN, chain.CLOUD):
        assert (field(state, name, 3) >= 0.0).all()
        assert (field(state, name, 3) <= 1.0).all()
    assert (field(state, chain.SPREAD, 3) >= 0.0).all()
    assert 1.0 <= own(state, chain.WEIGHT) < 1e9


@pytest.mark.parametrize("kind", ["zeros and ones", "constant"])
def test_numbers_stay_sound_for_a_million_rounds(kind):
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 2, (500, 3)).astype(float) if kind == "zeros and ones" else np.full((500, 3), 0.5)
    here = world(confidence, Listed(edge=(0, 0.05, 0.1, 0.3), offload=(1, 0.3, 0.2, 0)))
    policy = ChainUCB(memory=500.0)
    trace, state = rollout(policy, here, Stationary(condition="same"), horizon=1_000_000, seed=0)
    sound(state)
    assert np.isfinite(trace.sums["regret"]).all()
    assert state[MADE] == 1_000_000
    # What fades away is faded, not gone.
    for name in (chain.SEEN, chain.KNOWN, chain.PASSED):
        values = field(state, name, 3)
        assert values[values > 0.0].min() >= 1e-9
    means = field(state, chain.OWN, 3)
    for _ in range(200):
        KERNELS.forget(state, 1e-6)
    sound(state)
    assert state[T] < 1e-6
    assert np.array_equal(field(state, chain.OWN, 3), means)
    row = here.quotes((1.0,))[0]
    KERNELS.select(state, row)
    assert 1.0 <= row[CUT] <= 3.0
    before = own(state, chain.WEIGHT)
    seen = Observation(confidence=[0.5, 0.5, 0.5], answered_at=3, offloaded=True).row
    assert seen[OFFLOADED] == 1.0
    row[CUT] = 2.0
    KERNELS.update(state, row, seen)
    assert own(state, chain.WEIGHT) > before
    sound(state)


def test_a_short_memory_and_no_width_are_played_as_they_are():
    prices = Listed(edge=(0, 0.05, 0.1, 0.3), offload=(1, 0.3, 0.2, 0))
    here = world(np.random.default_rng(0).random((500, 3)), prices)
    for policy in (ChainUCB(memory=1.0), ChainUCB(width=0.0), replace(ChainUCB(), keep=1e-9, alarm=0.1)):
        trace, state = rollout(policy, here, Stationary(condition="same"), horizon=20_000, seed=0)
        sound(state)
        assert np.isfinite(trace.sums["regret"]).all()


def test_the_windows_hear_every_request_that_shows_exit_1():
    state, _ = fed(requests(30, 0.8, 0.9))
    at = int(own(state, CONFIDENCES))
    assert state[at + HELD] == 30.0
    assert state[at + TICK] == 10.0
