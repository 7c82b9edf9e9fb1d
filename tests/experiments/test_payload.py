"""The study `payload`: its averages by hand and against worlds in time, its picks, and what it writes."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given
from hypothesis import strategies as st

from offramp.bandits import Profile
from offramp.environments import CacheError, Condition, ConfidenceCache
from offramp.environments.devices import DeviceProfile
from offramp.environments.links import Energy
from offramp.environments.payloads import PayloadTable
from offramp.environments.temperature import spread_of
from offramp.environments.timed import rollout_timed
from offramp.experiments.payload import study, tables, wire
from offramp.experiments.payload.diagram import Exchange, Grid, Pair, along, charted, honest, picked, shares
from offramp.experiments.payload.online import Place, streams
from offramp.experiments.payload.pictures import inside
from offramp.experiments.payload.points import per_image, point_row
from offramp.experiments.payload.rules import KINDS, OFFERED, Clock, Rule, answers, means, rules_of, terms

FOLDER = Path(__file__).parents[2] / "experiments" / "payload"
EXITS, CLASSES, VALIDATION, TEST = 4, 5, 40, 80
CONDITIONS = (("clear", "pristine"), ("soft", "blur"), ("grainy", "noise"))
CODECS = (
    ("raw", 0),
    ("jpeg_50", 0),
    *((codec, cut) for cut in (1, 2, 3) for codec in ("float32", "uint8", "uint8_zlib")),
)
LADDER = (-math.inf, 0.4, 0.7, math.inf)
DEVICE = DeviceProfile(name="bench", segment_ms=(4.0, 3.0, 2.0, 1.0), head_ms=(0.5, 0.25, 0.25, 0.5))


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return (p / p.sum(axis=-1, keepdims=True)).max(axis=-1)


def made():
    """A cache whose deeper exits are better, and a table in which small payloads cost some accuracy."""
    rng = np.random.default_rng(4)
    n = VALIDATION + TEST
    label = rng.integers(0, CLASSES, n)
    skill = np.array([0.6, 1.2, 1.8, 2.4])[None, :, None] * np.array([1.0, 0.8, 0.6])[:, None, None, None]
    z = rng.normal(0.0, 1.0, (3, n, EXITS, CLASSES)) + 1.5 * skill * np.eye(CLASSES)[label][None, :, None]
    shared = {
        "conditions": [Condition(name, family) for name, family in CONDITIONS],
        "classes": CLASSES,
        "sample": np.concatenate([np.arange(VALIDATION), np.arange(TEST)]),
        "hashes": {"model": "ab" * 32},
    }
    split = np.repeat([0, 1], [VALIDATION, TEST])
    cache = ConfidenceCache.from_arrays(
        confidence=softmax(z),
        prediction=z.argmax(axis=-1),
        spread=spread_of(z),
        label=label,
        split=split,
        calibrations={"exit": [[1.5, 1.2, 1.1, 0.9]]},
        profile=Profile(
            segment_macs=(40, 30, 20, 10),
            head_macs=(1, 1, 1, 1),
            payload_bytes=(3000, 9000, 4000, 2000, 0),
            layers=(1, 2, 3, 4),
        ),
        notes={"network": "small"},
        **shared,
    )
    lossy = np.array([0.3 * (codec in ("jpeg_50",)) + 0.05 * ("uint8" in codec) for codec, _ in CODECS])
    shift = rng.normal(0.0, 1.0, (3, len(CODECS), n, CLASSES)) * lossy[:, None, None]
    behind = z[:, None, :, -1] + shift
    zipped = [codec.endswith("zlib") for codec, _ in CODECS]
    behind[:, zipped] = behind[:, [codec == "uint8" for codec, _ in CODECS]]
    base = np.array(
        [
            {"raw": 3000, "jpeg_50": 600}.get(c, (9000, 4000, 2000)[s - 1] // (1 if c == "float32" else 4))
            for c, s in CODECS
        ]
    )
    varies = np.array([c in ("jpeg_50", "uint8_zlib") for c, _ in CODECS])
    noise = rng.uniform(0.6, 1.0, (3, len(CODECS), n))
    noise[2] *= 1.4
    table = PayloadTable.from_arrays(
        codecs=[c for c, _ in CODECS],
        splits=[s for _, s in CODECS],
        bytes=np.where(varies[:, None], np.rint(base[:, None] * noise), base[:, None]),
        confidence=softmax(behind),
        prediction=behind.argmax(axis=-1),
        spread=spread_of(behind),
        split_of_data=split,
        encode_ms=[0.4 if c == "jpeg_50" else 0.1 * s for c, s in CODECS],
        decode_ms=[0.2 if c == "jpeg_50" else 0.05 * s for c, s in CODECS],
        **(shared | {"conditions": [name for name, _ in CONDITIONS]}),
    )
    return cache, table


@pytest.fixture(scope="module")
def place():
    cache, table = made()
    return Place(cache.part("test"), table, DEVICE, Exchange(2.0, 1.5))


@pytest.fixture(scope="module")
def pair():
    cache, table = made()
    rules, clock = rules_of(table, EXITS, LADDER), Clock.of(DEVICE, table)
    sides = (means(rules, cache.part(p), table.part(p), keep=True) for p in ("validation", "test"))
    return Pair(*(terms(side, clock, table, np.array([0.5, 0.0, 0.5])) for side in sides))


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("payload", overrides=list(overrides))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    cache, table = made()
    cache.save(folder / "small.safetensors")
    table.save(folder / "small.payloads.safetensors")
    DEVICE.save(folder / "bench.json")
    return [f"cache={folder / 'small.safetensors'}", f"machine={folder / 'bench.json'}", "shown=[clear,grainy]"]


# Averages.


def test_rules_are_all_that_a_world_in_time_offers_and_exits_backed_by_an_image(pair):
    kinds = [rule.kind for rule in pair.rules]
    assert len(set(pair.rules)) == len(pair.rules)
    assert {k: kinds.count(k) for k in KINDS} == {
        "edge alone": 4,
        "image sent": 2,
        "map sent": 9,
        "exit, else map": 18,
        "exit, else image": 12,
    }
    names = {rule.name for rule in pair.rules}
    assert len(names) == len(pair.rules)
    assert {"raw image", "JPEG 50", "exit 4 on the edge", "map 2, uint8 + zlib"} < names
    assert "exit 2, else map, float32 (from 0.7)" in names


def test_one_rule_image_by_image(pair):
    """Cut 2, answers from .7, else the zlib'd map: a third condition that never comes, clear and grainy half each."""
    cache, table = made()
    cache, table = cache.part("test"), table.part("test")
    rule = Rule(cut=2, threshold=0.7, codec="uint8_zlib", split=2)
    c, v = pair.rules.index(rule), table.variant(2, "uint8_zlib")
    latency, right, reward, energy = [], [], [], []
    radio = Energy(per_mbit_s_mw=400.0, base_mw=1200.0, tail_mj=3.0)
    for s in (0, 2):
        for n in range(TEST):
            edge_ms = 7.0 * (4.0 + 3.0 + 0.5 + 0.25)
            local = cache.confidence[s, 0, n, 1] >= 0.7
            ms, mj, sure, guess = edge_ms, 5.0 * edge_ms, cache.confidence[s, 0, n, 1], cache.prediction[s, 0, n, 1]
            if not local:
                size = float(table.bytes[s, v, n])
                sending = 8.0 * size / (0.8 * 1e3)
                ms += 7.0 * 0.2 + sending + 10.0 + 0.1 + (2.0 + 1.0 + 0.5)
                mj += 5.0 * 7.0 * 0.2 + radio.transmit_mj(sending, size)
                sure, guess = table.confidence[s, v, n], table.prediction[s, v, n]
            latency.append(ms)
            energy.append(mj)
            right.append(guess == cache.label[n])
            reward.append(sure - 1.5 * 2.0 * ms / 1e3)
    values = pair.test.latency(7.0, 0.8, 10.0)
    assert values[c] == pytest.approx(np.mean(latency), rel=1e-12)
    assert pair.test.accuracy[c] == pytest.approx(np.mean(right), rel=1e-12)
    assert Exchange(2.0, 1.5).reward(pair.test, values)[c] == pytest.approx(np.mean(reward), rel=1e-12)
    assert pair.test.energy(7.0, 0.8, radio, 5.0)[c] == pytest.approx(np.mean(energy), rel=1e-12)
    clock = Clock.of(DEVICE, table)
    at = {"factor": 7.0, "mbit_s": 0.8, "round_trip_ms": 10.0}
    images = per_image(rule, cache, table, clock, **at, weights=pair.test.weights)
    assert images == pytest.approx(np.array(latency).reshape(2, TEST).mean(axis=0))


