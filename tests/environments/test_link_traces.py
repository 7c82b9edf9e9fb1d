"""Recorded links: three forms read alike, errors that say where and what, and the traces that ship along."""

import json
import re

import numpy as np
import pytest

from offramp.environments.link_trace_forms import TraceError, read_segments
from offramp.environments.link_traces import LinkTrace, embedded_traces
from offramp.environments.links import Energy, capacity, transfer_end


@pytest.fixture
def written(tmp_path):
    def write(text, name="trace.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


JSON = json.dumps([{"duration_ms": 1000, "bandwidth_kbps": 8000, "latency_ms": 20}] * 2)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", [None, "given"])
def test_each_form_is_recognised_and_read(written, ends, form):
    text = '[\n {"duration_ms": 725, "bandwidth_kbps": 36014, "latency_ms": 20},\n {"duration_ms": 1000.5, '
    text += '"bandwidth_kbps": 0, "latency_ms": 30, "note": "tunnel"}\n]\n'
    path = written(text.replace("\n", ends))
    assert read_segments(path, form and "json") == [(725.0, 36.014, 20.0), (1000.5, 0.0, 30.0)]
    path = written("0 9.5\n0.5\t2\n\n 1.5 0.0 \n2.5 3e0\n".replace("\n", ends))
    assert read_segments(path, form and "seconds") == [(500.0, 2.0, None), (1e3, 0.0, None), (1e3, 3.0, None)]
    path = written("2\n2\n3\n10\n".replace("\n", ends))  # 3,000 bytes in 2 ms, 1,500 in 1 ms, 1,500 in 7 ms
    read = read_segments(path, form and "mahimahi")
    assert read == [(2.0, 12.0, None), (1.0, 12.0, None), (7.0, pytest.approx(12.0 / 7.0), None)]


def test_mixed_line_ends_and_a_byte_order_mark(written):
    assert read_segments(written(b"\xef\xbb\xbf0 1\r\n1 2\n2 3\r3 4")) == [
        (1e3, 2.0, None),
        (1e3, 3.0, None),
        (1e3, 4.0, None),
    ]
    assert read_segments(written(b"\xef\xbb\xbf" + JSON.encode())) == [(1e3, 8.0, 20.0)] * 2


def test_where_a_recording_in_seconds_starts(written):
    assert read_segments(written("1 5\n2 6\n")) == [(1e3, 5.0, None), (1e3, 6.0, None)]
    assert read_segments(written("700 5\n701 6\n702 7\n")) == [(1e3, 6.0, None), (1e3, 7.0, None)]


def test_packets_arrive_with_their_opportunities_and_long_silence_is_an_outage(written):
    times = [0, 1, 1, 4, 9, 9, 9, 2_500, 2_501]
    path = written("\n".join(map(str, times)))
    link = LinkTrace.read(path, round_trip_ms=40.0).arrays(duration_ms=1.0, seed=0)
    for at in sorted(set(times) - {0}):
        assert capacity(link, 0.0, float(at)) == pytest.approx(1_500.0 * sum(t <= at for t in times))
    assert link.ends[-1] == 2_501.0
    assert capacity(link, 9.0, 2_499.0) == 0.0
    assert transfer_end(link, 9.0, 1_500.0) == pytest.approx(2_500.0)
    assert transfer_end(link, 2_501.0, 4_500.0) == pytest.approx(2_502.0)  # it starts again


E0 = '{"duration_ms": 1000, "bandwidth_kbps": 8000, "latency_ms": 20}'
BAD = [
    ("", None, "the file is empty"),
    ("\n \r\n", None, "the file is empty"),
    (b"\xff\xfe1\x00", None, "byte 0 is no UTF-8 text"),
    ("a,b,c\n", None, "expected is one of|line 1: 'a,b,c' was read"),
    ("1 2 3\n", None, "line 1: '1 2 3' was read, expected is a JSON list"),
    ("[]", None, r"line 1: \[\] was read, expected is a list"),
    ('{"duration_ms": 1}', None, "was read, expected is a list"),
    (f"[{E0},\n{E0}", None, "line 2: no JSON"),
    ("[" * 100_000, None, "expected is a list"),
    ('[{"duration_ms": ' + "9" * 5_000 + "}]", None, "no JSON that can be read"),
    (
        f'[{E0},\n{{"duration_ms": 1000, "bandwidth_mbps": 8, "latency_ms": 20}}]',
        None,
        "line 2, entry 2: .* expected are",
    ),
    (f"[{E0},\n 7]", None, "entry 2: 7 was read"),
    (f"[{E0},\n{E0.replace('1000', '0')}]", None, "line 2, entry 2: duration_ms is 0, expected is a number > 0"),
    (f"[{E0.replace('1000', '-5')}]", None, "line 1, entry 1: duration_ms is -5"),
    (f"[{E0.replace('8000', '-1')}]", None, "bandwidth_kbps is -1"),
    (f"[{E0.replace('8000', 'NaN')}]", None, "bandwidth_kbps is nan"),
    (f"[{E0.replace('8000', 'Infinity')}]", None, "bandwidth_kbps is inf"),
    (f"[{E0.replace('8000', 'true')}]", None, "bandwidth_kbps is True"),
    (f"[{E0.replace('8000', '1' + '0' * 400)}]", None, "bandwidth_kbps is 1000"),
    (f"[{E0.replace('8000', chr(34) + '8000' + chr(34))}]", None, "bandwidth_kbps is '8000'"),
    (
        f"[{E0.replace('8000', '36014000')}]",
        None,
        "36014 Mbit/s, expected is a rate in 0..10,000 Mbit/s; .* another unit",
    ),
    (f"[{E0.replace('20}', '200000}')}]", None, "latency_ms is 200000, expected is a round trip"),
    (f"[{E0.replace('8000', '0')}]", None, "all 1 rates are 0"),
    ("0 1\n1 2\n1 3\n", None, "line 3: time 1 s after 1 s was read, expected are increasing times"),
    ("0 1\n2 2\n1 3\n", None, "line 3: time 1 s after 2 s"),
    ("0 1\n1\n2 3\n", None, "line 2: '1' was read, expected is `seconds Mbit/s`"),
    ("0 1\n1 2 3\n", None, "line 2: '1 2 3' was read"),
    ("0 1\n1 nan\n", None, "line 2: '1 nan' was read"),
    ("0 1\n1 1_0\n", None, "line 2: '1 1_0' was read"),
    ("0 1\n1 -2\n", None, "line 2: -2 was read"),
    ("0 1\n1 1200000\n", None, "line 2: 1.2e[+]06 was read, which is 1.2e[+]06 Mbit/s, .* another unit"),
    ("-1 1\n1 2\n", None, "line 1: '-1 1' was read, expected is a time >= 0"),
    ("1453121790 1\n1453121791 2\n", None, "line 1: time 1453121790 s was read, a clock's"),
    ("0 1\n1000 2\n2000 3\n", None, "steps of 1000 were read, expected are seconds, not ms"),
    ("0 1\n", None, "one line of `seconds Mbit/s` was read"),
    ("0 0\n1 0\n", None, "all 1 rates are 0"),
    ("5\n3\n", None, "line 2: 3 ms after 5 ms was read"),
    ("1\n1.25\n", None, "line 2: 1.25 was read, .* are these seconds?"),
    ("1\n-2\n", None, "line 2: '-2' was read"),
    ("1\n2 2\n", None, "line 2: '2 2' was read"),
    ("0\n0\n", None, "the last time is 0 ms"),
    ("1453121790686\n", None, "line 1: 1453121790686 ms was read, a clock's"),
    ("1\n" * 900, None, "900 packets in 1 ms was read"),
    ("0 1\n1 2\n", "mahimahi", "line 1: '0 1' was read, expected is a whole number of milliseconds"),
    ("1\n2\n", "json", "line 2: no JSON"),
]


@pytest.mark.parametrize(("text", "form", "message"), BAD)
def test_what_cannot_be_read_says_where_and_what(written, text, form, message):
    path = written(text)
    with pytest.raises(TraceError, match=message) as error:
        read_segments(path, form)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


def test_a_form_that_does_not_exist(written):
    with pytest.raises(ValueError, match="form is 'csv', allowed are"):
        read_segments(written(JSON), "csv")


def test_the_round_trip_is_recorded_or_given(written):
    assert {trip for _, _, trip in LinkTrace.read(written(JSON)).segments} == {20.0}
    assert {trip for _, _, trip in LinkTrace.read(written(JSON), round_trip_ms=5.0).segments} == {5.0}
    path = written("0 1\n1 2\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}: this form records no round trip")):
        LinkTrace.read(path)
    assert LinkTrace.read(path, round_trip_ms=7.0).segments == ((1e3, 2.0, 7.0),)
    assert LinkTrace.read(path, round_trip_ms=7.0, energy=Energy(tail_mj=2.0)).energy.tail_mj == 2.0


