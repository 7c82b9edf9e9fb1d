"""Timing a network: every part once per repeat, in the order of an image, and a profile that fits its cache."""

import numpy as np
import pytest
import torch
from torch import nn

from offramp.environments.device_presets import PRESETS, preset
from offramp.environments.devices import DeviceProfile
from offramp.models.experts import Experts
from offramp.models.extract import profile_of
from offramp.models.network import ExitHead, MultiExitNetwork, mobilenet_v2_exits
from offramp.models.router import load_router
from offramp.models.timing import Timing, measure, processor_name
from offramp.models.weights import HERE, load_weights, model_hash

torch.set_num_threads(1)


class Note(nn.Module):
    """Writes down that it ran, and in what state."""

    def __init__(self, name, notes, inner):
        super().__init__()
        self.name, self.notes, self.inner = name, notes, inner

    def forward(self, x):
        order = x.is_contiguous(memory_format=torch.channels_last)
        state = (self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), order)
        self.notes.append((self.name, state))
        return self.inner(x)


def tiny(notes=None, side=32):
    torch.manual_seed(0)
    segments = [nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU()), nn.Conv2d(4, 8, 3, padding=1)]
    heads = [ExitHead(4, 5), ExitHead(8, 5)]
    if notes is not None:
        segments = [Note(f"segment {i}", notes, s) for i, s in enumerate(segments)]
        heads = [Note(f"head {i}", notes, h) for i, h in enumerate(heads)]
    made = MultiExitNetwork(segments, heads, (3, side, side))
    return made.to(memory_format=torch.channels_last)


def test_parts_run_in_the_order_of_an_image_and_the_whole_before_and_after_them_in_turn():
    notes, seen = [], []
    network = tiny(notes)
    before = torch.get_num_threads()
    found = measure(network.train(), warm_up=1, repeats=2, threads=2, progress=lambda *done: seen.append(done))
    assert torch.get_num_threads() == before
    assert seen == [(1, 2), (2, 2)]
    parts, whole = ["segment 0", "head 0", "segment 1", "head 1"], ["segment 0", "segment 1", "head 1"]
    assert [name for name, _ in notes[:21]] == whole + parts + parts + whole + whole + parts
    assert {state for _, state in notes[:21]} == {(False, True, 2, True)}
    assert found.segments.shape == found.heads.shape == (2, 2)
    assert found.whole.shape == (2,)
    assert found.router is None


def test_before_each_pass_is_a_rest_of_the_pace_and_the_profile_says_so():
    notes = []
    found = measure(tiny(notes), warm_up=1, repeats=2, pace=0.25, rest=lambda seconds: notes.append((seconds, None)))
    parts, whole = [0.25, "segment 0", "head 0", "segment 1", "head 1"], [0.25, "segment 0", "segment 1", "head 1"]
    assert [name for name, _ in notes[: 3 * 9]] == whole + parts + parts + whole + whole + parts
    assert 0.25 not in [name for name, _ in notes[3 * 9 :]]
    assert found.pace == 0.25
    assert found.profile().source.endswith("medians of 2 repeats, 0.25 s of rest before each pass")


def test_without_a_pace_nothing_rests_and_the_file_says_nothing_of_it():
    found = measure(tiny(), warm_up=1, repeats=2, rest=lambda seconds: pytest.fail(f"rested {seconds} s"))
    assert found.profile().source.endswith("without a router; medians of 2 repeats")


def test_a_measured_profile_fits_its_network():
    network, router = tiny(), load_router()
    experts = Experts(network, families=["pristine", "blur"], grid=[2, 1], hidden=3)
    found = measure(network, experts=experts, router=router, warm_up=2, repeats=9, batch=2)
    for times in (found.segments, found.heads, found.router, found.whole):
        assert len(times) == 9
        assert (times > 0.0).all()
    assert (found.network, found.work) == (model_hash(network), profile_of(network, experts, router.macs))
    device = found.profile(power_w=3.0)
    assert device.segment_ms == pytest.approx(np.median(found.segments, 0), abs=1e-6)
    assert device.head_ms == pytest.approx(np.median(found.heads, 0), abs=1e-6)
    assert device.router_ms == pytest.approx(np.median(found.router), abs=1e-6)
    assert device.whole_ms == pytest.approx(np.median(found.whole), abs=1e-6)
    assert (device.batch, device.threads, device.repeats, device.power_w) == (2, 1, 9, 3.0)
    assert (device.name, device.scaled_from) == (processor_name(), "")
    assert "median" in device.source
    assert "32-bit" in device.source
    times = (*device.segment_ms, *device.head_ms, device.router_ms)
    quartiles = (*device.segment_quartiles_ms, *device.head_quartiles_ms, device.router_quartiles_ms)
    assert all(low <= t <= high for t, (low, high) in zip(times, quartiles, strict=True))
    for evaluate in ("own", "prefix"):
        assert (np.diff(device.edge_ms("prefix")) > 0.0).all(), evaluate
    assert (np.diff(device.cloud_ms) < 0.0).all()
    assert measure(network, warm_up=0, repeats=1).profile(name="mine").name == "mine"


