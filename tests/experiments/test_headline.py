"""The headline: prices, energy and claims by hand, the choice of mu, its page against its data, refusals."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.environments import Abrupt
from offramp.environments.device_presets import preset
from offramp.experiments import headline as study
from offramp.experiments.expert_branches.systems import EXPERTS, PRISTINE, SYSTEMS, views
from offramp.experiments.headline import playing, prices, tables
from offramp.experiments.headline.playing import BEST, FIRST, OURS, PLAIN, SEND, WHOLE
from offramp.experiments.headline.study import best_exit, claims

HERE = Path(study.__file__).parent


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("headline", overrides=list(overrides))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command in its quick form on the shipped cache; its folder and what it recorded."""
    folder = tmp_path_factory.mktemp("headline")
    (folder / "README.md").write_text("# Mine\n\n<!-- shown -->\nold\n<!-- end -->\n\nkept\n", encoding="utf-8")
    study.run(config("quick=true"), folder)
    return folder, json.loads((folder / "result.json").read_text(encoding="utf-8"))["mobilenet_v2_cifar10"]


def test_paper_prices_by_hand(embedded):
    quote = prices.paper(config(), embedded.profile)(2.0).quote(embedded.profile, raw_input_allowed=True)
    np.testing.assert_allclose(quote.edge_cost, 0.3 * np.array([0, 3, 6, 9, 12, 15, 18, 19]) / 19)
    np.testing.assert_allclose(quote.offload_cost, [0.1] * 7 + [0.0])
    assert quote.mu == 2.0


def test_a_second_costs_what_makes_the_backbone_cost_its_price(embedded):
    """On any device; and the image over 3G by hand: 3,072 bytes at 1.1 Mbit/s, 100 ms there and back, and the cloud."""
    cfg, profile = config(), embedded.profile
    for device, slower in (("raspberry_pi_4", 1.0), ("jetson_nano", 7.0)):
        place = prices.Place(device=device, slower=slower, link="cell_3g")
        quote = prices.physical(cfg, profile, place)(1.0).quote(profile, evaluate="own", raw_input_allowed=True)
        edge = preset(device, profile).scaled(slower)
        backbone, per_ms = sum(edge.segment_ms), 0.3 / sum(edge.segment_ms)
        own = per_ms * (backbone + edge.head_ms[-1] + edge.router_ms)
        assert quote.edge_cost[-1] == pytest.approx(own)
        cloud = preset("jetson_nano", profile).scaled(0.1)
        sent = 3072 * 8 / 1.1e3 + 100.0 + cloud.cloud_ms[0]
        assert quote.offload_cost[0] == pytest.approx(per_ms * sent)


def test_units_by_hand(embedded):
    """Half of the backbone's time on the edge at 6.4 W, and 1,000 bytes over LTE: (438.39 * 5.85 + 1288.04) mW."""
    cfg, place = config(), prices.Place(device="raspberry_pi_4", slower=2.0, link="lte")
    backbone = 2.0 * sum(preset("raspberry_pi_4", embedded.profile).segment_ms)
    found = prices.units(cfg, embedded.profile, place, {"cost": 0.3, "edge_cost": 0.15, "bytes": 1000.0})
    assert found["ms"] == pytest.approx(backbone)
    sending = 8.0 * 1000.0 / 5.85e3
    assert found["mj"] == pytest.approx(6.4 * backbone / 2 + (438.39 * 5.85 + 1288.04) * sending / 1e3)
    nothing = prices.units(cfg, embedded.profile, place, {"cost": 0.3, "edge_cost": 0.3, "bytes": 0.0})
    assert nothing["mj"] == pytest.approx(6.4 * backbone)


def run(accuracy, cost):
    return {"accuracy": np.array(accuracy), "cost": np.array(cost)}


def test_claims_hold_only_where_the_whole_interval_does():
    runs = {
        OURS: run([0.70, 0.71], [0.100, 0.100]),
        WHOLE: run([0.60, 0.61], [0.300, 0.300]),
        PLAIN: run([0.60, 0.58], [0.300, 0.300]),
        SEND: run([0.70, 0.71], [0.101, 0.101]),
        FIRST: run([0.72, 0.73], [0.200, 0.200]),
    }
    found = {row["against"]: row for row in claims(runs)}
    assert found[WHOLE]["saved"]["mean"] == pytest.approx(200.0 / 3.0)
    assert found[WHOLE]["holds"]  # 66.7 % saved in both runs, 10 points gained in both
    assert found[PLAIN]["gained"]["mean"] == pytest.approx(11.5)
    assert not found[PLAIN]["holds"]
    assert found[SEND]["holds"]  # cheaper, and exactly as accurate
    assert not found[FIRST]["holds"]  # cheaper, and less accurate
    assert not found[FIRST]["right"]
    runs[OURS] = run([0.70, 0.71], [0.104, 0.107])  # 65.3 and 64.3 %
    assert not claims(runs)[0]["holds"]
    runs[OURS] = run([0.70, 0.71], [0.101, 0.101])
    assert not {row["against"]: row for row in claims(runs)}[SEND]["holds"]  # as dear is not cheaper


