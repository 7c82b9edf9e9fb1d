"""The page about a sweep: it parses, holds everything, says what the data say, and its filters work in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module

from offramp.experiments.collected import Collected, labels, spread
from offramp.experiments.playing import Silent, play_all
from offramp.experiments.report import write_report
from offramp.experiments.results import interval
from offramp.experiments.sweeps import dataset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "input", "br", "hr", "img", "link"}


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("compare", overrides=["threads=1", "horizon=1000", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two policies in one comparison, two streams and two prices; one run that failed, one that is not offered."""
    tmp = tmp_path_factory.mktemp("report")
    for stream in ("abrupt", "stationary"):
        for mu in (1.0, 2.0):
            for policy in ("final_exit", "ucb1", "send_input"):
                seeds = 3 if policy == "ucb1" else 4
                cfg = config(f"stream={stream}", f"policy={policy}", f"world.prices.mu={mu}", f"seeds={seeds}")
                rows = dataset.rows(cfg, play_all(cfg, Silent()), 0.0)
                for row in rows:  # where Hydra runs a program it knows what was chosen
                    row |= {"policy": policy, "stream": stream, "world": "default"}
                dataset.write_part(tmp, rows)
    lost = dataset.failure(config("stream=abrupt", "policy=splitee"), "ValueError: <what>\n\nTraceback", 1.0)
    dataset.write_part(tmp, [{**row, "policy": "splitee", "stream": "abrupt", "world": "default"} for row in lost])
    write_report(tmp)
    return tmp


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def behind(page, name):
    """The table that is linked behind a figure."""
    figure = page[page.index(f'<figure id="figure-{name}">') :]
    found = re.search(r'href="data:text/csv;base64,([^"]*)"', figure[: figure.index("</figure>")])
    return pd.read_csv(io.BytesIO(base64.b64decode(found[1])))


def test_it_parses_and_needs_nothing_from_elsewhere(page):
    open_ = []

    class Checked(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in VOID:
                open_.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            assert open_.pop() == tag

    Checked().feed(page)
    assert open_ == []
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert "src=" not in page
    assert "@import" not in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_what_is_raw_is_kept_and_folded_below_a_line_that_says_what_it_is(page):
    lines = re.findall(r"<details><summary>([^<]+)</summary><pre>", page)
    assert len(lines) == page.count("<pre>")
    assert {"worlds and streams, as YAML", "policies, as YAML", "prices and rules of this world, as YAML"} < {*lines}
    assert any(re.fullmatch(r"\d+ entries, as JSON", line) for line in lines)
    assert "cascades: null" in page
    assert "horizon: 1000" in page.split("Configuration", 1)[1]
    assert "&quot;right&quot;" in page


def test_every_figure_has_axes_n_interval_and_data(page):
    figures = re.findall(r'<figure id="figure-([^"]*)">(.*?)</figure>', page, flags=re.DOTALL)
    names = [name for name, _ in figures]
    assert (
        len(names) == 2 + 4 * 4 - 2 + 1 + 1
    )  # fronts; regret, calibration, choices, recovery of one stream; exits, samples
    for name, text in figures:
        if name == "samples":
            continue
        assert "data:text/csv" in text, name
        if name != "exits":
            assert "n = 3 to 4 seeds" in text
        if (
            not name.startswith("exits")
            and "choices" not in name
            and re.search("regret|recovery|calibration|front", name)
        ):
            assert "95 %" in text
    for axis in (
        "cumulative regret (confidence units)", "rounds since distortion or link changed", "confidence of the answer",
        "share of right answers", "cost per image (cost units)", "accuracy (%)", "regret a round (confidence units)",
    ):  # fmt: skip
        assert axis in page


def test_the_data_behind_the_figures_are_those_of_the_data_set(folder, page):
    frame = dataset.read(folder)
    ucb1 = frame[(frame.policy == "ucb1") & (frame.stream == "abrupt") & frame.world_config.str.contains('"mu": 2.0')]
    assert len(ucb1) == 3
    name = "default-prices.mu-2-abrupt"
    shown = behind(page, f"{name}-regret")
    shown = shown[shown.policy == "ucb1"]
    curves = np.stack(ucb1.regret_sum.tolist()).astype(float)
    assert shown["round"].tolist() == ucb1["rounds"].iloc[0].tolist()
    assert np.allclose(shown.regret, curves.mean(axis=0), rtol=1e-5)
    assert np.allclose(shown.half, [interval(c)["half"] for c in curves.T], rtol=1e-5)
    assert set(shown.n) == {3}
    front = behind(page, "default-abrupt-front")
    point = front[(front.policy == "ucb1") & front.price.str.contains("mu=2")].iloc[0]
    assert point.cost == pytest.approx(ucb1.cost.mean(), rel=1e-5)
    assert point.accuracy_half == pytest.approx(interval(ucb1.accuracy.tolist())["half"], rel=1e-4)
    bins = behind(page, f"{name}-calibration")
    count, right = (np.stack(ucb1[c].tolist()).astype(float) for c in ("answers", "answers_correct"))
    kept = bins[bins.policy == "ucb1"]
    many = count >= 5
    enough = many.sum(axis=0) >= 2
    assert kept.answers.tolist() == count.sum(axis=0)[enough].tolist()
    expected = [(right[:, b] / count[:, b])[many[:, b]].mean() for b in np.flatnonzero(enough)]
    assert np.allclose(kept.accuracy, expected, rtol=1e-5)
    assert count.sum() == 3 * 512
    after = behind(page, f"{name}-recovery")
    assert (after[after.policy == "ucb1"].until.max() <= 125) & (after.changes == 7).all()
    everything = re.search(r'download="runs.csv" href="data:text/csv;base64,([^"]*)"', page)
    rows = pd.read_csv(io.BytesIO(base64.b64decode(everything[1])))
    assert len(rows) == (frame.status == dataset.FINISHED).sum() == 2 * 2 * (3 + 4)
    assert rows.cost.sum() == pytest.approx(frame.cost.sum(), rel=1e-5)


def test_differences_are_paired_over_the_seeds_that_both_played(folder, page):
    all_ = Collected(folder)
    assert all_.baseline == "final_exit"
    facet = next(f for f in all_.facets if all_.title(f) == "default · prices.mu=2, stream abrupt")
    ours, base = (facet.policies[p].set_index("seed") for p in ("ucb1", "final_exit"))
    saved = interval([1.0 - ours.cost[s] / base.cost[s] for s in (0, 1, 2)]) | {"n": 3}
    assert facet.paired("ucb1", "final_exit")["saved"] == pytest.approx(saved)
    cell = f"{100 * saved['mean']:.1f} <small>±{100 * saved['half']:.1f}</small>"
    assert f'data-metric="saved">{cell}</td>' in page


def test_what_failed_and_what_is_not_offered_is_said(page):
    assert "&lt;what&gt;" in page
    assert "<what>" not in page
    assert "Runs that failed" in page
    assert "not offered" in page


def test_labels_say_in_what_configurations_differ():
    one, two = (json.dumps({"a": {"b": x}, "c": 1}) for x in (0.5, 2.0))
    assert labels(["x", "x", "y"], [one, two, one]) == ["x · a.b=0.5", "x · a.b=2", "y"]


def test_spread_leaves_out_what_is_not_known():
    mean, half, n = spread(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 2.0]]))
    assert mean.tolist() == [2.0, 2.0]
    assert n.tolist() == [2, 1]
    assert half[0] == pytest.approx(interval([1.0, 3.0])["half"])
    assert np.isnan(half[1])


