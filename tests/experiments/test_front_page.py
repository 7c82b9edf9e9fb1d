"""README and the page of results hold what the records say; a page is filled whole, or not at all."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.experiments import front_page

ROOT = Path(__file__).parents[2]
PLAYED = ("demo", "demo tables")  # test_readme.py plays the demo again
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name, text=README):
    """What stands between the markers of a block."""
    return re.search(rf"^<!-- {name} -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL | re.MULTILINE)[1]


def rows(table):
    """Cells of a table below its heads, by the first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): row[1:] for row in lines[2:]}


@pytest.mark.parametrize("name", [name for name in front_page.sections(ROOT) if name not in PLAYED])
def test_a_block_is_what_the_records_say(name):
    assert block(name) == front_page.sections(ROOT)[name]()


def test_the_short_table_of_the_demo_is_part_of_the_full_ones():
    results = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    worlds = block("demo tables", results).split("World `")[1:]
    for policy, cells in rows(block("demo")).items():
        for place, world in enumerate(worlds):
            full = rows(world)[policy]
            if full[0] == "not offered":
                assert cells[2 * place] == "not offered"
            else:
                saved, accuracy, change = full[1], full[2].split(" ")[0], full[3]
                assert cells[2 * place : 2 * place + 2] == [saved, f"{accuracy} ({change})"], (policy, place)


def test_the_image_is_the_one_that_the_cache_calls_by_that_number():
    shown = front_page.one_image(ROOT)
    sheet = np.asarray(Image.open(ROOT / front_page.SHEET).convert("RGB"))
    across = sheet.shape[1] // 32
    top, left = 32 * (front_page.IMAGE // across), 32 * (front_page.IMAGE % across)
    assert (shown.images[0] == sheet[top : top + 32, left : left + 32]).all()
    assert front_page.IMAGE in ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test").sample


def copied(tmp_path):
    """A folder with pages, records and pictures of the repository, whose demo found other numbers."""
    for name in ("docs/results", "runs/demo/figures", *(f"experiments/{s}" for s in RECORDS), "tests/data"):
        (tmp_path / name).mkdir(parents=True)
    for name in (*front_page.PAGES, front_page.SHEET, *(f"experiments/{s}/result.json" for s in RECORDS)):
        shutil.copyfile(ROOT / name, tmp_path / name)
    one = {"mean": 0.125, "half": 0.001}
    found = {"worlds": {"default": {"ucb1": dict.fromkeys(("cost_saved", "accuracy", "accuracy_change"), one)}}}
    (tmp_path / "runs/demo/summary.json").write_text(str(found).replace("'", '"'))
    (tmp_path / "runs/demo/table.md").write_text(
        "World `default`:\n\n| policy | cost |\n| --- | --: |\n| ucb1 | 0.125 |\n"
    )
    (tmp_path / front_page.PICTURE).write_text("<svg/>")
    return tmp_path


RECORDS = ("expert_branches", "calibration", "joint_policy", "headline", "link_change")


def test_all_blocks_and_pictures_are_renewed_and_the_rest_stays(tmp_path):
    root = copied(tmp_path)
    before = (root / "README.md").read_text()
    front_page.run(root)
    text = (root / "README.md").read_text()
    assert rows(block("demo", text)) == {"ucb1": ["12.5 ±0.1", "12.5 (12.5 ±0.1)"]}
    outside = r"<!-- demo -->.*?<!-- end -->"
    assert re.sub(outside, "", text, flags=re.DOTALL) == re.sub(outside, "", before, flags=re.DOTALL)
    assert "| ucb1 | 0.125 |" in (root / "docs/results/index.md").read_text()
    assert (root / "docs/choices.svg").read_text() == "<svg/>"
    with Image.open(root / "docs/corruptions.png") as drawn, Image.open(ROOT / "docs/corruptions.png") as kept:
        assert drawn.size == kept.size


def test_without_a_demo_nothing_is_written(tmp_path):
    root = copied(tmp_path)
    before = (root / "README.md").read_text()
    (root / "runs/demo/summary.json").unlink()
    with pytest.raises(ValueError, match=r"runs/demo/summary\.json is missing.*make demo"):
        front_page.run(root)
    assert (root / "README.md").read_text() == before
    assert not (root / "docs/choices.svg").exists()
