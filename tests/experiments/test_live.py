"""Live and simulated: the cost model on the simulator's own journal, sums by hand, the command from end to end."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.environments.devices import DeviceProfile
from offramp.environments.links import capacity, round_trip_at
from offramp.environments.payloads import PayloadTable
from offramp.environments.timed import rollout_timed
from offramp.environments.timed.tables import BYTES, DECODE_MS, ENCODE_MJ, ENCODE_MS, FIELDS
from offramp.experiments import live
from offramp.experiments.link_change.cases import prepared
from offramp.experiments.live import machine, model, pair, photographs, scene, sums, tables
from offramp.models.codecs import standard_codecs
from offramp.models.distort import Distortion
from offramp.models.halves import EdgeNetwork
from offramp.models.network import ExitHead, MultiExitNetwork

NAME = "mobilenet_v2_imagenette"
FORTY = Path(__file__).parents[1] / "data" / "imagenette_val_40"
CONDITIONS = ("pristine", "blur 1.0", "noise 20")


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("live", overrides=list(overrides))


@pytest.fixture(scope="module")
def cache():
    made, table = prepared(ConfidenceCache.embedded(NAME), PayloadTable.embedded(NAME), "exit")
    return made, table


@pytest.fixture(scope="module")
def played(cache):
    """A scene, its world and its facts."""
    here = scene.Scene(
        cache=cache[0],
        payloads=cache[1],
        device=DeviceProfile.embedded(NAME).scaled(1.5),
        slower=6.0,
        trace="4g/car_0002",
        scale=0.2,
        every_ms=100.0,
        conditions=CONDITIONS,
        segment=50,
        image_price=0.2,
        power_w=4.0,
        deadline_ms=500.0,
    )
    world = here.world()
    return here, world, world.facts(here.stream.conditions)


# What is played.


def test_the_hour_is_squeezed_and_the_link_with_it(played):
    here, world, facts = played
    squeezed, recorded = here.link, scene.LinkTrace.embedded(here.trace, scale=here.scale)
    assert here.squeeze == 10.0
    assert squeezed.length_ms == pytest.approx(recorded.length_ms / 10.0)
    assert [s[1:] for s in squeezed.segments] == [s[1:] for s in recorded.segments]
    assert squeezed.mean_mbit_s == pytest.approx(recorded.mean_mbit_s)
    assert facts.probe_ms[0] == 100.0
    assert world.arrivals.times(3, 0).tolist() == [0.0, 100.0, 200.0]
    a, b = squeezed.arrays(duration_ms=1.0, seed=0), recorded.arrays(duration_ms=1.0, seed=0)
    assert 10.0 * capacity(a, 1_000.0, 7_000.0) == pytest.approx(capacity(b, 10_000.0, 70_000.0))
    assert round_trip_at(a, 123.0) == 20.0


def test_the_device_carries_the_rate_and_a_whole_image_has_the_price_that_was_asked_for(played):
    here, world, _ = played
    assert here.load() < 1.0
    assert world.prices.weights.second * world.prices.edge.total_ms / 1e3 == pytest.approx(here.image_price)
    assert world.coding == here.slower


def test_what_a_figure_shows_of_the_link_is_the_link():
    link = scene.LinkTrace(segments=((10.0, 4.0, 20.0), (30.0, 2.0, 20.0)), scale=0.5)
    ends, rate = scene.rates(link, 100.0)
    assert ends.tolist() == [10.0, 40.0, 50.0, 80.0, 90.0, 120.0]
    assert rate.tolist() == [2.0, 1.0] * 3


def test_who_plays_is_refused_by_name():
    with pytest.raises(ValueError, match=r"policies name \['best'\], allowed are"):
        scene.policies(7, ["best"])


# The cost model.


@pytest.mark.parametrize("key", ["split", "input"])
def test_on_the_simulators_own_decisions_the_cost_model_gives_the_simulators_own_milliseconds(played, key):
    here, world, facts = played
    policy = scene.policies(7, [key])[key]
    journal, _ = rollout_timed(policy, world, here.stream, horizon=600, seed=0, facts=facts)
    rounds = world.rounds(here.stream, horizon=600, seed=0)
    link = world.link.arrays(duration_ms=float(rounds.arrival[-1]) + 60_000.0, seed=0)
    columns = {name: journal[name] for name in FIELDS}
    found, kind = model.modelled(facts, link, rounds.arrival, columns), model.kinds(columns)
    answered = kind != model.FALLBACK
    assert answered.sum() > 500
    for name in ("latency_ms", "waited_ms", "edge_ms", "sending_ms"):
        assert np.abs(found[name] - journal[name])[answered].max() < 1e-6, name
    assert set(kind) >= ({model.EDGE, model.CLOUD} if key == "split" else {model.CLOUD})


def test_a_request_that_waits_begins_when_the_one_before_it_has_left_the_edge(played):
    _, world, facts = played
    link = world.link.arrays(duration_ms=1e5, seed=0)
    n, edge = 3, float(facts.edge[0, 7])
    columns = {name: np.zeros(n) for name in FIELDS} | {"cut": np.full(n, 7.0), "answered_at": np.full(n, 7.0)}
    found = model.modelled(facts, link, np.array([0.0, 1.0, 1_000.0]), columns)
    assert found["waited_ms"] == pytest.approx([0.0, edge - 1.0, 0.0])
    assert found["latency_ms"] == pytest.approx([edge, 2.0 * edge - 1.0, edge])


def test_what_the_model_cannot_know_has_no_latency_and_what_was_dropped_takes_no_time(played):
    _, world, facts = played
    link = world.link.arrays(duration_ms=1e5, seed=0)
    columns = {name: np.zeros(3) for name in FIELDS}
    columns |= {"outage": np.array([1.0, 1.0, 0.0]), "bytes": np.array([900.0, 0.0, 0.0])}
    columns |= {"cut": np.array([2.0, 0.0, 0.0]), "dropped": np.array([0.0, 0.0, 1.0])}
    found = model.modelled(facts, link, np.array([0.0, 1_000.0, 2_000.0]), columns)
    assert np.isnan(found["latency_ms"]).tolist() == [True, False, True]
    assert found["latency_ms"][1] == pytest.approx(facts.edge[0, 1])  # nothing was evaluated: exit 1 stands in


# The photographs.


def test_photographs_that_are_missing_are_asked_for_in_one_line(tmp_path, cache):
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="allowed is a folder with the images of the cache") as refused:
            photographs.photographs(folder, cache[0])
        assert "\n" not in str(refused.value)
    (tmp_path / "cat.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds \['cat\.png'\], allowed are images named by their number"):
        photographs.photographs(tmp_path, cache[0])
    (tmp_path / "cat.png").rename(tmp_path / "999999.png")
    with pytest.raises(ValueError, match=r"holds images \[999999\], allowed are numbers of the cache"):
        photographs.photographs(tmp_path, cache[0])


def test_each_request_has_its_image_under_its_condition(cache):
    images = photographs.photographs(FORTY, cache[0])
    assert len(images.index) == 40
    small = cache[0].select(np.isin(cache[0].sample, images.index))
    assert np.array_equal(images.labels, small.label)
    named = [small.conditions[small.condition(name)] for name in CONDITIONS]
    sample, condition = np.array([0, 7, 7, 7, 0]), np.array([0, 0, 2, 1, 0])
    made = photographs.distorted(images, named, small, sample, condition)
    assert np.array_equal(made[0], np.asarray(Image.open(FORTY / "0000.webp").convert("RGB")))
    assert made[4] is made[0]
    noise = Distortion(name="noise 20", corruption="gaussian_noise", parameters={"sigma": 20}, seed=9001)
    assert np.array_equal(made[2], noise(images.images[7:8], images.index[7:8])[0])


# The machine.


def test_an_edges_half_is_timed_after_a_rest_as_the_edge_calls_it():
    segments = [torch.nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=2, padding=1) for i in range(3)]
    network = MultiExitNetwork(segments, [ExitHead(4, 10) for _ in segments], (3, 32, 32))
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    own = machine.through_the_half(EdgeNetwork(network, standard_codecs()), network, images, rest_ms=1.0, repeats=4)
    assert own.segments.shape == own.heads.shape == (4, 3)
    assert own.whole == pytest.approx(own.segments.sum(1) + own.heads[:, -1])
    assert (own.segments > 0.0).all()
    profile = machine.mean_profile(own, "here")
    assert profile.segment_ms == pytest.approx(own.segments.mean(0), abs=1e-6)
    assert profile.source.startswith("measured on")
    assert profile.source.endswith("means of 4 repeats, 0.001 s of rest before each pass")


def test_times_through_the_server_replace_those_of_the_parts(played):
    _, world, facts = played
    variants = world.variants
    coding, away = np.arange(1.0, 1.0 + len(variants)), np.full(len(variants), 30.0)
    found = machine.calibrated(facts, variants, coding, away, 6.0)
    assert np.array_equal(found.expected[ENCODE_MS], 6.0 * coding)
    assert np.array_equal(found.expected[ENCODE_MJ], 24.0 * coding)  # 4 watts
    for split in range(7):
        here = [v for v, (at, _) in enumerate(variants) if at == split]
        assert found.cloud[split] + found.expected[DECODE_MS, here].mean() == pytest.approx(30.0)
    assert found.cloud[7] == 0.0
    assert np.array_equal(found.expected[BYTES], facts.expected[BYTES])
    heads = machine.with_heads(found, "http://127.0.0.1:8080")
    more = heads.expected[BYTES] - found.expected[BYTES]
    assert (more == more[0]).all()
    assert 100.0 < more[0] < 300.0
    assert (heads.sent_bytes - found.sent_bytes == more[0]).all()


# The sums.


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(48, 300), elements=st.floats(1.0, 1e3)), st.floats(0.5, 2.0))
def test_a_run_that_is_slower_by_a_factor_has_that_ratio_without_scatter(ms, factor):
    found = sums.ratio(factor * ms, ms)
    assert found["mean"] == pytest.approx(factor)
    assert found["half"] == pytest.approx(0.0, abs=1e-9)
    assert found["n"] == len(ms)


def run_of(**columns):
    n = len(next(iter(columns.values())))
    return {name: np.array(columns.get(name, np.zeros(n)), dtype=float) for name in sums.KEPT}


def test_the_claim_holds_up_to_fifteen_percent_and_no_further():
    live_ = run_of(latency_ms=np.full(48, 100.0))
    for ms, holds in ((115.0, True), (115.1, False), (85.0, True), (84.9, False)):
        assert sums.verdict(live_, run_of(latency_ms=np.full(48, ms)))["holds"] is holds


def test_metrics_stand_side_by_side_with_their_difference():
    live_ = run_of(latency_ms=np.arange(48.0), correct=np.ones(48), edge_cost=np.full(48, 0.1))
    other = run_of(latency_ms=np.arange(48.0) + 3.0, correct=np.ones(48), edge_cost=np.full(48, 0.3))
    rows = {row["title"]: row for row in sums.against(live_, other)}
    assert rows["mean latency, ms"]["difference"]["mean"] == pytest.approx(3.0)
    assert rows["mean latency, ms"]["difference"]["half"] == pytest.approx(0.0, abs=1e-12)
    assert rows["accuracy, %"]["live"] == 100.0
    assert rows["cost"]["difference"]["mean"] == pytest.approx(0.2)


def test_paths_part_where_the_cuts_first_differ():
    live_ = run_of(cut=[1, 2, 3, 3], answered_at=[1, 2, 3, 3], confidence=[0.5, 0.6, 0.7, 0.8], correct=[1, 1, 0, 1])
    other = run_of(cut=[1, 2, 4, 3], answered_at=[1, 2, 3, 1], confidence=[0.5, 0.7, 0.7, 0.8], correct=[1, 0, 0, 1])
    found = sums.apart(live_, other)
    assert (found["cut"], found["answered_at"], found["first"], found["alike"]) == (0.75, 0.75, 2, 2)
    assert found["confidence_median"] == pytest.approx(0.05)
    assert found["same_answer"] == 0.5
    assert sums.apart(live_, live_)["first"] is None


def death(deliveries, offloaded, served):
    n = len(deliveries)
    outage = [1.0 if not o else 0.0 for o in offloaded]
    run = run_of(latency_ms=np.full(n, 30.0), offloaded=offloaded, outage=outage, correct=np.ones(n))
    return {
        "run": {name: values.tolist() for name, values in run.items()},
        "start_ms": [s - 30.0 for s in served],
        "served_ms": served,
        "deliveries": deliveries,
        "killed_ms": 1_000.0,
        "started_ms": 1_500.0,
        "back_ms": 2_000.0,
    }


def test_recovery_counts_from_the_clouds_return_and_every_request_is_answered_once():
    served = [500.0, 1_500.0, 2_500.0, 4_000.0]
    found = sums.recovery(death([1, 1, 1, 1], [1.0, 0.0, 0.0, 1.0], served))
    assert (found["unanswered"], found["twice"], found["fallbacks"], found["seconds"]) == (0, 0, 2, 2.0)
    assert found["holds"] is True
    found = sums.recovery(death([1, 0, 2, 1], [1.0, 0.0, 0.0, 1.0], served))
    assert (found["unanswered"], found["twice"], found["holds"]) == (1, 1, False)
    late = sums.recovery(death([1, 1, 1, 1], [1.0, 0.0, 0.0, 1.0], [500.0, 1_500.0, 2_500.0, 7_100.0]))
    assert (late["seconds"], late["holds"]) == (5.1, False)
    never = sums.recovery(death([1, 1], [1.0, 0.0], [500.0, 1_500.0]))
    assert np.isnan(never["seconds"])
    assert never["holds"] is False


def test_phases_are_told_apart_by_when_a_request_began():
    rows = sums.phases(death([1] * 4, [1.0, 0.0, 0.0, 1.0], [500.0, 1_500.0, 2_500.0, 4_000.0]))
    assert [(row["phase"], row["n"], row["cloud"], row["fallback"]) for row in rows] == [
        ("before", 1, 1, 0), ("gone", 1, 0, 1), ("after", 2, 1, 1),
    ]  # fmt: skip


def test_what_is_not_known_is_null_in_the_record_and_nan_outside_it():
    kept = pair.rounded(np.array([1.25, np.nan, 3.0]), 1)
    assert kept == [1.2, None, 3.0]
    assert json.dumps(kept) == "[1.2, null, 3.0]"
    assert pair.rounded(np.array([2.0, np.nan]), 0) == [2, None]
    assert np.isnan(sums.columns_of({"x": kept})["x"]).tolist() == [False, True, False]
    assert sums.blocks(np.array([1.0, np.nan, np.nan, np.nan]), 2)[0] == 1.0
    assert tables.known(None) == tables.known(float("nan")) == "–"


# The configuration and the command.


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("slower=0.5", "slower is 0.5, allowed is a finite factor >= 1"),
        ("every_ms=2000", "every_ms is 2000, allowed is at most 1,000"),
        ("trace=4g/rocket", "trace is '4g/rocket', allowed is one of"),
        ("policies=[all]", "policies is ..all.., allowed is a list of some of"),
        ("requests=3", "requests is 3, allowed is a whole number, 24 or more"),
        ("kill.for_s=500", "allowed is less than the 80.0 s"),
    ],
)
def test_what_no_run_can_mean_is_refused(override, told):
    with pytest.raises(ValueError, match=told):
        live.check(config(override))


SMALL = [
    f"photographs={FORTY}", "requests=30", "segment=6", "repeats=2", "orders=2", "policies=[split]", "every_ms=50",
    "slower=2", "kill={policies:[input],requests:60,at_s:0.5,for_s:0.5}",
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command with forty photographs, a real cloud that is killed, and a real edge."""
    folder = tmp_path_factory.mktemp("live")
    live.run(config(*SMALL), folder)
    return folder, json.loads((folder / "result.json").read_text(encoding="utf-8"))[NAME]


