"""Pages about the papers: verdicts follow from checks, numbers by hand, committed pages against their records."""

import importlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from offramp.environments import World
from offramp.environments.offloading import LINKS, answers, latency
from offramp.environments.regret import outcomes
from offramp.experiments import papers as study
from offramp.experiments.papers import adaee, calibration, experts, page, playing, splitee, studies

HERE = Path(study.__file__).parent


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("papers", overrides=list(overrides))


def check(holds):
    return page.Check(what="w", wanted="x", found="y", holds=holds)


def a_page(*held):
    return page.Page(
        title="T", hypothesis="H", source="S", setting="P", tables={"A": "| a |"}, pictures={"p": "<svg/>"},
        checks=[check(h) for h in held],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ((True, True), page.REPRODUCED),
        ((True, None), page.PARTLY),
        ((None, None), page.NOT),
        ((True, False), page.PARTLY),
        ((False, False), page.NOT),
    ],
)
def test_the_verdict_follows_from_the_checks(held, verdict):
    made = a_page(*held)
    assert made.verdict == verdict
    text = made.markdown("adaee")
    assert f"## Verdict: {verdict}" in text
    assert text.count("**no**") == held.count(False)
    assert text.count("**cannot be told**") == held.count(None)
    assert "offramp papers claim=adaee" in text
    assert "![p](p.svg)" in text


@pytest.mark.parametrize(("mean", "half", "most"), [(-3, 2, True), (26, 30, None), (-26, 30, None), (3, 2, False)])
def test_a_check_holds_where_the_whole_interval_does(mean, half, most):
    value = {"mean": mean, "half": half}
    assert page.at_most(value, 0.0) is most
    assert page.at_least({"mean": -mean, "half": half}, 0.0) is most
    found = json.loads((HERE / "adaee" / "result.json").read_text(encoding="utf-8"))
    list(found["change"]["widths"].values())[1]["lost"] = value  # a fresh start is better by so much, with a tenth
    assert adaee.page(found).checks[-1].holds is most


def test_a_change_of_nothing_is_no_change():
    """As many offloads as before are neither fewer nor more; half a point of 10,000 images cannot be told."""
    found = json.loads((HERE / "experts" / "result.json").read_text(encoding="utf-8"))
    for row in found["levels"]:
        row["edge_share"] = 0.5
    more, _, _, agree = experts.page(found).checks
    assert agree.holds is None
    assert agree.found.startswith("0 of 10; at 10 ")
    assert more.holds is None
    assert more.found == "9 of 10; at 1 it cannot be told"


def test_a_number_moves_beyond_both_intervals():
    low, high = (0.2, 0.1, 0.3), (0.5, 0.4, 0.6)
    assert [calibration.moved(low, high, way) for way in (+1, -1)] == [True, False]
    assert [calibration.moved(low, (0.5, 0.25, 0.6), way) for way in (+1, -1)] == [None, None]


def test_savings_are_paired_by_seed():
    one = {"cost": np.array([1.0, 3.0]), "accuracy": np.array([0.5, 0.6]), "offloads": np.array([0.0, 1.0])}
    final = {"cost": np.array([2.0, 6.0]), "accuracy": np.array([0.6, 0.7]), "offloads": np.zeros(2)}
    found = playing.beside(one, final)
    assert found["saved"] == {"mean": 50.0, "half": 0.0}
    assert found["gained"]["mean"] == pytest.approx(-10.0)
    assert found["gained"]["half"] == pytest.approx(0.0, abs=1e-9)
    assert found["offloads"]["mean"] == 50.0


def test_adaees_world_pays_adaees_reward(embedded):
    """The mean reward of each threshold in the world, less the first one's, is the authors' clipped reward by hand."""
    cfg, overhead = config(), 0.1
    test = embedded.part("test")
    world = adaee.world_of(test, cfg, 1, overhead)
    assert isinstance(world, World)
    arrays = world.arrays(["pristine", "noise 40"], [1.0])
    answered, offloaded = outcomes(arrays.confidence, world.arms, arrays.options)
    for s, name in enumerate(("pristine", "noise 40")):
        here = test.confidence[test.condition(name), 0].astype(np.float64)
        first, last = here[:, 0], here[:, -1]
        by_hand = [
            np.where(first < t, np.maximum(last - first, 0.0) - overhead, 0.0).mean() for t in cfg.adaee.thresholds
        ]
        value = answered[s] - overhead * offloaded[s]
        np.testing.assert_allclose(value - first.mean(), by_hand, atol=1e-12)
        means, clairvoyant = adaee.worth(test, cfg, 1, name, overhead)
        np.testing.assert_allclose(means, by_hand)
        assert clairvoyant == pytest.approx(np.maximum(np.maximum(last - first, 0.0) - overhead, 0.0).mean())
        assert clairvoyant > means.max()


def test_growth_tells_a_line_from_a_logarithm():
    rounds = np.array([1, 10, 100, 1_000, 10_000])
    assert adaee.growth(rounds, rounds.astype(float)) == pytest.approx(10.0)
    assert adaee.growth(rounds, np.log(rounds)) == pytest.approx(4.0 / 3.0)
    assert adaee.growth(rounds, np.zeros(5)) == 0.0
    linear = {"rounds": rounds.tolist(), "regret": rounds.tolist()}
    assert adaee.early_share(linear, 100) == pytest.approx(1.0)


