"""The pages about speed are what the record gives; a group enters it without harm to others; peers play UCB1."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
FACTS = {"cores": 2, "virtual": True, "processor": "P", "gigabytes": 8, "system": "S", "python": "I", "compiler": "C"}
FACTS |= {"flags": "-O3", "packages": {"numpy": "2", "river": "not installed"}}
ABOUT = {"what": "What it is.", "at": "2026-01-02T03:04:05Z", "load": [0.1, 0.2, 0.3], "seconds": 1.5, "quick": False}
ORDER = ("one", "two", "three")


@pytest.fixture(scope="module", autouse=True)
def programs():
    """The benchmarks are programs: they import each other from their own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def module(name):
    return importlib.import_module(name)


def row(what="a", value=1.0, **more):
    return module("row").Row(what=what, value=value, low=value, high=value, unit="ms", count=3, **more)


@pytest.fixture
def folder(tmp_path):
    """Copies of the pages, and an empty record."""
    for page in module("pages").MARKERS:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    return tmp_path


def pages_in(folder):
    return {page: (folder / page).read_text(encoding="utf-8") for page in module("pages").MARKERS}


def test_the_pages_are_what_the_record_gives(folder):
    record = module("kept").read(BENCHMARKS / "result.json")
    page = module("pages").WHOLE
    text = (folder / page).read_text(encoding="utf-8")
    (folder / page).write_text(text.replace(" | met |", " | typed |"), encoding="utf-8")
    assert pages_in(folder) != pages_in(ROOT)
    module("pages").draw(folder, record)
    assert pages_in(folder) == pages_in(ROOT)


def test_every_row_that_readme_shows_was_measured():
    groups = module("kept").read(BENCHMARKS / "result.json")["groups"]
    assert not [name for name, group in groups.items() if group["quick"]]
    for name, wanted in module("front").CHOSEN.items():
        there = {each["what"] for each in groups[name]["rows"]}
        assert there.issuperset(wanted), (name, set(wanted) - there)


def test_a_page_that_lost_its_marker_is_refused_and_nothing_is_written(folder):
    pages = module("pages")
    text = (folder / pages.README).read_text(encoding="utf-8").replace("<!-- speed: reading -->", "")
    (folder / pages.README).write_text(text, encoding="utf-8")
    before = pages_in(folder)
    with pytest.raises(ValueError, match=r"README\.md has no block <!-- speed: reading -->"):
        pages.draw(folder, {"machines": {}, "groups": {}})
    assert pages_in(folder) == before


def test_a_group_measured_anew_leaves_the_others(tmp_path):
    kept, path = module("kept"), tmp_path / "result.json"
    record = kept.read(path)
    for name in ("two", "one"):
        assert kept.add(record, name, [row()], order=ORDER, facts=FACTS, **ABOUT) == ""
    kept.save(path, record)
    record = kept.read(path)
    other = FACTS | {"cores": 4}
    assert kept.add(record, "two", [row(value=float(2))], order=ORDER, facts=other, **ABOUT | {"at": "later"}) == ""
    kept.save(path, record)
    after = kept.read(path)
    assert list(after["groups"]) == ["one", "two"]
    assert after["groups"]["one"] == record["groups"]["one"]
    assert (after["groups"]["two"]["rows"][0]["value"], after["groups"]["two"]["at"]) == (2.0, "later")
    assert {facts["cores"] for facts in after["machines"].values()} == {2, 4}
    assert kept.add(record, "one", [row()], order=ORDER, facts=other, **ABOUT) == ""
    kept.save(path, record)
    assert [facts["cores"] for facts in kept.read(path)["machines"].values()] == [4]


def test_a_group_that_failed_does_not_replace_a_good_one(folder):
    kept, pages = module("kept"), module("pages")
    record = kept.read(folder / "none.json")
    gap = [row(value=2.0), module("row").failed("b", "OSError: no | luck")]
    told = kept.add(record, "one", gap, order=ORDER, facts=FACTS, **ABOUT)
    assert told == "one: without a number: b: OSError: no | luck"
    assert "| b | **no number** |  | 0 |  | **failed** | OSError: no \\| luck |" in pages.table(record)
    kept.add(record, "one", [row(value=3.0)], order=ORDER, facts=FACTS, **ABOUT)
    told = kept.add(record, "one", gap, order=ORDER, facts=FACTS, **ABOUT | {"at": "later"})
    assert told.endswith("what was measured on 2026-01-02T03:04:05Z stays")
    assert record["groups"]["one"]["rows"][0]["value"] == 3.0
    assert "**Measured again later and left as it was, for it failed:** b: OSError" in pages.table(record)
    kept.add(record, "one", [row(value=4.0)], order=ORDER, facts=FACTS, **ABOUT)
    assert "failed" not in pages.table(record)


