"""What a learner and deciders on Ray must stand; `test_on_ray.py` runs these in a network of its own."""

import math
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
from ray import serve
from ray.exceptions import RayActorError

from offramp.bandits import UCB1, Arms, ContractError, Observation, Quote, SplitEES
from offramp.bandits.durable import DurableEngine, TicketError
from offramp.experiments.on_ray import RayDecider, start_learner, stop_learner

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ARMS = Arms.grid(exits=3, thresholds=(0.7, 0.9))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.2, 0.4], offload_cost=[0.5, 0.3, 0.2, 0.0], mu=1.0)
POLICY = UCB1()


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A cluster of two processors."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=78 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=os.environ["RAY_TMPDIR"],
    )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file
    yield
    ray.shutdown()


@pytest.fixture
def store(tmp_path):
    """The path of a store with a learner, under the name "offramp"."""
    start_learner(path=tmp_path / "store", policy=POLICY, arms=ARMS)
    yield tmp_path / "store"
    stop_learner()


def seen(ticket, confidence):
    """What a request with these confidences reveals."""
    shown = [c if j < ticket.cut else math.nan for j, c in enumerate(confidence)]
    here = ticket.cut == 3 or confidence[ticket.cut - 1] >= ticket.threshold
    shown[2] = shown[2] if here else confidence[2]
    return Observation(confidence=shown, answered_at=ticket.cut if here else 3, offloaded=not here)


def learner():
    return ray.get_actor("offramp", namespace="offramp")


def ask(method, *arguments, **named):
    return ray.get(learner().call.remote(method, *arguments, **named))


def process(store):
    """The learner's process: it is the one that holds the lock of the store."""
    inode = Path(f"{store}.lock").stat().st_ino
    locks = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    (pid,) = (int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5].endswith(f":{inode}"))
    return pid


@ray.remote(num_cpus=0)
class Replica:
    """Decides here, reports late, in another order and a fifth of it twice."""

    def __init__(self, seed):
        self.decider = RayDecider(batch=16, every=0.01)
        self.random = random.Random(seed)
        self.held = []
        self.fed = set()

    def play(self, requests):
        for _ in range(requests):
            ticket = self.decider.decide(QUOTE)
            self.held.append((ticket.token, seen(ticket, sorted(self.random.random() for _ in range(3)))))
            self.random.shuffle(self.held)
            while len(self.held) > 20:
                self.report(*self.held.pop())

    def report(self, token, observation):
        ticket = self.decider.read(token)
        self.fed.add((ticket.epoch, ticket.id))
        for _ in range(2 if self.random.random() < 0.2 else 1):
            self.decider.update(token, observation)

    def end(self):
        while self.held:
            self.report(*self.held.pop())
        return self.decider.flush(), self.fed, self.decider.tally, self.decider.close()


def test_a_learner_that_is_killed_loses_nothing_and_counts_nothing_twice(store):
    replicas = [Replica.remote(seed) for seed in range(2)]
    for turn in range(6):
        playing = [replica.play.remote(150) for replica in replicas]
        if turn % 2:
            os.kill(process(store), signal.SIGKILL)
        else:
            ray.kill(learner(), no_restart=False)
        ray.get(playing)
        ask("cursor")  # it has been started again
    ends = ray.get([replica.end.remote() for replica in replicas])
    assert all(flushed and closed for flushed, _, _, closed in ends)
    fed = set().union(*(numbers for _, numbers, _, _ in ends))
    assert len(fed) == 2 * 6 * 150
    tally = sum((tally for _, _, tally, _ in ends), Counter())
    assert set(tally) == {"counted", "duplicate"}  # what was answered by a process that died is a duplicate
    assert tally["counted"] <= len(fed)
    ask("verify")
    state = ask("state")
    stop_learner()
    with DurableEngine(store) as engine:
        log = [(entry.epoch, entry.number) for entry in engine.log()]
        assert len(log) == len(set(log)) == engine.cursor == len(fed)
        assert set(log) == fed
        engine.verify()
        assert engine.state().tobytes() == state.tobytes()
    start_learner(path=store)


def test_decisions_go_on_while_there_is_no_learner(store):
    with RayDecider() as decider:
        stopped = process(store)
        os.kill(stopped, signal.SIGSTOP)
        for i in range(300):
            ticket = decider.decide(QUOTE)
            decider.update(ticket, seen(ticket, [0.5, 0.8, 0.1 * (i % 10)]))
        assert decider.waiting == 300
        assert decider.cursor == 0
        assert not decider.flush(timeout=0.0)
        os.kill(stopped, signal.SIGKILL)
        assert decider.flush()
        assert sum(decider.tally.values()) == 300
        assert ask("cursor") == 300
        while decider.cursor < 300:  # the board comes with an answer of the learner
            assert decider.flush()
            ticket = decider.decide(QUOTE)
        assert process(store) != stopped


