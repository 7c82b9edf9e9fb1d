"""The page about a sweep where labels are strange, numbers are missing, and what lies beside the runs is damaged."""

import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from matplotlib import pyplot as plt

from offramp.experiments.collected import Collected, clipped, labels, spread
from offramp.experiments.playing import Silent, play_all
from offramp.experiments.report import Page, slug, write_report
from offramp.experiments.report_parts import told_of
from offramp.experiments.results import interval, t95
from offramp.experiments.sweeps import dataset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STRANGE = ("cost $x_{$ now", "_a b", "_A-b", "<i>&", "“ü”" * 60)
LADDER = [round(0.30 + 0.001 * i, 4) for i in range(45)]


@pytest.fixture(scope="module")
def played():
    """Rows of two policies in one world, three seeds each."""
    found = []
    for policy in ("final_exit", "ucb1"):
        with initialize_config_module("offramp.conf", version_base="1.3"):
            cfg = compose("compare", overrides=["threads=1", "horizon=300", "seeds=3", f"policy={policy}"])
        rows = dataset.rows(cfg, play_all(cfg, Silent()), 0.0)
        found.append([{**row, "policy": policy, "stream": "abrupt", "world": "default"} for row in rows])
    return found


def write(folder, rows, number, **changed):
    """A part of a data set: what was played, under other labels."""
    dataset.write_part(folder, [{**row, **changed, "key": f"{number:016x}"} for row in rows])


@pytest.fixture(scope="module")
def strange(played, tmp_path_factory):
    """Labels of all sorts in two worlds, one with many thresholds; one seed of the first whose numbers are missing."""
    tmp = tmp_path_factory.mktemp("strange")
    final, ucb1 = played
    of_world = json.loads(final[0]["world_config"])
    worlds = [json.dumps({**of_world, "thresholds": x}) for x in (["-inf", *LADDER, "inf"], ["-inf", 0.3, "inf"])]
    unknown = {"cost": math.nan, "accuracy": math.nan, "regret_total": math.nan}
    number = 0
    for world in worlds:
        for name, rows in (("final_exit", final), *((name, ucb1) for name in STRANGE)):
            some = [{**row, **unknown} if name == STRANGE[0] and row["seed"] == 1 else row for row in rows]
            if name == STRANGE[1]:
                some = [{**row, **unknown} for row in rows]
            write(tmp, some, number := number + 1, policy=name, world_config=world)
    write_report(tmp)
    return tmp


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((1, 1.0), ("1", "1.0")),
        ((0.1234567, 0.1234568), ("0.1234567", "0.1234568")),
        ((0.5, 1e-05), ("0.5", "1e-05")),
        ((True, "True", None, "None"), ("true", '"True"', "null", '"None"')),
        (("offramp.a", "a"), ('"offramp.a"', '"a"')),
    ],
)
def test_two_configurations_never_share_a_label(values, told):
    made = labels(["x"] * len(values), [json.dumps({"b": value}) for value in values])
    assert made == [f"x · b={text}" for text in told]


def test_what_still_looks_alike_is_numbered():
    middle = [[*LADDER[:20], x, *LADDER[20:]] for x in (0.5, 0.6)]
    made = labels(["x", "x", "x"], [json.dumps({"b": value}) for value in (*middle, middle[0])])
    short = f"x · b={clipped(json.dumps(middle[0]))}"
    assert made == [short, f"{short} · #2", short]
    assert len(short) < 60
    assert sorted(labels(["x", "x"], ['{"a": {}}', "{}"])) == ["x", "x · #2"]
    assert sorted(labels(["x · b=1", "x", "x"], ["{}", '{"b": 1}', '{"b": 2}'])) == [
        "x · b=1", "x · b=1 · #2", "x · b=2",
    ]  # fmt: skip


def test_seeds_of_nearly_equal_configurations_are_not_added_up(played, tmp_path):
    for number, beta in enumerate((0.1234567, 0.1234568)):
        write(tmp_path, played[1], number, policy_config=json.dumps({"beta": beta}))
    all_ = Collected(tmp_path)
    assert len(all_.policies) == 2
    assert {len(runs) for runs in all_.facets[0].policies.values()} == {3}


