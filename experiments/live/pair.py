"""Two real processes on loopback: a cloud that can be killed and started again, and an edge that plays against it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from offramp.bandits import Policy
from offramp.bandits.engine import Engine
from offramp.bandits.rows import FloatArray
from offramp.environments.links import LinkArrays
from offramp.environments.live import WHY, Edge, LiveRun
from offramp.environments.timed import TimedWorld
from offramp.environments.timed.tables import Facts, Rounds
from offramp.experiments.live.sums import KEPT
from offramp.models.distort import Images
from offramp.models.halves import EdgeNetwork

READY_S = 120.0  # how long a cloud may take to load its network
PATIENCE_MS = 2_000.0
IN_FLIGHT = 4_096


class Cloud:
    """`offramp cloud` as a process of its own.

    Parameters
    ----------
    folder
        Where it announces itself and writes what it has to say.
    overrides
        Of its configuration, as on the command line.

    """

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._said: IO[bytes] | None = None

    def __enter__(self) -> "Cloud":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> str:
        """Start it, on the port that it had before, and wait until it is ready; returns its address."""
        port = self.url.rpartition(":")[2] or "0"
        announced = self.folder / "cloud.json"
        announced.unlink(missing_ok=True)
        self._said = (self.folder / "cloud.log").open("ab")
        command = [sys.executable, "-m", "offramp.experiments.cloud", f"port={port}", f"announce={announced.resolve()}"]
        self.process = subprocess.Popen(
            [*command, f"folder={self.folder.resolve()}", *self.overrides],
            stdout=self._said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        until = time.monotonic() + READY_S
        while not announced.exists():
            ended = self.process.poll()
            if ended is not None or time.monotonic() > until:
                said = (self.folder / "cloud.log").read_text(encoding="utf-8", errors="replace")[-300:].strip()
                self.close()
                raise OSError(f"the cloud ended with {ended} before it was ready: {said}")
            time.sleep(0.02)
        self.url = json.loads(announced.read_text(encoding="utf-8"))["url"]
        return self.url

    def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL)."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        if self._said is not None:
            self._said.close()
            self._said = None

    def close(self) -> None:
        """Ask it to end, and end it where it does not."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        if self._said is not None:
            self._said.close()
            self._said = None


@dataclass
class Stage:
    """What all live runs of a study share: the edge's half of the network, the world that prices it, its images."""

    half: EdgeNetwork
    world: TimedWorld
    facts: Facts
    link: LinkArrays
    images: list[Images]
    deadline_ms: float
    slower: float
    deliveries: dict[int, int] = field(default_factory=dict)

    def play(
        self,
        policy: Policy,
        rounds: Rounds,
        url: str,
        *,
        seed: int,
        step: Callable[[], None],
        began: Callable[[], None],
    ) -> LiveRun:
        """One live run; `began` is called when its first image is asked for, `step` for each answer."""
        edge = Edge(
            half=self.half,
            facts=self.facts,
            variants=self.world.variants,
            link=self.link,
            estimate=self.world.estimate.initial(),
            cloud=url,
            deadline_ms=self.deadline_ms,
            patience_ms=PATIENCE_MS,
            slower=self.slower,
        )
        engine = Engine(policy, arms=self.world.world.arms, seed=seed, open_decisions=IN_FLIGHT)
        lock, counts = threading.Lock(), dict.fromkeys(range(len(rounds.sample)), 0)

        def deliver(answer: Any) -> None:
            with lock:
                counts[int(answer.round)] += 1
            step()

        def image(i: int) -> Images:
            if i == 0:
                began()
            return self.images[i]

        found = edge.play(engine, rounds, image, deliver=deliver)
        self.deliveries = counts
        return found


def record(run: LiveRun, deliveries: dict[int, int]) -> dict[str, Any]:
    """A live run as JSON holds it."""
    return {
        "run": columns(run.journal),
        "why": [WHY[int(w)] for w in run.why],
        "start_ms": np.round(run.start_ms, 2).tolist(),
        "served_ms": np.round(run.served_ms, 2).tolist(),
        "deliveries": [deliveries[i] for i in range(len(run.why))],
        "changes": [[round(float(ms), 1), str(state)] for ms, state in run.changes],
        "late": int(run.late) if isinstance(run.late, int) else len(run.late),
        "learnt": int(run.learnt),
        "refused": int(run.refused),
    }


def columns(journal: Any) -> dict[str, list[float]]:
    """The columns of a journal that are kept, rounded."""
    return {name: rounded(journal[name], digits) for name, digits in KEPT.items()}


def rounded(values: FloatArray, digits: int) -> list[Any]:
    """Numbers as JSON holds them; what is not known is null."""
    made = [None if not np.isfinite(v) else round(float(v), digits) for v in values]
    return [int(v) if v is not None and digits == 0 else v for v in made]


def killed(
    stage: Stage,
    cloud: Cloud,
    policy: Policy,
    rounds: Rounds,
    *,
    seed: int,
    at_s: float,
    for_s: float,
    step: Callable[[], None],
) -> dict[str, Any]:
    """A live run in which the cloud is killed, and started again so many seconds later.

    Times of the record are on the run's clock: when it was killed, started, and ready again.
    """
    zero, events = threading.Event(), {}

    def accident() -> None:
        zero.wait()
        begin = time.monotonic()
        time.sleep(at_s)
        cloud.kill()
        events["killed_ms"] = 1e3 * (time.monotonic() - begin)
        time.sleep(for_s)
        events["started_ms"] = 1e3 * (time.monotonic() - begin)
        cloud.start()
        events["back_ms"] = 1e3 * (time.monotonic() - begin)

    who = threading.Thread(target=accident, name="accident")
    who.start()
    try:
        run = stage.play(policy, rounds, cloud.url, seed=seed, step=step, began=zero.set)
    finally:
        zero.set()
        who.join()
    return {**record(run, stage.deliveries), **{k: round(v, 1) for k, v in events.items()}}
