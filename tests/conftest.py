"""Worlds that many tests share: the embedded cache, and a small one made of random numbers."""

import signal

import numpy as np
import pytest

from offramp.bandits import Arms, MacsAndBytes, Profile
from offramp.environments import Condition, ConfidenceCache, World

collect_ignore = ["experiments/ray_cases.py"]  # run by test_on_ray.py, in a network of its own


@pytest.fixture(scope="session")
def embedded():
    return ConfidenceCache.embedded("mobilenet_v2_cifar10")


@pytest.fixture(scope="session")
def world(embedded):
    arms = Arms.grid(exits=7, raw_input_allowed=True)
    return World(cache=embedded.part("test"), prices=MacsAndBytes(), arms=arms, raw_input_allowed=True)


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    confidence = np.clip(rng.random((2, 1, 60, 1)) * 0.6 + rng.random((2, 1, 60, 4)) * 0.4, 0.0, 1.0)
    cache = ConfidenceCache.from_arrays(
        confidence=confidence,
        prediction=rng.integers(0, 5, confidence.shape),
        label=rng.integers(0, 5, 60),
        conditions=["clear", "foggy"],
        classes=5,
        profile=Profile(
            segment_macs=(40, 30, 20, 10),
            head_macs=(1, 1, 1, 1),
            payload_bytes=(3000, 9000, 4000, 2000, 0),
            layers=(1, 2, 3, 4),
        ),
    )
    return World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=4))


@pytest.fixture
def routed():
    """Three experts with exits of their own, a family without one, and a router that often errs."""
    rng = np.random.default_rng(3)
    families = ("pristine", "blur", "noise", "compression")
    shape = (4, 3, 60, 4)
    confidence = np.clip(rng.random((4, 3, 60, 1)) * 0.6 + rng.random(shape) * 0.4, 0.0, 1.0)
    cache = ConfidenceCache.from_arrays(
        confidence=confidence,
        prediction=rng.integers(0, 5, shape),
        label=rng.integers(0, 5, 60),
        conditions=[
            Condition(name, f) for name, f in zip(("clear", "soft", "grainy", "packed"), families, strict=True)
        ],
        experts=families[:3],
        classes=5,
        router=rng.dirichlet((1.0, 1.0, 1.0), (4, 60)),
        profile=Profile(
            segment_macs=(40, 30, 20, 10),
            head_macs=(1, 1, 1, 1),
            payload_bytes=(3000, 9000, 4000, 2000, 0),
            layers=(1, 2, 3, 4),
            router_macs=8,
        ),
    )
    return World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=4), routing="predicted")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background; the servers
    signal.signal(signal.SIGINT, signal.default_int_handler)  # that tests end by Ctrl-C would inherit that
