"""A world round by round from outside: an arm of the table goes in, its reward and what it revealed come out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.contract import Observation, Quote
from offramp.bandits.kernel import compiled, whole
from offramp.bandits.loop import World as Arrays
from offramp.bandits.reveal import FALLBACK, edge_cost, fall_back, offload_cost, reveal, reward
from offramp.bandits.rows import (
    ANSWERED_AT,
    ARM,
    CONFIDENCE,
    COSTS,
    CUT,
    MU,
    OFFLOADED,
    FloatArray,
    IntArray,
    context_at,
    prediction_at,
    thresholds_at,
)
from offramp.environments.stream import Stream, blocks
from offramp.environments.world import World

NOTHING = -1.0  # stands for what is not there: an offload that is not offered, a confidence that is not revealed
REWARD, ANSWERED, SENT, EDGE_PRICE, OFFLOAD_PRICE, IS_CORRECT = range(6)


@compiled
def play(
    world: Arrays,
    rules: FloatArray,
    plan: IntArray,
    arms: IntArray,
    row: FloatArray,
    seen: FloatArray,
    shown: FloatArray,
    classes: IntArray,
    facts: FloatArray,
) -> None:
    """Play one arm in each of n streams.

    Parameters
    ----------
    world, rules
        The world's arrays, and `rules_of` its table of arms.
    plan, arms
        (n, 3) sample, condition and price, and (n,) index of the arm.
    row, seen
        Scratch: a decision row and an observation row.
    shown, classes, facts
        To be filled: confidence and class of each exit, (n, L), and (n, 6) numbers.

    """
    exits = world.confidence.shape[2]
    rule = thresholds_at(exits)
    for n in range(arms.shape[0]):
        sample, condition, price, arm = whole(plan[n, 0]), whole(plan[n, 1]), whole(plan[n, 2]), whole(arms[n])
        for k in range(rule):
            row[k] = world.quotes[price, k]
        row[ARM] = arm
        row[CUT] = rules[arm, 0]
        for j in range(exits):
            row[rule + j] = rules[arm, 1 + j]
        truth, guesses = world.confidence[condition, sample], world.prediction[condition, sample]
        reveal(truth, guesses, row, world.options, seen)
        if world.options[FALLBACK] == 1:
            fall_back(truth, row, world.options, seen)
        for j in range(exits):
            hidden = math.isnan(seen[CONFIDENCE + j])
            shown[n, j] = NOTHING if hidden else seen[CONFIDENCE + j]
            classes[n, j] = -1 if hidden else guesses[j]
        at = whole(seen[ANSWERED_AT])
        facts[n, REWARD] = reward(row, seen)
        facts[n, ANSWERED] = at
        facts[n, SENT] = seen[OFFLOADED]
        facts[n, EDGE_PRICE] = edge_cost(row, seen)
        facts[n, OFFLOAD_PRICE] = offload_cost(row, seen)
        facts[n, IS_CORRECT] = 1.0 if guesses[at - 1] == world.label[sample] else 0.0


def rules_of(arms: Arms) -> FloatArray:
    """Cut and thresholds of each arm, as decision rows hold them, (A, 1 + L)."""
    rules = np.full((len(arms), 1 + arms.exits), math.inf)
    for i, arm in enumerate(arms.table):
        rules[i, 0] = arm.cut
        rules[i, 1 : 1 + len(arm.early)] = arm.early
        if arm.cut > 0:
            rules[i, arm.cut] = arm.threshold
    return rules


def numbers_of(quotes: FloatArray, exits: int) -> FloatArray:
    """Quotes (P, W) as finite numbers, (P, 2 L + 3): mu, edge costs, offload costs; -1 = not offered."""
    found = np.concatenate([quotes[:, [MU]], quotes[:, COSTS : thresholds_at(exits)]], axis=1)
    return np.where(np.isinf(found), NOTHING, found)


def quote_of(numbers: FloatArray, exits: int) -> tuple[Quote, FloatArray | None]:
    """The quote, and the context where there is one, that such numbers stand for."""
    edge, offload, context = np.split(numbers[1:], [exits + 1, 2 * exits + 2])
    quote = Quote(edge_cost=edge, offload_cost=np.where(offload < 0.0, math.inf, offload), mu=float(numbers[0]))
    return quote, context if len(context) else None


def observation_of(info: dict[str, Any]) -> Observation:
    """What a step's `info` reveals, as engines take it."""
    shown = info["confidence"]
    return Observation(
        confidence=np.where(shown < 0.0, math.nan, shown),
        answered_at=info["answered_at"],
        offloaded=info["offloaded"],
        prediction=info["prediction"],
    )


