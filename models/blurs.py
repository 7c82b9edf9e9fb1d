"""Blurs of 8-bit images: Gaussian, out of focus, and along a line at a random angle."""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from offramp.models import torchvision_ops
from offramp.models.corruption import POSITIVE, Images, Index, corruption, generators, number, to_bytes

torchvision_ops.ensure()
from torchvision.transforms.v2 import functional as transforms  # noqa: E402  (its operators must be declared first)

Taps = Iterable[tuple[int, int, float]]  # row offset, column offset, weight
NEGLIGIBLE = 1e-6  # of a kernel's sum: a thousandth of what could change an 8-bit value


@corruption("blur", sigma=POSITIVE)
def gaussian_blur(images: Images, *, sigma: float) -> Images:
    """Blur with a Gaussian of `sigma` pixels, > 0; the kernel reaches three sigma, the border is mirrored.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    sigma
        Standard deviation in pixels of these images, whatever their size.

    Notes
    -----
    CIFAR-C reaches four sigma and repeats the border.

    """
    side = 2 * math.ceil(3.0 * sigma) + 1
    smallest = min(images.shape[1:3])
    if side // 2 >= smallest:
        raise ValueError(f"sigma is {sigma}, allowed is below {(smallest - 1) / 3:.1f} for this image size")
    if not len(images):
        return images.copy()
    width = max(float(sigma), 0.01)  # a narrower one leaves the image as well, and divides 0 by 0 in float32
    planes = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
    blurred = transforms.gaussian_blur(planes, [side, side], [width, width])
    return to_bytes(blurred.permute(0, 2, 3, 1).numpy())


@corruption("blur", radius=number(above=0.0, most=1000.0), alias=POSITIVE)
def defocus_blur(images: Images, *, radius: float, alias: float) -> Images:
    """Average over a disk, whose edge is softened by a small Gaussian; the border is mirrored.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    radius
        Of the disk, in pixels, in (0, 1000]: all pixels whose centres lie that near.  Below 1 the disk is one pixel,
        and only the Gaussian blurs.
    alias
        Standard deviation of that Gaussian in pixels, > 0; it reaches one pixel, two where the radius is 9 or more.

    Notes
    -----
    The kernel of ImageNet-C (Hendrycks and Dietterich, 2019).

    """
    kernel = _disk(float(radius), float(alias))
    reach, smallest = len(kernel) // 2, min(images.shape[1:3])
    if reach >= smallest:
        limit = smallest - 1 if smallest <= 10 else smallest - 2
        raise ValueError(f"radius is {radius}, allowed is below {limit} for this image size")
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect").astype(np.float32)
    taps = [(int(y) - reach, int(x) - reach, float(kernel[y, x])) for y, x in np.argwhere(kernel > NEGLIGIBLE)]
    return to_bytes(_weighted(padded, taps, reach))


@corruption("blur", radius=number(above=0.0, most=1000.0), sigma=POSITIVE)
def motion_blur(images: Images, index: Index, *, radius: float, sigma: float, seed: int) -> Images:
    """Smear each image along a line, at an angle drawn uniformly from -45..45 degrees; the border is repeated.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    index
        Number of each image in its data set, (n,).
    radius
        The line is 2 ceil(radius) + 1 pixels long; in (0, 1000].
    sigma
        Its weights fall like a Gaussian of so many pixels, > 0, from its one end: the image moves with the blur.
    seed
        Seed of the angles.

    Notes
    -----
    The line of ImageMagick's motion blur, which CIFAR-C uses: one-sided, each step at the nearest pixel.  Steps of
    less than a millionth of the weight are left out.  A radius of three sigma or more cuts nothing off that counts, so
    severities 3 and 4 of CIFAR-C (radius 6 and 8, sigma 2) are the same.

    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = _gaussian(steps, float(sigma))
    weights /= weights.sum()
    steps, weights = steps[weights > NEGLIGIBLE], weights[weights > NEGLIGIBLE]
    reach, out = int(steps[-1]), np.empty_like(images)
    border = ((reach, reach), (reach, reach), (0, 0))
    for image, rng, made in zip(images, generators(seed, index), out, strict=True):
        angle = math.radians(rng.uniform(-45.0, 45.0))
        rows, columns = (np.ceil(steps * part - 0.5).astype(int) for part in (math.sin(angle), math.cos(angle)))
        padded = np.pad(image, border, mode="edge").astype(np.float32)
        made[:] = to_bytes(_weighted(padded, zip(rows, columns, weights / weights.sum(), strict=True), reach))
    return out


def _gaussian(distance: npt.NDArray[np.int64], sigma: float) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore"):  # far from a narrow Gaussian the weight is 0
        return np.exp(-0.5 * (distance / sigma) ** 2)


def _disk(radius: float, alias: float) -> npt.NDArray[np.float64]:
    soft = 1 if radius < 9 else 2
    reach = math.floor(radius) + soft
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= radius**2).astype(np.float64)
    weights = _gaussian(np.abs(np.arange(-soft, soft + 1)), alias)
    soften = np.outer(weights, weights)
    kernel = np.zeros(disk.shape)
    for row, column in np.ndindex(soften.shape):
        kernel += soften[row, column] * np.roll(disk, (row - soft, column - soft), axis=(0, 1))
    kernel /= kernel.sum()
    return kernel


def _weighted(padded: npt.NDArray[np.float32], taps: Taps, reach: int) -> npt.NDArray[np.float32]:
    """Sum of shifted images: the same order of additions for each pixel, so no image depends on its company."""
    height, width = (side - 2 * reach for side in padded.shape[-3:-1])
    total = np.zeros((*padded.shape[:-3], height, width, 3), dtype=np.float32)
    for row, column, weight in taps:
        y, x = reach + row, reach + column
        total += np.float32(weight) * padded[..., y : y + height, x : x + width, :]
    return total
