"""The phase diagram: in each cell of rate and edge speed the rule that validation images pick, and what it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.links import Energy
from offramp.experiments.payload.rules import KINDS, OFFERED, Mask, Rule, Terms

Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells: K edges, so many times slower than the measured machine, and R rates in Mbit/s."""

    factors: FloatArray
    rates: FloatArray

    @classmethod
    def of(cls, edges: Mapping[str, Any], rates: Mapping[str, Any]) -> "Grid":
        """Evenly on a log scale from least to most, `count` of them."""
        made = [np.geomspace(x["least"], x["most"], x["count"]) for x in (edges, rates)]
        return cls(made[0], made[1])

    @property
    def cells(self) -> tuple[FloatArray, FloatArray]:
        """Factor and rate of each cell, of shapes that broadcast to (K, R)."""
        return self.factors[:, None], self.rates[None, :]


@dataclass(frozen=True)
class Exchange:
    """What a second is worth: cost units for one, and confidence for a cost unit."""

    second: float
    mu: float

    @property
    def price(self) -> float:
        """Confidence for a millisecond."""
        return self.mu * self.second / 1e3

    def reward(self, terms: Terms, latency: FloatArray) -> FloatArray:
        """Mean confidence less the price of the latency."""
        found: FloatArray = terms.confidence - self.price * latency
        return found


def of_kinds(rules: Sequence[Rule], kinds: Sequence[str]) -> Mask:
    """Which rules are of some kinds, (C,)."""
    return np.array([rule.kind in kinds for rule in rules])


def picked(allowed: Mask, values: Callable[[Mask], FloatArray]) -> IntArray:
    """Index of the rule with the least value among those allowed, the first of equals; values of these (..., C')."""
    return np.asarray(np.flatnonzero(allowed)[values(allowed).argmin(axis=-1)], dtype=np.int64)


def at(values: FloatArray, chosen: IntArray) -> FloatArray:
    """The value of the chosen rule, along the last axis."""
    return np.asarray(np.take_along_axis(values, chosen[..., None], axis=-1)[..., 0])


@dataclass(frozen=True, eq=False)
class Pair:
    """The same rules on the images that pick and on those that report; `known` picks on the latter too."""

    validation: Terms
    test: Terms

    @property
    def known(self) -> "Pair":
        """As if the test images had been there to pick: what wins, not what somebody would have picked."""
        return Pair(self.test, self.test)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules."""
        return self.test.means.rules

    def fastest(
        self,
        factor: npt.ArrayLike,
        rate: npt.ArrayLike,
        trip: float,
        slack: float,
        kinds: Sequence[str] = OFFERED,
        sure: float = 0.0,
    ) -> IntArray:
        """Least latency among rules of these kinds that are accurate enough, by so many standard errors."""
        allowed = self.validation.accurate(slack, sure) & of_kinds(self.rules, kinds)
        return picked(allowed, lambda some: self.validation.only(some).latency(factor, rate, trip))

    def best(
        self, factor: npt.ArrayLike, rate: npt.ArrayLike, trip: float, worth: Exchange, kinds: Sequence[str] = OFFERED
    ) -> IntArray:
        """Largest reward among rules of these kinds, whatever their accuracy: who never sees a label can ask for it."""

        def lost(some: Mask) -> FloatArray:
            latency = self.validation.only(some).latency(factor, rate, trip)
            return worth.price * latency - self.validation.confidence[some]

        return picked(of_kinds(self.rules, kinds), lost)

    def leanest(
        self, factor: npt.ArrayLike, rate: npt.ArrayLike, radio: Energy, power_w: float, slack: float
    ) -> IntArray:
        """Least energy on the edge among rules that are accurate enough."""
        allowed = self.validation.accurate(slack) & of_kinds(self.rules, OFFERED)
        return picked(allowed, lambda some: self.validation.only(some).energy(factor, rate, radio, power_w))


def charted(chosen: IntArray, rules: Sequence[Rule]) -> dict[str, Any]:
    """A map as names of its areas, the largest first, their kinds, and the area of each cell by number, (K, R)."""
    names = np.array([rule.area for rule in rules])[chosen]
    areas, counts = np.unique(names, return_counts=True)
    areas = areas[np.argsort(-counts, kind="stable")]
    kinds = {rule.area: rule.kind for rule in rules}
    order = {name: i for i, name in enumerate(areas.tolist())}
    return {
        "areas": areas.tolist(),
        "kinds": [kinds[name] for name in areas.tolist()],
        "cells": [[order[name] for name in row] for row in names.tolist()],
    }


def shares(chosen: IntArray, rules: Sequence[Rule]) -> dict[str, float]:
    """Share of the diagram's area that each kind holds."""
    kinds = np.array([rule.kind for rule in rules])[chosen]
    return {kind: float((kinds == kind).mean()) for kind in KINDS}


def honest(pair: Pair, grid: Grid, trip: float, slack: float, sure: float = 0.0) -> dict[str, float]:
    """How well validation images pick: cells whose rule keeps its promise on test images, and what it costs."""
    factor, rate = grid.cells
    chosen = pair.fastest(factor, rate, trip, slack, sure=sure)
    values = pair.test.latency(factor, rate, trip)
    best = picked(pair.test.accurate(slack) & of_kinds(pair.rules, OFFERED), lambda some: values[..., some])
    lost = float(pair.test.weights @ pair.test.means.whole) - pair.test.accuracy[chosen]
    return {
        "kept": float((lost <= slack).mean()),
        "lost_mean": float(lost.mean()),
        "lost_most": float(lost.max()),
        "same": float((chosen == best).mean()),
        "ratio": float((at(values, chosen) / at(values, best)).mean()),
    }


def along(chosen: IntArray, rules: Sequence[Rule], rates: FloatArray) -> Rows:
    """One edge from slow to fast links: the areas in turn, each with its first and last rate."""
    found: Rows = []
    for rate, index in zip(rates.tolist(), chosen.tolist(), strict=True):
        name = rules[index].area
        if not found or found[-1]["area"] != name:
            found.append({"area": name, "kind": rules[index].kind, "from": rate, "to": rate})
        found[-1]["to"] = rate
    return found


def backed(pair: Pair, grid: Grid, trip: float, slack: float) -> dict[str, float]:
    """What it would bring to send the image, not the map, where an exit was not sure: latency with over without."""
    factor, rate = grid.cells
    values = pair.test.latency(factor, rate, trip)
    without = at(values, pair.fastest(factor, rate, trip, slack))
    with_it = pair.fastest(factor, rate, trip, slack, KINDS)
    ratio = at(values, with_it) / without
    used = np.array([rule.kind == "exit, else image" for rule in pair.rules])[with_it]
    return {
        "used": float(used.mean()),
        "ratio": float(ratio.mean()),
        "ratio_used": float(ratio[used].mean()) if used.any() else float("nan"),
        "least": float(ratio.min()),
    }
