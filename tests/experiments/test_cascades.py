"""The option of a world that puts threshold vectors beside its grid."""

from hydra import compose, initialize_config_module

from offramp.bandits import Arms
from offramp.environments import ConfidenceCache
from offramp.experiments.compare import make_world


def test_a_world_takes_cascades_beside_its_grid():
    overrides = ["world.cascades={at: [1, 3], thresholds: [0.6, inf], cut: 5}"]
    with initialize_config_module("offramp.conf", version_base="1.3"):
        without, with_them = (compose("compare", overrides=x).world for x in ([], overrides))
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("validation")
    assert without.cascades is None
    grid, table = make_world(without, cache).arms, make_world(with_them, cache).arms
    assert table.single == grid.table
    assert table == grid.joined(Arms.cascades(exits=7, at=(1, 3), thresholds=(0.6, float("inf")), cut=5))
    assert len(table) == len(grid) + 3
