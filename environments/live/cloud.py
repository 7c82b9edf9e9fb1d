"""The cloud's side: an ASGI application that runs the tail of the network behind HTTP, and refuses all else."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.live.wire import HEALTH, PROBES, REQUEST_BYTES, TAIL, Reply, Request, WireError, stamp

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class TailHalf(Protocol):
    """The cloud's half of a network of L exits and K classes; `offramp.models.halves.CloudNetwork` is one.

    `network` is the SHA-256 of the weights, `identity` one of all that its answers depend on.
    """

    exits: int
    classes: int
    network: str
    identity: str

    @property
    def largest(self) -> int:
        """Bytes that no payload exceeds."""

    def tail(
        self, split: int, payload: bytes, *, expert: int = 0, every: bool = False
    ) -> tuple[FloatArray, IntArray, npt.NDArray[np.float32]]:
        """Confidence (n,), class (n,) and logits (n, K) of the last exit, or of all deeper ones.

        Raises
        ------
        ValueError
            The payload cannot be read, or there is no such split or expert.

        """


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class CloudApp:
    """POST /v1/tail answers a question of `offramp.environments.live.wire`, GET /v1/health says that it lives.

    GET /healthz and GET /readyz say the same as /v1/health: who listens has loaded the network.

    Parameters
    ----------
    half
        The network's tail.
    key
        What `Authorization: Bearer` must bring; None = nothing is asked for.
    waiting
        Questions that may be open at once, >= 1; beyond it the answer is 503.
    workers
        Threads that compute, >= 1.
    patience_s
        Seconds in which a question must have come in whole, > 0.

    Notes
    -----
    401 without the key, 404, 405, 408 and 413 as usual; 400 for what is no question, or a damaged one; 409 for one to
    another network, other exits or temperatures; 422 for a payload that cannot be decoded or does not belong there.
    The body says why, in one line.

    """

    def __init__(
        self, half: TailHalf, *, key: str | None = None, waiting: int = 64, workers: int = 1, patience_s: float = 30.0
    ) -> None:
        if waiting < 1 or workers < 1 or not patience_s > 0.0:
            raise ValueError(
                f"waiting, workers, patience_s are {(waiting, workers, patience_s)}, allowed are >= 1, > 0"
            )
        if key == "":
            raise ValueError("key is empty, allowed is a text, or None: nothing is asked for")
        self._half = half
        self._key = None if key is None else key.encode()
        self._stamp = stamp(half.identity)
        self._waiting = waiting
        self._patience = patience_s
        self._open = 0
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="offramp tail")
        told = {"status": "ok", "network": half.network, "exits": half.exits, "classes": half.classes}
        self._health = json.dumps(told).encode()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._pool.shutdown(wait=True)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        status, kind, body, more = 200, b"application/octet-stream", b"", []
        try:
            if scope["path"] in (HEALTH, *PROBES):
                self._demand(scope["method"] in ("GET", "HEAD"), 405, "allowed is GET")
                kind, body = b"application/json", self._health
            else:
                self._demand(scope["path"] == TAIL, 404, f"allowed are {', '.join((TAIL, HEALTH, *PROBES))}")
                self._demand(scope["method"] == "POST", 405, "allowed is POST")
                body = await self._tail(scope, receive)
        except _RefusedError as refused:
            status, kind, body = refused.status, b"text/plain; charset=utf-8", f"{refused}\n".encode()
            more = [(b"connection", b"close")]  # the rest of the body may not have been read
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _tail(self, scope: dict[str, Any], receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        if self._key is not None:
            given = headers.get(b"authorization", b"")
            self._demand(hmac.compare_digest(given, b"Bearer " + self._key), 401, "the key is missing or another one")
        self._demand(self._open < self._waiting, 503, f"{self._open} questions are open, allowed are {self._waiting}")
        self._open += 1
        try:
            raw = await asyncio.wait_for(self._body(headers, receive), self._patience)
            asked = Request.read(raw)
            self._demand(asked.network == self._stamp, 409, "network, exits or calibration are others")
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._answered, asked)
        except TimeoutError:
            raise _RefusedError(408, f"the question was not there within {self._patience:g} s") from None
        except WireError as error:
            raise _RefusedError(400, str(error)) from None
        except ValueError as error:
            raise _RefusedError(422, str(error)) from None
        finally:
            self._open -= 1

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        most = self._half.largest + REQUEST_BYTES
        length = headers.get(b"content-length", b"")
        self._demand(not length.isdigit() or int(length) <= most, 413, f"allowed are {most} bytes")
        parts, total, more = [], 0, True
        while more:
            message = await receive()
            self._demand(message["type"] == "http.request", 400, "the line was cut")
            total += len(message.get("body", b""))
            self._demand(total <= most, 413, f"allowed are {most} bytes")
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(parts)

    def _answered(self, asked: Request) -> bytes:
        confidence, prediction, logits = self._half.tail(
            asked.split, asked.payload, expert=asked.expert, every=asked.every
        )
        return Reply(
            number=asked.number,
            split=asked.split,
            network=asked.network,
            classes=self._half.classes,
            confidence=confidence,
            prediction=prediction,
            logits=logits if asked.logits else None,
        ).pack()

    @staticmethod
    def _demand(condition: bool, status: int, reason: str) -> None:
        if not condition:
            raise _RefusedError(status, reason)