def test_any_label_makes_a_page_whose_figures_have_files_of_their_own(strange):
    page = (strange / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    figures = re.findall(r'<figure id="figure-([^"]*)">', page)
    assert {f"{name}.svg" for name in figures} == {path.name for path in (strange / "figures").iterdir()}
    assert len({name.casefold() for name in figures}) == len(figures)
    assert all(len(f"{name}.svg".encode()) < 255 for name in figures)
    assert ">cost $x_{$ now: " in page
    assert "<i>" not in page
    assert sum(name.endswith("-regret") for name in figures) == 2


def test_names_of_files_are_short_and_tell_long_labels_apart():
    long = [f"{'ü' * 100}{end}" for end in ("a", "b")]
    made = [slug(text) for text in long]
    assert len(set(made)) == 2
    assert all(len(name.encode()) <= 87 for name in made)
    assert slug("default · prices.mu=2") == "default-prices.mu-2"
    assert re.fullmatch("[0-9a-f]{6}", slug("· ·"))


def test_figures_that_would_share_a_name_are_numbered(strange, tmp_path):
    page = Page(tmp_path, Collected(strange))
    for text in ("a b", "a-b", "A b", "other"):
        page.figure(slug(text), plt.subplots(figsize=(1, 1))[0], text)
    made = ["A-b-3.svg", "a-b-2.svg", "a-b.svg", "other.svg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == made
    told = (("a-b", "a b"), ("a-b-2", "a-b"), ("A-b-3", "A b"), ("other", "other"))
    for (name, text), part in zip(told, page.parts, strict=True):
        assert f'id="figure-{name}"' in part
        assert f"<figcaption>{text}<" in part
        assert f'id="{name}-axes_1"' in part


def saved(text, number):
    return re.findall(rf'<tr data-policy="{number}"[^>]*>.*?data-metric="saved">(.*?)</td>', text)


def test_seeds_without_a_number_are_left_out_and_the_rest_counted(strange):
    all_ = Collected(strange)
    facet = all_.facets[0]
    ours, base = (facet.policies[p].set_index("seed") for p in (STRANGE[0], "final_exit"))
    expected = interval([1.0 - ours.cost[s] / base.cost[s] for s in (0, 2)]) | {"n": 2}
    assert facet.paired(STRANGE[0], "final_exit")["saved"] == pytest.approx(expected)
    assert facet.means(STRANGE[0], "cost") == pytest.approx(interval([ours.cost[s] for s in (0, 2)]) | {"n": 2})
    assert facet.paired(STRANGE[1], "final_exit") == {}
    page = (strange / "report.html").read_text(encoding="utf-8")
    told = f"{100 * expected['mean']:.1f} <small>±{100 * expected['half']:.1f}</small> <small>n = 2</small>"
    assert saved(page, all_.policies.index(STRANGE[0])) == [told] * 2
    assert saved(page, all_.policies.index(STRANGE[1])) == ["–"] * 2
    assert "nan" not in "".join(re.findall(r"<td[^>]*>.*?</td>", page))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_browser_says_what_was_written(strange, tmp_path):
    path = strange / "report.html"
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={tmp_path}", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'class="baseline"' in done.stdout  # the script has run
    page = path.read_text(encoding="utf-8")
    paired = re.compile(r'<td class="paired" data-metric="\w+">(.*?)</td>')
    written, shown = paired.findall(page), paired.findall(done.stdout)
    assert len(written) == 3 * 2 * (1 + len(STRANGE))
    assert shown == written


def test_rows_of_older_versions_are_counted(played, tmp_path):
    write(tmp_path, played[0], 0, source="older", written=1.0)
    write(tmp_path, played[0], 1, source="newer", written=2.0)
    all_ = Collected(tmp_path)
    assert set(all_.frame.source) == {"newer"}
    assert "Left out: 3 rows of runs that were played again" in told_of(tmp_path, all_)


@pytest.mark.parametrize("text", ['{"running": tr', "{}", "[]", "5", '{"finished": "x"}', "\xff"])
def test_a_status_that_no_sweep_wrote_is_told_and_the_page_made(played, tmp_path, text):
    write(tmp_path, played[0], 0)
    (tmp_path / "status.json").write_text(text, encoding="latin-1")
    assert "status.json is not what a sweep writes" in told_of(tmp_path, Collected(tmp_path))


def test_a_sweep_of_unknown_length_that_goes_on(played, tmp_path):
    write(tmp_path, played[0], 0)
    now = {"total": None, "finished": 3, "there": 1, "refused": 0, "failed": 0, "seconds": 5.0, "seconds_left": None}
    (tmp_path / "status.json").write_text(json.dumps({**now, "running": True}))
    assert "broken off: 4 jobs; 1 were there.</p>" in told_of(tmp_path, Collected(tmp_path))


def test_quantiles_of_student():
    stats = pytest.importorskip("scipy.stats")
    counts = np.arange(2, 400)
    errors = [abs(t95(int(n)) - stats.t.ppf(0.975, n - 1)) for n in counts]
    assert max(errors) < 5.5e-4  # the table has three decimals
    assert max(errors[30:]) < 1e-4
    runs = np.random.default_rng(0).normal(size=(40, 3))
    assert np.allclose(spread(runs)[1], [interval(x)["half"] for x in runs.T])
