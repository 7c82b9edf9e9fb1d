"""Late and lost feedback: when what a decision revealed reaches the policy, in the compiled loop as in an engine."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from offramp.bandits.kernel import kernel, whole
from offramp.bandits.loop import Select, Update
from offramp.bandits.policy import Forget, Kernels, Policy
from offramp.bandits.rows import FloatArray, IntArray, context_at, prediction_at
from offramp.bandits.state import ARMS, CURSOR, DRAWS, EXITS, FEATURES, FREE, HEADER, UNIFORMS, T, pack

PARAMETERS = 5
INNER, LEAST, MOST, PARKED, NOW = range(PARAMETERS)
NEVER = -1


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """How many rounds the feedback of a round is on its way, and how often it never arrives.

    Feedback that is d rounds late is learnt after d further decisions were made: with d = 0 before the next one.  What
    arrives in the same round is learnt in the order of its decisions.  Whether it is lost, and how late it is, depends
    on neither the policy nor the outcome, but on the seed of the run and the round alone.

    Parameters
    ----------
    delay
        Least number of rounds, >= 0.
    spread
        How many more at most, each number equally likely, >= 0; feedback then overtakes other feedback.
    lost
        Probability that it never arrives, in [0, 1].
    twice
        Probability that what arrives is delivered once more, 0 to `spread` rounds later, in [0, 1]: it is counted once.

    Examples
    --------
    >>> from offramp.environments import Lateness
    >>> Lateness(delay=2, spread=1, lost=0.25).rounds(horizon=6, seed=0)
    array([-1,  2, -1, -1,  2,  3])

    """

    delay: int = 0
    spread: int = 0
    lost: float = 0.0
    twice: float = 0.0

    def __post_init__(self) -> None:
        for name in ("delay", "spread"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is {value!r}, allowed is a whole number of rounds >= 0")
        for name in ("lost", "twice"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is a probability in [0, 1]")

    @property
    def none(self) -> bool:
        """Does all feedback arrive at once?"""
        return self.delay == 0 and self.spread == 0 and self.lost == 0.0

    def rounds(self, *, horizon: int, seed: int) -> IntArray:
        """How late the feedback of each round is, -1 where it is lost; (horizon,)."""
        uniform = np.random.default_rng(np.random.SeedSequence((seed, 2))).random((horizon, 2))
        late = self.delay + np.floor(uniform[:, 1] * (self.spread + 1)).astype(np.int64)
        return np.where(uniform[:, 0] < self.lost, NEVER, late)

    def repeats(self, *, horizon: int, seed: int) -> IntArray:
        """How many rounds after its first arrival the feedback of each round comes again, -1 = never; (horizon,)."""
        uniform = np.random.default_rng(np.random.SeedSequence((seed, 5))).random((horizon, 2))
        after = np.floor(uniform[:, 1] * (self.spread + 1)).astype(np.int64)
        return np.where(uniform[:, 0] < self.twice, after, NEVER)


@lru_cache
def kernels_of(select: Select, update: Update, forget: Forget) -> Kernels:
    """The kernels of a policy whose feedback waits in the state; compiled once in a process."""

    @kernel
    def select_late(state: FloatArray, row: FloatArray) -> None:
        inner = state[whole(state[whole(state[FREE]) + INNER]) :]
        inner[CURSOR] = state[CURSOR]  # one block of uniforms, at the end of both
        select(inner, row)
        state[CURSOR] = inner[CURSOR]
        state[T] += 1.0

    @kernel
    def update_late(state: FloatArray, decision: FloatArray, observation: FloatArray) -> None:
        free, exits = whole(state[FREE]), whole(state[EXITS])
        inner = state[whole(state[free + INNER]) :]
        now, least, most = whole(state[free + NOW]), whole(state[free + LEAST]), whole(state[free + MOST])
        width, length = context_at(exits) + whole(state[FEATURES]), prediction_at(exits) + exits
        delays, parked = free + PARAMETERS, whole(state[free + PARKED])
        slot = parked + (now % (most + 1)) * (width + length)
        for i in range(width):
            state[slot + i] = decision[i]
        for i in range(length):
            state[slot + width + i] = observation[i]
        for back in range(least, most + 1):
            since = most + least - back  # the oldest decision first
            if since <= now and state[delays + now - since] == since:
                at = parked + ((now - since) % (most + 1)) * (width + length)
                inner[CURSOR] = state[CURSOR]
                update(inner, state[at : at + width], state[at + width : at + width + length])
                state[CURSOR] = inner[CURSOR]
        state[free + NOW] = now + 1.0

    @kernel
    def forget_late(state: FloatArray, factor: float) -> None:
        forget(state[whole(state[whole(state[FREE]) + INNER]) :], factor)

    return Kernels.of(select_late, update_late, forget_late)


def late(policy: Policy) -> Kernels:
    """The kernels that play a policy with late feedback, from a state that `waiting` made."""
    inner = policy.kernels
    return kernels_of(inner.select, inner.update, inner.forget)


def waiting(inner: FloatArray, lateness: Lateness, delays: IntArray) -> FloatArray:
    """A policy's first state behind the delays of all rounds and room for what waits; both share the uniforms.

    Parameters
    ----------
    inner
        The policy's first state.
    lateness, delays
        The spec and what it says for this run, `lateness.rounds(...)`.

    """
    arms, exits, features = (whole(inner[i]) for i in (ARMS, EXITS, FEATURES))
    least, most = (min(d, len(delays)) for d in (lateness.delay, lateness.delay + lateness.spread))
    room = (most + 1) * (context_at(exits) + features + prediction_at(exits) + exits)
    free = HEADER + 3 * arms
    parked = free + PARAMETERS + len(delays)
    state = pack(
        table=inner[HEADER:free].reshape(3, arms).T,
        exits=exits,
        features=features,
        draws=0,
        parameters=(parked + room, least, most, parked, 0.0),
        extra=len(delays) + room,
    )
    state[free + PARAMETERS : parked] = delays
    for field in (DRAWS, UNIFORMS, CURSOR):
        state[field] = inner[field]
    return np.concatenate([state, inner])


def learnt(state: FloatArray) -> FloatArray:
    """The policy's own state inside one that `waiting` made, a copy."""
    return state[whole(state[whole(state[FREE]) + INNER]) :].copy()
