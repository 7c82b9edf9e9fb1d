"""What every wire codec shares: the frame around a payload, and the refusal of what cannot be sent or decoded.

Every payload is a frame of 12 bytes and a body.  The frame says which codec wrote it, the shape, and a CRC-32 over all
of it, so that a damaged payload is refused and never decoded into something else.  The decoder needs nothing beside it.
"""

import struct
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_VERSION = 1
_FRAME = struct.Struct("<BBHHHI")  # codec, version, three sides, CRC-32
FRAME_BYTES = _FRAME.size


class CodecError(ValueError):
    """Something cannot be encoded, or a payload cannot be decoded; the message says what was found and allowed."""


def framed(payload: bytes) -> tuple[int, tuple[int, int, int]]:
    """The tag of the codec and the shape that a payload's frame names; nothing of it is decoded, or held for true.

    Raises
    ------
    CodecError
        It is shorter than a frame.

    """
    if len(payload) < FRAME_BYTES:
        raise CodecError(f"payload is {len(payload)} bytes long, allowed are {FRAME_BYTES} or more")
    tag, _, *shape, _ = _FRAME.unpack_from(payload)
    return tag, (shape[0], shape[1], shape[2])


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """What all codecs share: the frame around the body, and the refusal of what cannot be sent."""

    tag: ClassVar[int]  # in the frame
    kind: ClassVar[str]
    reads: ClassVar[str] = "features"  # or "image"
    lossless: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What the codec is called in a table of payloads."""
        return self.kind

    @property
    def values(self) -> str:
        """A name shared by the codecs that decode to the same values; "exact" for those that lose nothing."""
        return "exact" if self.lossless else self.name

    def encode(self, given: npt.ArrayLike) -> bytes:
        """The payload of one sample.

        Parameters
        ----------
        given
            Where the codec reads features: one feature map (channels, height, width), finite, sent as float32 values; a
            tensor on the CPU will do.  Where it reads images: (height, width, 3) uint8.  Sides are 1..65535.

        Raises
        ------
        CodecError
            It is something else, or this codec cannot hold its values.

        """
        array = self._checked(np.asarray(given))
        body = self._pack(array)
        head = (self.tag, _VERSION, *array.shape)
        return _FRAME.pack(*head, zlib.crc32(body, zlib.crc32(_FRAME.pack(*head, 0)))) + body

    def decode(self, payload: bytes) -> Array:
        """What the cloud gets: an array of the shape that was encoded, float32 for features and uint8 for images.

        Raises
        ------
        CodecError
            The payload is truncated, altered, or of another codec.

        """
        if len(payload) < FRAME_BYTES:
            raise CodecError(f"{self.name}: payload is {len(payload)} bytes long, allowed are {FRAME_BYTES} or more")
        tag, version, *shape, crc = _FRAME.unpack_from(payload)
        if (tag, version) != (self.tag, _VERSION):
            raise CodecError(f"{self.name}: payload has codec {tag}, version {version}, allowed are {self.tag}, 1")
        body = memoryview(payload)[FRAME_BYTES:]
        found = zlib.crc32(body, zlib.crc32(_FRAME.pack(tag, version, *shape, 0)))
        if found != crc:
            raise CodecError(f"{self.name}: payload has CRC-32 {found:08x}, allowed is {crc:08x} as in its frame")
        return self._unpack(bytes(body), (shape[0], shape[1], shape[2]))

    def _checked(self, given: Array) -> Array:
        if given.ndim != 3 or not 1 <= min(given.shape) <= max(given.shape) <= 65_535:
            raise CodecError(f"{self.name}: shape is {given.shape}, allowed are three sides of 1..65535")
        if self.reads == "image":
            if given.dtype != np.uint8 or given.shape[2] != 3:
                raise CodecError(
                    f"{self.name}: image is {given.dtype} of shape {given.shape}, allowed is uint8 (height, width, 3)"
                )
            return np.ascontiguousarray(given)
        if given.dtype.kind != "f":
            raise CodecError(f"{self.name}: features are {given.dtype}, allowed are floating-point numbers")
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(given, dtype=np.float32)
        bad = ~np.isfinite(single)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise CodecError(f"{self.name}: features{list(at)} is {given[at]}, allowed is a finite float32")
        return single

    def _exactly(self, body: bytes, wanted: int) -> bytes:
        if len(body) != wanted:
            raise CodecError(f"{self.name}: body is {len(body)} bytes long, allowed is {wanted} for its shape")
        return body

    @abstractmethod
    def _pack(self, array: Array) -> bytes: ...

    @abstractmethod
    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array: ...
