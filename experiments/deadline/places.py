"""Where they play: a cache under each calibration with its payloads, a device, links, arrivals and streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from offramp.bandits import Arms
from offramp.environments import Abrupt, CacheError, ConfidenceCache, Stationary, Stream, World
from offramp.environments.devices import DeviceProfile
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import Link
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.timed import Arrivals, Paced, Poisson, TimedWorld
from offramp.environments.timed.tables import Facts
from offramp.experiments.joint_policy.suite import THRESHOLDS

BESIDE = "beside"
STAND_IN_MS = 10.0  # a whole image, where no device was measured
CALM, BUSY = "calm", "busy"
PRISTINE, MIXED = "pristine", "mixed"


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """A network on its machines: its test images under one calibration, their payloads, the edge and the cloud."""

    cache: ConfidenceCache
    payloads: PayloadTable | None
    edge: DeviceProfile
    cloud: DeviceProfile
    slow: float

    def world(
        self, weights: Weights, link: Link, arrivals: Arrivals, buffer: int | None, *, sends_input: bool
    ) -> TimedWorld:
        """A world in time; every cut with twenty thresholds, and the input where it may be sent."""
        arms = Arms.grid(exits=len(self.cache.exits), thresholds=THRESHOLDS, raw_input_allowed=sends_input)
        prices = Physical(edge=self.edge, cloud=self.cloud, weights=weights)
        world = World(cache=self.cache, prices=prices, arms=arms, raw_input_allowed=sends_input)
        return TimedWorld(
            world=world, link=link, arrivals=arrivals, buffer=buffer, payloads=self.payloads, coding=self.slow
        )


def places(
    cache: ConfidenceCache, table: PayloadTable | None, device: DeviceProfile, slow: float, names: list[str]
) -> dict[str, Place]:
    """A place for each calibration.

    Parameters
    ----------
    cache, table
        The whole cache and its whole table of payloads, uncalibrated; None = feature maps as they are.
    device
        The cloud.
    slow
        How many times slower the edge is, computing and coding, > 0.
    names
        Calibrations; the last exit's temperature holds for what comes back from the cloud too.

    """
    found = {}
    for name in names:
        payloads = table
        if table is not None and name != "raw":
            if name not in cache.calibrations:
                raise CacheError(f"calibration is {name!r}, allowed in this cache are {('raw', *cache.calibrations)}")
            payloads = table.calibrated(float(cache.calibrations[name][0, -1]))
        test = cache.calibrated(name).part("test")
        found[name] = Place(cache=test, payloads=payloads, edge=device.scaled(slow), cloud=device, slow=slow)
    return found


def beside(cfg: DictConfig, key: str, ending: str) -> str | None:
    """What lies beside a cache that is a file, where it is there; else as configured: what ships under the name."""
    given: str | None = cfg[key]
    path = Path(cfg.cache).with_suffix(ending)
    own = given == BESIDE and cfg.cache.endswith(".safetensors") and path.exists()
    return str(path) if own else given


def device_of(given: str | None, name: str, cache: ConfidenceCache) -> DeviceProfile:
    """The measured profile that ships along or that lies at a path; None: times in proportion to the work."""
    if given is not None:
        return DeviceProfile.embedded(name) if given == BESIDE else DeviceProfile.load(given)
    profile = cache.profile
    if profile is None:
        raise CacheError("profile is missing in this cache: without it nothing stands for the device's times")
    total = sum(profile.segment_macs) + profile.head_macs[-1]
    return DeviceProfile(
        name="work in proportion",
        segment_ms=tuple(STAND_IN_MS * macs / total for macs in profile.segment_macs),
        head_ms=tuple(STAND_IN_MS * macs / total for macs in profile.head_macs),
    )


def payloads_of(given: str | None, name: str) -> PayloadTable | None:
    """The table that ships beside a cache, or a file; None: no codecs."""
    if given is None:
        return None
    return PayloadTable.embedded(name) if given == BESIDE else PayloadTable.load(given)


def balanced(cache: ConfidenceCache, stream: Stream, targets: Sequence[float]) -> float:
    """The target that is nearest to what the whole network reaches on a stream's validation images, uncalibrated.

    There about half of the batches fail however long one waits, and the plateau can move both ways.
    """
    part = cache.part("validation")
    at = [part.condition(name) for name in stream.conditions]
    right = float((part.prediction[at, 0, :, -1] == part.label).mean())
    return min(targets, key=lambda target: abs(target - right))


def streams(mixed: list[str]) -> dict[str, Stream]:
    """Pristine images alone, and several conditions in turn, image by image: every batch holds all of them."""
    return {
        PRISTINE: Stationary(condition=PRISTINE),
        MIXED: Abrupt(segments=tuple((name, 1.0) for name in mixed), length=1),
    }


def arrivals_of(place: Place, *, calm_ms: float, load: float, buffer: int) -> dict[str, tuple[Arrivals, int | None]]:
    """Arrivals and buffer: so far apart that nothing waits, and at random near what the edge alone can do.

    Parameters
    ----------
    place
        Whose edge it is.
    calm_ms
        Milliseconds between two requests where nothing should wait.
    load
        Requests a second, as a share of what the edge could answer with the last exit alone, > 0.
    buffer
        Requests that may wait then; the others are dropped.

    """
    whole = float(place.edge.edge_ms("prefix")[-1])
    return {
        CALM: (Paced(every_ms=calm_ms), None),
        BUSY: (Poisson(per_second=1e3 * load / whole), buffer),
    }


def begun(link: Link, share: float) -> Link:
    """A trace that begins after this share of its length; any other link as it is."""
    return replace(link, start_ms=share * link.length_ms) if isinstance(link, LinkTrace) else link


def repriced(facts: Facts, weights: Weights, link: Link) -> Facts:
    """The same facts with other weights: all else of a world's arrays is the same."""
    return facts._replace(terms=weights.terms(link.energy))


def speeds(links: Mapping[str, Link]) -> dict[str, str]:
    """Each link in words: its mean rate, and its mean round trip."""
    told = {}
    for name, link in links.items():
        arrays = link.arrays(duration_ms=1.0, seed=0)
        rate = float(arrays.sent[-1] / arrays.ends[-1]) / 125.0
        told[name] = f"{rate:.2f} Mbit/s, {float(np.mean(arrays.round_trip)):.0f} ms"
    return told
