"""Links: bytes are conserved, time never runs backwards, the same seed gives the same link."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as some

from offramp.bandits.kernel import HAVE_NUMBA, compile_here
from offramp.environments.drawn_links import Markov, Outages
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import (
    PRESETS,
    Constant,
    Energy,
    capacity,
    down,
    link_arrays,
    preset,
    rate_at,
    round_trip_at,
    send_in_order,
    transfer_end,
    transmit_mj,
)

SEGMENT = some.tuples(
    some.floats(0.5, 2_000.0), some.one_of(some.just(0.0), some.floats(0.05, 500.0)), some.floats(0.0, 300.0)
)
LINKS = some.lists(SEGMENT, min_size=1, max_size=8).filter(lambda s: any(rate > 0.0 for _, rate, _ in s))
TIMES = some.floats(0.0, 1e5)
BYTES = some.floats(0.0, 1e7)
TRANSFERS = some.lists(some.tuples(TIMES, BYTES), min_size=1, max_size=8)


def made(segments):
    return link_arrays(*zip(*segments, strict=True))


def slack(link, *n_bytes):
    """What rounding of times below 1e7 ms may do to a count of bytes."""
    return 1e-6 + 1e-9 * sum(n_bytes) + 1e-8 * float(link.rate.max())


def walked(segments, start, n_bytes):
    """The end of a transfer by walking the segments one by one."""
    now, left, k = 0.0, n_bytes, 0
    while left > 0.0:
        ms, mbit_s, _ = segments[k % len(segments)]
        begin = max(now, start)
        if begin < now + ms and left <= (now + ms - begin) * mbit_s * 125.0:
            return begin + left / (mbit_s * 125.0)
        left -= max(0.0, now + ms - begin) * mbit_s * 125.0
        now, k = now + ms, k + 1
    return start


def test_by_hand_bytes_decide_not_the_rate_at_the_start():
    link = made([(10.0, 8.0, 20.0), (10.0, 0.0, 30.0), (10.0, 1.6, 40.0)])  # 1,000, 0 and 200 bytes per ms
    assert link.ends.tolist() == [10.0, 20.0, 30.0]
    assert link.sent.tolist() == [10_000.0, 10_000.0, 12_000.0]
    assert transfer_end(link, 5.0, 5_000.0) == 10.0
    assert transfer_end(link, 5.0, 5_001.0) == pytest.approx(20.005)  # the rate at the start would say 10.001
    assert transfer_end(link, 5.0, 6_000.0) == 25.0
    assert transfer_end(link, 12.0, 200.0) == 21.0  # waits for the end of the outage
    assert transfer_end(link, 25.0, 2_000.0) == 31.0  # 1,000 bytes to the end, 1,000 at its start again
    assert transfer_end(link, 25.0, 1_000.0 + 2 * 12_000.0 + 500.0) == 90.5
    assert transfer_end(link, 65.0, 5_000.0) == 70.0
    assert transfer_end(link, 12.0, 0.0) == 12.0
    assert capacity(link, 5.0, 25.0) == 6_000.0
    assert capacity(link, 25.0, 95.0) == 1_000.0 + 2 * 12_000.0 + 5_000.0
    assert capacity(link, 25.0, 25.0) == capacity(link, 25.0, 5.0) == 0.0
    assert [rate_at(link, ms) for ms in (0.0, 10.0, 20.0, 30.0)] == [1_000.0, 0.0, 200.0, 1_000.0]
    assert [round_trip_at(link, ms) for ms in (9.9, 10.0, 29.9, 41.0)] == [20.0, 30.0, 40.0, 30.0]
    assert [down(link, ms) for ms in (9.9, 10.0, 19.9, 20.0, 45.0)] == [False, True, True, False, True]


def test_what_never_arrives_never_ends():
    dead = made([(10.0, 0.0, 1.0)])
    assert transfer_end(dead, 3.0, 1.0) == math.inf
    assert transfer_end(dead, 3.0, 0.0) == 3.0
    assert capacity(dead, 0.0, math.inf) == 0.0
    alive = made([(10.0, 1.0, 1.0)])
    assert capacity(alive, 0.0, math.inf) == transfer_end(alive, 0.0, math.inf) == math.inf
    assert transfer_end(alive, math.inf, 5.0) == math.inf


@settings(deadline=None)
@given(segments=LINKS, start=TIMES, n_bytes=BYTES)
def test_a_transfer_takes_what_the_link_carries(segments, start, n_bytes):
    link = made(segments)
    end = transfer_end(link, start, n_bytes)
    assert end >= start
    assert capacity(link, start, end) == pytest.approx(n_bytes, rel=1e-9, abs=slack(link, n_bytes))
    if start + n_bytes < 1e5:
        assert abs(capacity(link, 0.0, walked(segments, start, n_bytes)) - capacity(link, 0.0, end)) <= slack(
            link, capacity(link, 0.0, end)
        )


@settings(deadline=None)
@given(segments=LINKS, start=TIMES, later=some.floats(0.0, 1e4), n_bytes=BYTES, more=BYTES)
def test_more_bytes_or_a_later_start_never_end_earlier(segments, start, later, n_bytes, more):
    link = made(segments)
    end = transfer_end(link, start, n_bytes)
    assert transfer_end(link, start, n_bytes + more) >= end or more < slack(link, n_bytes)
    after = transfer_end(link, start + later, n_bytes)
    assert after >= end or capacity(link, after, end) <= slack(link, n_bytes)


@settings(deadline=None)
@given(segments=LINKS, start=TIMES, first=BYTES, second=BYTES)
def test_a_transfer_in_two_parts_ends_when_the_whole_does(segments, start, first, second):
    link = made(segments)
    whole = transfer_end(link, start, first + second)
    parts = transfer_end(link, transfer_end(link, start, first), second)
    between = capacity(link, min(whole, parts), max(whole, parts))
    assert between <= slack(link, first, second)  # an outage may lie between them, but no bytes


@settings(deadline=None, max_examples=50)
@given(segments=LINKS, transfers=TRANSFERS)
def test_no_more_is_sent_than_the_link_carries_in_any_interval(segments, transfers):
    link = made(segments)
    ready, n_bytes = (np.array(column) for column in zip(*sorted(transfers), strict=True))
    ends = np.empty(len(ready))
    send_in_order(link, ready, n_bytes, ends)
    starts = np.maximum(ready, np.concatenate([[0.0], ends[:-1]]))
    assert (ends >= starts).all()
    assert (np.diff(ends) >= 0.0).all()
    for i in range(len(ready)):
        for j in range(i, len(ready)):
            sent = n_bytes[i : j + 1].sum()
            assert sent <= capacity(link, starts[i], ends[j]) + len(ready) * slack(link, sent)


@settings(deadline=None)
@given(segments=LINKS, start=TIMES, middle=some.floats(0.0, 1e4), end=some.floats(0.0, 1e4))
def test_capacities_add_up_and_an_outage_carries_nothing(segments, start, middle, end):
    link = made(segments)
    b, c = start + middle, start + middle + end
    whole = capacity(link, start, c)
    assert capacity(link, start, b) + capacity(link, b, c) == pytest.approx(whole, rel=1e-9, abs=slack(link, whole))
    before = 0.0
    for last, rate in zip(link.ends, link.rate, strict=True):
        if rate == 0.0:
            assert down(link, (before + last) / 2.0)
            assert capacity(link, before, last) == 0.0
            assert transfer_end(link, before, 1.0) >= last
        before = last


def _walk(link, at, n_bytes, energy, out):
    for k in range(len(at)):
        out[k, 0] = rate_at(link, at[k])
        out[k, 1] = round_trip_at(link, at[k])
        out[k, 2] = 1.0 if down(link, at[k]) else 0.0
        out[k, 3] = transfer_end(link, at[k], n_bytes[k])
        out[k, 4] = capacity(link, at[k], out[k, 3])
        out[k, 5] = transmit_mj(energy, out[k, 3] - at[k], n_bytes[k])


@pytest.mark.skipif(not HAVE_NUMBA, reason="nothing is compiled")
def test_compiled_and_plain_agree_to_the_last_bit():
    rng = np.random.default_rng(7)
    walk = compile_here(_walk)
    energy = preset("lte").energy.array()
    for link in (
        made([(137.0, 3.7, 31.0), (61.0, 0.0, 50.0), (911.0, 55.1, 12.0), (3.3, 0.01, 99.0)]),
        LinkTrace.embedded("4g/foot_0006").arrays(duration_ms=1.0, seed=0),
        Constant(mbit_s=7.3).arrays(duration_ms=1_000.0, seed=0),
    ):
        at = rng.uniform(0.0, 3e6, 300)
        at[::10] = link.ends[rng.integers(0, len(link.ends), 30)]
        n_bytes = np.exp(rng.uniform(0.0, 20.0, 300))
        plain, fast = np.empty((300, 6)), np.empty((300, 6))
        _walk(link, at, n_bytes, energy, plain)
        walk(link, at, n_bytes, energy, fast)
        assert plain.tobytes() == fast.tobytes()


def test_the_named_links_and_what_they_cost():
    assert {name: (link.mbit_s, link.round_trip_ms) for name, link in PRESETS.items()} == {
        "sao_paulo": (93.6, 10.0),
        "fremont": (73.3, 180.0),
        "paris": (60.0, 216.0),
        "cell_3g": (1.1, 100.0),
        "lte": (5.85, 33.0),
        "wifi": (18.88, 10.0),
    }
    expected = {"cell_3g": (364.0, 645.0), "lte": (68.0, 263.0), "wifi": (21.0, 116.0)}  # 50 kB: ms and mJ
    for name, (ms, mj) in expected.items():
        link = preset(name)
        took = transfer_end(link.arrays(duration_ms=1e4, seed=0), 0.0, 50_000.0)
        assert took == pytest.approx(ms, abs=0.5)
        assert link.energy.transmit_mj(took, 50_000.0) == pytest.approx(mj, abs=0.9)
    assert Energy(base_mw=1.0, tail_mj=5.0).transmit_mj(1_000.0, 1.0) == 6.0
    assert Energy(base_mw=1.0, tail_mj=5.0).transmit_mj(1_000.0, 0.0) == 0.0
    with pytest.raises(ValueError, match="'mars' does not exist"):
        preset("mars")


def cut(link, ms):
    """The link until then: ends, rates and round trips."""
    kept = int(np.searchsorted(link.ends, ms)) + 1
    return np.minimum(link.ends[:kept], ms), link.rate[:kept], link.round_trip[:kept]


STATES = ((20.0, 30.0, 400.0), (2.0, 80.0, 200.0), (0.0, 80.0, 50.0))
DRAWN = (
    Markov(states=STATES),
    Markov(states=STATES, transition=((0.5, 0.5, 0.0), (0.2, 0.2, 0.6), (1.0, 0.0, 0.0))),
    Outages(link=preset("lte"), mean_up_ms=500.0, mean_down_ms=100.0),
    Outages(link=LinkTrace.embedded("3g/2010-09-21_0742"), mean_up_ms=5e4, mean_down_ms=1e3),
    Outages(link=Outages(link=Markov(states=STATES), mean_up_ms=900.0, mean_down_ms=90.0), outages=((100.0, 7.0),)),
)


@pytest.mark.parametrize("link", DRAWN)
def test_spec_seed_and_duration_alone_decide_and_longer_continues_shorter(link):
    long = link.arrays(duration_ms=3e6, seed=3)
    other = link.arrays(duration_ms=3e6, seed=4)
    short = link.arrays(duration_ms=7_777.0, seed=3)
    again = link.arrays(duration_ms=3e6, seed=3)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(long, again, strict=True))
    assert long.sent.tobytes() != other.sent.tobytes()
    assert short.ends[-1] == 7_777.0
    assert long.ends[-1] == 3e6
    for a, b in zip(cut(long, 7_777.0), short[:1] + short[2:], strict=True):
        assert a.tolist() == b.tolist()
    assert (np.diff(long.ends, prepend=0.0) > 0.0).all()


def test_a_markov_link_spends_its_time_as_the_means_say():
    link = Markov(states=STATES).arrays(duration_ms=2e6, seed=0)
    share = [np.diff(link.ends, prepend=0.0)[link.rate == 125.0 * rate].sum() / 2e6 for rate, _, _ in STATES]
    assert share == pytest.approx([400 / 650, 200 / 650, 50 / 650], abs=0.02)  # each state is as often the next
    fixed = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    visited = Markov(states=STATES, transition=fixed).arrays(duration_ms=1e5, seed=1).rate / 125.0
    after = {20.0: 2.0, 2.0: 0.0, 0.0: 20.0}
    assert all(after[a] == b for a, b in pairwise(visited))
    alone = Markov(states=((3.0, 1.0, 10.0),)).arrays(duration_ms=100.0, seed=0)
    assert set(alone.rate) == {375.0}


def test_outages_take_the_rate_and_nothing_else():
    trace = LinkTrace(segments=((10.0, 8.0, 20.0), (10.0, 4.0, 30.0)))
    link = Outages(link=trace, outages=((5.0, 10.0), (32.0, 2.0), (90.0, 5.0))).arrays(duration_ms=45.0, seed=0)
    assert link.ends.tolist() == [5.0, 10.0, 15.0, 20.0, 30.0, 32.0, 34.0, 40.0, 45.0]
    assert (link.rate / 125.0).tolist() == [8.0, 0.0, 0.0, 4.0, 8.0, 4.0, 0.0, 4.0, 8.0]
    assert link.round_trip.tolist() == [20.0, 20.0, 30.0, 30.0, 20.0, 30.0, 30.0, 30.0, 20.0]
    energy = Energy(base_mw=3.0)
    spec = Outages(link=Constant(mbit_s=8.0, energy=energy), mean_up_ms=900.0, mean_down_ms=100.0)
    assert spec.energy == energy
    drawn = spec.arrays(duration_ms=1e6, seed=0)
    assert drawn.rate[0] == 1_000.0
    assert np.diff(drawn.ends, prepend=0.0)[drawn.rate == 0.0].sum() / 1e6 == pytest.approx(0.1, abs=0.015)
    twice = Outages(link=spec, mean_up_ms=900.0, mean_down_ms=100.0).arrays(duration_ms=1e6, seed=0)
    assert np.diff(twice.ends, prepend=0.0)[twice.rate == 0.0].sum() / 1e6 == pytest.approx(0.19, abs=0.025)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Constant(mbit_s=0.0), "mbit_s is 0, allowed is a rate > 0"),
        (lambda: Constant(mbit_s=-1.0), "mbit_s is -1.0, allowed is a rate in Mbit/s"),
        (lambda: Constant(mbit_s=math.nan), "mbit_s is nan"),
        (lambda: Constant(mbit_s="10"), "mbit_s is '10'"),
        (lambda: Constant(mbit_s=93_600_000.0), "mbit_s is 93600000.0, allowed is a rate in Mbit/s"),
        (lambda: Constant(mbit_s=1.0, round_trip_ms=-1.0), "round_trip_ms is -1.0"),
        (lambda: Constant(mbit_s=1.0).arrays(duration_ms=0.0, seed=0), "duration_ms is 0.0"),
        (lambda: Energy(base_mw=math.inf), "base_mw is inf"),
        (lambda: Energy(tail_mj=-1.0), "tail_mj is -1.0"),
        (lambda: Markov(states=()), r"states are \(\), allowed is one or more"),
        (lambda: Markov(states=((0.0, 1.0, 1.0),)), "at least one with a rate > 0"),
        (lambda: Markov(states=((1.0, 1.0, 0.0),)), r"states\[0\]\[2\] is 0.0"),
        (lambda: Markov(states=((1.0, 1.0, 1.0),), transition=((0.9,),)), r"transition\[0\] is \(0.9,\)"),
        (lambda: Markov(states=((1.0, 1.0, 1.0),), transition=((0.5, 0.5),)), "allowed are 1 rows of 1"),
        (lambda: Outages(link=Constant(mbit_s=1.0)), "either a list of outages or both means"),
        (lambda: Outages(link=Constant(mbit_s=1.0), mean_up_ms=1.0), "either a list of outages or both means"),
        (lambda: Outages(link=Constant(mbit_s=1.0), mean_up_ms=1.0, mean_down_ms=-1.0), "mean_down_ms is -1.0"),
        (lambda: Outages(link=Constant(mbit_s=1.0), outages=((5.0, 5.0), (9.0, 1.0))), r"outages\[1\] is \(9.0, 1.0\)"),
        (lambda: Outages(link=Constant(mbit_s=1.0), outages=((5.0, 0.0),)), r"outages\[0\] is \(5.0, 0.0\)"),
    ],
)
def test_what_is_no_link_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_every_file_of_the_group_is_a_link(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("1 2.0\n2 3.0\n")
    names = ("constant", "sao_paulo", "fremont", "paris", "cell_3g", "lte", "wifi", "markov", "outages", "trace")
    with initialize_config_module("offramp.conf", version_base=None):
        specs = {name: instantiate(compose(f"link/{name}").link) for name in names}
        read = compose("link/trace_file", overrides=[f"link.path={path}", "link.round_trip_ms=40"])
    assert {name: specs[name] for name in PRESETS} == PRESETS
    assert all(spec.arrays(duration_ms=1e4, seed=0).sent[-1] > 0.0 for spec in specs.values())
    assert instantiate(read.link).segments == ((1e3, 2.0, 40.0), (1e3, 3.0, 40.0))
    assert isinstance(hash(specs["markov"]), int)
