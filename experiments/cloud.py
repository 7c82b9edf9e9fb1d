"""`offramp cloud`: the tail of a network behind HTTP, for edges that send what they stopped at."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import hydra
import uvicorn
from omegaconf import DictConfig

from offramp.environments.live.cloud import CloudApp
from offramp.experiments.earlier import open_cache, write
from offramp.experiments.halves import KEY, loaded
from offramp.experiments.refusals import in_one_line
from offramp.models.halves import CloudNetwork

IDLE = 75  # seconds that a connection may stay open without a question


class _Server(uvicorn.Server):
    """Tells where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, announce: str | None) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        port = self.servers[0].sockets[0].getsockname()[1]
        host = self.config.host if ":" not in self.config.host else f"[{self.config.host}]"
        url = f"http://{host}:{port}"
        if self._announce is not None:
            await asyncio.to_thread(
                write, Path(self._announce), json.dumps({"url": url, "port": port, "pid": os.getpid()}) + "\n"
            )
        print(f"offramp cloud: ready on {url}", flush=True)


def run(cfg: DictConfig) -> None:
    """Serve until the process is told to end; what is being answered is answered."""
    key = os.environ.get(KEY)
    if cfg.host not in ("127.0.0.1", "::1", "localhost") and not key:
        raise ValueError(
            f"host is {cfg.host}, allowed without a key is 127.0.0.1: put a key into {KEY}, here and at the edge"
        )
    found = loaded(cfg, open_cache(cfg.cache))
    half = CloudNetwork(found.network, found.codecs, temperatures=found.temperatures, experts=found.experts)
    app = CloudApp(half, key=key or None, waiting=cfg.waiting, patience_s=cfg.patience)
    config = uvicorn.Config(
        app,
        host=cfg.host,
        port=cfg.port,
        log_level="error",
        access_log=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=5,
        limit_concurrency=4 * cfg.waiting,
    )
    _Server(config, cfg.announce).run()


@hydra.main(config_path="pkg://offramp.conf", config_name="cloud", version_base="1.3")
@in_one_line
def main(cfg: DictConfig) -> None:
    """Entry point of `offramp cloud`."""
    run(cfg)


if __name__ == "__main__":
    main()
