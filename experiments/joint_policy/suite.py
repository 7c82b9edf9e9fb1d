"""The worlds in which policies are compared and, apart from them, those in which they are tuned: data, and no more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.bandits import Arms, MacsAndBytes, PriceList
from offramp.bandits.listed import Listed
from offramp.environments import (
    Abrupt,
    ConfidenceCache,
    Gradual,
    Lateness,
    RandomWalk,
    Recurring,
    Stationary,
    Stream,
    World,
)
from offramp.environments.hidden import hidden_change

REPORTING, TUNING = "test", "validation"
HORIZON, SEEDS = 20_000, tuple(range(20))
TUNING_HORIZON, TUNING_SEEDS = 6_000, (1_000, 1_001)
# Twenty bins of confidence between 21 thresholds: the one table of arms that every policy plays parts of.
THRESHOLDS = (-np.inf, *(round(0.05 * k, 2) for k in range(1, 20)), np.inf)
# Prices of the seven cuts of MobileNetV2 that let each of several be the best somewhere (asserted in the tests).
# They are read at relative depths where a network has another number of exits.
LADDERS = {
    "ladder": (
        (0.04, 0.07, 0.072, 0.073, 0.08, 0.082, 0.09),
        (0.45, 0.33, 0.28, 0.2, 0.02, 0.015, 0.0),
    ),
    "routed ladder": (
        (0.01, 0.04, 0.044, 0.045, 0.053, 0.054, 0.062),
        (0.2, 0.19, 0.183, 0.16, 0.05, 0.026, 0.0),
    ),
}
HIDDEN = {REPORTING: ("pristine", "contrast 0.2"), TUNING: ("noise 5", "noise 40")}
PROMPT = Lateness()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One world with its stream.

    Parameters
    ----------
    name, about
        What it is called, and what changes in it.
    stream
        How condition and link develop.
    prices
        "physical": multiply-accumulates and bytes; or one of `LADDERS`.
    calibration, routing, raw_input_allowed, cloud_returns
        As in `offramp.environments.World`.
    lateness
        How late feedback is.
    abrupt
        Does it change all at once, so that a time of recovery means something?

    """

    name: str
    about: str
    stream: Stream
    prices: str = "physical"
    calibration: str = "raw"
    routing: str | None = None
    raw_input_allowed: bool = False
    cloud_returns: str = "final"
    lateness: Lateness = PROMPT
    abrupt: bool = False


def hidden_name(split: str) -> str:
    """The derived condition of a split: early exits as in the one condition, the last exit as in the other."""
    early, last = HIDDEN[split]
    return f"{early}, last: {last}"


def listed(name: str, exits: int) -> Listed:
    """A ladder's prices for so many exits, at relative depths."""
    at, depths = np.linspace(0.0, 1.0, exits), np.linspace(0.0, 1.0, 7)
    edge, offload = (np.interp(at, depths, prices) for prices in LADDERS[name])
    # Sending the input costs what sending after the first segment does; no world with these prices allows it.
    return Listed(edge=(0.0, *edge.tolist()), offload=(offload[0], *offload.tolist()))


def prepared(cache: ConfidenceCache, split: str) -> ConfidenceCache:
    """One split of a cache, with the derived condition of the hidden change."""
    early, last = HIDDEN[split]
    return hidden_change(cache.part(split), early=early, last=last)


def world_of(setting: Setting, cache: ConfidenceCache) -> World:
    """The world of a setting over a cache that `prepared` made."""
    exits = len(cache.exits)
    prices: PriceList = MacsAndBytes() if setting.prices == "physical" else listed(setting.prices, exits)
    return World(
        cache=cache.calibrated(setting.calibration),
        prices=prices,
        arms=Arms.grid(exits=exits, thresholds=THRESHOLDS, raw_input_allowed=setting.raw_input_allowed),
        raw_input_allowed=setting.raw_input_allowed,
        cloud_returns=setting.cloud_returns,
        routing=setting.routing,
    )