def test_feedback_waits_for_a_learner_that_somebody_starts_again(store):
    with RayDecider() as decider:
        stop_learner()
        ticket = decider.decide(QUOTE)
        decider.update(ticket, seen(ticket, [0.5, 0.8, 0.9]))
        start_learner(path=store)
        assert decider.flush()
        assert ask("cursor") == 1


def test_feedback_beyond_what_may_wait_is_given_up_and_counted(store):
    with RayDecider(batch=1, keep=10) as decider:
        os.kill(process(store), signal.SIGSTOP)
        for _ in range(15):
            ticket = decider.decide(QUOTE)
            decider.update(ticket, seen(ticket, [0.5, 0.8, 0.9]))
        assert decider.waiting in (10, 11)  # one may be under way
        assert decider.waiting + decider.tally["dropped"] == 15
        os.kill(process(store), signal.SIGKILL)
        assert decider.flush()
        assert ask("cursor") == 15 - decider.tally["dropped"]


def test_any_replica_takes_any_ticket_and_refuses_what_is_none(store):
    with RayDecider() as one, RayDecider() as other:
        ticket = one.decide(QUOTE)
        good = seen(ticket, [0.5, 0.8, 0.9])
        other.update(ticket.token, good)
        forged = ticket.token[:-4] + ("AAAA" if ticket.token[-4:] != "AAAA" else "BBBB")
        with pytest.raises(TicketError, match="signature is wrong"):
            other.update(forged, good)
        with pytest.raises(ContractError, match="answered_at is 9"):
            other.update(ticket.token, Observation(confidence=[0.5, 0.8, 0.9], answered_at=9, offloaded=False))
        assert other.flush()
        assert other.tally == {"counted": 1}
        # Past the decider's own check: the rest of a batch is learnt.
        first, last = ((t.token, seen(t, [0.5] * 3)) for t in (one.decide(QUOTE) for _ in range(2)))
        batch = [first, (forged, good), last]
        outcomes = ray.get(learner().exchange.remote(batch, "")).outcomes
        assert [outcome.partition(":")[0] for outcome in outcomes] == ["counted", "refused", "counted"]
        ask("verify")


def test_there_is_one_learner_of_a_name_and_of_a_store(store):
    assert start_learner(path=store, policy=POLICY, arms=ARMS) == learner()
    with pytest.raises(RayActorError, match="open in another learner"):
        start_learner("another", path=store)
    with pytest.raises(ValueError, match="nobody"):
        RayDecider("nobody")
    with pytest.raises(ValueError, match="batch is 0"):
        RayDecider(batch=0)
    with pytest.raises(ValueError, match="allowed are the public ones"):
        ask("_store")


def test_a_change_of_policy_outlives_the_process_that_made_it(store):
    with RayDecider() as decider:
        ask("shadow", SplitEES(threshold=0.9), share=1.0)
        ask("take_over")
        os.kill(process(store), signal.SIGKILL)
        assert ask("policy") == SplitEES(threshold=0.9)
        while decider.decide(QUOTE).generation == 0:
            assert decider.flush()
        assert decider.decide(QUOTE).threshold in (0.9, -math.inf)


def test_the_example_on_ray_serve(tmp_path, monkeypatch):
    """Real requests to two replicas, then all of Serve and the learner stopped, and started again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import ray_serve_app

    answered = 0
    for requests in (200, 100):
        serve.start(http_options={"host": "127.0.0.1", "port": 8000})
        serve.run(ray_serve_app.app({}), name="offramp", route_prefix="/")
        with httpx.Client(base_url="http://127.0.0.1:8000") as client:
            exits = [client.post("/", params={"image": i}).raise_for_status().json()["exit"] for i in range(requests)]
        assert set(exits) <= set(range(1, 8))
        answered += requests
        while ask("cursor") < answered:
            pass  # the last feedback is on its way
        ask("verify")
        serve.shutdown()
        stop_learner()
    with DurableEngine(tmp_path / "ray_serve_app.db") as engine:
        assert engine.cursor == answered == len(list(engine.log()))
        assert np.isfinite(engine.state()[:4]).all()


def test_a_decider_ends_with_the_cluster(tmp_path):
    """The last of these: it shuts the cluster down."""
    start_learner(path=tmp_path / "store", policy=POLICY, arms=ARMS)
    decider = RayDecider()
    ray.shutdown()
    ticket = decider.decide(QUOTE)
    decider.update(ticket, seen(ticket, [0.5, 0.8, 0.9]))
    assert not decider.flush()
    assert not decider.close()
    assert not ray.is_initialized()
