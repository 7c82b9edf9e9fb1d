"""A router tells from an image's pixels which family of distortion it belongs to, and so which expert it needs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from offramp.models.families import FAMILIES
from offramp.models.spectrum import (
    FEATURES,
    SMALLEST_SIDE,
    features,
    features_macs,
    log_magnitude,
    log_magnitude_macs,
)
from offramp.models.weights import HERE, WeightsError, read_tensors, write_tensors

SCHEMA = "offramp-router-1"
_CHUNK = 64  # images measured at once: their planes stay in the processor's cache


class Router(nn.Module, ABC):
    """Turns 8-bit images into the probabilities of FAMILIES; `LinearRouter` and `SpectrumRouter` say how.

    Parameters
    ----------
    side
        Height and width in pixels of the images that it is trained for.
    measured
        Shape of what it measures of one image.
    head
        Turns standardised measurements into logits (n, 4).

    """

    kind: str
    mean: Tensor
    scale: Tensor

    def __init__(self, side: int, measured: tuple[int, ...], head: nn.Module) -> None:
        super().__init__()
        if side < SMALLEST_SIDE:
            raise ValueError(f"side is {side}, allowed is {SMALLEST_SIDE} pixels or more")
        self.side = side
        self.register_buffer("mean", torch.zeros(measured))
        self.register_buffer("scale", torch.ones(measured))
        self.head = head

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates for one image, transform and standardising included."""

    @abstractmethod
    def measure(self, images: Tensor) -> Tensor:
        """What is measured of images (n, side, side, 3) uint8: (n, ...) float32."""

    def logits(self, measured: Tensor) -> Tensor:
        """Logits (n, 4) of what was measured."""
        return self.head((measured - self.mean) / self.scale)

    @torch.no_grad()
    def forward(self, images: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Probabilities of FAMILIES, (n, 4) float32, each row summing to 1.

        Parameters
        ----------
        images
            (n, side, side, 3) uint8 in 0..255, before any normalisation.

        Raises
        ------
        ValueError
            Another type, rank or size.

        """
        pixels = torch.as_tensor(images)
        if pixels.dtype != torch.uint8:
            raise ValueError(f"images are {str(pixels.dtype).removeprefix('torch.')}, allowed is uint8 in 0..255")
        if pixels.ndim != 4 or pixels.shape[1:] != (self.side, self.side, 3):
            raise ValueError(
                f"images have shape {tuple(pixels.shape)}, allowed is (n, {self.side}, {self.side}, 3): "
                f"this router is trained for {self.side} pixels"
            )
        if not len(pixels):
            return torch.zeros(0, len(FAMILIES))
        return torch.cat([self.logits(self.measure(part)).softmax(1) for part in pixels.split(_CHUNK)])


class _Quadratic(nn.Linear):
    """Linear in the standardised features and their products; features beyond five deviations count as five."""

    def __init__(self, n: int) -> None:
        super().__init__(n + n * n, len(FAMILIES))

    @staticmethod
    def products(z: Tensor) -> Tensor:
        """Features (n, k) and their products, (n, k + k * k)."""
        z = z.clamp(-5.0, 5.0)
        return torch.cat([z, (z[:, :, None] * z[:, None, :]).flatten(1)], dim=1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.products(input))


class LinearRouter(Router):
    """Multinomial logistic regression on `offramp.models.spectrum.features` and their products.

    Examples
    --------
    >>> router = load_router(DEFAULT)
    >>> pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    >>> FAMILIES[int(router(pixels).argmax())]
    'noise'

    """

    kind = "linear"
    head: _Quadratic

    def __init__(self, side: int = 32) -> None:
        super().__init__(side, (len(FEATURES),), _Quadratic(len(FEATURES)))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: features, their products, four weighted sums."""
        n = len(FEATURES)
        return features_macs(self.side) + n + n * n + self.head.in_features * len(FAMILIES)

    def measure(self, images: Tensor) -> Tensor:
        """The features (n, 22) of images (n, side, side, 3) uint8."""
        return features(images)


class SpectrumRouter(Router):
    """A small convolutional network on the log Fourier magnitude of the grey image.

    Notes
    -----
    The network of Pacheco et al. (GLOBECOM 2021), after CollabAR (IPSN 2020), with one input channel instead of three
    equal ones, half of the symmetric spectrum, borders padded, and each frequency standardised.  The first two
    convolutions have a ReLU, as in CollabAR; the bottleneck of one channel has none, since it can die there.

    """

    kind = "spectrum"

    def __init__(self, side: int = 32) -> None:
        measured = (1, side, side // 2 + 1)
        rows, columns = (side + 1) // 2, (side // 2 + 2) // 2  # after the stride
        self._positions = [(rows // shrunk) * (columns // shrunk) for shrunk in (1, 2, 4)]  # and after each pool
        head = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 1, 1),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(self._positions[2], len(FAMILIES)),
        )
        super().__init__(side, measured, head)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: spectrum, standardising, convolutions, classifier."""
        whole, pooled, last = self._positions
        convolutions = whole * (9 * 32 + 9 * 32 * 16) + pooled * 16
        standardising = self.side * (self.side // 2 + 1)
        return log_magnitude_macs(self.side) + standardising + convolutions + last * len(FAMILIES)

    def measure(self, images: Tensor) -> Tensor:
        """The spectra (n, 1, side, side // 2 + 1) of images (n, side, side, 3) uint8."""
        return log_magnitude(images)[:, None]


KINDS: Mapping[str, type[LinearRouter] | type[SpectrumRouter]] = {"linear": LinearRouter, "spectrum": SpectrumRouter}
DEFAULT = HERE / "router_linear.safetensors"


def save_router(router: Router, path: Path, card: Mapping[str, Any]) -> None:
    """Write a router with its card in the header."""
    header = {"kind": router.kind, "side": router.side, "families": list(FAMILIES), "card": dict(card)}
    write_tensors(path, router.state_dict(), header, SCHEMA)


def load_router(path: Path = DEFAULT) -> Router:
    """Read a router that `save_router` wrote; without a path the one that ships with the package.

    Raises
    ------
    WeightsError
        The file is missing or damaged, or holds another kind of router or other families.

    """
    state, header = read_tensors(path, SCHEMA)
    if header["kind"] not in KINDS:
        raise WeightsError(f"{path}: kind is {header['kind']!r}, allowed are {sorted(KINDS)}")
    if header["families"] != list(FAMILIES):
        raise WeightsError(f"{path}: families are {header['families']}, allowed are {list(FAMILIES)}")
    router = KINDS[header["kind"]](header["side"])
    wanted = {name: tensor.shape for name, tensor in router.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != wanted:
        raise WeightsError(f"{path}: its tensors do not belong to a {header['kind']} router of {router.side} pixels")
    router.load_state_dict(state)
    return router.eval()


def read_card(path: Path) -> dict[str, Any]:
    """The card in a router's file."""
    return dict(read_tensors(path, SCHEMA)[1]["card"])
