"""`offramp payloads` as a user runs it: a folder of images and weights in, a cache and its table of payloads out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.environments.payloads import PayloadTable
from offramp.experiments import payloads
from offramp.models.codecs import CodecError, standard_codecs
from offramp.models.weights import WeightsError, save_weights

CLASSES = ("ant", "bee", "cat")


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("payloads", overrides=list(overrides))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of 32 x 32 pixels: 80 training images and 8 test images of each."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, n in (("train", 80), ("val", 8)):
        for k, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 60, (8, 8, 3)).repeat(4, axis=0).repeat(4, axis=1) + 60 * k
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return root


def arguments(images, tmp_path, *more):
    given = ["network=alexnet", "network.input_size=32", "network.classes=3", "data.size=32", "data.held_out=210"]
    given += [f"data.root={images}", f"weights={tmp_path / 'w.safetensors'}", f"folder={tmp_path / 'out'}", "threads=1"]
    return [*given, "name=tiny", "shrink=1", *more]


def few_conditions(cfg):
    cfg.conditions = [cfg.conditions[0], cfg.conditions[6]]
    return cfg


@pytest.fixture(scope="module")
def weights(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = instantiate(config(*arguments(images, folder)).network)
    exits = [{"accuracy": 0.3, "mean confidence": 0.4}] * network.n_exits
    save_weights(network, folder / "w.safetensors", {"network": "tiny", "epochs": 0, "seed": 7, "exits": exits})
    return folder


@pytest.fixture(scope="module")
def made(images, weights):
    cfg = few_conditions(config(*arguments(images, weights)))
    return payloads.run(cfg), cfg


def test_cache_and_table(made, images):
    path, cfg = made
    cache, table = ConfidenceCache.load(path), PayloadTable.load(path.with_name("tiny.payloads.safetensors"))
    table.check(cache)
    exits = len(cache.exits)
    assert cache.confidence.shape == (2, 1, 210 + 24, exits)
    assert [c.name for c in cache.conditions] == ["pristine", "noise 40"]
    assert [(cache.split == s).sum() for s in (0, 1)] == [210, 24]
    assert cache.label[cache.split == 1].tolist() == [k for k in range(3) for _ in range(8)]
    assert (cache.notes["network"], cache.notes["seed"], table.notes["network"]) == ("tiny", 7, "tiny")
    assert cache.notes["cards"]["network"]["epochs"] == 0
    assert table.notes["made with"].keys() >= {"machine", "pillow", "jpeg", "zlib"}
    names = [c.name for c in standard_codecs()]
    assert list(table.codecs) == names[:5] + names[5:] * (exits - 1)
    assert table.splits.tolist() == [0] * 5 + [s for s in range(1, exits) for _ in range(4)]
    assert (table.mean_bytes[:, 0] == 12 + 3 * 32 * 32).all()
    assert (table.encode_ms > 0.0).all()
    assert cache.calibrated("exit").confidence.shape == cache.confidence.shape
    with Image.open(path.with_name("tiny.samples.png")) as sheet:
        assert sheet.size == (8 * 32, 2 * 32)
    assert str(cfg.weights).endswith("w.safetensors")


def test_configured_are_the_standard_codecs():
    assert tuple(instantiate(config().codecs, _convert_="all")) == standard_codecs()
    assert len(config().conditions) >= 10


def test_second_run_resumes_and_says_the_same(made, capsys):
    path, cfg = made
    before = {p: p.stat().st_mtime_ns for p in (path.parent / "conditions").iterdir()}
    assert len(before) == 2
    kept = ConfidenceCache.load(path)
    assert payloads.run(cfg) == path
    again = ConfidenceCache.load(path)  # not byte by byte: the library writes its metadata in any order
    assert np.array_equal(again.confidence, kept.confidence)
    assert np.array_equal(again.prediction, kept.prediction)
    assert again.manifest == kept.manifest
    assert {p: p.stat().st_mtime_ns for p in before} == before
    out = capsys.readouterr().out
    for words in ("pristine: was there", "accuracy", "jpeg_75", "uint8_zlib", "tiny.payloads.safetensors"):
        assert words in out


def test_in_full_precision(made):
    path, cfg = made
    again = cfg.copy()
    again.small = False
    small = ConfidenceCache.load(path), PayloadTable.load(path.with_name("tiny.payloads.safetensors"))
    payloads.run(again)
    exact = ConfidenceCache.load(path), PayloadTable.load(path.with_name("tiny.payloads.safetensors"))
    for one, other in zip(small, exact, strict=True):
        assert 0.0 < np.abs(one.confidence - other.confidence).max() <= 3.7e-4
        assert np.array_equal(one.prediction, other.prediction)


def test_other_codecs_in_the_same_folder_are_refused(made):
    _, cfg = made
    other = cfg.copy()
    other.codecs = cfg.codecs[:-1]
    with pytest.raises(WeightsError, match="belongs to other weights, images or parameters; move it away"):
        payloads.run(other)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (["images=150"], ValueError, "validation images are 150, allowed are 200 or more"),
        (["network.input_size=48"], (ValueError, WeightsError), "allowed is"),
        (["codecs.2.quality=0"], Exception, "quality is 0, allowed is a whole number in 1..95"),
        (["codecs.3.quality=75"], CodecError, "allowed are one or more whose names differ"),
        (["data.root=nowhere"], Exception, "there is no folder"),
        (["weights=nowhere.safetensors"], WeightsError, "nowhere.safetensors"),
    ],
)
def test_bad_input_is_named(made, images, weights, more, error, said):
    cfg = few_conditions(config(*arguments(images, weights, f"folder={weights / 'other'}", *more)))
    with pytest.raises(error, match=said):
        payloads.run(cfg)
    assert not list(weights.glob("other/*.safetensors"))


def test_help_and_command(tmp_path):
    command = [sys.executable, "-m", "offramp.experiments.cli", "payloads", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "offramp payloads" in done.stdout
    assert "jpeg" in done.stdout.lower()
