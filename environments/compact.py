"""Confidence and prediction of an answer in one small integer: for caches that ship with the package."""

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray

PIECE = 65_536  # codes that are decoded at once
Codes = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def _layout(classes: int) -> tuple[type[np.uint16 | np.uint32], int, int]:
    """Integer type, bits of the prediction, and largest code of the confidence."""
    return (np.uint16, 4, 4_095) if classes <= 16 else (np.uint32, 16, 65_535)


def encode(confidence: FloatArray, prediction: npt.NDArray[np.integer], classes: int) -> Codes:
    """Pack confidences in [0, 1] and predictions in 0..classes-1, arrays of one shape.

    The code of a confidence is the cube root of 1 - confidence: fine where an exit is sure.  Up to 16 classes it has 12
    bits and an error of at most 3.7e-4, above that 16 bits and 2.3e-5.
    """
    kind, bits, levels = _layout(classes)
    doubt = np.rint(np.cbrt(1.0 - confidence) * levels).astype(np.uint32)
    codes: Codes = ((doubt << bits) | prediction.astype(np.uint32)).astype(kind)
    return codes


def decode(codes: Codes, classes: int, *, rounded: bool = False) -> tuple[FloatArray, npt.NDArray[np.int16]]:
    """Confidence float64 and prediction int16, of the codes' shape.

    Parameters
    ----------
    codes, classes
        As from `encode`.
    rounded
        Round confidences to what a float32 holds, as a cache does.

    """
    kind, bits, levels = _layout(classes)
    values = 1.0 - (np.arange(levels + 1) / levels) ** 3
    if rounded:
        values = values.astype(np.float32).astype(np.float64)
    flat = codes.reshape(-1)
    confidence = np.empty(flat.shape)
    # In pieces that stay in the processor's cache: whole arrays of indices would take longer than the table itself.
    for start in range(0, len(flat), PIECE):
        piece = slice(start, start + PIECE)
        np.take(values, (flat[piece] >> bits).astype(np.intp), out=confidence[piece], mode="clip")
    return confidence.reshape(codes.shape), (codes & kind(2**bits - 1)).astype(np.int16)


def layout_type(classes: int) -> type[np.uint16 | np.uint32]:
    """Integer type of the codes for so many classes."""
    return _layout(classes)[0]
