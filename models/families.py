"""The four families of distortion that have an expert each, and the mix of levels that an expert is trained on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offramp.models import distort
from offramp.models.distort import Images

FAMILIES = ("pristine", "blur", "noise", "light")
FAMILY_OF: Mapping[str, str] = {
    "pristine": "pristine",
    "gaussian_blur": "blur",
    "gaussian_noise": "noise",
    "contrast": "light",
    "brightness": "light",
    "fog": "light",
}
FOG_DECAY = 2.0


@dataclass(frozen=True)
class Level:
    """One corruption at one strength.

    Parameters
    ----------
    corruption
        pristine, gaussian_blur, gaussian_noise, contrast, brightness or fog.
    value
        Its strength: sigma in pixels, sigma out of 255, factor, factor, amount (with FOG_DECAY); nothing
        for pristine.

    """

    corruption: str
    value: float

    def __post_init__(self) -> None:
        if self.corruption not in FAMILY_OF:
            raise ValueError(f"corruption is {self.corruption!r}, allowed are {sorted(FAMILY_OF)}")

    @property
    def family(self) -> str:
        """The family that the corruption belongs to."""
        return FAMILY_OF[self.corruption]

    def __call__(self, images: Images, index: npt.NDArray[np.int64], seed: int) -> Images:
        """Distort images (n, height, width, 3) uint8 that have these numbers (n,) in their data set."""
        if self.corruption == "pristine":
            return images.copy()
        if self.corruption == "gaussian_blur":
            return distort.gaussian_blur(images, sigma=self.value)
        if self.corruption == "gaussian_noise":
            return distort.gaussian_noise(images, index, sigma=self.value, seed=seed)
        if self.corruption == "contrast":
            return distort.contrast(images, factor=self.value)
        if self.corruption == "brightness":
            return distort.brightness(images, factor=self.value)
        return distort.fog(images, index, amount=self.value, decay=FOG_DECAY, seed=seed)


def _spaced(corruption: str, first: float, last: float) -> tuple[Level, ...]:
    return tuple(Level(corruption, round(float(v), 4)) for v in np.linspace(first, last, 16))


LEVELS: Mapping[str, tuple[Level, ...]] = {
    "pristine": (),
    "blur": _spaced("gaussian_blur", 0.5, 2.0),
    "noise": _spaced("gaussian_noise", 5.0, 50.0),
    "light": _spaced("contrast", 0.15, 0.6) + _spaced("brightness", 0.25, 0.6) + _spaced("fog", 0.5, 1.25),
}


def distort_mix(
    images: Images, index: npt.NDArray[np.int64], family: str, *, share: float = 0.5, seed: int
) -> tuple[Images, npt.NDArray[np.int64]]:
    """Distort a share of the images at levels of one family, drawn uniformly.

    Parameters
    ----------
    images
        (n, height, width, 3) uint8; they stay as they are.
    index
        Number of each image in its data set, (n,): an image is treated the same in whatever company.
    family
        One of FAMILIES; nothing is distorted for "pristine".
    share
        Probability in [0, 1] that an image is distorted.
    seed
        Seed of what is drawn: who is distorted, at which level, and the corruption's own noise.  Numbers start at 0
        in each data set, so take another seed for another one, or its images get the same noise.

    Returns
    -------
    tuple
        The images, and for each the position of its level in LEVELS[family], -1 where it was left pristine, (n,).

    Notes
    -----
    As in Pacheco et al. (GLOBECOM 2021), half of an expert's training images are distorted, at a level drawn uniformly.

    Examples
    --------
    >>> import numpy as np
    >>> made, level = distort_mix(np.zeros((3, 32, 32, 3), np.uint8), np.arange(3), "blur", share=1.0, seed=0)
    >>> [LEVELS["blur"][i].value for i in level]  # pixels
    [1.1, 0.9, 1.8]

    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}, allowed are {FAMILIES}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}, allowed is a probability in 0..1")
    if np.shape(index) != images.shape[:1]:
        raise ValueError(f"index has shape {np.shape(index)}, allowed is {images.shape[:1]}: one number for each image")
    made = images.copy()
    chosen = np.full(len(images), -1, dtype=np.int64)
    levels = LEVELS[family]
    if levels:
        # The third word keeps the draws apart from the noise, whose generator is seeded by (seed, number).
        tag = FAMILIES.index(family)
        draws = np.array([np.random.default_rng((seed, int(i), tag)).random(2) for i in index]).reshape(-1, 2)
        chosen = np.where(draws[:, 0] < share, (draws[:, 1] * len(levels)).astype(np.int64), -1)
    for position in np.unique(chosen[chosen >= 0]):
        here = chosen == position
        made[here] = levels[position](images[here], index[here], seed)
    return made, chosen
