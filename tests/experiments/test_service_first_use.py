"""The service as somebody meets it who has never used it: folders, forgotten settings, its page, its messages."""

import asyncio
import html
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys

import httpx
import pytest

from offramp.bandits import UCB1, Arms, Observation, Quote
from offramp.bandits.durable import DurableEngine, StoreError
from offramp.experiments.service.bodies import bodies, read
from offramp.experiments.service.description import describe
from offramp.experiments.service.learner import Learner, _Connection
from offramp.experiments.service.link import Link
from offramp.experiments.service.manual import examples, page
from offramp.experiments.service.opening import opened
from offramp.experiments.service.refused import Refused
from offramp.experiments.service.settings import Settings
from offramp.experiments.service.started import started

TOKEN = "AetpR0yyJtInAQ" * 30
UCB = {"_target_": "offramp.bandits.UCB1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["exits=7"], "store is missing, allowed is"),
        ([], "store is missing, allowed is"),
        (["store=state/x.db"], "exits is missing, allowed"),
        (["store=state/x.db", "exits=0"], "exits is 0, allowed is a whole number in 1.."),
    ],
)
def test_what_is_missing_is_said_in_one_line_and_nothing_is_made(tmp_path, options, message):
    command = [sys.executable, "-m", "offramp.experiments.serve", *options]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert message in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_examples_that_run_and_the_store_says_what_it_is_the_next_time(tmp_path):
    store = tmp_path / "state" / "cameras.db"
    with started(store, "exits=4", "policy.beta=0.5", "streams=[north]", "workers=1") as service:
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        shown = html.unescape(httpx.get(f"{service.url}/docs").text)
        assert "<script" not in shown
        assert all(
            word in shown for word in ("answered_at", "1..4", "was the cloud asked", "-1 = thresholds of no row")
        )
        lines = re.findall(r"<pre>curl -s (.*?)\n\n", shown, re.DOTALL)
        token, answers = "", {}
        for line in lines:
            url, *rest = shlex.split(line)
            if not rest:
                assert httpx.get(url).status_code == 200
                continue
            body = json.loads(rest[-1].replace('"TOKEN"', json.dumps(token)))
            answer = httpx.post(url, json=body)
            assert answer.status_code == 200, (line, answer.text)
            answers[url] = answer.json()
            token = token or answer.json().get("token", "")
        assert answers[f"{service.url}/v1/update"] == {"outcomes": ["counted"]}
        assert service.stop() == 0
    with started(store, "workers=1") as service:
        told = httpx.get(f"{service.url}/v1/state", params={"stream": "north"}).json()
        assert told["cursor"] == 1
        assert "beta=0.5" in told["policy"]


def settings(path, **given):
    return Settings(**{"store": str(path), "exits": 3, "policy": UCB, **given})


def test_a_store_that_is_there_supplies_what_nobody_chose(tmp_path):
    path = tmp_path / "store.db"
    path.touch()  # as a start that failed may leave it
    with pytest.raises(ValueError, match="exits is missing"):
        opened(settings(path, exits=None, given=[]))
    opened(settings(path, thresholds=[0.5, 0.8], features=2, seed=7)).close()
    with opened(settings(path, exits=None, given=["store"])) as engine:
        assert (engine.arms, engine.features) == (Arms.grid(exits=3, thresholds=[0.5, 0.8]), 2)
    for given, message in (
        ({"exits": 4}, r"^exits is 4, allowed is 3, as store \S+ has it$"),
        ({"features": 0}, "^features is 0, allowed is 2, as store"),
        ({"seed": 0}, "^seed is 0, allowed in store .* is 7"),
        ({"thresholds": [0.5]}, "give another table of arms"),
        ({"policy": {**UCB, "beta": 0.25}}, r"^policy\.beta is 0\.25, allowed is 1\.0, as store"),
        ({"policy": {"_target_": "offramp.bandits.ChainUCB"}}, "^policy is ChainUCB, allowed is UCB1, as store"),
    ):
        wrong = settings(path, **{"exits": None, **given}, given=list(given))
        with pytest.raises(ValueError, match=message) as told:
            opened(wrong)
        assert len(str(told.value)) < 300
        opened(settings(path, **{"exits": None, **given}, given=["store"] if "exits" not in given else [])).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"whose folder \S+file/below cannot be made"):
        settings(tmp_path / "file" / "below" / "store.db").make_folder()


