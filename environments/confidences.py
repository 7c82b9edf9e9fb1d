"""Caches without confidences: predictions alone are known, so only policies that need no confidence may play them."""

import math
from collections.abc import Mapping
from typing import Any

from offramp.bandits.arms import Arms
from offramp.bandits.fixed import FinalExit, Fixed, OffloadFirst, SendInput
from offramp.bandits.policy import Policy
from offramp.bandits.random_arm import RandomArm
from offramp.bandits.uee_ucb import UEEUCB
from offramp.environments.cache import CacheError, ConfidenceCache

NOTE: Mapping[str, Any] = {"confidence": "none"}
"""What such a cache says in its notes; its confidences are 0, and mean nothing."""
_BLIND = (UEEUCB, FinalExit, OffloadFirst, SendInput, RandomArm, Fixed)


def has_confidences(cache: ConfidenceCache) -> bool:
    """Does this cache hold confidences?  False for those of published results that give predictions alone."""
    return bool(cache.notes.get("confidence") != NOTE["confidence"])


def needs_confidence(policy: Policy, arms: Arms) -> bool:
    """Does a policy look at confidences, or play an arm of this table whose answer depends on one?

    Examples
    --------
    >>> from offramp.bandits import Arms, Fixed, UCB1
    >>> from offramp.environments.confidences import needs_confidence
    >>> arms = Arms.grid(exits=3)
    >>> needs_confidence(UCB1(), arms), needs_confidence(Fixed(cut=2, threshold=float("-inf")), arms)
    (True, False)

    """
    if type(policy) not in _BLIND:
        return True
    return any(not math.isinf(t) for arm in policy.plays(arms) for t in (arm.threshold, *arm.early))


def check_policy(policy: Policy, arms: Arms, cache: ConfidenceCache) -> None:
    """Refuse a policy that needs confidences where the cache has none.

    Raises
    ------
    CacheError
        It does.

    """
    if not has_confidences(cache) and needs_confidence(policy, arms):
        demand_confidences(cache, str(policy))


def demand_confidences(cache: ConfidenceCache, what: str) -> None:
    """Refuse a cache without confidences.

    Raises
    ------
    CacheError
        `what` needs them, and the cache has none.

    """
    if not has_confidences(cache):
        blind = ", ".join(kind.__name__ for kind in _BLIND)
        raise CacheError(
            f"{what} needs confidences, and this cache has none: allowed are {blind}, with thresholds -inf and +inf"
        )
