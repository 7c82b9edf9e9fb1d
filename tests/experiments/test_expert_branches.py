"""The study of expert branches: its arithmetic by hand, its claims on the shipped cache, its page against its data."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import Fixed
from offramp.environments import Abrupt, CacheError, ConfidenceCache, blocks
from offramp.experiments import expert_branches as study
from offramp.experiments.expert_branches import fronts, levels, mixed, shapes, systems, tables

HERE = Path(study.__file__).parent
FAST = ["seeds=2", "horizon=4800", "mu.count=3", "thresholds=[-inf,0.5,0.8,inf]", "costs=9"]


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("expert_branches", overrides=list(overrides))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command on the shipped cache, a short stream; its folder and what it recorded."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "README.md").write_text("# Mine\n\n<!-- gains -->\nold\n<!-- end -->\n\nkept\n", encoding="utf-8")
    study.run(config(*FAST), folder)
    return folder, json.loads((folder / "result.json").read_text(encoding="utf-8"))["mobilenet_v2_cifar10"]


def front(cost, accuracy, settings=None):
    """A front of one segment from (M, R) or (M,)."""
    cost, accuracy = (np.atleast_2d(np.asarray(x, dtype=float).T).T[:, :, None] for x in (cost, accuracy))
    names = settings or tuple(str(i) for i in range(len(cost)))
    return fronts.Front(settings=names, accuracy=accuracy, cost=cost, offloads=0 * cost, reward=accuracy - cost)


def test_mixture_by_hand():
    cost, accuracy = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.2, 0.3, 0.8, 0.5])
    weights = fronts.mixture(cost, accuracy, np.array([1.0, 2.0, 3.0, 4.0]))
    expected = [[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 1, 0], [0, 0, 1, 0]]  # 2 lies below the line from 1 to 3
    np.testing.assert_allclose(weights, expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"cost is 0\.5, allowed is 1\.0 or more"):
        fronts.mixture(cost, accuracy, np.array([0.5]))


unit = st.floats(0.0, 1.0, width=16)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=8))
def test_mixture_is_the_concave_envelope_that_never_falls(points):
    cost, accuracy = np.array(points).T
    at = np.linspace(cost.min(), cost.max(), 9)
    weights = fronts.mixture(cost, accuracy, at)
    assert (weights >= 0.0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert (weights @ cost <= at + 1e-9).all()
    reached = weights @ accuracy
    for limit, value in zip(at, reached, strict=True):
        assert value >= accuracy[cost <= limit].max() - 1e-9
    assert (np.diff(reached) >= -1e-9).all()
    assert (np.diff(reached, 2) <= 1e-9).all()


def test_gain_by_hand():
    """Two seeds; the upper front gains .3 at cost 1 and .1 at cost 2, a tenth of a point more with the second seed."""
    one = front([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]], [[0.6, 0.602], [0.6, 0.602], [0.6, 0.602]])
    other = front([[1.0, 1.0], [2.0, 2.0]], [[0.3, 0.301], [0.5, 0.501]])
    found = fronts.gain(one, other, 3)
    assert found["costs"] == [1.0, 2.0]
    assert found["least"]["cost"] == 2.0
    assert found["least"]["mean"] == pytest.approx(10.05)
    assert found["least"]["half"] == pytest.approx(12.706 * 0.1 / 2)
    assert found["mean"]["mean"] == pytest.approx(20.05)
    assert fronts.gain(other, one, 3)["least"]["mean"] == pytest.approx(-30.05)
    dear = front([[7.0, 7.0], [8.0, 8.0]], [[0.7, 0.7], [0.8, 0.8]])  # no cost in common: the cheaper one may spend 7
    found = fronts.gain(dear, other, 3)
    assert found["costs"] == [7.0, 7.0]
    assert found["least"]["mean"] == pytest.approx(19.95)


def test_held_takes_the_best_reward_of_each_seed():
    rules = replace(
        front([[0.1, 0.1], [1.0, 1.0]], [[0.5, 0.9], [0.7, 0.8]]), reward=np.array([[0.4, 0.4], [0.6, 0.3]])[:, :, None]
    )
    found = fronts.held(rules, [0.0, 1.0])
    assert found.settings == ("0", "1")
    np.testing.assert_allclose(found.accuracy[:, :, 0], [[0.7, 0.9], [0.5, 0.9]])
    np.testing.assert_allclose(found.reward[:, :, 0], [[0.6, 0.4], [0.3, 0.3]])


def test_segments_are_those_of_the_stream(embedded):
    """A fixed rule, played by the loop, against its answers counted one by one."""
    cfg = config()
    caches = systems.views(embedded)
    stream = instantiate(cfg.stream, _convert_="all")
    system = systems.SYSTEMS[systems.EXPERTS]
    prices = systems.price_list("paper", embedded.profile, cfg, 1.0)
    world = systems.make_world(system, caches, prices, [0.8])
    arrays = world.arrays(stream.conditions, stream.links)
    rule = {"rule": (Fixed(cut=2, threshold=0.8), arrays)}
    calls = []
    with ThreadPoolExecutor(1) as pool:
        found = fronts.play(rule, world, stream, horizon=800, seeds=[3], pool=pool, played=lambda: calls.append(1))
    block = next(blocks(stream, samples=10_000, horizon=800, seed=3))
    cache = caches["expert_exit"]
    correct, cost = np.zeros(800), np.zeros(800)
    for i, (sample, segment) in enumerate(zip(block.sample, block.condition, strict=True)):
        assert segment == i // 100
        s = cache.condition(stream.conditions[segment])
        expert = cache.router[s, sample].argmax()
        sent = cache.confidence[s, expert, sample, 1] < 0.8
        correct[i] = cache.prediction[s, expert, sample, -1 if sent else 1] == cache.label[sample]
        cost[i] = 0.3 * 6 / 19 + 0.1 * sent
    assert calls == [1]
    np.testing.assert_allclose(found.accuracy[0, 0], correct.reshape(8, 100).mean(axis=1))
    np.testing.assert_allclose(found.cost[0, 0], cost.reshape(8, 100).mean(axis=1))
    distorted = found.over(np.array([1, 2, 4]))
    assert distorted.accuracy[0, 0, 0] == pytest.approx(correct.reshape(8, 100)[[1, 2, 4]].mean())


def test_repriced_rules_cost_what_playing_them_costs(embedded):
    """Played under one price list and repriced, against played under the other."""
    cfg = config()
    caches = systems.views(embedded)
    stream = Abrupt(segments=(("pristine", 2.0), ("blur 1.0", 2.0)))
    how = {"horizon": 400, "seeds": [0, 1], "played": lambda: None}
    system = systems.SYSTEMS[systems.PRISTINE]
    fields = {}
    with ThreadPoolExecutor(1) as pool:
        for name in systems.PRICES:
            listed = systems.price_list(name, embedded.profile, cfg, 0.0)
            world = systems.make_world(system, caches, listed, [0.5, 0.9, np.inf])
            arrays = world.arrays(stream.conditions, stream.links)
            played = {rule: (policy, arrays) for rule, policy in systems.rules(world.arms).items()}
            fields[name] = listed, world, fronts.play(played, world, stream, pool=pool, **how)
    (_, world, one), (listed, _, other) = fields.values()
    assert len(one.settings) == 19
    assert np.abs(one.cost - other.cost).max() > 0.01
    np.testing.assert_allclose(fronts.repriced(one, world, listed, 2.0).cost, other.cost, atol=1e-12)
    np.testing.assert_array_equal(one.accuracy, other.accuracy)


def test_difference_is_paired():
    one, other = np.array([1, 1, 0, 1], dtype=bool), np.array([1, 0, 0, 0], dtype=bool)
    found = levels.difference(one, other)
    assert found["mean"] == 50.0
    assert found["half"] == pytest.approx(1.96 * 100.0 * np.std([0, 1, 0, 1], ddof=1) / 2)


def test_gains_on_the_mixed_stream(written):
    """12 and 20 points for each policy, under either price list, against raw and calibrated exits."""
    _, found = written
    seen = set()
    for row in found["gains"]:
        if row["system"] == systems.EXPERTS and row["against"].startswith("pristine"):
            seen.add((row["prices"], row["policy"], row["against"], row["part"]))
            assert row["least"]["mean"] >= {mixed.WHOLE: 12.0, mixed.DISTORTED: 20.0}[row["part"]], row
    assert len(seen) == 2 * 5 * 2 * 2


def test_shape_1_experts_against_pristine_exits(written):
    """Experts gain 20 points where the pristine exits fail, and lose at most 6 on pristine images."""
    _, found = written
    weak = shapes.strongest(found)
    assert [r["condition"] for r in weak] == ["blur 2.0", "noise 40"]
    for row in weak:
        mine = next(
            r
            for r in found["levels"]
            if (r["condition"], r["system"], r["target"]) == (row["condition"], systems.EXPERTS, 0.8)
        )
        assert row["accuracy"] < 0.4
        assert mine["accuracy"] >= row["accuracy"] + 0.2
    assert [r["expert"] for r in found["on_pristine"]] == ["pristine", "blur", "noise", "light"]
    for row in found["on_pristine"][1:]:
        assert -6.0 <= row["final"]["mean"] <= 0.0


def test_shape_2_the_edge_keeps_its_word(written):
    _, found = written
    experts, pristine = (shapes.matched(found, s) for s in (systems.EXPERTS, systems.PRISTINE_CALIBRATED))
    assert len(experts) == 16 * 5
    for row in experts:
        assert row["edge_accuracy"] >= row["target"] - 0.02, row
        assert row["low"] <= row["edge_accuracy"] <= row["high"]
    for row in pristine:
        if row["condition"] in ("blur 1.5", "blur 2.0", "noise 25.5", "noise 40"):
            assert row["edge_accuracy"] < row["target"] - 0.2, row


def test_shape_3_routing(written):
    """Oracle at least predicted, predicted at least pristine, predicted within two points of oracle."""
    _, found = written
    cascade = {(r["condition"], r["system"], r["target"]): r["accuracy"] for r in found["levels"]}
    families = {r["condition"]: r for r in found["routing"]}
    assert families["blur 0.5"]["right"] < 0.7 < 0.95 < families["blur 0.8"]["right"]
    for name, row in families.items():
        if row["has_expert"] and row["right"] >= 0.95:
            assert -2.0 <= row["cascade"]["mean"] <= 0.5, row
        if row["has_expert"]:
            assert cascade[name, systems.EXPERTS, 0.8] >= cascade[name, systems.PRISTINE_CALIBRATED, 0.8] - 0.01
    for row in found["gains"]:
        if row["against"] == systems.ORACLE and row["part"] == mixed.WHOLE:
            assert row["least"]["mean"] >= -2.0, row
    at_one = {(r["prices"], r["policy"], r["system"]): r["accuracy"]["mean"] for r in found["at_mu_1"]}
    for (prices, policy, system), accuracy in at_one.items():
        if system == systems.ORACLE:
            assert accuracy >= at_one[prices, policy, systems.PRISTINE] + 0.1


def test_best_exit_moves_towards_the_first(written):
    _, found = written
    best = {(r["condition"], r["system"]): r for r in found["exits"]}
    for path in (("blur 0.5", "blur 1.0", "blur 2.0"), ("noise 5", "noise 10", "noise 40")):
        places = [best[c, systems.EXPERTS]["best"] for c in path]
        assert places == sorted(places, reverse=True)
        assert places[-1] == 1
        assert best[path[-1], systems.EXPERTS]["over_final"] > 10.0
        assert best[path[-1], systems.PRISTINE]["over_final"] < 5.0


def test_score_is_the_worst_lower_end(written):
    _, found = written
    ends = [
        g["least"]["mean"] - g["least"]["half"]
        for g in found["gains"]
        if g["prices"] == "paper"
        and g["part"] == "whole"
        and g["system"] == "experts"
        and g["against"] in ("pristine", "pristine, calibrated")
        and g["policy"] in ("I-SplitEE", "AdaEE", "best fixed rule")
    ]
    assert len(ends) == 6
    assert found["score"]["points"] == pytest.approx(min(ends), abs=1e-4)


def test_command_writes_tables_between_markers_and_figures(written):
    folder, found = written
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert text.endswith("<!-- end -->\n\nkept\n")
    assert "old" not in text
    assert text.count("| mobilenet_v2_cifar10 | paper |") == 5
    for what in ("fronts", "levels", "exits"):
        picture = (folder / f"{what}_mobilenet_v2_cifar10.svg").read_text(encoding="utf-8")
        assert picture.startswith("<svg")
        assert f"n = {2 if what == 'fronts' else '10,000'}" in picture
    assert sorted(p.name for p in folder.iterdir())[-1] == "result.json"
    every = tables.fill(None, {"other": found, "mobilenet_v2_cifar10": found})
    assert every.count("<!-- end -->") == len(tables.SECTIONS)
    assert "| other | paper |" in every
    assert tables.fill(every, {"other": found, "mobilenet_v2_cifar10": found}) == every


def test_the_page_is_what_its_data_say(embedded):
    """The committed README holds the tables of the committed result, and that is one of the shipped cache."""
    kept = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert tables.fill(text, kept) == text
    assert all(f"<!-- {name} -->" in text for name in tables.SECTIONS)
    found = kept["mobilenet_v2_cifar10"]
    assert found["cache"] == dict(embedded.hashes)
    assert found["config"]["horizon"] == 24_000
    assert found["config"]["seeds"] >= 10
    assert found["score"]["points"] >= 12.0
    caches = systems.views(embedded)
    again = study.shortened(levels.measured(caches, [0.8], 0.8, 3))
    recorded = [r for r in found["levels"] if r["target"] == 0.8]
    assert [r["edge_accuracy"] for r in again["levels"]] == pytest.approx([r["edge_accuracy"] for r in recorded])
    for path in (p.split("(")[1].rstrip(")\n") for p in text.splitlines() if p.startswith("![")):
        assert (HERE / path).is_file()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["horizon=4801"], "horizon is 4801"),
        (["seeds=1"], "seeds is 1, allowed is a whole number, 2 or more"),
        (["edge_exits=0"], "edge_exits is 0, allowed"),
        (["mu.least=0"], "allowed are 0 < least < most"),
        (["targets=[0.7,0.9]"], r"targets are \[0.7, 0.9\], allowed are .* 0.8 among them"),
        (["targets=[0.8,1.5]"], "targets are"),
        (["stream=stationary"], "stream is Stationary"),
        (["stream.length=600"], "length 600"),
        (["cache=nothing"], "embedded cache 'nothing' does not exist"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, overrides, said):
    with pytest.raises((ValueError, CacheError), match=said):
        study.run(config(*FAST, *overrides), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_caches_that_cannot_answer_are_refused(embedded, small):
    with pytest.raises(CacheError, match="experts are"):
        systems.views(small.cache)
    with pytest.raises(CacheError, match="'expert_exit'"):
        systems.views(replace(embedded, calibrations={}))
    with pytest.raises(CacheError, match="profile is missing"):
        systems.views(replace(embedded, profile=None))


def test_title_names_the_training_seed(embedded):
    assert study.title(embedded, "x") == "mobilenet_v2_cifar10"
    assert study.title(replace(embedded, notes={"network": "n", "seed": 3}), "x") == "n_seed3"
    assert study.title(replace(embedded, notes={}), "/a/b.safetensors") == "b"
    assert ConfidenceCache.embedded("mobilenet_v2_cifar10").notes["seed"] == 0