@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("arms", [Arms.grid(exits=1), Arms.grid(exits=5, raw_input_allowed=True)])
def test_the_page_is_made_of_the_models(arms, features):
    made = bodies(exits=arms.exits, features=features, streams=("a", "b"), batch=9)
    described = describe(made, version="<1>", streams=("a", "b"), keyed=True)
    shown = page(described, examples(made, arms=arms, features=features, streams=("a", "b")), url="http://h")
    assert "<1>" not in shown
    assert "authorization: Bearer $OFFRAMP_API_KEY" in shown
    for name, model in described["components"]["schemas"].items():
        assert f"<p>{name}: " in shown
        for field in model["properties"]:
            assert f"<td><code>{field}</code>" in shown


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"edge_cost": TOKEN}, "edge_cost is a text of 420 characters: input should be a valid array"),
        ({"edge_cost": [TOKEN, 0]}, "edge_cost[0] is a text of 420 characters: input should be a valid number"),
        ({"edge_cost": {"a": TOKEN}}, "edge_cost is an object of 1: input should be a valid array"),
        ({"edge_cost": [0, 1], "offload_cost": [0, 0], "mu": 1, TOKEN: 1}, "AetpR0yyJtInAQAetpR0... is 1: there is no"),
        ({"edge_cost": [0, 1, 2]}, "edge_cost is [0, 1, 2]: allowed are at most 2 items"),
        ({"edge_cost": [0, 1], "offload_cost": [0, 0], "mu": 1, "context": [1]}, "context is [1]: allowed is an empty"),
        ({"edge_cost": [0, 1], "offload_cost": [0, 0]}, "mu is missing"),
    ],
)
def test_messages_are_short_and_give_no_token_back(body, message):
    made = bodies(exits=1, features=0, streams=("default",), batch=4)
    with pytest.raises(Refused) as told:
        read(made.decide, json.dumps(body).encode())
    assert told.value.message.startswith(message)
    assert TOKEN[:21] not in told.value.message


def test_a_service_that_is_stopped_while_it_starts_says_nothing(tmp_path):
    command = [sys.executable, "-m", "offramp.experiments.serve", f"store={tmp_path}/a/s.db", "exits=3", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not (tmp_path / "a").exists():  # made once signals are heard, and before the learner starts
            os.sched_yield()
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_workers_know_when_the_store_cannot_be_written(tmp_path):
    """The learner tells those who are there and those who come, and again when it is over."""

    class Full(DurableEngine):
        full = True

        def update_many(self, feedback):
            if self.full:
                raise StoreError("the disk is full")
            return super().update_many(feedback)

        def publish(self):
            if self.full:
                raise OSError("the disk is full")
            super().publish()

    async def play():
        with Full(tmp_path / "store.db", UCB1(), arms=Arms.grid(exits=1)) as engine:
            learner = Learner(engine, publish_every=0.0)
            path = str(tmp_path / "socket")
            server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(learner), path)
            told = [asyncio.Queue() for _ in range(2)]
            links = [Link(path, wait=60.0, changed=queue.put_nowait) for queue in told]
            running = [asyncio.create_task(links[0].run())]
            assert await told[0].get()
            ticket = engine.decide(Quote(edge_cost=[0, 1], offload_cost=[math.inf, 0], mu=0))
            given = [(ticket.token, Observation(confidence=[1.0], answered_at=1, offloaded=False))]
            with pytest.raises(Refused, match="cannot be written"):
                await links[0].update(given)
            assert not await told[0].get()
            assert not links[0].up
            running.append(asyncio.create_task(links[1].run()))
            while await told[1].get():
                pass
            assert not links[1].up
            engine.full = False
            assert await told[0].get()
            assert await told[1].get()
            assert all(link.up for link in links)
            assert await links[1].update(given) == ["counted"]
            learner.finish()
            server.close()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(play())
