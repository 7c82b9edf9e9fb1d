"""Links: what the radio draws, the constant links, and the named ones; the arrays and their kernels come along."""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments.link_kernels import (
    BYTES_PER_MS,
    LinkArrays,
    arrays_to,
    capacity,
    down,
    link_arrays,
    rate_at,
    round_trip_at,
    send_in_order,
    transfer_end,
    transmit_mj,
)

__all__ = [
    "BYTES_PER_MS",
    "PRESETS",
    "Constant",
    "Energy",
    "Link",
    "LinkArrays",
    "arrays_to",
    "capacity",
    "down",
    "link_arrays",
    "preset",
    "rate_at",
    "round_trip_at",
    "send_in_order",
    "transfer_end",
    "transmit_mj",
]

FASTEST_MBIT_S = 100_000.0  # beyond it a number was given in another unit


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What the radio draws while it sends: power = per_mbit_s_mw * rate + base_mw, and a tail after each transfer.

    Parameters
    ----------
    per_mbit_s_mw
        Milliwatts for each Mbit/s, >= 0.
    base_mw
        Milliwatts at any rate while the transfer lasts, >= 0.
    tail_mj
        Millijoules after each transfer, until the radio sleeps again, >= 0.  A transfer that follows within the tail
        pays it once more: an upper bound.

    Examples
    --------
    >>> from offramp.environments.links import Energy
    >>> round(Energy(per_mbit_s_mw=438.39, base_mw=1288.04).transmit_mj(ms=68.376, n_bytes=50_000), 1)
    263.4

    """

    per_mbit_s_mw: float = 0.0
    base_mw: float = 0.0
    tail_mj: float = 0.0

    def __post_init__(self) -> None:
        for name in ("per_mbit_s_mw", "base_mw", "tail_mj"):
            _bounded(name, getattr(self, name), math.inf, "a finite number >= 0")

    def array(self) -> FloatArray:
        """The three coefficients as the kernel takes them, (3,)."""
        return np.array([self.per_mbit_s_mw, self.base_mw, self.tail_mj], dtype=np.float64)

    def transmit_mj(self, ms: float, n_bytes: float) -> float:
        """Millijoules of one transfer; none where nothing was sent."""
        return transmit_mj(self.array(), ms, n_bytes)


@runtime_checkable
class Link(Protocol):
    """An immutable spec of a link over time."""

    @property
    def energy(self) -> Energy:
        """What the radio draws."""

    def arrays(self, *, duration_ms: float, seed: int) -> LinkArrays:
        """The link from 0 on.

        Parameters
        ----------
        duration_ms
            How long the world lasts, > 0: until then nothing that is drawn repeats.  A longer duration continues a
            shorter one.
        seed
            With the spec it decides all that is drawn, whatever else was drawn before.

        """


@dataclass(frozen=True, kw_only=True)
class Constant:
    """One rate and one round trip for good.

    Parameters
    ----------
    mbit_s
        Rate, in (0, 100,000]: an outage is no constant link.
    round_trip_ms
        Round trip, >= 0.
    energy
        What the radio draws.

    Examples
    --------
    >>> from offramp.environments.links import Constant, transfer_end
    >>> link = Constant(mbit_s=8.0, round_trip_ms=20.0).arrays(duration_ms=1_000.0, seed=0)
    >>> transfer_end(link, 500.0, 10_000.0)  # 1,000 bytes per ms
    510.0

    """

    mbit_s: float
    round_trip_ms: float = 0.0
    energy: Energy = field(default_factory=Energy)

    def __post_init__(self) -> None:
        refuse_rate("mbit_s", self.mbit_s)
        if self.mbit_s == 0.0:
            raise ValueError("mbit_s is 0, allowed is a rate > 0: an outage is a matter of a trace or of Outages")
        refuse_round_trip("round_trip_ms", self.round_trip_ms)

    def arrays(self, *, duration_ms: float, seed: int) -> LinkArrays:
        """One segment."""
        refuse_duration(duration_ms)
        return link_arrays([duration_ms], self.mbit_s, self.round_trip_ms)


def _bounded(name: str, value: float, most: float, allowed: str) -> None:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0.0 <= value <= most or value == math.inf:
        raise ValueError(f"{name} is {value!r}, allowed is {allowed}")


def refuse_rate(name: str, mbit_s: float) -> None:
    """Raise ValueError unless it is a rate in Mbit/s."""
    allowed = f"a rate in Mbit/s in 0..{FASTEST_MBIT_S:,.0f} (1 Mbit/s = 1,000 kbit/s = 1,000,000 bit/s)"
    _bounded(name, mbit_s, FASTEST_MBIT_S, allowed)


def refuse_round_trip(name: str, ms: float) -> None:
    """Raise ValueError unless it is a round trip in ms."""
    _bounded(name, ms, 60_000.0, "a round trip in ms in 0..60,000")


def refuse_duration(ms: float) -> None:
    """Raise ValueError unless a world can last so long."""
    _bounded("duration_ms", ms, math.inf, "a finite number of ms > 0")
    if not ms > 0.0:
        raise ValueError(f"duration_ms is {ms!r}, allowed is a finite number of ms > 0")


# Rates and round trips between a client in Rio de Janeiro and three clouds: arXiv 2108.09343, latency experiment.
# Cellular and Wi-Fi: Huang et al., MobiSys 2012, reconstructed; their round trips are assumptions, no measurements.
PRESETS = {
    "sao_paulo": Constant(mbit_s=93.6, round_trip_ms=10.0),
    "fremont": Constant(mbit_s=73.3, round_trip_ms=180.0),
    "paris": Constant(mbit_s=60.0, round_trip_ms=216.0),
    "cell_3g": Constant(mbit_s=1.1, round_trip_ms=100.0, energy=Energy(per_mbit_s_mw=868.98, base_mw=817.88)),
    "lte": Constant(mbit_s=5.85, round_trip_ms=33.0, energy=Energy(per_mbit_s_mw=438.39, base_mw=1288.04)),
    "wifi": Constant(mbit_s=18.88, round_trip_ms=10.0, energy=Energy(per_mbit_s_mw=283.17, base_mw=132.86)),
}


def preset(name: str) -> Constant:
    """One of the named constant links: sao_paulo, fremont, paris, cell_3g, lte, wifi."""
    if name not in PRESETS:
        raise ValueError(f"link {name!r} does not exist, allowed are {sorted(PRESETS)}")
    return PRESETS[name]
