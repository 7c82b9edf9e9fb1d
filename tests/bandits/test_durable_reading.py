"""A store that is read stays as it is, byte for byte, and nothing new lies beside it."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from offramp.bandits import UCB1, Arms, Observation, Quote
from offramp.bandits.durable import DurableEngine, StoreError
from offramp.bandits.durable.reading import reading
from offramp.bandits.durable.store import APPLICATION, FIRST

KEY = bytes(32)
ARMS = Arms.grid(exits=2, thresholds=(0.5,))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)
SEEN = Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False)


def learn(path, n):
    """An engine that is still open, after so many pieces of feedback."""
    engine = DurableEngine(path, UCB1(), arms=Arms(exits=2, table=ARMS.table[:1]), key=KEY)
    for _ in range(n):
        engine.update(engine.decide(QUOTE), SEEN)
    return engine


def lying(folder):
    """All that lies in a folder: names, contents, times."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def read(path):
    with reading(path) as store:
        assert store.snapshot(FIRST) is not None
        return [(e.seq, e.cursor) for e in store.entries(0)]


@pytest.mark.parametrize("lock", [True, False])
def test_a_closed_store(tmp_path, lock):
    """Also a copy, which has no lock file, under a name that a URI must quote."""
    path = tmp_path / "a store?#%41"
    learn(path, 5).close()
    if not lock:
        (tmp_path / f"{path.name}.lock").unlink()
    before = lying(tmp_path)
    assert read(path) == [(i, i - 1) for i in range(1, 6)]
    assert lying(tmp_path) == before
    (tmp_path / "link").symlink_to(path)
    assert read(tmp_path / "link") == read(path)


def test_one_whose_learner_was_killed(tmp_path):
    """What is known by its write-ahead log alone is read as well, and is still there for the next learner."""
    program = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_durable_reading import learn
        engine = learn({str(tmp_path / "store")!r}, 7)
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == -signal.SIGKILL
    before = lying(tmp_path)
    assert before["store-wal"][1]
    assert len(read(tmp_path / "store")) == 7
    assert lying(tmp_path) == before
    with DurableEngine(tmp_path / "store", key=KEY) as engine:
        assert engine.cursor == 7


def test_one_of_the_first_schema_is_not_migrated(tmp_path):
    path = tmp_path / "store"
    learn(path, 3).close()
    made = sqlite3.connect(path, isolation_level=None)
    made.execute("alter table feedback drop column cursor")
    made.execute("pragma user_version=1")
    made.close()
    before = lying(tmp_path)
    assert read(path) == [(1, None), (2, None), (3, None)]
    assert lying(tmp_path) == before


def test_none_is_made_of_what_is_none(tmp_path):
    (tmp_path / "nothing").touch()
    (tmp_path / "text").write_text("no store at all\n" * 200)
    (tmp_path / "folder").mkdir()
    for name, statement in (("other", "pragma user_version=1"), ("bare", f"pragma application_id={APPLICATION}")):
        made = sqlite3.connect(tmp_path / name)
        made.executescript(f"create table t (x); {statement}")
        made.close()
    files = sorted(p.name for p in tmp_path.iterdir())
    for name, message in (
        ("nothing", "store .*nothing is empty, allowed is one that a durable engine wrote"),
        ("text", "store .*text cannot be read .*not a database"),
        ("folder", "store .*folder is no file"),
        ("absent", "store .*absent is no file"),
        ("other", "is of application 0x0 and schema 1"),
        ("bare", f"is of application {APPLICATION:#x} and schema 0"),
    ):
        with pytest.raises(StoreError, match=message), reading(tmp_path / name):
            pytest.fail("it was opened")
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    assert (tmp_path / "nothing").stat().st_size == 0


def test_a_learner_and_a_reader_keep_out_of_each_others_way(tmp_path):
    path = tmp_path / "store"
    with learn(path, 2), pytest.raises(StoreError, match="is open in another learner"), reading(path):
        pytest.fail("it was opened")
    with reading(path) as store, reading(path) as again:  # readers among themselves do
        assert store.count() == again.count() == 2
        with pytest.raises(StoreError, match="is open in another learner"):
            DurableEngine(path, key=KEY)
        with pytest.raises(StoreError, match="cannot be written"), store.transaction():
            store.drop(1)
    lock = os.open(f"{path}.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # was given back
    os.close(lock)


def test_a_copy_that_changes_meanwhile(tmp_path):
    """Where no lock file is, nobody can be kept away, but it is seen."""
    path = tmp_path / "store"
    learn(path, 2).close()
    (tmp_path / "store.lock").unlink()
    with pytest.raises(StoreError, match="was written to while it was read"), reading(path):
        learn(path, 1).close()
