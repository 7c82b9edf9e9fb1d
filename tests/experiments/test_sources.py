"""The digest that says whether a study was played by the code that stands here."""

import re
from pathlib import Path

from offramp.experiments import sources

OURS = re.compile(r"^from offramp\.((?:bandits|environments)[\w.]*) import", re.MULTILINE)


def test_all_that_policies_and_worlds_import_of_their_own_counts():
    imported = set()
    for folder in sources.PLAYED:
        for path in folder.glob("*.py"):
            imported |= set(OURS.findall(path.read_text()))
    root = sources.BANDITS.parent
    homes = {(root / name.replace(".", "/")) for name in imported}
    assert {home if home.is_dir() else home.parent for home in homes} == set(sources.PLAYED)


def test_a_digest_follows_the_files_of_the_study_that_it_is_of(tmp_path):
    (tmp_path / "play.py").write_text("one")
    (tmp_path / "page.py").write_text("two")
    before = sources.digest(tmp_path, "play")
    (tmp_path / "page.py").write_text("other")
    assert sources.digest(tmp_path, "play") == before != sources.digest(tmp_path, "play", "page")
    (tmp_path / "play.py").write_text("other")
    assert sources.digest(Path(tmp_path), "play") != before
