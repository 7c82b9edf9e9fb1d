"""Replays the world: the confidence cache, streams, prices over links, the two executors, and honest regret."""

from offramp.environments.cache import CacheError, Condition, ConfidenceCache
from offramp.environments.lateness import Lateness
from offramp.environments.regret import Comparators
from offramp.environments.replay import replay, rollout
from offramp.environments.stream import Abrupt, Gradual, RandomWalk, Recurring, Stationary, Stream, blocks
from offramp.environments.trace import Trace
from offramp.environments.world import World

__all__ = [
    "Abrupt",
    "CacheError",
    "Comparators",
    "Condition",
    "ConfidenceCache",
    "Gradual",
    "Lateness",
    "RandomWalk",
    "Recurring",
    "Stationary",
    "Stream",
    "Trace",
    "World",
    "blocks",
    "replay",
    "rollout",
]
