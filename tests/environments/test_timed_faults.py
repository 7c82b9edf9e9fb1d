"""Worlds in time, faults that were found: what the edge could not know yet, work that nobody paid, silent nonsense."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, ChainUCB, ISplitEE, OffloadFirst, RandomArm, SendInput
from offramp.bandits.contract import ContractError
from offramp.environments import Abrupt, Stationary
from offramp.environments.devices import DeviceProfile
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import Constant, Energy
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.timed import Listed, Paced, TimedWorld, replay_timed, rollout_timed

CHANGING = Abrupt(segments=(("clear", 1.0), ("foggy", 1.0)), length=150)
CLEAR = Stationary(condition="clear")
# Up for 20 ms, down for a second, up again.
BREAKS = LinkTrace(segments=((20.0, 8.0, 10.0), (1_000.0, 0.0, 10.0), (60_000.0, 8.0, 10.0)))


def device(slow, power=None):
    return DeviceProfile(
        name="bench", segment_ms=(4.0 * slow, 3.0 * slow, 2.0 * slow, 1.0 * slow), head_ms=(0.5,) * 4, power_w=power
    )


def timed(small, *, link=None, weights=None, **options):
    prices = Physical(edge=device(3.0, power=2.0), cloud=device(0.5), weights=weights or Weights())
    link = Constant(mbit_s=2.0, round_trip_ms=20.0) if link is None else link
    return TimedWorld(world=replace(small, prices=prices), link=link, **options)


def table(small):
    """Two codecs at the input, one at each split; coding takes what is a multiple of 0.1 ms; validation samples too."""
    final, guess = small.cache.confidence[:, 0, :, -1], small.cache.prediction[:, 0, :, -1]
    payload = np.array([3000, 600, 2250, 1000, 500])
    return PayloadTable.from_arrays(
        codecs=["raw", "jpeg_50", "uint8", "uint8", "uint8"],
        splits=[0, 0, 1, 2, 3],
        bytes=np.broadcast_to(payload[:, None], (2, 5, 120)).copy(),
        confidence=np.broadcast_to(np.tile(final, 2)[:, None], (2, 5, 120)).copy(),
        prediction=np.broadcast_to(np.tile(guess, 2)[:, None], (2, 5, 120)).copy(),
        conditions=["clear", "foggy"],
        classes=5,
        sample=np.tile(small.cache.sample, 2),
        split_of_data=np.concatenate([np.zeros(60, dtype=int), small.cache.split]),
        encode_ms=[0.0, 0.4, 0.1, 0.1, 0.1],
        decode_ms=[0.0, 0.2, 0.1, 0.1, 0.1],
    )


def assert_equal(policy, world, stream, horizon, seed):
    fast, fast_state = rollout_timed(policy, world, stream, horizon=horizon, seed=seed)
    slow, slow_state = replay_timed(policy, world, stream, horizon=horizon, seed=seed)
    assert np.array_equal(fast.pages, slow.pages)
    assert np.array_equal(fast_state, slow_state)
    return fast


def coded(small, *, codecs, coding, link=BREAKS, **options):
    wide = replace(small, arms=Arms.grid(exits=4, raw_input_allowed=True), raw_input_allowed=True)
    return timed(wide, link=link, payloads=table(small), codecs=codecs, coding=coding, **options)


@pytest.mark.parametrize(
    ("policy", "computed", "coding"),
    [(SendInput(), 12.5, 40.0), (OffloadFirst(), 12.5, 10.0)],
    ids=["input", "feature map"],
)
def test_a_link_that_breaks_while_the_edge_codes_is_found_down_after_it(small, policy, computed, coding):
    """Decided at 0 with the link up, coded until after 20 ms: only then can the edge answer, and it has coded."""
    weights = Weights(second=2.0, joule=0.1)
    world = coded(small, codecs=("jpeg_50", "uint8"), coding=100.0, weights=weights, arrivals=Paced(every_ms=5.0))
    journal = assert_equal(policy, world, CLEAR, 2, 0)
    spent = computed + coding
    assert journal["outage"].tolist() == [1.0, 1.0]
    assert journal["latency_ms"][0] == journal["edge_ms"][0] == spent
    assert journal["energy_mj"][0] == pytest.approx(2.0 * spent)
    assert journal["edge_cost"][0] == pytest.approx(2.0 * spent / 1e3 + 0.1 * 2.0 * spent / 1e3)
    assert journal["waited_ms"][1] == spent - 5.0
    assert journal["latency_ms"][1] == spent - 5.0 + computed  # this one knows from the start: it does not code


def test_an_audit_that_finds_the_link_down_was_computed_all_the_same(small):
    """Answered at exit 1 after 12.5 ms; the audit goes on to the cut, codes, and finds the link down."""
    policy = ChainUCB(audit=1.0)
    up = coded(small, codecs=("raw", "uint8"), coding=100.0, weights=Weights(joule=0.1), arrivals=Paced(every_ms=200.0))
    found = 0
    for seed in range(6):
        steady, _ = replay_timed(policy, replace(up, link=Constant(mbit_s=8.0, round_trip_ms=10.0)), CLEAR, **at(seed))
        audits = np.flatnonzero((steady["audited"] == 1.0) & (steady["edge_ms"] > 0.0))
        if not len(audits):
            continue
        i = int(audits[0])
        breaks = 200.0 * i + steady["waited_ms"][i] + 1.0  # right after this decision
        link = LinkTrace(segments=((breaks, 8.0, 10.0), (60_000.0, 0.0, 10.0), (1.0, 8.0, 10.0)))
        broken, _ = replay_timed(policy, replace(up, link=link), CLEAR, **at(seed))
        assert broken["cut"][i] == steady["cut"][i]
        assert broken["audited"][i] == broken["outage"][i] == broken["bytes"][i] == broken["offload_cost"][i] == 0.0
        assert broken["latency_ms"][i] == steady["latency_ms"][i]
        coding = 10.0 if broken["cut"][i] > 0.0 else 0.0
        assert broken["edge_ms"][i] == steady["edge_ms"][i] + coding
        assert broken["energy_mj"][i] == pytest.approx(2.0 * broken["edge_ms"][i])
        found += 1
    assert found > 0


def at(seed):
    return {"horizon": 40, "seed": seed}


def test_coding_draws_power(small):
    """12.5 ms of computing and 10 ms of coding at 2 W, 2,250 bytes and some at 8 Mbit/s: quoted as billed."""
    link = Constant(mbit_s=8.0, round_trip_ms=10.0, energy=Energy(base_mw=1_000.0))
    weights = Weights(second=0.0, joule=10.0)
    world = coded(small, codecs=("uint8",), coding=100.0, link=link, weights=weights)
    journal = assert_equal(OffloadFirst(), world, CLEAR, 1, 0)
    sending = journal["sending_ms"][0]
    assert journal["edge_ms"][0] == 12.5
    assert journal["energy_mj"][0] == pytest.approx(2.0 * 12.5 + 2.0 * 10.0 + sending)
    assert journal["edge_cost"][0] == pytest.approx(10.0 * 25.0 / 1e3)
    assert journal["offload_cost"][0] == pytest.approx(10.0 * (20.0 + sending) / 1e3)
    assert journal["quoted_cost"][0] == pytest.approx(10.0 * (45.0 + sending) / 1e3, rel=0.05)


def test_dropped_requests_draw_no_uniforms(small):
    """The block of 1,024 decisions is used up, and what follows finds no room: nobody draws another."""
    times = (*(np.arange(1_024) * 100.0), *([102_300.5] * 6))
    world = timed(small, arrivals=Listed(at_ms=times, period_ms=200_000.0), buffer=0)
    journal = assert_equal(RandomArm(), world, CLEAR, 1_030, 0)
    assert journal["dropped"].sum() == 6.0


def test_facts_of_another_kind_are_refused(small):
    """Shown everything, a policy that may not see it would refuse every piece of feedback and learn nothing."""
    world = timed(small)
    all_shown, plain = world.facts(("clear",), oracle=True), world.facts(("clear",))
    oracle = ISplitEE(threshold=0.5, oracle_side_information=True)
    with pytest.raises(ValueError, match="facts show all under 1 conditions"):
        rollout_timed(UCB1(), world, CLEAR, horizon=5, seed=0, facts=all_shown)
    with pytest.raises(ValueError, match="facts show what is paid for under 1 conditions"):
        rollout_timed(oracle, world, CLEAR, horizon=5, seed=0, facts=plain)
    with pytest.raises(ValueError, match="allowed are those of"):
        rollout_timed(UCB1(), world, CHANGING, horizon=5, seed=0, facts=plain)


def test_a_price_that_is_not_finite_is_not_played(small):
    """Both executors say so; the compiled one went on with a decision that nobody had made."""
    world = timed(small, weights=Weights())
    facts = world.facts(("clear",))
    facts.edge[0, 4] = np.inf
    with pytest.raises(ContractError, match="round 0"):
        rollout_timed(UCB1(), world, CLEAR, horizon=5, seed=0, facts=facts)


@dataclass(frozen=True)
class Given:
    at_ms: tuple[float, ...]

    def times(self, n, seed):
        return np.array(self.at_ms)


@pytest.mark.parametrize(
    "times", [(0.0, 1.0), (-1.0, 0.0, 1.0), (0.0, 2.0, 1.0), (0.0, 1.0, np.inf), (0.0, np.nan, 1.0)]
)
def test_arrivals_out_of_order_are_refused(small, times):
    with pytest.raises(ValueError, match="allowed are 3 finite times from 0 on, not decreasing"):
        timed(small, arrivals=Given(times)).rounds(CLEAR, horizon=3, seed=0)


@pytest.mark.parametrize("name", ["link", "estimate", "arrivals"])
def test_a_name_in_place_of_an_object_is_refused(small, name):
    with pytest.raises(ValueError, match=f"{name} is 'wifi', allowed is a "):
        replace(timed(small), **{name: "wifi"})
