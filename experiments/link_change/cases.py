"""What is played: two edges on 24 recorded links, with and without distortion, and who plays there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offramp.bandits import Arms, Fixed, Policy
from offramp.environments import Abrupt, ConfidenceCache, Stationary, World
from offramp.environments.cache import CacheError
from offramp.environments.devices import DeviceProfile
from offramp.environments.link_estimate import EWMA
from offramp.environments.link_traces import LinkTrace, embedded_traces
from offramp.environments.links import PRESETS
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.stream import Stream
from offramp.environments.timed import Paced, TimedWorld
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.joint_policy.suite import THRESHOLDS
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT

ENERGY = {"3g": PRESETS["cell_3g"].energy, "4g": PRESETS["lte"].energy}
TUNED = Path(__file__).parent.parent / "joint_policy" / "tuned.json"
TUNED_ON = "mobilenet_v2_cifar10"
# Of the policies that were tuned alike in `joint_policy`: the joint one, all published ones, and the best of each kind.
PLAYED = (
    JOINT, AT_THE_CUT, "splitee", "isplitee", "adaee", "uee_ucb", "ceebert", "hi_lcb", "hedge_hi", "lin_ucb",
    "mu_lin_ucb", "windowed_erm", "splitee_aware", "isplitee_aware", "adaee_aware", "ucb1", "ucb_n", "ts_n", "kl_ucb",
    "exp3_ix", "sliding_window_ucb", "discounted_ucb_n", "restarting_ucb_n_two_window", "final_exit", "offload_first",
    "send_input",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Edge:
    """An edge device, and what is asked of it.

    Parameters
    ----------
    slower
        How many times slower it computes and codes than the cloud.
    every_ms
        Milliseconds between two requests: none has to wait for the one before it, unless the link makes it.
    deadline_ms
        What "missed" counts; nothing is paid for it.
    power_w
        Watts while it computes.

    """

    slower: float
    every_ms: float
    deadline_ms: float
    power_w: float


EDGES = {
    "board": Edge(slower=32.0, every_ms=1e3 / 3.0, deadline_ms=300.0, power_w=6.4),
    "phone": Edge(slower=8.0, every_ms=100.0, deadline_ms=100.0, power_w=4.0),
}
# What else is tried with the joint policies alone, in the cases of VARIED: entries of the configuration.
VARIANTS: dict[str, dict[str, Any]] = {
    "confidences as they are, uncalibrated": {"calibration": "raw"},
    "uplinks a fifth as fast as the recordings": {"scale": 0.2},
    "an image on the edge worth .1 of confidence": {"image_price": 0.1},
    "an image on the edge worth .4 of confidence": {"image_price": 0.4},
}
VARIED = ("3g board", "4g phone")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One table of the report: twelve links of one kind, an edge, a stream.

    Parameters
    ----------
    kind
        "3g" or "4g".
    edge
        One of EDGES.
    distorted
        Do conditions change?

    """

    kind: str
    edge: str
    distorted: bool

    @property
    def name(self) -> str:
        """What results call it."""
        return f"{self.kind} {self.edge}{' distorted' if self.distorted else ''}"

    @property
    def traces(self) -> tuple[str, ...]:
        """The recorded links of its kind."""
        return tuple(name for name in embedded_traces() if name.startswith(self.kind))


CASES = {
    case.name: case
    for kind, edge in (("3g", "board"), ("4g", "phone"), ("3g", "phone"), ("4g", "board"))
    for case in (Case(kind=kind, edge=edge, distorted=distorted) for distorted in (False, True))
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """What all cases share.

    Parameters
    ----------
    cache
        The test images, calibrated.
    payloads
        What is sent, calibrated alike; None = feature maps as they are.
    server
        The cloud's profile.
    image_price
        What a whole image on the edge is worth in confidence, > 0: the exchange rate of seconds follows from it.
    conditions
        What a stream of changing conditions goes through, one after the other.
    segment_s
        How long each lasts, in seconds.
    seconds
        Requests come for so long, or to the end of the trace.
    scale
        Factor on the rates of the recorded links.

    """

    cache: ConfidenceCache
    payloads: PayloadTable | None
    server: DeviceProfile
    image_price: float
    conditions: tuple[str, ...]
    segment_s: float
    seconds: float
    scale: float

    @property
    def exits(self) -> int:
        """Exits of the network."""
        return len(self.cache.exits)

    def link(self, trace: str) -> LinkTrace:
        """A recorded link, and the energy of its kind of radio."""
        return LinkTrace.embedded(trace, scale=self.scale, energy=ENERGY[trace.split("/")[0]])

    def world(self, case: Case, trace: str) -> TimedWorld:
        """The world of one case on one link."""
        edge = EDGES[case.edge]
        device = replace(self.server, name=case.edge, power_w=edge.power_w).scaled(edge.slower)
        second = self.image_price / (device.total_ms / 1e3)
        prices = Physical(edge=device, cloud=self.server, weights=Weights(second=second, deadline_ms=edge.deadline_ms))
        arms = Arms.grid(exits=self.exits, thresholds=THRESHOLDS, raw_input_allowed=True)
        return TimedWorld(
            world=World(cache=self.cache, prices=prices, arms=arms, raw_input_allowed=True),
            link=self.link(trace),
            estimate=EWMA(),
            arrivals=Paced(every_ms=edge.every_ms),
            payloads=self.payloads,
            coding=edge.slower,
        )

    def horizon(self, case: Case, trace: str) -> int:
        """Requests that come while the trace lasts."""
        return max(1, int(min(self.link(trace).length_ms, 1e3 * self.seconds) / EDGES[case.edge].every_ms))

    def stream(self, case: Case) -> Stream:
        """Images of the first condition, or of all of them in turn."""
        if not case.distorted:
            return Stationary(condition=self.conditions[0])
        length = max(1, round(1e3 * self.segment_s / EDGES[case.edge].every_ms))
        return Abrupt(segments=tuple((name, 1.0) for name in self.conditions), length=length)


def prepared(
    cache: ConfidenceCache, payloads: PayloadTable | None, calibration: str
) -> tuple[ConfidenceCache, PayloadTable | None]:
    """The test images of a cache and its payloads, both at the temperatures of one calibration.

    Raises
    ------
    CacheError
        The cache has several experts: no table of payloads belongs to it.

    """
    if payloads is not None and calibration != "raw":
        if len(cache.experts) != 1 or calibration not in cache.calibrations:
            raise CacheError(
                f"calibration is {calibration!r} in a cache of experts {cache.experts} with calibrations "
                f"{sorted(cache.calibrations)}, allowed with payloads is one expert and 'raw' or one of these"
            )
        payloads = payloads.calibrated(float(cache.calibrations[calibration][0, -1]))
    return cache.part("test").calibrated(calibration), payloads


def contenders(exits: int, only: Sequence[str] | None = None) -> dict[str, Policy]:
    """Who plays, with the settings that `joint_policy` chose for each on the tuning worlds of another data set."""
    settled = json.loads(TUNED.read_text(encoding="utf-8"))[TUNED_ON]
    return {
        key: CONTENDERS[key].build(CONTENDERS[key].nearest(settled[key]["chosen"], exits), exits)
        for key in PLAYED
        if only is None or key in only
    }


def fixed(world: TimedWorld) -> dict[tuple[int, float], Fixed]:
    """Every (cut, threshold) of the table of arms, as a policy that never learns."""
    return {(arm.cut, arm.threshold): Fixed(cut=arm.cut, threshold=arm.threshold) for arm in world.world.arms.single}
