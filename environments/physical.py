"""Physical prices: milliseconds, millijoules, bytes and money, weighed into one number; one text for quote and bill."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from offramp.bandits.contract import Quote
from offramp.bandits.costs import Profile
from offramp.bandits.kernel import kernel
from offramp.bandits.policy import positive
from offramp.bandits.rows import FloatArray
from offramp.environments.cache import ConfidenceCache
from offramp.environments.devices import DeviceProfile
from offramp.environments.link_kernels import transmit_mj
from offramp.environments.links import Energy

# What a cost unit is made of, the fields of a float64 array; from ENERGY on what `transmit_mj` reads of the radio.
PER_MS, PER_MJ, PER_BYTE, PER_OFFLOAD, PER_MISS, DEADLINE, ENERGY = range(7)


@kernel
def edge_price(terms: FloatArray, ms: float, mj: float, ended_ms: float) -> float:
    """Cost units of computing on the edge that ends so many milliseconds after the request arrived."""
    missed = terms[PER_MISS] if ended_ms > terms[DEADLINE] else 0.0
    return terms[PER_MS] * ms + terms[PER_MJ] * mj + missed  # type: ignore[no-any-return]


@kernel
def offload_price(
    terms: FloatArray, ms: float, sending_ms: float, n_bytes: float, computed_ms: float, ended_ms: float
) -> float:
    """Cost units of an offload: milliseconds until its answer is back, energy, bytes, and the deadline if it breaks it.

    The edge's share ended `computed_ms` after the request arrived, the whole of it `ended_ms` after.
    """
    missed = terms[PER_MISS] if computed_ms <= terms[DEADLINE] < ended_ms else 0.0
    sent = terms[PER_MJ] * transmit_mj(terms[ENERGY:], sending_ms, n_bytes) + terms[PER_BYTE] * n_bytes
    return terms[PER_MS] * ms + sent + terms[PER_OFFLOAD] + missed  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What latency, energy, bytes and money are worth to each other, in cost units.

    Parameters
    ----------
    second
        Cost units for one second between computing's start and the answer, >= 0.
    joule
        For one joule on the edge, computing, coding and sending, >= 0.
    megabyte
        For 1,000,000 bytes sent, >= 0.
    money
        For one unit of currency, >= 0.
    megabyte_money, offload_money
        Currency that 1,000,000 bytes sent, and one offload's computing in the cloud, are charged, >= 0.
    missed
        For each request whose answer comes after the deadline, >= 0.
    deadline_ms
        Milliseconds from a request's arrival to its answer, > 0; inf = no deadline.
    mu
        Confidence per cost unit, >= 0.

    Examples
    --------
    >>> from offramp.environments.physical import Weights
    >>> Weights(second=2.0, missed=0.5, deadline_ms=100.0).terms()[:2]
    array([0.002, 0.   ])

    """

    second: float = 1.0
    joule: float = 0.0
    megabyte: float = 0.0
    money: float = 0.0
    megabyte_money: float = 0.0
    offload_money: float = 0.0
    missed: float = 0.0
    deadline_ms: float = math.inf
    mu: float = 1.0

    def __post_init__(self) -> None:
        for name in ("second", "joule", "megabyte", "money", "megabyte_money", "offload_money", "missed", "mu"):
            positive(name, getattr(self, name))
        if not self.deadline_ms > 0.0:
            raise ValueError(f"deadline_ms is {self.deadline_ms}, allowed are milliseconds > 0, or inf")

    def terms(self, energy: Energy | None = None) -> FloatArray:
        """The numbers that the kernels of this file read, with a radio's energy."""
        made = np.zeros(ENERGY)
        made[PER_MS] = self.second / 1e3
        made[PER_MJ] = self.joule / 1e3
        made[PER_BYTE] = (self.megabyte + self.money * self.megabyte_money) / 1e6
        made[PER_OFFLOAD] = self.money * self.offload_money
        made[PER_MISS], made[DEADLINE] = self.missed, self.deadline_ms
        return np.concatenate([made, (Energy() if energy is None else energy).array()])


