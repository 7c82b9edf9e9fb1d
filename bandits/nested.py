"""A policy inside a policy: where the inner state lies, what it draws, and what both count alike.

A wrapper's state is laid out as every state is (see `offramp.bandits.state`), and behind its own numbers stand one or
more states of the policy that it is put around, all of one length:

====================  =======================================================================
LENGTH                length of one inner state
FIRST                 where the first one starts; the k-th follows k lengths later
(parameters)          the wrapper's own, from `PARAMETERS` on
(extra)               the wrapper's other numbers
(copies)              the inner states
(uniforms)            the block that all of them draw from
====================  =======================================================================

An inner state keeps room for the uniforms of one decision alone; `enter` fills it.  So wrappers nest to any depth, and
several inner states may draw in turn.  MADE, the number that a decision carries as its ROUND, is the same in every
layer: whatever the layers forget or restart, no two decisions share it, and a later one has the larger.
"""

from typing import Any

import numpy as np

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.kernel import kernel, whole
from offramp.bandits.policy import Policy, fresh, needs_oracle
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, CURSOR, DRAWS, EXITS, FEATURES, FREE, HEADER, MADE, UNIFORMS, T, pack, uniform

PARAMETERS = 2
LENGTH, FIRST = range(PARAMETERS)


class Wrapper:
    """What every policy around another one has in common: it plays the same arms, on the same terms."""

    policy: Policy

    @property
    def oracle_side_information(self) -> bool:
        """As the inner policy."""
        return needs_oracle(self.policy)

    def plays(self, arms: Arms) -> list[Arm]:
        """As the inner policy."""
        return self.policy.plays(arms)


def wrappable(policy: Any) -> None:
    """Refuse what is no policy.

    Raises
    ------
    ValueError
        With the value and what is allowed.

    """
    if not isinstance(policy, Policy):
        raise ValueError(f"policy is {policy!r}, allowed is a policy")


def bare(policy: Policy, arms: Arms, features: int) -> FloatArray:
    """A policy's first state with room for the uniforms of one decision only."""
    inner = fresh(policy, arms, features)
    draws = whole(inner[DRAWS])
    inner = np.concatenate([inner[: len(inner) - whole(inner[UNIFORMS])], np.zeros(draws)])
    inner[UNIFORMS] = inner[CURSOR] = draws
    return inner


def around(
    inner: FloatArray,
    *,
    parameters: tuple[float, ...] = (),
    extra: int = 0,
    copies: int = 1,
    draws: int = 0,
    table: FloatArray | None = None,
) -> FloatArray:
    """A wrapper's first state.

    Parameters
    ----------
    inner
        The inner policy's, from `bare`.
    parameters, extra
        The wrapper's own constants, and how many further numbers it keeps, all 0 at first.
    copies
        How many inner states there are.
    draws
        Uniforms that the wrapper itself uses for a decision, besides those of one inner policy.
    table
        Arms as in `offramp.bandits.state.pack`; None = those of the inner policy.

    """
    arms, length = whole(inner[ARMS]), len(inner)
    if table is None:
        table = inner[HEADER : HEADER + 3 * arms].reshape(3, arms).T
    first = HEADER + 3 * len(table) + PARAMETERS + len(parameters) + extra
    state = pack(
        table=table,
        exits=whole(inner[EXITS]),
        features=whole(inner[FEATURES]),
        draws=whole(inner[DRAWS]) + draws,
        parameters=(length, first, *parameters),
        extra=extra + copies * length,
    )
    for k in range(copies):
        state[first + k * length : first + (k + 1) * length] = inner
    return state


@kernel
def start_of(state: FloatArray, k: int) -> int:
    """Where the k-th inner state starts; a compiled kernel cannot return the slice itself."""
    free = whole(state[FREE])
    return whole(state[free + FIRST]) + k * whole(state[free + LENGTH])


@kernel
def enter(state: FloatArray, inner: FloatArray) -> None:
    """Before an inner `select`: hand over fresh uniforms, and the number that the decision will carry."""
    draws = whole(inner[DRAWS])
    start = inner.shape[0] - draws
    for i in range(draws):
        inner[start + i] = uniform(state)
    inner[CURSOR] = 0.0
    inner[MADE] = state[MADE]


@kernel
def count(state: FloatArray) -> None:
    """After it: count the decision."""
    state[T] += 1.0
    state[MADE] += 1.0


@kernel
def follow(state: FloatArray, inner: FloatArray) -> None:
    """Let an inner policy that did not decide count the decision all the same, as one whose memory of it is gone."""
    inner[T] += 1.0
    inner[MADE] = state[MADE]


@kernel
def restart(state: FloatArray, at: int, image: int) -> None:
    """Make the inner state that starts at `at` a copy of the one at `image`; the number of decisions goes on."""
    for i in range(whole(state[whole(state[FREE]) + LENGTH])):
        state[at + i] = state[image + i]
    state[at + MADE] = state[MADE]