def missing(setting: Setting, cache: ConfidenceCache) -> str | None:
    """None if the cache has what a setting needs, else what it lacks."""
    if setting.routing == "predicted" and cache.router is None:
        return "the cache has no router"
    if setting.calibration != "raw" and setting.calibration not in cache.calibrations:
        return f"the cache has no calibration {setting.calibration!r}"
    names = {c.name for c in cache.conditions}
    lacking = [c for c in setting.stream.conditions if c not in names]
    return f"the cache has no condition {lacking[0]!r}" if lacking else None


BOTH = Abrupt(
    segments=(
        ("pristine", 1.0), ("blur 1.0", 1.0), ("noise 20", 0.25), ("pristine", 4.0),
        ("noise 10", 4.0), ("blur 0.8", 0.25), ("blur 2.0", 1.0), ("pristine", 0.25),
    )
)  # fmt: skip
LADDER_SEGMENTS = (
    ("jpeg 10", 0.1), ("noise 5", 4.0), ("contrast 0.2", 0.25), ("pristine", 2.0),
    ("jpeg 10", 1.0), ("noise 12.75", 0.5), ("blur 2.0", 0.1), ("noise 25.5", 1.0),
)  # fmt: skip
ROUTED_SEGMENTS = (
    ("pristine", 2.0), ("blur 2.0", 1.0), ("noise 10", 1.0), ("jpeg 10", 4.0),
    ("contrast 0.5", 1.0), ("noise 40", 0.25), ("pristine", 1.0), ("blur 0.5", 0.25),
)  # fmt: skip
INPUT_SEGMENTS = (
    ("pristine", 1.0), ("noise 20", 8.0), ("blur 1.0", 0.25), ("pristine", 8.0),
    ("noise 10", 2.0), ("contrast 0.2", 1.0), ("pristine", 4.0), ("blur 2.0", 8.0),
)  # fmt: skip


def reporting() -> tuple[Setting, ...]:
    """The worlds of the report, played on the test split."""
    ladder: dict[str, Any] = {"prices": "ladder", "calibration": "exit"}
    routed: dict[str, Any] = {"prices": "routed ladder", "stream": Abrupt(segments=ROUTED_SEGMENTS), "abrupt": True}
    distortions = ("pristine", "blur 1.0", "noise 25.5", "pristine", "contrast 0.2", "noise 12.75", "blur 2.0", "fog 3")
    links = (1.0, 0.25, 4.0, 0.5, 2.0, 0.25, 1.0, 4.0)
    hidden = tuple(("pristine" if i % 2 == 0 else hidden_name(REPORTING), 0.25) for i in range(4))
    return (
        Setting(name="stationary", about="nothing changes", stream=Stationary()),
        Setting(
            name="abrupt distortion",
            about="eight segments of distortion",
            stream=Abrupt(segments=tuple((c, 1.0) for c in distortions)),
            abrupt=True,
        ),
        Setting(
            name="gradual distortion",
            about="from pristine to the strongest blur",
            stream=Gradual(conditions=("pristine", "blur 0.5", "blur 0.8", "blur 1.0", "blur 1.5", "blur 2.0")),
        ),
        Setting(
            name="recurring distortion",
            about="noise comes and goes four times",
            stream=Recurring(conditions=("pristine", "noise 5", "noise 10", "noise 20", "noise 40"), period=5_000),
        ),
        Setting(
            name="link",
            about="eight segments of the price of the link",
            stream=Abrupt(segments=tuple(("pristine", x) for x in links)),
            abrupt=True,
        ),
        Setting(name="distortion and link", about="both, in eight segments", stream=BOTH, abrupt=True),
        Setting(
            name="hidden change",
            about="the last exit degrades and recovers, the early ones stay as they are",
            stream=Abrupt(segments=hidden),
            abrupt=True,
        ),
        Setting(
            name="late and lost",
            about="as 'distortion and link', feedback 100 rounds late and 10 % of it lost",
            stream=BOTH,
            lateness=Lateness(delay=100, lost=0.1),
            abrupt=True,
        ),
        Setting(
            name="ladder",
            about="prices under which the best cut moves, distortion and link in eight segments",
            stream=Abrupt(segments=LADDER_SEGMENTS),
            abrupt=True,
            **ladder,
        ),
        Setting(
            name="ladder, all returned",
            about="the same, and the cloud returns the confidences of all deeper exits",
            stream=Abrupt(segments=LADDER_SEGMENTS),
            cloud_returns="all",
            abrupt=True,
            **ladder,
        ),
        Setting(
            name="ladder, wandering",
            about="the same prices, distortion and link wander",
            stream=RandomWalk(
                conditions=("contrast 0.2", "jpeg 10", "noise 12.75", "noise 5", "pristine", "blur 0.5", "blur 0.8"),
                links=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
                stay=0.998,
            ),
            **ladder,
        ),
        Setting(
            name="experts",
            about="experts picked by the router, distortion and link in eight segments",
            routing="predicted",
            calibration="expert_exit",
            **routed,
        ),
        Setting(name="pristine exits", about="the same stream and prices with the pristine exits alone", **routed),
        Setting(
            name="pristine exits, calibrated",
            about="the same, each exit at its own temperature",
            calibration="exit",
            **routed,
        ),
        Setting(
            name="input may be sent",
            about="distortion and link, and the input itself may be sent",
            stream=Abrupt(segments=INPUT_SEGMENTS),
            raw_input_allowed=True,
            abrupt=True,
        ),
    )


