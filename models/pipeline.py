"""The pipeline of one image on real networks: detect, pick the expert, run exits up to the cut, answer or offload."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from offramp.models.data import normalise
from offramp.models.distort import Images
from offramp.models.experts import Experts
from offramp.models.families import FAMILIES
from offramp.models.router import Router

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What was answered to one image.

    Parameters
    ----------
    prediction, confidence
        Class, and its calibrated probability in [0, 1].
    exit
        Exit that answers, 1..L.
    offloaded
        Was the cloud asked?
    expert
        Name of the expert whose exits spoke.
    confidences, predictions
        Of all exits that were evaluated, first exit first; the last is the cloud's if it was asked.

    """

    prediction: int
    confidence: float
    exit: int
    offloaded: bool
    expert: str
    confidences: tuple[float, ...]
    predictions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Handover:
    """What the edge sends to the cloud where none of its exits is sure enough.

    Parameters
    ----------
    features
        Feature map at the cut, (1, channels, height, width); at cut 0 the normalised image.
    cut
        Where the edge stopped, 0..L - 1.
    expert
        Name of the expert that the cloud must use as well.
    confidences, predictions
        Of the exits on the edge, cut numbers each.
    target
        Threshold at the cut; +inf at cut 0, or where that exit never answers.

    """

    features: Tensor
    cut: int
    expert: str
    confidences: tuple[float, ...]
    predictions: tuple[int, ...]
    target: float


class Pipeline:
    """Router, experts and calibration over one network, as a device and its cloud run them.

    Parameters
    ----------
    experts
        The sets of exits and the backbone that they share.
    router
        Tells which expert an image needs; None = always the first.
    temperatures
        Temperature of each exit for each expert by name, (L,) > 0; an expert that is left out keeps its raw confidence.
    fallback
        "none", or "most_confident": where even the last exit stays below the target, the most confident exit answers.

    Notes
    -----
    Source: arXiv 2108.09343, whose edge exits answer above the target and whose last answers from it on; here every
    exit answers from its threshold on.

    """

    def __init__(
        self,
        experts: Experts,
        router: Router | None = None,
        *,
        temperatures: Mapping[str, Sequence[float]] | None = None,
        fallback: str = "none",
    ) -> None:
        if fallback not in ("none", "most_confident"):
            raise ValueError(f"fallback is {fallback!r}, allowed are 'none' and 'most_confident'")
        if router is not None and tuple(experts.families) != FAMILIES:
            raise ValueError(f"experts are {experts.families}, allowed with a router are {FAMILIES}, in this order")
        exits = experts.network.n_exits
        self._temperature = dict.fromkeys(experts.families, np.ones(exits))
        for name, values in (temperatures or {}).items():
            found = np.asarray(values, dtype=np.float64)
            if name not in experts.families or found.shape != (exits,) or not ((found > 0) & (found < math.inf)).all():
                raise ValueError(
                    f"temperatures[{name!r}] are {values}, "
                    f"allowed are {exits} finite numbers > 0 for each of {experts.families}"
                )
            self._temperature[name] = found
        self.experts, self.router, self.fallback = experts.eval(), router, fallback
        self.experts.network.eval()

    def detect(self, image: Images) -> tuple[str, Floats]:
        """Name of the expert that an image (height, width, 3) uint8 needs, and the probability of each."""
        if self.router is None:
            return self.experts.families[0], np.eye(len(self.experts.families))[0]
        probability = self.router(image[None])[0].double().numpy()
        return self.experts.families[int(probability.argmax())], probability

    @torch.no_grad()
    def edge(
        self, image: Images, cut: int, thresholds: Sequence[float], expert: str | None = None
    ) -> Answer | Handover:
        """The device's part.

        Parameters
        ----------
        image
            (height, width, 3) uint8.
        cut
            Where the edge stops computing, 0..L.
        thresholds
            Confidence from which each exit answers, (L,); +inf never, -inf always.
        expert
            Whose exits to use; None = whom the router picks.

        Raises
        ------
        ValueError
            The image, the cut or the thresholds are not as described.

        """
        network = self.experts.network
        self._refuse(image, cut, thresholds)
        name = self.detect(image)[0] if expert is None else expert
        heads = self.experts[name]
        x, confidences, predictions = normalise(image[None]), [], []
        for i in range(cut):
            x = network.segments[i](x)
            c, p = self._spoken(heads[i], x, name, i)
            confidences.append(c)
            predictions.append(p)
            if c >= thresholds[i] or i + 1 == network.n_exits:
                return self._answer(i, False, name, confidences, predictions)
        target = thresholds[cut - 1] if cut else math.inf
        return Handover(
            features=x,
            cut=cut,
            expert=name,
            confidences=tuple(confidences),
            predictions=tuple(predictions),
            target=target,
        )

    @torch.no_grad()
    def cloud(self, sent: Handover) -> Answer:
        """The cloud's part: the rest of the network and the same expert's last exit."""
        network = self.experts.network
        x = sent.features
        for segment in network.segments[sent.cut :]:
            x = segment(x)
        last = network.n_exits - 1
        c, p = self._spoken(self.experts[sent.expert][last], x, sent.expert, last)
        confidences, predictions = [*sent.confidences, c], [*sent.predictions, p]
        at = last
        if self.fallback == "most_confident" and c < sent.target < math.inf:
            surest = max(range(len(confidences)), key=lambda i: (confidences[i], i))  # the deepest of equals
            at = surest if surest < sent.cut else last
        return self._answer(at, True, sent.expert, confidences, predictions)

    def answer(self, image: Images, cut: int, thresholds: Sequence[float], expert: str | None = None) -> Answer:
        """Edge and, where it is asked, cloud."""
        found = self.edge(image, cut, thresholds, expert)
        return found if isinstance(found, Answer) else self.cloud(found)

    def _spoken(self, head: nn.Module, x: Tensor, expert: str, exit_index: int) -> tuple[float, int]:
        logits = head(x)[0].double() / self._temperature[expert][exit_index]
        best, guess = logits.softmax(0).max(0)
        return float(best), int(guess)

    def _answer(
        self, at: int, offloaded: bool, expert: str, confidences: Sequence[float], predictions: Sequence[int]
    ) -> Answer:
        place = min(at, len(confidences) - 1)  # the cloud's answer comes last, whichever exits lie in between
        return Answer(
            prediction=predictions[place],
            confidence=confidences[place],
            exit=at + 1,
            offloaded=offloaded,
            expert=expert,
            confidences=tuple(confidences),
            predictions=tuple(predictions),
        )

    def _refuse(self, image: Images, cut: int, thresholds: Sequence[float]) -> None:
        channels, height, width = self.experts.network.input_shape
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (height, width, channels):
            found = (getattr(image, "dtype", type(image).__name__), getattr(image, "shape", None))
            raise ValueError(f"image is {found}, allowed is uint8 of shape {(height, width, channels)}")
        if not 0 <= cut <= self.experts.network.n_exits:
            raise ValueError(f"cut is {cut}, allowed is 0..{self.experts.network.n_exits}")
        if len(thresholds) != self.experts.network.n_exits or any(math.isnan(t) for t in thresholds):
            raise ValueError(f"thresholds are {list(thresholds)}, allowed are {self.experts.network.n_exits} numbers")
