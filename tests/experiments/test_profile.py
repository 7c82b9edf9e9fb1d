"""`offramp profile` as a user runs it: a table, a file, both kinds of exits, a larger image; bad input."""

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module

from offramp.environments import ConfidenceCache
from offramp.environments.devices import DeviceProfile
from offramp.experiments import profile


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("profile", overrides=["warm_up=0", "repeats=2", *overrides])


def test_the_program_as_typed(tmp_path):
    command = [sys.executable, "-m", "offramp.experiments.cli", "profile", "repeats=3", "warm_up=1", "power_w=5"]
    done = subprocess.run([*command, "folder=out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    device = DeviceProfile.load(tmp_path / "out" / "mobilenet_v2_cifar10.device.json")
    device.check(ConfidenceCache.embedded("mobilenet_v2_cifar10"))
    assert (device.exits, device.repeats, device.threads, device.power_w) == (7, 3, 1, 5.0)
    assert device.router_ms > 0.0
    out = done.stdout
    for text in (
        "segment 7",
        "head 7",
        "router",
        "all",
        "MACs %",
        "mJ",
        "in one go",
        device.network[:40],
        ".device.json",
    ):
        assert text in out, text
    assert f"{device.segment_ms[0]:.3f}" in out


def test_the_networks_own_exits_on_photographs(tmp_path, capsys):
    cfg = config(
        "network.input_size=128", "exits=own", "machine=board", f"folder={tmp_path}", "name=mobilenet_v2_cifar10"
    )
    path = profile.run(cfg)
    device = DeviceProfile.load(path)
    assert (device.name, device.router_ms, device.router_quartiles_ms) == ("board", 0.0, None)
    assert device.work.payload_bytes[0] == 3 * 128 * 128
    out = capsys.readouterr().out
    assert "of rest before each pass" not in " ".join(out.split())
    assert "router" not in out.replace("without a router", "")
    assert "mJ" not in out
    # The same weights on other images: the hash alone would not tell.
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10")
    assert device.network == cache.hashes["model"]
    with pytest.raises(ValueError, match="segment_macs"):
        device.check(cache)


def test_alexnet_with_the_exits_of_its_experts_at_a_pace(tmp_path, capsys):
    path = profile.run(
        config("network=alexnet", "name=alexnet_cifar10", "batch=2", "pace=0.001", f"folder={tmp_path / 'deep' / 'er'}")
    )
    device = DeviceProfile.load(path)
    device.check(ConfidenceCache.embedded("alexnet_cifar10"))
    assert device.batch == 2
    assert "0.001 s of rest before each pass" in device.source
    assert "0.001 s of rest before each pass" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["exits=none"], "exits is 'none', allowed are"),
        (["repeats=0"], "repeats is 0, allowed is a whole number"),
        (["pace=-1"], "pace is -1, allowed are finite seconds >= 0"),
        (["network.input_size=64"], "the router reads 32 pixels a side, allowed are 64"),
        (["network=alexnet"], "tensors do not belong to this network"),
        (["name=nowhere"], "not a readable file"),
    ],
)
def test_bad_input_is_named(overrides, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        profile.run(config(*overrides, f"folder={tmp_path}"))
    assert not list(tmp_path.iterdir())