@pytest.mark.parametrize(
    "rule",
    [
        Rule(cut=0, threshold=math.inf, codec="jpeg_50"),
        Rule(cut=4, threshold=-math.inf),
        Rule(cut=2, threshold=-math.inf),
        Rule(cut=3, threshold=math.inf, codec="float32", split=3),
        Rule(cut=1, threshold=0.4, codec="uint8", split=1),
        Rule(cut=2, threshold=0.7, codec="uint8_zlib", split=2),
    ],
    ids=lambda rule: rule.name,
)
def test_the_averages_are_what_a_world_in_time_plays(place, rule):
    """Every test image once over a constant link: latency, reward, accuracy and bytes to within 1e-9."""
    table = place.table.part("test")
    found = terms(means([rule], place.cache, table), Clock.of(DEVICE, place.table), table, np.eye(3)[0])
    for factor, rate, trip in ((1.0, 30.0, 10.0), (40.0, 0.2, 100.0)):
        policy, world = place.fixed(rule, factor=factor, mbit_s=rate, round_trip_ms=trip)
        journal, _ = rollout_timed(policy, world, streams(place.cache)["clear"], horizon=TEST, seed=3)
        latency = found.latency(factor, rate, trip)
        assert journal["waited_ms"].max() == 0.0
        assert journal.mean("latency_ms") == pytest.approx(latency[0], rel=1e-9)
        assert journal.mean("reward") == pytest.approx(place.worth.reward(found, latency)[0], rel=1e-9)
        assert journal.mean("correct") == pytest.approx(found.accuracy[0], rel=1e-9)
        assert journal.mean("bytes") == pytest.approx(found.bytes[0], rel=1e-9)
        assert journal.mean("offloaded") == pytest.approx(found.sent[0], rel=1e-9)


