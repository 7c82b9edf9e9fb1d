"""CIFAR-10 as arrays: the published splits, 5,000 training images held out, and a hash of the images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offramp.models import torchvision_ops

torchvision_ops.ensure()
from torchvision.datasets import CIFAR10  # noqa: E402  (its operators must be declared first)

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
HELD_OUT = 5_000
_HOLD_OUT_SEED = 20_240_110  # which images are held out never changes with a run's seed


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (n, height, width, 3) uint8 with labels (n,) int64 and their index in the published order (n,) int64."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]

    @property
    def hash(self) -> str:
        """SHA-256 over pixels and labels, in hexadecimal."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, n: int) -> "Split":
        """The first n images (all of them where there are fewer)."""
        return Split(images=self.images[:n], labels=self.labels[:n], index=self.index[:n])

    def spread(self, n: int) -> "Split":
        """So many images, evenly apart (all where there are fewer): some of each class, where class follows class."""
        total = len(self.labels)
        at = np.arange(min(n, total)) * total // max(1, min(n, total))
        return Split(images=self.images[at], labels=self.labels[at], index=self.index[at])


def cifar10(root: str | Path, *, download: bool = False) -> dict[str, Split]:
    """Read CIFAR-10 as "train" (45,000), "validation" (5,000 of the published training set) and "test" (10,000).

    Parameters
    ----------
    root
        Folder that holds, or shall hold, `cifar-10-batches-py/`.
    download
        Let torchvision download the archive where it is missing.

    Raises
    ------
    FileNotFoundError
        The images are not there and `download` is false.

    """
    try:
        published = {part: CIFAR10(str(root), train=part == "train", download=download) for part in ("train", "test")}
    except RuntimeError as error:
        raise FileNotFoundError(
            f"no intact CIFAR-10 under {Path(root).resolve()}: give a folder that holds cifar-10-batches-py/ "
            f"(data.root=FOLDER), or let it be fetched (data.download=true)"
        ) from error
    arrays = {
        part: (np.asarray(d.data, dtype=np.uint8), np.asarray(d.targets, dtype=np.int64))
        for part, d in published.items()
    }
    n = len(arrays["train"][1])
    order = np.random.default_rng(_HOLD_OUT_SEED).permutation(n)
    chosen = {"train": np.sort(order[HELD_OUT:]), "validation": np.sort(order[:HELD_OUT])}
    splits = {
        name: Split(images=arrays["train"][0][index], labels=arrays["train"][1][index], index=index)
        for name, index in chosen.items()
    }
    images, labels = arrays["test"]
    splits["test"] = Split(images=images, labels=labels, index=np.arange(len(labels)))
    return splits


def normalise(images: npt.NDArray[np.uint8] | Tensor) -> Tensor:
    """Images (n, height, width, 3) uint8 in 0..255 as the network reads them: (n, 3, height, width) float32."""
    pixels = torch.as_tensor(images)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        found = f"{str(pixels.dtype).removeprefix('torch.')} of shape {tuple(pixels.shape)}"
        raise ValueError(f"images are {found}, allowed is uint8 in 0..255 of shape (n, height, width, 3)")
    x = pixels.permute(0, 3, 1, 2).float().div_(255.0)
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)
