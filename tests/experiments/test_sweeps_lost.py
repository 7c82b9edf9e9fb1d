"""A process of a sweep that is killed costs the one run that it played."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offramp.experiments.sweeps import dataset

pytest.importorskip("joblib")

LONG = 1_000_000  # rounds that last longer than it takes to find the process that plays them
COMMAND = [
    sys.executable, "-m", "offramp.experiments.cli", "compare", "-m", "hydra/launcher=joblib",
    "hydra.launcher.n_jobs=2", "threads=1", "seeds=2", "policy=ucb1", "stream=stationary", "sweep=out",
]  # fmt: skip


def player(log):
    """The process that has this log open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(fd.readlink() == log for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # another's, or it has just ended
            continue
    return None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the process is found through /proc")
@pytest.mark.long
def test_a_process_that_is_killed_costs_one_run(tmp_path):
    with subprocess.Popen(
        [*COMMAND, f"horizon={LONG},300,301,302,303"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as running:  # fmt: skip
        log = tmp_path.resolve() / "out" / "jobs" / "0" / "compare.log"
        until = time.monotonic() + 60.0
        while (found := player(log)) is None and running.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if found is not None:
            os.kill(found, signal.SIGKILL)
        said = running.communicate()[0]
    assert found is not None, said
    assert running.returncode == 1, said
    assert "4 runs finished, 0 were there, 1 failed" in said
    assert "job 0: the process that played it died" in said
    frame = dataset.read(tmp_path / "out")
    assert sorted(frame[frame.status == dataset.FINISHED].horizon) == [h for h in (300, 301, 302, 303) for _ in "ab"]
    (lost,) = frame[frame.status == dataset.FAILED].to_dict("records")
    assert lost["horizon"] == LONG
    assert "SIGKILL" in lost["why"]
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert (status["running"], status["failed"], status["finished"]) == (False, 1, 4)
