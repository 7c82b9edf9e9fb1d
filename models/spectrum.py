"""What a router looks at: the log Fourier magnitude of an image, or a few numbers that betray blur, noise and light."""

import functools

import torch
from torch import Tensor

RINGS = 10
FEATURES = (
    *(f"log power of ring {i}" for i in range(RINGS)),
    "log mean square of the Laplacian",
    "log mean of the Laplacian's magnitude",
    "log largest magnitude of the Laplacian",
    "log noise of grey",
    "log noise of red minus blue",
    "log variance",
    "log range",
    "mean",
    "darkest",
    "brightest",
    "mean dark channel",
    "mean bright channel",
)
SMALLEST_SIDE = 20  # below, the innermost ring holds no frequency
_GREY = (0.299, 0.587, 0.114)
_FLOOR = 0.1  # keeps logarithms finite; rounding to 8 bits alone leaves a variance of 1/12


def log_magnitude(images: Tensor) -> Tensor:
    """Logarithm of one plus the Fourier magnitude of the grey image: half the plane, zero frequency in the middle row.

    Parameters
    ----------
    images
        (n, side, side, 3) uint8.

    Returns
    -------
    Tensor
        (n, side, side // 2 + 1) float32; the other half of a real image's spectrum is the same.

    """
    grey = images.float() @ torch.tensor(_GREY)
    spectrum = torch.fft.fftshift(torch.fft.rfft2(grey), dim=1)
    return (spectrum.real.square() + spectrum.imag.square()).sqrt_().log1p_()


def log_magnitude_macs(side: int) -> int:
    """Multiply-accumulates of `log_magnitude` for one image: grey, transform, and three for each magnitude."""
    return 3 * side * side + _transform_macs(side) + 3 * side * (side // 2 + 1)


def features(images: Tensor) -> Tensor:
    """The numbers named in FEATURES.

    Parameters
    ----------
    images
        (n, side, side, 3) uint8, side at least SMALLEST_SIDE pixels.

    Returns
    -------
    Tensor
        (n, 22) float32; powers and variances in squared grey levels under the logarithm, the last five in 0..1.

    Notes
    -----
    Noise is the mean absolute answer of Immerkær's mask (Fast noise variance estimation, 1996), which ignores edges
    that are straight.  Between red and blue there is hardly any detail in a photograph that has once been a JPEG, so
    noise that differs between the channels shows there first: at 5 of 255 it is found in 97 % of CIFAR-10's images,
    and in a third of them from the grey image alone.  Noise that is equal in all channels does not show there.

    """
    n, side = len(images), images.shape[1]
    red, green, blue = images.permute(3, 0, 1, 2).contiguous()
    dark, bright = torch.minimum(torch.minimum(red, green), blue), torch.maximum(torch.maximum(red, green), blue)
    red_, blue_ = red.float(), blue.float()
    grey = (red_ * _GREY[0]).add_(green.float(), alpha=_GREY[1]).add_(blue_, alpha=_GREY[2])
    spectrum = torch.fft.rfft2(grey)
    power = (spectrum.real.square() + spectrum.imag.square()).mul_(1.0 / side**2)
    rings = power.add_(_FLOOR).log_().flatten(1) @ _ring_weights(side)
    across, noise = _immerkaer(grey)
    laplacian = _inner(_bend(grey, side).add_(across[side - 1 : 1 - side])[1:], n, side).abs()
    _, chroma_noise = _immerkaer(red_.sub_(blue_))
    mean = grey.mean((1, 2))
    spread = grey.square().mean((1, 2)) - mean.square()
    darkest, brightest = dark.flatten(1).amin(1).float(), bright.flatten(1).amax(1).float()
    steps = laplacian.flatten(1)
    logs = torch.stack(
        [steps.square().mean(1), steps.mean(1), steps.amax(1), noise, chroma_noise, spread, brightest - darkest], dim=1
    )
    light = torch.stack([mean, darkest, brightest, dark.float().mean((1, 2)), bright.float().mean((1, 2))], dim=1)
    return torch.cat([rings, logs.clamp_(min=0.0).add_(_FLOOR).log_(), light / 255.0], dim=1)


def features_macs(side: int) -> int:
    """Multiply-accumulates of `features` for one image; an addition, a comparison and a logarithm count as one each."""
    pixels, half = side * side, side * (side // 2 + 1)
    planes = 3 * pixels + 4 * pixels + pixels  # grey, dark and bright channel, red minus blue
    spectrum = _transform_macs(side) + 4 * half + RINGS * half
    masks = 2 * 5 * pixels + 3 * pixels + 4 * pixels  # two Immerkær masks with their means, the Laplacian, its numbers
    light = 6 * pixels  # mean and spread of grey; least, largest and means of dark and bright
    return planes + spectrum + masks + light


def _transform_macs(side: int) -> int:
    """A real transform of N values takes 2.5 N log2 N additions and multiplications; two of them are one here."""
    n = side * side
    return round(1.25 * n * (n.bit_length() - 1))


@functools.cache
def _ring_weights(side: int) -> Tensor:
    """(side * (side // 2 + 1), RINGS): averages over rings of equal width up to half a cycle, then the corners."""
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    radius = (rows.square() + columns.square()).sqrt()
    ring = (radius * (2 * (RINGS - 1))).long().clamp_(max=RINGS - 1)
    times = torch.full_like(radius, 2.0)  # all columns but these stand for their mirror image as well
    times[:, 0] = 1.0
    if side % 2 == 0:
        times[:, -1] = 1.0
    times[0, 0] = 0.0  # the mean is a feature of its own
    weights = torch.zeros(radius.numel(), RINGS).scatter_(1, ring.view(-1, 1), times.view(-1, 1))
    return weights / weights.sum(0)


def _bend(plane: Tensor, step: int) -> Tensor:
    """Second differences between values `step` apart in memory; those across a border mean nothing."""
    flat = plane.view(-1)  # one long row: slices of a plane would break the vector instructions at every line
    return torch.add(flat[2 * step :], flat[step:-step], alpha=-2.0).add_(flat[: -2 * step])


def _inner(flat: Tensor, n: int, side: int) -> Tensor:
    """What of `flat` lies inside the borders, (n, side - 2, side - 2)."""
    return flat.as_strided((n, side - 2, side - 2), (side * side, side, 1))


def _immerkaer(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Second differences along the rows, and the mean absolute answer (n,) of the mask (1 -2 1) x (1 -2 1)."""
    n, side = plane.shape[:2]
    across = _bend(plane, 1)
    return across, _inner(_bend(across, side).abs_(), n, side).mean((1, 2))
