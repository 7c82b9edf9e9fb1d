"""A device profile: how many milliseconds one device needs for each segment, exit head and router of one network."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.costs import EVALUATE, Profile
from offramp.environments.cache import HERE, ConfidenceCache

SCHEMA = "offramp-device-1"
Floats = npt.NDArray[np.float64]
Quartiles = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """Milliseconds on one device for one network and one image; L exits.

    `offramp.models.timing` measures one, `offramp.environments.device_presets` scales one from the literature.

    Parameters
    ----------
    name
        The device: "raspberry_pi_4", or what the machine calls its processor.
    network
        SHA-256 of the network's weights, as `cache.hashes["model"]`; "" = not tied to weights.
    segment_ms
        Median time of each segment, (L,), milliseconds >= 0.  The first one turns the 8-bit image into what the
        network reads.
    head_ms
        Median time of each exit head with the confidence of its answer, (L,), milliseconds >= 0.
    router_ms
        Median time of what picks the expert, milliseconds >= 0; 0 without.
    power_w
        Power in watts drawn while computing, > 0; None = unknown.
    work
        What the network asks for, multiply-accumulates among it; None = not counted.
    segment_quartiles_ms, head_quartiles_ms
        Lower and upper quartile of each time, L pairs of milliseconds; empty = unknown.
    router_quartiles_ms
        Those of the router; None = unknown.
    whole_ms
        Median time of all segments and the last head in one go, milliseconds > 0, router excluded: what the parts'
        sum is checked against; None = not measured.
    batch
        Images that were passed at once, >= 1; all times are of one of them.
    threads
        Threads that computed, >= 1; None = unknown.
    repeats
        Times that everything was measured, >= 0; 0 = not measured.
    source
        Where the numbers come from.
    scaled_from
        What they were scaled from, and how; "" = they are as measured.

    Examples
    --------
    >>> from offramp.environments.devices import DeviceProfile
    >>> device = DeviceProfile(name="a board", segment_ms=(3, 4), head_ms=(1, 1), router_ms=0.5, power_w=5.0)
    >>> device.edge_ms("prefix"), device.cloud_ms
    (array([0. , 4.5, 9.5]), array([8.5, 5. , 0. ]))
    >>> device.energy_mj(device.total_ms)
    42.5

    """

    name: str
    network: str = ""
    segment_ms: tuple[float, ...]
    head_ms: tuple[float, ...]
    router_ms: float = 0.0
    power_w: float | None = None
    work: Profile | None = None
    segment_quartiles_ms: tuple[Quartiles, ...] = ()
    head_quartiles_ms: tuple[Quartiles, ...] = ()
    router_quartiles_ms: Quartiles | None = None
    whole_ms: float | None = None
    batch: int = 1
    threads: int | None = None
    repeats: int = 0
    source: str = ""
    scaled_from: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "network", "source", "scaled_from"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, allowed is a text")
        object.__setattr__(self, "segment_ms", _times("segment_ms", self.segment_ms))
        object.__setattr__(self, "head_ms", _times("head_ms", self.head_ms))
        if not self.segment_ms or len(self.segment_ms) != len(self.head_ms):
            raise ValueError(
                f"segment_ms has {len(self.segment_ms)} values and head_ms {len(self.head_ms)}, "
                f"allowed are as many of both, 1 or more"
            )
        object.__setattr__(self, "router_ms", _time("router_ms", self.router_ms))
        for name in ("power_w", "whole_ms"):
            value = getattr(self, name)
            if value is not None and not (_number(value) and 0.0 < value < math.inf):
                raise ValueError(f"{name} is {value!r}, allowed is a finite number > 0, or None")
            object.__setattr__(self, name, None if value is None else float(value))
        for name in ("segment_quartiles_ms", "head_quartiles_ms"):
            pairs = getattr(self, name)
            if not isinstance(pairs, list | tuple) or len(pairs) not in (0, self.exits):
                raise ValueError(f"{name} is {pairs!r}, allowed are {self.exits} pairs, or none")
            object.__setattr__(self, name, tuple(_pair(name, pair) for pair in pairs))
        if self.router_quartiles_ms is not None:
            object.__setattr__(self, "router_quartiles_ms", _pair("router_quartiles_ms", self.router_quartiles_ms))
        for name, least in (("batch", 1), ("threads", 1), ("repeats", 0)):
            value = getattr(self, name)
            unknown = value is None and name == "threads"
            if not unknown and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"{name} is {value!r}, allowed is a whole number, {least} or more")
        if self.work is not None and (not isinstance(self.work, Profile) or self.work.exits != self.exits):
            raise ValueError(f"work is {self.work!r}, allowed is the Profile of a network with {self.exits} exits")

    @property
    def exits(self) -> int:
        """Exits L of the network."""
        return len(self.segment_ms)

    @property
    def total_ms(self) -> float:
        """Milliseconds for the router, all segments and the last head, without the exits on the way."""
        return self.router_ms + math.fsum(self.segment_ms) + self.head_ms[-1]

    def edge_ms(self, evaluate: str = "prefix") -> Floats:
        """Milliseconds up to each cut, (L + 1,), with the cut's own head or with all heads on the way.

        An input that is sent as it is costs none: who computes on it routes it.

        Parameters
        ----------
        evaluate
            "own" or "prefix", see `offramp.bandits.Profile.edge_macs`.

        """
        if evaluate not in EVALUATE:
            raise ValueError(f"evaluate is {evaluate!r}, allowed are {EVALUATE}")
        heads = np.array(self.head_ms)
        spent = np.cumsum(self.segment_ms) + (np.cumsum(heads) if evaluate == "prefix" else heads)
        return np.concatenate([[0.0], spent + self.router_ms])

    @property
    def cloud_ms(self) -> Floats:
        """Milliseconds from each cut to the end with the last head alone, (L + 1,); 0 at cut L.

        At cut 0 with the router: who computes on the input routes it.
        """
        tails = np.cumsum(self.segment_ms[::-1])[::-1] + self.head_ms[-1]
        tails[0] += self.router_ms
        return np.concatenate([tails, [0.0]])

    def energy_mj(self, ms: Any) -> Any:
        """Millijoules of so many milliseconds of computing, in the shape of what is given: watts times milliseconds.

        Raises
        ------
        ValueError
            The power of this device is unknown.

        """
        if self.power_w is None:
            raise ValueError(f"power_w of device {self.name!r} is None, allowed is a power in watts: energy needs it")
        return self.power_w * ms

    def scaled(self, factor: float) -> "DeviceProfile":
        """The same device so many times as slow, at the same power; a factor below 1 makes it faster."""
        if not (_number(factor) and 0.0 < factor < math.inf):
            raise ValueError(f"factor is {factor!r}, allowed is a finite number > 0")
        if factor == 1.0:
            return self
        router = self.router_quartiles_ms
        return replace(
            self,
            segment_ms=tuple(factor * t for t in self.segment_ms),
            head_ms=tuple(factor * t for t in self.head_ms),
            router_ms=factor * self.router_ms,
            segment_quartiles_ms=tuple((factor * low, factor * high) for low, high in self.segment_quartiles_ms),
            head_quartiles_ms=tuple((factor * low, factor * high) for low, high in self.head_quartiles_ms),
            router_quartiles_ms=None if router is None else (factor * router[0], factor * router[1]),
            whole_ms=None if self.whole_ms is None else factor * self.whole_ms,
            scaled_from=f"{self.scaled_from or self.name}; all times {factor:g}-fold",
        )

    def check(self, cache: ConfidenceCache) -> None:
        """Refuse a cache of another network; what one of them does not know of its network is not compared.

        Raises
        ------
        ValueError
            The number of exits, the hash of the weights, or the counted work differs: the message says both.

        """
        if self.exits != len(cache.exits):
            raise ValueError(f"{self.name!r} knows {self.exits} exits, allowed are {len(cache.exits)} as in the cache")
        theirs = cache.hashes.get("model", "")
        if self.network and theirs and self.network != theirs:
            raise ValueError(f"{self.name!r} knows network {self.network}, allowed is {theirs} as in the cache")
        if self.work is not None and cache.profile is not None:
            # The same weights take other images too: the hash alone does not tell.
            for field in ("segment_macs", "head_macs", "router_macs"):
                mine, other = getattr(self.work, field), getattr(cache.profile, field)
                if mine != other:
                    raise ValueError(
                        f"{self.name!r} knows a network of {field} {mine}, allowed is {other} as in the cache"
                    )

    def save(self, path: str | Path) -> None:
        """Write the profile as readable JSON: the file is the old one or the whole new one, never a part."""
        path = Path(path)
        content = {"schema": SCHEMA, **asdict(self)}
        lines = (f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in content.items())
        partial = path.with_name(path.name + ".partial")
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "DeviceProfile":
        """Read a profile and check all of it.

        Raises
        ------
        ValueError
            The file is missing or damaged, of another schema, or holds what no profile may hold.

        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"file {path} cannot be read ({error}), allowed is a device profile as JSON") from error
        schema = found.pop("schema", None) if isinstance(found, dict) else type(found).__name__
        if schema != SCHEMA:
            raise ValueError(f"file {path}: schema is {schema!r}, allowed is {SCHEMA!r}")
        wanted = {field.name for field in fields(cls)}
        if found.keys() != wanted:
            odd = sorted(found.keys() ^ wanted)
            raise ValueError(f"file {path} differs in {odd}, allowed are exactly {sorted(wanted)}")
        try:
            if found["work"] is not None:
                found["work"] = Profile(**found["work"])
            return cls(**found)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"file {path} is not a device profile: {error}") from error

    @classmethod
    def embedded(cls, name: str) -> "DeviceProfile":
        """The profile of a shipped network, as one core of a server ran it; its file says which.

        Examples
        --------
        >>> from offramp.environments import DeviceProfile
        >>> core = DeviceProfile.embedded("mobilenet_v2_imagenette")
        >>> core.exits, core.threads
        (7, 1)

        """
        shipped = sorted(p.name.split(".")[0] for p in HERE.glob("*.device.json"))
        if name not in shipped:
            raise ValueError(f"embedded device profile {name!r} does not exist, allowed are {shipped}")
        return cls.load(HERE / f"{name}.device.json")


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _time(name: str, value: Any) -> float:
    if not (_number(value) and 0.0 <= value < math.inf):
        raise ValueError(f"{name} is {value!r}, allowed are finite milliseconds >= 0")
    return float(value)


def _times(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list | tuple | np.ndarray):
        raise ValueError(f"{name} is {values!r}, allowed are milliseconds, one for each segment")
    return tuple(_time(f"{name}[{i}]", value) for i, value in enumerate(values))


def _pair(name: str, pair: Any) -> Quartiles:
    times = _times(name, pair)
    if len(times) != 2 or times[0] > times[1]:
        raise ValueError(f"{name} holds {pair!r}, allowed are a lower and an upper quartile")
    return times[0], times[1]
