"""Links that change: a cell by hand, the choice in hindsight, the command from end to end, the page from its data."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.bandits import FinalExit
from offramp.environments.devices import DeviceProfile
from offramp.environments.replay import arms_of
from offramp.experiments import link_change
from offramp.experiments.joint_policy.contenders import CONTENDERS
from offramp.experiments.link_change import cases, study, sums, tables

HERE = Path(link_change.__file__).parent
NAME = "mobilenet_v2_imagenette"
LINK = "3g/2010-09-21_0742"
FAST = ["quick=true", "only=[joint,final_exit,send_input]", "cases=[3g board distorted]", "variants=false"]


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("link_change", overrides=list(overrides))


@pytest.fixture(scope="module")
def place():
    return study.opened(config())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command on two links with three policies; its folder and what it recorded."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:  # so that a file that changes meanwhile does not matter
        patch.setattr(study, "sources", lambda: "the same")
        link_change.run(config(*FAST), folder)
    return folder, json.loads((folder / "result.json").read_text(encoding="utf-8"))[NAME]


# What is played.


def test_there_are_two_edges_on_twelve_links_of_each_kind_with_and_without_distortion():
    assert len(cases.CASES) == 8
    assert {len(case.traces) for case in cases.CASES.values()} == {12}
    assert {(c.kind, c.edge, c.distorted) for c in cases.CASES.values()} == {
        (kind, edge, distorted) for kind in ("3g", "4g") for edge in ("board", "phone") for distorted in (False, True)
    }


def test_no_request_waits_for_the_one_before_it_and_time_is_worth_the_same_share_on_both_edges(place):
    for name in ("3g board", "4g phone"):
        case = cases.CASES[name]
        world, edge = place.world(case, case.traces[0]), cases.EDGES[case.edge]
        whole = world.prices.edge.edge_ms("prefix")[-1]
        assert whole < edge.every_ms
        assert world.prices.weights.second * world.prices.edge.total_ms / 1e3 == pytest.approx(place.image_price)
        assert world.prices.edge.total_ms == pytest.approx(edge.slower * place.server.total_ms)
        assert world.coding == edge.slower


def test_every_policy_of_the_report_plays_here(place):
    world = place.world(cases.CASES["3g board"], LINK)
    policies = cases.contenders(place.exits)
    assert set(policies) == set(cases.PLAYED)
    for key, policy in policies.items():
        assert arms_of(policy, CONTENDERS[key].widened(world.world).arms) is None, key
    assert len(cases.fixed(world)) == 1 + 6 * 21 + 1


def test_confidences_of_cache_and_payloads_have_one_temperature(place):
    """What the cloud says of a lossless payload is what the whole network says, calibrated alike."""
    world = place.world(cases.CASES["3g board"], LINK)
    facts = world.facts(("pristine",))
    table = world.payloads
    chosen = [v for v, codec in enumerate(np.array(table.codecs)[np.argsort(table.splits, kind="stable")])
              if codec in ("raw", "png", "float32")]  # fmt: skip
    assert len(chosen) >= 3
    assert np.abs(facts.sent_confidence[0, chosen] - facts.confidence[0, :, -1]).max() < 2e-3


# The sums.


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.integers(0, 9),
)
def test_the_frontier_holds_the_quickest_of_those_that_are_accurate_enough(points, floor):
    latency, accuracy = np.array(points, dtype=float).T
    kept = study.frontier(latency, accuracy)
    fit, held = np.flatnonzero(accuracy >= floor), [i for i in kept if accuracy[i] >= floor]
    assert bool(held) == bool(len(fit))
    if held:
        assert min(latency[held]) == min(latency[fit])


def run_of(latency, accuracy, reward=(0.7, 0.7), **more):
    return {
        "latency_ms": list(latency),
        "later_ms": [x - 20.0 for x in latency],
        "accuracy": list(accuracy),
        "reward": list(reward),
        **more,
    }


def record():
    """One link, two seeds, three fixed choices."""
    fixed = [
        run_of((80.0, 100.0), (0.70, 0.70), (0.60, 0.60), cut=1, threshold="always"),
        run_of((100.0, 100.0), (0.79, 0.80), (0.65, 0.65), cut=2, threshold=0.5),
        run_of((150.0, 170.0), (0.81, 0.83), (0.64, 0.64), cut=0, threshold="never"),
    ]
    return {"played": {"joint": run_of((104.0, 108.0), (0.80, 0.80)), "old": run_of((90.0, 90.0), (0.81, 0.81))},
            "fixed": fixed, "mbit_s": 1.0}  # fmt: skip


def test_the_choice_in_hindsight_by_hand():
    here = record()
    near, equal = sums.judged(here), sums.judged(here, less=0.0)
    assert near["arm"]["cut"] == 2
    assert near["ratio"]["mean"] == pytest.approx(1.06)
    assert near["later"] == pytest.approx(86.0 / 80.0)
    assert not near["holds"]
    assert near["accuracy"]["mean"] == pytest.approx(0.005)
    assert equal["arm"]["cut"] == 0  # .795 is not .80
    assert equal["ratio"]["mean"] == pytest.approx(106.0 / 160.0)
    assert equal["holds"]
    assert sums.counted({"a": here}) == (0, 1)
    assert sums.best_earning(here)["cut"] == 2
    assert sums.quicker({"a": here}, ["joint", "old"]) == [("a", "old")]


def test_who_is_more_accurate_than_every_fixed_choice_has_none_to_beat():
    here = record()
    here["played"]["joint"]["accuracy"] = [0.9, 0.9]
    found = sums.judged(here)
    assert found == {"arm": None, "ratio": None, "later": None, "accuracy": None, "holds": True}
    assert tables.fraction(found["ratio"]) == "none as accurate"


def test_differences_are_paired_by_link():
    case = {"a": record(), "b": record()}
    case["b"]["played"]["old"]["latency_ms"] = [110.0, 110.0]
    found = sums.differences(case, "old", "latency_ms")
    assert found["mean"] == pytest.approx(((90 - 106) + (110 - 106)) / 2)


def test_a_fixed_choice_in_words():
    said = [tables.title(arm) for arm in record()["fixed"]]
    assert said == ["exit 1 answers", "exit 2 from 0.5", "send the input"]
    assert tables.title({"cut": 2, "threshold": "never"}) == "exit 2 never answers"


# The command.


def test_one_cell_by_hand(written, place):
    """The final exit computes all of every image: milliseconds, millijoules, accuracy and reward in a line each."""
    _, found = written
    cell = found["cases"]["3g board distorted"][LINK]
    case, edge = cases.CASES["3g board distorted"], cases.EDGES["board"]
    device = DeviceProfile.embedded(NAME)
    ms = 32.0 * (sum(device.segment_ms) + sum(device.head_ms))
    n = int(20_000.0 / (1_000.0 / 3.0))
    assert cell["requests"] == n
    run = cell["played"]["final_exit"]
    assert run["latency_ms"] == pytest.approx([ms, ms], rel=1e-5)
    assert run["latency_p95_ms"] == pytest.approx([ms, ms], rel=1e-5)
    assert run["later_ms"] == pytest.approx([ms, ms], rel=1e-5)
    assert run["energy_mj"] == pytest.approx([6.4 * ms] * 2, rel=1e-5)
    assert run["offloaded"] == [0.0, 0.0]
    assert run["agreement"] == [1.0, 1.0]
    world = place.world(case, LINK)
    whole = 32.0 * (sum(device.segment_ms) + device.head_ms[-1])
    for seed in range(2):
        stream = _quick().stream(case)
        rounds = world.rounds(stream, horizon=n, seed=seed)
        order = [place.cache.condition(name) for name in stream.conditions]
        condition = np.array(order)[rounds.condition]
        right = place.cache.prediction[condition, 0, rounds.sample, -1] == place.cache.label[rounds.sample]
        sure = place.cache.confidence[condition, 0, rounds.sample, -1]
        assert run["accuracy"][seed] == pytest.approx(right.mean(), abs=1e-5)
        assert run["reward"][seed] == pytest.approx(sure.mean() - 0.2 * ms / whole, abs=2e-5)
    always = [one for one in cell["fixed"] if one["cut"] == place.exits]
    assert all(one["latency_ms"] == run["latency_ms"] for one in always)
    assert isinstance(cases.contenders(place.exits, ["final_exit"])["final_exit"], FinalExit)
    assert edge.power_w == 6.4


def _quick():
    """The place of a quick run."""
    return study.opened(config("quick=true", "segment_s=4.0"))


def test_the_command_writes_tables_and_figures(written):
    folder, found = written
    assert list(found["cases"]) == ["3g board distorted"]
    assert len(found["cases"]["3g board distorted"]) == 2
    for figure in ("ratios", "scatter"):
        text = (folder / f"{figure}_{NAME}.svg").read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "n = " in text
    page = (folder / "README.md").read_text(encoding="utf-8")
    for section in tables.sections(found):
        assert f"<!-- {NAME} {section} -->\n\n|" in page
    assert not list(folder.glob("*.partial"))


def test_a_run_goes_on_where_another_ended(written, tmp_path, monkeypatch):
    folder, found = written
    kept = {NAME: {**found, "cases": {"3g board distorted": dict(found["cases"]["3g board distorted"])}}}
    lost = kept[NAME]["cases"]["3g board distorted"].pop(LINK)
    (tmp_path / "result.json").write_text(json.dumps(kept), encoding="utf-8")
    asked, real = [], study.play_trace

    def spied(place, case, trace, *rest):
        asked.append(trace)
        return real(place, case, trace, *rest)

    monkeypatch.setattr(study, "play_trace", spied)
    monkeypatch.setattr(study, "sources", lambda: "the same")
    link_change.run(config(*FAST), tmp_path)
    assert asked == [LINK]
    again = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))[NAME]
    assert again["cases"]["3g board distorted"][LINK] == lost
    assert folder != tmp_path


def test_what_no_run_can_mean_is_refused(tmp_path):
    for override, message in (
        ("seeds=1", "seeds is 1, allowed is a whole number, 2 or more"),
        ("scale=0.0", "scale is 0.0, allowed is a finite number > 0"),
        ("only=[nobody]", r"only are \['nobody'\], allowed are some of"),
        ("cases=[]", r"cases are \[\], allowed are some of"),
        ("episode.trace=5g/none", "episode is '3g board' on '5g/none'"),
    ):
        with pytest.raises(ValueError, match=message):
            link_change.run(config(override), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="calibration is 'best'"):
        link_change.run(config("calibration=best"), tmp_path)


def test_the_page_is_made_of_the_data():
    """README.md between its markers is what result.json says."""
    path = HERE / "result.json"
    if not path.exists():
        pytest.skip("the study has not been run")
    page = (HERE / "README.md").read_text(encoding="utf-8")
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert tables.fill(page, kept) == page
    for section in tables.sections(kept[NAME]):
        assert f"<!-- {NAME} {section} -->" in page, section
