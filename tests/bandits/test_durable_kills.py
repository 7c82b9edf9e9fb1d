"""Killed processes: feedback delayed, shuffled and sent twice is in the log once each, whoever is killed and when."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, ChainUCB, Observation, Quote
from offramp.bandits.durable import Decider, DurableEngine
from offramp.bandits.durable.fold import Fold
from offramp.bandits.kernel import whole
from offramp.bandits.state import ARMS, own
from offramp.bandits.ucb1 import CONFIDENCE, PARAMETERS, PULLS, SHARE

KEY = bytes(range(32))
TABLE = Arms.grid(exits=3, thresholds=(0.5, 0.8, float("inf")))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
POLICIES = {"ChainUCB": ChainUCB(), "UCB1": UCB1()}
BATCH = 50


def say(something: Any) -> None:
    """Tell the driver."""
    sys.stdout.write(json.dumps(something) + "\n")
    sys.stdout.flush()


def learner(folder: Path, policy: str) -> None:
    """The one learner: checks what it finds, then takes what all workers send, one transaction for all of it."""
    with DurableEngine(folder / "store", POLICIES[policy], arms=TABLE, seed=5, key=KEY) as engine:
        engine.verify()
        engine.publish()
        (folder / "socket").unlink(missing_ok=True)
        with Listener(str(folder / "socket"), family="AF_UNIX", backlog=16) as listener:
            door = listener._listener._socket  # type: ignore[attr-defined]
            say({"cursor": engine.cursor})
            open_to: list[Connection] = []
            while True:
                ready = wait([door, sys.stdin, *open_to])
                if sys.stdin in ready:  # the driver closed it: stop in good order
                    return
                if door in ready:
                    open_to.append(listener.accept())
                asked = []
                for one in open_to[:]:
                    if one in ready:
                        try:
                            asked.append((one, json.loads(one.recv_bytes())))
                        except (EOFError, OSError):  # a worker that was killed
                            open_to.remove(one)
                outcomes = iter(engine.update_many((t, seen(o)) for _, items in asked for t, o in items))
                for one, items in asked:
                    answer = json.dumps([str(next(outcomes)) for _ in items]).encode()
                    try:
                        one.send_bytes(answer)
                    except OSError:
                        open_to.remove(one)
                if asked:
                    engine.publish()


def worker(folder: Path) -> None:
    """Decides on the board, and passes feedback on; says null where the learner gave no answer."""
    decider = Decider(folder / "store.board", key=KEY)
    link = None
    say("up")
    for line in sys.stdin:
        kind, given = json.loads(line)
        answer: Any = None
        if kind == "decide":
            tickets = [decider.decide(QUOTE) for _ in range(given)]
            answer = [(t.token, t.epoch, t.id, t.arm, t.cut, t.threshold) for t in tickets]
        else:
            try:
                link = link or Client(str(folder / "socket"), family="AF_UNIX")
                link.send_bytes(json.dumps(given).encode())
                answer = json.loads(link.recv_bytes())
            except (EOFError, OSError):
                link = None
        say([kind, answer])


def seen(told: tuple[list[float], int, bool]) -> Observation:
    """An observation from JSON."""
    confidence, answered_at, offloaded = told
    return Observation(confidence=confidence, answered_at=answered_at, offloaded=offloaded)


class Process:
    """A process of the test, which speaks in lines; started again where it was killed."""

    def __init__(self, folder: Path, *role: str) -> None:
        self._command = [sys.executable, "-W", "error", __file__, str(folder), *role]
        self.role, self.up, self.asked = role[0], False, None
        self.restarts = -1
        self.start()

    def start(self) -> None:
        quiet = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet)
        self.up, self.asked = False, None
        self.restarts += 1
        self._heard = b""

    def fileno(self) -> int:
        return self.process.stdout.fileno()

    def ask(self, kind: str, given: Any) -> None:
        self.asked = (kind, given)
        with contextlib.suppress(BrokenPipeError):  # dead; its silence is noticed where it is read
            self.process.stdin.write(json.dumps([kind, given]).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self) -> Any:
        """A line, parsed; None before it is whole, EOFError where it has died."""
        more = os.read(self.fileno(), 1 << 20)
        if not more:
            raise EOFError
        self._heard += more
        if b"\n" not in more:
            return None
        line, self._heard = self._heard.split(b"\n", 1)
        return json.loads(line)

    def end(self) -> int:
        """Stop in good order; the exit code."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        return self.process.wait()


