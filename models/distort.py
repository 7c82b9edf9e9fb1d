"""Distortions of 8-bit images as named conditions: thirteen corruptions and their presets in CIFAR-C."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offramp.models.blurs import defocus_blur, gaussian_blur, motion_blur
from offramp.models.compression import jpeg, pixelation
from offramp.models.corruption import CORRUPTIONS, Corruption, Images, Index, check_seed, corruption
from offramp.models.light import brightness, contrast, fog, saturation
from offramp.models.noises import OVERFLOW, gaussian_noise, impulse_noise, shot_noise, speckle_noise

__all__ = [
    "CORRUPTIONS",
    "OVERFLOW",
    "PRESETS",
    "Corruption",
    "Distortion",
    "Images",
    "brightness",
    "cifar_c",
    "contrast",
    "defocus_blur",
    "fog",
    "gaussian_blur",
    "gaussian_noise",
    "impulse_noise",
    "jpeg",
    "motion_blur",
    "pixelation",
    "preset",
    "saturation",
    "shot_noise",
    "speckle_noise",
]


@corruption("pristine")
def pristine(images: Images) -> Images:
    """A copy of the images."""
    return images.copy()


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One condition: a corruption with its parameters.

    Parameters
    ----------
    name
        What the condition is called in a cache.
    corruption
        pristine; gaussian_noise, shot_noise, impulse_noise, speckle_noise; gaussian_blur, defocus_blur, motion_blur;
        brightness, contrast, saturation, fog; pixelation, jpeg.
    parameters
        Those of the corruption's function.
    seed
        Seed of what is random in it, a whole number >= 0.

    Raises
    ------
    ValueError
        The corruption or a parameter is unknown, missing or out of range.

    Examples
    --------
    >>> Distortion(name="soft", corruption="gaussian_blur", parameters={"sigma": 0.8}).family
    'blur'
    >>> Distortion(name="soft", corruption="gaussian_blur", parameters={"radius": 0.8})
    Traceback (most recent call last):
    ValueError: gaussian_blur has no parameter 'radius', allowed are ['sigma']

    """

    name: str
    corruption: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.corruption not in CORRUPTIONS:
            raise ValueError(f"corruption is {self.corruption!r}, allowed are {sorted(CORRUPTIONS)}")
        CORRUPTIONS[self.corruption].check(self.parameters)
        check_seed(self.seed)
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.parameters.items()}
        object.__setattr__(self, "parameters", plain)  # plain numbers: they are written as JSON

    @property
    def family(self) -> str:
        """pristine, blur, noise, light or compression."""
        return CORRUPTIONS[self.corruption].family

    def __call__(self, images: Images, index: Index) -> Images:
        """Distort images (n, height, width, 3) uint8 that have these numbers (n,) in their data set."""
        chosen = CORRUPTIONS[self.corruption]
        drawn = {"index": index, "seed": self.seed} if chosen.seeded else {}
        return chosen.apply(images, **drawn, **self.parameters)


def _rows(*names: str, rows: tuple[tuple[float, ...], ...], **fixed: str) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(names, row, strict=True)) | fixed for row in rows)


def _column(name: str, *values: float, **fixed: str) -> tuple[dict[str, Any], ...]:
    return _rows(name, rows=tuple((v,) for v in values), **fixed)


PRESETS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "gaussian_noise": _column("sigma", 10.2, 15.3, 20.4, 22.95, 25.5),  # 0.04, 0.06, 0.08, 0.09, 0.1 times 255
    "shot_noise": _column("rate", 500, 250, 100, 75, 50),
    "impulse_noise": _column("fraction", 0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": _column("sigma", 0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": _column("sigma", 0.4, 0.6, 0.7, 0.8, 1.0),
    "defocus_blur": _rows("radius", "alias", rows=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
    "motion_blur": _rows("radius", "sigma", rows=((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "fog": _rows("amount", "decay", rows=((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": _column("shift", 0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": _column("factor", 0.75, 0.5, 0.4, 0.3, 0.15, mean="channels"),
    "saturation": _rows("scale", "shift", rows=((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))),
    "pixelation": _column("scale", 0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg": _column("quality", 80, 65, 58, 50, 40),
}
SEVERITIES = range(1, 6)


def preset(corruption: str, severity: int, *, seed: int = 0) -> Distortion:
    """A corruption at one of the five severities of CIFAR-C, for images of 32 x 32 pixels.

    Parameters
    ----------
    corruption
        Any but pristine.
    severity
        1 (mild) to 5.
    seed
        Seed of what is random in it.

    Raises
    ------
    ValueError
        The corruption has no preset, or there is no such severity.

    Notes
    -----
    Parameters and definitions of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations", ICLR 2019.  What differs: values are rounded to 8 bits, not cut off; the Gaussian
    blur reaches three sigma and mirrors the border.  Results that are to be compared with published ones belong on
    the published images: `offramp.models.cifar10_c`.

    Examples
    --------
    >>> preset("fog", 3)
    Distortion(name='fog 3', corruption='fog', parameters={'amount': 0.75, 'decay': 2.5}, seed=0)

    """
    if corruption not in PRESETS:
        raise ValueError(f"corruption is {corruption!r}, allowed are {sorted(PRESETS)}")
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}, allowed is a whole number in 1..5")
    name = f"{corruption.replace('_', ' ')} {int(severity)}"
    return Distortion(name=name, corruption=corruption, parameters=PRESETS[corruption][int(severity) - 1], seed=seed)


def cifar_c(*, seed: int = 0) -> list[Distortion]:
    """Pristine, and every corruption at every severity: 66 conditions."""
    made = [preset(corruption, severity, seed=seed) for corruption in PRESETS for severity in SEVERITIES]
    return [Distortion(name="pristine", corruption="pristine"), *made]
