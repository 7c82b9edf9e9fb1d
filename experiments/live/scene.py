"""What is played: an edge like a phone, a driving link in compressed time, distortion that changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from offramp.bandits import Arms, Fixed, Policy
from offramp.bandits.rows import FloatArray
from offramp.environments import Abrupt, ConfidenceCache, World
from offramp.environments.devices import DeviceProfile
from offramp.environments.link_estimate import EWMA
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import PRESETS
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.stream import Stream
from offramp.environments.timed import Paced, TimedWorld
from offramp.experiments.joint_policy.suite import THRESHOLDS
from offramp.experiments.joint_policy.sums import JOINT
from offramp.experiments.link_change.cases import contenders

EVERY_MS = 1_000.0  # between two requests of the hour that is compressed
PROBE_MS = 1_000.0  # after so long without a transfer the radio reports the link, in that hour
TITLES = {
    JOINT: "joint policy (ChainUCB)",
    "split": "fixed: exit 3 answers from .8 on, else features",
    "input": "fixed: the input is sent",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One hour of requests, squeezed.

    Parameters
    ----------
    cache, payloads
        Of the images that are played, calibrated alike.
    device
        The machine at hand as it was measured: the cloud; the edge is slower by a factor.
    slower
        How many times slower the edge computes and codes than the machine, >= 1.
    trace, scale
        The recorded link, and the factor on its rates.
    every_ms
        Milliseconds between two requests as they are played, > 0; the link's time is squeezed by as much.
    conditions, segment
        What the stream goes through in turn, and for how many requests each.
    image_price
        What a whole image on the edge is worth in confidence, > 0.
    power_w
        Watts of the edge while it computes.
    deadline_ms
        When an answer counts as missed, and when the edge answers by itself.

    """

    cache: ConfidenceCache
    payloads: PayloadTable
    device: DeviceProfile
    slower: float
    trace: str
    scale: float
    every_ms: float
    conditions: tuple[str, ...]
    segment: int
    image_price: float
    power_w: float
    deadline_ms: float

    @property
    def squeeze(self) -> float:
        """How many times shorter the run is than what it stands for."""
        return EVERY_MS / self.every_ms

    @property
    def edge(self) -> DeviceProfile:
        """The edge's profile."""
        return replace(self.device, name="edge", power_w=self.power_w).scaled(self.slower)

    @property
    def link(self) -> LinkTrace:
        """The recorded link in the run's time: each of its segments lasts a part of what it did, at the same rate."""
        recorded = LinkTrace.embedded(self.trace, scale=self.scale, energy=PRESETS["lte"].energy)
        return replace(
            recorded, segments=tuple((ms / self.squeeze, rate, trip) for ms, rate, trip in recorded.segments)
        )

    @property
    def stream(self) -> Stream:
        """Images whose condition changes after every segment."""
        return Abrupt(segments=tuple((name, 1.0) for name in self.conditions), length=self.segment)

    def world(self) -> TimedWorld:
        """The world in time that stands for it."""
        edge = self.edge
        second = self.image_price / (edge.total_ms / 1e3)
        prices = Physical(edge=edge, cloud=self.device, weights=Weights(second=second, deadline_ms=self.deadline_ms))
        arms = Arms.grid(exits=len(self.cache.exits), thresholds=THRESHOLDS, raw_input_allowed=True)
        return TimedWorld(
            world=World(cache=self.cache, prices=prices, arms=arms, raw_input_allowed=True),
            link=self.link,
            estimate=EWMA(),
            arrivals=Paced(every_ms=self.every_ms),
            payloads=self.payloads,
            probe_ms=PROBE_MS / self.squeeze,
            coding=self.slower,
        )

    def load(self) -> float:
        """Share of the time that the edge computes where every image goes through the whole network there."""
        return float(self.edge.edge_ms("prefix")[-1] / self.every_ms)


def policies(exits: int, names: Sequence[str]) -> dict[str, Policy]:
    """Who plays: the joint policy as `joint_policy` tuned it on another data set, and choices that never move.

    Raises
    ------
    ValueError
        A name is none of these.

    """
    every: dict[str, Policy] = {
        **contenders(exits, [JOINT]),
        "split": Fixed(cut=min(3, exits - 1), threshold=0.8),
        "input": Fixed(cut=0, threshold=np.inf),
    }
    odd = [name for name in names if name not in every]
    if odd:
        raise ValueError(f"policies name {odd}, allowed are {sorted(every)}")
    return {name: every[name] for name in names}


def rates(link: LinkTrace, ends_ms: float) -> tuple[FloatArray, FloatArray]:
    """Ends of the link's segments in ms, repeated as far as the run lasts, and their rates in Mbit/s."""
    lengths, rate, _ = np.array(link.segments).T
    times = int(np.ceil(ends_ms / lengths.sum()))
    ends: FloatArray = np.cumsum(np.tile(lengths, times))
    return ends, np.tile(rate, times) * link.scale