class Sender:
    """Whoever asks for decisions and owes feedback: keeps each piece until it is acknowledged, and sends it again."""

    def __init__(self, decisions: int, world: "World", rng: random.Random) -> None:
        self.left, self._world, self._rng = decisions, world, rng
        self.owed: list[str] = []  # tokens to send, in no order
        self.made: dict[str, tuple[int, int, int]] = {}  # token -> (epoch, number, arm)
        self.told: dict[str, Any] = {}
        self.acknowledged: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    def next(self, learner_up: bool) -> tuple[str, Any] | None:
        """What to ask of a free worker."""
        late = len(self.owed) > 40 * BATCH or not self.left
        if learner_up and self.owed and (late or self._rng.random() < 0.5):
            return "update", [self._drawn() for _ in range(min(BATCH, len(self.owed)))]
        if self.left:
            asked = min(BATCH, self.left)
            self.left -= asked
            return "decide", asked
        return None

    def _drawn(self) -> tuple[str, Any]:
        at = self._rng.randrange(len(self.owed))
        self.owed[at], self.owed[-1] = self.owed[-1], self.owed[at]
        token = self.owed.pop()
        return token, self.told[token]

    def unanswered(self, asked: tuple[str, Any] | None) -> None:
        """Whoever was asked died, or had nobody to ask: send it again."""
        if asked and asked[0] == "update":
            self.owed += [token for token, _ in asked[1]]
        elif asked:
            self.left += asked[1]

    def answered(self, asked: tuple[str, Any], answer: Any) -> None:
        if answer is None:
            self.unanswered(asked)
        elif asked[0] == "decide":
            for token, epoch, number, arm, cut, threshold in answer:
                self.made[token] = (epoch, number, arm)
                self.told[token] = self._world(cut, threshold, arm)
                self.owed += [token] * (2 if self._rng.random() < 0.2 else 1)
        else:
            for (token, _), outcome in zip(asked[1], answer, strict=True):
                self.acknowledged[token] += 1
                self.outcomes[outcome] += 1

    @property
    def done(self) -> bool:
        return not self.left and not self.owed and len(self.acknowledged) == len(self.made)


class World:
    """What a decision leads to; with `fixed`, the same for the same arm whenever it is played."""

    def __init__(self, rng: random.Random, *, fixed: bool) -> None:
        self._rng, self._fixed = rng, fixed

    def __call__(self, cut: int, threshold: float, arm: int) -> tuple[list[float], int, bool]:
        confidence = [float("nan")] * 3
        sure = (0.25 + arm / 32) if self._fixed else round(self._rng.random(), 3)
        if cut == 3 or sure < threshold:
            confidence[2] = (0.5 + arm / 64) if self._fixed else round(self._rng.random(), 3)
            if cut < 3:
                confidence[cut - 1] = sure
            return confidence, 3, cut < 3
        confidence[cut - 1] = sure
        return confidence, cut, False


