"""README and CONTRIBUTING say what is so: the table is played again, the policy from outside is run, links exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def rows(text):
    """Policy rows of the Markdown tables: (world, policy) -> numbers in the row."""
    found, world = {}, ""
    for line in text.splitlines():
        if match := re.match(r"World `(\w+)`:", line):
            world = match[1]
        elif line.startswith("## "):
            world = ""
        elif world and (match := re.match(r"\| (\w+) \| (.*) \|$", line)) and match[1] != "policy":
            found[world, match[1]] = [float(x) for x in re.findall(r"-?\d+\.?\d*", match[2])]
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "offramp.experiments.cli", "compare", "world=demo", f"folder={folder}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return rows((folder / "table.md").read_text(encoding="utf-8"))


def test_the_table_is_what_the_demo_prints(demo):
    """Another processor's logarithm may turn a close choice, so the last digit may differ by its interval."""
    shown = rows((ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8"))
    assert shown.keys() == demo.keys()
    assert len(shown) == 3 * 12
    for key, numbers in shown.items():
        assert len(numbers) == len(demo[key]), key
        for mean, half, again in zip(numbers[::2], numbers[1::2], demo[key][::2], strict=True):
            assert again == pytest.approx(mean, abs=max(2 * half, 0.11), rel=0.005), key


def test_the_picture_and_the_links_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_a_policy_in_a_file_outside_the_repository(tmp_path):
    """The example of CONTRIBUTING.md, saved and run as it says there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (tmp_path / "test_deepest.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    command = [sys.executable, "-m", "pytest", "-q", "test_deepest.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 14
