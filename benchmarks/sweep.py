"""Row about a sweep: 50 jobs over processes, from a process that starts to a data set, compilation included."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from row import Row, failed, of

STREAMS = ("abrupt", "recurring", "stationary", "random_walk", "gradual")
POLICIES = (
    "final_exit", "offload_first", "random_arm", "ucb1", "splitee", "splitee_s", "isplitee", "isplitee_oracle",
    "adaee", "chain_ucb",
)  # fmt: skip


def sweep(quick: bool) -> Iterator[Row]:
    """Fifty jobs of twenty seeds and 20,000 rounds on all cores, with no compiled code on disk; then its report."""
    horizon = 2_000 if quick else 20_000
    jobs = len(STREAMS) * len(POLICIES)
    what, goal = f"sweep of {jobs} jobs x 20 seeds x {horizon:,} rounds, compilation included", {"target": 120.0}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "sweep"
        # policies vary fastest, so that processes do not compile the same one at the same time
        asked = ["-m", "hydra/launcher=joblib", f"stream={','.join(STREAMS)}", f"policy={','.join(POLICIES)}"]
        command = [sys.executable, "-m", "offramp.experiments.compare", *asked, "threads=1", f"horizon={horizon}"]
        cold = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder) / "compiled"), "OMP_NUM_THREADS": "1"}
        for name, again in ((what, "no compiled code"), ("· the same again: nothing is left to do", "resumed")):
            begun = time.perf_counter()
            done = subprocess.run([*command, f"sweep={place}"], capture_output=True, text=True, check=False, env=cold)
            taken = time.perf_counter() - begun
            if done.returncode != 0:
                yield failed(name, (done.stderr or done.stdout).strip().splitlines()[-1], **goal)
                return
            more = goal if name == what else {}
            yield of(name, [taken], "s", **more, note=f"{again}; {os.cpu_count()} cores, joblib")
        begun = time.perf_counter()
        report = [sys.executable, "-m", "offramp.experiments.report", str(place)]
        subprocess.run(report, capture_output=True, text=True, check=True)
        taken = time.perf_counter() - begun
        size = (place / "report.html").stat().st_size / 1e6
        yield of("· its report", [taken], "s", note="process included")
        yield of("· size of its report", [size], "MB", target=5.0)
