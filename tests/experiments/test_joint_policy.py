"""The protocol: its suite keeps tuning and report apart, its arithmetic by hand, its command from end to end."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from offramp.bandits import Arm, ConformalFloor, FinalExit, Fixed, Policy
from offramp.environments import ConfidenceCache, blocks
from offramp.environments.replay import arms_of
from offramp.experiments import joint_policy as study
from offramp.experiments.joint_policy import play, statistics, suite, sums, tables, tuning
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.joint_policy.spaces import Contender, Log, OneOf, played_as_it_is

HERE = Path(study.__file__).parent
CACHES = ("mobilenet_v2_cifar10", "alexnet_cifar10")
FEW = ["splitee_aware", "ucb1", "final_exit", "offload_first", "send_input"]
FAST = [f"only=[{','.join(FEW)}]", "quick=true", "worlds=[stationary,distortion and link,input may be sent]"]


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("joint_policy", overrides=list(overrides))


@pytest.fixture(scope="module", params=CACHES)
def cache(request):
    return ConfidenceCache.embedded(request.param)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command with few policies in three worlds; its folder and what it recorded."""
    folder = tmp_path_factory.mktemp("study")
    study.run(config(*FAST), folder)
    return folder, json.loads((folder / "result.json").read_text(encoding="utf-8"))["mobilenet_v2_cifar10"]


# The suite.


def test_no_order_no_seed_and_no_sample_of_tuning_is_in_the_report(cache):
    report, tune = suite.reporting(), suite.tuning()
    assert not {s.stream.conditions for s in report} & {s.stream.conditions for s in tune}
    assert not {s.stream.links for s in report} & {s.stream.links for s in tune}
    assert not {x for s in report for x in s.stream.links} & {x for s in tune for x in s.stream.links}
    assert not set(suite.SEEDS) & set(suite.TUNING_SEEDS)
    assert min(suite.TUNING_SEEDS) == tuning.FIRST_SEED > max(suite.SEEDS) + 100
    parts = [suite.prepared(cache, split) for split in (suite.REPORTING, suite.TUNING)]
    seen = [set(zip(part.split.tolist(), part.sample.tolist(), strict=True)) for part in parts]
    assert not seen[0] & seen[1]
    assert len({s.name for s in report}) == len(report)


def test_the_suite_holds_what_was_asked_for(cache):
    part = suite.prepared(cache, suite.REPORTING)
    made = {s.name: suite.world_of(s, part) for s in suite.reporting() if suite.missing(s, part) is None}
    assert len(made) == len(suite.reporting()) == 15
    assert all(world.arms.table[0].cut == (0 if world.raw_input_allowed else 1) for world in made.values())
    assert sum(world.raw_input_allowed for world in made.values()) == 1
    assert made["experts"].routing == "predicted"
    late = next(s for s in suite.reporting() if s.name == "late and lost").lateness
    assert (late.delay, late.lost) == (100, 0.1)
    hidden = next(s for s in suite.reporting() if s.name == "hidden change").stream
    a, b = (part.condition(name) for name in hidden.conditions[:2])
    assert np.array_equal(part.confidence[a, ..., :-1], part.confidence[b, ..., :-1])
    assert part.confidence[a, ..., -1].mean() > part.confidence[b, ..., -1].mean() + 0.1


def best_cuts(name, split=suite.REPORTING):
    """The best cut of each segment of one world, and by how much it beats every other cut there."""
    part = suite.prepared(ConfidenceCache.embedded("mobilenet_v2_cifar10"), split)
    setting = next(s for s in suite.SUITES[split]() if s.name == name)
    world = suite.world_of(setting, part)
    gap = world.arrays(setting.stream.conditions, setting.stream.links).gap
    cuts = np.array([arm.cut for arm in world.arms.table])
    found = []
    for s in range(len(gap)):
        best = int(cuts[gap[s, s].argmin()])
        found.append((best, float(gap[s, s, cuts != best].min())))
    return found


@pytest.mark.parametrize("name", ["ladder", "experts"])
def test_the_best_cut_of_mobilenet_moves_between_four_exits_or_more(name):
    found = best_cuts(name)
    assert len({cut for cut, _ in found}) >= 4
    assert len({cut for cut, lead in found if lead > 0.002}) >= 4  # and not for a hair


def test_prices_of_a_ladder_fall_with_depth_for_any_number_of_exits():
    for name in suite.LADDERS:
        for exits in (2, 3, 7, 12):
            prices = suite.listed(name, exits)
            assert len(prices.edge) == exits + 1
            assert (np.diff(prices.edge) > 0.0).all()
            assert (np.diff(prices.offload[1:]) < 0.0).all()
    assert suite.listed("ladder", 7).edge[1:] == suite.LADDERS["ladder"][0]


