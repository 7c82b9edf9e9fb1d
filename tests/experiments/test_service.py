"""The service as its clients see it: real processes, real HTTP, on loopback."""

import contextlib
import json
import math
import socket

import httpx
import jsonschema
import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families

from offramp.bandits import UCB1, Arms, Quote
from offramp.bandits.durable import DurableEngine, signing_key
from offramp.experiments.service.started import started

QUOTE = {"edge_cost": [0, 0.1, 0.3, 0.6], "offload_cost": [None, 0.3, 0.2, 0], "mu": 1}
SMALL = ("exits=3", "streams=[default,north]", "docs=true", "batch=8", "body_bytes=65536", "request_seconds=2")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("service") / "store.db"


@pytest.fixture(scope="module")
def service(store):
    with started(store, *SMALL, "rate=1e9", "burst=1000000") as running:
        yield running


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url) as made:
        yield made


def decide(client, **more):
    answer = client.post("/v1/decide", json={**QUOTE, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def seen(decision, confidence=0.99):
    """What the exit at the cut reveals, or, where it is not to answer, the last."""
    cut, row = decision["cut"], [None] * 3
    threshold = decision["thresholds"][cut - 1]
    here = threshold is not None and confidence >= threshold
    row[cut - 1 if here else 2] = confidence
    return {
        "token": decision["token"],
        "confidence": row,
        "answered_at": cut if here else 3,
        "offloaded": not here,
    }


def cursor(client, stream="default"):
    return client.get("/v1/state", params={"stream": stream}).json()["cursor"]


def test_decide_and_update_once(client):
    before = cursor(client)
    decision = decide(client)
    assert 1 <= decision["cut"] <= 3
    assert len(decision["thresholds"]) == 3
    assert decision["p_action"] == 1.0
    given = {"feedback": [seen(decision)]}
    assert client.post("/v1/update", json=given).json() == {"outcomes": ["counted"]}
    assert client.post("/v1/update", json=given).json() == {"outcomes": ["duplicate"]}
    twice = {"feedback": [seen(decide(client))] * 2}
    assert client.post("/v1/update", json=twice).json() == {"outcomes": ["counted", "duplicate"]}
    assert cursor(client) == before + 2


def test_a_batch_learns_each_stream_for_itself(client):
    asked = {"requests": [QUOTE, {**QUOTE, "stream": "north"}, QUOTE]}
    decisions = client.post("/v1/decide_many", json=asked).json()["decisions"]
    assert [d["stream"] for d in decisions] == ["default", "north", "default"]
    north = client.get("/v1/state", params={"stream": "north"}).json()["state"]
    answer = client.post("/v1/update", json={"feedback": [seen(decisions[1])]})
    assert answer.json() == {"outcomes": ["counted"]}
    told = client.get("/v1/state", params={"stream": "north"}).json()
    assert told["state"] != north
    assert told["policy"].startswith("UCB1(")
    assert told["arms"][0]["threshold"] == 0.0, "-inf, always, is the same rule as 0"
    assert None in [arm["threshold"] for arm in told["arms"]], "+inf, never, is null"


def foreign(folder, **options):
    """The token of a decision that another store's engine made."""
    arms = Arms.grid(exits=3)
    with DurableEngine(folder / f"other-{len(options)}.db", UCB1(), arms=arms, **options) as other:
        return other.decide(Quote(edge_cost=[0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0], mu=1)).token


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"mu": -1}, 422, "mu"),
        ({"mu": "1"}, 422, "mu"),
        ({"mu": True}, 422, "mu"),
        ({"mu": 1e10}, 422, "mu"),
        ({"edge_cost": [0, 0.1, 0.3]}, 422, "edge_cost"),
        ({"edge_cost": [0, 0.1, None, 0.6]}, 422, "edge_cost[2]"),
        ({"offload_cost": [0, 0, 0, 1]}, 422, "offload_cost[3]"),
        ({"offload_cost": [0, 0, 0, None]}, 422, "offload_cost[3]"),
        ({"context": [1.0]}, 422, "context"),
        ({"stream": "south"}, 422, "stream"),
        ({"label": 3}, 422, "label"),
    ],
)
def test_what_is_wrong_with_a_quote_is_said(client, change, status, field):
    answer = client.post("/v1/decide", json={**QUOTE, **change})
    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert field in answer.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"mu": NaN}', b"\xff", b"[" * 5_000, b'{"mu": Infinity}', b'{"mu": 1e999, "edge_cost": []}']
)
def test_what_is_no_json_decides_nothing(client, body):
    answer = client.post("/v1/decide", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"confidence": [1.5, None, None]},
        {"confidence": [0.5, 0.5, 0.5], "offloaded": False},
        {"confidence": [None, None]},
        {"answered_at": 4},
        {"answered_at": 1.5},
        {"audited": True},
        {"edge_cost": -1},
        {"prediction": [-2, 0, 0]},
        {"token": "AAAA"},
        {"token": "ä" * 20},
        {"token": ""},
    ],
)
def test_a_refused_item_refuses_its_request_and_nothing_of_it_is_learnt(client, change):
    before = cursor(client)
    good, bad = seen(decide(client)), {**seen(decide(client)), **change}
    answer = client.post("/v1/update", json={"feedback": [good, bad]})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("feedback[1]")
    assert cursor(client) == before
    assert client.post("/v1/update", json={"feedback": [good]}).json() == {"outcomes": ["counted"]}


