"""Attacks on the service over its own wire: no 5xx, answers as described, and nothing learnt from what is refused."""

import json
import os
import random
import socket
import struct
from copy import deepcopy
from urllib.parse import quote

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from offramp.bandits.durable import DurableEngine
from offramp.experiments.service.started import started

CASES = int(os.environ.get("OFFRAMP_FUZZ_CASES", "1500"))
OPTIONS = ("exits=3", "streams=[default,north]", "docs=true", "batch=8", "body_bytes=65536", "workers=1")
QUOTE = {"edge_cost": [0, 0.1, 0.3, 0.6], "offload_cost": [None, 0.3, 0.2, 0], "mu": 1}
NAN = float("nan")
FAILED = {400, 401, 404, 405, 408, 413, 415, 422, 429, 503}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    store = tmp_path_factory.mktemp("fuzz") / "store.db"
    with started(store, *OPTIONS, "rate=1e9", "burst=1000000000", "request_seconds=2") as running:
        processes = running.children("learner"), running.children("worker")
        yield running
        assert (running.children("learner"), running.children("worker")) == processes  # nobody died of it
        assert running.stop() == 0
    with DurableEngine(store) as engine:
        engine.verify()


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url, timeout=30.0) as made:
        yield made


@pytest.fixture(scope="module")
def refusal(client):
    """The description of a refusal, as a check."""
    described = client.get("/openapi.json").json()
    shape = described["components"]["schemas"]["Answer"]
    return jsonschema.Draft202012Validator(shape)


def knows(client):
    """All that a refused request must leave alone: cursor and states."""
    return [client.get("/v1/state", params={"stream": s}).json() for s in ("default", "north")]


def decided(client, n=1):
    return [client.post("/v1/decide", json=QUOTE).json() for _ in range(n)]


def told(decision, confidence=0.9):
    """Feedback that the decision can have led to."""
    cut, row = decision["cut"], [None] * 3
    threshold = decision["thresholds"][cut - 1]
    here = threshold is not None and confidence >= threshold
    row[cut - 1 if here else 2] = confidence
    return {
        "token": decision["token"],
        "confidence": row,
        "answered_at": cut if here else 3,
        "offloaded": not here and cut < 3,
    }


def refused(refusal, answer):
    """Is this a refusal?  If so it is as described; if not, it is a plain success."""
    if answer.status_code == 200:
        return False
    assert answer.status_code in FAILED, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json", (answer.text, answer.request.headers)
    refusal.validate(answer.json())
    assert len(answer.content) < 4096  # it does not give back what it was given
    return True


