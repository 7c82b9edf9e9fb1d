"""The published CIFAR-10-C: nineteen corruptions of the 10,000 test images at five severities, read from its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.models.data import Split

PUBLISHED = (
    "brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_blur", "gaussian_noise",
    "glass_blur", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "saturate", "shot_noise", "snow",
    "spatter", "speckle_noise", "zoom_blur",
)  # fmt: skip
SEVERITIES = 5
IMAGES = 10_000  # of one severity; a file holds the five one after the other
SHAPE = (SEVERITIES * IMAGES, 32, 32, 3)
CLASSES = 10


@dataclass(frozen=True, eq=False)
class Cifar10C:
    """The published files of one folder; build it with `cifar10_c`.

    Parameters
    ----------
    root
        Folder that holds `labels.npy` and `<corruption>.npy`.
    labels
        Classes of the 10,000 images of any severity, int64.

    """

    root: Path
    labels: npt.NDArray[np.int64]

    @property
    def corruptions(self) -> list[str]:
        """Published corruptions whose files are here."""
        return [name for name in PUBLISHED if (self.root / f"{name}.npy").is_file()]

    def split(self, corruption: str, severity: int) -> Split:
        """The 10,000 test images in their published order, under one corruption at one severity.

        Parameters
        ----------
        corruption
            One of `PUBLISHED`.
        severity
            1 (mild) to 5.

        Returns
        -------
        Split
            Its images stay on disk until they are read, and cannot be written to.

        Raises
        ------
        FileNotFoundError
            The corruption's file is not in the folder.
        ValueError
            There is no such corruption or severity, or the file is not as published.

        """
        if corruption not in PUBLISHED:
            raise ValueError(f"corruption is {corruption!r}, allowed are {list(PUBLISHED)}")
        if isinstance(severity, bool) or severity not in range(1, SEVERITIES + 1):
            raise ValueError(f"severity is {severity!r}, allowed is a whole number in 1..{SEVERITIES}")
        path = self.root / f"{corruption}.npy"
        images = _mapped(path)
        if images.dtype != np.uint8 or images.shape != SHAPE:
            raise ValueError(f"{path} holds {images.dtype} of shape {images.shape}, allowed is uint8 of shape {SHAPE}")
        first = (int(severity) - 1) * IMAGES
        return Split(images=images[first : first + IMAGES], labels=self.labels, index=np.arange(IMAGES))


def cifar10_c(root: str | Path) -> Cifar10C:
    """Open a folder of CIFAR-10-C and check its labels.

    Parameters
    ----------
    root
        Folder that holds `labels.npy` and `<corruption>.npy`, as unpacked from the published archive.

    Raises
    ------
    FileNotFoundError
        The folder holds no `labels.npy`.
    ValueError
        The labels are not the same 10,000 classes five times.

    Notes
    -----
    Data of Hendrycks and Dietterich (ICLR 2019), doi:10.5281/zenodo.2535967.

    """
    path = Path(root) / "labels.npy"
    labels = _mapped(path)
    if labels.dtype.kind not in "iu" or labels.shape != SHAPE[:1]:
        raise ValueError(f"{path} holds {labels.dtype} of shape {labels.shape}, allowed are integers of {SHAPE[:1]}")
    repeated = labels.reshape(SEVERITIES, IMAGES).astype(np.int64)
    if repeated.min() < 0 or repeated.max() >= CLASSES:
        raise ValueError(f"{path} holds {repeated.min()}..{repeated.max()}, allowed is 0..{CLASSES - 1}")
    odd = np.argwhere(repeated != repeated[0])
    if len(odd):
        severity, image = odd[0]
        raise ValueError(
            f"{path}: label of image {image} is {repeated[severity, image]} at severity {severity + 1} and "
            f"{repeated[0, image]} at severity 1, allowed is the same labels five times"
        )
    return Cifar10C(root=Path(root), labels=repeated[0].copy())


def _mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a file, memory-mapped; never a pickle."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give the folder that CIFAR-10-C was unpacked into")
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a whole .npy file ({error})") from error
    return array