@dataclass(frozen=True, kw_only=True)
class Physical:
    """A price list from a device, a cloud and a link, each with its own milliseconds.

    Parameters
    ----------
    edge, cloud
        Milliseconds of every segment and head on either side.
    weights
        What they are worth.
    mbit_s, round_trip_ms
        The link as it is priced, > 0 and >= 0; the factor of a stream's link state divides the rate.
    energy
        Energy of the edge's radio; None = not counted, and where time passes that of the world's link.

    Notes
    -----
    Where time passes (`offramp.environments.timed`), the rate is an estimate that says itself what it starts from, the
    bill is what happened, and `mbit_s` and `round_trip_ms` are not read.

    """

    edge: DeviceProfile
    cloud: DeviceProfile
    weights: Weights = field(default_factory=Weights)
    mbit_s: float = 10.0
    round_trip_ms: float = 20.0
    energy: Energy | None = None

    def __post_init__(self) -> None:
        positive("mbit_s", self.mbit_s, zero=False)
        positive("round_trip_ms", self.round_trip_ms)
        if len(self.edge.segment_ms) != len(self.cloud.segment_ms):
            raise ValueError(
                f"the edge's profile has {len(self.edge.segment_ms)} segments and the cloud's "
                f"{len(self.cloud.segment_ms)}, allowed is one number for both: profiles of one network"
            )

    def edge_side(self, profile: Profile, evaluate: str) -> FloatArray:
        """Milliseconds and millijoules on the edge up to each cut, (2, L + 1); the router counts where there is one.

        Energy of a device of unknown power counts as 0, and is refused where it has a price.
        """
        exits = len(self.edge.segment_ms)
        if profile.exits != exits:
            raise ValueError(
                f"the profile of device {self.edge.name!r} has {exits} exits, expected are {profile.exits} as in the "
                f"cache: it was measured on another network"
            )
        device = self.edge if profile.router_macs else replace(self.edge, router_ms=0.0)
        if device.power_w is None and self.weights.joule > 0.0:
            raise ValueError(
                f"power_w of device {device.name!r} is None, allowed are watts: joule is {self.weights.joule}"
            )
        ms = device.edge_ms(evaluate)
        return np.stack([ms, np.zeros_like(ms) if device.power_w is None else device.energy_mj(ms)])

    def cloud_side(self, profile: Profile) -> FloatArray:
        """Milliseconds in the cloud from each cut to the end, (L + 1,)."""
        device = self.cloud if profile.router_macs else replace(self.cloud, router_ms=0.0)
        return np.asarray(device.cloud_ms, dtype=np.float64)

    def quote(
        self, profile: Profile, *, link: float = 1.0, evaluate: str = "prefix", raw_input_allowed: bool = False
    ) -> Quote:
        """Price one request that has not waited, over a link that carries `mbit_s / link`."""
        positive("link", link, zero=False)
        terms = self.weights.terms(self.energy)
        ms, mj = self.edge_side(profile, evaluate)
        cloud = self.cloud_side(profile)
        edge = [edge_price(terms, ms[i], mj[i], ms[i]) for i in range(profile.exits + 1)]
        offload = []
        for i, n in enumerate(profile.payload_bytes):
            sending = n * link / (125.0 * self.mbit_s)
            back = sending + self.round_trip_ms + cloud[i]
            offload.append(offload_price(terms, back, sending, float(n), ms[i], ms[i] + back))
        offload[-1] = 0.0
        if not raw_input_allowed:
            offload[0] = math.inf
        return Quote(edge_cost=edge, offload_cost=offload, mu=self.weights.mu)


Device = Callable[[ConfidenceCache], DeviceProfile]


def physical_for(
    cache: ConfidenceCache, *, edge: Device, cloud: Device, weights: Weights, mbit_s: float, round_trip_ms: float
) -> Physical:
    """The price list that a configuration describes, for the network of a cache.

    Parameters
    ----------
    cache
        Whose network runs on both sides.
    edge, cloud
        What makes a device's profile for it, as `conf/device` does.
    weights, mbit_s, round_trip_ms
        As in `Physical`.

    Raises
    ------
    ValueError
        A device's profile belongs to another network.

    """
    sides = edge(cache), cloud(cache)
    for side in sides:
        side.check(cache)
    return Physical(edge=sides[0], cloud=sides[1], weights=weights, mbit_s=mbit_s, round_trip_ms=round_trip_ms)
