"""The edge's line to the cloud: HTTP over connections that stay open, each question with one moment to be done by."""

import http.client
import io
import select
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from offramp.environments.live.wire import HEALTH, TAIL

LARGEST = 1 << 20  # bytes of an answer


class CloudError(OSError):
    """The cloud cannot be reached, is silent, or answers with something else than an answer."""


class _Reader(io.RawIOBase):
    """What comes in on a socket, up to a moment on the monotonic clock: a trickle of bytes does not put it off."""

    def __init__(self, line: socket.socket, until: float) -> None:
        self._line = line
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.settimeout(_left(self._until))
        return self._line.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """As a socket does it."""
        return io.BufferedReader(self)


class Client:
    """Connections to one cloud.

    Parameters
    ----------
    url
        "http://host:port".
    key
        The cloud's key; None = it asks for none.

    Raises
    ------
    ValueError
        The address is none.

    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None or parts.path.strip("/"):
            raise ValueError(f"cloud is {url!r}, allowed is an address such as http://127.0.0.1:8080")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("key of the cloud holds what no header may hold, allowed are printable ASCII characters")
        self._where = (parts.hostname, parts.port)
        self._fixed = f"Host: {parts.netloc}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
        self._idle: list[socket.socket] = []

    def head(self, n_bytes: int) -> bytes:
        """What precedes a question of so many bytes."""
        return f"POST {TAIL} HTTP/1.1\r\n{self._fixed}Content-Length: {n_bytes}\r\n\r\n".encode("ascii")

    def ask(self, send: Callable[[Callable[[bytes], None]], bool], until: float) -> bytes:
        """Ask one question and return the body of the answer.

        Parameters
        ----------
        send
            Is given what writes bytes to the cloud, and says whether it wrote the question out.
        until
            When the answer must be there, on the monotonic clock in seconds.

        Raises
        ------
        CloudError
            It is not, or it is none.

        """
        line = self._line(until)

        def write(data: bytes) -> None:
            line.settimeout(_left(until))
            line.sendall(data)

        try:
            try:
                if not send(write):
                    raise CloudError("the run ended while the question was sent")
            except (BrokenPipeError, ConnectionResetError) as error:  # who refuses early may still say why
                raise CloudError(_refusal(line, until)) from error
            status, body, stays = _answer(line, until)
        except (OSError, http.client.HTTPException, ValueError) as error:
            line.close()
            raise error if isinstance(error, CloudError) else CloudError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            line.close()
            raise
        if stays:
            self._idle.append(line)
        else:
            line.close()
        if status != 200:
            raise CloudError(_named(status, body))
        return body

    def alive(self, until: float) -> bool:
        """Does the cloud say that it is well?"""
        try:
            line = _connected(self._where, until)
        except OSError:
            return False
        try:
            line.settimeout(_left(until))
            line.sendall(f"GET {HEALTH} HTTP/1.1\r\n{self._fixed}Connection: close\r\n\r\n".encode("ascii"))
            return _answer(line, until)[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            line.close()

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop().close()

    def _line(self, until: float) -> socket.socket:
        while self._idle:
            line = self._idle.pop()
            if not select.select([line], [], [], 0.0)[0]:
                return line
            line.close()  # an idle line that has something to say was hung up on
        try:
            return _connected(self._where, until)
        except OSError as error:
            raise CloudError(f"{type(error).__name__}: {error}") from error


def _connected(where: tuple[str, int], until: float) -> socket.socket:
    line = socket.create_connection(where, timeout=_left(until))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _answer(line: socket.socket, until: float) -> tuple[int, bytes, bool]:
    """Status, body, and whether the line can be used again."""
    reader: Any = _Reader(line, until)  # all of a socket that the parser uses
    found = http.client.HTTPResponse(reader, method="POST")
    try:
        found.begin()
        if found.length is None or found.length > LARGEST:
            raise CloudError(f"answer is {found.length} bytes long, allowed are up to {LARGEST}")
        body = found.read()
        return found.status, body, not found.will_close
    finally:
        found.close()


def _refusal(line: socket.socket, until: float) -> str:
    """What a cloud said before it hung up."""
    status, body, _ = _answer(line, until)
    return _named(status, body)


def _named(status: int, body: bytes) -> str:
    return f"status is {status}, allowed is 200: {body[:200]!r}"


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0.0:
        raise TimeoutError("no time is left")
    return left
