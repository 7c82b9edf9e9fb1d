"""The world for real: an edge and a cloud that each run their half of a network, over a link that is shaped."""

from offramp.environments.live.breaker import Breaker
from offramp.environments.live.cloud import CloudApp
from offramp.environments.live.edge import Edge
from offramp.environments.live.request import WHY, Answer
from offramp.environments.live.results import LiveRun
from offramp.environments.live.warm import warm_up

__all__ = ["WHY", "Answer", "Breaker", "CloudApp", "Edge", "LiveRun", "warm_up"]
