"""The examples of docs/examples as their readers run them: real servers, real requests, stopped and started again.

Ray Serve's is run by `ray_cases.py`, in a network of its own.  Triton's is run by a Triton server where there is one
(`pip install --no-deps nvidia-pytriton` brings a server for this processor), and in any case against small stand-ins
for its tensors and responses.
"""

import contextlib
import importlib.util
import math
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import types
from pathlib import Path

import httpx
import numpy as np
import pytest

from offramp.bandits import MacsAndBytes
from offramp.bandits.durable import DurableEngine

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
FILES = sorted(EXAMPLES.rglob("*.py"))
SECONDS = 120.0  # a server that is not ready by then is ended, and its test fails


@contextlib.contextmanager
def serving(command, ready, cwd, *, end=signal.SIGINT, env=None):
    """A server from the line of its output that says it is ready, yielded as a match, until none of it is left."""
    server = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(SECONDS, os.killpg, (server.pid, signal.SIGKILL))
    late.start()
    said = []
    try:
        for line in server.stdout:
            said.append(line)
            if match := re.search(ready, line):
                break
        else:
            pytest.fail("".join(said))
        reader = threading.Thread(target=said.extend, args=(server.stdout,))
        reader.start()
        yield match
        server.send_signal(end)
        server.wait()
        reader.join()
        for pid in left(server.pid):
            assert ended(pid), "".join(said)
    finally:
        late.cancel()
        if server.poll() is None or left(server.pid):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        server.stdout.close()


def left(group):
    """Processes of a group that run still."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def ended(pid):
    """Has it ended, or does it within ten seconds?  Helpers of multiprocessing outlive their parent a little."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], 10.0)[0])
    finally:
        os.close(watched)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def assert_learnt(store, requests):
    """The store holds each request once, and what follows from them."""
    with DurableEngine(store) as engine:
        assert engine.cursor == requests == len(list(engine.log()))
        engine.verify()
        assert (engine.state() != 0.0).any()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(EXAMPLES)))
def test_an_example_fits_on_a_page(path):
    assert len(path.read_text().splitlines()) <= (39 if path.name == "own_network.py" else 30)


def test_plain_loop(tmp_path):
    command = [sys.executable, "-W", "error", str(EXAMPLES / "plain_loop.py")]
    for runs in (1, 2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"learnt from {500 * runs} images" in done.stdout
    assert_learnt(tmp_path / "plain_loop.db", 1000)


def test_fastapi(tmp_path, embedded):
    """A device asks, computes, and reports late, in another order, and a part of it twice."""
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "fastapi_app:app", "--app-dir", EXAMPLES]
    command += ["--host", "127.0.0.1", "--port", "0"]
    quote = MacsAndBytes(kilobyte=0.01).quote(embedded.profile)
    price = {"edge_cost": quote.edge_cost.tolist(), "offload_cost": [1.0, *quote.offload_cost[1:].tolist()]}
    exits, rng, learnt = embedded.confidence[0, 0], random.Random(0), 0
    waiting = []
    for turn in range(2):
        with (
            serving(command, r"running on (http://127.0.0.1:\d+)", tmp_path, end=signal.SIGTERM) as ready,
            httpx.Client(base_url=ready[1]) as device,
        ):
            for image in range(100):
                asked = device.post("/decide", json=price).raise_for_status().json()
                cut, here = asked["cut"], bool(exits[image, asked["cut"] - 1] >= asked["threshold"])
                shown = [float(c) if j < cut else None for j, c in enumerate(exits[image])]
                shown[6] = shown[6] if here else float(exits[image, 6])
                waiting.append((asked["token"], shown, cut if here else 7, not here))
            rng.shuffle(waiting)
            keep = 20 if turn == 0 else 0  # some report only after the restart
            while len(waiting) > keep:
                token, shown, at, offloaded = waiting.pop()
                query = {"token": token, "answered_at": at, "offloaded": offloaded}
                for outcome in ("counted", "duplicate")[: 1 + (len(waiting) % 5 == 0)]:
                    assert device.post("/learn", params=query, json=shown).raise_for_status().json() == outcome
                learnt += 1
            forged = device.post("/learn", params={**query, "token": query["token"][:-4] + "0000"}, json=shown)
            assert (forged.status_code, "signature" in forged.json()["detail"]) == (422, True)
            token = device.post("/decide", json=price).json()["token"]
            impossible = device.post("/learn", params={**query, "token": token, "answered_at": 9}, json=shown)
            assert (impossible.status_code, "answered_at" in impossible.json()["detail"]) == (422, True)
            negative = device.post("/decide", json={**price, "edge_cost": [-1.0] * 8})
            assert (negative.status_code, "edge_cost" in negative.json()["detail"]) == (422, True)
    assert learnt == 200
    assert_learnt(tmp_path / "fastapi_app.db", 200)


