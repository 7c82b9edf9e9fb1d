"""What fails around the durable engine: full disks, second learners, power, clocks, boards, files made by others."""

import ast
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, LinUCB, Observation, Quote, durable, sealed
from offramp.bandits.durable import Decider, DurableEngine, Outcome, StoreError, TicketError
from offramp.bandits.durable.fold import SCHEMA
from offramp.bandits.sealed import SealedError

NAN = float("nan")
KEY = bytes(range(32))
TABLE = Arms.grid(exits=2, thresholds=(0.5, 0.8))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)


def opened(path, **options):
    return DurableEngine(path, UCB1(), arms=TABLE, key=KEY, **options)


def seen(ticket, sure=0.9):
    if ticket.cut == ticket.exits:
        return Observation(confidence=[NAN, sure], answered_at=2, offloaded=False)
    if sure >= ticket.threshold:
        return Observation(confidence=[sure, NAN], answered_at=1, offloaded=False)
    return Observation(confidence=[sure, 0.7], answered_at=2, offloaded=True)


def taught(engine, rounds, seed=0):
    rng = random.Random(seed)
    for _ in range(rounds):
        ticket = engine.decide(QUOTE)
        assert engine.update(ticket, seen(ticket, rng.random())) is Outcome.COUNTED


def works_where_there_is_no_room(folder, no_room, room):
    """The story of a full disk; `no_room()` leaves none, `room()` gives it back."""
    with opened(folder / "store") as engine:
        taught(engine, 20)
        engine.publish()
        no_room()
        owed, refused = [], 0
        for _ in range(20_000):
            before, cursor = engine.state(), engine.cursor
            ticket = engine.decide(QUOTE)
            try:
                engine.update(ticket.token, seen(ticket))
            except StoreError:
                assert engine.state().tobytes() == before.tobytes()
                assert engine.cursor == cursor
                owed.append(ticket)
                refused += 1
                if refused == 5:
                    break
        assert refused == 5
        with pytest.raises(StoreError, match="nothing of this was learnt"):
            engine.update_many((t, seen(t)) for t in owed)
        with pytest.raises(StoreError):
            engine.forget(0.5)
        assert engine.state().tobytes() == before.tobytes()
        assert engine.cursor == cursor
        engine.decide(QUOTE)
        engine.verify()
        room()
        assert engine.update_many((t, seen(t)) for t in owed) == [Outcome.COUNTED] * 5
        assert engine.update(owed[0].token, seen(owed[0])) is Outcome.DUPLICATE
        engine.verify()
        left = engine.state()
    with opened(folder / "store") as again:
        again.verify()
        assert again.cursor == cursor + 5
        assert again.state().tobytes() == left.tobytes()


def full_disk(folder):
    """Runs inside a file system of one megabyte."""
    ballast = Path(folder) / "ballast"

    def fill():
        with ballast.open("wb", buffering=0) as file:
            for piece in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * piece)
                except OSError:
                    pass

    works_where_there_is_no_room(Path(folder), fill, ballast.unlink)


