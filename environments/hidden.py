"""A derived condition in which the last exit lives through another distortion than the exits before it."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from offramp.environments.cache import CacheError, Condition, ConfidenceCache

Kind = TypeVar("Kind", bound=np.generic)


def hidden_change(cache: ConfidenceCache, *, early: str, last: str, name: str | None = None) -> ConfidenceCache:
    """The cache with one more condition: exits 1..L-1 as under `early`, the last exit as under `last`.

    On the edge nothing shows such a change: only offloads, audits and the whole network tell of it.  It stands for a
    cloud model that was replaced, or for layers that fail on what the early ones still take.

    Parameters
    ----------
    cache
        L >= 2 exits.
    early, last
        Names of conditions of the cache, two that differ.
    name
        Name of the new condition; None = "early, last: last".

    Returns
    -------
    ConfidenceCache
        Confidence, prediction and spread are put together sample by sample, of every expert; the router sees what the
        first layers see, so that its answers, and the condition's family, are those of `early`.

    Raises
    ------
    CacheError
        A condition is not in the cache, both are the same, the name is taken, or there is one exit alone.

    Examples
    --------
    >>> from offramp.environments import ConfidenceCache
    >>> from offramp.environments.hidden import hidden_change
    >>> cache = ConfidenceCache.from_arrays(
    ...     confidence=[[[0.5, 0.75]], [[0.25, 0.375]]],
    ...     prediction=[[[1, 0]], [[1, 1]]],
    ...     label=[0],
    ...     conditions=["sun", "fog"],
    ... )
    >>> changed = hidden_change(cache, early="sun", last="fog")
    >>> changed.conditions[2].name, changed.confidence[2].tolist()
    ('sun, last: fog', [[[0.5, 0.375]]])

    """
    if len(cache.exits) < 2:
        raise CacheError("the cache has one exit, allowed are two or more: one exit alone hides nothing")
    a, b = cache.condition(early), cache.condition(last)
    if a == b:
        raise CacheError(f"early and last are both {early!r}, allowed are two conditions that differ")
    called = f"{early}, last: {last}" if name is None else name
    if called in [c.name for c in cache.conditions]:
        raise CacheError(f"name is {called!r}, allowed is one that no condition of the cache has")

    def joined(values: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
        mixed = np.concatenate([values[a, ..., :-1], values[b, ..., -1:]], axis=-1)
        return np.concatenate([values, mixed[None]])

    made = Condition(called, cache.conditions[a].family, {**cache.conditions[a].parameters, "last": last})
    return replace(
        cache,
        confidence=joined(cache.confidence),
        prediction=joined(cache.prediction),
        spread=None if cache.spread is None else joined(cache.spread),
        router=None if cache.router is None else np.concatenate([cache.router, cache.router[a : a + 1]]),
        conditions=(*cache.conditions, made),
    )
