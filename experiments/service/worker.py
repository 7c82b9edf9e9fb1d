"""A worker process: answers requests on the socket that its parent listens on."""

import asyncio
import logging
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn
import uvloop

from offramp.bandits import ContractError, Quote
from offramp.bandits.durable import Decider, StoreError, signing_key
from offramp.experiments.service.accepting import LOADS, Accepting, Loads
from offramp.experiments.service.app import make_app, make_metrics
from offramp.experiments.service.connection import connections
from offramp.experiments.service.lifeline import cut, ready
from offramp.experiments.service.link import Link
from offramp.experiments.service.settings import SOCKET, Settings

log = logging.getLogger("offramp.worker")


async def serve(settings: Settings, folder: Path, listening: socket.socket, own: int) -> None:
    """Answer until the lifeline is cut, then finish what is open."""
    decider = Decider(Path(f"{settings.store}.board"), key=signing_key(settings.store))
    found = {"exits": decider.arms.exits, "features": decider.features, "streams": list(decider.streams)}
    settings = replace(settings, **{k: v for k, v in found.items() if k == "exits" or not settings.chosen(k)})
    metrics = make_metrics(settings)
    metrics.learner.set(0)
    link = Link(str(folder / SOCKET), wait=settings.learner_wait, changed=lambda up: metrics.learner.set(up))
    _warm_up(decider, settings)
    loads = Loads(folder / LOADS, settings.workers)
    loads[own] = 0
    protocol = connections(
        most=settings.header_bytes,
        seconds=settings.request_seconds,
        counted=lambda number: loads.__setitem__(own, number),
    )
    config = uvicorn.Config(
        make_app(settings, decider, link, metrics),
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=int(settings.drain) or 1,
    )
    config.load()
    server = uvicorn.Server(config)
    listening.setblocking(False)
    accepting = Accepting(
        listening,
        lambda: protocol(config=config, server_state=server.server_state, app_state={}),
        loads=loads,
        own=own,
    )
    linked = asyncio.create_task(link.run())
    stop = cut()

    def leave(_: asyncio.Future[None]) -> None:
        accepting.stop()
        server.should_exit = True

    stop.add_done_callback(leave)
    ready()
    try:
        await server.serve(sockets=[])  # it serves, and `accepting` accepts
    finally:
        linked.cancel()
        await asyncio.gather(linked, return_exceptions=True)


def _warm_up(decider: Decider, settings: Settings) -> None:
    """Compile, or load, what decides, before the first request has to wait for it."""
    free = [0.0] * (settings.exits + 1)
    try:
        ticket = decider.decide(
            Quote(edge_cost=free, offload_cost=free, mu=0.0),
            [0.0] * settings.features or None,
            stream=settings.streams[0],
        )
    except ContractError as error:
        log.warning("the first decision was refused: %s", error)
    else:
        decider.read(ticket.token)


def main() -> None:
    """Entry point: the folder of the service, the number of the listening socket, and which worker this is."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    try:
        listening, own = socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3])
        uvloop.run(serve(Settings.read(folder), folder, listening, own))
    except (StoreError, ValueError, OSError) as error:
        sys.exit(f"offramp serve: {error}")


if __name__ == "__main__":
    main()
