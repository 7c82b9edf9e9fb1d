"""What all rows play: one world of seven exits, a stream through all of its conditions, and a policy with twelve arms."""

import math
from functools import cache
from pathlib import Path

import numpy as np

from offramp.bandits import UCB1, Arms, MacsAndBytes, Observation, Profile
from offramp.environments import Abrupt, CacheError, ConfidenceCache, World

EMBEDDED = "mobilenet_v2_cifar10"
EXITS = 7
LINKS = (1.0, 0.25, 4.0)
PROFILE = Profile(  # of MobileNetV2 with exits, for the synthetic world
    segment_macs=(20_000_000, 15_000_000, 9_000_000, 12_000_000, 14_000_000, 12_000_000, 6_000_000),
    head_macs=(30_000, 9_000, 7_000, 5_000, 5_000, 7_000, 33_000),
    payload_bytes=(3072, 98_304, 32_768, 16_384, 24_576, 6_144, 20_480, 0),
    layers=(3, 6, 9, 12, 15, 18, 19),
)

given: Path | None = None  # a cache file, set once by run.py


def synthetic() -> ConfidenceCache:
    """A cache of the size of the shipped one, from a seed: deeper exits are surer, and each condition hurts more."""
    rng = np.random.default_rng(0)
    conditions, samples = 15, 10_000
    ease = rng.random((1, samples, 1))
    depth, harm = np.linspace(0.2, 0.6, EXITS), np.linspace(0.0, 0.3, conditions)[:, None, None]
    noise = 0.3 * rng.random((conditions, samples, EXITS))
    return ConfidenceCache.from_arrays(
        confidence=np.clip(0.4 * ease + depth - harm + noise, 0.1, 1.0),
        prediction=rng.integers(0, 10, (conditions, samples, EXITS)),
        label=rng.integers(0, 10, samples),
        conditions=[f"condition {s}" for s in range(conditions)],
        classes=10,
        profile=PROFILE,
    )


@cache
def facts() -> tuple[ConfidenceCache, str]:
    """The cache to play on, and where it came from."""
    if given is not None:
        return ConfidenceCache.load(given).part("test"), str(given)
    try:
        return ConfidenceCache.embedded(EMBEDDED).part("test"), f"embedded {EMBEDDED}"
    except CacheError:
        return synthetic(), "synthetic (no cache is embedded)"


@cache
def world() -> World:
    """The world: all cuts at two thresholds, which makes twelve arms and "everything on the edge"."""
    return World(cache=facts()[0], prices=MacsAndBytes(), arms=Arms.grid(exits=EXITS))


def stream(length: int | None = None) -> Abrupt:
    """Through all conditions, one after the other, over a link that changes with them."""
    names = [c.name for c in world().cache.conditions]
    return Abrupt(segments=tuple((name, LINKS[i % len(LINKS)]) for i, name in enumerate(names)), length=length)


def policy() -> UCB1:
    """UCB1 over twelve arms: six cuts, two thresholds."""
    return UCB1(cuts=tuple(range(1, EXITS)), thresholds=(0.7, 0.9))


def offloaded() -> Observation:
    """An offload's observation: the one that any decision of `policy` may lead to."""
    return Observation(confidence=[math.nan] * (EXITS - 1) + [0.9], answered_at=EXITS, offloaded=True)
