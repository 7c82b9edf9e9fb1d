"""What all rows play: one world of seven exits, a stream through its conditions, a policy with twelve arms."""

import math
from functools import cache

import numpy as np

from offramp.bandits import UCB1, Arms, MacsAndBytes, Observation, Quote
from offramp.bandits.loop import Block
from offramp.bandits.loop import World as Arrays
from offramp.environments import Abrupt, ConfidenceCache, World, blocks

CACHE = "mobilenet_v2_cifar10"
EXITS = 7
ARMS = 12
LINKS = (1.0, 0.25, 4.0)


@cache
def world() -> World:
    """The world of `offramp compare`, on the test images of the embedded cache."""
    cache = ConfidenceCache.embedded(CACHE).part("test")
    return World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=EXITS))


@cache
def stream() -> Abrupt:
    """Through all conditions, one after the other, over a link that changes with them."""
    names = [c.name for c in world().cache.conditions]
    return Abrupt(segments=tuple((name, LINKS[i % len(LINKS)]) for i, name in enumerate(names)))


@cache
def arrays() -> Arrays:
    """The arrays of world and stream."""
    return world().arrays(stream().conditions, stream().links)


def policy() -> UCB1:
    """UCB1 over twelve arms: six cuts, two thresholds."""
    return UCB1(cuts=tuple(range(1, EXITS)), thresholds=(0.7, 0.9))


def one_block(rounds: int, seed: int = 0) -> Block:
    """A whole stream as one block."""
    parts = list(blocks(stream(), samples=len(arrays().label), horizon=rounds, seed=seed))
    return Block(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def quote() -> Quote:
    """The prices of the first state of the link."""
    return world().prices.quote(world().cache.profile)


def offloaded() -> Observation:
    """An offload's observation: the one that every decision of `policy` may lead to."""
    return Observation(confidence=[math.nan] * (EXITS - 1) + [0.9], answered_at=EXITS, offloaded=True)
