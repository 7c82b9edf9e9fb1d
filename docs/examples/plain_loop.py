"""A loop of your own: decide, compute, feed back; what was learnt is on disk before the next image."""

import numpy as np

from offramp.bandits import Arms, MacsAndBytes, Observation, SplitEES
from offramp.bandits.durable import DurableEngine
from offramp.environments import ConfidenceCache

cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")  # stands for your network and its images
exits = cache.confidence[cache.condition("blur 1.0"), 0]  # how sure exits 1..7 are of each image, (images, 7)
quote = MacsAndBytes().quote(cache.profile)  # what your device and your link cost now

with DurableEngine("plain_loop.db", SplitEES(threshold=0.8), arms=Arms.grid(exits=7)) as engine:
    for image in range(500):
        ticket = engine.decide(quote)
        seen = np.full(7, np.nan)  # nan: not computed
        seen[: ticket.cut] = exits[image, : ticket.cut]  # the edge
        sure = seen[ticket.cut - 1] >= ticket.threshold
        if not sure:
            seen[6] = exits[image, 6]  # the cloud
        at = ticket.cut if sure else 7
        engine.update(ticket, Observation(confidence=seen, answered_at=at, offloaded=not sure))
    print(f"learnt from {engine.cursor} images so far; the next one stops at exit {engine.decide(quote).cut}")