def test_a_token_is_believed_only_as_it_was_signed(client, store, tmp_path):
    decision = decide(client)
    before = cursor(client)
    token = decision["token"]
    flipped = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(0, len(token), 7)]
    others = foreign(tmp_path), foreign(tmp_path, key=signing_key(store))
    for wrong in (*flipped, token[:-2], token + "=", *others):
        answer = client.post("/v1/update", json={"feedback": [{**seen(decision), "token": wrong}]})
        assert answer.status_code == 422
        assert wrong[:40] not in answer.text
    assert cursor(client) == before


def test_limits(client):
    assert client.post("/v1/decide_many", json={"requests": [QUOTE] * 9}).status_code == 422
    assert client.post("/v1/decide_many", json={"requests": []}).status_code == 422
    assert client.post("/v1/decide", json={**QUOTE, "context": [0] * 40_000}).status_code == 413
    chunks = client.post("/v1/decide", content=iter([b" " * 9_000] * 9), headers={"content-type": "application/json"})
    assert chunks.status_code == 413
    assert "65536" in chunks.json()["error"]
    assert client.post("/v1/decide", content=json.dumps(QUOTE)).status_code == 415
    gzip = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/v1/decide", content=b"{}", headers=gzip).status_code == 415
    assert client.get("/v1/decide").status_code == 405
    assert client.get("/v1/decide").headers["allow"] == "POST"
    assert client.get("/../store.db").status_code == 404
    assert client.get("/v1/state", params={"stream": "../../etc/passwd"}).status_code == 404
    assert client.get("/v2/models/other").status_code == 404