def test_the_24_shipped_traces():
    names = embedded_traces()
    assert [sum(name.startswith(kind) for name in names) for kind in ("3g/", "4g/")] == [12, 12]
    traces = {name: LinkTrace.embedded(name) for name in names}
    means = {k: np.mean([t.mean_mbit_s for n, t in traces.items() if n.startswith(k)]) for k in ("3g", "4g")}
    assert 0.8 < means["3g"] < 1.3
    assert 27.0 < means["4g"] < 36.0
    for name, trace in traces.items():
        link = trace.arrays(duration_ms=1.0, seed=0)
        assert 150e3 < link.ends[-1] == trace.length_ms
        assert link.sent[-1] / link.ends[-1] / 125.0 == pytest.approx(trace.mean_mbit_s, rel=1e-12)
        assert set(link.round_trip) == {100.0 if name.startswith("3g") else 20.0}
    bus = traces["4g/bus_0001"]
    assert bus.segments[:2] == ((725.0, 36.014, 20.0), (1000.0, 33.809, 20.0))
    assert repr(bus).startswith("LinkTrace(name='4g/bus_0001', scale=1.0")
    assert LinkTrace.embedded("4g/bus_0001", scale=0.1).mean_mbit_s == pytest.approx(0.1 * bus.mean_mbit_s)
    with pytest.raises(ValueError, match="'4g/bus_1' does not exist, allowed are"):
        LinkTrace.embedded("4g/bus_1")


