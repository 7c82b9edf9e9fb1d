"""Distortions of 8-bit images: blur, noise, contrast, brightness, JPEG; seeded per image, so any subset is the same."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from offramp.models import torchvision_ops

torchvision_ops.ensure()
from torchvision.transforms.v2 import functional as transforms  # noqa: E402  (its operators must be declared first)

Images = npt.NDArray[np.uint8]
OVERFLOW = ("clip", "wrap_sum", "wrap_noise")


def gaussian_blur(images: Images, *, sigma: float) -> Images:
    """Blur with a Gaussian of `sigma` pixels, > 0; the kernel reaches three sigma, the border is mirrored.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    sigma
        Standard deviation in pixels of these images, whatever their size.

    """
    side = 2 * math.ceil(3.0 * _above("sigma", sigma, 0.0)) + 1
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    if side // 2 >= min(planes.shape[2:]):
        raise ValueError(
            f"sigma is {sigma}, allowed is below {(min(planes.shape[2:]) - 1) / 3:.1f} for this image size"
        )
    blurred = transforms.gaussian_blur(planes, [side, side], [sigma, sigma])
    return _bytes(blurred.permute(0, 2, 3, 1).numpy())


def gaussian_noise(
    images: Images, index: npt.NDArray[np.int64], *, sigma: float, seed: int, overflow: str = "clip"
) -> Images:
    """Add independent normal noise to every channel of every pixel.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    index
        Number of each image in its data set, (n,): an image gets the same noise in whatever company.
    sigma
        Standard deviation out of 255, > 0.
    seed
        Seed of the noise.
    overflow
        "clip": add in float, round, clip.  The other two are faults of published code, kept as replicas: "wrap_sum"
        casts the float sum to 8 bits, so that 260 becomes 4; "wrap_noise" casts the noise first, so that every
        draw of -1 or less becomes about 255 and whitens its channel (at sigma 1 that is 16 % of all pixels).

    """
    if overflow not in OVERFLOW:
        raise ValueError(f"overflow is {overflow!r}, allowed are {OVERFLOW}")
    _above("sigma", sigma, 0.0)
    if np.shape(index) != images.shape[:1]:
        raise ValueError(f"index has shape {np.shape(index)}, allowed is {images.shape[:1]}: one number for each image")
    noise = np.stack([np.random.default_rng((seed, int(i))).normal(0.0, sigma, images.shape[1:]) for i in index])
    if overflow == "wrap_sum":
        return np.mod(np.trunc(images + noise), 256.0).astype(np.uint8)
    if overflow == "wrap_noise":
        return np.minimum(images + np.mod(np.trunc(noise), 256.0), 255.0).astype(np.uint8)
    return _bytes(images + noise)


def contrast(images: Images, *, factor: float) -> Images:
    """Scale the distance from each image's mean grey by `factor`, >= 0; 1 = unchanged."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    changed = transforms.adjust_contrast(planes.float() / 255.0, _above("factor", factor, -1e-12))
    return _bytes(changed.permute(0, 2, 3, 1).numpy() * 255.0)


def brightness(images: Images, *, factor: float) -> Images:
    """Multiply every value by `factor`, >= 0, and clip; 1 = unchanged."""
    return _bytes(images.astype(np.float64) * _above("factor", factor, -1e-12))


def jpeg(images: Images, *, quality: int) -> Images:
    """Compress and decompress with Pillow's JPEG at `quality` 1..95."""
    if not 1 <= quality <= 95 or int(quality) != quality:
        raise ValueError(f"quality is {quality}, allowed is a whole number in 1..95")
    out = np.empty_like(images)
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="JPEG", quality=int(quality))
        out[i] = np.asarray(Image.open(buffer))
    return out


FAMILIES: Mapping[str, Callable[..., Images]] = {
    "pristine": lambda images: images.copy(),
    "blur": gaussian_blur,
    "noise": gaussian_noise,
    "contrast": contrast,
    "brightness": brightness,
    "jpeg": jpeg,
}


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One condition: a family of distortions with its parameters.

    Parameters
    ----------
    name
        What the condition is called in a cache.
    family
        One of pristine, blur, noise, contrast, brightness, jpeg.
    parameters
        Those of the family's function.
    seed
        Seed of what is random in it.

    """

    name: str
    family: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}, allowed are {sorted(FAMILIES)}")
        object.__setattr__(self, "parameters", dict(self.parameters))

    def __call__(self, images: Images, index: npt.NDArray[np.int64]) -> Images:
        """Distort images (n, height, width, 3) uint8 that have these numbers (n,) in their data set."""
        if self.family == "noise":
            return gaussian_noise(images, index, seed=self.seed, **self.parameters)  # type: ignore[arg-type]
        return FAMILIES[self.family](images, **self.parameters)


def _above(name: str, value: float, limit: float) -> float:
    if not limit < value < math.inf:
        raise ValueError(f"{name} is {value}, allowed is a finite number {'>= 0' if limit < 0 else '> 0'}")
    return float(value)


def _bytes(values: npt.NDArray[np.floating]) -> Images:
    return np.clip(np.rint(values), 0.0, 255.0).astype(np.uint8)
