"""Rows about the service: one connection as fast as it goes, and 32 that are paced; the client shares the machine."""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import uvloop
from row import Row

from offramp.experiments.service.started import started

EXITS = 7
CONNECTIONS, SENDERS, PER_SECOND, SECONDS = 32, 4, 2_000, 60
BATCH = 256
QUOTE = {
    "edge_cost": [0.05 * i for i in range(EXITS + 1)],
    "offload_cost": [None, *[0.4 - 0.05 * i for i in range(1, EXITS)], 0],
    "mu": 0.5,
}
OPTIONS = (f"exits={EXITS}", "workers=2", "rate=1e6", "burst=1000000")


class Answer(NamedTuple):
    """What one request came back with."""

    seconds: float
    status: int
    body: bytes


class Connection:
    """HTTP/1.1 on one connection that stays open, by hand: a client library would take longer than the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def post(self, path: str, body: bytes, since: float | None = None) -> Answer:
        """Send, and wait for the answer; timed from `since`."""
        started = time.perf_counter() if since is None else since
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        told = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        at = told.index(b"content-length: ") + 16
        found = await self._reader.readexactly(int(told[at : told.index(b"\r\n", at)]))
        return Answer(time.perf_counter() - started, int(told[9:12]), found)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def feedback(answer: Answer) -> dict[str, object]:
    """What an exit that is sure enough reveals of this decision, or the cloud."""
    decision = json.loads(answer.body)
    cut, seen = decision["cut"], [None] * EXITS
    threshold = decision["thresholds"][cut - 1]
    here = threshold is not None
    seen[cut - 1 if here else EXITS - 1] = 0.99
    told = {"confidence": seen, "answered_at": cut if here else EXITS, "offloaded": not here}
    return {"token": decision["token"], **told}


async def alone(port: int, requests: int) -> np.ndarray:
    """Seconds of each request on one connection, one after another; the first ones warm up."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    body = json.dumps(QUOTE).encode()
    taken = [await connection.post("/v1/decide", body) for _ in range(requests + 500)]
    connection.close()
    assert all(answer.status == 200 for answer in taken)
    return np.array([answer.seconds for answer in taken[500:]])


async def paced(port: int, seconds: float, *, learn: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Latencies of decisions and of updates from the moment that each was due, and how many failed.

    Every connection has its own timetable, which it keeps to however late the answers come (open loop).  Feedback goes
    out on connections of its own, each of which sends all that waits as soon as its last request was answered.
    """
    each = int(PER_SECOND * seconds / CONNECTIONS)
    body = json.dumps(QUOTE).encode()
    decided, learnt, wrong = [], [], 0
    ends = [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(CONNECTIONS + SENDERS * learn)]
    start = time.perf_counter() + 0.5

    async def deciding(i: int) -> None:
        nonlocal wrong
        for k in range(each):
            due = start + (k + i / CONNECTIONS) * CONNECTIONS / PER_SECOND
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            answer = await ends[i].post("/v1/decide", body, due)
            wrong += answer.status != 200
            decided.append(answer.seconds)
            if learn:
                queues[i % SENDERS].put_nowait(answer)

    async def learning(i: int) -> None:
        nonlocal wrong
        left = each * len(range(i, CONNECTIONS, SENDERS))
        while left:
            waiting = [await queues[i].get()]
            while not queues[i].empty() and len(waiting) < BATCH:
                waiting.append(queues[i].get_nowait())
            left -= len(waiting)
            asked = json.dumps({"feedback": [feedback(answer) for answer in waiting]}).encode()
            told = await ends[CONNECTIONS + i].post("/v1/update", asked)
            wrong += told.body.count(b"counted") != len(waiting)
            learnt.append(told.seconds)

    queues: list[asyncio.Queue[Answer]] = [asyncio.Queue() for _ in range(SENDERS)]
    await asyncio.gather(*map(deciding, range(CONNECTIONS)), *map(learning, range(SENDERS * learn)))
    for end in ends:
        end.close()
    return np.array(decided), np.array(learnt), wrong


def quantiles(what: str, taken: np.ndarray, p50: float | None, p99: float | None, note: str = "") -> Iterator[Row]:
    """Two rows, in milliseconds; the spread shown is that between sixteen stretches of the run."""
    stretches = np.array_split(taken * 1e3, 16)
    for name, percent, target in (("p50", 50, p50), ("p99", 99, p99)):
        each = [float(np.percentile(s, percent)) for s in stretches]
        low, high = np.percentile(each, (25, 75))
        value = float(np.percentile(taken * 1e3, percent))
        yield Row(
            what=f"{what}, {name}",
            value=value,
            low=float(low),
            high=float(high),
            unit="ms",
            count=len(taken),
            target=target,
            note=note,
        )


def service(quick: bool = False) -> Iterator[Row]:
    """Start the service, ask it, stop it."""
    seconds = 3 if quick else SECONDS
    with tempfile.TemporaryDirectory() as folder, started(f"{folder}/store.db", *OPTIONS) as running:
        port = running.port
        taken = uvloop.run(alone(port, 500 if quick else 5_000))
        yield from quantiles("service, one connection, decide", taken, 0.5, None)
        uvloop.run(paced(port, 2, learn=False))  # warms up
        taken, _, wrong = uvloop.run(paced(port, seconds, learn=False))
        what = f"service, {CONNECTIONS} connections, {PER_SECOND:,} decisions/s for {seconds} s"
        yield from quantiles(what, taken, 2.0, 20.0, f"{wrong} errors")
        taken, learnt, wrong = uvloop.run(paced(port, seconds, learn=True))
        yield from quantiles(f"{what}, each with feedback: decide", taken, None, None, f"{wrong} errors")
        yield from quantiles("· an update, of all feedback that waits", learnt, None, None)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    for row in service(parser.parse_args().quick):
        print(  # noqa: T201
            f"{row.what:<90} {row.value:8.3f} {row.unit:<3} [{row.low:.3f}, {row.high:.3f}] {row.verdict} {row.note}"
        )


if __name__ == "__main__":
    main()