def test_the_whole_dataset_of_a_sweep_that_goes_on(folder, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    now = {"total": 9, "finished": 3, "there": 1, "refused": 0, "failed": 1, "seconds": 5.0, "seconds_left": 61.0}
    (tmp_path / "status.json").write_text(json.dumps({**now, "running": True}))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "5 of 9 jobs; 1 failed, 1 were there, 1:01 left" in page


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_filters_work_in_a_browser(folder, page, tmp_path):
    all_ = Collected(folder)
    policy = {name: all_.policies.index(name) for name in ("final_exit", "ucb1")}
    view = f"policy={policy['ucb1']}&stream={all_.streams.index('abrupt')}&baseline={policy['ucb1']}"
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={tmp_path}", "--dump-dom",
            f"{(folder / 'report.html').as_uri()}#{view}",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = done.stdout

    def tags(of):
        return [tag for tag in re.findall(r"<(?:g|tr|section|div)\b[^>]*>", shown) if of in tag]

    for number in policy.values():
        marked = tags(f'data-policy="{number}"')
        assert len(marked) > 20
        assert all(("away" in tag) == (number != policy["ucb1"]) for tag in marked)
    sections = [tag for tag in tags("data-stream") if tag.startswith("<section")]
    assert sum("away" in tag for tag in sections) == len(sections) / 2 == 2
    rows = re.findall(rf'<tr data-policy="{policy["ucb1"]}" class="baseline">(.*?)</tr>', shown)
    assert len(rows) == 4
    assert all('data-metric="saved">0.0 <small>±0.0</small>' in row for row in rows)
    facet = next(f for f in all_.facets if all_.title(f) == "default · prices.mu=2, stream abrupt")
    other = facet.paired("final_exit", "ucb1")["regret_change"]
    assert f'data-metric="regret_change">{other["mean"]:.0f} <small>±{other["half"]:.0f}</small>' in shown
