"""The two messages between edge and cloud: binary, of limited size, with a check sum, read strictly."""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray

TAIL, HEALTH = "/v1/tail", "/v1/health"
PROBES = ("/healthz", "/readyz")  # the names that orchestrators ask for
_REQUEST = struct.Struct("<4sBBBxQ8sII")  # magic, split, expert, flags, number, network, bytes of payload, CRC-32
_ANSWER = struct.Struct("<4sBBHQ8sBxxxI")  # magic, split, exits that answer, classes, number, network, flags, CRC-32
_ASK, _SAY = b"OFR1", b"OFA1"
_EVERY, _LOGITS = 1, 2
_CRC = 4  # its bytes, the last of either header
REQUEST_BYTES = _REQUEST.size


class WireError(ValueError):
    """A message cannot be read; the message says what was found and allowed."""


def stamp(network: str) -> bytes:
    """The first 8 bytes of a SHA-256 that stands for a network and its calibration: both sides must run the same."""
    try:
        made = bytes.fromhex(network)[:8]
    except ValueError as error:
        raise WireError(f"network is {network!r}, allowed is a SHA-256 in hexadecimal") from error
    return made.ljust(8, b"\0")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the edge asks: go on from this payload.

    Parameters
    ----------
    number
        Which request of the edge it is, >= 0; the answer repeats it.
    split, expert
        Where the edge stopped, and whose exits answer, 0..255.
    network
        `stamp` of the half's identity.
    every, logits
        Are all deeper exits asked, not the last alone?  Are their logits wanted as well?
    payload
        As a codec made it.

    Examples
    --------
    >>> from offramp.environments.live.wire import Request
    >>> asked = Request(number=7, split=2, network=bytes(8), payload=b"abc")
    >>> Request.read(asked.pack()) == asked
    True

    """

    number: int
    split: int
    network: bytes
    payload: bytes
    expert: int = 0
    every: bool = False
    logits: bool = False

    def pack(self) -> bytes:
        """As it is sent."""
        flags = _EVERY * self.every + _LOGITS * self.logits
        head = (_ASK, self.split, self.expert, flags, self.number, self.network, len(self.payload))
        return _sealed(_REQUEST, head, self.payload)

    @classmethod
    def read(cls, raw: bytes) -> "Request":
        """What was packed.

        Raises
        ------
        WireError
            It is truncated, altered, or none.

        """
        (magic, split, expert, flags, number, network, size), payload = _opened(_REQUEST, raw, _ASK, "request")
        if size != len(payload) or flags & ~(_EVERY | _LOGITS):
            raise WireError(f"{magic!r} says {size} bytes and flags {flags}, found are {len(payload)} bytes")
        return cls(
            number=number,
            split=split,
            expert=expert,
            network=network,
            every=bool(flags & _EVERY),
            logits=bool(flags & _LOGITS),
            payload=payload,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Reply:
    """What the cloud answers.

    Parameters
    ----------
    number, split, network
        As asked.
    classes
        Number of classes K.
    confidence, prediction
        Of the n exits that answer, the last one being the network's last; (n,) in [0, 1] and 0..K-1.
    logits
        (n, K) float32; None where they were not wanted.

    """

    number: int
    split: int
    network: bytes
    classes: int
    confidence: FloatArray
    prediction: IntArray
    logits: npt.NDArray[np.float32] | None = None

    def pack(self) -> bytes:
        """As it is sent."""
        n, flags = len(self.confidence), 0 if self.logits is None else _LOGITS
        head = (_SAY, self.split, n, self.classes, self.number, self.network, flags)
        parts = [self.confidence.astype("<f8").tobytes(), self.prediction.astype("<u2").tobytes()]
        parts += [] if self.logits is None else [self.logits.astype("<f4").tobytes()]
        return _sealed(_ANSWER, head, b"".join(parts))

    @classmethod
    def read(cls, raw: bytes, asked: Request, *, exits: int, classes: int) -> "Reply":
        """The answer to a request, of a network of so many exits and classes.

        Raises
        ------
        WireError
            It is truncated, altered, or the answer to something else.

        """
        (_, split, n, k, number, network, flags), body = _opened(_ANSWER, raw, _SAY, "answer")
        logits = flags == _LOGITS
        found = (number, split, network, k, n, logits)
        wanted = (asked.number, asked.split, asked.network, classes, exits - split if asked.every else 1, asked.logits)
        if found != wanted:
            raise WireError(f"answer has (number, split, network, classes, exits, logits) {found}, allowed is {wanted}")
        if len(body) != n * (10 + 4 * k * logits):
            raise WireError(f"answer has a body of {len(body)} bytes, allowed are {n * (10 + 4 * k * logits)}")
        confidence = np.frombuffer(body, "<f8", n).astype(np.float64)
        prediction = np.frombuffer(body, "<u2", n, 8 * n).astype(np.int64)
        if not ((confidence >= 0.0) & (confidence <= 1.0) & (prediction < k)).all():
            raise WireError(f"answer has confidences {confidence} and classes {prediction}, allowed are 0..1 and < {k}")
        spoken = np.frombuffer(body, "<f4", n * k, 10 * n).astype(np.float32).reshape(n, k) if logits else None
        return cls(
            number=number,
            split=split,
            network=network,
            classes=k,
            confidence=confidence,
            prediction=prediction,
            logits=spoken,
        )


def _sealed(form: struct.Struct, head: tuple[Any, ...], body: bytes) -> bytes:
    try:
        start = form.pack(*head, 0)[:-_CRC]
    except struct.error as error:
        raise WireError(f"{head} cannot be sent ({error}), allowed are numbers that fit the message") from error
    return start + struct.pack("<I", zlib.crc32(body, zlib.crc32(start))) + body


def _opened(form: struct.Struct, raw: bytes, magic: bytes, what: str) -> tuple[tuple[Any, ...], bytes]:
    if len(raw) < form.size or raw[:4] != magic:
        raise WireError(f"{what} is {len(raw)} bytes that begin with {raw[:4]!r}, allowed are {form.size}, {magic!r}")
    *head, crc = form.unpack_from(raw)
    found = zlib.crc32(raw[form.size :], zlib.crc32(raw[: form.size - _CRC]))
    if found != crc:
        raise WireError(f"{what} has CRC-32 {found:08x}, allowed is {crc:08x} as in its header")
    return tuple(head), raw[form.size :]