def spoken(service, *said):
    """What comes back on one connection for each of these, up to its end."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 60)) for _ in said]
        for end, part in zip(ends, said, strict=True):
            end.sendall(part)
        return [b"".join(iter(lambda end=end: end.recv(65_536), b"")) for end in ends]


def test_what_does_not_arrive_in_time_is_not_waited_for(service):
    head = b"POST /v1/decide HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n"
    late, *nothing = spoken(service, head + b'{"mu"', b"GET /healthz HTTP/1.1\r\nhost: ", b"")
    assert b" 408 " in late.splitlines()[0]
    headers, silence = nothing
    assert b" 408 " in headers.splitlines()[0]
    assert b'"error":"the headers did not arrive within 2 s"' in headers
    assert silence == b""


def test_headers_without_end_are_refused(service):
    flood = b"".join(b"x-%d: %s\r\n" % (i, b"y" * 900) for i in range(30))
    long, none = spoken(service, b"GET /healthz HTTP/1.1\r\n" + flood, b"\x16\x03\x01\x02\x00\x01\x00")
    for found, status, error in ((long, b" 431 ", "the headers are longer"), (none, b" 400 ", "no HTTP/1.1 request")):
        head, _, body = found.partition(b"\r\n\r\n")
        assert status in head.splitlines()[0]
        assert b"content-type: application/json" in head
        assert error in json.loads(body)["error"]


def test_the_numbers_are_prometheus(client):
    before = counted(client)
    for _ in range(3):
        decision = decide(client)
        client.post("/v1/update", json={"feedback": [seen(decision)]})
    client.post("/v1/decide", json={})
    after = counted(client)
    assert after["offramp_decisions_total"] == before["offramp_decisions_total"] + 3
    assert after["offramp_feedback_total"] == before["offramp_feedback_total"] + 3
    assert after["offramp_rejected_total"] == before["offramp_rejected_total"] + 1
    assert after["offramp_request_seconds_count"] >= before["offramp_request_seconds_count"] + 7
    assert after["offramp_learner_up"] == 1
    assert 0 < after["offramp_cursor"] <= cursor(client)


def counted(client):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    total = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            total[sample.name] = total.get(sample.name, 0) + sample.value
    return total


def test_the_description_is_valid_and_true(client):
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)

    def fits(path, method, answer):
        told = described["paths"][path][method]["responses"][str(answer.status_code)]
        schema = told["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": described["components"]})

    for path, calls in described["paths"].items():
        if "get" in calls and path != "/metrics":
            fits(path, "get", client.get(path.replace("{name}", "decide")))
    fits("/v1/decide", "post", client.post("/v1/decide", json=QUOTE))
    fits("/v1/decide", "post", client.post("/v1/decide", json={}))
    fits("/v1/update", "post", client.post("/v1/update", json={"feedback": [seen(decide(client))]}))
    fits("/v1/state", "get", client.get("/v1/state", params={"stream": "no"}))
    page = client.get("/docs").text
    assert all(path in page for path in described["paths"])
    assert "<script" not in page


@pytest.mark.parametrize("binary", [True, False])
def test_the_official_client_of_inference_servers(service, client, binary):
    before = cursor(client)
    n = 5
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as server:
        assert server.is_server_live()
        assert server.is_server_ready()
        assert server.is_model_ready("decide")
        assert server.is_model_ready("update")
        assert {i["name"] for i in server.get_model_metadata("decide")["inputs"]} == {"edge_cost", "offload_cost", "mu"}
        offload = np.tile([0.3, 0.3, 0.2, 0.0], (n, 1))
        if binary:
            offload[:, 0] = math.inf
        asked = {
            "edge_cost": np.tile([0.0, 0.1, 0.3, 0.6], (n, 1)),
            "offload_cost": offload,
            "mu": np.full((n, 1), 0.5),
        }
        wanted = [triton.InferRequestedOutput(o, binary_data=binary) for o in ("token", "cut", "thresholds")]
        found = server.infer(
            "decide", tensors(asked, binary), outputs=wanted, request_id="a", parameters={"stream": "north"}
        )
        cut, thresholds = found.as_numpy("cut"), found.as_numpy("thresholds")
        assert found.get_response()["id"] == "a"
        assert cut.shape == (n, 1)
        assert thresholds.shape == (n, 3)
        confidence = np.full((n, 3), np.nan)
        here = np.array(
            [float(t[c[0] - 1] or np.inf) <= 1.0 or c[0] == 3 for t, c in zip(thresholds, cut, strict=True)]
        )
        at = np.where(here, cut[:, 0], 3)
        confidence[np.arange(n), at - 1] = 1.0
        told = {
            "token": found.as_numpy("token"),
            "confidence": confidence if binary else np.where(np.isnan(confidence), 0.0, confidence),
            "answered_at": at.reshape(n, 1),
            "offloaded": ~here.reshape(n, 1),
        }
        if not binary:  # JSON has no nan, and this client sends none: that every exit was seen is refused
            with pytest.raises(triton.InferenceServerException, match="allowed is nan"):
                server.infer("update", tensors(told, binary))
            return
        outcome = server.infer("update", tensors(told, binary)).as_numpy("outcome")
        assert outcome.tolist() == [[b"counted"]] * n
        assert cursor(client) == before + n
        with pytest.raises(triton.InferenceServerException, match=r"mu: shape is \[5, 2\]"):
            server.infer("decide", tensors({**asked, "mu": np.zeros((n, 2))}, binary))
        with pytest.raises(triton.InferenceServerException, match="datatypes"):
            server.infer("decide", tensors({**asked, "mu": np.zeros((n, 1), dtype=np.int64)}, binary))


def test_json_tensors_say_null(client):
    flat = {"edge_cost": [0, 0.1, 0.3, 0.6], "offload_cost": [None, 0.3, 0.2, 0], "mu": [1]}
    inputs = [{"name": k, "shape": [1, len(v)], "datatype": "FP64", "data": v} for k, v in flat.items()]
    outputs = client.post("/v2/models/decide/infer", json={"inputs": inputs}).json()["outputs"]
    found = {o["name"]: o["data"] for o in outputs}
    decision = {"token": found["token"][0], "cut": found["cut"][0], "thresholds": found["thresholds"]}
    given = seen(decision)
    kinds = {"token": "BYTES", "confidence": "FP64", "answered_at": "INT64", "offloaded": "BOOL"}
    told = {k: v if isinstance(v, list) else [v] for k, v in given.items()}
    inputs = [{"name": k, "shape": [1, len(v)], "datatype": kinds[k], "data": v} for k, v in told.items()]
    answer = client.post("/v2/models/update/infer", json={"inputs": inputs}).json()
    assert answer["outputs"][0]["data"] == ["counted"]


@pytest.mark.parametrize("length", ["-1", "x", "9", "99999", "1e3"])
def test_a_wrong_length_of_the_json_is_refused(client, length):
    headers = {"inference-header-content-length": length, "content-type": "application/octet-stream"}
    answer = client.post("/v2/models/decide/infer", content=b'{"inputs": []}', headers=headers)
    assert answer.status_code in (400, 422)


def tensors(arrays, binary):
    kinds = {"f": "FP64", "i": "INT64", "b": "BOOL", "O": "BYTES"}
    made = []
    for name, values in arrays.items():
        one = triton.InferInput(name, list(values.shape), kinds[values.dtype.kind])
        one.set_data_from_numpy(values, binary_data=binary)
        made.append(one)
    return made


def test_key_and_rate(tmp_path):
    environment = {"OFFRAMP_API_KEY": "a-key-for-this-test"}
    small = ("exits=3", "workers=1", "batch=4", "rate=0.01", "burst=8", "docs=false")
    with started(tmp_path / "store.db", *small, environment=environment) as service:
        with httpx.Client(base_url=service.url) as client:
            for key in ("x", "a-key-for-this-tesT", "a-key-for-this-test2"):
                answer = client.post("/v1/decide", json=QUOTE, headers={"authorization": f"Bearer {key}"})
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            assert client.post("/v1/decide", json=QUOTE).status_code == 401
            assert client.get("/metrics").status_code == 401
            assert client.get("/healthz").json()["status"] == "alive"
            assert client.get("/v2/health/ready").status_code == 200
        with httpx.Client(base_url=service.url, headers={"authorization": "Bearer a-key-for-this-test"}) as client:
            assert client.get("/openapi.json").status_code == 404, "not described unless asked for"
            assert client.post("/v1/decide_many", json={"requests": [QUOTE] * 4}).status_code == 200
            assert client.post("/v1/decide_many", json={"requests": [QUOTE] * 4}).status_code == 429
            late = client.post("/v1/decide_many", json={"requests": [QUOTE] * 4})
            assert late.status_code == 429
            assert int(late.headers["retry-after"]) >= 100
        assert service.stop() == 0
    with DurableEngine(tmp_path / "store.db") as engine:
        engine.verify()