def tuning() -> tuple[Setting, ...]:
    """The worlds that settings are chosen in: shorter, on the validation split, with no order of the report's."""
    both = Abrupt(segments=(("noise 12.75", 0.3), ("brightness 0.4", 1.5), ("blur 1.5", 3.0), ("noise 5", 0.7)))
    ladder = Abrupt(
        segments=(("noise 10", 0.15), ("fog 3", 3.0), ("noise 20", 0.3), ("blur 0.5", 1.5), ("jpeg 10", 0.7))
    )
    routed: dict[str, Any] = {
        "prices": "routed ladder",
        "stream": Abrupt(segments=(("blur 0.5", 3.0), ("noise 25.5", 0.7), ("fog 3", 1.5), ("blur 1.0", 0.3))),
    }
    hidden = (("noise 5", 0.3), (hidden_name(TUNING), 0.3), ("noise 5", 0.3))
    return (
        Setting(name="stationary", about="nothing changes", stream=Stationary(condition="noise 5", link=0.7)),
        Setting(
            name="abrupt distortion",
            about="four segments",
            stream=Abrupt(segments=tuple((c, 0.7) for c in ("fog 3", "noise 40", "blur 0.5", "brightness 0.4"))),
        ),
        Setting(
            name="recurring distortion",
            about="blur comes and goes",
            stream=Recurring(conditions=("brightness 0.4", "blur 0.5", "blur 1.5"), links=(0.7,), period=3_000),
        ),
        Setting(
            name="link",
            about="four segments",
            stream=Abrupt(segments=tuple(("fog 3", x) for x in (3.0, 0.3, 1.5, 0.7))),
        ),
        Setting(name="distortion and link", about="four segments", stream=both),
        Setting(name="hidden change", about="the last exit degrades and recovers", stream=Abrupt(segments=hidden)),
        Setting(
            name="late and lost", about="feedback late and lost", stream=both, lateness=Lateness(delay=60, lost=0.2)
        ),
        Setting(name="ladder", about="the best cut moves", stream=ladder, prices="ladder", calibration="exit"),
        Setting(name="experts", about="routed", routing="predicted", calibration="expert_exit", **routed),
        Setting(name="pristine exits", about="the pristine exits alone", **routed),
    )


SUITES: dict[str, Callable[[], tuple[Setting, ...]]] = {REPORTING: reporting, TUNING: tuning}
