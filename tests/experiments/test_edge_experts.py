"""`offramp edge` with experts and a router against a real `offramp cloud`: shipped weights, real distorted images."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.environments import ConfidenceCache, DeviceProfile
from offramp.experiments import edge
from offramp.experiments.halves import loaded, router_of
from offramp.models.data import normalise
from offramp.models.families import FAMILIES
from offramp.models.halves import EdgeNetwork

ROOT = Path(__file__).parents[2]
SHEET = '''
import numpy as np
from PIL import Image
from offramp.environments import ConfidenceCache
from offramp.models.data import Split

def read(sheet):
    """The first 200 test images of CIFAR-10, cut from the sheet: 10 rows of 20."""
    pixels = np.asarray(Image.open(sheet)).reshape(10, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(200, 32, 32, 3)
    labels = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test").label[:200].astype(np.int64)
    return {"test": Split(images=np.ascontiguousarray(pixels), labels=labels, index=np.arange(200))}
'''
NAME = "mobilenet_v2_cifar10"
BOTH = [f"name={NAME}", "exits=experts", "network.input_size=32"]
DATA = ["data._target_=sheet.read", f"+data.sheet={ROOT / 'tests' / 'data' / 'cifar10_test_first_200.png'}"]
DATA += [f"~data.{name}" for name in ("root", "size", "held_out", "train", "test")]
EDGE = [*BOTH, *DATA, "payloads=null", "conditions=standard", "view=false", "link=wifi", "policy=random_arm"]
CONDITIONS = ("pristine", "blur 1.0", "noise 20", "contrast 0.5")
STREAM = "stream.segments=[" + ",".join(f"[{name},1.0]" for name in CONDITIONS) + "]"
ROUTER_MS = 0.75


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    (folder / "sheet.py").write_text(SHEET)
    device = DeviceProfile(name="a board", segment_ms=(1.0,) * 7, head_ms=(0.2,) * 7, router_ms=ROUTER_MS, power_w=2.0)
    device.save(folder / "board.device.json")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.delenv("OFFRAMP_CLOUD_KEY", raising=False)
        yield folder
    torch.set_num_threads(threads)


def configured(place, *overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose(
            "edge",
            overrides=[*EDGE, STREAM, f"times={place / 'board.device.json'}", f"folder={place / 'out'}", *overrides],
        )


@pytest.fixture(scope="module")
def played(place):
    """A run with calibrated experts: its configuration, summary and journal, and what the program printed."""
    words = [sys.executable, "-m", "offramp.experiments.cloud", *BOTH, "calibration=expert_exit", "port=0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    cloud = subprocess.Popen(
        words, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        line = cloud.stdout.readline()
        assert line.startswith("offramp cloud: ready on"), line + cloud.stdout.read()
        more = (
            "calibration=expert_exit",
            "verify=2",
            "patience_ms=20000",
            "horizon=120",
            "arrivals.every_ms=25",
            f"cloud={line.split()[-1]}",
        )
        cfg = configured(place, *more)
        told = json.loads(edge.run(cfg).read_text())
        raw = configured(place, *more[1:], f"folder={place / 'raw'}", "horizon=12", "policy=offload_first", "verify=0")
        edge.run(raw)
    finally:
        cloud.send_signal(signal.SIGTERM)
        out, _ = cloud.communicate(timeout=30)
    assert "Traceback" not in out
    return (
        cfg,
        told,
        pd.read_parquet(place / "out" / "journal.parquet"),
        json.loads((place / "raw" / "summary.json").read_text()),
    )


@pytest.fixture(scope="module")
def shipped(place):
    """The cache's 200 samples, their images, the world and the halves of the run above."""
    cfg = configured(place, "calibration=expert_exit", "horizon=120")
    cache = ConfidenceCache.embedded(NAME)
    test, images = edge.within(cache, instantiate(cfg.data)["test"])
    return cfg, cache, test, images, edge.world_of(cfg, cache, test)


