"""`offramp live play=false` makes page and figures of the record that a run left, and plays nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).parents[2] / "experiments" / "live"


def redrawn(folder):
    command = [sys.executable, "-m", "offramp.experiments.cli", "live", "play=false", f"folder={folder}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_page_is_made_of_the_record_alone(tmp_path):
    for name in ("README.md", "result.json"):
        shutil.copyfile(STUDY / name, tmp_path / name)
    done = redrawn(tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("README.md", "result.json"):
        assert (tmp_path / name).read_text() == (STUDY / name).read_text(), name
    assert {p.name for p in tmp_path.glob("*.svg")} == {p.name for p in STUDY.glob("*.svg")}


def test_without_a_record_it_says_so_and_writes_nothing(tmp_path):
    done = redrawn(tmp_path)
    assert done.returncode != 0
    assert "play is false and the folder holds no record of mobilenet_v2_imagenette" in done.stderr
    assert not list(tmp_path.iterdir())
