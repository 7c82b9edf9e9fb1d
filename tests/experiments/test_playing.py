"""What a comparison is given is read once, and refused by name where it means nothing."""

import math

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from offramp.experiments.playing import cache_part, check, make_world, numbers, play_all


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("compare", overrides=list(overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # Copied from a YAML file: an override has no `.inf`, and reads a text.
        (
            "world.thresholds=[-.inf,0.3,.inf]",
            "thresholds of world world hold '-.inf', allowed are numbers, and -inf",
        ),
        ("world.thresholds=[0.3,true]", "thresholds of world world hold True, allowed are numbers"),
        ("world.thresholds=[0.3,null]", "thresholds of world world hold None, allowed are numbers"),
        ("world.thresholds=[0.3,nan]", "thresholds of world world hold nan, allowed are numbers"),
        ("world.thresholds=0.3", "thresholds of world world is 0.3, allowed is a list"),
        ("world.thresholds=all", "thresholds of world world is 'all', allowed is a list"),
        ("world.thresholds=[]", "thresholds of world world are empty"),
        ("seeds=true", "seeds is True, allowed is a whole number, 1 or more"),
        ("horizon=true", "horizon is True, allowed is a whole number, 1 or more"),
        ("threads=true", "threads is True, allowed is a whole number, 1 or more"),
        ("seed=false", "seed is False, allowed is a whole number, 0 or more"),
        ("seeds=1.5", "seeds is 1.5, allowed is a whole number, 1 or more"),
    ],
)
def test_what_means_nothing_is_refused(override, message):
    cfg = config("world=default", override)
    for refuse in (check, lambda given: play_all(given, None)):
        with pytest.raises(ValueError, match=message):
            refuse(cfg)


def test_whole_thresholds_are_the_same_rules():
    """An override's `-inf`, and 0 and 1 for 0.0 and 1.0; those of cascades too."""
    cfg = config("world=default", "world.thresholds=[-inf,0,1,inf]", "world.cascades={at: [1], thresholds: [1]}")
    check(cfg)
    cache = cache_part(cfg.cache, cfg.split)
    made = make_world(cfg.world, cache).arms
    said = config("world=default", "world.thresholds=[-inf,0.0,1.0,inf]", "world.cascades={at: [1], thresholds: [1.0]}")
    assert repr(made) == repr(make_world(said.world, cache).arms)
    assert numbers(cfg.world.thresholds, "thresholds") == [-math.inf, 0.0, 1.0, math.inf]
    wrong = OmegaConf.merge(cfg.world, {"cascades": {"at": [1], "thresholds": [0.5, ".inf"]}})
    with pytest.raises(ValueError, match=r"thresholds of cascades hold '\.inf', allowed are numbers"):
        make_world(wrong, cache)
