"""Rows about what others meet first: a step of the Gymnasium environment, and the opening of a large cache."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import setting
from row import Row, in_turns, of

from offramp.environments import ConfidenceCache
from offramp.environments.gymnasium_env import NAME

STEPS, STREAMS = 5_000, 16
CONDITIONS, SAMPLES, EXITS = 30, 10_000, 12
REPEATS = 25
COLD = """
import sys, time
from offramp.environments import ConfidenceCache
start = time.thread_time()
ConfidenceCache.load(sys.argv[1])
print(time.thread_time() - start)
"""


def gym(quick: bool) -> Iterator[Row]:
    """A step of the Gymnasium environment as `gymnasium.make` returns it, and of the vector environment."""
    steps = STEPS // 10 if quick else STEPS
    given = {"world": setting.world(), "stream": setting.stream(), "horizon": steps}
    one, many = gymnasium.make(NAME, **given), gymnasium.make_vec(NAME, num_envs=STREAMS, **given)
    arm = len(setting.world().arms) // 2
    arms = np.full(STREAMS, arm)

    def single() -> None:
        one.reset(seed=0)
        for _ in range(steps):
            one.step(arm)

    def vector() -> None:
        many.reset(seed=0)
        for _ in range(steps):
            many.step(arms)

    taken = in_turns([single, vector], REPEATS, time.thread_time) / steps * 1e6
    yield of(f"a step of {NAME}, its share of the reset included", taken[:, 0], "µs", target=10.0)
    yield of(f"· a step of its vector environment, each of {STREAMS} streams", taken[:, 1] / STREAMS, "µs")


def cache(quick: bool) -> Iterator[Row]:
    """Opening a cache with its hash verified, the file being in the system's memory."""
    rng = np.random.default_rng(0)
    shape = (CONDITIONS, 1, SAMPLES // 10 if quick else SAMPLES, EXITS)
    made = ConfidenceCache.from_arrays(
        confidence=rng.random(shape),
        prediction=rng.integers(0, 10, shape),
        label=rng.integers(0, 10, shape[2]),
        conditions=[f"condition {i}" for i in range(CONDITIONS)],
        classes=10,
    )
    size = " x ".join(map(str, (*shape[2:3], CONDITIONS, EXITS)))
    with tempfile.TemporaryDirectory() as folder:
        paths = {small: Path(folder) / str(small) for small in (False, True)}
        for small, path in paths.items():
            made.save(path, small=small)
        taken = in_turns([lambda p=p: ConfidenceCache.load(p) for p in paths.values()], REPEATS, time.thread_time) * 1e3
        command = [sys.executable, "-c", COLD, str(paths[False])]
        cold = [
            float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1e3
            for _ in range(2 if quick else 5)
        ]
    yield of(f"opening a cache of {size} (samples x conditions x exits)", taken[:, 0], "ms", target=25.0)
    yield of("· the small form", taken[:, 1], "ms", target=25.0)
    yield of("· the first one that a process opens", cold, "ms")