# Picks.


def test_validation_picks_and_test_reports(pair):
    grid = Grid.of({"least": 1.0, "most": 300.0, "count": 7}, {"least": 0.1, "most": 200.0, "count": 9})
    factor, rate = grid.cells
    chosen = pair.fastest(factor, rate, 10.0, 0.01)
    values, enough = pair.validation.latency(factor, rate, 10.0), pair.validation.accurate(0.01)
    for k, r in ((0, 0), (3, 4), (6, 8), (6, 0)):
        best = min((values[k, r, c], c) for c, rule in enumerate(pair.rules) if enough[c] and rule.kind in OFFERED)
        assert chosen[k, r] == best[1]
    assert all(
        pair.validation.accuracy[c] >= pair.validation.weights @ pair.validation.means.whole - 0.01 for c in chosen.flat
    )
    found = shares(chosen, pair.rules)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["exit, else image"] == 0.0
    told = charted(chosen, pair.rules)
    assert told["areas"][told["cells"][6][8]] == pair.rules[chosen[6, 8]].area
    line = along(chosen[3], pair.rules, grid.rates)
    assert line[0]["from"] == grid.rates[0]
    assert line[-1]["to"] == grid.rates[-1]
    assert all(a["area"] != b["area"] for a, b in pairwise(line))
    same = Pair(pair.test, pair.test)
    kept = honest(same, grid, 10.0, 0.01)
    assert (kept["kept"], kept["same"], kept["ratio"]) == (1.0, 1.0, 1.0)


