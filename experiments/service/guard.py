"""What stands before every route: the key, the rate, the size of a body, the clock; and the answer to misuse."""

import asyncio
import hmac
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offramp.experiments.service.metrics import Metrics
from offramp.experiments.service.refused import Refused
from offramp.experiments.service.settings import Settings

log = logging.getLogger("offramp.worker")
OPEN_TO_ALL = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
ADDRESSES = 10_000


class Rates:
    """A token bucket for each address: it fills with `rate` a second up to `burst`, and every item takes one out.

    Examples
    --------
    >>> now = 0.0
    >>> rates = Rates(rate=2.0, burst=3, clock=lambda: now)
    >>> rates.take("10.0.0.7", 3)
    >>> rates.take("10.0.0.7", 1)
    Traceback (most recent call last):
        ...
    offramp.experiments.service.refused.Refused: more than 2 items a second from one address, allowed again in 1 s

    """

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, items: int) -> None:
        """Take so many items out.

        Raises
        ------
        Refused
            There are not so many (429).

        """
        now = self._clock()
        left, then = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + self._rate * (now - then))
        enough = left >= items
        self._left[address] = (left - items if enough else left), now
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        if not enough:
            wait = math.ceil((items - left) / self._rate)
            raise Refused(
                429,
                f"more than {self._rate:g} items a second from one address, allowed again in {wait} s",
                retry_after=wait,
            )


class Guard:
    """ASGI middleware: lets through what may be let through, with its body read, and counts every answer.

    Parameters
    ----------
    app
        What answers.
    settings
        The limits.
    key
        What `Authorization: Bearer` must bear; empty = nothing is asked.
    rates, metrics
        Shared with the routes.

    """

    def __init__(self, app: ASGIApp, *, settings: Settings, key: bytes, rates: Rates, metrics: Metrics) -> None:
        self._app = app
        self._most = settings.body_bytes
        self._seconds = settings.request_seconds
        self._expected = b"Bearer " + key if key else b""
        self._rates = rates
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            body = await self._admitted(scope, receive)
            await self._app(scope, _replay(body), counted)
        except Refused as refused:
            await answer(refused, counted)
            self._metrics.rejected(refused.reason)
        except ConnectionResetError:
            return
        finally:
            self._metrics.answered(scope["path"], status, time.perf_counter() - started)

    async def _admitted(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body of a request that may go on."""
        length = given = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
            elif name == b"content-length":
                length = value
        if scope["path"] not in OPEN_TO_ALL:
            if self._expected and not hmac.compare_digest(self._expected, given or b""):
                raise Refused(401, "the header Authorization bears no valid key, allowed is: Bearer <key>")
            self._rates.take(scope["client"][0] if scope.get("client") else "", 1)
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            body = await self._rest(body, receive)
        if len(body) > self._most:
            known = length is not None and length.isdigit() and len(length) < 20
            told = f"of {int(length or 0)} bytes" if known else f"longer than {self._most} bytes"
            raise Refused(413, f"the body is {told}, allowed are {self._most}")
        return body

    async def _rest(self, first: bytes, receive: Receive) -> bytes:
        """What follows of a body; of one that is too long as much again, so that its sender gets to read the answer."""
        parts, size = [first], len(first)
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= self._most:
                        parts.append(part)
                    if not message.get("more_body", False) or size > 2 * self._most:
                        break
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self._seconds:g} s") from None
        return b"".join(parts) if size <= self._most else bytes(self._most + 1)


def _replay(body: bytes) -> Receive:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        return next(messages, {"type": "http.disconnect"})

    return receive


async def answer(refused: Refused, send: Send) -> None:
    """Say what was wrong, as JSON."""
    body = to_json({"error": refused.message, "field": refused.field})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(max(1, refused.retry_after)).encode()))
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