def test_a_cache_without_router_or_condition_is_told_what_it_lacks(cache):
    part = suite.prepared(cache, suite.REPORTING)
    by_name = {s.name: s for s in suite.reporting()}
    assert suite.missing(by_name["experts"], replace(part, router=None)) == "the cache has no router"
    assert "no calibration 'exit'" in suite.missing(by_name["ladder"], replace(part, calibrations={}))
    bare = replace(part, conditions=part.conditions[:2])
    assert suite.missing(by_name["distortion and link"], bare) == "the cache has no condition 'blur 1.0'"
    assert suite.missing(by_name["stationary"], bare) is None


# The arithmetic.


@given(st.floats(-60.0, 60.0), st.integers(1, 60))
@settings(max_examples=300, deadline=None)
def test_student_is_that_of_scipy(t, freedom):
    assert statistics.two_sided(t, freedom) == pytest.approx(2.0 * stats.t.sf(abs(t), freedom), rel=1e-6, abs=1e-13)


def test_paired_by_hand():
    found = statistics.paired([3.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    reference = stats.ttest_rel([3.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    assert found["mean"] == pytest.approx(4.0)
    assert found["p"] == pytest.approx(reference.pvalue)
    assert found["half"] == pytest.approx(reference.confidence_interval().high - 4.0, rel=1e-3)
    assert statistics.paired([1.0, 2.0], [1.0, 2.0])["p"] == 1.0
    assert statistics.paired([2.0, 3.0], [1.0, 2.0])["p"] == 0.0


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_never_makes_a_claim_surer_and_keeps_the_order(p):
    adjusted = statistics.holm(p)
    assert list(adjusted) == list(p)
    assert all(p[k] <= adjusted[k] <= min(1.0, len(p) * p[k]) + 1e-15 for k in p)
    order = sorted(p, key=p.get)
    assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))


def test_dominated_by_hand():
    sure = {"mean": -1.0, "half": 0.5}, {"mean": 0.1, "half": 0.05}
    assert statistics.dominates(*sure) == "surely"
    assert statistics.dominates({"mean": -1.0, "half": 2.0}, sure[1]) == "on average"
    assert statistics.dominates({"mean": 0.0, "half": 0.0}, sure[1]) == "no"
    assert statistics.dominates(sure[0], {"mean": -0.1, "half": 0.05}) == "no"


def test_recovery_by_hand():
    calm, wild = [0.01] * 50, [0.02] * 10
    assert play.recoveries(np.array(wild + calm + wild), np.array([0])) == [10.0]
    assert play.recoveries(np.array(wild + calm[1:] + wild), np.array([0])) == [69.0]  # 49 calm rounds are too few
    assert play.recoveries(np.array(wild + calm[1:] + wild + calm), np.array([0, 69])) == [69.0, 0.0]
    assert play.recoveries(np.array(calm + calm + wild), np.array([50])) == [0.0]
    assert play.recoveries(np.array(calm), np.array([], dtype=np.int64)) == []


@pytest.fixture(scope="module")
def place():
    """One abrupt world of the report with its arrays."""
    part = suite.prepared(ConfidenceCache.embedded("mobilenet_v2_cifar10"), suite.REPORTING)
    setting = next(s for s in suite.reporting() if s.name == "distortion and link")
    world = suite.world_of(setting, part)
    return setting, world, world.arrays(setting.stream.conditions, setting.stream.links)


def test_one_run_against_the_population_values(place):
    setting, world, arrays = place
    run = play.one(Fixed(cut=2, threshold=0.6), setting, world, arrays, horizon=800, seed=3)
    arm = world.arms.table.index(Arm(2, 0.6))
    gaps = np.repeat([arrays.gap[s, s, arm] for s in range(8)], 100)
    assert run["regret"] == pytest.approx(gaps.sum())
    assert run["recovery"] == [0.0 if g <= 0.01 else 100.0 for g in gaps[100::100]]
    assert run["curve"][-1] == pytest.approx(run["regret"])


def test_the_static_oracle_is_the_best_fixed_arm_and_the_others_are_bounds(place):
    setting, world, arrays = place
    found = play.oracles(setting, world, arrays, horizon=800, seed=3)
    regrets = arrays.gap[np.arange(8), np.arange(8)].sum(axis=0) * 100
    assert found["static"] == pytest.approx(regrets.min())
    assert found["clairvoyant"] < found["bin_rule"] < found["static"]
    final = play.one(FinalExit(), setting, world, arrays, horizon=800, seed=3)
    recorded = play.gathered([final, final], [found["dynamic"]] * 2, 800)
    assert recorded["realised_regret"][0] == pytest.approx(found["dynamic"] - 800 * final["reward"])
    assert not recorded["realised"]


def test_audits_are_paid_for_in_the_regret(place):
    setting, world, arrays = place
    audited = ConformalFloor(policy=Fixed(cut=2, threshold=0.6), target=0.99, audit=0.5)
    run = play.one(audited, setting, world, arrays, horizon=800, seed=3)
    without = play.one(Fixed(cut=2, threshold=0.6), setting, world, arrays, horizon=800, seed=3)
    assert run["audits"] > 0.2
    assert run["reward"] < without["reward"]
    assert run["regret"] - without["regret"] == pytest.approx(800 * (without["reward"] - run["reward"]))


# The contenders.


@pytest.mark.parametrize("name", [k for k, c in CONTENDERS.items() if c.lacking() is None])
def test_a_contender_builds_everywhere_in_its_space(name, place):
    contender = CONTENDERS[name]
    for exits in (3, 7):
        space = contender.space(exits)
        corners = [{k: s.start for k, s in space.items()}]
        for k, s in space.items():
            values = (s.low, s.high) if isinstance(s, Log) else s.values
            corners += [corners[0] | {k: value} for value in values]
            assert s.start in (s.values if isinstance(s, OneOf) else [s.start])
        for corner in corners:
            policy = contender.build(corner, exits)
            assert isinstance(policy, Policy)
    if not contender.needs_input:
        assert arms_of(contender.build({}, 7), contender.widened(place[1]).arms) is None


def test_a_contender_says_what_it_lacks_and_refuses_what_it_does_not_search():
    nobody = Contender(title="x", group="aware", needs=("nowhere:Nobody",), make=lambda _g, _e: FinalExit())
    assert nobody.lacking() == "offramp.bandits.nowhere has no Nobody"
    with pytest.raises(ValueError, match=r"\['width'\] of UCB1 are not searched, allowed are \['beta', 'part'\]"):
        CONTENDERS["ucb1"].build({"width": 1.0}, 7)
    assert CONTENDERS["adaee_aware"].nearest({"cut": 5, "beta": 0.3}, 3) == {"beta": 0.3}
    assert played_as_it_is(CONTENDERS["ucb1"], "x").space(7) == {}


def test_every_policy_gets_the_same_trials_and_never_less_than_its_default(place):
    class Course:
        arms = place[1].arms

        def regret(self, policy, contender):
            return abs(policy.beta - 0.1)

    counted = []
    found = tuning.tuned(CONTENDERS["ucb1"], Course(), 6, lambda: counted.append(1))
    assert len(counted) == found["trials"] == 6
    assert found["regret"] <= found["default"] == pytest.approx(0.9)
    assert found == tuning.tuned(CONTENDERS["ucb1"], Course(), 6, lambda: None)
    assert tuning.tuned(CONTENDERS["final_exit"], Course(), 6, lambda: counted.append(1))["chosen"] == {}
    assert len(counted) == 12


# The command.


def test_the_command_writes_tables_and_figures(written):
    folder, found = written
    assert set(found["worlds"]) == {"stationary", "distortion and link", "input may be sent"}
    assert set(found["policies"]) == set(FEW)
    assert "send_input" in found["worlds"]["input may be sent"]["played"]
    assert "send_input" in found["worlds"]["stationary"]["refused"]
    assert set(json.loads((folder / "tuned.json").read_text())["mobilenet_v2_cifar10"]) == set(FEW)
    for figure in ("money", "regret", "recovery"):
        text = (folder / f"{figure}_mobilenet_v2_cifar10.svg").read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "n = " in text
    page = (folder / "README.md").read_text(encoding="utf-8")
    for section in tables.SECTIONS:
        assert f"<!-- mobilenet_v2_cifar10 {section} -->\n\n|" in page
    assert not list(folder.glob("*.partial"))


def test_what_is_played_is_what_is_written_to_the_digit(written):
    folder, found = written
    settled = json.loads((folder / "tuned.json").read_text(encoding="utf-8"))["mobilenet_v2_cifar10"]
    for key, one in found["policies"].items():
        assert one["spec"] == repr(CONTENDERS[key].build(settled[key]["chosen"], found["exits"])), key


def test_a_run_goes_on_where_another_ended(written, tmp_path):
    """Nothing is played twice, and one policy can be played anew beside what is there."""
    folder, found = written
    for name in ("result.json", "tuned.json"):
        (tmp_path / name).write_text((folder / name).read_text(encoding="utf-8"), encoding="utf-8")
    study.run(config(*FAST[1:], "only=[final_exit]"), tmp_path)
    again = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["mobilenet_v2_cifar10"]
    for world, here in found["worlds"].items():
        for key, one in here["played"].items():
            assert again["worlds"][world]["played"][key] == one, (world, key)


def test_what_no_run_can_mean_is_refused(tmp_path):
    for override, message in (
        ("horizon=5", "horizon is 5, allowed is a whole number, 100 or more"),
        ("seeds=1", "seeds is 1"),
        ("only=[nobody]", r"only are \['nobody'\], allowed are some of"),
        ("worlds=[]", r"worlds are \[\], allowed are some of"),
    ):
        with pytest.raises(ValueError, match=message):
            study.run(config(override), tmp_path)
    with pytest.raises(ValueError, match="settings is 'elsewhere', allowed are 'own' and"):
        study.run(config(*FAST, "settings=elsewhere"), tmp_path)


def record(regret, cost=None):
    """A record of one world, made by hand: policy -> regret of each seed."""
    groups = {"joint": "joint", "old": "published", "new": "aware", "offload_first": "trivial"}
    played = {
        k: {
            "regret": v, "realised": False, "cost": (cost or {}).get(k, [0.2, 0.2]), "accuracy": [0.8, 0.8],
            "agreement": [0.9, 0.9], "offloads": [0.1, 0.1], "audits": [0.0, 0.0],
            "recovery": [10.0, 500.0, 20.0],
        }
        for k, v in regret.items()
    }  # fmt: skip
    oracles = {"static": [50.0, 60.0], "bin_rule": [-5.0, -5.0], "clairvoyant": [-9.0, -9.0], "dynamic": [1.0, 1.0]}
    world = {"played": played, "lacks": None, "abrupt": True, "oracles": oracles}
    policies = {k: {"title": k, "group": groups[k], "spec": "", "chosen": {}} for k in regret}
    return {"worlds": {"one": world}, "policies": policies, "absent": {}}


def test_claims_by_hand():
    found = record({"joint": [10.0, 12.0], "old": [100.0, 120.0], "new": [20.0, 20.0], "offload_first": [1e3, 1e3]})
    rows = {row["what"]: row for row in tables.claims(found)}
    assert rows["regret over the suite, against the best tuned published policy"]["found"].startswith(
        "0.100 (11 against"
    )
    assert rows["regret over the suite, against the best tuned published policy"]["holds"]
    assert not rows["regret over the suite, against the best cost-aware policy"]["holds"]
    assert rows["regret over the suite, against the best static arm in hindsight"]["holds"]
    assert rows["worst single world"]["holds"]
    assert rows["median rounds to recover"]["found"] == "20 over 3 changes"
    assert sums.reference(found) == "joint"
    worse = record({"joint": [60.0, 60.0], "old": [20.0, 20.0]})
    row = next(r for r in tables.claims(worse) if r["what"] == "worst single world")
    assert not row["holds"]
    assert "loses by 40" in tables.by_world("x", worse)


def test_a_policy_that_is_cheaper_and_more_accurate_is_named():
    found = record({"joint": [1.0, 1.0], "offload_first": [5.0, 5.0]}, cost={"offload_first": [0.1, 0.1]})
    found["worlds"]["one"]["played"]["offload_first"]["accuracy"] = [0.9, 0.9]
    row = next(r for r in tables.claims(found) if "SendInput" in r["what"])
    assert not row["holds"]
    assert row["found"] == "one (offload_first, surely)"


def test_without_the_joint_policy_the_best_learner_is_the_yardstick():
    found = record({"old": [100.0, 120.0], "new": [20.0, 20.0]})
    assert sums.reference(found) == "new"
    assert tables.claims(found)[0]["holds"] is None


@pytest.mark.parametrize("name", CACHES)
def test_the_page_is_made_of_the_data(name):
    """README.md between its markers is what result.json says."""
    path = HERE / "result.json"
    if not path.exists() or name not in json.loads(path.read_text(encoding="utf-8")):
        pytest.skip("the study has not been run on this cache")
    kept = json.loads(path.read_text(encoding="utf-8"))
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert tables.fill(page, kept) == page


def test_streams_of_the_suite_lay_out(cache):
    for split, made in suite.SUITES.items():
        for setting in made():
            rounds = next(iter(blocks(setting.stream, samples=10, horizon=100, seed=0)))
            assert len(rounds.sample) == 100, split
