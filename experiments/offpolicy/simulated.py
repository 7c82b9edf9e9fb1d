"""Logs in a simulated world where the truth is known: images, distortions and links drawn anew for each request."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.contract import Decision, Observation, Quote
from offramp.bandits.durable.fold import Fold
from offramp.bandits.durable.store import Entry
from offramp.bandits.engine import DEFAULT, Engine
from offramp.bandits.kernel import compile_here
from offramp.bandits.loop import World as Arrays
from offramp.bandits.policy import Policy
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import prediction_at
from offramp.environments import World
from offramp.environments.regret import values
from offramp.experiments.offpolicy.logs import Log

_reveal = compile_here(reveal)


@dataclass(frozen=True, eq=False)
class Setting:
    """A world whose every request has an image, a condition and a link of its own, each drawn evenly.

    Parameters
    ----------
    world
        The world; what it charges and reveals.
    conditions, links
        What is drawn from.

    """

    world: World
    conditions: tuple[str, ...]
    links: tuple[float, ...]

    def arrays(self) -> Arrays:
        """The arrays that requests are drawn from."""
        return self.world.arrays(self.conditions, self.links)

    def truth(self, arrays: Arrays, mixture: list[tuple[float, Arm]]) -> float:
        """Population mean of a mixture's reward."""
        total = 0.0
        for share, arm in mixture:
            one = Arms(exits=self.world.arms.exits, table=(arm,))
            total += share * float(values(arrays.confidence, arrays.quotes, one, arrays.options).mean())
        return total


def played(policy: Policy, arms: Arms, arrays: Arrays, *, requests: int, seed: int, late: int = 0) -> Iterator[Entry]:
    """Let a policy decide and learn on requests drawn from a world; the log that a store would hold.

    With `late` > 0 so many requests wait for their feedback, and after each decision one of them, drawn by chance, gets
    it: it comes so many decisions late on average, and in no order.
    """
    engine = Engine(policy, arms=arms, seed=seed)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 7)))
    turns = np.random.default_rng(np.random.SeedSequence((seed, 8)))
    shape = arrays.confidence.shape
    drawn = [rng.integers(0, n, requests).tolist() for n in (shape[0], shape[1], len(arrays.quotes))]
    quotes = []
    for row in arrays.quotes:
        quote = Quote.__new__(Quote)
        quote.row = row
        quotes.append(quote)
    blank = np.full(prediction_at(arms.exits) + arms.exits, math.nan)
    waiting: list[tuple[Decision, Observation, int]] = []
    learnt = 0
    for t, (condition, sample, price) in enumerate(zip(*drawn, strict=True)):
        decision = engine.decide(quotes[price])
        seen = Observation.of(blank.copy())
        truth, classes = arrays.confidence[condition, sample], arrays.prediction[condition, sample]
        _reveal(truth, classes, decision.row, arrays.options, seen.row)
        waiting.append((decision, seen, learnt))
        while len(waiting) > (late if t + 1 < requests else 0):
            decision, seen, cursor = waiting.pop(int(turns.integers(len(waiting))) if late else 0)
            engine.update(decision, seen)
            learnt += 1
            yield Entry(learnt, None, {}, 0, decision.id, 0, DEFAULT, decision.row, seen.row, None, cursor)


def logged(policy: Policy, arms: Arms, arrays: Arrays, *, requests: int, seed: int, late: int = 0) -> Log:
    """The same as a log, with probabilities recomputed from it as from a store."""
    entries = list(played(policy, arms, arrays, requests=requests, seed=seed, late=late))
    fold = Fold(policy, arms=arms, features=0, seed=seed, streams=(DEFAULT,))
    return Log.folded(fold, entries)
