"""The parts of the service, one by one: frames, rates, tensors, and the learner that many workers ask at once."""

import asyncio
import json
import math
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.bandits import UCB1, Arms, Observation, Quote
from offramp.bandits.durable import DurableEngine, Outcome
from offramp.experiments.service import frames
from offramp.experiments.service.accepting import AWAY, Accepting, Loads
from offramp.experiments.service.frames import DONE, HEAD, REFUSED, UPDATE, Frames, pack_feedback, unpack_feedback
from offramp.experiments.service.guard import ADDRESSES, Rates
from offramp.experiments.service.learner import Learner, _Connection
from offramp.experiments.service.link import Link
from offramp.experiments.service.refused import Refused
from offramp.experiments.service.tensors import compose, parse

ROW = st.lists(st.floats(), min_size=7, max_size=7)


class Kept(Frames):
    def __init__(self):
        super().__init__()
        self.found = []

    def frame(self, kind, number, payload):
        self.found.append((kind, number, payload))


@given(st.lists(st.tuples(st.sampled_from((1, 2, 3)), st.integers(0, 2**64 - 1), st.binary(max_size=30))), st.data())
def test_frames_arrive_whole_however_they_are_cut(sent, data):
    stream = b"".join(HEAD.pack(len(payload), kind, number) + payload for kind, number, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    end = Kept()
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        end.data_received(stream[a:b])
    assert end.found == sent


def test_a_frame_that_is_too_large_ends_the_connection():
    end = Kept()
    end.data_received(HEAD.pack(frames.LARGEST + 1, 1, 1))
    end.data_received(b"x" * 100)
    assert end.found == []


@given(st.lists(st.tuples(st.text("abcDEF_-09", max_size=30), ROW), max_size=5))
def test_feedback_comes_back_bit_for_bit(items):
    packed = []
    for token, row in items:
        observation = Observation.of(np.array(row))
        packed.append((token, observation))
    again = unpack_feedback(pack_feedback(packed))
    assert [(t, o.row.tobytes()) for t, o in again] == [(t, o.row.tobytes()) for t, o in packed]


@given(st.binary(max_size=80))
def test_feedback_that_is_none_is_refused(raw):
    try:
        items = unpack_feedback(raw)
    except ValueError:
        return
    assert pack_feedback(items) == raw


def test_rates_fill_up_with_time():
    now = [0.0]
    rates = Rates(rate=10.0, burst=20, clock=lambda: now[0])
    rates.take("a", 20)
    with pytest.raises(Refused, match="again in 2 s") as told:
        rates.take("a", 11)
    assert told.value.retry_after == 2
    rates.take("b", 20)  # another address
    now[0] = 1.0
    rates.take("a", 10)
    with pytest.raises(Refused):
        rates.take("a", 1)
    now[0] = 1e9
    rates.take("a", 20)
    with pytest.raises(Refused):
        rates.take("a", 1)


def test_rates_remember_only_so_many_addresses():
    rates = Rates(rate=1.0, burst=1, clock=lambda: 0.0)
    for i in range(ADDRESSES + 10):
        rates.take(str(i), 1)
    assert len(rates._left) == ADDRESSES
    rates.take("0", 1)  # forgotten: it may begin anew


def test_workers_share_connections_out_evenly(tmp_path):
    async def play():
        loads = [Loads(tmp_path / "loads", 3) for _ in range(2)]
        loads[0][2] = AWAY  # a third worker has died: nobody waits for it

        class Served(asyncio.Protocol):
            def __init__(self, own):
                self.own = own

            def connection_made(self, transport):
                loads[self.own][self.own] += 1
                transport.write(b"%d" % self.own)
                self.transport = transport

            def connection_lost(self, _):
                loads[self.own][self.own] -= 1

        with socket.create_server(("127.0.0.1", 0)) as listening, listening.dup() as again:
            for end in (listening, again):
                end.setblocking(False)
            workers = [
                Accepting(end, lambda own=own: Served(own), loads=loads[own], own=own)
                for own, end in enumerate((listening, again))
            ]
            ends = []
            for i in range(20):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                ends.append((await reader.read(1), writer))
                assert abs(loads[0][0] - loads[0][1]) <= 1, i
            assert sorted(own for own, _ in ends) == [b"0"] * 10 + [b"1"] * 10
            workers[0].stop()
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            assert await reader.read(1) == b"1", "whoever is left takes it, though it has as many"
            reader, last = await asyncio.open_connection(*listening.getsockname())
            assert await reader.read(1) == b"1", "and though it has more"
            workers[1].stop()
            for end in (*[end for _, end in ends], writer, last):
                end.close()
                await end.wait_closed()

    asyncio.run(play())


def tensor(**change):
    return {"name": "mu", "shape": [2, 1], "datatype": "FP64", "data": [1, None], **change}


def asked(*tensors, **more):
    return json.dumps({"inputs": list(tensors), **more}).encode()


def test_tensors_flat_nested_and_behind():
    flat = parse(asked(tensor()), None)[1]["mu"]
    nested = parse(asked(tensor(data=[[1], [None]])), None)[1]["mu"]
    head = asked(
        tensor(data=None, parameters={"binary_data_size": 16}),
        tensor(name="t", datatype="BYTES", shape=[2], data=None, parameters={"binary_data_size": 11}),
    )
    raw = np.array([1.0, np.nan]).tobytes() + b"\x03\0\0\0abc\0\0\0\0"
    behind = parse(head + raw, len(head))[1]
    for found in (flat, nested, behind["mu"]):
        np.testing.assert_array_equal(found, [[1.0], [math.nan]])
    assert behind["t"].tolist() == [b"abc", b""]


@pytest.mark.parametrize(
    "wrong",
    [
        tensor(shape=[3, 1]),
        tensor(shape=[-1, -2]),
        tensor(shape=[10**30, 1]),
        tensor(shape=[0, 10**30]),
        tensor(shape=[]),
        tensor(shape=[2, 1, 1]),
        tensor(datatype="FP16"),
        tensor(datatype="INT64"),
        tensor(datatype="INT64", data=[1, 2**70]),
        tensor(data=[1, 10**400]),
        tensor(data=[1, True]),
        tensor(data=["1", "2"]),
        tensor(data=[[[1]], 2]),
        tensor(datatype="BOOL", data=[0, 1]),
        tensor(data=None, parameters={"binary_data_size": 16}),
        tensor(data=None, parameters={"binary_data_size": -1}),
        tensor(data=None, parameters={"binary_data_size": True}),
        tensor(data=None),
    ],
)
def test_tensors_that_are_none_are_refused(wrong):
    with pytest.raises(Refused):
        parse(asked(wrong), None)


def test_bytes_that_fit_no_tensor_are_refused():
    for datatype, size, raw in (
        ("BYTES", 8, b"\xff\xff\xff\xff\0\0\0\0"),
        ("BYTES", 3, b"\1\0\0"),
        ("BOOL", 2, b"\0\2"),
        ("FP64", 8, bytes(8)),
        ("FP64", 16, bytes(17)),
    ):
        head = asked(tensor(datatype=datatype, data=None, parameters={"binary_data_size": size}))
        with pytest.raises(Refused):
            parse(head + raw, len(head))


def test_outputs_are_given_once_each_as_asked():
    outputs = {"cut": ("INT64", np.array([[1], [2]])), "p": ("FP64", np.array([[math.inf], [0.5]]))}
    request, _ = parse(
        asked(tensor(), outputs=[{"name": "p"}, {"name": "cut", "parameters": {"binary_data": True}}]), None
    )
    told, behind = compose(request, "decide", outputs)
    assert told["outputs"][0]["data"] == [None, 0.5]
    assert behind == [np.array([1, 2]).tobytes()]
    with pytest.raises(Refused, match="allowed are"):
        compose(parse(asked(tensor(), outputs=[{"name": "x"}]), None)[0], "decide", outputs)
    with pytest.raises(Refused):
        parse(asked(tensor(), outputs=[{"name": "p"}] * 17), None)


QUOTE = Quote(edge_cost=[0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0], mu=1)


def feedback(engine):
    ticket = engine.decide(QUOTE)
    here = ticket.cut == 3
    seen = Observation(confidence=[math.nan, math.nan, 0.9], answered_at=3, offloaded=not here)
    return ticket.token, seen


def test_the_learner_refuses_a_request_whole_and_the_others_not_at_all(tmp_path):
    """Three connections at once; what one of them sends is not to be learnt."""

    async def play():
        with DurableEngine(tmp_path / "store.db", UCB1(), arms=Arms.grid(exits=3)) as engine:
            learner = Learner(engine, publish_every=0.0)
            loop = asyncio.get_running_loop()
            path = str(tmp_path / "socket")
            server = await loop.create_unix_server(lambda: _Connection(learner), path)
            links = [Link(path, wait=60.0) for _ in range(3)]
            running = [asyncio.create_task(link.run()) for link in links]
            good = [feedback(engine) for _ in range(3)]
            token, seen = feedback(engine)
            wrong = Observation(confidence=[math.nan] * 3, answered_at=1, offloaded=False)
            found = await asyncio.gather(
                links[0].update(good[:2]),
                links[1].update([(token, seen), (token[:-4] + "AAAA", seen)]),
                links[2].update(good[2:]),
                links[0].update([(token, wrong)]),
                return_exceptions=True,
            )
            assert found[0] == [Outcome.COUNTED] * 2
            assert found[2] == [Outcome.COUNTED]
            assert [(type(f), f.status) for f in (found[1], found[3])] == [(Refused, 422)] * 2
            cursor, state = await links[1].state("default")
            assert cursor == engine.cursor == 3
            np.testing.assert_array_equal(state, engine.state())
            with pytest.raises(Refused, match="'south' is not open"):
                await links[1].state("south")
            assert await links[1].update([(token, seen)]) == [Outcome.COUNTED]
            learner.finish()
            server.close()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            engine.verify()

    asyncio.run(play())


def test_a_learner_is_not_brought_down_by_what_is_no_question(tmp_path):
    async def play():
        with DurableEngine(tmp_path / "store.db", UCB1(), arms=Arms.grid(exits=3)) as engine:
            learner = Learner(engine, publish_every=0.0)
            answered = []

            class End(_Connection):
                def send(self, kind, number, payload):
                    answered.append((kind, number))

            end = End(learner)
            for number, (kind, payload) in enumerate(((9, b""), (UPDATE, b"\xff"), (2, b"\xff"), (UPDATE, b""))):
                learner.asked(end, kind, number, payload)
            learner.work()
            assert answered == [(REFUSED, 0), (REFUSED, 1), (REFUSED, 2), (DONE, 3)]
            assert engine.cursor == 0

    asyncio.run(play())
