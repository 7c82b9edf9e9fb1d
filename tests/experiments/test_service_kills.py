"""The service under kills: what clients send again until it is acknowledged is in the log once, whoever was killed."""

import os
import random
import signal
import threading
from collections import Counter

import httpx
import pytest

from offramp.bandits.durable import DurableEngine
from offramp.experiments.service.started import started

QUOTE = {"edge_cost": [0, 0.1, 0.3, 0.6], "offload_cost": [0.4, 0.3, 0.2, 0], "mu": 1}
OPTIONS = ("exits=3", "workers=2", "rate=1e9", "burst=1000000000", "batch=64", "policy=chain_ucb")
BATCH = 50


class Clients:
    """Threads that ask for decisions, and owe feedback until it is acknowledged: late, shuffled, a fifth of it twice.

    Parameters
    ----------
    service
        What is asked, and killed.
    decisions
        How many in all.
    victims
        "learner" or "worker", in the order in which one of them is killed.
    seed
        Of moments, order and observations.

    """

    def __init__(self, service, decisions, victims, seed):
        self._service, self._left, self._victims = service, decisions, list(victims)
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self._moments = sorted(self._rng.randrange(decisions // 40, decisions * 9 // 10) for _ in victims)
        self.owed = []
        self.made, self.acknowledged, self.outcomes = set(), Counter(), Counter()
        self.killed, self.failed, self.statuses = [], [], Counter()

    def run(self, threads=4):
        """Until all of it is acknowledged."""
        everyone = [threading.Thread(target=self._one) for _ in range(threads)]
        for one in everyone:
            one.start()
        for one in everyone:
            one.join()
        if self.failed:
            raise self.failed[0]

    def _one(self):
        try:
            with httpx.Client(base_url=self._service.url, timeout=60.0) as client:
                while (job := self._job()) is not None:
                    self._done(job, self._sent(client, *job))
        except BaseException as error:
            self.failed.append(error)

    def _job(self):
        with self._lock:
            if self._moments and len(self.acknowledged) >= self._moments[0]:
                self._kill()
            full = len(self.owed) > 40 * BATCH or not self._left
            if self.failed or not (self._left or self.owed):
                return None
            if self.owed and (full or self._rng.random() < 0.5):
                self._rng.shuffle(self.owed)
                items = [self.owed.pop() for _ in range(min(BATCH, len(self.owed)))]
                return "/v1/update", {"feedback": items}
            n = min(BATCH, self._left)
            self._left -= n
            return "/v1/decide_many", {"requests": [QUOTE] * n}

    def _kill(self):
        """Kill one of a kind, if there is one now: while others' requests are on their way."""
        found = self._service.children(self._victims[0])
        if found:
            self._moments.pop(0)
            os.kill(self._rng.choice(found), signal.SIGKILL)
            self.killed.append(self._victims.pop(0))

    def _sent(self, client, path, body):
        """As a client should: again after 503, and after a connection that broke."""
        while True:
            try:
                answer = client.post(path, json=body)
            except httpx.TransportError as error:
                self.statuses[type(error).__name__] += 1
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return answer.json()

    def _done(self, job, answer):
        with self._lock:
            if job[0] == "/v1/update":
                for item, outcome in zip(job[1]["feedback"], answer["outcomes"], strict=True):
                    self.acknowledged[item["token"]] += 1
                    self.outcomes[outcome] += 1
                return
            for decision in answer["decisions"]:
                self.made.add(decision["token"])
                self.owed += [self._seen(decision)] * (2 if self._rng.random() < 0.2 else 1)

    def _seen(self, decision):
        cut, row = decision["cut"], [None] * 3
        if cut == 3:
            row[2] = self._rng.random()
            return {"token": decision["token"], "confidence": row, "answered_at": 3, "offloaded": False}
        threshold, row[cut - 1] = decision["thresholds"][cut - 1], self._rng.random()
        if threshold is not None and row[cut - 1] >= threshold:
            return {"token": decision["token"], "confidence": row, "answered_at": cut, "offloaded": False}
        row[2] = self._rng.random()
        return {"token": decision["token"], "confidence": row, "answered_at": 3, "offloaded": True}


@pytest.mark.parametrize(("decisions", "kills"), [(3_000, 4), pytest.param(20_000, 10, marks=pytest.mark.long)])
def test_no_feedback_is_lost_or_counted_twice_whoever_is_killed(tmp_path, decisions, kills):
    victims = ["learner"] * (kills * 2 // 5) + ["worker"] * (kills - kills * 2 // 5)
    random.Random(4).shuffle(victims)
    with started(tmp_path / "store.db", *OPTIONS) as service:
        clients = Clients(service, decisions, victims, seed=6)
        clients.run()
        assert clients.killed == victims
        assert service.stop() == 0
    assert set(clients.statuses) <= {200, 503, "RemoteProtocolError", "ReadError", "WriteError", "ConnectError"}
    assert set(clients.outcomes) == {"counted", "duplicate"}
    with DurableEngine(tmp_path / "store.db") as engine:
        assert engine.cursor == decisions == len(clients.made) == len(clients.acknowledged)
        sent = {(t.epoch, t.id) for t in map(engine.read, clients.made)}
        logged = [(entry.epoch, entry.number) for entry in engine.log()]
        assert len(logged) == len(sent) == decisions
        assert set(logged) == sent
        engine.verify()