def played(folder: Path, policy: str, decisions: int, victims: list[str], seed: int) -> Sender:
    """Run it all, and kill a victim whenever so many more pieces were acknowledged."""
    rng = random.Random(seed)
    client = Sender(decisions, World(rng, fixed=policy == "UCB1"), rng)
    kills = len(victims)
    moments = sorted(rng.randrange(decisions // 40, decisions * 19 // 20) for _ in victims)
    teacher = Process(folder, "learner", policy)
    assert teacher.process.stdout.readline()
    teacher.up = True
    workers = [Process(folder, "worker") for _ in range(2)]
    everyone, struck = [teacher, *workers], set()
    try:
        while not client.done or any(w.asked for w in workers):
            for one in workers:
                if one.up and not one.asked and (request := client.next(teacher.up)):
                    one.ask(*request)
            if moments and len(client.acknowledged) >= moments[0]:
                victim = teacher if victims[0] == "learner" else rng.choice(workers)
                if victim not in struck:  # nobody dies twice at once
                    moments.pop(0)
                    victims.pop(0)
                    struck.add(victim)
                    victim.process.send_signal(signal.SIGKILL)  # while what was just asked is on its way
            for one in select.select(everyone, [], [])[0]:
                try:
                    heard = one.hear()
                except EOFError:
                    assert one.end() == -signal.SIGKILL  # nobody dies of anything else
                    client.unanswered(one.asked)
                    struck.discard(one)
                    one.start()
                    continue
                if heard is None:
                    continue
                if not one.up:
                    one.up = True
                    if one is teacher:  # it has verified its store: what was acknowledged must be in it
                        assert heard["cursor"] >= len(client.acknowledged)
                else:
                    asked, one.asked = one.asked, None
                    client.answered(asked, heard[1])
        assert not victims
        assert sum(one.restarts for one in everyone) == kills
    finally:
        for one in everyone:
            one.process.stdin.close()
        for one in everyone:
            one.process.stdout.close()
            assert one.process.wait(60) == 0
    return client


def checked(folder: Path, client: Sender) -> DurableEngine:
    """Each piece once, nothing else, and the state that follows from it."""
    engine = DurableEngine(folder / "store", key=KEY)
    logged = [(e.epoch, e.number) for e in engine.log()]
    sent = {(epoch, number): arm for epoch, number, arm in client.made.values()}
    assert len(sent) == len(client.made) == engine.cursor == len(logged)
    assert set(logged) == set(sent)
    assert set(client.outcomes) == {"counted", "duplicate"}
    assert client.outcomes["counted"] <= len(sent)  # some were counted, and the answer was lost with its bearer
    engine.verify()
    return engine


def refolded(engine: DurableEngine, policy: Any, order: Any) -> Fold:
    """The log, folded anew from nothing in some order."""
    fold = Fold(policy, arms=TABLE, features=0, seed=5, streams=("default",))
    for entry in sorted(engine.log(), key=order):
        fold.apply(entry)
    return fold


def learnt(state: Any) -> Any:
    """What UCB1 has learnt from feedback: pulls, mean confidence and share of offloads of each arm, (3, K)."""
    arms, at = whole(state[ARMS]), own(state, PARAMETERS, PULLS)
    assert (CONFIDENCE, SHARE) == (PULLS + 1, PULLS + 2)
    return state[at : at + 3 * arms].reshape(3, arms)


@pytest.mark.parametrize(("decisions", "kills"), [(4_000, 5), pytest.param(20_000, 10, marks=pytest.mark.long)])
def test_whoever_is_killed_nothing_is_lost_and_nothing_counted_twice(tmp_path, decisions, kills):
    victims = ["learner"] * (kills * 2 // 5) + ["worker"] * (kills - kills * 2 // 5)
    random.Random(1).shuffle(victims)
    client = played(tmp_path, "ChainUCB", decisions, victims, seed=2)
    assert sum(client.acknowledged.values()) > 1.15 * decisions  # a fifth and more came twice
    with checked(tmp_path, client) as engine:
        again = refolded(engine, ChainUCB(), lambda e: e.seq)
        assert again.learner.state().tobytes() == engine.state().tobytes()
        assert again.learner.randomness("default") == engine._ledger.fold.learner.randomness("default")


@pytest.mark.long
def test_where_order_does_not_matter_every_order_of_the_log_gives_the_same_bits(tmp_path):
    client = played(tmp_path, "UCB1", 4_000, ["learner", "worker", "worker", "learner"], seed=3)
    with checked(tmp_path, client) as engine:
        pulls, mean, share = learnt(engine.state())
        tally = Counter(arm for _, _, arm in client.made.values())
        assert pulls.tolist() == [tally[arm] for arm in range(len(TABLE))]
        for order in (lambda e: (e.epoch, e.number), lambda e: -e.seq, lambda e: hash((e.number, e.epoch))):
            again = refolded(engine, UCB1(), order).learner.state()
            assert learnt(again).tobytes() == np.array([pulls, mean, share]).tobytes()


if __name__ == "__main__":
    place, role, *rest = sys.argv[1:]
    learner(Path(place), *rest) if role == "learner" else worker(Path(place))
