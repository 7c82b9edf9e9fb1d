"""LitServe: one worker owns the engine, and learns from each image that it answers.  `python litserve_app.py 8000`"""

import sys

import litserve
import numpy as np

from offramp.bandits import Arms, MacsAndBytes, Observation, SplitEES
from offramp.bandits.durable import DurableEngine
from offramp.environments import ConfidenceCache


class Classifier(litserve.LitAPI):
    def setup(self, device):
        cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")  # stands for your network
        self.exits, self.quote = cache.confidence[0, 0], MacsAndBytes().quote(cache.profile)
        self.engine = DurableEngine("litserve_app.db", SplitEES(threshold=0.8), arms=Arms.grid(exits=7))

    def predict(self, request):
        image, ticket = request["image"], self.engine.decide(self.quote)
        seen = np.where(np.arange(7) < ticket.cut, self.exits[image], np.nan)  # the edge; nan: not computed
        at = ticket.cut if seen[ticket.cut - 1] >= ticket.threshold else 7
        seen[at - 1] = self.exits[image, at - 1]  # where at is 7: the cloud
        self.engine.update(ticket, Observation(confidence=seen, answered_at=at, offloaded=at > ticket.cut))
        return {"exit": at, "confidence": seen[at - 1]}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