@pytest.mark.long
def test_every_request_is_answered_once_and_what_the_cloud_did_not_answer_is_marked(written):
    _, found = written
    run, kill = found["runs"]["split"]["live"], found["kills"]["input"]
    assert run["deliveries"] == [1] * 30
    assert kill["deliveries"] == [1] * 60
    for one in (run, kill):
        columns = sums.columns_of(one["run"])
        marked = np.array([why not in ("local", "cloud") for why in one["why"]])
        assert np.array_equal(model.kinds(columns) == model.FALLBACK, marked)
        assert (columns["latency_ms"] > 0.0).all()
    assert sums.recovery(kill)["fallbacks"] > 0
    assert kill["killed_ms"] < kill["started_ms"] < kill["back_ms"]


@pytest.mark.long
def test_live_and_simulated_say_the_same_of_an_image_wherever_they_do_the_same(written):
    _, found = written
    run = found["runs"]["split"]
    one = sums.apart(sums.columns_of(run["live"]["run"]), sums.columns_of(run["simulated"]["run"]))
    assert one["alike"] >= 20
    assert one["confidence_median"] < 5e-3
    assert one["same_answer"] > 0.9


@pytest.mark.long
def test_the_page_is_written_from_the_record_alone_and_a_second_call_plays_nothing(written):
    folder, found = written
    page = (folder / "README.md").read_text(encoding="utf-8")
    for section in tables.sections(found):
        assert f"<!-- {NAME} {section} -->" in page
    for figure in ("scatter", "time", "answers", "kill"):
        assert (folder / f"{figure}_{NAME}.svg").read_text(encoding="utf-8").startswith("<svg")
    live.run(config(*SMALL, "photographs=null"), folder)  # it has nothing to play with
    assert (folder / "README.md").read_text(encoding="utf-8") == page
    assert not list(folder.glob("*.partial"))


@pytest.mark.long
def test_the_profile_that_priced_the_run_is_in_the_record(written):
    _, found = written
    kept = found["runs"]["split"]["machine"]["profile"]
    assert kept.keys() == asdict(DeviceProfile.embedded(NAME)).keys()
    assert kept["network"] == DeviceProfile.embedded(NAME).network
