"""Noises on 8-bit images: Gaussian, shot, impulse and speckle, drawn anew for each image from its number."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from offramp.models.corruption import Images, Index, choice, corruption, generators, number, to_bytes

Noisy = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, Images], Noisy]
SIGMA = number(above=0.0, most=1e6)
OVERFLOW = ("clip", "wrap_sum", "wrap_noise")


@corruption("noise", sigma=SIGMA, overflow=choice(*OVERFLOW))
def gaussian_noise(images: Images, index: Index, *, sigma: float, seed: int, overflow: str = "clip") -> Images:
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

    def noisy(rng: np.random.Generator, image: Images) -> Noisy:
        noise = rng.normal(0.0, sigma, image.shape)
        if overflow == "wrap_sum":
            return np.mod(np.trunc(image + noise), 256.0)
        if overflow == "wrap_noise":
            return np.add(image, np.mod(np.trunc(noise), 256.0))
        return np.add(image, noise)

    return _each(images, index, seed, noisy)


@corruption("noise", rate=number(above=0.0, most=1e9))
def shot_noise(images: Images, index: Index, *, rate: float, seed: int) -> Images:
    """Replace every value x in 0..1 by a Poisson count of mean x * rate, divided by the rate.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    index
        Number of each image in its data set, (n,).
    rate
        Counts that a white value expects, in (0, 1e9]; the standard deviation on 0..1 is sqrt(x / rate).
    seed
        Seed of the noise.

    """
    return _each(images, index, seed, lambda rng, image: rng.poisson(image * (rate / 255.0)) / rate * 255.0)


@corruption("noise", fraction=number(above=0.0, most=1.0))
def impulse_noise(images: Images, index: Index, *, fraction: float, seed: int) -> Images:
    """Set a fraction of all channel values to 0 or 255, either with the same probability.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    index
        Number of each image in its data set, (n,).
    fraction
        Probability in (0, 1] of each value of each channel, on its own.
    seed
        Seed of the noise.

    """

    def noisy(rng: np.random.Generator, image: Images) -> Noisy:
        uniform = rng.random(image.shape)  # one draw decides both: below half the fraction black, then white
        return np.where(uniform < fraction, np.where(uniform < fraction / 2.0, 0.0, 255.0), image)

    return _each(images, index, seed, noisy)


@corruption("noise", sigma=SIGMA)
def speckle_noise(images: Images, index: Index, *, sigma: float, seed: int) -> Images:
    """Add to every value x normal noise of standard deviation x * sigma.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8.
    index
        Number of each image in its data set, (n,).
    sigma
        Standard deviation as a share of the value, > 0; black stays black.
    seed
        Seed of the noise.

    """
    return _each(images, index, seed, lambda rng, image: image * (1.0 + rng.normal(0.0, sigma, image.shape)))


def _each(images: Images, index: Index, seed: int, noisy: Draw) -> Images:
    out = np.empty_like(images)
    for image, rng, made in zip(images, generators(seed, index), out, strict=True):
        made[:] = to_bytes(noisy(rng, image))
    return out
