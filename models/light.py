"""Changes of light on 8-bit images: brightness, contrast, saturation, and fog of a random fractal."""

import numpy as np
import numpy.typing as npt
import torch

from offramp.models import torchvision_ops
from offramp.models.corruption import Images, Index, choice, corruption, generators, number, to_bytes

torchvision_ops.ensure()
from torchvision.transforms.v2 import functional as transforms  # noqa: E402  (its operators must be declared first)

FACTOR = number(least=0.0, most=1000.0)
SHIFT = number(least=-1.0, most=1.0)


@corruption("light", one_of=("factor", "shift"), factor=FACTOR, shift=SHIFT)
def brightness(images: Images, *, factor: float | None = None, shift: float | None = None) -> Images:
    """Multiply every value by `factor` and clip, or add `shift` to the value V of HSV; exactly one of the two.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    factor
        In 0..1000; 1 = unchanged.
    shift
        In -1..1, added to the largest channel on 0..1, which is then clipped; hue and saturation stay, so the other
        channels grow in proportion.  This is the one of CIFAR-C; 0 = unchanged.

    """
    if shift is None:
        return to_bytes(images * np.float64(factor))
    x, most, _ = _planes(images)
    moved = np.clip(most + shift, 0.0, 1.0)
    scaled = x * np.divide(moved, most, out=np.zeros_like(most), where=most > 0.0)
    return to_bytes(255.0 * np.where(most > 0.0, scaled, moved))


@corruption("light", factor=FACTOR, mean=choice("grey", "channels"))
def contrast(images: Images, *, factor: float, mean: str = "grey") -> Images:
    """Scale the distance from each image's mean by `factor`, >= 0; 1 = unchanged.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    factor
        In 0..1000.
    mean
        "grey": the mean of the image's luminance, so that factor 0 leaves one grey; "channels": each channel's own
        mean, so that factor 0 leaves one colour.  The latter is the one of CIFAR-C.

    """
    if mean == "channels":
        x = images.astype(np.float64)
        means = x.mean(axis=(1, 2), keepdims=True)
        return to_bytes((x - means) * factor + means)
    planes = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
    changed = transforms.adjust_contrast(planes / 255.0, float(factor))
    return to_bytes(changed.permute(0, 2, 3, 1).numpy() * 255.0)


@corruption("light", scale=FACTOR, shift=SHIFT)
def saturation(images: Images, *, scale: float, shift: float = 0.0) -> Images:
    """Make the saturation S of HSV, in 0..1, scale * S + shift and clip it; hue and value stay.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    scale
        In 0..1000; 0 with shift 0 leaves grey, 1 with shift 0 leaves the image.
    shift
        In -1..1.

    Notes
    -----
    Grey has no hue; as in CIFAR-C it counts as red, so a shift above 0 tints grey pixels.

    """
    x, most, range_ = _planes(images)
    coloured = range_ > 0.0
    hue = np.divide(most - x, range_, out=np.zeros_like(x), where=coloured)  # 0 at the largest channel, 1 at the least
    hue = np.where(coloured, hue, np.array([0.0, 1.0, 1.0]))
    found = np.divide(range_, most, out=np.zeros_like(most), where=most > 0.0)
    return to_bytes(255.0 * most * (1.0 - np.clip(scale * found + shift, 0.0, 1.0) * hue))


@corruption("light", amount=number(above=0.0), decay=number(least=1.0, most=100.0))
def fog(images: Images, index: Index, *, amount: float, decay: float, seed: int) -> Images:
    """Add a grey fractal times `amount`, then scale so that the brightest value could stay what it was.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    index
        Number of each image in its data set, (n,): each has fog of its own.
    amount
        Of fog, > 0, where the image is 0..1 and the fractal is 0..1: x becomes (x + amount * fractal) times
        max / (max + amount), max being the image's largest value.
    decay
        In 1..100; large = smooth clouds, 1 = grain.
    seed
        Seed of the fog.

    Notes
    -----
    The fractal of CIFAR-C: diamond and square steps on a torus whose side is the next power of two.  There the random
    offset falls by the square of `decay` at each halving of the grid, and so it does here.

    """
    x = images.astype(np.float64) / 255.0
    most = x.max(axis=(1, 2, 3), keepdims=True)
    x += amount * _plasma(images.shape[1:3], seed, index, decay)[..., None]
    return to_bytes(255.0 * (x * (most / (most + amount))))


def _planes(images: Images) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Images on 0..1, the largest channel of each pixel and its distance from the least, each with a last axis."""
    x = images.astype(np.float64) / 255.0
    most = x.max(axis=3, keepdims=True)
    return x, most, most - x.min(axis=3, keepdims=True)


def _plasma(size: tuple[int, ...], seed: int, index: Index, decay: float) -> npt.NDArray[np.float64]:
    """Diamond-square fractals on 0..1, (n, *size), one for each image number."""
    side = 1 << (max(size) - 1).bit_length()
    offsets = np.empty((len(index), side * side - 1))
    for row, rng in zip(offsets, generators(seed, index), strict=True):
        row[:] = rng.uniform(-1.0, 1.0, side * side - 1)
    height = np.zeros((len(index), side, side))
    used, spread, step = 0, 1.0, side
    while step > 1:
        half, cells = step // 2, (side // step) ** 2
        corners = height[:, ::step, ::step]
        drawn = spread * offsets[:, used : used + 3 * cells].reshape(len(index), 3, *corners.shape[1:])
        below, right = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=2)
        centres = (corners + below + right + np.roll(below, -1, axis=2)) / 4.0 + drawn[:, 0]
        height[:, half::step, half::step] = centres
        height[:, ::step, half::step] = (corners + right + centres + np.roll(centres, 1, axis=1)) / 4.0 + drawn[:, 1]
        height[:, half::step, ::step] = (corners + below + centres + np.roll(centres, 1, axis=2)) / 4.0 + drawn[:, 2]
        used, spread, step = used + 3 * cells, spread / decay**2, half
    height -= height.min(axis=(1, 2), keepdims=True)
    height /= height.max(axis=(1, 2), keepdims=True)
    return height[:, : size[0], : size[1]]
