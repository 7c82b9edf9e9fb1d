"""`offramp cloud` and `offramp edge` as a user runs them: one process each, real weights, forty real photographs."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module

from offramp.bandits.durable import DurableEngine
from offramp.environments import ConfidenceCache
from offramp.environments.timed.journal import FIELDS
from offramp.experiments import cloud as cloud_program
from offramp.experiments import edge
from offramp.experiments.deadline import places

ROOT = Path(__file__).parents[2]
FORTY = '''
import numpy as np
from pathlib import Path
from PIL import Image
from offramp.environments import ConfidenceCache
from offramp.models.data import Split

def read(folder):
    """Forty of the test images, by their number, with the labels of the cache."""
    files = sorted(Path(folder).glob("*.webp"))
    index = np.array([int(path.stem) for path in files])
    cache = ConfidenceCache.embedded("mobilenet_v2_imagenette").part("test")
    label = {int(s): int(y) for s, y in zip(cache.sample, cache.label)}
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    return {"test": Split(images=images, labels=np.array([label[int(i)] for i in index]), index=index)}
'''
EXACT = ("raw", "png", "float32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    (folder / "forty.py").write_text(FORTY)
    return folder


def command(place, program, *overrides, key="secret"):
    environment = os.environ | {"PYTHONPATH": str(place), "OFFRAMP_CLOUD_KEY": key, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", f"offramp.experiments.{program}", *overrides]
    return subprocess.Popen(
        words, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def cloud(place):
    process = command(place, "cloud", "port=0", "announce=told.json")
    line = process.stdout.readline()
    assert line.startswith("offramp cloud: ready on http://127.0.0.1:"), line + process.stdout.read()
    told = json.loads((place / "told.json").read_text())
    assert told["pid"] == process.pid
    assert told["url"] == line.split()[-1]
    yield told["url"]
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert "Traceback" not in out
    assert "secret" not in out


def finished(process):
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


IMAGES = ROOT / "tests" / "data" / "imagenette_val_40"
DATA = ["data._target_=forty.read", f"+data.folder={IMAGES}"]
DATA += [f"~data.{name}" for name in ("root", "size", "held_out", "train", "test")]


def played(place, cloud, folder, *overrides, data=DATA):
    """The program, in this process."""
    words = [*data, f"cloud={cloud}", f"folder={place / folder}", "view=false", "link=wifi", *overrides]
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("edge", overrides=words)
    told = json.loads(edge.run(cfg).read_text())
    return told, pd.read_parquet(place / folder / "journal.parquet")


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("OFFRAMP_CLOUD_KEY", "secret")
    threads = torch.get_num_threads()
    yield place
    torch.set_num_threads(threads)


def test_a_run_with_every_part(here, cloud, capsys):
    store = here / "learnt.sqlite"
    told, table = played(
        here, cloud, "out", "horizon=30", "arrivals.every_ms=80", "verify=3", "slower=8", f"store={store}"
    )
    assert tuple(table.columns[: len(FIELDS)]) == FIELDS
    assert len(table) == told["summary"]["requests"] == 30
    assert (table["dropped"] == 0).all()
    assert set(table["why"]) <= {"local", "cloud"}
    assert (table["why"] == "cloud").any()
    assert (table["served_ms"] >= table["start_ms"]).all()
    assert told["summary"]["learnt"] == 30
    assert told["circuit"] == []
    assert told["faults"] == {}
    assert told["network"] == ConfidenceCache.embedded("mobilenet_v2_imagenette").hashes["model"]
    assert told["summary"]["accuracy"] == pytest.approx(table["correct"].mean())
    out = capsys.readouterr().out
    for text in ("split", "threshold", "offloaded", "latency", "accuracy", "stood in for the cloud 0"):
        assert text in out, text
    verified = told["verified"]
    assert {row["split"] for row in verified} == set(range(7))
    for row in verified:
        exact = row["codec"] in EXACT
        assert row["logits"] < 1e-4 if exact else row["logits"] > 0.0, row
        assert row["agreement"] == 1.0 if exact else row["agreement"] >= 0.0, row
        assert row["codec"] in out
    # What was learnt is there for the next run, and counts on; a view that changes in place shows the same.
    played(here, cloud, "more", "horizon=5", "arrivals.every_ms=80", f"store={store}", "view=true")
    assert "5 of 5" in capsys.readouterr().out
    with DurableEngine(store) as engine:
        assert engine.cursor == 35
        engine.verify()


@pytest.mark.long
def test_ctrl_c_ends_with_what_was_played(place, cloud):
    """As typed."""
    words = [*DATA, f"cloud={cloud}", "folder=broken_off", "view=false", "horizon=100000", "arrivals.every_ms=20"]
    process = command(place, "edge", *words)
    seen = ""
    while "answered" not in seen:  # the first line of the view
        seen = process.stdout.readline()
        assert seen, process.wait()
    process.send_signal(signal.SIGINT)
    code, out = finished(process)
    assert code == 0, out
    told = json.loads((place / "broken_off" / "summary.json").read_text())
    assert 0 < told["summary"]["requests"] < 100_000
    assert len(pd.read_parquet(place / "broken_off" / "journal.parquet")) == told["summary"]["requests"]


def test_a_cloud_that_wants_another_key_is_a_cloud_that_fails(here, cloud, monkeypatch, capsys):
    monkeypatch.setenv("OFFRAMP_CLOUD_KEY", "other")
    told, table = played(here, cloud, "locked", "horizon=30", "arrivals.every_ms=20", "policy=offload_first")
    assert set(table["why"]) <= {"failed", "open"}
    assert (table["outage"] == 1.0).all()
    assert (table["answered_at"] == 1.0).all()
    # A server that refuses before it has read all may hang up on who is still sending.
    assert set(told["faults"]) <= {"status is 401, allowed is 200", "BrokenPipeError", "ConnectionResetError"}
    assert sum(told["faults"].values()) == (table["why"] == "failed").sum()
    assert told["circuit"][0][1] == "open"
    assert "other" not in capsys.readouterr().out


def test_the_cloud_answers_nobody_who_does_not_know_the_key(cloud):
    with urllib.request.urlopen(f"{cloud}/v1/health") as answer:
        assert json.load(answer)["exits"] == 7
    for path in ("healthz", "readyz"):
        with urllib.request.urlopen(f"{cloud}/{path}") as answer:
            assert json.load(answer)["status"] == "ok"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(f"{cloud}/v1/tail", data=b"x"))


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("exits=all", "exits is 'all'"),
        ("calibration=best", "calibration is 'best'"),
        ("weights=none.safetensors", "none.safetensors"),
        ("cache=nobody", "nobody"),
        ("host=0.0.0.0", "allowed without a key is 127.0.0.1"),
    ],
)
def test_what_the_cloud_refuses(override, why, monkeypatch):
    monkeypatch.delenv("OFFRAMP_CLOUD_KEY", raising=False)
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("cloud", overrides=["port=0", override])
    with pytest.raises(ValueError, match=why):
        cloud_program.run(cfg)


def test_what_lies_beside_a_cache_of_ones_own_is_taken(tmp_path):
    own = tmp_path / "mine.safetensors"
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("edge", overrides=[f"cache={own}"])
    assert places.beside(cfg, "payloads", ".payloads.safetensors") == "beside"
    (tmp_path / "mine.payloads.safetensors").touch()
    assert places.beside(cfg, "payloads", ".payloads.safetensors") == str(tmp_path / "mine.payloads.safetensors")
    cfg.payloads = None
    assert places.beside(cfg, "payloads", ".payloads.safetensors") is None


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["data._target_=odd.read"], "other labels.*first `offramp payloads data.root=FOLDER.*cache=FILE"),
        (["data._target_=few.read"], "none of the cache's test samples.*first `offramp payloads"),
        (["data._target_=short.read"], "held_out is 400.*change data.held_out"),
        (["weights=gone.safetensors"], "weights is gone.safetensors, allowed is .* weights=FILE"),
        (["name=mine", "cache=mobilenet_v2_imagenette"], "with name=mine nothing ships, .* weights=FILE"),
        (["stream.segments=[[rain,1.0]]"], "rain"),
        (["cloud=here"], "allowed is an address"),
        (["cache=mobilenet_v2_cifar10"], "network"),
        (["codecs=[gif]"], "gif"),
    ],
)
def test_what_the_edge_refuses(here, overrides, why):
    (here / "odd.py").write_text(FORTY.replace("np.array([label[int(i)] for i in index])", "index * 0 + 9"))
    (here / "few.py").write_text(FORTY.replace("index=index", "index=index + 100_000"))
    (here / "short.py").write_text("def read(folder):\n    raise ValueError('held_out is 400, allowed are 1 to 9')\n")
    with pytest.raises(ValueError, match=why):
        played(here, "http://127.0.0.1:1", "refused", "horizon=5", *overrides)