def test_a_record_that_is_none_is_refused(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match="allowed are machines and groups"):
        module("kept").read(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("reason", "load", "why"),
    [
        ("it waits", [0.1, 0.1, 0.1], "it waits"),
        ("", [1.5, 0.1, 0.1], "measured beside other work (load 1.5 on 2 cores)"),
        ("", None, "not explained"),
    ],
)
def test_a_miss_is_bold_and_says_why(reason, load, why):
    kept, pages = module("kept"), module("pages")
    record = kept.read(ROOT / "none.json")
    missed = row(value=12_345.6, target=9.0, reason=reason)
    kept.add(record, "one", [missed, row("b", 0.5, target=9.0)], order=ORDER, facts=FACTS, **ABOUT | {"load": load})
    text = pages.table(record)
    assert f"| a | **12,346 ms** | 12,346 to 12,346 | 3 | ≤ 9 ms | **missed** | **missed: {why}** |" in text
    assert "| b | 0.5 ms | 0.5 to 0.5 | 3 | ≤ 9 ms | met |  |" in text
    assert module("cells").why(missed, record["groups"]["one"], record) == why


def test_readme_shows_each_miss_and_no_quartiles_of_parts_beside_a_percentile_of_all():
    kept, front, pages = (module(name) for name in ("kept", "front", "pages"))
    record = kept.read(ROOT / "none.json")
    found = [row("b", 0.5, target=9.0), row("b, p99", 10.0, target=9.0), row("c", 10.0, target=9.0)]
    kept.add(record, "one", found, order=ORDER, facts=FACTS, **ABOUT)
    assert [line for line in front.chosen(record).splitlines() if " ms" in line] == [
        "| b, p99 | **10 ms** | ≤ 9 ms **missed** |",
        "| c | **10 ms** (10 to 10) | ≤ 9 ms **missed** |",
    ]
    assert "| p99 of all requests, quartiles of the p99 of parts; **missed: " in pages.table(record)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--only", "nothing"), ("invalid choice: 'nothing'", "peers", "service", "sweep")),
        (("--quick", "--folder", str(ROOT)), ("--quick into this checkout is refused",)),
        (("--draw", "--quick"), ("--draw measures nothing",)),
    ],
)
def test_what_is_asked_wrongly_is_refused(asked, told):
    command = [sys.executable, str(BENCHMARKS / "run.py"), *asked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert all(text in done.stderr for text in told), done.stderr


def test_one_group_from_measuring_to_the_page(folder):
    command = [sys.executable, "-W", "error", str(BENCHMARKS / "run.py"), "--quick", "--only", "durable"]
    done = subprocess.run([*command, "--folder", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = module("kept").read(folder / "benchmarks/result.json")
    (name, group), pages = next(iter(record["groups"].items())), module("pages")
    shown = module("cells").number(group["rows"][0]["value"])
    assert (name, group["quick"]) == ("durable", True)
    assert all(f"{shown} µs" in text for text in pages_in(folder).values())
    assert "a quick run, to be looked at only" in (folder / pages.WHOLE).read_text(encoding="utf-8")
    assert "**not measured**" in (folder / pages.README).read_text(encoding="utf-8")


def textbook(rewards):
    """UCB1 as Auer et al. print it: each arm once, then the largest mean + sqrt(2 ln t / n)."""
    pulls, total, played = np.zeros(12), np.zeros(12), []
    for t, reward in enumerate(rewards):
        arm = t if t < 12 else int(np.argmax(total / pulls + np.sqrt(2.0 * np.log(t) / pulls)))
        pulls[arm] += 1
        total[arm] += reward[arm]
        played.append(arm)
    return played


@pytest.mark.parametrize("name", ["array_level", "refilled", "engine", "river", "lightrl", "mabwiser"])
def test_each_plays_ucb1(name):
    if name in ("river", "lightrl", "mabwiser"):
        pytest.importorskip(name)
    players = module("players")
    rewards = players.matrix(1_500, seed=1).tolist()
    played = getattr(players, name)(rewards)
    assert sorted(played[:12]) == list(range(12))
    assert np.bincount(played).argmax() == 11
    if name != "river":  # it draws the order of the first twelve
        assert played == textbook(rewards)


def test_the_compiled_run_and_c_pull_the_same_arms_and_a_missing_peer_is_a_row(monkeypatch):
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    peers, players = module("peers"), module("players")
    monkeypatch.setattr(peers, "REPEATS", 1)
    absent = players.Peer("no-such-peer", "ask, tell", players.lightrl, players.FEW)
    monkeypatch.setattr(peers, "PEERS", (absent,))
    rows = list(peers.peers(quick=True))  # refuses runs whose pulls are not those of the array level
    assert [r.note for r in rows if r.verdict == "failed"] == ["not installed: pip install no-such-peer"]
    assert sum(r.value > 0 for r in rows) == 6


def test_a_peer_that_does_not_learn_is_refused():
    with pytest.raises(ValueError, match=r"idle pulled .* allowed is a run in which the last, best arm leads"):
        module("peers").learnt("idle", [0, 1, 2, 2], [0, 1, 2, 3])
