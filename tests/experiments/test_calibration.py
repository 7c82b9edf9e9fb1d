"""The study `calibration` on the committed cache: what it claims, what it misses, and what it writes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.environments.cache import CacheError
from offramp.environments.reliability import auroc, ece
from offramp.experiments.calibration import drift, fitting, guarantees, honesty, offload, study, tables
from offramp.experiments.calibration.record import unpacked
from offramp.experiments.calibration.samples import (
    PRISTINE,
    ROUTED,
    answering,
    matched,
    mixed,
    oracle,
    view,
)
from offramp.experiments.calibration.study import SETS

NAME = "mobilenet_v2_cifar10"
MISSED = {("blur", 5)}  # the one exit at which a temperature does not do
FOLDER = Path(__file__).parents[2] / "experiments" / "calibration"


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("calibration", overrides=list(overrides))


@pytest.fixture(scope="module")
def caches(embedded):
    test = embedded.part("test")
    return {name: test.calibrated(name) for name in ("raw", "expert_exit")}


@pytest.fixture(scope="module")
def last(caches):
    return caches["expert_exit"]


@pytest.fixture(scope="module")
def stream():
    return instantiate(config().stream, _convert_="all")


@pytest.fixture(scope="module")
def table():
    return fitting.table_beside(NAME)


def errors(cache):
    """Calibration error of every exit of every expert on all matched answers, (E, L)."""
    return np.array([ece(*(x.reshape(-1, x.shape[2]) for x in honesty.everything(cache, e))) for e in range(4)])


# Who is asked what


def test_matched_samples_are_half_pristine_and_spread_over_the_family(last):
    for e, expert in enumerate(last.experts):
        at = matched(last, e)
        counts = {last.conditions[s].name: int((at == s).sum()) for s in set(at.tolist())}
        assert counts.pop("pristine") == (10_000 if expert == "pristine" else 5_000)
        levels = [c.name for c in last.conditions if c.family == expert != "pristine"]
        assert sorted(counts) == sorted(levels)
        assert not counts or max(counts.values()) - min(counts.values()) <= 1
        confidence, right = honesty.everything(last, e)
        assert confidence.shape == right.shape == (2 * len(levels) or 1, 10_000, 7)


def test_routing(last):
    at = mixed(last, ["pristine", "blur 2.0", "jpeg 10", "noise 40"])
    assert oracle(last, at)[:4].tolist() == [0, 1, 0, 2]
    assert (answering(last, at, PRISTINE) == 0).all()
    chosen = answering(last, at, ROUTED)
    assert (chosen[3::4] == 2).mean() > 0.95
    found = view(last, at, chosen)
    assert found.confidence[3].tolist() == last.confidence[at[3], chosen[3], 3].tolist()


# Calibration errors on matched conditions


def test_temperatures_keep_the_error_below_three_hundredths_but_at_one_exit(caches, last):
    """Milestone: at most .03.  One exit of 28 misses it by less than .005; every one is better than without."""
    found = errors(last)
    above = {(last.experts[e], i + 1) for e, i in np.argwhere(found > tables.LIMIT)}
    assert above == MISSED
    assert found.max() < tables.LIMIT + 0.005
    raw = errors(caches["raw"])
    assert (raw > tables.LIMIT).sum() > 10
    assert (found < raw + 1e-3).all()


def test_a_slope_and_a_bias_fitted_on_validation_samples_keep_it_everywhere(embedded, last):
    validation = embedded.part("validation").calibrated("expert_exit")
    for e in range(4):
        c, right = honesty.everything(last, e)
        mapped = honesty.LogOdds.fitted(*honesty.everything(validation, e))(c)
        flat, hits = mapped.reshape(-1, 7), right.reshape(-1, 7)
        assert (ece(flat, hits) < tables.LIMIT).all()


def test_why_one_temperature_does_not_do(last):
    """The blur expert is too sure of pristine images and not sure enough of strongly blurred ones."""
    gaps = {r["condition"]: r["gap"] for r in honesty.signs_rows(last, 1, 5)}
    assert gaps["pristine"] > 0.01
    assert max(gaps["blur 1.0"], gaps["blur 1.5"], gaps["blur 2.0"]) < -0.03


def test_rows_agree_with_the_definitions(caches, embedded):
    validation = embedded.part("validation").calibrated("expert_exit")
    small = {name: cache.select(np.arange(600)) for name, cache in caches.items()}
    rows = honesty.matched_rows(small, validation, draws=20)
    assert len(rows) == 4 * 3 * 7
    for row in rows:
        if row["calibration"] == honesty.MAPPED or row["exit"] not in (1, 7):
            continue
        c, right = honesty.everything(small[row["calibration"]], small["raw"].experts.index(row["expert"]))
        c, right = (x[..., row["exit"] - 1].ravel() for x in (c, right))
        assert row["ece"] == pytest.approx(float(ece(c, right)), abs=1e-12)
        assert row["auroc"] == pytest.approx(float(auroc(c, right)), abs=1e-12)
        assert 0.0 < row["half"] < 0.1
        assert 0.0 < row["floor"] < 0.1


def test_the_sums_by_image_give_the_error(last):
    c, right = (x[:, :500] for x in honesty.everything(last, 2))
    by_image = honesty._gaps(c, right)
    again = np.abs(by_image.mean(axis=0)).sum(axis=0)
    assert np.allclose(again, ece(c.reshape(-1, 7), right.reshape(-1, 7)), atol=1e-12)


def test_log_odds_find_what_was_bent():
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.05, 0.95, (40_000, 2))
    right = rng.random(honest.shape) < honest
    odds = np.log(honest / (1 - honest))
    bent = 1 / (1 + np.exp(-(0.5 + 2.0 * odds)))
    found = honesty.LogOdds.fitted(bent, right)
    assert np.allclose(found.slope, 0.5, atol=0.03)
    assert np.allclose(found.bias, -0.25, atol=0.05)
    assert (ece(found(bent), right) < 0.02).all()


def test_nothing_is_calibrated_level_by_level_and_less_so_without_experts(caches):
    rows = honesty.level_rows({name: cache.select(np.arange(2_000)) for name, cache in caches.items()})

    def worst(condition, system, calibration):
        wanted = (condition, system, calibration)
        return max(r["ece"] for r in rows if (r["condition"], r["system"], r["calibration"]) == wanted)

    for condition in ("blur 1.0", "blur 2.0", "noise 25.5", "noise 40"):
        assert worst(condition, PRISTINE, "expert_exit") > 0.3, (
            "temperatures fitted on pristine images do not help here"
        )
        assert worst(condition, ROUTED, "expert_exit") < 0.15
    assert worst("jpeg 10", ROUTED, "expert_exit") > 0.2, "a family that no expert knows"


# What is fitted, on whom


@pytest.mark.parametrize("expert", [0, 1])
def test_shape_4_and_what_vector_scaling_costs(last, table, expert):
    one = replace(table, experts=table.experts[expert : expert + 1], codes=table.codes[:, expert : expert + 1])
    rows = fitting.method_rows(last, one, 0.8)
    none = {(r["expert"], r["exit"]): r for r in rows if r["method"] == "none"}
    for r in rows:
        if r["method"] in ("T per exit, all", "T per exit, reaching", "global T, all", "global T, fired"):
            assert r["accuracy_change"] == 0.0
        if r["method"] in ("T per exit, all", "vector, all"):
            assert r["nll_fitting"] <= none[r["expert"], r["exit"]]["nll_fitting"] + 1e-12
    assert any(r["accuracy_change"] != 0.0 for r in rows if r["method"] == "vector, all")


def test_shape_6_of_every_expert(last, table):
    """At the default target who exits spoils some exit of each expert; who reaches spoils none as much."""
    for row in fitting.fitting_set_rows(last, table, [0.8]):
        assert row["exiting"] > 0.02
        assert row["reaching"] < 0.015
    assert 0.8 in SETS


# Offloading


@pytest.fixture(scope="module")
def machines():
    return offload.Machines(edge_gmacs=2.0, cloud_gmacs=50.0, edge_exits=3)


def test_times_come_from_the_profile(last, machines):
    profile = last.profile
    own, routed = machines.times(profile, PRISTINE), machines.times(profile, ROUTED)
    assert own["edge_ms"][0] == pytest.approx((profile.segment_macs[0] + profile.head_macs[0]) / 2e6)
    assert own["cloud_ms"] == pytest.approx((sum(profile.segment_macs[3:]) + profile.head_macs[-1]) / 50e6)
    assert own["payload_bytes"] == profile.payload_bytes[3]
    assert routed["edge_ms"][0] > own["edge_ms"][0] + 0.9 * profile.router_macs / 2e6
    for field in ("edge_gmacs", "cloud_gmacs"):
        with pytest.raises(ValueError, match=f"{field} is 0"):
            offload.Machines(**{"edge_gmacs": 2.0, "cloud_gmacs": 50.0, "edge_exits": 3} | {field: 0.0})


def by_calibration(rows):
    return {r["calibration"]: r for r in rows}


@pytest.mark.parametrize("system", [ROUTED, PRISTINE])
def test_shape_5_on_pristine_images(caches, machines, system):
    """Edge share down, edge accuracy up, outage down; the drop of missed deadlines to the right, its plateau down."""
    where = {"pristine": mixed(caches["raw"], ["pristine"])}
    rows = [r for r in offload.effect_rows(caches, where, machines, [0.9], 20) if r["system"] == system]
    before, after = by_calibration(rows).values()
    assert after["edge_probability_high"] < before["edge_probability_low"]
    assert after["edge_accuracy"] > before["edge_accuracy"]
    assert after["outage"] < before["outage"]
    late = [r for r in offload.deadline_rows(caches, where, machines, None, 20) if r["system"] == system]
    for link in ("São Paulo", "Fremont", "Paris"):
        before, after = by_calibration([r for r in late if r["link"] == link]).values()
        assert after["drop_ms"] > before["drop_ms"]
        assert after["plateau_high"] < before["plateau_low"]


def test_shape_5_turns_round_where_the_cloud_is_worse_than_the_edge(caches, machines):
    """Under blur an expert's last exit is right less often than one at the edge: what is sent is lost."""
    rows = offload.deadline_rows(caches, {"blur 1.0": mixed(caches["raw"], ["blur 1.0"])}, machines, None, 20)
    before, after = by_calibration([r for r in rows if r["system"] == ROUTED and r["link"] == "Paris"]).values()
    assert before["cloud"] < before["edge_best"]
    assert after["drop_ms"] > before["drop_ms"]
    assert after["plateau_low"] > before["plateau_high"]


