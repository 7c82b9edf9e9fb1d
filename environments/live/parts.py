"""What the edge is put together from: its half of a network, image by image, and who decides."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from offramp.bandits.contract import Decision, Observation, Quote
from offramp.bandits.rows import FloatArray


class Pass(Protocol):
    """One image on its way through the edge's half; `offramp.models.halves.EdgePass` is one."""

    expert: int

    def context(self) -> FloatArray:
        """What a router says of the image, (d,); (0,) without one."""

    def segment(self) -> None:
        """Go one segment deeper."""

    def speak(self) -> tuple[float, int]:
        """Confidence and class of the exit behind the last segment."""

    def payload(self, codec: str) -> bytes:
        """What the cloud needs to go on from here."""


class EdgeHalf(Protocol):
    """The edge's half of a network of L exits and K classes; `offramp.models.halves.EdgeNetwork` is one.

    `identity` is a SHA-256 of all that its answers depend on; the cloud's half must have the same.
    """

    exits: int
    classes: int
    identity: str

    def start(self, image: npt.NDArray[np.uint8]) -> Pass:
        """Begin with an image (height, width, channels) uint8."""


class Decides(Protocol):
    """An engine: `Engine`, or `DurableEngine`."""

    def decide(self, quote: Quote, context: Any = None) -> Decision:
        """Decide on one request."""

    def update(self, decision: Any, observation: Observation) -> Any:
        """Learn; true, or "counted", where it counted."""