@pytest.mark.long
def test_litserve(tmp_path):
    pytest.importorskip("litserve")
    answered = 0
    for requests in (150, 50):
        command = [sys.executable, EXAMPLES / "litserve_app.py", port := free_port()]
        with (
            serving(command, "Application startup complete", tmp_path),
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            for image in range(requests):
                answer = client.post("/predict", json={"image": image}).raise_for_status().json()
                assert 1 <= answer["exit"] <= 7
                assert 0.0 < answer["confidence"] <= 1.0
        answered += requests
    assert_learnt(tmp_path / "litserve_app.db", answered)


@pytest.mark.long
def test_triton(tmp_path):
    """A Triton server, started and stopped twice, that is asked in the Open Inference Protocol."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None:
        pytest.skip("there is no Triton server here: pip install --no-deps nvidia-pytriton")
    triton = Path(spec.origin).parent / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend = tmp_path / "backends" / "python"
    shutil.copytree(triton / "backends" / "python", backend)
    stub = shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    server = shutil.copy(triton / "bin" / "tritonserver", tmp_path)
    for program in (stub, server):
        Path(program).chmod(0o755)
    shutil.copytree(EXAMPLES / "triton_model", tmp_path / "models" / "triton_model")
    libraries = [str(Path(spec.origin).parents[1] / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    env = {"LD_LIBRARY_PATH": ":".join(libraries), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answered = 0
    for requests in (200, 50):
        command = [server, "--model-repository", tmp_path / "models", "--backend-directory", tmp_path / "backends"]
        command += ["--http-address", "127.0.0.1", "--http-port", port := free_port()]
        command += ["--allow-grpc", "false", "--allow-metrics", "false", "--exit-timeout-secs", "5"]
        with (
            serving(command, "Started HTTPService", tmp_path, env=env),  # it listens an instant after it says so
            httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=8)) as client,
        ):
            for image in range(requests):
                given = {"name": "IMAGE", "shape": [1], "datatype": "INT64", "data": [image]}
                answer = client.post("/v2/models/triton_model/infer", json={"inputs": [given]}).raise_for_status()
                (exit_,) = answer.json()["outputs"]
                assert (exit_["name"], exit_["shape"], exit_["datatype"]) == ("EXIT", [1], "INT64")
                assert 1 <= exit_["data"][0] <= 7
        answered += requests
    assert_learnt(tmp_path / "triton_model.db", answered)


class Tensor:
    """Stands for Triton's tensor: a name, and memory that is handed on by DLPack."""

    def __init__(self, name, array):
        self.name, self.array = name, array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    @staticmethod
    def from_dlpack(name, array):
        return Tensor(name, np.from_dlpack(array))


def test_the_model_for_triton_without_a_server(tmp_path, monkeypatch):
    """The model against stand-ins for tensors and responses: no server, no transport, no process of its own."""
    stand_in = types.ModuleType("triton_python_backend_utils")
    stand_in.Tensor = Tensor
    stand_in.InferenceResponse = lambda output_tensors: output_tensors
    stand_in.get_input_tensor_by_name = lambda request, name: next(t for t in request if t.name == name)
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("model", EXAMPLES / "triton_model" / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for start in (0, 40):
        model = module.TritonPythonModel()
        model.initialize({"model_name": "triton_model"})
        responses = model.execute([[Tensor("IMAGE", np.array([image]))] for image in range(start, start + 40)])
        assert all(t.name == "EXIT" and t.array.dtype == np.int64 and 1 <= t.array[0] <= 7 for (t,) in responses)
        assert len(responses) == 40
        assert not math.isnan(model.engine.state().sum())
        model.engine.close()
    assert_learnt(tmp_path / "triton_model.db", 80)