@given(st.floats(1.0, 300.0), st.floats(0.1, 200.0), st.floats(0.0, 300.0), st.floats(1.0, 10.0))
def test_what_is_picked_is_never_slower_on_a_faster_link_or_edge(pair, factor, rate, trip, more):
    def least(*at):
        return pair.validation.latency(*at)[pair.fastest(*at, 0.01)]

    slow = least(factor, rate, trip)
    assert least(factor, rate * more, trip) <= slow * (1 + 1e-12)
    assert least(factor / more, rate, trip) <= slow * (1 + 1e-12)
    with_images = pair.validation.latency(factor, rate, trip)[pair.fastest(factor, rate, trip, 0.01, KINDS)]
    assert with_images <= slow


def test_a_rule_may_have_to_be_sure(pair):
    """Who asks for a bound picks among fewer rules; those that change no answer are always sure."""
    validation = pair.validation
    doubt = validation.means.doubt(validation.weights)
    cache, table = made()
    cache, table = cache.part("validation"), table.part("validation")
    rule = Rule(cut=1, threshold=0.4, codec="uint8", split=1)
    right = answers(rule, cache, table)[2].astype(float)
    loss = 0.5 * ((cache.prediction[:, 0, :, -1] == cache.label) - right)[[0, 2]].sum(axis=0)
    assert doubt[pair.rules.index(rule)] == pytest.approx(loss.std(ddof=1) / math.sqrt(VALIDATION))
    mean, bound = validation.accurate(0.05), validation.accurate(0.05, 1.645)
    assert (mean | ~bound).all()
    assert mean.sum() > bound.sum()
    assert bound[pair.rules.index(Rule(cut=EXITS, threshold=-math.inf))]
    with pytest.raises(ValueError, match="lost is None"):
        means([rule], cache, table).doubt(validation.weights)


def test_ties_go_to_the_first_and_what_is_not_allowed_is_never_picked():
    values = np.array([[3.0, 1.0, 1.0, 0.0]])
    assert picked(np.array([True, True, True, False]), lambda some: values[:, some]).tolist() == [1]
    assert picked(np.array([False, False, True, True]), lambda some: values[:, some] + 5.0).tolist() == [3]


def test_a_label_lies_inside_its_region():
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:7, 1:8] = True
    assert inside(mask) == (4, 4, 3)


def test_a_point_names_the_best_of_each_kind(pair):
    cache, table = made()
    at = {"factor": 20.0, "mbit_s": 2.0, "round_trip_ms": 10.0}
    row = point_row(
        pair,
        cache.part("test"),
        table.part("test"),
        Clock.of(DEVICE, table),
        slack=0.01,
        worth=Exchange(1.0, 1.0),
        **at,
    )
    offered = {k: v["latency_ms"] for k, v in row["kinds"].items() if k in OFFERED}
    assert row["fastest"]["latency_ms"] in offered.values()
    assert row["fastest"]["latency_half"] >= 0.0
    assert row["whole_ms"] == pytest.approx(20.0 * DEVICE.edge_ms()[-1])


# The wire.


def test_the_wire_by_hand():
    cache, table = made()
    cache, table = cache.part("test"), table.part("test")
    rows = {(r["split"], r["codec"], r["family"]): r for r in wire.wire_rows(cache, table)}
    v = table.variant(0, "jpeg_50")
    one = rows[0, "jpeg_50", "noise"]
    assert one["bytes"] == table.bytes[2, v].mean()
    right = table.prediction[2, v] == cache.label
    change = right.astype(float) - (cache.prediction[2, 0, :, -1] == cache.label)
    assert one["accuracy"] == right.mean()
    assert one["accuracy_change"] == pytest.approx(change.mean())
    assert one["accuracy_change_half"] == pytest.approx(1.96 * change.std(ddof=1) / math.sqrt(TEST))
    assert rows[1, "float32", "all"]["accuracy_change"] == rows[1, "float32", "all"]["confidence_change"] == 0.0
    assert rows[0, "raw", "all"]["bytes"] == 3000.0
    found = {(r["split"], r["family"]): r for r in wire.deflated(list(rows.values()), [1.0, 10.0])}
    plain, small = (rows[2, codec, "blur"]["bytes"] for codec in ("uint8", "uint8_zlib"))
    assert found[2, "blur"]["share"] == pytest.approx(1.0 - small / plain)
    assert found[2, "blur"]["rates"] == [math.inf, math.inf]  # no time was said to be lost
    slower = [r | {"decode_ms": r["decode_ms"] + 0.5} if r["codec"] == "uint8_zlib" else r for r in rows.values()]
    found = {(r["split"], r["family"]): r for r in wire.deflated(slower, [1.0])}
    assert found[2, "blur"]["rates"][0] == pytest.approx((plain - small) / 0.5 / 125.0)


