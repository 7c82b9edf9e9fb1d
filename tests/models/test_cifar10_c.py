"""The reader of CIFAR-10-C on files of the published layout: real images where they belong, zeros between."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.models.cifar10_c import PUBLISHED, cifar10_c
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion, preset

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"
LABELS = np.random.default_rng(0).integers(0, 10, 10_000)


def photos(n=20):
    """The first test images of CIFAR-10."""
    return np.stack(np.split(np.asarray(Image.open(SHEET))[:32, : 32 * n], n, axis=1))


def published(severity):
    """What the file holds first at a severity."""
    return preset("fog", severity)(photos(), np.arange(20))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """`fog.npy` and `labels.npy` in their published shapes; what is not written takes no room on disk."""
    folder = tmp_path_factory.mktemp("CIFAR-10-C")
    np.save(folder / "labels.npy", np.tile(LABELS, 5))
    file = np.lib.format.open_memmap(folder / "fog.npy", mode="w+", dtype=np.uint8, shape=(50_000, 32, 32, 3))
    for severity in range(1, 6):
        file[(severity - 1) * 10_000 :][:20] = published(severity)
    file[-1] = 255
    file.flush()
    return folder


def test_every_severity_is_found_at_its_place(root):
    reader = cifar10_c(root)
    assert reader.corruptions == ["fog"]
    for severity in range(1, 6):
        split = reader.split("fog", severity)
        assert isinstance(split, Split)
        assert split.images.shape == (10_000, 32, 32, 3)
        assert split.images.dtype == np.uint8
        assert np.array_equal(split.images[:20], published(severity))
        assert (split.images[-1] == 255).all() == (severity == 5)
        assert np.array_equal(split.labels, LABELS)
        assert split.labels.dtype == split.index.dtype == np.int64
        assert split.index.tolist() == list(range(10_000))


def test_images_stay_on_disk_until_they_are_read_and_go_where_any_images_go(root):
    split = cifar10_c(str(root)).split("fog", 2)
    assert isinstance(split.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0
    few = split.take(4)
    assert len(few.hash) == 64
    blur = Distortion(name="blur", corruption="gaussian_blur", parameters={"sigma": 1.0})
    assert np.array_equal(blur(few.images, few.index), blur(np.array(few.images), few.index))
    assert normalise(np.array(few.images)).shape == (4, 3, 32, 32)


def test_nineteen_corruptions_were_published():
    assert len(set(PUBLISHED)) == 19
    assert list(PUBLISHED) == sorted(PUBLISHED)


def test_unknown_names_and_severities(root):
    reader = cifar10_c(root)
    for name in ("jpeg", "pristine", "../fog", "labels"):
        with pytest.raises(ValueError, match=rf"corruption is '{name}', allowed are \['brightness', "):
            reader.split(name, 1)
    for severity in (0, 6, 2.5, "1", True, None):
        with pytest.raises(ValueError, match=rf"severity is {severity!r}, allowed is a whole number in 1\.\.5"):
            reader.split("fog", severity)
    with pytest.raises(FileNotFoundError, match=r"no file .*snow\.npy: give the folder that CIFAR-10-C was unpacked"):
        reader.split("snow", 1)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*labels\.npy"):
        cifar10_c(tmp_path / "nowhere")


def empty(shape, dtype=np.uint8):
    def write(path):
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (empty((10_000, 32, 32, 3)), r"holds uint8 of shape \(10000, 32, 32, 3\), allowed is uint8 of shape \(50000, "),
        (empty((50_001, 32, 32, 3)), r"holds uint8 of shape \(50001, 32, 32, 3\)"),
        (empty((50_000, 3, 32, 32)), r"holds uint8 of shape \(50000, 3, 32, 32\)"),
        (empty((50_000, 32, 32, 3), np.int8), "holds int8 of shape"),
        (lambda path: path.write_bytes(b""), r"is not a whole \.npy file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 not an array"), r"is not a whole \.npy file"),
        (lambda path: np.save(path, np.array([{}, []], dtype=object)), r"is not a whole \.npy file"),
    ],
)
def test_files_that_are_not_as_published(write, message, root, tmp_path):
    (tmp_path / "labels.npy").write_bytes((root / "labels.npy").read_bytes())
    write(tmp_path / "snow.npy")
    reader = cifar10_c(tmp_path)
    assert reader.corruptions == ["snow"]
    with pytest.raises(ValueError, match=rf"snow\.npy {message}"):
        reader.split("snow", 1)


def test_a_file_cut_short(root, tmp_path):
    (tmp_path / "labels.npy").write_bytes((root / "labels.npy").read_bytes())
    with (root / "fog.npy").open("rb") as file:
        (tmp_path / "fog.npy").write_bytes(file.read(100_000))
    with pytest.raises(ValueError, match=r"fog\.npy is not a whole \.npy file"):
        cifar10_c(tmp_path).split("fog", 1)


def test_labels_are_the_same_five_times(tmp_path):
    path = tmp_path / "labels.npy"
    whole = np.tile(LABELS, 5)
    for made, message in (
        (whole[:10_000], r"holds int64 of shape \(10000,\), allowed are integers of \(50000,\)"),
        (whole.astype(float), "holds float64 of shape"),
        (whole + 1, r"holds 1\.\.10, allowed is 0\.\.9"),
        (whole - 1, r"holds -1\.\.8, allowed is 0\.\.9"),
        (np.repeat(LABELS, 5), "allowed is the same labels five times"),
    ):
        np.save(path, made)
        with pytest.raises(ValueError, match=message):
            cifar10_c(tmp_path)
    whole[30_007] = (whole[7] + 1) % 10
    np.save(path, whole)
    with pytest.raises(ValueError, match=rf"label of image 7 is {whole[30_007]} at severity 4 and {whole[7]} at sev"):
        cifar10_c(tmp_path)
    for dtype in (np.uint8, np.int32):
        np.save(path, np.tile(LABELS, 5).astype(dtype))
        assert np.array_equal(cifar10_c(tmp_path).labels, LABELS)
