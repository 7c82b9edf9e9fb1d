"""A folder of photographs is read as it lies, cut to its centre, and refused where it is none."""

import numpy as np
import pytest
from PIL import Image

from offramp.models.image_folder import image_folder


def put(folder, name, array, form="PNG"):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name, format=form)


def flat(value, height=40, width=40):
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three classes; each image says its class and number in its colour.  Written in another order than they sort."""
    for part, n in (("train", 6), ("val", 2)):
        for k, name in reversed(list(enumerate(("ant", "bee", "cat")))):
            for i in reversed(range(n)):
                put(tmp_path / part / name, f"{i}.png", flat(60 * k + i))
    return tmp_path


def colours(split):
    assert (split.images == split.images[:, :1, :1, :1]).all()
    return split.images[:, 0, 0, 0].tolist()


def test_classes_and_files_sorted_by_name(folder):
    splits = image_folder(folder, size=32, held_out=5)
    assert sorted(splits) == ["test", "train", "validation"]
    assert colours(splits["test"]) == [0, 1, 60, 61, 120, 121]
    assert splits["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits["test"].index.tolist() == [0, 1, 2, 3, 4, 5]
    for part in splits.values():
        assert part.images.shape[1:] == (32, 32, 3)
        assert (part.images.dtype, part.labels.dtype, part.index.dtype) == (np.uint8, np.int64, np.int64)


def test_held_out_images_are_other_ones_and_always_the_same(folder):
    splits = image_folder(folder, size=32, held_out=5)
    train, validation = splits["train"], splits["validation"]
    assert (len(train.labels), len(validation.labels)) == (13, 5)
    assert sorted([*train.index, *validation.index]) == list(range(18))
    for part in (train, validation):
        assert colours(part) == [60 * (i // 6) + i % 6 for i in part.index]
        assert part.labels.tolist() == [i // 6 for i in part.index]
        assert part.index.tolist() == sorted(part.index.tolist())
    again = image_folder(folder, size=32, held_out=5)
    assert {n: s.hash for n, s in again.items()} == {n: s.hash for n, s in splits.items()}
    assert len(image_folder(folder, size=32, held_out=1)["validation"].labels) == 1


@pytest.mark.parametrize("held_out", [0, -1, 18, 1_000])
def test_held_out_leaves_some(folder, held_out):
    with pytest.raises(ValueError, match=f"held_out is {held_out}, allowed are 1 to 17 of 18 images"):
        image_folder(folder, size=32, held_out=held_out)


def test_size(folder):
    with pytest.raises(ValueError, match="size is 31, allowed are 32 pixels or more"):
        image_folder(folder, size=31, held_out=1)
    assert image_folder(folder, size=48, held_out=1)["test"].images.shape == (6, 48, 48, 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 128), (96, 33), (33, 50), (20, 20), (7, 31), (40, 2)])
def test_any_shape_is_scaled_and_cut_to_its_centre(folder, height, width):
    """Left half black, right half white: the middle stays the middle."""
    image = flat(0, height, width)
    image[:, width // 2 :] = 255
    if width % 2:
        image[:, width // 2] = 128
    put(folder / "val" / "ant", "0.png", image)
    got = image_folder(folder, size=32, held_out=1)["test"].images[0]
    assert got.shape == (32, 32, 3)
    assert got[:, :14].mean() < 20.0 or width < 8
    assert got[:, 18:].mean() > 235.0 or width < 8
    assert abs(got.mean() - 127.5) < 8.0


def test_an_image_of_that_size_is_not_touched(folder):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    put(folder / "val" / "ant", "0.png", image)
    assert np.array_equal(image_folder(folder, size=32, held_out=1)["test"].images[0], image)


def test_grey_and_transparent_images_become_rgb(folder):
    put(folder / "val" / "ant", "0.png", np.full((32, 32), 77, np.uint8))
    put(folder / "val" / "ant", "1.png", np.full((32, 32, 4), 99, np.uint8))
    assert colours(image_folder(folder, size=32, held_out=1)["test"])[:2] == [77, 99]


def test_other_names_of_the_folders(folder):
    (folder / "val").rename(folder / "held")
    assert len(image_folder(folder, size=32, held_out=1, test="held")["test"].labels) == 6
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*val: give one with a folder per class"):
        image_folder(folder, size=32, held_out=1)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*train: .*\(data.root=FOLDER\)"):
        image_folder(tmp_path)


def test_classes_that_differ(folder):
    put(folder / "val" / "dog", "0.png", flat(3))
    with pytest.raises(ValueError, match=r"'train' and 'val' under .* differ in the classes \['dog'\]"):
        image_folder(folder, size=32, held_out=1)


def test_class_without_images(folder):
    (folder / "train" / "dog").mkdir()
    with pytest.raises(FileNotFoundError, match="dog"):
        image_folder(folder, size=32, held_out=1)


def damaged(path, kind):
    raw = path.read_bytes()
    if kind == "text":
        raw = b"no image"
    elif kind == "empty":
        raw = b""
    elif kind == "cut":
        raw = raw[: len(raw) // 2]
    elif kind == "chunk":
        raw = raw.replace(b"IDAT", b"ID\xffT")
    elif kind == "data":
        at = raw.index(b"IDAT") + 4
        raw = raw[:at] + bytes(40) + raw[at + 40 :]
    path.write_bytes(raw)


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "chunk", "data"])
def test_unreadable_image_is_named(folder, kind):
    path = folder / "val" / "bee" / "1.png"
    put(path.parent, path.name, np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    damaged(path, kind)
    with pytest.raises(ValueError, match=r"bee.1\.png cannot be read as an image \("):
        image_folder(folder, size=32, held_out=1)


def test_unreadable_jpeg_is_named(folder):
    path = folder / "val" / "bee" / "2.jpg"
    put(path.parent, path.name, flat(9), form="JPEG")
    damaged(path, "cut")
    with pytest.raises(ValueError, match=r"bee.2\.jpg cannot be read as an image"):
        image_folder(folder, size=32, held_out=1)


def test_spread_takes_of_each_class(folder):
    test = image_folder(folder, size=32, held_out=1)["test"]
    assert test.spread(3).labels.tolist() == [0, 1, 2]
    assert test.spread(3).index.tolist() == [0, 2, 4]
    assert test.spread(100).hash == test.hash
    assert len(test.spread(0).labels) == 0
