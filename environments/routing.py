"""Who answers: the expert whose exits each sample is given to, under each condition."""

import numpy as np

from offramp.bandits.rows import IntArray
from offramp.environments.cache import ConfidenceCache


def routings(cache: ConfidenceCache) -> tuple[str, ...]:
    """The routings that a cache allows, besides none."""
    return (*cache.experts, "oracle") + (() if cache.router is None else ("predicted",))


def experts_of(cache: ConfidenceCache, routing: str | None) -> IntArray:
    """Index of the expert that answers, (S, N).

    Parameters
    ----------
    cache
        S conditions, N samples.
    routing
        "predicted" = the one that the router holds likeliest; "oracle" = the one trained for the condition's family,
        the first where there is none; the name of one expert for everything; None = the first.

    Raises
    ------
    ValueError
        The cache has no such expert, or no router.

    """
    shape = len(cache.conditions), len(cache.label)
    if routing is not None and routing not in routings(cache):
        raise ValueError(f"routing is {routing!r}, allowed with this cache are {routings(cache)}")
    if routing == "predicted":
        assert cache.router is not None
        return np.asarray(cache.router.argmax(axis=2), dtype=np.int64)
    if routing == "oracle":
        chosen = [cache.experts.index(c.family) if c.family in cache.experts else 0 for c in cache.conditions]
    else:
        chosen = [0 if routing is None else cache.experts.index(routing)] * shape[0]
    return np.broadcast_to(np.array(chosen, dtype=np.int64)[:, None], shape)
