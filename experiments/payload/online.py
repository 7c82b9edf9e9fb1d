"""Does the joint policy, which sees no label and no diagram, find the winner of a point by itself?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.bandits import Arms, ChainUCB, Fixed, Policy
from offramp.environments import Abrupt, ConfidenceCache, Stationary, Stream, World
from offramp.environments.devices import DeviceProfile
from offramp.environments.links import Constant
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.timed import Journal, Paced, TimedWorld, rollout_timed
from offramp.experiments.payload.diagram import Exchange
from offramp.experiments.payload.rules import Rule
from offramp.experiments.results import interval

MEASURES = ("reward", "latency_ms", "accuracy", "offloaded", "bytes")
COLUMNS = {"accuracy": "correct"}
CHANGING = "all in turn"


@dataclass(frozen=True, eq=False)
class Place:
    """Where is played: the test images, the table with its validation images, the measured machine, the exchange."""

    cache: ConfidenceCache
    table: PayloadTable
    device: DeviceProfile
    worth: Exchange

    def world(
        self, arms: Arms, *, factor: float, mbit_s: float, round_trip_ms: float, codec: str | None = None
    ) -> TimedWorld:
        """One point of the diagram as a world in time, so calm that no request waits for another."""
        prices = Physical(
            edge=self.device.scaled(factor),
            cloud=self.device,
            weights=Weights(second=self.worth.second, mu=self.worth.mu),
        )
        slowest = factor * self.device.edge_ms()[-1] + 8.0 * float(self.table.bytes.max()) / (1e3 * mbit_s)
        return TimedWorld(
            world=World(cache=self.cache, prices=prices, arms=arms, raw_input_allowed=True),
            link=Constant(mbit_s=mbit_s, round_trip_ms=round_trip_ms),
            arrivals=Paced(every_ms=float(np.ceil(2.0 * slowest + 4.0 * round_trip_ms + 1_000.0))),
            payloads=self.table,
            codecs=None if codec is None else (codec,),
            coding=factor,
        )

    def fixed(self, rule: Rule, *, factor: float, mbit_s: float, round_trip_ms: float) -> tuple[Policy, TimedWorld]:
        """A rule as a policy, and the world that offers it with its codec and no other."""
        exits = len(self.cache.exits)
        arms = Arms.grid(exits=exits, thresholds=(rule.threshold,), raw_input_allowed=True)
        world = self.world(arms, factor=factor, mbit_s=mbit_s, round_trip_ms=round_trip_ms, codec=rule.codec or None)
        return Fixed(cut=rule.cut, threshold=rule.threshold), world

    def joint(self, *, factor: float, mbit_s: float, round_trip_ms: float) -> tuple[Policy, TimedWorld]:
        """The joint policy at its defaults, and the world with all cuts and all codecs."""
        arms = Arms.grid(exits=len(self.cache.exits), thresholds=(float("inf"),), raw_input_allowed=True)
        return ChainUCB(), self.world(arms, factor=factor, mbit_s=mbit_s, round_trip_ms=round_trip_ms)


def streams(cache: ConfidenceCache) -> dict[str, Stream]:
    """The first condition for good, and all of them in turn."""
    names = [c.name for c in cache.conditions]
    return {names[0]: Stationary(condition=names[0]), CHANGING: Abrupt(segments=tuple((name, 1.0) for name in names))}


def sums(journal: Journal) -> dict[str, list[float]]:
    """Each measure over the whole run and over its second half."""
    found = {}
    for name in MEASURES:
        column = journal[COLUMNS.get(name, name)]
        found[name] = [float(column.mean()), float(column[len(column) // 2 :].mean())]
    return found


def runs(
    played: tuple[Policy, TimedWorld], stream: Stream, *, horizon: int, seeds: int
) -> Iterator[dict[str, list[float]]]:
    """One run for each seed."""
    policy, world = played
    facts = world.facts(stream.conditions)
    for seed in range(seeds):
        journal, _ = rollout_timed(policy, world, stream, horizon=horizon, seed=seed, facts=facts)
        yield sums(journal)


def online_row(
    place: Place,
    winner: Rule,
    expected: dict[str, float],
    stream: Stream,
    *,
    factor: float,
    mbit_s: float,
    round_trip_ms: float,
    horizon: int,
    seeds: int,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The joint policy and the winner in one world, on the same seeds; differences are paired.

    `expected` is what the diagram says of the winner.
    """
    at = {"factor": factor, "mbit_s": mbit_s, "round_trip_ms": round_trip_ms}
    ours = list(runs(place.joint(**at), stream, horizon=horizon, seeds=seeds))
    done()
    theirs = list(runs(place.fixed(winner, **at), stream, horizon=horizon, seeds=seeds))
    done()
    row: dict[str, Any] = at | {"winner": winner.name, "expected": expected, "horizon": horizon, "seeds": seeds}
    for part, half in enumerate(("run", "second_half")):
        row[half] = {}
        for name in MEASURES:
            a, b = ([r[name][part] for r in some] for some in (ours, theirs))
            row[half][name] = {
                "joint": interval(a),
                "winner": interval(b),
                "difference": interval([x - y for x, y in zip(a, b, strict=True)]),
            }
        a, b = ([r["latency_ms"][part] for r in some] for some in (ours, theirs))
        row[half]["latency_ratio"] = interval([x / y for x, y in zip(a, b, strict=True)])
    return row
