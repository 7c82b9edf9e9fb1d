"""A folder of photographs as arrays: one folder per class, and a part of the training images held out."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from offramp.models import torchvision_ops
from offramp.models.data import Split

torchvision_ops.ensure()
from torchvision.datasets import ImageFolder  # noqa: E402  (its operators must be declared first)

# Pillow's answers to damage: a damaged PNG is a SyntaxError, a damaged number in a header a ValueError.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_HOLD_OUT_SEED = 20_240_110  # which images are held out never changes with a run's seed


def image_folder(
    root: str | Path, *, size: int = 128, held_out: int = 1_000, train: str = "train", test: str = "val"
) -> dict[str, Split]:
    """Read photographs as "train", "validation" (held out of the training images) and "test".

    Images are scaled so that their shorter side has `size` pixels, and cropped to their centre.

    Parameters
    ----------
    root
        Folder that holds one folder for training and one for testing, each with one folder for each class, as
        `torchvision.datasets.ImageFolder` reads them.
    size
        Height and width in pixels, at least 32.
    held_out
        Training images that become "validation", at least 1 and fewer than there are.
    train, test
        Names of the two folders.

    Raises
    ------
    FileNotFoundError
        A folder is missing, or holds no images.
    ValueError
        The two folders have other classes, an image cannot be read, or a number is out of range.

    """
    if size < 32:
        raise ValueError(f"size is {size}, allowed are 32 pixels or more")
    found = {part: _read(Path(root) / part, size) for part in (train, test)}
    classes = [names for _, _, names in found.values()]
    if classes[0] != classes[1]:
        odd = sorted(set(classes[0]) ^ set(classes[1]))
        raise ValueError(f"the folders {train!r} and {test!r} under {root} differ in the classes {odd[:5]}")
    images, labels, _ = found[train]
    if not 1 <= held_out < len(labels):
        raise ValueError(f"held_out is {held_out}, allowed are 1 to {len(labels) - 1} of {len(labels)} images")
    order = np.random.default_rng(_HOLD_OUT_SEED).permutation(len(labels))
    chosen = {"train": np.sort(order[held_out:]), "validation": np.sort(order[:held_out])}
    splits = {
        name: Split(images=images[index], labels=labels[index], index=index.astype(np.int64))
        for name, index in chosen.items()
    }
    images, labels, _ = found[test]
    splits["test"] = Split(images=images, labels=labels, index=np.arange(len(labels)))
    return splits


def _read(folder: Path, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[str]]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder.resolve()}: give one with a folder per class in it (data.root=FOLDER)"
        )
    listed = ImageFolder(str(folder))  # sorts classes and names, refuses a class without images
    images = np.empty((len(listed.samples), size, size, 3), dtype=np.uint8)
    for i, (path, _) in enumerate(listed.samples):
        try:
            with Image.open(path) as image:
                images[i] = _centre(image.convert("RGB"), size)
        except UNREADABLE as error:
            raise ValueError(f"{path} cannot be read as an image ({error})") from error
    return images, np.array(listed.targets, dtype=np.int64), listed.classes


def _centre(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, dtype=np.uint8)
