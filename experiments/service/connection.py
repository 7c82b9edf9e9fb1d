"""Connections that do not wait for ever, and do not keep everything: limits on the headers of a request."""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection with an end to its patience.

    Its server limits neither how many bytes of headers a request may have nor how long they may take to arrive.
    """

    most: int = 16_384
    seconds: float = 10.0
    counted: "staticmethod[[int], None]"

    _timer: asyncio.TimerHandle | None = None
    _bytes: int = 0
    _begun: bool = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.counted(len(self.connections))
        self._timer = self.loop.call_later(self.seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop()
        super().connection_lost(exc)
        self.counted(len(self.connections))

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._bytes = 0
        self._begun = True
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._late)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are here: from now on the guard watches the clock."""
        self._stop()
        self._begun = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong with what is no request that can go on, as JSON, and hang up."""
        if self._bytes > self.most:
            self._refuse(b"431 Request Header Fields Too Large", f"the headers are longer than {self.most} bytes")
        else:
            self._refuse(b"400 Bad Request", "what was sent is no HTTP/1.1 request")

    def _late(self) -> None:
        """The time is up; who has not said anything is not answered either."""
        self._timer = None
        if self._begun and (self.cycle is None or self.cycle.response_complete):
            self._refuse(b"408 Request Timeout", f"the headers did not arrive within {self.seconds:g} s")
        self.transport.close()

    def _refuse(self, status: bytes, message: str) -> None:
        body = to_json({"error": message, "field": None})
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if not self.transport.is_closing():
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self.most:
            raise ValueError("the headers are too long")  # the parser has `send_400_response` answer

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connections(*, most: int, seconds: float, counted: Callable[[int], None]) -> type[Any]:
    """The class of connections with these limits.

    Parameters
    ----------
    most, seconds
        Bytes of headers, and until they are complete.
    counted
        Told how many connections there are whenever that changes.

    """
    return type("Limited", (Connection,), {"most": most, "seconds": seconds, "counted": staticmethod(counted)})
