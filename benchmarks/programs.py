"""Rows about whole processes: memory of a long run, time to the first decision, and the main job."""

import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from row import Row, failed, of

STARTS = 5

LONG = """
import json, sys, time
sys.path.insert(0, {here!r})
import setting
from offramp.environments import rollout
rollout(setting.policy(), setting.world(), setting.stream(), horizon=1000, seed=0, arrays=setting.arrays())
start = time.perf_counter()
rollout(setting.policy(), setting.world(), setting.stream(), horizon={rounds}, seed=0, arrays=setting.arrays())
seconds = time.perf_counter() - start
try:  # getrusage also counts the parent's pages at the moment of the fork
    with open("/proc/self/status") as lines:
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(json.dumps([seconds, peak * 1024 / 1e6]))
"""

IMPORT = """
import json, time
start = time.perf_counter()
import offramp.bandits
print(json.dumps([time.perf_counter() - start]))
"""

FIRST = """
import json, time
from offramp.bandits import UCB1, Arms, Engine, Quote
engine = Engine(UCB1(), arms=Arms.grid(exits=7), seed=0)
engine.decide(Quote(edge_cost=[0.05 * i for i in range(8)], offload_cost=[0.5] * 7 + [0.0], mu=1.0))
print(json.dumps([time.time() - {start!r}]))
"""


def python(code: str) -> list[float]:
    """Run code in a fresh process and read the numbers that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"rc {done.returncode}")
    numbers: list[float] = json.loads(done.stdout)
    return numbers


def memory(quick: bool) -> Iterator[Row]:
    """Peak resident memory of a rollout of 10^8 rounds (10^6 with --quick), in a process of its own."""
    rounds = 10**6 if quick else 10**8
    seconds, peak = python(LONG.format(here=str(Path(__file__).parent), rounds=rounds))
    note = "quick: 10^6 rounds in place of 10^8" if quick else ""
    yield of(f"peak memory of a rollout of {rounds:.0e} rounds", [peak], "MB", target=400.0, note=note)
    yield of("· its wall clock", [seconds], "s", note=f"{rounds / seconds / 1e6:.1f} M rounds/s")


def start(quick: bool) -> Iterator[Row]:
    """Import, and process start to the first decision of an engine, with compiled code on disk."""
    imports = [python(IMPORT)[0] for _ in range(STARTS + 1)][1:]
    python(FIRST.format(start=0.0))  # fills the cache of compiled code where it is empty
    firsts = [python(FIRST.format(start=time.time()))[0] for _ in range(STARTS)]
    yield of("import offramp.bandits", imports, "s", target=0.5)
    yield of("process start to the first decision", firsts, "s", target=1.5)


def wheel(quick: bool) -> Iterator[Row]:
    """Size of the wheel, with the embedded networks and caches, and of the code alone that a small device needs."""
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(here)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the wheel was not built: {done.stdout.strip().splitlines()[-1]}")
        built = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(built) as inside:
            core = sum(f.compress_size for f in inside.infolist() if f.filename.startswith("offramp/bandits/"))
        yield of("size of the wheel", [built.stat().st_size / 1e6], "MB", note="networks and caches included")
        yield of("· of it offramp.bandits, the engine and the policies", [core / 1e6], "MB")


def compare(quick: bool) -> Iterator[Row]:
    """The main job, offramp compare: ten policies, twenty seeds, 20,000 rounds."""
    what, goal = "offramp compare, 10 policies x 20 seeds x 20,000 rounds", {"target": 60.0}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "offramp.experiments.compare", f"folder={folder}"]
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - begun
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        yield failed(what, lines[-1] if lines else f"exit code {done.returncode}", **goal)
    else:
        yield of(what, [taken], "s", **goal, note="wall clock of the process, report included")