def test_every_route_answers_as_it_is_described(service, client):
    described = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:

        @settings(
            max_examples=max(CASES // 60, 10), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        )
        @given(case=operation.as_strategy())
        def answers(case):
            case.call_and_validate(excluded_checks=[positive_data_acceptance])  # tokens cannot be made up

        before = knows(client)
        answers()
        assert knows(client) == before  # no token is guessed


VALUES = (
    None,
    True,
    -1,
    0,
    1,
    3,
    4,
    0.5,
    -0.0,
    1e-320,
    1e308,
    1e9,
    1.1e9,
    2**31,
    2**63,
    2**64,
    10**400,
    "",
    "x",
    "null",
)
NESTED = ([], {}, [[]], [None], {"a": {}}, [[[[[]]]]], "\ud800", "\0", "ä" * 300)
WORDS = (
    b"NaN",
    b"Infinity",
    b"-",
    b"1e999",
    b"1" * 5000,
    b"[" * 9000,
    b'{"a":' * 3000,
    b"\xff\xfe",
    b"\0",
    b'"',
    b"}",
    b",",
)


def places(value, path=()):
    """Where something stands in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


def mutated(rng, body):
    """A body with something else in it, as bytes."""
    body = json.loads(json.dumps(body))  # and copies below, so that no change is made to what others are given
    for _ in range(rng.randrange(1, 3)):
        path = rng.choice(list(places(body)))
        if not path:
            continue
        holder = body
        for step in path[:-1]:
            holder = holder[step]
        kind = rng.randrange(6)
        if kind == 0:
            del holder[path[-1]]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(("extra", "stream", "token", "__proto__", ""))] = rng.choice(VALUES)
        elif kind == 2 and isinstance(holder, list):
            holder += [holder[0]] * rng.choice((1, 2, 20))
        elif kind == 3 and isinstance(holder[path[-1]], str):
            text = holder[path[-1]]
            at = rng.randrange(len(text) + 1)
            holder[path[-1]] = text[:at] + rng.choice("aZ09-_=+/ é") + text[at + 1 :]
        else:
            holder[path[-1]] = deepcopy(rng.choice((*VALUES, *NESTED)))
    raw = json.dumps(body).encode()
    if rng.random() < 0.25:
        at = rng.randrange(len(raw) + 1)
        raw = raw[:at] + rng.choice(WORDS) + raw[at + rng.randrange(3) :]
    if rng.random() < 0.05 and raw.startswith(b"{"):
        raw = raw.replace(b"{", b'{"mu": 3, ', 1)  # perhaps the second of its name
    return raw


def tensors(decisions=None):
    """An inference request for either model, in JSON."""
    if decisions is None:
        given = {
            "edge_cost": ("FP64", [QUOTE["edge_cost"]]),
            "offload_cost": ("FP64", [[0.4, 0.3, 0.2, 0]]),
            "mu": ("FP64", [[1]]),
        }
    else:
        items = [told(d) for d in decisions]
        given = {
            "token": ("BYTES", [[i["token"]] for i in items]),
            "confidence": ("FP64", [i["confidence"] for i in items]),
            "answered_at": ("INT64", [[i["answered_at"]] for i in items]),
            "offloaded": ("BOOL", [[i["offloaded"]] for i in items]),
        }
    return {
        "id": "7",
        "inputs": [
            {"name": name, "datatype": kind, "shape": [len(rows), len(rows[0])], "data": rows}
            for name, (kind, rows) in given.items()
        ],
    }


def binary(body):
    """The same request with its numbers as bytes behind the JSON, and the length of the JSON."""
    body, behind = json.loads(json.dumps(body)), []
    for tensor in body["inputs"]:
        flat = [x for row in tensor.pop("data") for x in row]
        if tensor["datatype"] == "BYTES":
            part = b"".join(struct.pack("<I", len(x)) + x.encode() for x in flat)
        else:
            letter = {"FP64": "d", "INT64": "q", "BOOL": "?"}[tensor["datatype"]]
            part = struct.pack(f"<{len(flat)}{letter}", *(NAN if x is None else x for x in flat))
        tensor["parameters"] = {"binary_data_size": len(part)}
        behind.append(part)
    return body, b"".join(behind)


def spoilt(rng, raw):
    made = bytearray(raw)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(made) + 1)
        made[at : at + rng.randrange(9)] = rng.choice(
            (b"", b"\xff" * 8, b"\0\0\xf0\x7f", rng.randbytes(rng.randrange(9)))
        )
    return bytes(made)


HEADERS = (
    {},
    {},
    {},
    {},
    {"content-type": "text/plain"},
    {"content-type": "application/octet-stream"},
    {"content-type": "application/json; charset=latin-1"},
    {"content-encoding": "gzip"},
    {"inference-header-content-length": "5"},
    {"inference-header-content-length": "-1"},
    {"inference-header-content-length": "99999999999999999999"},
    {"authorization": "Bearer " + "x" * 5000},
    {"x-forwarded-for": "1" * 300},
    {"accept": "image/png"},
)


def test_mutilated_bodies_are_refused_and_teach_nothing(client, refusal):
    rng = random.Random(CASES)
    counted, cursor = 0, knows(client)[0]["cursor"]
    for i in range(CASES):
        route = rng.choice(("decide", "decide_many", "update", "update", "update", "json", "json", "bytes", "bytes"))
        headers = {"content-type": "application/json"} | rng.choice(HEADERS)
        pair = decided(client, 2)
        before = knows(client) if i % 10 == 0 else None
        if route in ("decide", "decide_many", "update"):
            body = {
                "decide": QUOTE,
                "decide_many": {"requests": [QUOTE, QUOTE]},
                "update": {"feedback": [told(d) for d in pair]},
            }
            raw, path = mutated(rng, body[route]), f"/v1/{route}"
        else:
            model = rng.choice(("decide", "update", "update"))
            body, path = tensors(pair if model == "update" else None), f"/v2/models/{model}/infer"
            raw = mutated(rng, body)
            if route == "bytes":
                front, behind = binary(body)
                front = mutated(rng, front) if rng.random() < 0.5 else json.dumps(front).encode()
                headers |= {"inference-header-content-length": str(len(front) + rng.choice((0, 0, 0, -1, 1, 10**6)))}
                raw = front + (spoilt(rng, behind) if rng.random() < 0.7 else behind)
        answer = client.post(path, content=raw, headers={k: v.encode() for k, v in headers.items()})
        if refused(refusal, answer):
            assert before is None or knows(client) == before
        elif "update" in path:
            counted += answer.text.count("counted") if path.startswith("/v1") else answer.content.count(b"counted")
            assert b"duplicate" in answer.content or b"counted" in answer.content
    assert counted > CASES // 50  # what is not mutilated where it matters is still learnt
    assert knows(client)[0]["cursor"] == cursor + counted


def test_one_bad_item_keeps_the_whole_request_out(client, refusal):
    for bad in ({"token": "x"}, {"answered_at": 2}, {"confidence": [None, None, 1.5]}, {"audited": True}, {"more": 1}):
        good = [told(d) for d in decided(client, 3)]
        good[1] |= {"confidence": [None, None, 0.5], "answered_at": 3} | bad
        before = knows(client)
        assert refused(refusal, client.post("/v1/update", json={"feedback": good}))
        assert knows(client) == before


def test_names_from_requests_lead_to_no_file(client, refusal):
    for name in ("../store.db", "/etc/passwd", "%2e%2e%2fstore.db", "store.db.key", "a" * 9000, "north\0"):
        answer = client.get("/v1/state", params={"stream": name})
        assert refused(refusal, answer)
        assert client.get(f"/v2/models/{quote(name, safe='')}").status_code in (400, 404)


def test_garbage_on_the_wire_ends_its_connection_and_nothing_else(service, client):
    rng, before = random.Random(5), knows(client)
    start = b"POST /v1/update HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for _ in range(max(CASES // 30, 20)):
        raw = rng.choice(
            (
                rng.randbytes(rng.randrange(1, 2000)),
                start + b"Content-Length: 99999999999999999999\r\n\r\n{}",
                start + b"Content-Length: -5\r\n\r\n{}",
                start + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n{}{}{}",
                start + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n{}\r\n",
                start + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
                start + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
                start + b"\r\n".join(b"X%d: y" % k for k in range(3000)) + b"\r\n\r\n",
                b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                b"\x16\x03\x01\x02\x00" + rng.randbytes(300),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET /healthz HTTP/9.9\r\n\r\n",
            )
        )
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as wire:
            try:
                wire.sendall(raw)
                wire.shutdown(socket.SHUT_WR)
                answer = b""
                while more := wire.recv(65_536):
                    answer += more
            except ConnectionError:  # it hung up before it had heard everything
                continue
        if answer:
            assert b" 500 " not in answer.split(b"\r\n")[0], (raw[:200], answer[:200])
    assert knows(client) == before
