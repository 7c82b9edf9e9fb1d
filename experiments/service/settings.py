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
MOST = 1_000_000_000
RANGES: dict[str, tuple[Any, float, float]] = {
    "exits": (int, 1, 4_096),
    "workers": (int, 1, 4_096),
    "port": (int, 0, 65_535),
    "features": (int, 0, 65_536),
    "batch": (int, 1, 1_000_000),
    "body_bytes": (int, 1_024, LONGEST_BODY),
    "header_bytes": (int, 1_024, LONGEST_BODY),
    "connections": (int, 1, 1_000_000),
    "keep_alive": (int, 1, 86_400),
    "burst": (int, 1, MOST),
    "rate": (int | float, 1e-3, MOST),
    "request_seconds": (int | float, 0.01, 3_600),
    "learner_wait": (int | float, 0, 3_600),
    "publish_every": (int | float, 0, 3_600),
    "drain": (int | float, 0.1, 3_600),
}


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
        The table of arms: every cut (None: all that there are) with every threshold.  No exits: those of the
        store, which must be there.
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
    given
        Names of the settings that somebody chose; a store that is there supplies the others of what it knows (policy,
        table of arms, seed, features, streams).  None = all of them.

    Raises
    ------
    ValueError
        A value is none that is allowed.

    """

    store: str
    exits: int | None = None
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
    given: list[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.store, str) or not self.store:
            raise ValueError(f"store is {self.store!r}, allowed is a path: store=FILE")
        if self.exits is None and not Path(self.store).exists():
            raise ValueError("exits is missing, allowed for a store that is made is a whole number from 1 on: exits=7")
        for name, (kind, smallest, largest) in RANGES.items():
            value = getattr(self, name)
            if name == "exits" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not smallest <= value <= largest:
                what = "a whole number" if kind is int else "a number"
                raise ValueError(f"{name} is {value!r}, allowed is {what} in {smallest}..{largest}")
        if self.burst < self.batch:
            raise ValueError(f"burst is {self.burst}, allowed is {self.batch} (batch) or more")
        names = self.streams
        if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and 0 < len(n) < 65 for n in names):
            raise ValueError(f"streams are {names!r}, allowed are distinct names of 1 to 64 characters, at least one")
        if not self.loopback and not self.exposed:
            raise ValueError(f"host is {self.host!r}, allowed is a loopback address, or any with exposed=true")
        if not self.loopback and not api_key():
            raise ValueError(f"host is {self.host!r} and {API_KEY} is not set: without a key only loopback is served")
        if self.exits is not None:
            _ = self.arms

    def chosen(self, *names: str) -> bool:
        """Did somebody choose one of these?"""
        return self.given is None or not self.stored or not set(self.given).isdisjoint(names)

    @property
    def stored(self) -> bool:
        """Is the store there?"""
        return Path(self.store).exists()

    def make_folder(self) -> None:
        """Have a folder that the store can be made in, for its owner alone.

        Raises
        ------
        OSError
            It cannot be made.

        """
        folder = Path(self.store).parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"store is {self.store}, whose folder {folder} cannot be made: {error.strerror}") from error

    @property
    def loopback(self) -> bool:
        """Is the service reachable from this machine alone?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def arms(self) -> Arms:
        """The table of arms, for the exits that were given."""
        if self.exits is None:
            raise ValueError("exits is missing, allowed for a store that is made is a whole number from 1 on: exits=7")
        return self.table(self.exits)

    def table(self, exits: int) -> Arms:
        """The table of arms for so many exits."""
        given = {"thresholds": tuple(self.thresholds)} if self.thresholds else {}
        arms = Arms.grid(exits=exits, raw_input_allowed=self.raw_input_allowed, **given)
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
