"""Carries what a policy has learnt over to another table of arms, while decisions on the old one are still open."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.kernel import whole
from offramp.bandits.policy import Policy, fresh
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import (
    ARMS,
    COUNTED,
    COUNTING,
    CURSOR,
    DRAWS,
    FREE,
    HEADER,
    MADE,
    OWN_COLUMNS,
    OWN_EXTRA,
    OWN_PARAMETERS,
    UNIFORMS,
    T,
)

# (arm, play) of a decision -> what they are in the new table, None where the arm was withdrawn.
Places = Mapping[tuple[float, float], tuple[float, float] | None]


@runtime_checkable
class Rearming(Protocol):
    """A policy that says itself how its state goes over to another table: wrappers, and those that keep rings."""

    def rearm(self, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
        """The state for the table `after`; the one given is left alone."""


def rearmed(policy: Policy, state: FloatArray, before: Arms, after: Arms, features: int) -> FloatArray:
    """A policy's state for another table of arms.

    The numbers of arms that stay are the same, bit for bit; arms that are new were never tried.  Constants are those of
    a policy made for the new table, and what was learnt about all arms together stays.

    Parameters
    ----------
    policy, state
        The spec and its state, which is left alone.
    before, after
        The tables of arms, of equally many exits.
    features
        Context features.

    Raises
    ------
    ValueError
        The policy cannot play the new table, or keeps something of which nobody has said how it goes over.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arm, Arms
    >>> from offramp.bandits.policy import fresh
    >>> before = Arms.grid(exits=2, thresholds=(0.5, 0.9))
    >>> after = before.without([Arm(1, 0.5)])
    >>> state = rearmed(UCB1(), fresh(UCB1(), before, 0), before, after, 0)
    >>> bool((state == fresh(UCB1(), after, 0)).all())
    True

    """
    if before.exits != after.exits:
        raise ValueError(
            f"exits is {after.exits}, allowed is {before.exits} as before: a network keeps its exits, one is withdrawn "
            "by leaving all arms at its cut out of the table"
        )
    if isinstance(policy, Rearming):
        return policy.rearm(state, before, after, features)
    new = fresh(policy, after, features)
    origin = fresh(policy, before, features)
    _check(policy, state, origin, new)
    carry(policy, state, origin, new)
    return new


def carry(policy: Policy, state: FloatArray, origin: FloatArray, new: FloatArray) -> None:
    """Write what a state has learnt since `origin`, its first form, into a fresh state for another table.

    For the `rearm` of a policy: parameters that have changed, columns, uniforms and, where both have equally many, the
    single numbers behind the columns go over.  Who keeps places of arms among those translates them afterwards.

    Raises
    ------
    ValueError
        A parameter has changed that depends on the table, and is not declared as `untried` to `pack`.

    """
    new[T], new[MADE] = state[T], state[MADE]
    free, at, arms = whole(state[FREE]), whole(new[FREE]), state[ARMS]
    parameters = whole(state[OWN_PARAMETERS])
    for i in range(parameters):
        if i == state[COUNTING] or state[free + i] == origin[free + i]:
            continue  # counted below; or a constant: that of the new table
        if origin[free + i] != new[at + i]:
            raise ValueError(
                f"{policy!r} cannot take another table of arms: its parameter {i} depends on it and has changed, "
                "allowed is one that is declared as untried"
            )
        new[at + i] = state[free + i]
    of = places(state, new)
    for k in range(whole(state[OWN_COLUMNS])):
        mine, theirs = free + parameters + k * whole(arms), at + parameters + k * whole(new[ARMS])
        for (_, play), place in of.items():
            if place is not None:
                new[theirs + whole(place[1])] = state[mine + whole(play)]
    if state[OWN_EXTRA] == new[OWN_EXTRA]:
        n = whole(state[OWN_EXTRA])
        mine = free + parameters + whole(state[OWN_COLUMNS] * arms)
        theirs = at + parameters + whole(new[OWN_COLUMNS] * new[ARMS])
        new[theirs : theirs + n] = state[mine : mine + n]
    if new[COUNTING] >= 0.0:
        first = at + parameters + whole(new[COUNTED]) * whole(new[ARMS])
        new[at + whole(new[COUNTING])] = (new[first : first + whole(new[ARMS])] == 0.0).sum()
    _go_on_drawing(state, new)


def renested(
    wrapper: Policy,
    inner: Policy,
    state: FloatArray,
    before: Arms,
    after: Arms,
    features: int,
    *,
    columns: int = 0,
) -> FloatArray:
    """The `rearm` of a policy around another one (see `offramp.bandits.nested`) on the same arms.

    Parameters
    ----------
    wrapper, inner
        The spec, and the one that it is put around.
    state, before, after, features
        As for `rearmed`.
    columns
        How many columns of length K stand first among the wrapper's further numbers; the rest must be no places of
        arms, and goes over as it is.

    """
    new, origin = fresh(wrapper, after, features), fresh(wrapper, before, features)
    new[T], new[MADE] = state[T], state[MADE]
    free, at, parameters = whole(state[FREE]), whole(new[FREE]), whole(state[OWN_PARAMETERS])
    for i in range(2, parameters):
        if state[free + i] != origin[free + i]:
            new[at + i] = state[free + i]
    mine, theirs, arms = free + parameters, at + parameters, whole(new[ARMS])
    for (_, play), place in places(state, new).items():
        for k in range(columns if place is not None else 0):
            assert place is not None
            new[theirs + k * arms + whole(place[1])] = state[mine + k * whole(state[ARMS]) + whole(play)]
    mine, theirs = mine + columns * whole(state[ARMS]), theirs + columns * arms
    (length, start), (longer, first) = (
        x[whole(x[FREE]) : whole(x[FREE]) + 2].astype(int).tolist() for x in (state, new)
    )
    new[theirs:first] = state[mine:start]
    for k in range((len(state) - whole(state[UNIFORMS]) - start) // length):
        part = rearmed(inner, state[start + k * length : start + (k + 1) * length], before, after, features)
        at = first + k * longer
        end = len(part) - whole(part[UNIFORMS])
        new[at : at + end] = part[:end]
        new[at + UNIFORMS] = new[at + CURSOR] = part[DRAWS]
    _go_on_drawing(state, new)
    return new


def places(state: FloatArray, new: FloatArray) -> dict[tuple[float, float], tuple[float, float] | None]:
    """Where each arm of a state stands in another one: the same cut and threshold, the n-th time where arms repeat."""
    there = {key: (index, play) for index, play, key in _table(new)}
    return {(index, play): there.get(key) for index, play, key in _table(state)}


def after_another(first: Places, second: Places) -> Places:
    """The two changes in one."""
    return {key: None if place is None else second[place] for key, place in first.items()}


def _go_on_drawing(state: FloatArray, new: FloatArray) -> None:
    """Keep the uniforms that are left, where a decision uses as many; else a fresh block is drawn before the next."""
    n = whole(state[UNIFORMS])
    if n > 0 and state[UNIFORMS] == new[UNIFORMS]:
        new[len(new) - n :] = state[len(state) - n :]
        new[CURSOR] = state[CURSOR]


def _table(state: FloatArray) -> list[tuple[float, float, tuple[float, float, int]]]:
    arms = whole(state[ARMS])
    seen: dict[tuple[float, float], int] = {}
    found = []
    for play, (index, cut, threshold) in enumerate(state[HEADER : HEADER + 3 * arms].reshape(3, arms).T.tolist()):
        nth = seen[cut, threshold] = seen.get((cut, threshold), 0) + 1
        found.append((index, float(play), (cut, threshold, nth)))
    return found


def _check(policy: Policy, state: FloatArray, origin: FloatArray, new: FloatArray) -> None:
    """Refuse a state that is more than parameters and one number per arm: what the rest means is not known here."""
    arms, free = whole(state[ARMS]), whole(state[FREE])
    packed = whole(state[FREE] + state[OWN_PARAMETERS] + state[OWN_COLUMNS] * arms + state[OWN_EXTRA] + state[UNIFORMS])
    kept = ""
    if len(state) != packed:
        kept = "another policy's state inside its own"
    elif state[OWN_EXTRA] != 0.0:
        kept = f"{state[OWN_EXTRA]:g} numbers besides those of its arms"
    elif not np.array_equal(state[[OWN_PARAMETERS, OWN_COLUMNS]], new[[OWN_PARAMETERS, OWN_COLUMNS]]):
        kept = "a state whose layout depends on the number of arms"
    elif (state[HEADER : HEADER + arms] < 0.0).any():
        kept = "rules that are not in the table of arms"
    else:
        for i in range(whole(state[OWN_PARAMETERS])):
            now, then = state[free + i], origin[free + i]
            if i != state[COUNTING] and now != then == arms:
                kept = f"a parameter (number {i}) that began as the number of arms, and is not declared as untried"
    if kept:
        raise ValueError(
            f"{policy!r} cannot take another table of arms: it keeps {kept}, allowed are policies that keep parameters "
            "and one number per arm, or that have a method rearm"
        )
