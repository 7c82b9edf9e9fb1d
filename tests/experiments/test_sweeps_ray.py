"""A sweep on a Ray cluster of two node processes, bound to loopback in a network of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray")

SCRIPT = """
ip link set lo up || exit 77
{ray} start --head --node-ip-address=127.0.0.1 --port=6399 {more} --temp-dir={temp} > {temp}/log 2>&1 || exit 78
{ray} start --address=127.0.0.1:6399 --node-ip-address=127.0.0.2 {more} >> {temp}/log 2>&1 || exit 79
{python} -m offramp.experiments.cli compare -m hydra/launcher=ray hydra.launcher.address=127.0.0.1:6399 \
    stream=abrupt,stationary policy=ucb1 policy.beta=1.0,2.0,-1.0 threads=1 seeds=2 horizon=300 sweep=out
"""


@pytest.mark.long
def test_two_nodes_share_a_sweep(tmp_path):
    from offramp.experiments.sweeps import dataset

    alone = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine permits no network of its own, and Ray listens on every interface")
    temp = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets must have short names
    try:
        more = "--num-cpus=1 --object-store-memory=80000000 --disable-usage-stats"
        text = SCRIPT.format(
            python=sys.executable, ray=f"{sys.executable} -m ray.scripts.scripts", temp=temp, more=more
        )
        done = subprocess.run(
            [*alone, "bash", "-c", text], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "RAY_DEDUP_LOGS": "0"},
        )  # fmt: skip
        log = (temp / "log").read_text() if (temp / "log").exists() else ""
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    assert done.returncode == 1, done.stdout + done.stderr + log
    assert "6 jobs on 2 nodes" in done.stdout
    assert "4 runs finished, 0 were there, 2 failed" in done.stdout
    frame = dataset.read(tmp_path / "out")
    assert (frame.status == dataset.FINISHED).sum() == 2 * 2 * 2
    assert frame[frame.status == dataset.FAILED].why.str.contains("beta is -1.0").all()
    assert json.loads((tmp_path / "out" / "status.json").read_text())["total"] == 6
    assert "ip=127.0.0.2" in done.stdout + done.stderr, "the second node has played"
