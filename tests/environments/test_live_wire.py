"""Messages between edge and cloud, and what the cloud's server does with all that is none: over real connections."""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments.live import CloudApp
from offramp.environments.live.wire import HEALTH, REQUEST_BYTES, TAIL, Reply, Request, WireError, stamp

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("live_toy", HERE / "live_toy.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

ASKED = Request(number=7, split=1, network=stamp(toy.ToyEdge.identity), payload=b"12345", logits=True)


def answered(**changed):
    fields = {"number": 7, "split": 1, "network": ASKED.network, "classes": 4}
    fields |= {"confidence": np.array([0.5]), "prediction": np.array([2]), "logits": np.ones((1, 4), np.float32)}
    return Reply(**(fields | changed)).pack()


def test_a_question_and_its_answer_come_back_as_they_were():
    assert Request.read(ASKED.pack()) == ASKED
    assert len(ASKED.pack()) == REQUEST_BYTES + 5
    found = Reply.read(answered(), ASKED, exits=3, classes=4)
    assert (found.confidence, found.prediction, found.logits.tolist()) == ([0.5], [2], [[1.0] * 4])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_altered_or_truncated_message_is_read(data):
    for raw, read in ((ASKED.pack(), Request.read), (answered(), lambda b: Reply.read(b, ASKED, exits=3, classes=4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        other = bytes([raw[at] ^ data.draw(st.integers(1, 255))])
        for broken in (raw[:at] + other + raw[at + 1 :], raw[:at], raw + b"x"):
            with pytest.raises(WireError, match="allowed"):
                read(broken)


@pytest.mark.parametrize(
    "changed",
    [
        {"number": 8},
        {"split": 2},
        {"network": bytes(8)},
        {"classes": 5, "logits": np.ones((1, 5), np.float32)},
        {"logits": None},
        {"logits": np.ones((1, 3), np.float32)},
        {"confidence": np.array([0.5, 0.5]), "prediction": np.array([1, 1]), "logits": np.ones((2, 4), np.float32)},
        {"confidence": np.array([1.5])},
        {"confidence": np.array([np.nan])},
        {"prediction": np.array([4])},
    ],
)
def test_the_answer_to_something_else_is_refused(changed):
    with pytest.raises(WireError, match="allowed"):
        Reply.read(answered(**changed), ASKED, exits=3, classes=4)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_junk_is_refused_and_never_anything_else(raw):
    with pytest.raises(WireError):
        Request.read(raw)
    with pytest.raises(WireError):
        Reply.read(raw, ASKED, exits=3, classes=4)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(WireError, match="cannot be sent"):
        Request(number=-1, split=0, network=bytes(8), payload=b"").pack()
    with pytest.raises(WireError, match="hexadecimal"):
        stamp("no hash")


@pytest.fixture(scope="module")
def port():
    process = subprocess.Popen(
        [sys.executable, HERE / "live_toy.py", "0", "0", "secret"], stdout=subprocess.PIPE, text=True
    )
    yield int(process.stdout.readline())
    process.terminate()
    assert process.wait(20) in (0, -15)
    process.stdout.close()


def asked(port, body=b"", *, method="POST", path=TAIL, key="secret", headers=None):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    line.request(method, path, body=body, headers={"Authorization": f"Bearer {key}"} | (headers or {}))
    answer = line.getresponse()
    found = answer.status, answer.read()
    line.close()
    return found


def question(**changed):
    fields = {"number": 3, "split": 1, "network": stamp(toy.ToyEdge.identity), "payload": bytes(4 * toy.WIDTH)}
    return Request(**(fields | changed))


def test_the_server_says_that_it_lives_and_who_it_is(port):
    status, body = asked(port, method="GET", path=HEALTH, key="none is asked for")
    assert status == 200
    assert json.loads(body) == {"status": "ok", "network": toy.ToyEdge.identity, "exits": 3, "classes": 4}


def test_every_split_answers_as_the_tail_itself(port):
    image = toy.ToyPass(toy.IMAGES[0])
    for split in range(toy.EXITS):
        payload = image.payload("float32" if split else "raw")
        for every in (False, True):
            sent = question(split=split, payload=payload, every=every, logits=True)
            status, body = asked(port, sent.pack())
            found = Reply.read(body, sent, exits=3, classes=4)
            confidence, prediction, logits = toy.ToyCloud().tail(split, payload, every=every)
            assert status == 200
            assert (found.confidence == confidence).all()
            assert (found.prediction == prediction).all()
            assert (found.logits == logits).all()
            assert len(confidence) == (toy.EXITS - split if every else 1)
        image.segment()


def test_what_is_no_question_is_refused_and_the_server_goes_on(port):
    good = question().pack()
    wrong = {
        "key": (401, {"body": good, "key": "other"}),
        "path": (404, {"path": "/v1/tai"}),
        "climbing path": (404, {"path": "/../v1/tail"}),
        "method": (405, {"method": "PUT", "body": good}),
        "reading": (405, {"method": "GET"}),
        "posting health": (405, {"path": HEALTH}),
        "empty": (400, {"body": b""}),
        "junk": (400, {"body": b"x" * 100}),
        "CRC": (400, {"body": good[:-1] + b"x"}),
        "other network": (409, {"body": question(network=bytes(8)).pack()}),
        "split": (422, {"body": question(split=3).pack()}),
        "expert": (422, {"body": question(expert=1).pack()}),
        "payload": (422, {"body": question(payload=b"abc").pack()}),
        "size": (413, {"body": bytes(4 * toy.INPUT + REQUEST_BYTES + 1)}),
        "announced size": (413, {"body": b"", "headers": {"Content-Length": "9" * 15}}),
    }
    for name, (status, given_) in wrong.items():
        found, reason = asked(port, **given_)
        assert (name, found) == (name, status)
        assert reason.endswith(b"\n")
        assert b"secret" not in reason
    assert asked(port, good)[0] == 200


def test_a_body_that_grows_beyond_what_was_allowed_is_cut_off(port):
    """Sent in chunks nobody announces the size."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as line:
        line.putrequest("POST", TAIL)
        line.putheader("Authorization", "Bearer secret")
        line.putheader("Transfer-Encoding", "chunked")
        line.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer may come before all is sent
            for _ in range(3):
                line.send(b"3e8\r\n" + bytes(1_000) + b"\r\n")
        assert line.getresponse().status == 413


async def served(app, body, *, ends=True):
    """Status and body of the answer to a question in one part; where it does not end, no other part comes."""
    parts, sent = [{"type": "http.request", "body": body, "more_body": not ends}], []

    async def receive():
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": TAIL, "headers": []}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_a_question_too_many_is_refused_and_one_that_never_ends_is_given_up():
    """One place, and two that want it: 503 to the second, 408 to the first, and then the place is free again."""

    async def story():
        app = CloudApp(toy.ToyCloud(), waiting=1, patience_s=0.2)
        first = asyncio.create_task(served(app, question().pack()[:10], ends=False))
        await asyncio.sleep(0)  # it runs until it waits for more
        return [await served(app, question().pack()), await first, await served(app, question().pack())]

    full, late, after = asyncio.run(story())
    assert full == (503, b"1 questions are open, allowed are 1\n")
    assert late == (408, b"the question was not there within 0.2 s\n")
    assert after[0] == 200
