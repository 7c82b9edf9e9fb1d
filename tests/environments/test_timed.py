"""Worlds in time: the journey of a request by hand, both executors bit for bit, time, bytes and feedback in order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import (
    UCB1,
    Arms,
    BetaThompson,
    CeeBERT,
    ChainUCB,
    FinalExit,
    Fixed,
    OffloadFirst,
    PaperUnits,
    RandomArm,
    SendInput,
    SplitEE,
)
from offramp.bandits.contract import Quote
from offramp.environments import Abrupt, Stationary
from offramp.environments.devices import DeviceProfile
from offramp.environments.drawn_links import Outages
from offramp.environments.link_estimate import EWMA, HarmonicMean, LastThroughput
from offramp.environments.link_kernels import capacity
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import Constant
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.timed import Listed, Paced, Poisson, TimedWorld, replay_timed, rollout_timed

CHANGING = Abrupt(segments=(("clear", 1.0), ("foggy", 1.0)), length=150)
CLEAR = Stationary(condition="clear")
# Half a second of 4 Mbit/s, half a second without any, then half a second of 0.5 Mbit/s; 30 ms of round trip.
BROKEN = LinkTrace(segments=((500.0, 4.0, 30.0), (500.0, 0.0, 30.0), (500.0, 0.5, 30.0)))


def device(slow=1.0, power=None):
    return DeviceProfile(
        name="bench", segment_ms=(4.0 * slow, 3.0 * slow, 2.0 * slow, 1.0 * slow), head_ms=(0.5,) * 4, power_w=power
    )


def timed(small, *, link=None, weights=None, edge=None, **options):
    world = replace(
        small, prices=Physical(edge=edge or device(3.0, power=2.0), cloud=device(0.5), weights=weights or Weights())
    )
    return TimedWorld(world=world, link=Constant(mbit_s=2.0, round_trip_ms=20.0) if link is None else link, **options)


def table(small, *, validation=20):
    """Two codecs at the input, two at each split; the first 20 samples come twice, once as validation samples."""
    rng = np.random.default_rng(9)
    cache = small.cache
    splits = [0, 0, 1, 1, 2, 2, 3, 3]
    codecs = ["raw", "jpeg_50", "float32", "uint8"] + ["float32", "uint8"] * 2
    final = np.concatenate([cache.confidence[:, 0, :validation, -1], cache.confidence[:, 0, :, -1]], axis=1)
    guess = np.concatenate([cache.prediction[:, 0, :validation, -1], cache.prediction[:, 0, :, -1]], axis=1)
    worse = np.array([0.0, 0.1, 0.0, 0.02] + [0.0, 0.02] * 2)[:, None]
    payload = np.array(small.profile.payload_bytes)[splits] // np.array([1, 5, 1, 4, 1, 4, 1, 4])
    return PayloadTable.from_arrays(
        codecs=codecs,
        splits=splits,
        bytes=np.broadcast_to(payload[:, None], (2, 8, validation + 60)) + rng.integers(0, 50, (2, 8, validation + 60)),
        confidence=np.clip(final[:, None] - worse, 0.0, 1.0),
        prediction=np.where(worse > 0.05, (guess[:, None] + 1) % 5, guess[:, None]),
        conditions=["clear", "foggy"],
        classes=5,
        sample=np.concatenate([np.arange(validation), cache.sample]),
        split_of_data=np.concatenate([np.zeros(validation, dtype=int), cache.split]),
        encode_ms=[0.0, 0.4, 0.0, 0.1] + [0.0, 0.1] * 2,
        decode_ms=[0.0, 0.2, 0.0, 0.1] + [0.0, 0.1] * 2,
    )


def with_input(small):
    return replace(small, arms=Arms.grid(exits=4, raw_input_allowed=True), raw_input_allowed=True)


def test_one_offload_by_hand(small):
    """Edge 4 + 3 ms a threefold and two heads, 4,000 bytes at 2 Mbit/s, 20 ms of round trip, the tail in half."""
    world = timed(small, weights=Weights(second=2.0, joule=0.1, megabyte=5.0, mu=0.5, deadline_ms=59.0, missed=0.3))
    journal, _ = rollout_timed(Fixed(cut=2, threshold=float("inf")), world, CLEAR, horizon=1, seed=0)
    edge, sending, cloud = 3 * 7 + 1.0, 4000 / 250.0, 0.5 * 3 + 0.5
    latency = edge + sending + 20.0 + cloud
    assert journal["edge_ms"][0] == edge
    assert journal["sending_ms"][0] == pytest.approx(sending)
    assert journal["latency_ms"][0] == pytest.approx(latency)
    assert journal["energy_mj"][0] == pytest.approx(2.0 * edge)
    assert journal["edge_cost"][0] == pytest.approx(2.0 * edge / 1e3 + 0.1 * 2.0 * edge / 1e3)
    late = 0.3 if latency > 59.0 else 0.0
    assert late == 0.3
    assert journal["offload_cost"][0] == pytest.approx(2.0 * (latency - edge) / 1e3 + 5.0 * 4000 / 1e6 + late)
    assert journal["missed"][0] == 1.0
    assert journal["bytes"][0] == 4000.0
    cost = journal["edge_cost"][0] + journal["offload_cost"][0]
    assert journal["reward"][0] == pytest.approx(journal["confidence"][0] - 0.5 * cost)


def test_the_price_of_a_world_in_time_is_that_of_its_price_list(small):
    """Where nothing waits and the estimate is right, quote and bill are what `Physical.quote` says."""
    world = timed(small, estimate=EWMA(mbit_s=2.0, round_trip_ms=20.0), arrivals=Paced(every_ms=500.0))
    world = replace(world, world=replace(world.world, prices=replace(world.prices, mbit_s=2.0, round_trip_ms=20.0)))
    quote = world.prices.quote(small.profile)
    assert isinstance(quote, Quote)
    journal, _ = rollout_timed(OffloadFirst(), world, CLEAR, horizon=20, seed=0)
    assert journal["edge_cost"] == pytest.approx(np.full(20, quote.edge_cost[1]))
    assert journal["offload_cost"] == pytest.approx(np.full(20, quote.offload_cost[1]))
    assert journal["quoted_cost"] == pytest.approx(journal["edge_cost"] + journal["offload_cost"])


POLICIES = [
    UCB1(),
    ChainUCB(audit=0.05),
    RandomArm(),
    SplitEE(threshold=0.7),
    OffloadFirst(),
    FinalExit(),
    pytest.param(BetaThompson(cuts=(1, 2)), marks=pytest.mark.long),
]


def assert_equal(policy, world, stream, horizon, seed):
    fast, fast_state = rollout_timed(policy, world, stream, horizon=horizon, seed=seed)
    slow, slow_state = replay_timed(policy, world, stream, horizon=horizon, seed=seed)
    assert np.array_equal(fast.pages, slow.pages)
    assert np.array_equal(fast_state, slow_state)
    assert fast.given_up == slow.given_up
    return fast


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_replay_equals_rollout(policy, small):
    world = timed(
        with_input(small),
        link=BROKEN,
        payloads=table(small),
        arrivals=Poisson(per_second=25.0),
        buffer=3,
        lost=0.1,
        weights=Weights(second=3.0, deadline_ms=120.0, missed=0.2),
        estimate=HarmonicMean(window=4),
    )
    journal = assert_equal(policy, world, CHANGING, 400, 1)
    assert journal["dropped"].sum() > 0.0 or not isinstance(policy, FinalExit)


def test_replay_equals_rollout_with_a_router_and_refilled_uniforms(routed):
    world = replace(routed, prices=Physical(edge=device(3.0), cloud=device(0.5)))
    stream = Abrupt(segments=(("clear", 1.0), ("soft", 1.0), ("packed", 1.0)), length=200)
    for policy in (RandomArm(), ChainUCB()):
        assert_equal(policy, TimedWorld(world=world, link=BROKEN), stream, 1_300, 0)


def test_without_any_link_every_answer_is_the_edges(small):
    """An hour without a link: nothing is sent, the surest exit that was evaluated answers, nothing is learnt."""
    world = timed(with_input(small), link=Outages(link=Constant(mbit_s=5.0), outages=((0.0, 3_600_000.0),)))
    for policy, exits in ((SendInput(), {1}), (OffloadFirst(), {1}), (Fixed(cut=3, threshold=2.0), {1, 2, 3})):
        policy = replace(policy, threshold=float("inf")) if isinstance(policy, Fixed) else policy
        journal, state = rollout_timed(policy, world, CLEAR, horizon=200, seed=0)
        assert journal["outage"].all()
        assert not journal["bytes"].any()
        assert not journal["offload_cost"].any()
        assert set(journal["answered_at"]) == exits
        sample = world.rounds(CLEAR, horizon=200, seed=0).sample
        cut = max(exits)
        surest = small.cache.confidence[0, 0, sample, :cut].max(axis=1)
        assert np.array_equal(journal["confidence"], surest)
        _, later = rollout_timed(policy, world, CLEAR, horizon=300, seed=0)
        assert state.shape == later.shape


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_learners_live_through_outages(small, mu):
    world = timed(small, link=BROKEN, arrivals=Paced(every_ms=20.0), weights=Weights(second=5.0, mu=mu))
    for policy in (UCB1(), ChainUCB(), SplitEE(threshold=0.7)):
        journal, state = rollout_timed(policy, world, CHANGING, horizon=600, seed=0)
        assert np.isfinite(journal["reward"]).all()
        down = (np.arange(600) * 20.0 % 1500.0 >= 520.0) & (np.arange(600) * 20.0 % 1500.0 < 900.0)
        assert not journal["offloaded"][down & (journal["waited_ms"] == 0.0)].any()
        assert np.isfinite(state[: len(state) // 2]).any()


def test_a_chosen_codec_is_the_cheapest_with_what_it_loses(small):
    """At a dear link the JPEG wins over the raw input; at a cheap one its lost confidence weighs more."""
    world = timed(with_input(small), payloads=table(small), weights=Weights(second=10.0))
    slow = replace(world, link=Constant(mbit_s=0.5, round_trip_ms=1.0), estimate=LastThroughput(mbit_s=0.5))
    fast = replace(world, link=Constant(mbit_s=500.0, round_trip_ms=1.0), estimate=LastThroughput(mbit_s=500.0))
    chosen = {}
    for name, w in (("slow", slow), ("fast", fast)):
        journal, _ = rollout_timed(SendInput(), w, CLEAR, horizon=50, seed=0)
        chosen[name] = set(journal["variant"])
        final = w.payloads.select(np.arange(20, 80)).confidence[0]
        sample = w.rounds(CLEAR, horizon=50, seed=0).sample
        assert np.array_equal(journal["confidence"], final[int(journal["variant"][0]), sample])
        assert journal["agreement"].all() == (name == "fast")
    assert chosen == {"slow": {1.0}, "fast": {0.0}}
    only = replace(slow, codecs=("raw",))
    assert set(rollout_timed(SendInput(), only, CLEAR, horizon=5, seed=0)[0]["variant"]) == {0.0}


def test_what_does_not_fit_into_the_buffer_is_dropped(small):
    """Three requests at once, one served, one waits, one finds no room; none waits where the buffer is 0."""
    at = Listed(at_ms=(0.0, 0.0, 0.0), period_ms=1_000.0)
    for buffer, dropped in ((1, [0, 0, 1] * 2), (0, [0, 1, 1] * 2), (None, [0] * 6)):
        world = timed(small, arrivals=at, buffer=buffer)
        journal = assert_equal(FinalExit(), world, CLEAR, 6, 0)
        assert journal["dropped"].tolist() == dropped
        whole = 3 * 10 + 2.0
        expected = [k * whole for k in range(3 if buffer is None else buffer + 1)] * 2
        assert journal["waited_ms"][journal.answered] == pytest.approx(expected)
        assert journal.missed == sum(dropped) / 6
        assert journal.mean("latency_ms") == pytest.approx(np.mean(expected) + whole)


def test_nothing_is_learnt_before_it_is_back(small):
    """With a round trip of a minute a run of ten seconds is as one in which all feedback of offloads is lost."""
    far = timed(small, link=Constant(mbit_s=2.0, round_trip_ms=60_000.0))
    lost = replace(far, lost=1.0)
    policy = UCB1(thresholds=(float("inf"),), cuts=(1, 2))
    a, state_a = rollout_timed(policy, far, CLEAR, horizon=100, seed=0)
    b, state_b = rollout_timed(policy, lost, CLEAR, horizon=100, seed=0)
    assert np.array_equal(a["cut"], b["cut"])
    assert np.array_equal(state_a, state_b)
    near, _ = rollout_timed(policy, timed(small), CLEAR, horizon=100, seed=0)
    assert not np.array_equal(near["cut"], a["cut"])


def test_feedback_overtakes(small):
    """Local answers are learnt before an offload that was decided earlier: the policy sees completion order."""
    world = timed(small, link=Constant(mbit_s=2.0, round_trip_ms=500.0), arrivals=Paced(every_ms=50.0))
    journal = assert_equal(UCB1(thresholds=(0.5, 0.9)), world, CHANGING, 300, 3)
    done = np.arange(300) * 50.0 + journal["latency_ms"]
    assert (np.diff(done) < 0.0).any()


def test_feedback_beyond_the_room_is_given_up(small, monkeypatch):
    monkeypatch.setattr("offramp.environments.timed.play.IN_FLIGHT", 3)
    world = timed(small, link=Constant(mbit_s=2.0, round_trip_ms=60_000.0), arrivals=Paced(every_ms=50.0))
    journal = assert_equal(OffloadFirst(), world, CLEAR, 20, 0)
    assert journal.given_up == 17


LINKS = st.sampled_from(
    [BROKEN, Constant(mbit_s=0.7, round_trip_ms=5.0), Outages(link=BROKEN, outages=((100.0, 300.0), (1_700.0, 800.0)))]
)


@settings(max_examples=25, deadline=None)
@given(LINKS, st.integers(0, 5), st.floats(5.0, 60.0), st.sampled_from([None, 0, 2]))
def test_time_never_runs_backwards_and_the_link_is_never_overdrawn(link, seed, pace, buffer):
    world = timed(SMALL[0], link=link, arrivals=Poisson(per_second=pace), buffer=buffer)
    journal, _ = rollout_timed(RandomArm(), world, CHANGING, horizon=120, seed=seed)
    rounds = world.rounds(CHANGING, horizon=120, seed=seed)
    arrays = link.arrays(duration_ms=rounds.arrival[-1] + 60_000.0, seed=seed)
    kept = journal.answered
    assert (np.diff(rounds.arrival) >= 0.0).all()
    start = rounds.arrival[kept] + journal["waited_ms"][kept]
    computed = start + journal["edge_ms"][kept]
    assert (journal["waited_ms"][kept] >= 0.0).all()
    assert (start[1:] >= computed[:-1] - 1e-9).all()  # one after the other
    assert (journal["latency_ms"][kept] >= journal["waited_ms"][kept]).all()
    sent = journal["bytes"][kept] > 0.0
    if sent.any():
        last = (computed + journal["sending_ms"][kept])[sent].max() + 120_000.0
        assert journal["bytes"].sum() <= capacity(arrays, 0.0, last) * (1 + 1e-9)
        longest = journal["sending_ms"][kept][sent]
        assert (longest * max(arrays.rate) >= journal["bytes"][kept][sent] * (1 - 1e-9)).all()


SMALL = []


@pytest.fixture(autouse=True)
def _small(small):
    SMALL[:] = [small]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 100_000), min_size=4, max_size=4),
    st.floats(0.01, 1000.0),
    st.floats(0.0, 10.0),
    st.floats(0.0, 10.0),
    st.floats(1.0, 500.0),
)
def test_cost_is_monotone_in_bytes_and_in_depth_on_the_edge(payloads, mbit_s, joule, megabyte, deadline):
    prices = Physical(
        edge=device(3.0, power=2.0),
        cloud=device(0.5),
        mbit_s=mbit_s,
        weights=Weights(joule=joule, megabyte=megabyte, missed=0.5, deadline_ms=deadline),
    )
    profile = replace(SMALL[0].profile, payload_bytes=(*payloads, 0))
    dearer = replace(profile, payload_bytes=(*(2 * n for n in payloads), 0))
    one, two = (prices.quote(p, raw_input_allowed=True) for p in (profile, dearer))
    assert (np.diff(one.edge_cost) >= 0.0).all()
    assert np.array_equal(one.edge_cost, two.edge_cost)
    assert (two.offload_cost >= one.offload_cost).all()


def test_the_same_seed_gives_the_same_world_in_any_order(small):
    world = timed(small, arrivals=Poisson(per_second=3.0), lost=0.3)
    forward = [world.rounds(CHANGING, horizon=50, seed=s) for s in (0, 1)]
    backward = [world.rounds(CHANGING, horizon=50, seed=s) for s in (1, 0)][::-1]
    longer = world.rounds(CHANGING, horizon=80, seed=0)
    for a, b in zip(forward, backward, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert np.array_equal(longer.arrival[:50], forward[0].arrival)
    assert np.array_equal(longer.lost[:50], forward[0].lost)
    assert not np.array_equal(forward[0].arrival, forward[1].arrival)


def test_an_estimate_that_hears_nothing_is_told_by_the_radio(small):
    """A link that is believed to be slow and is fast: without the radio's reports nothing is ever sent."""
    world = timed(
        with_input(small),
        link=Constant(mbit_s=100.0, round_trip_ms=5.0),
        edge=device(40.0),
        weights=Weights(second=4.0),
        estimate=LastThroughput(mbit_s=0.01),
    )
    policy = ChainUCB()
    told, _ = rollout_timed(policy, world, CLEAR, horizon=500, seed=0)
    deaf, _ = rollout_timed(policy, replace(world, probe_ms=float("inf")), CLEAR, horizon=500, seed=0)
    assert deaf["offloaded"].sum() == 0.0
    assert told["offloaded"][-100:].mean() > 0.5


