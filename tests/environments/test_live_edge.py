"""A real run over loopback beside the simulation of the same: the same decisions, answers, prices and columns."""

import importlib.util
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from offramp.bandits import UCB1, ConformalFloor, Engine, FinalExit, Fixed, SendInput, SplitEE
from offramp.environments import Constant, LinkTrace, Listed, Paced, Stationary, replay_timed
from offramp.environments.live import WHY, Edge, warm_up
from offramp.environments.timed.tables import Rounds

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("live_toy", HERE / "live_toy.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
CLEAR = Stationary(condition="clear")


@pytest.fixture(scope="module")
def cloud():
    process = subprocess.Popen([sys.executable, HERE / "live_toy.py", "0"], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.wait()
    process.stdout.close()


def prepared(world, cloud, horizon, **more):
    facts = world.facts(CLEAR.conditions)
    rounds = world.rounds(CLEAR, horizon=horizon, seed=1)
    link = world.link.arrays(duration_ms=600_000.0, seed=1)
    edge = Edge(
        half=toy.ToyEdge(),
        facts=facts,
        variants=world.variants,
        link=link,
        estimate=world.estimate.initial(),
        cloud=cloud,
        **({"patience_ms": 20_000.0, "lanes": 64} | more),
    )
    return edge, rounds, lambda i: toy.IMAGES[rounds.sample[i]]


def played(policy, world, cloud, horizon=40, engine=None, stop=None, deliver=None, **more):
    edge, rounds, image = prepared(world, cloud, horizon, **more)
    warm_up(toy.ToyEdge(), toy.IMAGES[0], world.variants, policy, world.world.arms)
    answers = []

    def deliver_all(answer):
        answers.append(answer)
        if deliver is not None:
            deliver(answer)

    engine = Engine(policy, arms=world.world.arms, seed=1) if engine is None else engine
    run = edge.play(engine, rounds, image, deliver=deliver_all, stop=stop)
    assert sorted(a.round for a in answers) == list(range(len(run.why))), "each request is answered, and once"
    assert [a.why for a in sorted(answers)] == [WHY[k] for k in run.why]
    return run, sorted(answers), engine


SAME = ("arm", "cut", "variant", "answered_at", "offloaded", "audited", "outage", "correct", "agreement", "dropped")


@pytest.mark.parametrize(
    "policy",
    [FinalExit(), SendInput(), Fixed(cut=1, threshold=0.6), Fixed(cut=2, threshold=0.9), Fixed(cut=2, threshold=1.0)],
    ids=str,
)
def test_a_rule_does_for_real_what_it_does_in_the_simulation(policy, cloud):
    thresholds = (0.6, 0.9, 1.0)
    world = toy.toy_world(arrivals=Paced(every_ms=8.0), thresholds=thresholds)
    run, answers, _ = played(policy, world, cloud)
    simulated, _ = replay_timed(policy, world, CLEAR, horizon=40, seed=1)
    for name in SAME:
        assert (run.journal[name] == simulated[name]).all(), name
    assert np.abs(run.journal["confidence"] - simulated["confidence"]).max() < 1e-6
    assert run.learnt == 40
    assert run.refused == run.undecided == run.late == 0
    sent = simulated["bytes"] > 0.0
    extra = run.journal["bytes"][sent] - simulated["bytes"][sent]
    assert ((extra > 0.0) & (extra < 200.0)).all(), "the head of a question, and its frame"
    assert (run.journal["bytes"][~sent] == 0.0).all()
    # Times are real, but none is shorter than the shaped link and its round trip.
    assert (run.journal["latency_ms"][sent] >= run.journal["sending_ms"][sent] + 4.0).all()
    assert run.journal["sending_ms"][sent] == pytest.approx(run.journal["bytes"][sent] / 2_500.0)
    assert (run.start_ms <= run.served_ms).all()
    assert [a.confidence for a in answers] == run.journal["confidence"].tolist()
    cost = run.journal["edge_cost"] + run.journal["offload_cost"]
    assert run.journal["reward"] == pytest.approx(run.journal["confidence"] - cost)


def test_a_learner_learns_from_what_came_back_and_from_nothing_else(cloud):
    """What an engine learns in a live run is what one learns that is told the same by hand."""

    class Told(Engine):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.calls = []

        def decide(self, quote, context=None, *, stream="default"):
            made = super().decide(quote, context, stream=stream)
            self.calls.append(("decide", quote, made.id))
            return made

        def update(self, decision, observation):
            self.calls.append(("update", observation, decision.id))
            return super().update(decision, observation)

    world = toy.toy_world(arrivals=Paced(every_ms=4.0))
    told = Told(UCB1(), arms=world.world.arms, seed=1)
    run, _, _ = played(UCB1(), world, cloud, horizon=80, engine=told)
    again, made = Engine(UCB1(), arms=world.world.arms, seed=1), {}
    for what, given, number in told.calls:
        if what == "decide":
            made[number] = again.decide(given)
            assert made[number].id == number
        else:
            assert again.update(made[number], given)
    assert (again.state() == told.state()).all()
    assert run.learnt == 80
    assert 0 < run.because("cloud").sum() < 80
    quotes = [given for what, given, _ in told.calls if what == "decide"]
    assert all(np.isfinite(q.offload_cost).all() for q in quotes)
    for what, seen, _ in told.calls:
        if what == "update":
            assert seen.offloaded or np.isnan(seen.confidence[seen.answered_at :]).all()


def test_an_audit_is_served_at_once_and_teaches_what_the_cloud_says(cloud):
    policy = ConformalFloor(policy=Fixed(cut=1, threshold=0.6), target=0.5, audit=1.0)
    world = toy.toy_world(arrivals=Paced(every_ms=8.0))
    run, answers, _ = played(policy, world, cloud)
    audited = run.journal["audited"] == 1.0
    assert audited.any()
    assert (run.why[audited] == WHY.index("local")).all()
    assert (run.journal["bytes"][audited] > 0.0).all()
    assert (run.journal["offloaded"][audited] == 0.0).all()
    assert all(a.exit == 1 for a in answers if audited[a.round])


def test_an_edge_that_shall_be_slower_takes_so_much_longer(cloud):
    world = toy.toy_world(arrivals=Paced(every_ms=30.0))
    run, _, _ = played(FinalExit(), world, cloud, horizon=10, slower=40.0)
    spent = run.served_ms - run.start_ms
    assert (spent >= run.journal["edge_ms"]).all()
    assert (run.journal["edge_ms"] > 0.0).all()
    fast, _, _ = played(FinalExit(), world, cloud, horizon=10)
    assert run.journal["edge_ms"].min() > fast.journal["edge_ms"].min()


def test_a_full_buffer_drops_and_says_so(cloud):
    world = toy.toy_world(arrivals=Listed(at_ms=(0.0,) * 9, period_ms=1_000.0), buffer=2)
    run, answers, _ = played(FinalExit(), world, cloud, horizon=9, buffer=2, slower=200.0)
    dropped = run.because("dropped")
    assert 0 < dropped.sum() < 9
    assert (run.journal["dropped"] == dropped).all()
    assert [a.prediction for a in answers if a.why == "dropped"] == [-1] * int(dropped.sum())


def test_a_link_that_is_down_is_found_down_and_answered_for(cloud):
    """Half of the time nothing can be sent; no offload is quoted then, and who offloads all the same is answered."""
    link = LinkTrace(segments=((60.0, 20.0, 2.0), (60.0, 0.0, 2.0)))
    world = toy.toy_world(link=link, arrivals=Paced(every_ms=6.0))
    run, answers, _ = played(Fixed(cut=1, threshold=math.inf), world, cloud, horizon=80)
    assert set(np.unique(run.why)) <= {WHY.index(w) for w in ("cloud", "down")}
    down = run.because("down")
    assert 0 < down.sum() < 80
    assert (run.journal["outage"] == down).all()
    assert (run.journal["bytes"][down] == 0.0).all()
    assert run.learnt == 80 - down.sum(), "who stood in teaches nothing"
    assert not run.changes, "a link that is down is no fault of the cloud"
    sent_input, answers, _ = played(SendInput(), world, cloud, horizon=40)
    for answer in answers:
        if answer.why == "down":  # nothing was evaluated: the device goes to exit 1
            image = toy.ToyPass(toy.IMAGES[world.rounds(CLEAR, horizon=40, seed=1).sample[answer.round]])
            image.segment()
            assert (answer.exit, (answer.confidence, answer.prediction)) == (1, image.speak())
    assert sent_input.because("down").any()


def test_an_engine_that_breaks_does_not_keep_the_edge_from_answering(cloud):
    class Broken(Engine):
        def decide(self, quote, context=None, *, stream="default"):
            if self.state()[1] >= 0 and self.count > 10:
                raise OSError(28, "No space left on device")
            self.count += 1
            return super().decide(quote, context, stream=stream)

        def update(self, decision, observation):
            raise RuntimeError("the store is gone")

    world = toy.toy_world(arrivals=Paced(every_ms=4.0))
    engine = Broken(SplitEE(threshold=0.6), arms=world.world.arms, seed=1)
    engine.count = 0
    run, answers, _ = played(SplitEE(threshold=0.6), world, cloud, horizon=30, engine=engine)
    assert run.undecided == 19
    assert run.refused == 11
    assert all(a.exit == 3 and a.arm == -1 for a in answers[11:])


def test_a_wall_clock_that_is_stepped_changes_nothing(cloud, monkeypatch):
    """Every look at it moves it by an hour, forth and back."""
    wall = [1.7e9]

    def stepped():
        wall[0] += 3_600.0 if len(wall) % 2 else -7_200.0
        wall.append(0.0)
        return wall[0]

    monkeypatch.setattr(time, "time", stepped)
    world = toy.toy_world(arrivals=Paced(every_ms=6.0))
    run, _, _ = played(Fixed(cut=1, threshold=math.inf), world, cloud, deadline_ms=60_000.0)
    assert run.because("cloud").all()
    assert (run.journal["latency_ms"] < 60_000.0).all()


def test_it_can_be_stopped_and_plays_once(cloud):
    stop = threading.Event()
    world = toy.toy_world(arrivals=Paced(every_ms=4.0))
    run, _, _ = played(SendInput(), world, cloud, horizon=500, stop=stop, deliver=lambda a: a.round < 5 or stop.set())
    assert 5 <= len(run.why) < 500
    assert run.summary()["requests"] == len(run.why)
    edge, rounds, image = prepared(world, cloud, 1)
    empty = Rounds(rounds.sample[:0], rounds.condition[:0], rounds.arrival[:0], rounds.lost[:0])
    assert len(edge.play(Engine(FinalExit(), arms=world.world.arms, seed=0), empty, image).why) == 0
    with pytest.raises(RuntimeError, match="one run"):
        edge.play(Engine(FinalExit(), arms=world.world.arms, seed=0), empty, image)


@pytest.mark.parametrize(
    "wrong",
    [{"deadline_ms": 0.0}, {"slower": 0.5}, {"lanes": 0}, {"patience_ms": math.inf}, {"buffer": -1}, {"cloud": "x"}],
)
def test_an_edge_says_what_is_allowed(wrong, cloud):
    with pytest.raises(ValueError, match="allowed"):
        prepared(toy.toy_world(link=Constant(mbit_s=5.0)), **({"cloud": cloud, "horizon": 1} | wrong))
