"""The price lists: paper units, I-SplitEE's own constants, and milliseconds of a device, a link and a cloud."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from offramp.bandits import PaperUnits, Profile
from offramp.bandits.costs import PriceList
from offramp.environments.device_presets import preset as device
from offramp.environments.links import preset as link
from offramp.environments.physical import Physical, Weights

PAPER, AUTHORS, CLAIMED, CONTESTED = "paper", "I-SplitEE's", "physical", "contested"
DEVICES = {"raspberry_pi_4": "Raspberry Pi 4", "jetson_nano": "Jetson Nano"}
LINKS = {"cell_3g": "3G", "lte": "LTE", "wifi": "Wi-Fi"}
At = Callable[[float], PriceList]  # a price list at a given mu


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device that is so many times slower than its preset, with a link."""

    device: str
    slower: float
    link: str

    @property
    def name(self) -> str:
        """As it stands in tables."""
        slow = f", {self.slower:g} times slower" if self.slower != 1.0 else ""
        return f"{DEVICES.get(self.device, self.device)}{slow}, {LINKS.get(self.link, self.link)}"


def places(cfg: DictConfig) -> list[Place]:
    """Every device with every link; the one of the claim is the first."""
    every = [
        Place(device=name, slower=float(slower), link=to)
        for name, slower in cfg.places.devices
        for to in cfg.places.links
    ]
    first = named(cfg, "claimed")
    return [first, *(p for p in every if p != first)]


def named(cfg: DictConfig, which: str) -> Place:
    """The place of the claim, or the contested one."""
    name, slower, to = cfg.places[which]
    return Place(device=name, slower=float(slower), link=to)


def paper(cfg: DictConfig, profile: Profile) -> At:
    """The whole network at one price, whatever its layers, and every offload at another."""
    return lambda mu: PaperUnits(per_layer=cfg.prices.network / profile.layers[-1], offload=cfg.prices.offload, mu=mu)


def authors(cfg: DictConfig, profile: Profile) -> At:
    """So much for each layer, and for each offload."""
    return lambda mu: PaperUnits(per_layer=cfg.authors.per_layer, offload=cfg.authors.offload, mu=mu)


def physical(cfg: DictConfig, profile: Profile, place: Place) -> At:
    """Milliseconds until the answer; a second costs what makes the backbone on this edge cost `network`."""
    edge, to = device(place.device, profile).scaled(place.slower), link(place.link)
    name, slower = cfg.places.cloud
    second = cfg.prices.network / (sum(edge.segment_ms) / 1e3)
    return lambda mu: Physical(
        edge=edge,
        cloud=device(name, profile).scaled(slower),
        weights=Weights(second=second, mu=mu),
        mbit_s=to.mbit_s,
        round_trip_ms=to.round_trip_ms,
    )


def units(cfg: DictConfig, profile: Profile, place: Place, run: dict[str, float]) -> dict[str, float]:
    """What a mean request took: milliseconds, millijoules of the edge and of its radio, bytes.

    Parameters
    ----------
    cfg, profile, place
        As `physical` takes them.
    run
        Means of `cost`, `edge_cost` and `bytes` over a run.

    """
    edge, to = device(place.device, profile).scaled(place.slower), link(place.link)
    per_unit = sum(edge.segment_ms) / cfg.prices.network
    sending = 8.0 * run["bytes"] / (1e3 * to.mbit_s)
    radio = to.energy.transmit_mj(ms=sending, n_bytes=run["bytes"]) if sending > 0.0 else 0.0
    return {
        "ms": run["cost"] * per_unit,
        "mj": run["edge_cost"] * per_unit * (edge.power_w or 0.0) + float(radio),
        "bytes": run["bytes"],
    }


def lists(cfg: DictConfig, profile: Profile) -> dict[str, At]:
    """The price lists whose fronts are drawn."""
    made: dict[str, Any] = {PAPER: paper(cfg, profile), AUTHORS: authors(cfg, profile)}
    return made | {
        which: physical(cfg, profile, named(cfg, of)) for which, of in ((CLAIMED, "claimed"), (CONTESTED, "contested"))
    }