# Guarantees, drift


def test_shape_7_under_mixed_conditions_by_group_and_not_pooled(last, stream):
    rows = guarantees.risk_rows(last, stream.conditions, splits=20, n=1_000, eps=0.05, delta=0.1)
    slack = 2 * math.sqrt(0.1 * 0.9 / 20)
    for row in rows:
        if row["chosen_on"] == row["judged_in"]:
            if row["method"] == "crc":
                assert row["risk"] - 1.1 * row["risk_half"] <= 0.05
            elif row["method"] in ("ucb", "ltt"):
                assert row["above"] <= 0.1 + slack
    lost = [r for r in rows if r["chosen_on"] == "all" != r["judged_in"] and r["method"] == "ucb"]
    assert max(r["above"] for r in lost) > 0.5, "a threshold for all guarantees nothing inside a group"


def test_streaming_tells_agreement_with_the_cloud_and_not_the_truth(caches, stream):
    rows = drift.over_time(caches, stream, exit_at=3, horizon=4_800, seeds=range(2), target=0.8, audits=0.05)
    own = {(r["system"], r["calibration"], r["streaming"]): r for r in rows}
    for kind in ((PRISTINE, "raw"), (PRISTINE, "expert_exit"), (ROUTED, "expert_exit")):
        assert own[*kind, True]["mean_ece_cloud"] < own[*kind, False]["mean_ece_cloud"]
    assert own[PRISTINE, "raw", True]["mean_ece_label"] > own[PRISTINE, "raw", False]["mean_ece_label"]


