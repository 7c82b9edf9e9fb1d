"""Cuts a network with exits into the two halves that run it for real: NumPy arrays and bytes go in and come out."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from offramp.models.codec import Codec, CodecError, framed
from offramp.models.codecs import check_codecs
from offramp.models.data import normalise
from offramp.models.experts import Experts
from offramp.models.families import FAMILIES
from offramp.models.network import MultiExitNetwork
from offramp.models.router import Router
from offramp.models.weights import model_hash

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


class _Half:
    """What both sides know of the network: its exits, whose heads answer, and how sure they are said to be.

    `hashes` are the SHA-256 of its parts, by the names that a cache has for them, and `network` is that of the weights;
    `identity` is one of all that answers depend on: weights, the experts' exits and temperatures.
    """

    def __init__(
        self,
        network: MultiExitNetwork,
        codecs: Sequence[Codec],
        temperatures: npt.ArrayLike | None,
        experts: Experts | None,
    ) -> None:
        check_codecs(codecs)
        module: Any = network.eval()
        self._network: MultiExitNetwork = module.to(memory_format=torch.channels_last)
        self._codecs = tuple(codecs)
        self._heads: list[Sequence[nn.Module]] = [list(network.heads)]
        if experts is not None:
            experts.eval()
            self._heads = [experts[family] for family in FAMILIES]
        self.exits = network.n_exits
        self.hashes = {"model": model_hash(network)} | ({} if experts is None else {"experts": model_hash(experts)})
        self.network = self.hashes["model"]
        given = np.ones((1, self.exits)) if temperatures is None else np.asarray(temperatures, dtype=np.float64)
        if given.ndim > 2 or given.shape[-1:] != (self.exits,) or not ((given > 0.0) & (given < np.inf)).all():
            raise ValueError(
                f"temperatures are {given.tolist()}, allowed are {self.exits} finite numbers > 0, or so many for each "
                f"of {len(self._heads)} experts"
            )
        self._temperatures = np.broadcast_to(given, (len(self._heads), self.exits))
        self.identity = self.network
        if experts is not None or (given != 1.0).any():
            said = "".join(self.hashes.values()).encode() + self._temperatures.astype("<f8").tobytes()
            self.identity = hashlib.sha256(said).hexdigest()
        channels, height, width = network.input_shape
        self._image = (height, width, channels)
        with torch.inference_mode():
            maps = list(network.maps(normalise(np.zeros((1, *self._image), dtype=np.uint8))))
            self.classes = int(self._heads[0][-1](maps[-1]).shape[1])
        self._maps = [(int(x.shape[1]), int(x.shape[2]), int(x.shape[3])) for x in maps]

    def _said(self, logits: Tensor, expert: int, exit: int) -> tuple[float, int]:
        z = logits[0].double() / float(self._temperatures[expert, exit - 1])
        return float(z.softmax(0).max()), int(logits[0].argmax())


class EdgePass:
    """One image on its way through the edge's half, segment by segment; `EdgeNetwork.start` makes it."""

    def __init__(self, half: "EdgeNetwork", image: Image) -> None:
        self._half = half
        self._image = image
        self._x: Tensor | None = None
        self.depth = 0
        self.expert = 0

    def context(self) -> Floats:
        """The router's word on the image: the likeliest expert and the probability of each, (E + 1,); (0,) without."""
        router = self._half.router
        if router is None:
            return np.zeros(0)
        probability = router(self._image[None])[0].double().numpy()
        self.expert = int(probability.argmax())
        return np.concatenate([[self.expert], probability])

    def segment(self) -> None:
        """Go one segment deeper."""
        if self.depth == self._half.exits:
            raise ValueError(f"segment {self.depth + 1} does not exist, allowed are {self._half.exits}")
        with torch.inference_mode():
            x = normalise(self._image[None]) if self._x is None else self._x
            self._x = self._half._network.segments[self.depth](x)
        self.depth += 1

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of the exit behind the last segment, (K,)."""
        spoken: npt.NDArray[np.float32] = self._spoken()[0].numpy()
        return spoken

    def speak(self) -> tuple[float, int]:
        """Confidence and class of the exit behind the last segment."""
        return self._half._said(self._spoken(), self.expert, self.depth)

    def _spoken(self) -> Tensor:
        if self._x is None:
            raise ValueError("no segment has run, allowed is to ask an exit behind one")
        with torch.inference_mode():
            said: Tensor = self._half._heads[self.expert][self.depth - 1](self._x)
        return said

    def payload(self, codec: str) -> bytes:
        """What the cloud needs to go on from here: the feature map, or the image before the first segment, coded."""
        chosen = self._half._named(codec, "image" if self._x is None else "features")
        if self._x is None:
            return chosen.encode(self._image)
        return chosen.encode(self._x[0].contiguous().numpy())


class EdgeNetwork(_Half):
    """The edge's half of a network.

    Parameters
    ----------
    network
        With its weights; it is put into evaluation mode.
    codecs
        What payloads are coded with, by name.
    temperatures
        By which logits are divided: (L,), or (E, L) where there are experts; None = 1.
    experts, router
        The experts' exits, and what picks one by looking at the image; both or neither.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.models.codecs import standard_codecs
    >>> from offramp.models.halves import CloudNetwork, EdgeNetwork
    >>> from offramp.models.network import mobilenet_v2_exits
    >>> network = mobilenet_v2_exits(classes=10)
    >>> edge, cloud = EdgeNetwork(network, standard_codecs()), CloudNetwork(network, standard_codecs())
    >>> image = edge.start(np.zeros((32, 32, 3), dtype=np.uint8))
    >>> for _ in range(2):
    ...     image.segment()
    >>> confidence, guess, logits = cloud.tail(2, image.payload("float32"))
    >>> logits.shape
    (1, 10)

    """

    def __init__(
        self,
        network: MultiExitNetwork,
        codecs: Sequence[Codec],
        *,
        temperatures: npt.ArrayLike | None = None,
        experts: Experts | None = None,
        router: Router | None = None,
    ) -> None:
        super().__init__(network, codecs, temperatures, experts)
        if (experts is None) != (router is None):
            raise ValueError("experts and router are given one without the other, allowed are both or neither")
        self.router = router
        if router is not None:
            self.hashes["router"] = model_hash(router)

    def start(self, image: Image) -> EdgePass:
        """Begin with an image (height, width, 3) uint8.

        Raises
        ------
        ValueError
            It is none, or of another size.

        """
        if image.dtype != np.uint8 or image.shape != self._image:
            raise ValueError(f"image is {image.dtype} of shape {image.shape}, allowed is uint8 of shape {self._image}")
        return EdgePass(self, image)

    def _named(self, name: str, reads: str) -> Codec:
        for codec in self._codecs:
            if codec.name == name and codec.reads == reads:
                return codec
        allowed = [codec.name for codec in self._codecs if codec.reads == reads]
        raise CodecError(f"codec is {name!r}, allowed for {reads} are {allowed}")


class CloudNetwork(_Half):
    """The cloud's half of a network; the parameters are those of `EdgeNetwork`."""

    def __init__(
        self,
        network: MultiExitNetwork,
        codecs: Sequence[Codec],
        *,
        temperatures: npt.ArrayLike | None = None,
        experts: Experts | None = None,
    ) -> None:
        super().__init__(network, codecs, temperatures, experts)
        self._by_tag = {(codec.tag, codec.reads): codec for codec in codecs}
        self.experts = len(self._heads)

    @property
    def largest(self) -> int:
        """Bytes that no payload of this network exceeds, whatever the codec."""
        values = max(int(np.prod(shape)) for shape in (*self._maps[:-1], self._image))
        return 4 * values + 65_536

    def tail(
        self, split: int, payload: bytes, *, expert: int = 0, every: bool = False
    ) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Go on from a payload to the end of the network.

        Parameters
        ----------
        split
            Where the edge stopped, 0..L-1.
        payload
            What a codec made of the image or of the feature map there.
        expert
            Whose exits answer.
        every
            Let all deeper exits answer, split + 1..L; otherwise the last alone.

        Returns
        -------
        tuple
            Confidence (n,), class (n,) and logits (n, K) of the exits that answer.

        Raises
        ------
        CodecError
            The payload is damaged, of a codec or shape that does not belong there, or holds what is no finite number.
        ValueError
            There is no such split or expert.

        """
        if not 0 <= split < self.exits or not 0 <= expert < len(self._heads):
            raise ValueError(
                f"split is {split} and expert {expert}, allowed are 0..{self.exits - 1} and 0..{len(self._heads) - 1}"
            )
        x, heads = self._decoded(split, payload), self._heads[expert]
        answers: list[tuple[int, Tensor]] = []
        with torch.inference_mode():
            for i in range(split, self.exits):
                x = self._network.segments[i](x)
                if every or i == self.exits - 1:
                    answers.append((i + 1, heads[i](x)))
        said = [self._said(z, expert, exit) for exit, z in answers]
        logits: npt.NDArray[np.float32] = torch.cat([z for _, z in answers]).numpy()
        if not np.isfinite(logits).all():
            raise CodecError("payload leads to logits that are no finite numbers, allowed is what encode wrote")
        return np.array([c for c, _ in said]), np.array([k for _, k in said], dtype=np.int64), logits

    def _decoded(self, split: int, payload: bytes) -> Tensor:
        reads, wanted = ("features", self._maps[split - 1]) if split else ("image", self._image)
        tag, shape = framed(payload)
        codec = self._by_tag.get((tag, reads))
        if codec is None:
            allowed: list[Any] = sorted({t for t, r in self._by_tag if r == reads})
            raise CodecError(f"payload has codec {tag}, allowed at split {split} are {allowed}")
        if shape != wanted:  # before anything is decoded: the frame says how much that may become
            raise CodecError(f"payload has shape {shape}, allowed at split {split} is {wanted}")
        array = codec.decode(payload)
        if split == 0:
            return normalise(array[None])
        if not np.isfinite(array).all():
            raise CodecError(f"{codec.name}: payload holds what is no finite number, allowed is what encode wrote")
        return torch.from_numpy(array[None]).contiguous(memory_format=torch.channels_last)
