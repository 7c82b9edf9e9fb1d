"""Device profiles: sums by hand, files that come back and files that are refused, presets, other networks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from offramp.bandits import Profile
from offramp.environments import ConfidenceCache
from offramp.environments.device_presets import PRESETS, device_for, preset
from offramp.environments.devices import SCHEMA, DeviceProfile

WORK = Profile(
    segment_macs=(5, 7, 8), head_macs=(1, 1, 2), payload_bytes=(30, 90, 20, 0), layers=(1, 2, 3), router_macs=4
)
DEVICE = DeviceProfile(
    name="a board",
    network="a1",
    segment_ms=(3.0, 4.0, 5.0),
    head_ms=(0.5, 0.25, 1.0),
    router_ms=0.125,
    power_w=4.0,
    work=WORK,
    segment_quartiles_ms=((2.5, 3.5), (4.0, 4.5), (4.0, 6.0)),
    head_quartiles_ms=((0.5, 0.5), (0.25, 0.5), (1.0, 2.0)),
    router_quartiles_ms=(0.125, 0.25),
    whole_ms=12.5,
    threads=2,
    repeats=50,
    source="measured by hand",
)
PLAIN = DeviceProfile(name="plain", segment_ms=(1.0,), head_ms=(0.0,))


def cache(*, exits=3, profile=WORK, **hashes):
    shape = (1, 1, 2, exits)
    return ConfidenceCache.from_arrays(
        confidence=np.full(shape, 0.5),
        prediction=np.zeros(shape, dtype=int),
        label=[0, 1],
        conditions=["clear"],
        profile=profile,
        hashes=hashes,
    )


def test_times_up_to_each_cut_and_from_it_by_hand():
    assert DEVICE.edge_ms("own").tolist() == [0.0, 3.625, 7.375, 13.125]
    assert DEVICE.edge_ms("prefix").tolist() == [0.0, 3.625, 7.875, 13.875]
    assert DEVICE.cloud_ms.tolist() == [13.125, 10.0, 6.0, 0.0]
    assert DEVICE.total_ms == 13.125
    assert DEVICE.energy_mj(2.0) == 8.0
    assert DEVICE.energy_mj(DEVICE.edge_ms("own")).tolist() == [0.0, 14.5, 29.5, 52.5]


def test_edge_times_follow_the_rule_of_edge_multiply_accumulates():
    device = replace(DEVICE, segment_ms=WORK.segment_macs, head_ms=WORK.head_macs, router_ms=WORK.router_macs)
    for evaluate in ("own", "prefix"):
        assert np.array_equal(device.edge_ms(evaluate), WORK.edge_macs(evaluate))
    with pytest.raises(ValueError, match="evaluate is 'all', allowed are"):
        device.edge_ms("all")


times = st.lists(st.tuples(*[st.floats(0.0, 1e4)] * 2), min_size=1, max_size=12)


@given(times, st.floats(0.0, 100.0), st.floats(1e-3, 1e3))
def test_deeper_never_costs_the_edge_less_nor_the_cloud_more(parts, router, factor):
    device = DeviceProfile(
        name="any", segment_ms=[s for s, _ in parts], head_ms=[h for _, h in parts], router_ms=router, power_w=2.0
    )
    edge, cloud = device.edge_ms("prefix"), device.cloud_ms
    assert edge[0] == cloud[-1] == 0.0
    assert (np.diff(edge) >= 0.0).all()
    assert (np.diff(cloud) <= 1e-9 * cloud[0]).all()
    assert (device.edge_ms("own") <= edge * (1.0 + 1e-12)).all()
    for whole in (device.edge_ms("own")[-1], cloud[0]):
        assert whole == pytest.approx(device.total_ms)
    slower = device.scaled(factor)
    assert slower.edge_ms("prefix") == pytest.approx(factor * edge)
    assert slower.cloud_ms == pytest.approx(factor * cloud)
    assert slower.energy_mj(slower.total_ms) == pytest.approx(factor * device.energy_mj(device.total_ms))


def test_scaling_takes_every_time_along_and_says_so():
    slow = DEVICE.scaled(2.0)
    assert slow.segment_ms == (6.0, 8.0, 10.0)
    assert slow.head_quartiles_ms[-1] == (2.0, 4.0)
    assert slow.segment_quartiles_ms[0] == (5.0, 7.0)
    assert (slow.router_ms, slow.router_quartiles_ms, slow.whole_ms) == (0.25, (0.25, 0.5), 25.0)
    assert (slow.power_w, slow.network, slow.work, slow.source) == (4.0, "a1", WORK, "measured by hand")
    assert slow.scaled_from == "a board; all times 2-fold"
    assert slow.scaled(0.5).scaled_from == "a board; all times 2-fold; all times 0.5-fold"
    assert DEVICE.scaled(1) is DEVICE
    for factor in (0, -1.0, float("nan"), float("inf"), "2"):
        with pytest.raises(ValueError, match=f"factor is {factor!r}, allowed is a finite number > 0"):
            DEVICE.scaled(factor)


def test_energy_needs_a_power():
    with pytest.raises(ValueError, match="power_w of device 'plain' is None, allowed is a power in watts"):
        PLAIN.energy_mj(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment_ms": (1.0, 2.0)}, "segment_ms has 2 values and head_ms 3, allowed are as many of both"),
        ({"segment_ms": (), "head_ms": ()}, "segment_ms has 0 values and head_ms 0"),
        ({"segment_ms": (1.0, -2.0, 3.0)}, r"segment_ms\[1\] is -2.0, allowed are finite milliseconds >= 0"),
        ({"segment_ms": (1.0, float("nan"), 3.0)}, r"segment_ms\[1\] is nan"),
        ({"head_ms": (1.0, 2.0, float("inf"))}, r"head_ms\[2\] is inf"),
        ({"head_ms": (1.0, 2.0, "3")}, r"head_ms\[2\] is '3'"),
        ({"head_ms": (True, 2.0, 3.0)}, r"head_ms\[0\] is True"),
        ({"head_ms": "123"}, "head_ms is '123', allowed are milliseconds"),
        ({"router_ms": None}, "router_ms is None"),
        ({"power_w": 0.0}, "power_w is 0.0, allowed is a finite number > 0, or None"),
        ({"whole_ms": -1.0}, "whole_ms is -1.0"),
        ({"segment_quartiles_ms": ((1.0, 2.0),)}, "segment_quartiles_ms is .*, allowed are 3 pairs, or none"),
        ({"head_quartiles_ms": ((2.0, 1.0),) * 3}, "head_quartiles_ms holds .*, allowed are a lower and an upper"),
        ({"router_quartiles_ms": (1.0, 2.0, 3.0)}, "router_quartiles_ms holds"),
        ({"batch": 0}, "batch is 0, allowed is a whole number, 1 or more"),
        ({"threads": 1.5}, "threads is 1.5, allowed is a whole number, 1 or more"),
        ({"repeats": -1}, "repeats is -1, allowed is a whole number, 0 or more"),
        ({"repeats": None}, "repeats is None"),
        ({"name": 3}, "name is 3, allowed is a text"),
        ({"work": replace(WORK, segment_macs=(1,), head_macs=(1,), payload_bytes=(1, 0), layers=(1,))}, "3 exits"),
    ],
)
def test_what_no_profile_may_hold(change, message):
    with pytest.raises(ValueError, match=message):
        replace(DEVICE, **change)


@pytest.mark.parametrize("device", [DEVICE, PLAIN, DEVICE.scaled(1 / 3), preset("jetson_nano", WORK)])
def test_a_file_comes_back_equal_and_is_readable(device, tmp_path):
    path = tmp_path / "device.json"
    path.write_text("an older file")
    device.save(path)
    assert DeviceProfile.load(path) == device
    assert [p.name for p in tmp_path.iterdir()] == ["device.json"]
    lines = path.read_text().splitlines()
    assert lines[1] == f'  "schema": "{SCHEMA}",'
    assert len(lines) == 2 + len(json.loads(path.read_text()))


def changed(**fields):
    content = {"schema": SCHEMA, **json.loads(json.dumps(DEVICE.__dict__ | {"work": WORK.__dict__}))}
    return json.dumps({k: v for k, v in (content | fields).items() if v != "left out"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed()[:-40], "cannot be read"),
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1, 2]", "schema is 'list', allowed is 'offramp-device-1'"),
        (changed(schema="offramp-cache-2"), "schema is 'offramp-cache-2', allowed is 'offramp-device-1'"),
        ('{"segment_ms": [1]}', "schema is None"),
        (changed(watts=3), r"differs in \['watts'\], allowed are exactly"),
        (changed(head_ms="left out"), r"differs in \['head_ms'\]"),
        (changed(head_ms=[1, 2]), "segment_ms has 3 values and head_ms 2"),
        (changed(router_ms=float("nan")), "router_ms is nan"),
        (changed(router_ms=10**400), "is not a device profile"),
        (changed(segment_ms={"0": 1.0}), "segment_ms is {'0': 1.0}"),
        (changed(work={"segment_macs": [1]}), "is not a device profile"),
        (changed(work=[1, 2]), "is not a device profile"),
        (changed(work={**WORK.__dict__, "segment_macs": ["x"] * 3}), "is not a device profile"),
    ],
)
def test_damaged_and_foreign_files_are_named(text, message, tmp_path):
    path = tmp_path / "device.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        DeviceProfile.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere.json", ".", "bytes.json"):
        with pytest.raises(ValueError, match="cannot be read"):
            DeviceProfile.load(tmp_path / name)


def test_a_profile_of_another_network_is_refused():
    DEVICE.check(cache(model="a1"))
    DEVICE.check(cache())  # a cache that does not say what its network is
    replace(DEVICE, network="").check(cache(model="b2"))
    replace(DEVICE, work=None).check(cache(model="a1", profile=None))
    with pytest.raises(ValueError, match="knows network a1, allowed is b2 as in the cache"):
        DEVICE.check(cache(model="b2"))
    with pytest.raises(ValueError, match="'plain' knows 1 exits, allowed are 3 as in the cache"):
        PLAIN.check(cache())
    larger = replace(WORK, segment_macs=(20, 28, 32))  # the same weights on larger images
    with pytest.raises(ValueError, match=r"segment_macs \(5, 7, 8\), allowed is \(20, 28, 32\)"):
        DEVICE.check(cache(model="a1", profile=larger))
    with pytest.raises(ValueError, match="router_macs 4, allowed is 0"):
        DEVICE.check(cache(profile=replace(WORK, router_macs=0)))


def test_presets_are_marked_and_scaled_by_multiply_accumulates(embedded):
    profile = embedded.profile
    for name, figure in PRESETS.items():
        device = preset(name, profile)
        device.check(embedded)
        assert (device.name, device.network, device.repeats, device.whole_ms) == (name, "", 0, None)
        assert device.power_w == figure.power_w
        assert device.source == figure.source
        for word in (f"{figure.ms:g} ms", f"{figure.macs / 1e6:.1f} million", "first guess", "depthwise", "fixed cost"):
            assert word in device.scaled_from
        assert device.edge_ms() == pytest.approx(figure.ms / figure.macs * profile.edge_macs("prefix"))
    with pytest.raises(ValueError, match="preset is 'abacus', allowed are"):
        preset("abacus", profile)


def test_the_raspberry_pi_passes_mobilenet_at_224_pixels_as_published():
    """Milliseconds after blocks 3, 6, 9, 12, 15 and at the end of the network that was timed."""
    shares = np.array([0.25, 0.38, 0.47, 0.62, 0.80, 1.0])
    macs = np.diff(shares, prepend=0.0) * 300.8e6
    whole = Profile(segment_macs=macs, head_macs=[0] * 6, payload_bytes=[9] * 6 + [0], layers=range(6))
    assert preset("raspberry_pi_4", whole).edge_ms()[1:] == pytest.approx([6.6, 10.0, 12.4, 16.4, 21.1, 26.4], abs=0.05)


def test_programs_name_devices(tmp_path):
    def device(*overrides):
        with initialize_config_module("offramp.conf", version_base="1.3"):
            return instantiate(compose(overrides=["+device=" + overrides[0], *overrides[1:]]).device)(cache(model="a1"))

    names = {path.stem for path in (Path(__file__).parents[2] / "conf" / "device").glob("*.yaml")}
    assert names == {*PRESETS, "file"}
    for name in PRESETS:
        assert device(name) == preset(name, WORK)
    slow = device("jetson_nano", "device.slower=2", "device.power_w=5")
    assert (slow.power_w, slow.total_ms) == (5.0, pytest.approx(2.0 * preset("jetson_nano", WORK).total_ms))
    DEVICE.save(tmp_path / "mine.json")
    assert device("file", f"device.file={tmp_path / 'mine.json'}") == DEVICE
    replace(DEVICE, network="b2").save(tmp_path / "other.json")
    with pytest.raises((ValueError, InstantiationException), match="knows network b2, allowed is a1"):
        device("file", f"device.file={tmp_path / 'other.json'}")


def test_a_device_needs_one_name_and_a_cache_that_says_what_it_asks_for(tmp_path):
    for both in ({}, {"name": "jetson_nano", "file": "x"}):
        with pytest.raises(ValueError, match="allowed is one of the two"):
            device_for(cache(), **both)
    with pytest.raises(ValueError, match="profile of the cache is None, allowed is a Profile"):
        device_for(cache(profile=None), name="jetson_nano")