# What is written, what is refused


def test_numbers():
    assert tables.number(0.0303, 4) == ".0303"
    assert tables.number(-0.056) == "−.056"
    assert tables.number(1.25, 1) == "1.2"
    assert tables.number(math.nan) == "–"


def test_the_score_is_that_of_the_committed_cache(last):
    kept = json.loads((FOLDER / "result.json").read_text(encoding="utf-8"))
    assert kept["score"]["value"] == pytest.approx(errors(last).max(), abs=2e-5)
    assert kept["caches"][NAME]["hashes"] == dict(last.hashes)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert tables.fill(readme, kept) == readme
    rows = kept["caches"][NAME]["matched"]
    rows["rows"][0][rows["columns"].index("ece")] = 0.5
    assert tables.fill(readme, kept) != readme
    for name in kept["caches"]:
        page = (FOLDER / f"{name}.tables.md").read_text(encoding="utf-8")
        assert (tables.page(name, kept["caches"][name]) == page) is (name != NAME)


def test_another_cache_is_added_and_the_score_stays():
    rows = {"matched": [{"calibration": "expert_exit", "ece": 0.02, "x": math.nan}]}
    first = json.loads(json.dumps(study.merged({}, NAME, rows)))
    made = study.merged(first, "other", {"matched": [{"calibration": "expert_exit", "ece": 0.5}]})
    assert sorted(made["caches"]) == [NAME, "other"]
    assert made["score"]["value"] == 0.02
    assert made["caches"][NAME]["matched"] == {
        "columns": ["calibration", "ece", "x"],
        "rows": [["expert_exit", 0.02, None]],
    }
    assert math.isnan(unpacked(made["caches"][NAME])["matched"][0]["x"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=1", "seeds is 1, allowed is a whole number, 2 or more"),
        ("horizon=10", "horizon is 10"),
        ("target=1.5", r"target is 1\.5"),
        ("target=0.81", r"targets are .*, target 0\.81 among them"),
        ("edge_exits=7", r"edge_exits is 7, allowed is a whole number in 1\.\.6"),
        ("places=[snow]", "condition 'snow' is not in this cache"),
    ],
)
def test_what_is_refused(embedded, override, message):
    with pytest.raises(ValueError, match=message):
        study.check(config(override), embedded)


def test_a_cache_without_experts_is_refused(small):
    with pytest.raises(CacheError, match="cache lacks profile, router or calibrations"):
        study.check(config(), small.cache)