def test_trivial_players_are_what_their_names_say(embedded):
    """Final exit, sending and offloading have one accuracy; costs by hand; the best exit answers there."""
    cfg = config("seeds=2", "horizon=800")
    caches, stream = views(embedded), instantiate(cfg.stream, _convert_="all")
    on = playing.grounds(caches, stream, cfg)
    with ThreadPoolExecutor(2) as pool:
        table = playing.Table(horizon=800, seeds=range(2), pool=pool, played=lambda: None)
        jobs = playing.players(cfg, on, prices.paper(cfg, embedded.profile), 2)
        found = table.play({name: jobs[name] for name in (WHOLE, SEND, FIRST, BEST, PLAIN)})
    for name in (SEND, FIRST):
        np.testing.assert_array_equal(found[name]["accuracy"], found[WHOLE]["accuracy"])
        np.testing.assert_array_equal(found[name]["offloads"], 1.0)
    for name, cost in ((WHOLE, 0.3), (PLAIN, 0.3), (SEND, 0.1), (FIRST, 0.1 + 0.9 / 19), (BEST, 1.8 / 19)):
        np.testing.assert_allclose(found[name]["cost"], cost)
    np.testing.assert_allclose(found[SEND]["bytes"], 3072.0)
    assert found[BEST]["offloads"].sum() == 0.0


def test_mu_is_the_largest_that_keeps_the_accuracy(embedded):
    """On undistorted images a large mu answers at the first exit and loses; on strong blur it loses nothing."""
    cfg = config()
    held_out = playing.validation(embedded)
    chosen = {}
    with ThreadPoolExecutor(2) as pool:
        table = playing.Table(horizon=1_000, seeds=range(2), pool=pool, played=lambda: None)
        for name in ("pristine", "blur 2.0"):
            ground = playing.Ground.of(SYSTEMS[EXPERTS], held_out, Abrupt(segments=((name, 1.0),)), cfg)
            chosen[name] = playing.chosen_mu(cfg, ground, prices.paper(cfg, embedded.profile), [0.01, 30.0], table)
    assert chosen == {"pristine": 0.01, "blur 2.0": 30.0}


def test_the_best_exit_is_chosen_on_validation_images(embedded):
    """Counted by hand over two conditions of one segment each."""
    held_out = playing.validation(embedded)
    cache, stream = held_out["raw"], Abrupt(segments=(("pristine", 1.0), ("blur 2.0", 1.0)))
    right = []
    for name in ("pristine", "blur 2.0"):
        s = cache.condition(name)
        expert = cache.router[s].argmax(axis=1)
        said = cache.prediction[s, expert, np.arange(len(cache.label))]
        right.append((said == cache.label[:, None]).mean(axis=0))
    by_hand = np.mean(right, axis=0)
    np.testing.assert_allclose(playing.exits_over(held_out, stream, EXPERTS), by_hand)
    assert best_exit(held_out, stream) == by_hand.argmax() + 1
    assert playing.exits_over(held_out, stream, PRISTINE)[-1] < by_hand[-1]


def test_quick_run_writes_everything(written):
    folder, found = written
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "fronts_mobilenet_v2_cifar10.svg", "result.json"]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Mine")
    assert text.endswith("kept\n")
    assert "old" not in text
    assert tables.shown({"mobilenet_v2_cifar10": found}) in text
    assert [row["prices"] for row in found["lists"]] == [prices.PAPER, prices.AUTHORS, prices.CLAIMED]
    assert found["places"][0]["place"] == "Raspberry Pi 4, 3G"
    for front in found["fronts"]:
        assert len(front["cost"]) == len(front["settings"])
        assert "1" in front["settings"]
    assert tables.said(found).count("\n") == 7
    kept = {"mobilenet_v2_cifar10": found, "mobilenet_v2_cifar10_seed1": {}}  # which was never played on parts
    lines = tables.images(kept).splitlines()
    assert lines[0] == "| prices | against | wanted | mobilenet_v2_cifar10 |"
    assert [line.split(" | ")[1] for line in lines[2:]] == 2 * [WHOLE, PLAIN, SEND, FIRST, BEST, "I-SplitEE"]
    assert found["over_images"]["lists"][0]["claims"][0]["gained"] != found["lists"][0]["claims"][0]["gained"]
    assert [row["stream"] for row in found["over_images"]["streams"]] == ["mixed", "pristine"]
    assert tables.streams_over_images(kept).count("\n") == 3


def test_the_committed_page_is_made_of_the_committed_record():
    kept = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert tables.fill(text, kept) == text
    assert text.count("<!-- end -->") == len(tables.SECTIONS)


def test_the_claim_holds_on_both_training_seeds_and_fails_on_alexnet():
    kept = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
    for name in ("mobilenet_v2_cifar10", "mobilenet_v2_cifar10_seed1"):
        for row in (kept[name]["lists"][0], kept[name]["lists"][2]):
            assert all(claim["holds"] for claim in row["claims"])
        assert kept[name]["config"]["seeds"] == 20
    alexnet = kept["alexnet_cifar10"]["lists"][0]["claims"]
    assert [claim["holds"] for claim in alexnet] == [False, False, False, True]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeds=1", "seeds is 1"),
        ("mu=0", "mu is 0"),
        ("fronts.seeds=1", "fronts.seeds is 1"),
        ("fronts.mu.least=40", "fronts.mu is"),
        ("places.cloud=[toaster,1.0]", "a device is 'toaster'"),
        ("places.links=[string]", "a link is 'string'"),
    ],
)
def test_refuses_what_no_run_can_mean(override, said, tmp_path):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        study.run(config(override), tmp_path / "new")
    assert not (tmp_path / "new").exists()
