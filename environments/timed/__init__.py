"""Worlds in which decisions take time: devices, links, payloads, queues, deadlines, and feedback when it is back."""

from offramp.environments.timed.arrivals import Arrivals, Listed, Paced, Poisson
from offramp.environments.timed.journal import Journal
from offramp.environments.timed.play import replay_timed, rollout_timed
from offramp.environments.timed.world import TimedWorld

__all__ = ["Arrivals", "Journal", "Listed", "Paced", "Poisson", "TimedWorld", "replay_timed", "rollout_timed"]
