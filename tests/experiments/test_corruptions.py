"""The figure of corruptions: every tile is the distorted image, every label its parameters; the program around it."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from matplotlib import pyplot as plt
from PIL import Image

from offramp.experiments import corruptions
from offramp.models import data
from offramp.models.data import Split
from offramp.models.distort import PRESETS, Distortion, preset

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"


def photos(n=20):
    """The first test images of CIFAR-10."""
    return np.stack(np.split(np.asarray(Image.open(SHEET))[:32, : 32 * n], n, axis=1))


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("corruptions", overrides=list(overrides))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Real test images (and random training images) in CIFAR-10's own layout."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    test = photos().transpose(0, 3, 1, 2).reshape(20, 3072)
    noise = np.random.default_rng(0).integers(0, 256, (1_010, 3072), dtype=np.uint8)
    for name, rows in [*((f"data_batch_{i}", noise) for i in range(1, 6)), ("test_batch", test)]:
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [0] * len(rows)}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    for field in ("train_list", "test_list"):
        monkeypatch.setattr(data.CIFAR10, field, [[name, sums[name]] for name, _ in getattr(data.CIFAR10, field)])
    monkeypatch.setattr(data.CIFAR10, "meta", {**data.CIFAR10.meta, "md5": sums["batches.meta"]})
    return tmp_path


def test_every_tile_is_the_distorted_image_above_its_parameters():
    split = Split(images=photos()[8:9], labels=np.zeros(1, dtype=np.int64), index=np.array([8]))
    figure = corruptions.sheet(split)
    cells = np.array(figure.axes).reshape(len(PRESETS), 6)
    assert [cell.get_title() for cell in cells[0]] == ["pristine", *(f"severity {s}" for s in range(1, 6))]
    for row, corruption in zip(cells, PRESETS, strict=True):
        assert row[0].get_ylabel() == corruption.replace("_", " ")
        shown = [cell.images[0].get_array() for cell in row]
        assert np.array_equal(shown[0], split.images[0])
        for severity in range(1, 6):
            distortion = preset(corruption, severity)
            assert np.array_equal(shown[severity], distortion(split.images, split.index)[0])
            assert row[severity].get_xlabel() == corruptions.caption(distortion)
    plt.close(figure)
    assert corruptions.caption(preset("fog", 3)) == "amount 0.75, decay 2.5"
    assert corruptions.caption(preset("contrast", 1)) == "factor 0.75"


def test_change_is_the_mean_over_all_values(monkeypatch):
    monkeypatch.setattr(corruptions, "CHUNK", 7)
    split = Split(images=photos(), labels=np.zeros(20, dtype=np.int64), index=np.arange(20))
    darker = Distortion(name="darker", corruption="brightness", parameters={"factor": 0.5})
    expected = np.abs(photos() - np.rint(photos() * 0.5)).mean()
    assert corruptions.change(split, darker) == pytest.approx(expected)


def test_program_draws_measures_and_leaves_nothing_half_written(root, tmp_path, capsys):
    out = tmp_path / "docs" / "all.png"
    assert corruptions.run(config(f"data.root={root}", "images=5", "image=3", "threads=1", f"out={out}")) == out
    assert [path.name for path in out.parent.iterdir()] == ["all.png"]
    with Image.open(out) as drawn:
        assert drawn.format == "PNG"
        assert drawn.height > drawn.width > 800
    assert out.stat().st_size < 900_000
    printed = capsys.readouterr().out
    assert all(corruption.replace("_", " ") in printed for corruption in PRESETS)
    assert "mean absolute change of 5 test images, out of 255" in printed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("out=figure.bmp", r"out is figure\.bmp, allowed are names that end in \.png, \.svg, \.pdf"),
        ("image=20", r"image is 20, allowed is 0\.\.19"),
        ("image=-1", r"image is -1, allowed is 0\.\.19"),
        ("images=0", r"images is 0, allowed is 1\.\.20"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(override, message, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        corruptions.run(config(f"data.root={root}", "images=5", "image=0", override))
    assert not list(tmp_path.rglob("*.png"))


def test_missing_images_are_named(tmp_path):
    with pytest.raises(InstantiationException, match="give a folder that holds cifar-10-batches-py"):
        corruptions.run(config(f"data.root={tmp_path}"))
