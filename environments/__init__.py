"""Replays the world: the confidence cache, streams, prices over links, the two executors, and honest regret."""

from offramp.environments.cache import CacheError, Condition, ConfidenceCache
from offramp.environments.device_presets import device_for, preset
from offramp.environments.devices import DeviceProfile
from offramp.environments.drawn_links import Markov, Outages
from offramp.environments.lateness import Lateness
from offramp.environments.link_estimate import EWMA, HarmonicMean, LastThroughput
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import Constant, Energy, Link
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.published import Published, read_published
from offramp.environments.regret import Comparators
from offramp.environments.replay import replay, rollout
from offramp.environments.stream import Abrupt, Gradual, RandomWalk, Recurring, Stationary, Stream, blocks
from offramp.environments.timed import Journal, Listed, Paced, Poisson, TimedWorld, replay_timed, rollout_timed
from offramp.environments.trace import Trace
from offramp.environments.world import World

__all__ = [
    "EWMA",
    "Abrupt",
    "CacheError",
    "Comparators",
    "Condition",
    "ConfidenceCache",
    "Constant",
    "DeviceProfile",
    "Energy",
    "Gradual",
    "HarmonicMean",
    "Journal",
    "LastThroughput",
    "Lateness",
    "Link",
    "LinkTrace",
    "Listed",
    "Markov",
    "Outages",
    "Paced",
    "PayloadTable",
    "Physical",
    "Poisson",
    "Published",
    "RandomWalk",
    "Recurring",
    "Stationary",
    "Stream",
    "TimedWorld",
    "Trace",
    "Weights",
    "World",
    "blocks",
    "device_for",
    "preset",
    "read_published",
    "replay",
    "replay_timed",
    "rollout",
    "rollout_timed",
]
