"""What workers and learner say to each other over a Unix socket: frames of a length, a kind, a number and a payload."""

import asyncio
import struct
from collections.abc import Sequence

import numpy as np

from offramp.bandits import Observation
from offramp.bandits.durable import Outcome

UPDATE, STATE = 1, 2  # asked
DONE, REFUSED, UNAVAILABLE = 3, 4, 5  # answered
TAKING = 6  # told by the learner, unasked: can it take feedback?
LARGEST = 64 * 1_048_576  # far above what a request of the largest size becomes
HEAD = struct.Struct("<IBQ")
ITEM = struct.Struct("<II")
OUTCOMES = tuple(Outcome)

Item = tuple[str, Observation]


class Frames(asyncio.Protocol):
    """One end of a connection; cuts what arrives into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Hand on every frame that is complete."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= HEAD.size:
            length, kind, number = HEAD.unpack_from(self._buffer, at)
            if length > LARGEST:
                self.close()
                return
            end = at + HEAD.size + length
            if len(self._buffer) < end:
                break
            self.frame(kind, number, bytes(self._buffer[at + HEAD.size : end]))
            at = end
        del self._buffer[:at]

    def frame(self, kind: int, number: int, payload: bytes) -> None:
        """What to do with a frame."""
        raise NotImplementedError

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """Write a frame; nothing where the other end has gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(HEAD.pack(len(payload), kind, number) + payload)

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.close()


def pack_feedback(items: Sequence[Item]) -> bytes:
    """Tokens and observations as bytes."""
    parts = []
    for token, observation in items:
        name = token.encode()
        parts += [ITEM.pack(len(name), len(observation.row)), name, observation.row.astype("<f8").tobytes()]
    return b"".join(parts)


def unpack_feedback(payload: bytes) -> list[Item]:
    """What `pack_feedback` packed.

    Raises
    ------
    ValueError
        The bytes are none that it writes.

    Examples
    --------
    >>> seen = Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False)
    >>> unpack_feedback(pack_feedback([("abc", seen)]))
    [('abc', Observation(answered_at=1, offloaded=False, confidence=[0.9, None]))]

    """
    items: list[Item] = []
    at = 0
    while at < len(payload):
        if len(payload) - at < ITEM.size:
            raise ValueError(f"feedback ends within an item, {len(payload) - at} bytes are left")
        characters, numbers = ITEM.unpack_from(payload, at)
        middle = at + ITEM.size + characters
        end = middle + 8 * numbers
        if end > len(payload):
            raise ValueError(f"feedback is {len(payload)} bytes long, an item ends at {end}")
        observation = Observation.of(
            np.frombuffer(payload, dtype="<f8", count=numbers, offset=middle).astype(np.float64)
        )
        items.append((payload[at + ITEM.size : middle].decode(), observation))
        at = end
    return items


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """One byte for each."""
    return bytes(OUTCOMES.index(o) for o in outcomes)


def unpack_outcomes(payload: bytes) -> list[Outcome]:
    """What `pack_outcomes` packed."""
    return [OUTCOMES[i] for i in payload]
