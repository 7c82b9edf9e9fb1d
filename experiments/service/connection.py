"""Connections that do not wait for ever, and do not keep everything: limits on the headers of a request."""

import asyncio
from collections.abc import Callable
from typing import Any

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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.counted(len(self.connections))
        self._timer = self.loop.call_later(self.seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop()
        super().connection_lost(exc)
        self.counted(len(self.connections))

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._bytes = 0
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)
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
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self.most:
            raise ValueError("the headers are too long")  # the parser turns this into an answer with status 400

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