def test_a_disk_that_is_really_full_costs_nothing_but_the_wait(tmp_path):
    mounted = f"mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -W error {__file__} full {tmp_path}"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here")
    done = subprocess.run(["unshare", "-m", "sh", "-c", mounted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def limited(folder):
    """Runs in a process of its own: files may grow no more, and later again."""

    def no_room():
        size = max(p.stat().st_size for p in Path(folder).iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    works_where_there_is_no_room(Path(folder), no_room, room)


def apart(target, *given):
    """Run a function in a fresh process; its exit code."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=given)
    process.start()
    process.join()
    return process.exitcode


def test_files_that_may_not_grow_are_a_full_disk(tmp_path):
    assert apart(limited, tmp_path) == 0


def holds(path, pipe):
    with opened(path) as engine:
        taught(engine, 3)
        pipe.send(engine.cursor)
        pipe.recv()


@pytest.mark.parametrize("by", ["its name", "a link", "a linked folder"])
def test_a_second_learner_is_refused_until_the_first_is_dead(tmp_path, by):
    (tmp_path / "here").mkdir()
    store = tmp_path / "here" / "store"
    other = {"its name": store, "a link": tmp_path / "link", "a linked folder": tmp_path / "there" / "store"}[by]
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    first = context.Process(target=holds, args=(store, theirs))
    first.start()
    assert mine.recv() == 3
    (tmp_path / "link").symlink_to(store)
    (tmp_path / "there").symlink_to(tmp_path / "here")
    with pytest.raises(StoreError, match="is open in another learner, allowed is one at a time"):
        opened(other)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    with opened(other) as second:
        assert second.cursor == 3
        second.verify()


def test_a_forked_decider_gives_out_no_number_twice(tmp_path):
    with opened(tmp_path / "store") as engine:
        engine.publish()
        decider = Decider(tmp_path / "store.board", key=KEY)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, decider.decide(QUOTE).token.encode())
            os._exit(0)
        os.waitpid(child, 0)
        theirs = decider.read(os.read(reading, 1 << 16).decode())
        mine = decider.decide(QUOTE)
        os.close(reading)
        os.close(writing)
        assert (mine.epoch, mine.id) != (theirs.epoch, theirs.id)
        assert engine.update_many([(mine, seen(mine)), (theirs.token, seen(theirs))]) == [Outcome.COUNTED] * 2


def copied(store, folder, cut=None, rng=None):
    """The files of a store as they are now, with the log of SQLite cut or its end spoilt."""
    folder.mkdir()
    shutil.copyfile(store, folder / "store")
    wal = bytearray(Path(f"{store}-wal").read_bytes())
    if rng is not None:
        for at in range(cut, len(wal)):
            wal[at] = rng.randrange(256)
        cut = None
    Path(f"{folder / 'store'}-wal").write_bytes(bytes(wal[:cut]))
    return folder / "store"


def test_a_kill_between_log_and_snapshot_loses_nothing(tmp_path):
    with opened(tmp_path / "store") as engine:
        taught(engine, 700)
        with opened(copied(tmp_path / "store", tmp_path / "copy")) as again:
            assert again._ledger.store.cursor("latest") < again.cursor == engine.cursor == 700
            assert again.state().tobytes() == engine.state().tobytes()
            again.verify()


# Within the first write-ahead log, and after it was written back.
@pytest.mark.parametrize("rounds", [200, pytest.param(6_000, marks=pytest.mark.long)])
def test_after_a_power_loss_there_is_the_state_of_some_moment_before(tmp_path, rounds):
    rng, states = random.Random(rounds), {}
    with opened(tmp_path / "store", synchronous="NORMAL") as engine:
        taught(engine, rounds - 100)
        start = engine.cursor
        states[start] = engine.state().tobytes()
        for i in range(100):
            taught(engine, 1, seed=i)
            states[engine.cursor] = engine.state().tobytes()
        length = Path(f"{tmp_path / 'store'}-wal").stat().st_size
        found = []
        for i, cut in enumerate(sorted(rng.randrange(length) for _ in range(40))):
            spoilt = rng if i % 4 == 3 else None
            with opened(copied(tmp_path / "store", tmp_path / f"copy{i}", cut, spoilt)) as again:
                again.verify()
                assert again.cursor <= engine.cursor
                if again.cursor in states:
                    assert again.state().tobytes() == states[again.cursor]
                found.append(again.cursor)
                taught(again, 2)
        assert found == sorted(found)
        assert found[0] < found[-1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing", "a folder"])
def test_a_damaged_board_leaves_deciding_on_the_last_good_one(tmp_path, damage):
    board = tmp_path / "store.board"
    with opened(tmp_path / "store") as engine:
        engine.publish()
        decider = Decider(board, key=KEY)
        raw = bytearray(board.read_bytes())
        board.unlink()
        if damage == "cut":
            board.write_bytes(raw[:-5])
        elif damage == "flipped":
            raw[-20] ^= 4
            board.write_bytes(raw)
        elif damage == "empty":
            board.write_bytes(b"")
        elif damage == "a folder":
            board.mkdir()
        for _ in range(3):
            ticket = decider.decide(QUOTE)
            assert engine.update(ticket.token, seen(ticket)) is Outcome.COUNTED
        with pytest.raises((SealedError, StoreError)):
            Decider(board, key=KEY)
        if damage == "a folder":
            board.rmdir()
        engine.publish()
        assert decider.refresh()
        assert decider.cursor == 3
        assert decider.damaged is None


def test_a_clock_that_goes_back_hides_no_board(tmp_path):
    with opened(tmp_path / "store") as engine:
        engine.publish()
        decider = Decider(tmp_path / "store.board", key=KEY)
        for year in (2001, 1971, 2037):
            taught(engine, 1)
            engine.publish()
            os.utime(tmp_path / "store.board", ((year - 1970) * 31_556_952,) * 2)
            assert decider.refresh()
            assert decider.cursor == engine.cursor


def test_nothing_in_the_durable_engine_asks_what_time_it_is():
    for file in Path(durable.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"time", "datetime"}, file
        assert "current_timestamp" not in file.read_text().lower()


@pytest.mark.parametrize(
    "options", [{"seed": 9}, {"key": b"short"}, {"lateness": 0}, {"synchronous": "FAST"}, {"policy": LinUCB()}]
)
def test_an_import_that_fails_leaves_nothing_behind(tmp_path, options):
    with opened(tmp_path / "store") as engine:
        taught(engine, 5)
        engine.export(tmp_path / "snapshot")
    (tmp_path / "new").mkdir()
    with pytest.raises(ValueError, match="allowed"):
        DurableEngine.imported(tmp_path / "new" / "store", tmp_path / "snapshot", **{"key": KEY} | options)
    assert not (tmp_path / "new" / "store").exists()
    with DurableEngine.imported(tmp_path / "new" / "store", tmp_path / "snapshot", key=KEY) as again:
        assert again.cursor == 5


def test_what_was_counted_before_an_export_is_not_counted_after_the_import(tmp_path):
    with opened(tmp_path / "store") as engine:
        ticket = engine.decide(QUOTE)
        assert engine.update(ticket, seen(ticket)) is Outcome.COUNTED
        engine.export(tmp_path / "snapshot")
    with DurableEngine.imported(tmp_path / "new", tmp_path / "snapshot", key=KEY) as again:
        before = again.state()
        with pytest.raises(TicketError, match="signature is wrong"):
            again.update(ticket.token, seen(ticket))
        assert again.state().tobytes() == before.tobytes()


def altered(snapshot, at, value):
    tensors, manifest = sealed.load(snapshot, SCHEMA)
    tensors["learner.0"][at] = value
    sealed.write(snapshot, tensors, manifest, SCHEMA)


def goes_on(folder):
    """Go on from a snapshot that was altered and sealed again: it must be refused, or be of use."""
    try:
        with DurableEngine.imported(folder / "new", folder / "snapshot", key=KEY) as engine:
            taught(engine, 3)
    except SealedError:
        pass


@pytest.mark.parametrize(("at", "value"), [(0, NAN), (1, 1e9), (2, 4.0), (4, 7.0), (7, 1e9), (8, -5.0)])
def test_a_snapshot_whose_layout_was_altered_is_refused(tmp_path, at, value):
    with opened(tmp_path / "store") as engine:
        taught(engine, 5)
        engine.export(tmp_path / "snapshot")
    altered(tmp_path / "snapshot", at, value)
    assert apart(goes_on, tmp_path) == 0


def test_a_store_that_cannot_be_read_is_said_to_be_damaged(tmp_path):
    with opened(tmp_path / "store") as engine:
        taught(engine, 300)
    raw = (tmp_path / "store").read_bytes()
    rng = random.Random(0)
    for name in range(30):
        spoilt = bytearray(raw)
        for _ in range(20):
            spoilt[rng.randrange(100, len(raw))] = rng.randrange(256)
        (tmp_path / f"{name}").write_bytes(spoilt)
        try:
            with DurableEngine(tmp_path / f"{name}", key=KEY) as engine:
                engine.verify()
                assert np.isfinite(engine.cursor)
        except (StoreError, SealedError):
            pass


def test_tokens_too_long_to_be_read_are_refused_before_they_are_made(tmp_path):
    with pytest.raises(ValueError, match="allowed"):
        opened(tmp_path / "store", features=8_000)
    with opened(tmp_path / "new", features=2_000, streams=("s" * 255,)) as engine:
        engine.shadow(UCB1(beta=2.0), share=1.0)
        ticket = engine.decide(QUOTE, np.ones(2_000), stream="s" * 255)
        assert engine.update(ticket.token, seen(ticket)) is Outcome.COUNTED


if __name__ == "__main__":
    full_disk(sys.argv[2])