# The command.


def test_the_command_from_end_to_end(files, tmp_path):
    cfg = config(*files, "quick=true")
    (tmp_path / "README.md").write_text("a\n<!-- small summary -->\nold\n<!-- end -->\n", encoding="utf-8")
    study.run(cfg, tmp_path)
    path = tmp_path / "result.json"
    found = json.loads(path.read_text(encoding="utf-8"))["small"]
    assert len(found["online"]) == 2
    assert {r["stream"] for r in found["online"]} == {"clear", "all in turn"}
    assert found["images"] == {"test": TEST, "validation": VALIDATION}
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "old" not in text
    assert tables.fill(text, {"small": found}) == text
    drawn = "accuracy_bytes bytes online phase_energy phase_latency phase_latency_picked_on_validation phase_reward"
    assert sorted(p.name.split(".")[1] for p in tmp_path.glob("*.svg")) == drawn.split()
    assert not list(tmp_path.glob("*.partial"))
    # A second run takes what was played from the first, and a run of other sources does not.
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["small"]["online"][0]["seeds"] = 77
    path.write_text(json.dumps(kept), encoding="utf-8")
    study.run(cfg, tmp_path)
    again = json.loads(path.read_text(encoding="utf-8"))["small"]
    assert again["online"][0]["seeds"] == 77
    found["online"][0]["seeds"] = 77
    assert again == found


def test_the_readme_is_current():
    kept = json.loads((FOLDER / "result.json").read_text(encoding="utf-8"))
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert tables.fill(text, kept) == text
    for name, found in kept.items():
        assert f"<!-- {name} summary -->" in text
        if found["images"]["test"] == found["online"][0]["horizon"] / found["config"]["online"]["passes"]:
            for r in found["online"]:
                if r["stream"] != "all in turn":  # whole passes: the winner as played is the winner as averaged
                    assert r["run"]["reward"]["winner"]["mean"] == pytest.approx(r["expected"]["reward"], abs=2e-6)
                    assert r["run"]["latency_ms"]["winner"]["mean"] == pytest.approx(
                        r["expected"]["latency_ms"], rel=1e-5
                    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rates.least=0", "rates is .*allowed is 0 < least < most"),
        ("edges.count=1", "edges is"),
        ("round_trips=[]", "round_trips are"),
        ("online.round_trip=11", "online.round_trip is 11"),
        ("thresholds=[0.5]", "thresholds are"),
        ("slack=1.5", "slack is"),
        ("online.seeds=1", "online.seeds is 1"),
        ("power_w=0", "power_w is 0"),
    ],
)
def test_what_is_refused(override, message):
    with pytest.raises(ValueError, match=message):
        study.check(config(override))


def test_what_does_not_belong_together_is_refused(files, tmp_path):
    with pytest.raises(CacheError, match="condition 'fog'"):
        study.opened(config(*files, "shown=[fog]"))
    with pytest.raises(CacheError, match="calibration is 'global'"):
        study.opened(config(*files, "calibration=global"))
    other = replace(DEVICE, network="cd" * 32)
    other.save(tmp_path / "other.json")
    with pytest.raises(ValueError, match="knows network"):
        study.opened(config(*files, f"machine={tmp_path / 'other.json'}"))
