"""What happens once in a process, loading and compiling, is made to happen before the clock runs."""

import math

import numpy as np
import numpy.typing as npt

from offramp.bandits.arms import Arms
from offramp.bandits.contract import Observation, Quote
from offramp.bandits.engine import Engine
from offramp.bandits.policy import Policy
from offramp.environments.live.parts import EdgeHalf


def warm_up(
    half: EdgeHalf,
    image: npt.NDArray[np.uint8],
    variants: tuple[tuple[int, str], ...],
    policy: Policy | None = None,
    arms: Arms | None = None,
) -> None:
    """Run every segment, exit and codec on one image, and let a policy decide and learn once, all to be thrown away.

    Parameters
    ----------
    half, variants
        The edge's half of the network, and the (split, codec) pairs that it may send with.
    image
        Any (height, width, channels) uint8.
    policy, arms
        Whose steps are compiled; None = none.

    """
    run = half.start(image)
    context = run.context()
    for cut in range(half.exits + 1):
        if cut:
            run.segment()
            run.speak()
        for split, codec in variants:
            if split == cut:
                run.payload(codec)
    if policy is None or arms is None:
        return
    engine = Engine(policy, arms=arms, seed=0, features=len(context))
    exits = half.exits
    free = np.zeros(exits + 1)
    decision = engine.decide(Quote(edge_cost=free, offload_cost=free, mu=0.0), context if len(context) else None)
    seen = np.full(exits, math.nan)
    sure = [j for j in range(decision.cut) if decision.thresholds[j] <= 1.0]
    answered = sure[0] + 1 if sure else exits
    seen[answered - 1] = 1.0
    engine.update(decision, Observation(confidence=seen, answered_at=answered, offloaded=not sure))
