"""A network of one's own, from a module to compared policies, as `docs/examples/own_network.py` shows; and as ONNX."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from PIL import Image

from offramp.environments import ConfidenceCache

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "own_network.py"
SHEET = ROOT / "tests" / "data" / "cifar10_test_first_200.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small pictures as the example reads them: 240 for training, 200 of them held out, and 60 for testing."""
    root = tmp_path_factory.mktemp("images")
    sheet = np.asarray(Image.open(SHEET).convert("RGB"))
    rows, columns = sheet.shape[0] // 32, sheet.shape[1] // 32
    tiles = sheet.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    assert len(tiles) == 200
    for part, chosen in (("train", range(240)), ("val", range(60))):
        for i in chosen:
            place = root / part / ("bright" if tiles[i % 200].mean() > 115 else "dark")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tiles[i % 200]).save(place / f"{i:04}.png")
    return root


def test_the_example(folder, tmp_path):
    """Twice: the second run finds the training and the passes done, and says the same."""
    command = [sys.executable, "-W", "error", str(EXAMPLE), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    said = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    epochs = [line for line in said[0] if line.startswith("epoch ")]
    assert epochs
    assert said[0][len(epochs) :] == said[1]
    assert said[1][:2] == [f"{name}: 260 of 260 images passed through" for name in ("clear", "blurred")]
    form = re.compile(r"(\w+): (\d+\.\d{3}) cost units an image, accuracy ([01]\.\d{3})")
    policies = [form.fullmatch(line) for line in said[0][-3:]]
    assert [found[1] for found in policies] == ["FinalExit", "SplitEES", "UCB1"]
    for found in policies:
        assert float(found[2]) > 0.0
        assert 0.0 <= float(found[3]) <= 1.0
    cache = ConfidenceCache.load(tmp_path / "own_network" / "cache.safetensors")
    assert (len(cache.exits), cache.classes, len(cache.part("test").label)) == (3, 2, 60)
    assert [c.name for c in cache.conditions] == ["clear", "blurred"]


def test_an_example_is_short():
    lines = EXAMPLE.read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 40


def test_a_module_by_configuration():
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("train", ["network=resnet18", "spec.loss_weights=[0.5,0.5,0.5,1.0]", "spec.frozen=true"])
        network = instantiate(cfg.network)
        spec = instantiate(cfg.spec, _convert_="all")
    assert (network.n_exits, network.input_shape, spec.frozen) == (4, (3, 32, 32), True)
    assert len(spec.loss_weights) == network.n_exits


def test_export(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from offramp.experiments import export

    with initialize_config_module("offramp.conf", version_base="1.3"):
        small = ["network=alexnet", "name=alexnet_cifar10", f"folder={tmp_path}"]
        export.run(compose("export", [*small, "parts=halves", "cuts=[1]"]))
        with pytest.raises(ValueError, match="parts is 'whole', allowed are"):
            export.run(compose("export", [*small, "parts=whole"]))
        with pytest.raises(ValueError, match="expert is 'rain', allowed are"):
            export.run(compose("export", [*small, "expert=rain"]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cloud_1.onnx", "edge_1.onnx"]
    edge = onnxruntime.InferenceSession(str(tmp_path / "edge_1.onnx"), providers=["CPUExecutionProvider"])
    features, logits = edge.run(None, {"image": np.zeros((1, 32, 32, 3), dtype=np.uint8)})
    assert (features.shape, logits.shape) == ((1, 64, 16, 16), (1, 1, 10))
