"""Failures that are really caused: every request has one answer, stand-ins say so, and the edge recovers by itself."""

import importlib.util
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from offramp.bandits import UCB1, Engine, Fixed, SendInput
from offramp.environments import Constant, Paced, Stationary
from offramp.environments.live import WHY, Breaker, Edge, warm_up
from offramp.environments.live.wire import REQUEST_BYTES, Reply, Request

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("live_toy", HERE / "live_toy.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
CLEAR = Stationary(condition="clear")
MOST = 4_000  # requests, after which a run ends whatever happened: 16 seconds


class Cloud:
    """The toy's cloud as a process, on one port for good."""

    def __init__(self, slow_ms=0.0):
        self.slow_ms, self.port, self.process = slow_ms, 0, None
        self.start()

    def start(self):
        command = [sys.executable, HERE / "live_toy.py", str(self.port), str(self.slow_ms)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def running(slow_ms=0.0):
    cloud = Cloud(slow_ms)
    try:
        yield cloud
    finally:
        cloud.kill()


class Story:
    """What happens when: each step waits for so many answers of a kind since the last one, and then does something."""

    def __init__(self, *steps):
        self.steps, self.answers, self.seen = list(steps), [], 0
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.doing = []

    def __call__(self, answer):
        with self.lock:
            self.answers.append(answer)
            if not self.steps:
                return
            kinds, count, act = self.steps[0]
            self.seen += answer.why in kinds
            if self.seen >= count:
                self.steps.pop(0)
                self.seen = 0
                self.doing.append(threading.Thread(target=act or self.stop.set))
                self.doing[-1].start()


def play(story, url, *, policy=None, link=None, horizon=MOST, every_ms=4.0, patience_ms=500.0, **more):
    world = toy.toy_world(link=link or Constant(mbit_s=20.0, round_trip_ms=2.0), arrivals=Paced(every_ms=every_ms))
    policy = Fixed(cut=1, threshold=math.inf) if policy is None else policy
    rounds = world.rounds(CLEAR, horizon=horizon, seed=1)
    edge = Edge(
        half=toy.ToyEdge(),
        facts=world.facts(CLEAR.conditions),
        variants=world.variants,
        link=world.link.arrays(duration_ms=600_000.0, seed=1),
        estimate=world.estimate.initial(),
        cloud=url,
        patience_ms=patience_ms,
        breaker=Breaker(failures=3, retry_ms=50.0, longest_ms=200.0),
        **more,
    )
    warm_up(toy.ToyEdge(), toy.IMAGES[0], world.variants, policy, world.world.arms)
    engine = Engine(policy, arms=world.world.arms, seed=1)
    run = edge.play(engine, rounds, lambda i: toy.IMAGES[rounds.sample[i]], deliver=story, stop=story.stop)
    for thread in story.doing:
        thread.join()
    answers = sorted(story.answers)
    assert [a.round for a in answers] == list(range(len(run.why))), "each request is answered, and once"
    assert [a.why for a in answers] == [WHY[k] for k in run.why]
    stood_in = np.array([a.why not in ("local", "cloud") for a in answers])
    assert (run.journal["outage"] == stood_in).all(), "stand-ins are marked"
    for answer in answers:  # and every one of them is what some exit says of this image
        image = toy.ToyPass(toy.IMAGES[rounds.sample[answer.round]])
        for _ in range(answer.exit):
            image.segment()
        assert (answer.confidence, answer.prediction) == (pytest.approx(image.speak()[0], abs=1e-6), image.speak()[1])
    assert run.learnt == (~stood_in).sum()
    assert run.refused == run.undecided == 0
    return run, answers


def states(run):
    return [state for _, state in run.changes]


CLOUD_ONCE_MORE = (("cloud",), 20, None)


@pytest.mark.parametrize("policy", [Fixed(cut=1, threshold=math.inf), SendInput(), UCB1()], ids=str)
def test_a_cloud_killed_in_the_middle_of_a_stream_that_comes_back_later(policy):
    with running() as cloud:
        story = Story(
            (("cloud",), 20, cloud.kill),
            (("failed", "open", "local"), 40, cloud.start),
            CLOUD_ONCE_MORE,
        )
        run, _ = play(story, f"http://127.0.0.1:{cloud.port}", policy=policy)
    assert story.stop.is_set(), "the cloud was asked again"
    assert run.because("failed").any()
    assert "open" in states(run)
    assert states(run)[-2:] == ["half-open", "closed"]
    assert run.faults


def test_a_cloud_that_hangs_and_goes_on():
    """Stopped, it takes connections and bytes and says nothing; its late answers are nobody's second one."""
    with running() as cloud:
        process = cloud.process.pid
        story = Story(
            (("cloud",), 20, lambda: os.kill(process, signal.SIGSTOP)),
            (("open",), 20, lambda: os.kill(process, signal.SIGCONT)),  # the circuit is open by then
            CLOUD_ONCE_MORE,
        )
        run, answers = play(story, f"http://127.0.0.1:{cloud.port}", deadline_ms=120.0, lanes=64, every_ms=20.0)
    assert story.stop.is_set()
    assert run.because("deadline").any()
    assert "open" in states(run)
    assert all(a.exit == 1 for a in answers if a.why == "deadline")


def test_a_slow_cloud_is_waited_for_until_the_deadline_and_no_longer():
    """400 ms in the cloud, 60 ms of patience with a request: the answers come, late, and are dropped."""
    with running(slow_ms=400.0) as cloud:
        story = Story()
        run, _ = play(story, f"http://127.0.0.1:{cloud.port}", horizon=8, deadline_ms=60.0, patience_ms=20_000.0)
        assert run.because("deadline").all()
        assert run.late == 8
        assert not run.changes, "late is not lost"
        patient, _ = play(Story(), f"http://127.0.0.1:{cloud.port}", horizon=4, patience_ms=20_000.0)
        assert patient.because("cloud").all()
        sent, answers = play(
            Story(),
            f"http://127.0.0.1:{cloud.port}",
            policy=SendInput(),
            horizon=4,
            deadline_ms=60.0,
            patience_ms=20_000.0,
        )
        assert sent.because("deadline").all()
        assert all(a.exit == 1 for a in answers), "nothing was evaluated before, so the first exit is"


def right(asked):
    said = toy.ToyCloud().tail(asked.split, asked.payload)
    return {
        "number": asked.number,
        "split": asked.split,
        "network": asked.network,
        "classes": toy.CLASSES,
        "confidence": said[0],
        "prediction": said[1],
    }


def http_answer(body, status="200 OK", length=None):
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body


def reply(asked, **changed):
    return http_answer(Reply(**(right(asked) | changed)).pack())


def drip(asked):
    """A byte now and then, for longer than anybody's patience: none of them buys the next one time."""
    for _ in range(200):
        threading.Event().wait(0.01)
        yield b"H"


def trickle(asked):
    return [b"HTTP/1.1 200 OK\r\n"] + [f"X-{i}: y\r\n".encode() for i in range(10_000)]


GARBAGE = {
    "junk": lambda asked: os.urandom(300),
    "nothing": lambda asked: b"",
    "status": lambda asked: http_answer(b"", "500 Internal Server Error"),
    "teapot": lambda asked: http_answer(Reply(**right(asked)).pack(), "418 I'm a teapot"),
    "truncated body": lambda asked: http_answer(Reply(**right(asked)).pack()[:-3], length=100),
    "empty body": lambda asked: http_answer(b""),
    "endless body": lambda asked: http_answer(b"x", length=10**12),
    "odd length": lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc",
    "chunked": lambda asked: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "endless head": lambda asked: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300,
    "long line": lambda asked: b"HTTP/1.1 200 " + b"x" * 100_000,
    "trickle": trickle,
    "drip": drip,
    "CRC": lambda asked: reply(asked)[:-1] + b"\x7f",
    "classes": lambda asked: reply(asked, classes=5),
    "other request": lambda asked: reply(asked, number=asked.number + 1),
    "other network": lambda asked: reply(asked, network=bytes(8)),
    "too sure": lambda asked: reply(asked, confidence=np.array([2.0])),
    "no number": lambda asked: reply(asked, confidence=np.array([math.nan])),
}


class Garbage:
    """A socket server that takes a question and answers with whatever its function makes of it."""

    def __init__(self, answer):
        self.answer, self.good, self.health = answer, False, b"200 OK"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def serve(self):
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.one, args=(line,)))
            self.threads[-1].start()

    def one(self, line):
        with line, line.makefile("rb") as read:
            try:
                while head := read.readline():
                    length = 0
                    while (field := read.readline()).strip():
                        if field.lower().startswith(b"content-length:"):
                            length = int(field.split(b":")[1])
                    if head.startswith(b"GET"):
                        line.sendall(http_answer(b"ok"))
                        return
                    asked = Request.read(read.read(length))
                    made = reply(asked) if self.good else self.answer(asked)
                    for part in [made] if isinstance(made, bytes) else made:
                        line.sendall(part)
                    if not self.good:
                        return
            except OSError:
                return  # the edge hung up

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_never_an_answer(kind):
    """Its health is fine, only what it answers is not; when it comes to its senses it is asked again."""
    server = Garbage(GARBAGE[kind])

    def heal():
        server.good = True

    story = Story((("failed",), 4, heal), CLOUD_ONCE_MORE)
    try:
        run, _ = play(story, f"http://127.0.0.1:{server.port}")
    finally:
        server.close()
    assert story.stop.is_set()
    assert run.because("failed").sum() >= 4
    assert "open" in states(run)
    assert states(run)[-1] == "closed"


def test_nobody_was_ever_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        run, _ = play(Story(), f"http://127.0.0.1:{taken.getsockname()[1]}", horizon=40, policy=UCB1())
    assert not run.because("cloud").any()
    assert run.because("local").any()


def test_all_lanes_busy_is_no_reason_to_wait():
    with running(slow_ms=300.0) as cloud:
        run, _ = play(Story(), f"http://127.0.0.1:{cloud.port}", horizon=20, lanes=2, patience_ms=20_000.0)
    assert run.because("cloud").any()
    assert run.because("full").sum() > 5
    assert not run.because("open").any()
    assert not run.changes


def test_the_frame_is_small():
    assert REQUEST_BYTES == 32