class Rounds:
    """Streams through one world, played in step with each other.  A deep copy shares all that never changes.

    Parameters
    ----------
    world, stream
        Where, and through what.
    horizon
        Rounds of each stream, >= 1; all are laid out beforehand, at 24 bytes a round.
    count
        How many streams, each with a seed of its own, >= 1.

    """

    def __init__(self, world: World, stream: Stream, *, horizon: int, count: int = 1) -> None:
        for name, value in (("horizon", horizon), ("count", count)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}, allowed is a whole number >= 1")
        self.world, self.stream, self.horizon, self.count = world, stream, horizon, count
        self.arms = world.arms
        self.arrays = world.arrays(stream.conditions, stream.links)
        self.features = self.arrays.context.shape[2]
        self._rules = rules_of(world.arms)
        self._numbers = numbers_of(self.arrays.quotes, self.arms.exits)
        self._plan: IntArray | None = None
        self.round = 0
        self._scratch()

    def _scratch(self) -> None:
        exits = self.arms.exits
        self._row, self._seen = np.zeros(context_at(exits)), np.zeros(prediction_at(exits) + exits)
        self.shown = np.zeros((self.count, exits))
        self.classes = np.zeros((self.count, exits), dtype=np.int64)
        self.facts = np.zeros((self.count, 6))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Rounds":
        copied = object.__new__(Rounds)
        copied.__dict__.update(self.__dict__)
        copied._scratch()
        return copied

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Least and largest value of each number of an observation; where they are equal, the largest is one more."""
        context, both = self.arrays.context, (0, 1)
        low = np.concatenate([np.minimum(self._numbers.min(axis=0), 0.0), context.min(axis=both, initial=math.inf)])
        low[2 + self.arms.exits : 2 * self.arms.exits + 3] = NOTHING
        high = np.concatenate([self._numbers.max(axis=0), context.max(axis=both, initial=-math.inf)])
        return low, np.where(high > low, high, low + 1.0)

    def begin(self, seeds: Sequence[int]) -> None:
        """Start all streams anew, each from its seed, as `offramp.environments.rollout` lays it out."""
        plans = []
        for seed in seeds:
            laid = blocks(self.stream, samples=len(self.arrays.label), horizon=self.horizon, seed=seed)
            plans.append(np.concatenate([np.stack(block, axis=1) for block in laid]))
        self._plan = np.stack(plans, axis=1)
        self.round = 0

    @property
    def running(self) -> bool:
        """Is there a round to play?"""
        return self._plan is not None and self.round < self.horizon

    def look(self) -> FloatArray:
        """Quote and context of the round to come, (n, 2 L + 3 + d); after the end those of the last."""
        assert self._plan is not None
        at = self._plan[min(self.round, self.horizon - 1)]
        numbers: FloatArray = self._numbers[at[:, 2]]
        if self.features > 0:
            numbers = np.concatenate([numbers, self.arrays.context[at[:, 1], at[:, 0]]], axis=1)
        return numbers

    def play(self, arms: IntArray) -> None:
        """Play an arm in each stream, (n,) in 0..A-1: `shown`, `classes` and `facts` then say what came of it."""
        assert self._plan is not None
        plan = self._plan[self.round]
        play(self.arrays, self._rules, plan, arms, self._row, self._seen, self.shown, self.classes, self.facts)
        self.round += 1
