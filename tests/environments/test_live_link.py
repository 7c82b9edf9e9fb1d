"""The shaped uplink, the breaker, the alarms and the clock of the live world, on real clocks and real sockets."""

import ast
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments.link_kernels import link_arrays, send_in_order, transfer_end
from offramp.environments.links import Constant
from offramp.environments.live import Breaker
from offramp.environments.live.breaker import CLOSED, HALF_OPEN, OPEN, Circuit
from offramp.environments.live.client import Client, CloudError
from offramp.environments.live.clock import Alarms, Clock
from offramp.environments.live.shaper import Uplink

LIVE = Path(__file__).parents[2] / "environments" / "live"
transfers = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(1, 20_000)), min_size=1, max_size=20)


@given(transfers)
@settings(max_examples=100, deadline=None)
def test_reserved_times_are_those_of_the_simulator(given_):
    """Without an outage nothing is refused, and each transfer has the link for itself, in order."""
    link = link_arrays([30.0, 20.0, 50.0], [4.0, 0.8, 16.0], 5.0)
    ready = np.cumsum([gap for gap, _ in given_])
    sizes = np.array([float(n) for _, n in given_])
    ends = np.zeros(len(ready))
    send_in_order(link, ready, sizes, ends)
    uplink = Uplink(link, Clock())
    slots = [uplink.reserve(float(r), int(n)) for r, n in zip(ready, sizes, strict=True)]
    assert [slot.end for slot in slots] == ends.tolist()
    assert uplink.free == ends[-1]


def test_a_link_that_is_down_refuses_what_is_ready_and_lets_a_queue_wait():
    link = link_arrays([10.0, 10.0, 10.0], [8.0, 0.0, 8.0], 0.0)  # 1,000 bytes a ms, an outage, 1,000 again
    uplink = Uplink(link, Clock())
    assert uplink.reserve(12.0, 100) is None
    assert uplink.reserve(9.0, 1_500) == (9.0, 20.5, 1_500)
    assert uplink.reserve(9.5, 500) == (20.5, 21.0, 500)
    assert uplink.backlog(20.5) == 500.0
    nothing = Uplink(link_arrays([10.0], [0.0], 0.0), Clock())
    assert nothing.reserve(0.0, 1) is None


def test_what_a_broken_transfer_leaves_is_given_back_unless_somebody_queues():
    uplink = Uplink(Constant(mbit_s=0.008).arrays(duration_ms=1.0, seed=0), Clock())  # a byte a ms
    first = uplink.reserve(0.0, 1_000_000)
    uplink.release(first)
    assert uplink.free < first.end
    first, second = uplink.reserve(0.0, 1_000_000), uplink.reserve(0.0, 1_000_000)
    uplink.release(first)
    assert uplink.free == second.end


def test_no_byte_leaves_before_the_link_carries_it_and_all_arrive():
    clock = Clock()
    link = link_arrays([10.0, 10.0, 20.0], [8.0, 0.4, 4.0], 0.0)
    uplink, data = Uplink(link, clock), bytes(range(256)) * 60
    left, right = socket.socketpair()
    wrote = []

    def write(part):
        wrote.append((clock.now(), len(part)))
        left.sendall(part)

    slot = uplink.reserve(clock.now(), len(data))
    got = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: right.recv(65_536), b"")))
    reader.start()
    assert uplink.send(slot, write, data)
    left.close()
    reader.join()
    right.close()
    assert b"".join(got) == data
    total = 0
    for at, n in wrote:
        total += n
        assert at >= transfer_end(link, slot.first, float(total))
    assert len(wrote) > 8
    clock.ended.set()
    assert not uplink.send(slot, write, data), "the run has ended"


def test_the_breaker_opens_after_failures_in_a_row_and_one_request_tries_again():
    clock = Clock()
    circuit = Circuit(Breaker(failures=2, retry_ms=1_000.0, longest_ms=3_000.0), clock)
    first = circuit.admit()
    circuit.failed(first)
    circuit.worked()
    circuit.failed(first)
    assert circuit.state == CLOSED, "not in a row"
    assert circuit.admit() == first
    circuit.failed(first)
    assert circuit.state == OPEN
    assert not circuit.allows()
    assert not circuit.admit()
    looks = [circuit.look_at]
    circuit.failed(first)  # was under way
    assert circuit.look_at == looks[0]
    for _ in range(4):
        circuit.seen(False)
        looks.append(circuit.look_at - clock.now())
    assert 1_000.0 < looks[1] <= 2_000.0, "twice as long, of which some may have passed"
    assert all(2_000.0 < wait <= 3_000.0 for wait in looks[2:])
    circuit.seen(True)
    assert circuit.state == HALF_OPEN
    assert circuit.allows()
    second = circuit.admit()
    assert second
    assert not circuit.allows(), "one tries"
    assert not circuit.admit()
    circuit.failed(first)
    circuit.spared(first)
    assert circuit.state == HALF_OPEN, "sent to the cloud as it was"
    assert not circuit.admit(), "and one tries still"
    circuit.failed(second)
    assert circuit.state == OPEN
    circuit.seen(True)
    third = circuit.admit()
    assert third
    circuit.spared(third)
    assert circuit.admit() == third, "the first was not sent"
    circuit.worked()
    assert circuit.state == CLOSED
    for _ in range(3):
        circuit.failed(first)
        circuit.failed(third)
    assert circuit.state == CLOSED, "they knew it as it was"
    assert [state for _, state in circuit.changes] == [OPEN, HALF_OPEN, OPEN, HALF_OPEN, CLOSED]


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"retry_ms": 0.0}, {"longest_ms": 10.0}])
def test_a_breaker_says_what_is_allowed(wrong):
    with pytest.raises(ValueError, match="allowed"):
        Breaker(**wrong)


def test_alarms_ring_in_order_whatever_the_order_they_were_set_in():
    clock, rang, last = Clock(), [], threading.Event()
    alarms = Alarms(clock)
    alarms.at(60.0, last.set)
    for ms in (40.0, 10.0, 30.0, 20.0):
        alarms.at(ms, lambda ms=ms: rang.append((ms, clock.now())))
    assert last.wait(20.0)
    alarms.at(1e9, rang.clear)
    alarms.close()
    assert [ms for ms, _ in rang] == [10.0, 20.0, 30.0, 40.0]
    assert all(at >= ms for ms, at in rang)


def test_waiting_ends_with_the_run():
    clock = Clock()
    threading.Thread(target=clock.ended.set).start()
    assert not clock.wait(1e9)


def test_nothing_in_the_live_world_reads_a_clock_that_can_be_set():
    allowed = {"monotonic", "perf_counter"}
    for path in LIVE.glob("*.py"):
        tree = ast.parse(path.read_text())
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
        }
        assert used <= allowed, path.name
        assert "datetime" not in path.read_text()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:80/path", "file:///etc/x:1"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="allowed is an address"):
        Client(url)
    with pytest.raises(ValueError, match="printable"):
        Client("http://127.0.0.1:80", key="a\r\nX: y")


def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert not client.alive(time.monotonic() + 5.0)
        with pytest.raises(CloudError, match="Refused"):
            client.ask(lambda write: True, time.monotonic() + 5.0)