def test_the_gap_compares_the_sum_of_the_parts_with_the_whole():
    def found(whole):
        segments = np.array([[1.0, 2.0], [1.0, 2.0], [9.0, 2.0]])
        heads = np.array([[7.0, 1.0], [7.0, 1.0], [7.0, 1.0]])
        work = profile_of(tiny())
        return Timing(segments=segments, heads=heads, router=None, whole=np.array(whole), batch=1, threads=1,
                      network="", work=work)  # fmt: skip

    assert found([4.0, 4.0, 90.0]).gap == 0.0
    assert found([5.0, 5.0, 5.0]).gap == pytest.approx(-0.2)
    assert found([4.0] * 3).profile().edge_ms("own").tolist() == [0.0, 8.0, 4.0]


@pytest.mark.parametrize("name", ["mobilenet_v2_cifar10", "alexnet_cifar10"])
def test_a_shipped_network_fits_its_cache(name, tmp_path):
    from hydra import compose, initialize_config_module
    from hydra.utils import instantiate

    from offramp.environments import ConfidenceCache

    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("profile", overrides=[f"network={name.removesuffix('_cifar10')}"])
    network = instantiate(cfg.network).to(memory_format=torch.channels_last)
    load_weights(network, HERE / f"{name}.safetensors")
    experts = Experts.load(network, HERE / f"{name}.experts.safetensors")
    device = measure(network, experts=experts, router=load_router(), warm_up=1, repeats=3).profile()
    device.save(tmp_path / "device.json")
    cache = ConfidenceCache.embedded(name)
    DeviceProfile.load(tmp_path / "device.json").check(cache)
    own = measure(network, warm_up=0, repeats=1).profile()
    with pytest.raises(ValueError, match="head_macs"):
        own.check(cache)  # the cache speaks of an expert's exits and of a router
    other = {"mobilenet_v2_cifar10": "alexnet_cifar10", "alexnet_cifar10": "mobilenet_v2_cifar10"}[name]
    with pytest.raises(ValueError, match=r"knows \d exits"):
        device.check(ConfidenceCache.embedded(other))


def test_the_published_figures_are_of_the_work_that_we_count():
    for name, side in (("raspberry_pi_4", 224), ("jetson_nano", 300)):
        network = mobilenet_v2_exits(classes=1000, input_size=side)
        work = profile_of(network)
        assert PRESETS[name].macs == pytest.approx(sum(work.segment_macs) + work.head_macs[-1], rel=1e-3)
        assert preset(name, work).total_ms == pytest.approx(PRESETS[name].ms, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch is 0, allowed is a whole number, 1 or more"),
        ({"warm_up": -1}, "warm_up is -1, allowed is a whole number, 0 or more"),
        ({"repeats": 0}, "repeats is 0, allowed is a whole number, 1 or more"),
        ({"threads": 0}, "threads is 0, allowed is a whole number, 1 or more"),
        ({"repeats": 2.5}, "repeats is 2.5"),
        ({"pace": -0.1}, "pace is -0.1, allowed are finite seconds >= 0"),
        ({"pace": float("inf")}, "pace is inf"),
        ({"experts": Experts(tiny(), grid=[2, 1], hidden=3)}, "experts are of another network"),
    ],
)
def test_what_cannot_be_measured(options, message):
    with pytest.raises(ValueError, match=message):
        measure(tiny(), **options)


def test_a_router_of_another_size_is_refused():
    with pytest.raises(ValueError, match="the router reads 32 pixels a side, allowed are 64"):
        measure(tiny(side=64), router=load_router())
