"""Ray Serve: replicas decide, one detached learner keeps the state.  `serve run ray_serve_app:app`."""

import numpy as np
from ray import serve

from offramp.bandits import Arms, MacsAndBytes, Observation, SplitEES
from offramp.environments import ConfidenceCache
from offramp.experiments.on_ray import RayDecider, start_learner


@serve.deployment(num_replicas=2)
class Classifier:
    def __init__(self):
        cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")  # stands for your network
        self.exits, self.quote = cache.confidence[0, 0], MacsAndBytes().quote(cache.profile)
        self.decider = RayDecider("offramp")

    async def __call__(self, request):
        image, ticket = int(request.query_params["image"]), self.decider.decide(self.quote)
        seen = np.where(np.arange(7) < ticket.cut, self.exits[image], np.nan)  # the edge; nan: not computed
        at = ticket.cut if seen[ticket.cut - 1] >= ticket.threshold else 7
        seen[at - 1] = self.exits[image, at - 1]  # where at is 7: the cloud
        self.decider.update(ticket, Observation(confidence=seen, answered_at=at, offloaded=at > ticket.cut))
        return {"exit": at, "confidence": seen[at - 1]}


def app(arguments):
    start_learner("offramp", path="ray_serve_app.db", policy=SplitEES(threshold=0.8), arms=Arms.grid(exits=7))
    return Classifier.bind()
