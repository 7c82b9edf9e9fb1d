"""What the service survives: its processes killed, stopped, started twice; and how it ends."""

import json
import os
import select
import signal
import socket
import sqlite3
import threading

import httpx
import pytest

from offramp.bandits.durable import DurableEngine
from offramp.experiments.service.settings import Settings
from offramp.experiments.service.started import started

QUOTE = {"edge_cost": [0, 0.1, 0.3, 0.6], "offload_cost": [0.4, 0.3, 0.2, 0], "mu": 1}
OPTIONS = ("exits=3", "workers=1", "rate=1e9", "burst=1000000")
TWO = ("exits=3", "workers=2", *OPTIONS[2:])


def seen(decision, confidence=0.99):
    cut, row = decision["cut"], [None] * 3
    threshold = decision["thresholds"][cut - 1]
    here = threshold is not None and confidence >= threshold
    row[cut - 1 if here else 2] = confidence
    answered = {"answered_at": cut if here else 3, "offloaded": not here}
    return {"token": decision["token"], "confidence": row, **answered}


def ended(pid, seconds=60.0):
    """Wait until a process is no more, without asking again and again."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def sent(client, path, body):
    """As a client should: again after 503 and after a connection that broke; the last answer, and all statuses."""
    statuses = []
    while len(statuses) < 1_000:
        try:
            answer = client.post(path, json=body)
        except httpx.TransportError:
            statuses.append(0)
            continue
        statuses.append(answer.status_code)
        if answer.status_code != 503:
            return answer, statuses
    raise AssertionError(statuses[-5:])


def logged(store):
    with DurableEngine(store) as engine:
        engine.verify()
        cursor = engine.cursor
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        (rows,) = database.execute("select count(*) from feedback").fetchone()
    database.close()
    return rows, cursor


def test_a_killed_learner_loses_nothing_and_counts_nothing_twice(tmp_path):
    with started(tmp_path / "store.db", *OPTIONS, "learner_wait=30") as service:
        outcomes, statuses, failures = [], [], []
        killed = [threading.Event() for _ in range(2)]

        def work(which):
            try:
                with httpx.Client(base_url=service.url, timeout=60.0) as client:
                    for i in range(40):
                        decision, told = sent(client, "/v1/decide", QUOTE)
                        assert set(told) == {200}, "deciding goes on"
                        if i % 20 == 10:
                            killed[i // 20].set()
                        answer, told = sent(client, "/v1/update", {"feedback": [seen(decision.json())]})
                        outcomes.append(answer.json()["outcomes"][0])
                        statuses.extend(told)
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                for event in killed:
                    event.set()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        gone = set()
        for event in killed:
            event.wait()
            for pid in set(service.children("learner")) - gone:
                os.kill(pid, signal.SIGKILL)
                assert ended(pid)
                gone.add(pid)
        for thread in threads:
            thread.join()
        assert not failures
        assert gone
        assert set(statuses) <= {200, 503}
        assert outcomes.count("counted") + outcomes.count("duplicate") == 120
        assert service.stop() == 0
    assert logged(tmp_path / "store.db") == (120, 120)


def test_while_the_learner_hangs_decisions_go_on_and_feedback_may_be_sent_again(tmp_path):
    with started(tmp_path / "store.db", *OPTIONS, "learner_wait=0.2") as service:
        (learner,) = service.children("learner")
        with httpx.Client(base_url=service.url, timeout=60.0) as client:
            given = {"feedback": [seen(client.post("/v1/decide", json=QUOTE).json())]}
            os.kill(learner, signal.SIGSTOP)
            refused = client.post("/v1/update", json=given)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert client.get("/v1/state").status_code == 503
            assert client.post("/v1/decide", json=QUOTE).status_code == 200
            assert client.get("/readyz").status_code == 200
            os.kill(learner, signal.SIGCONT)
            answer, _ = sent(client, "/v1/update", given)
            assert answer.json()["outcomes"] in (["counted"], ["duplicate"])
            assert client.get("/v1/state").json()["cursor"] == 1
        assert service.stop() == 0
    assert logged(tmp_path / "store.db") == (1, 1)


def test_killed_workers_are_replaced_and_any_worker_takes_any_feedback(tmp_path):
    with started(tmp_path / "store.db", *TWO) as service:
        with httpx.Client(base_url=service.url, timeout=60.0) as client:
            decision = sent(client, "/v1/decide", QUOTE)[0].json()
        before = service.children("worker")
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
            assert ended(pid)
        with httpx.Client(base_url=service.url, timeout=60.0) as client:  # waits in the queue of the parent's socket
            answer, _ = sent(client, "/v1/update", {"feedback": [seen(decision)]})
            assert answer.json() == {"outcomes": ["counted"]}
            answer, _ = sent(client, "/v1/update", {"feedback": [seen(decision)]})
            assert answer.json() == {"outcomes": ["duplicate"]}
        assert not set(service.children("worker")) & set(before)
        assert service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_is_open_is_answered_before_the_service_ends(tmp_path, number):
    with started(tmp_path / "store.db", *OPTIONS) as service:
        children = [*service.children("worker"), *service.children("learner")]
        with httpx.Client(base_url=service.url, timeout=60.0) as client:
            decision = client.post("/v1/decide", json=QUOTE).json()
        body = json.dumps({"feedback": [seen(decision)]}).encode()
        head = f"POST /v1/update HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        with socket.create_connection(("127.0.0.1", service.port)) as end, end.makefile("rb") as answer:
            end.sendall(f"{head}\r\nexpect: 100-continue\r\n\r\n".encode())
            assert b" 100 " in answer.readline(), "from now on the request is open"
            service.process.send_signal(number)
            end.sendall(body)
            found = answer.read()
        assert b" 200 " in found
        assert b"counted" in found
        assert service.process.wait(60) == 0
        assert all(ended(pid) for pid in children)
    assert logged(tmp_path / "store.db") == (1, 1)


def test_without_its_parent_no_process_stays(tmp_path):
    own = tmp_path / "tmp"
    own.mkdir()
    with started(tmp_path / "store.db", *OPTIONS, environment={"TMPDIR": str(own)}) as service:
        children = [*service.children("worker"), *service.children("learner")]
        assert len(children) == 2
        assert list(own.glob("offramp-*"))
        service.process.kill()
        assert all(ended(pid) for pid in children)
        assert not list(own.glob("offramp-*")), "nor does a folder"


def test_two_services_on_one_store(tmp_path):
    with started(tmp_path / "store.db", *OPTIONS) as service:
        with pytest.raises(RuntimeError, match="open in another learner"), started(tmp_path / "store.db", *OPTIONS):
            pass
        assert httpx.post(f"{service.url}/v1/decide", json=QUOTE).status_code == 200


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(RuntimeError, match=f"127.0.0.1:{port} cannot be listened on") as told,
            started(tmp_path / "store.db", "exits=3", f"port={port}"),
        ):
            pass
        assert "Traceback" not in str(told.value)
        assert not (tmp_path / "store.db").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"host": "0.0.0.0"}, "exposed"),
        ({"host": "0.0.0.0", "exposed": True}, "OFFRAMP_API_KEY is not set"),
        ({"host": "example.org"}, "exposed"),
        ({"workers": 0}, "workers is 0"),
        ({"port": 70_000}, r"port is 70000, allowed is a whole number in 0\.\.65535"),
        ({"body_bytes": 10**8}, "body_bytes is 100000000"),
        ({"burst": 8}, r"burst is 8, allowed is 256 \(batch\) or more"),
        ({"workers": 1.5}, r"workers is 1.5, allowed is a whole number in 1\.\."),
        ({"exits": None}, "exits is missing"),
        ({"store": ""}, "store is '', allowed is a path"),
        ({"streams": []}, "streams"),
        ({"streams": ["a", "a"]}, "streams"),
        ({"cuts": [9]}, "cuts"),
        ({"exits": 0}, "exits is 0"),
    ],
)
def test_settings_that_no_service_can_have(given, message, monkeypatch):
    monkeypatch.delenv("OFFRAMP_API_KEY", raising=False)
    with pytest.raises(ValueError, match=message):
        Settings(**{"store": "store.db", "exits": 3, **given})


def test_the_table_of_arms(monkeypatch):
    monkeypatch.setenv("OFFRAMP_API_KEY", "of good length")
    with pytest.raises(ValueError, match="no header can carry"):
        Settings(store="s", exits=3, host="0.0.0.0", exposed=True)
    arms = Settings(store="s", exits=3, thresholds=[0.5, 0.8], cuts=[1, 3]).arms
    assert [(arm.cut, arm.threshold) for arm in arms] == [(1, 0.5), (1, 0.8), (3, -float("inf"))]