def test_the_journal_names_its_columns_and_meets_measurements(small):
    journal, _ = rollout_timed(FinalExit(), timed(small), CLEAR, horizon=10, seed=0)
    assert journal.against(2.0 * journal["latency_ms"]) == pytest.approx(0.5)
    with pytest.raises(KeyError, match="no column 'speed'"):
        journal["speed"]
    with pytest.raises(ValueError, match="allowed is a list of milliseconds"):
        journal.against([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"buffer": -1}, "buffer is -1"),
        ({"lost": 1.5}, "lost is 1.5"),
        ({"probe_ms": 0.0}, "probe_ms is 0.0"),
        ({"coding": float("nan")}, "coding is nan"),
        ({"codecs": ("raw",)}, "without payloads"),
    ],
)
def test_what_a_world_in_time_refuses(small, change, message):
    with pytest.raises(ValueError, match=message):
        timed(small, **change)


def test_what_does_not_belong_together_is_refused(small):
    with pytest.raises(ValueError, match="allowed is Physical"):
        TimedWorld(world=replace(small, prices=PaperUnits()), link=BROKEN)
    with pytest.raises(ValueError, match="power_w of device 'bench' is None"):
        timed(small, edge=device(), weights=Weights(joule=1.0)).facts(("clear",))
    with pytest.raises(ValueError, match="segments and the cloud's 3"):
        Physical(edge=device(), cloud=DeviceProfile(name="c", segment_ms=(1.0,) * 3, head_ms=(1.0,) * 3))
    three = DeviceProfile(name="c", segment_ms=(1.0,) * 3, head_ms=(1.0,) * 3)
    with pytest.raises(ValueError, match="'c' knows 3 exits, allowed are 4"):
        TimedWorld(world=replace(small, prices=Physical(edge=three, cloud=three)), link=BROKEN)
    with pytest.raises(ValueError, match="links of the stream are"):
        timed(small).rounds(Stationary(condition="clear", link=2.0), horizon=1, seed=0)
    payloads = table(small)
    with pytest.raises(ValueError, match="payloads lack 60"):
        timed(small, payloads=payloads.part("validation")).facts(("clear",))
    with pytest.raises(ValueError, match="no validation samples"):
        timed(small, payloads=payloads.part("test")).facts(("clear",))
    with pytest.raises(ValueError, match=r"codecs name \['webp'\]"):
        timed(small, payloads=payloads, codecs=("webp",)).facts(("clear",))


def test_cascades_run_in_time(small):
    world = replace(small, arms=small.arms.joined(Arms.cascades(exits=4, at=(1, 2), thresholds=(0.6, 0.8))))
    assert_equal(CeeBERT(), timed(world, link=BROKEN), CHANGING, 200, 0)
