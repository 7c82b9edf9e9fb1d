"""The headline over images: parts share none, a part's accuracy by hand, how wide the interval is, what is bold."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from offramp.environments import Abrupt
from offramp.experiments import headline
from offramp.experiments.expert_branches.systems import EXPERTS, SYSTEMS, answers_of, views
from offramp.experiments.headline import images, playing, prices, tables
from offramp.experiments.headline.playing import BEST, WHOLE
from offramp.experiments.headline.study import against

PARTS, BEST_EXIT = 20, 2
STREAM = Abrupt(segments=(("blur 1.0", 1.0),))


@pytest.fixture(scope="module")
def config():
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("headline")


@pytest.fixture(scope="module")
def right(embedded):
    """Whether each exit of the experts is right on each test image of the stream, (N, L)."""
    caches = views(embedded)
    return answers_of(SYSTEMS[EXPERTS], caches).correct[caches["raw"].condition("blur 1.0")]


@pytest.fixture(scope="module")
def runs(embedded, config):
    """Two fixed rules on parts of 500 images, each image once."""
    plan = {"blurred": images.Played(
        stream=STREAM, best=BEST_EXIT, who=(BEST, WHOLE), prices={"paper": prices.paper(config, embedded.profile)}
    )}  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        table = playing.Table(horizon=500, seeds=range(PARTS), pool=pool, played=lambda: None)
        return images.apart(config, views(embedded), plan, table)["blurred", "paper"]


def test_parts_share_no_image_and_leave_none_out():
    dealt = images.parts(1_003, 20)
    assert {len(part) for part in dealt} == {50, 51}
    np.testing.assert_array_equal(np.sort(np.concatenate(dealt)), np.arange(1_003))
    with pytest.raises(ValueError, match="has 19 test images, allowed are at least as many as seeds, 20"):
        images.parts(19, 20)


def test_each_seed_sees_its_part_alone(runs, right):
    dealt = images.parts(len(right), PARTS)
    for who, at in ((BEST, BEST_EXIT - 1), (WHOLE, -1)):
        np.testing.assert_allclose(runs[who]["accuracy"], [right[part, at].mean() for part in dealt])


def test_the_interval_is_that_of_images(runs, right, embedded, config):
    """As wide as the normal interval of a mean of the images' differences; over streams of all images it is not."""
    found = against(runs[BEST], runs[WHOLE])["gained"]
    differ = 100.0 * (right[:, BEST_EXIT - 1].astype(float) - right[:, -1])
    assert found["mean"] == pytest.approx(differ.mean())
    by_hand = 1.96 * differ.std(ddof=1) / np.sqrt(len(differ))
    assert 0.6 < found["half"] / by_hand < 1.6  # a deviation of twenty numbers, and t for 19 degrees of freedom
    caches = views(embedded)
    on = playing.grounds(caches, STREAM, config)
    jobs = playing.players(config, on, prices.paper(config, embedded.profile), BEST_EXIT)
    with ThreadPoolExecutor(2) as pool:
        table = playing.Table(horizon=len(right), seeds=range(PARTS), pool=pool, played=lambda: None)
        same = table.play({who: jobs[who] for who in (BEST, WHOLE)})
    assert against(same[BEST], same[WHOLE])["gained"]["half"] < 1e-6 < by_hand


def test_bold_is_who_surely_loses():
    saved = {"mean": 30.0, "half": 0.5}
    assert tables.both({"saved": saved, "gained": {"mean": -0.1, "half": 0.2}}) == "30.0 ±0.5 %, -0.1 ±0.2 points"
    assert tables.both({"saved": saved, "gained": {"mean": -0.3, "half": 0.2}}) == "**30.0 ±0.5 %, -0.3 ±0.2 points**"


def test_who_is_more_accurate_than_the_policy_is_bold_on_the_page():
    """Every player that it is compared with, on every stream of the committed record."""
    kept = json.loads((Path(headline.__file__).parent / "result.json").read_text(encoding="utf-8"))
    lines = tables.streams(kept).splitlines()[2:]
    bold = sum(line.count("**") // 2 for line in lines)
    gained = [
        row["against"][who]["gained"] for f in kept.values() for row in f["streams"] for who in tables.COMPARED
    ] + [row["picked"]["gained"] for f in kept.values() for row in f["streams"]]
    assert bold == sum(g["mean"] + g["half"] < 0.0 for g in gained) > 9
    alexnet = next(line for line in lines if line.startswith("| alexnet_cifar10 | harsh |"))
    assert alexnet.count("**") == 4  # the best exit and I-SplitEE
