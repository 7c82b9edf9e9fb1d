"""Which codec at which split each variant of a world in time stands for."""

import numpy as np

from offramp.environments.timed.world import TimedWorld

IMAGE, FEATURES = "raw", "float32"  # where a world has no table of payloads: as they are


def variants_of(world: TimedWorld) -> tuple[tuple[int, str], ...]:
    """(split, codec) of each variant, in the order of the world's facts.

    Examples
    --------
    >>> from offramp.bandits import Arms
    >>> from offramp.environments import Constant, ConfidenceCache, DeviceProfile, Physical, TimedWorld, World
    >>> cache = ConfidenceCache.embedded("mobilenet_v2_imagenette")
    >>> core = DeviceProfile.embedded("mobilenet_v2_imagenette")
    >>> world = World(cache=cache, prices=Physical(edge=core, cloud=core), arms=Arms.grid(exits=7))
    >>> variants_of(TimedWorld(world=world, link=Constant(mbit_s=5.0)))[:2]
    ((1, 'float32'), (2, 'float32'))

    """
    raw_input, exits = world.world.raw_input_allowed, len(world.world.cache.exits)
    table = world.payloads
    if table is None:
        return tuple((split, FEATURES if split else IMAGE) for split in range(0 if raw_input else 1, exits))
    pairs = [
        (int(split), codec)
        for split, codec in zip(table.splits, table.codecs, strict=True)
        if (raw_input or split > 0) and (world.codecs is None or codec in world.codecs)
    ]
    return tuple(pairs[k] for k in np.argsort([split for split, _ in pairs], kind="stable"))
