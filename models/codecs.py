"""Wire codecs: how a feature map, or the 8-bit image itself, becomes the bytes that the edge sends to the cloud."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from offramp.models.codec import Array, Codec, CodecError

__all__ = [
    "Codec",
    "CodecError",
    "Float16",
    "Float32",
    "Jpeg",
    "Png",
    "Raw",
    "Uint8",
    "Uint8Zlib",
    "check_codecs",
    "standard_codecs",
]


@dataclass(frozen=True, kw_only=True)
class Float32(Codec):
    """Four bytes a value, as they are."""

    tag = 1
    kind = "float32"
    lossless = True

    def _pack(self, array: Array) -> bytes:
        return array.astype("<f4", copy=False).tobytes()

    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array:
        whole = self._exactly(body, 4 * shape[0] * shape[1] * shape[2])
        return np.frombuffer(whole, dtype="<f4").astype(np.float32).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Float16(Codec):
    """Two bytes a value, rounded to half precision; magnitudes above 65504 are refused."""

    tag = 2
    kind = "float16"

    def _pack(self, array: Array) -> bytes:
        return _half(array, self.name).astype("<f2", copy=False).tobytes()

    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array:
        whole = self._exactly(body, 2 * shape[0] * shape[1] * shape[2])
        return np.frombuffer(whole, dtype="<f2").astype(np.float32).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Uint8(Codec):
    """One byte a value, on a scale of its own for each channel.

    Notes
    -----
    Offset and step of each channel are sent before the values, in half precision, 4 bytes a channel.  The offset is
    rounded down and the step up, so that no value of the channel leaves the scale: each comes back within half a step,
    which is about 1/510 of the channel's range, and float32 rounding.

    """

    tag = 3
    kind = "uint8"

    @property
    def values(self) -> str:
        """The same whether deflated or not."""
        return "uint8"

    def _pack(self, array: Array) -> bytes:
        rows = array.reshape(len(array), -1)
        low, step = _scales(rows, self.name)
        wide = np.where(step > 0, step, np.float16(1.0)).astype(np.float32)[:, None]
        codes = np.rint((rows - low.astype(np.float32)[:, None]) / wide).clip(0.0, 255.0).astype(np.uint8)
        return b"".join(part.tobytes() for part in (low.astype("<f2"), step.astype("<f2"), codes))

    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array:
        channels, n = shape[0], shape[0] * shape[1] * shape[2]
        whole = self._exactly(body, 4 * channels + n)
        low, step = np.frombuffer(whole, dtype="<f2", count=2 * channels).astype(np.float32).reshape(2, channels, 1, 1)
        codes = np.frombuffer(whole, dtype=np.uint8, offset=4 * channels).reshape(shape)
        decoded: Array = low + codes * step
        return decoded


@dataclass(frozen=True, kw_only=True)
class Uint8Zlib(Uint8):
    """`Uint8`, deflated.

    Parameters
    ----------
    level
        Of zlib, 1..9.

    Notes
    -----
    Zstandard is in the standard library from Python 3.14 only, and no dependency is taken for it.

    """

    tag = 7
    kind = "uint8_zlib"
    level: int = 1

    def __post_init__(self) -> None:
        _check_whole("level", self.level, 9)

    def _pack(self, array: Array) -> bytes:
        return zlib.compress(super()._pack(array), self.level)

    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array:
        wanted = 4 * shape[0] + shape[0] * shape[1] * shape[2]
        stream = zlib.decompressobj()
        try:
            whole = stream.decompress(body, wanted + 1)  # not a byte more than its shape calls for
        except zlib.error as error:
            raise CodecError(f"{self.name}: body cannot be inflated ({error}), allowed is what encode wrote") from error
        return super()._unpack(whole, shape)


@dataclass(frozen=True, kw_only=True)
class Raw(Codec):
    """The 8-bit image as it is, three bytes a pixel."""

    tag = 4
    kind = "raw"
    reads = "image"
    lossless = True

    def _pack(self, array: Array) -> bytes:
        return array.tobytes()

    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array:
        whole = self._exactly(body, shape[0] * shape[1] * shape[2])
        return np.frombuffer(whole, dtype=np.uint8).reshape(shape).copy()


@dataclass(frozen=True, kw_only=True)
class _File(Codec):
    """An image file of a published format, as Pillow writes it."""

    reads = "image"
    form: ClassVar[str]

    def _unpack(self, body: bytes, shape: tuple[int, int, int]) -> Array:
        try:
            with Image.open(io.BytesIO(body), formats=[self.form]) as image:
                if (image.mode, image.height, image.width, 3) != ("RGB", *shape):
                    found = f"{image.mode} of {image.height} x {image.width}"
                    raise CodecError(f"{self.name}: image is {found}, allowed is RGB of shape {shape} as in its frame")
                return np.array(image)
        except (OSError, SyntaxError) as error:
            raise CodecError(f"{self.name}: body is no {self.form} ({error}), allowed is what encode wrote") from error

    def _written(self, array: Array, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format=self.form, **options)
        return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Png(_File):
    """PNG.

    Parameters
    ----------
    level
        Of zlib, 1..9.

    """

    tag = 5
    kind = "png"
    form = "PNG"
    lossless = True
    level: int = 6

    def __post_init__(self) -> None:
        _check_whole("level", self.level, 9)

    def _pack(self, array: Array) -> bytes:
        return self._written(array, compress_level=self.level)


@dataclass(frozen=True, kw_only=True)
class Jpeg(_File):
    """Baseline JPEG with colours at half resolution (4:2:0) and the tables of the standard.

    Parameters
    ----------
    quality
        1..95 as the IJG's library scales its tables.

    """

    tag = 6
    form = "JPEG"
    quality: int = 75

    def __post_init__(self) -> None:
        _check_whole("quality", self.quality, 95)

    @property
    def name(self) -> str:
        """jpeg_75, say."""
        return f"jpeg_{self.quality}"

    def _pack(self, array: Array) -> bytes:
        return self._written(array, quality=self.quality, subsampling="4:2:0", optimize=False, progressive=False)


def standard_codecs() -> tuple[Codec, ...]:
    """What is measured unless told otherwise: raw, PNG, JPEG at 75, 50 and 25; float32, float16, uint8 and zlib."""
    images: tuple[Codec, ...] = (Raw(), Png(), *(Jpeg(quality=q) for q in (75, 50, 25)))
    return (*images, Float32(), Float16(), Uint8(), Uint8Zlib())


def check_codecs(codecs: Sequence[Codec]) -> None:
    """Refuse two codecs of one name."""
    names = [codec.name for codec in codecs]
    if not names or len(set(names)) != len(names):
        raise CodecError(f"codecs are {names}, allowed are one or more whose names differ")


def _check_whole(name: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or value not in range(1, most + 1):
        raise CodecError(f"{name} is {value!r}, allowed is a whole number in 1..{most}")


def _half(array: Array, name: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise CodecError(f"{name}: a value is {array[~np.isfinite(half)][0]}, allowed are magnitudes up to 65504")
    return half


def _scales(rows: Array, name: str) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Offset and step of each row in half precision: offset + 255 steps cover it."""
    least = rows.min(axis=1)
    low = _half(least, name)
    with np.errstate(over="ignore"):
        low = np.where(low.astype(np.float32) > least, np.nextafter(low, np.float16(-np.inf)), low)
    if not np.isfinite(low).all():
        raise CodecError(f"{name}: a value is {least[~np.isfinite(low)][0]}, allowed are magnitudes up to 65504")
    wanted = (rows.max(axis=1).astype(np.float64) - low) / 255.0
    step = _half(wanted, name)
    return low, np.where(step.astype(np.float64) < wanted, np.nextafter(step, np.float16(np.inf)), step)
