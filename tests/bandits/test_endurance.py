"""Ten million rounds of extreme confidences: every number of every policy stays finite.  Part of `make check-long`."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.bandits import Arms, MacsAndBytes, Profile
from offramp.bandits.policy import fresh
from offramp.environments import Abrupt, ConfidenceCache, World, rollout

NAMES = sorted(p.stem for p in (Path(__file__).parents[2] / "conf" / "policy").glob("*.yaml") if p.stem != "standard")
EXITS, ROUNDS = 5, 10_000_000
SLOW = {"beta_thompson"}  # computes the chances of its draws by quadrature: 160 microseconds a round


def extreme_world() -> World:
    """Confidences of exactly 0 and exactly 1, now one, now the other."""
    rng = np.random.default_rng(0)
    profile = Profile(
        segment_macs=(4,) * EXITS, head_macs=(1,) * EXITS, payload_bytes=(3_000,) * EXITS + (0,), layers=(1, 2, 3, 4, 5)
    )
    confidence = np.stack([rng.integers(0, 2, (1, 500, EXITS)), np.ones((1, 500, EXITS), dtype=np.int64)])
    cache = ConfidenceCache.from_arrays(
        confidence=confidence[:, 0].astype(float),
        prediction=rng.integers(0, 3, (2, 500, EXITS)),
        label=rng.integers(0, 3, 500),
        conditions=["either", "sure"],
        classes=3,
        profile=profile,
    )
    arms = Arms.grid(exits=EXITS, raw_input_allowed=True)
    return World(cache=cache, prices=MacsAndBytes(), arms=arms, raw_input_allowed=True)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_numbers_stay_finite(name):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        policy = instantiate(compose("compare", overrides=[f"policy={name}"]).policy)
    world = extreme_world()
    stream = Abrupt(segments=(("either", 1.0), ("sure", 0.1)), length=70_000)
    rounds = ROUNDS // 10 if name in SLOW else ROUNDS
    trace, state = rollout(policy, world, stream, horizon=rounds, seed=0)
    finite = np.isfinite(fresh(policy, world.arms, 0))
    assert np.isfinite(state[finite]).all()
    assert np.isfinite(trace.sums["reward"]).all()
