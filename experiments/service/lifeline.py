"""What ties a process of the service to its parent: a pipe that says when to stop, and a line that says it is ready."""

import asyncio
import os
import sys

READY = "ready"


def cut() -> asyncio.Future[None]:
    """Done when the parent closes its end of our standard input: it wants us to stop, or it is no more."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    end = sys.stdin.fileno()

    def read() -> None:
        if os.read(end, 4_096):
            return
        loop.remove_reader(end)
        if not done.done():
            done.set_result(None)

    loop.add_reader(end, read)
    return done


def ready() -> None:
    """Tell the parent that it may count on us."""
    print(READY, flush=True)