def test_the_cloud_answers_with_the_expert_that_the_router_of_the_edge_picks(played, shipped):
    _, told, table, _ = played
    cfg, cache, test, images, world = shipped
    stream = instantiate(cfg.stream)
    rounds = world.rounds(stream, horizon=120, seed=cfg.seed)
    at = np.array([test.condition(stream.conditions[k]) for k in rounds.condition])
    assert len(table) == told["summary"]["learnt"] == 120
    assert set(table["why"]) == {"local", "cloud"}
    assert set(table["cut"]) == set(range(8))
    assert told["faults"] == {}
    expert = test.router[at, rounds.sample].argmax(1)
    assert (table["expert"] == expert).all(), "live, the router picks whom it picks in the cache"
    assert len(set(expert)) == len(FAMILIES)
    assert len(set(table["expert"][table["why"] == "cloud"])) == len(FAMILIES)
    exit = table["answered_at"].to_numpy(dtype=int) - 1
    where = (at, expert, rounds.sample, exit)
    assert (table["prediction"] == test.prediction[where]).all()
    assert table["confidence"].to_numpy() == pytest.approx(test.calibrated("expert_exit").confidence[where], abs=0.02)
    # To what the cache calibrates from rounded numbers the experts themselves are nearer.
    found = loaded(cfg, cache)
    make = edge.distorted(cfg, stream, rounds, images)
    with torch.no_grad():
        spoken = found.experts(normalise(np.stack([make(i) for i in range(120)]))).double().numpy()
    z = spoken[np.arange(120), expert, exit] / found.temperatures[expert, exit][:, None]
    sure = 1.0 / np.exp(z - z.max(1, keepdims=True)).sum(1)
    assert table["confidence"].to_numpy() == pytest.approx(sure, abs=1e-4)
    assert all(row["logits"] < 1e-4 and row["agreement"] == 1.0 for row in told["verified"])


def test_the_time_of_the_router_counts_wherever_the_cut_is(played, shipped):
    table = played[2]
    assert (table["edge_ms"] > 0.0).all()
    sent = table[table["cut"] == 0]
    assert len(sent)
    assert (sent["edge_cost"] > 0.0).all()
    _, _, _, _, world = shipped
    plain = world.facts(CONDITIONS)
    facts = edge.routed(plain, world)
    assert plain.edge[:, 0].tolist() == [0.0, 0.0]
    assert facts.edge[:, 0].tolist() == [ROUTER_MS, 2.0 * ROUTER_MS]
    assert (facts.edge[:, 1:] == plain.edge[:, 1:]).all()
    assert facts.edge[0, 1] == ROUTER_MS + 1.2
    assert plain.cloud[0] - facts.cloud[0] == pytest.approx(ROUTER_MS), "the cloud is told the expert"
    assert (facts.cloud[1:] == plain.cloud[1:]).all()
    without = replace(world, world=replace(world.world, routing=None))
    assert edge.routed(without.facts(CONDITIONS), without).edge[0].tolist()[:2] == [0.0, 1.2]


def test_a_cloud_that_is_calibrated_otherwise_is_one_that_fails(played):
    told = played[3]
    assert told["summary"]["answered_cloud"] == 0.0
    assert told["summary"]["answered_failed"] >= 3.0
    assert told["faults"] == {"status is 409, allowed is 200": told["summary"]["answered_failed"]}
    assert told["circuit"][0][1] == "open"


def test_confidences_and_contexts_are_those_of_the_embedded_cache_within_its_bits(shipped):
    """Answers have 12 bits there, an error of at most 3.7e-4 in the confidence; the router's probabilities have 8."""
    cfg, cache, test, images, _ = shipped
    found = loaded(cfg, cache)
    half = EdgeNetwork(found.network, found.codecs, experts=found.experts, router=router_of(cfg))
    edge.same(cache, half)
    known = {d.name: d for d in instantiate(cfg.conditions, _convert_="all")}
    for name in CONDITIONS:
        at = test.condition(name)
        for i, image in enumerate(known[name](images.images[:12], images.index[:12])):
            run = half.start(image)
            context = run.context()
            assert context[0] == test.router[at, i].argmax()
            assert context[1:] == pytest.approx(test.router[at, i], abs=2.1e-3)
            for exit in range(7):
                run.segment()
                sure, guess = run.speak()
                assert sure == pytest.approx(test.confidence[at, run.expert, i, exit], abs=4e-4)
                assert guess == test.prediction[at, run.expert, i, exit]


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("router=models/router_spectrum.safetensors", "router [0-9a-f]{16}, allowed is"),
        ("cache=alexnet_cifar10", "network [0-9a-f]{16}, allowed is"),
        ("payloads=beside", "payloads"),
        ("network.input_size=64", "allowed is uint8 of shape"),
    ],
)
def test_what_belongs_to_others_is_refused(place, override, why):
    override = override.replace("models/", f"{ROOT / 'models'}/")
    with pytest.raises((ValueError, OSError), match=why):
        edge.run(configured(place, "horizon=5", override))
