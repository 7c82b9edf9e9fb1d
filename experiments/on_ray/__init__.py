"""Offramp on Ray: one learner as a named, detached actor that owns the store, and deciders inside the replicas."""

from offramp.experiments.on_ray.decider import RayDecider
from offramp.experiments.on_ray.learner import start_learner, stop_learner

__all__ = ["RayDecider", "start_learner", "stop_learner"]