def test_contexts_of_the_change_differ_in_their_best_threshold(embedded):
    cfg = config()
    change, test = cfg.adaee.change, embedded.part("test")
    best = [adaee.worth(test, cfg, change.cut, c, change.overhead)[0].argmax() for c in change.contexts]
    assert all(a != b for a, b in pairwise(best))


def test_splitees_cost_curve_by_hand():
    rows = [
        {
            "condition": "c",
            "threshold": 0.7,
            "offload": o,
            "policies": {splitee.MINE: {"cost": {"mean": 1.0 + 0.3 * o, "half": 0.1}}},
        }
        for o in (2.0, 1.0, 3.0)
    ]
    assert [r["offload"] for r in splitee.of(rows, "c", 0.7)] == [1.0, 2.0, 3.0]
    assert splitee.cost_slope(rows, "c", 0.7) == pytest.approx(0.3)
    assert splitee.costs_rise(rows, "c", 0.7) is True
    rows[0]["policies"][splitee.MINE]["cost"]["half"] = 0.3
    assert splitee.costs_rise(rows, "c", 0.7) is None


def test_latency_against_one_image_at_a_time(embedded):
    """Means of the page's record against a count of the pristine exits at one level, by hand."""
    found = json.loads((HERE / "latency" / "result.json").read_text(encoding="utf-8"))
    row = next(r for r in found["rows"] if (r["system"], r["condition"], r["target"]) == ("pristine", "blur 1.0", 0.8))
    test = embedded.part("test")
    s, k, profile = test.condition("blur 1.0"), found["edge_exits"], test.profile
    c, right = test.confidence[s, 0], test.prediction[s, 0] == test.label[:, None]
    who = answers(c, right, 0.8, edge_exits=k)
    edge = (np.array(profile.segment_macs[:k]) + np.array(profile.head_macs[:k])) / 2e6
    cloud = (sum(profile.segment_macs[k:]) + profile.head_macs[-1]) / 50e6
    for link in LINKS.values():
        ms = latency(who, edge_ms=edge.tolist(), cloud_ms=cloud, payload_bytes=profile.payload_bytes[k], link=link)
        assert row["ms"][link.name]["mean"] == pytest.approx(ms.mean(), abs=1e-4)
    assert row["offloaded"] == pytest.approx(100.0 * (c[:, :k].max(axis=1) < 0.8).mean(), abs=1e-4)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Every page in its quick form."""
    folder = tmp_path_factory.mktemp("papers")
    return folder, study.run(config("quick=true"), folder)


def test_every_claim_has_its_page(quick):
    folder, verdicts = quick
    assert list(verdicts) == list(study.CLAIMS)
    for claim, verdict in verdicts.items():
        text = (folder / claim / "README.md").read_text(encoding="utf-8")
        assert f"**Verdict: {verdict}.**" in text
        assert "**Hypothesis.**" in text
        for picture in (
            importlib.import_module(f"offramp.experiments.papers.{claim}")
            .page(json.loads((folder / claim / "result.json").read_text(encoding="utf-8")))
            .pictures
        ):
            assert (folder / claim / f"{picture}.svg").read_text(encoding="utf-8").startswith("<svg")
        assert f"]({claim}/README.md) | {verdict} |" in (folder / "README.md").read_text(encoding="utf-8")


def test_one_claim_leaves_the_others(quick, tmp_path):
    (tmp_path / "result.json").write_text('{"isplitee": "not reproduced"}', encoding="utf-8")
    made = study.run(config("quick=true", "claim=experts"), tmp_path)
    assert list(made) == ["experts"]
    kept = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert kept == {"isplitee": "not reproduced"} | made


@pytest.mark.parametrize("claim", list(study.CLAIMS))
def test_the_committed_page_is_made_of_its_record(claim):
    module = importlib.import_module(f"offramp.experiments.papers.{claim}")
    made = module.page(json.loads((HERE / claim / "result.json").read_text(encoding="utf-8")))
    assert (HERE / claim / "README.md").read_text(encoding="utf-8") == made.markdown(claim)


@pytest.mark.parametrize("claim", ["experts", "calibration"])
def test_pages_from_studies_agree_with_the_studies(claim):
    """What a page took is what the study's record says today."""
    cfg = config()
    kept = json.loads((HERE / claim / "result.json").read_text(encoding="utf-8"))
    module = importlib.import_module(f"offramp.experiments.papers.{claim}")
    assert json.loads(json.dumps(module.measure(cfg, None))) == kept


def test_refuses_a_claim_that_nobody_made_and_a_study_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="claim is 'fusion', allowed are all, isplitee"):
        study.run(config("claim=fusion"), tmp_path / "new")
    with pytest.raises(ValueError, match=r"adaee\.horizon is 5"):
        study.run(config("adaee.horizon=5"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="run offramp expert_branches"):
        studies.record(config(f"studies={tmp_path}"), "expert_branches")
