"""Ray, for real: learner and replicas in a cluster of one machine, in a network that nothing else can reach."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray")
# A network of its own, since Ray listens on every interface; processes of its own, so that all end with the first.
ALONE = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]
ALONE += ["sh", "-c", 'ip link set lo up && exec "$0" "$@"']
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
CASES = Path(__file__).with_name("ray_cases.py")
PYTEST = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
# The second warning is Ray Serve's own, when it is imported.
STRICT = ["-W", "error", "-W", "ignore:Using extra keyword arguments on `Field`"]


@pytest.mark.long
@pytest.mark.parametrize("which", ["not ray_serve", "ray_serve"])
def test_in_a_network_of_its_own(which, tmp_path):
    """The cases of `ray_cases.py`, as pytest reports them from inside."""
    tried = subprocess.run([*ALONE, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network of its own is permitted here: {tried.stderr.strip()}")
    command = [*ALONE, *PYTEST, *STRICT, f"--basetemp={tmp_path}/inside", "-k", which, str(CASES)]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as short:  # the names of Ray's sockets must be short
        env = {**os.environ, **QUIET, "RAY_TMPDIR": short}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
