"""What the processes of one service agree on: checked once, written to a file that all of them read."""

import ipaddress
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from offramp.bandits import Arms

SETTINGS, SOCKET, METRICS = "settings.json", "learner.sock", "metrics"
API_KEY = "OFFRAMP_API_KEY"
LONGEST_BODY = 8 * 1_048_576
LARGEST = 1e9  # of a price or a feature in a request: squares and sums of products stay finite


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One service.

    Parameters
    ----------
    store
        Path of the engine's store.
    policy
        Configuration of the policy, as Hydra instantiates it; empty = what the store holds, with its table of arms.
    exits, thresholds, cuts, raw_input_allowed
        The table of arms: every cut (None: all that there are) with every threshold.
    seed, features, streams, synchronous, lateness, keep
        As of `offramp.bandits.durable.DurableEngine`.
    host, port, exposed
        Where to listen.  Other addresses than those of this machine's loopback only where `exposed` says so and an API
        key is set.
    workers
        Processes that answer requests.
    batch, body_bytes, header_bytes, connections
        Most items of one request, most bytes of its body and of its headers, most connections of one worker.
    rate, burst
        Decisions and pieces of feedback per second, and at once, that one worker takes from one address.
    request_seconds, keep_alive
        How long a request may take to arrive, and how long an idle connection stays open.
    learner_wait
        How long feedback waits for a learner that is down before the answer is 503.
    publish_every
        Least seconds between two boards: how old the knowledge may be that a worker decides on.
    drain
        Seconds that open requests have to end when the service stops.
    docs
        Serve `/openapi.json` and `/docs`.

    Raises
    ------
    ValueError
        A value is none that is allowed.

    """

    store: str
    exits: int
    policy: dict[str, Any] = field(default_factory=dict)
    thresholds: list[float] = field(default_factory=list)
    cuts: list[int] | None = None
    raw_input_allowed: bool = False
    seed: int = 0
    features: int = 0
    streams: list[str] = field(default_factory=lambda: ["default"])
    synchronous: str = "NORMAL"
    lateness: int = 65_536
    keep: int | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    exposed: bool = False
    workers: int = 2
    batch: int = 256
    body_bytes: int = 1_048_576
    header_bytes: int = 16_384
    connections: int = 1_000
    rate: float = 20_000.0
    burst: int = 20_000
    request_seconds: float = 10.0
    keep_alive: int = 75
    learner_wait: float = 5.0
    publish_every: float = 0.02
    drain: float = 10.0
    docs: bool = True

    def __post_init__(self) -> None:
        least = {
            **dict.fromkeys(("exits", "workers", "batch", "connections", "keep_alive"), 1),
            **dict.fromkeys(("port", "features", "learner_wait", "publish_every"), 0),
            **{"body_bytes": 1_024, "header_bytes": 1_024, "burst": self.batch, "request_seconds": 0.01, "drain": 0.1},
            "rate": 1e-3,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not smallest <= value <= LARGEST:
                raise ValueError(f"{name} is {value!r}, allowed is a number in {smallest:g}..{LARGEST:g}")
        if self.body_bytes > LONGEST_BODY:
            raise ValueError(f"body_bytes is {self.body_bytes}, allowed is at most {LONGEST_BODY}")
        if self.port > 65_535:
            raise ValueError(f"port is {self.port}, allowed is 0 (any that is free) to 65535")
        names = self.streams
        if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and 0 < len(n) < 65 for n in names):
            raise ValueError(f"streams are {names!r}, allowed are distinct names of 1 to 64 characters, at least one")
        if not self.loopback and not self.exposed:
            raise ValueError(f"host is {self.host!r}, allowed is a loopback address, or any with exposed=true")
        if not self.loopback and not api_key():
            raise ValueError(f"host is {self.host!r} and {API_KEY} is not set: without a key only loopback is served")
        _ = self.arms

    @property
    def loopback(self) -> bool:
        """Is the service reachable from this machine alone?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def arms(self) -> Arms:
        """The table of arms."""
        given = {"thresholds": tuple(self.thresholds)} if self.thresholds else {}
        arms = Arms.grid(exits=self.exits, raw_input_allowed=self.raw_input_allowed, **given)
        if self.cuts is None:
            return arms
        there = {arm.cut for arm in arms}
        if not set(self.cuts) <= there or not self.cuts:
            raise ValueError(f"cuts are {self.cuts}, allowed are one or more of {sorted(there)}")
        return arms.without(cuts=there - set(self.cuts)) if there - set(self.cuts) else arms

    def write(self, folder: Path) -> None:
        """Put the settings where the other processes look for them."""
        (folder / SETTINGS).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """What `write` wrote."""
        return cls(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))


def api_key() -> bytes:
    """The key that every request must bear; empty where none is asked for.

    Raises
    ------
    ValueError
        The key holds what no header can carry.

    """
    key = os.environ.get(API_KEY, "")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{API_KEY} holds characters that no header can carry, allowed are printable ones of ASCII")
    return key.encode()