@pytest.mark.parametrize("start", [0.0, 4.0, 10.0, 25.0, 29.5])
def test_a_trace_that_starts_elsewhere_is_the_same_later(start):
    segments = ((10.0, 8.0, 20.0), (10.0, 0.0, 30.0), (10.0, 1.6, 40.0))
    whole = LinkTrace(segments=segments).arrays(duration_ms=1.0, seed=0)
    turned = LinkTrace(segments=segments, start_ms=start, scale=2.0).arrays(duration_ms=1.0, seed=0)
    assert turned.ends[-1] == 30.0
    for ms in (0.0, 3.0, 7.7, 30.0, 44.0, 91.0):
        assert capacity(turned, 0.0, ms) == pytest.approx(2.0 * capacity(whole, start, start + ms))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": ()}, "segments are empty"),
        ({"segments": ((1.0, 2.0),)}, r"segments\[0\] is \(1.0, 2.0\)"),
        ({"segments": ((0.0, 2.0, 1.0),)}, r"segments\[0\]\[0\] is 0.0"),
        ({"segments": ((1.0, -2.0, 1.0),)}, r"segments\[0\]\[1\] times scale is -2.0"),
        ({"segments": ((1.0, 2.0, -1.0),)}, r"segments\[0\]\[2\] is -1.0"),
        ({"segments": ((1.0, 0.0, 1.0),)}, "all 1 rates of the segments are 0"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": 1e9}, r"segments\[0\]\[1\] times scale is 2000000000.0"),
        ({"start_ms": 1.0}, r"start_ms is 1.0, allowed is a time within the trace, \[0, 1.0\)"),
    ],
)
def test_what_is_no_trace_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinkTrace(**{"segments": ((1.0, 2.0, 1.0),), **options})
