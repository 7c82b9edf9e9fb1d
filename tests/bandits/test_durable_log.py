"""What the log says of each decision, stores of the earlier schema, and interrupts in the middle of an update."""

import sqlite3

import numpy as np
import pytest

from offramp.bandits import UCB1, Arms, EpsilonGreedy, Observation, Quote
from offramp.bandits.durable import Decider, DurableEngine, Outcome, StoreError
from offramp.bandits.durable.store import APPLICATION, SCHEMA

NAN = float("nan")
KEY = bytes(range(32))
TABLE = Arms.grid(exits=2, thresholds=(0.5, 0.8))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)
FIRST_SCHEMA = """
create table snapshots (name text primary key, cursor integer not null, content blob not null) without rowid;
create table feedback (
    seq integer primary key, epoch integer not null, number integer not null, generation integer not null,
    stream text not null, decision blob not null, observation blob not null, shadow blob
);
create table events (seq integer primary key, kind text not null, detail text not null);
"""


def seen(ticket, sure):
    if ticket.cut == ticket.exits:
        return Observation(confidence=[NAN, sure], answered_at=2, offloaded=False)
    if sure >= ticket.threshold:
        return Observation(confidence=[sure, NAN], answered_at=1, offloaded=False)
    return Observation(confidence=[sure, 0.7], answered_at=2, offloaded=True)


def late(engine, decider, rounds, seed=0):
    """Decide here and elsewhere, with feedback some decisions late; the tickets' cursors in the order of feedback."""
    rng = np.random.default_rng(seed)
    open_, stated = [], []
    for t in range(rounds):
        open_.append((decider if t % 3 == 2 else engine).decide(QUOTE))
        if len(open_) > 4:
            ticket = open_.pop(int(rng.integers(len(open_))))
            assert engine.update(ticket.token, seen(ticket, rng.random())) is Outcome.COUNTED
            stated.append(ticket.cursor)
        if t % 10 == 0:
            engine.publish()
    return stated


def test_the_log_says_what_each_decision_was_made_with(tmp_path):
    with DurableEngine(tmp_path / "store", EpsilonGreedy(), arms=TABLE, key=KEY) as engine:
        engine.publish()
        stated = late(engine, Decider(tmp_path / "store.board", key=KEY), 60)
        assert [e.cursor for e in engine.log()] == stated
        engine.start("north")
        engine.export(tmp_path / "snapshot")
    with DurableEngine.imported(tmp_path / "other", tmp_path / "snapshot", key=KEY) as engine:
        ticket = engine.decide(QUOTE)
        engine.update(ticket, seen(ticket, 0.9))
        assert [(e.seq, e.cursor) for e in engine.log()] == [(len(stated) + 2, len(stated) + 1)]  # after the event


def of_the_first_schema(store, old):
    """Write what is in a store as the first schema did."""
    made = sqlite3.connect(old)
    made.executescript(FIRST_SCHEMA)
    made.execute("attach ? as later", (str(store),))
    made.execute("insert into snapshots select * from later.snapshots")
    made.execute("insert into events select * from later.events")
    columns = "seq, epoch, number, generation, stream, decision, observation, shadow"
    made.execute(f"insert into feedback select {columns} from later.feedback")
    made.execute(f"pragma application_id={APPLICATION}")
    made.execute("pragma user_version=1")
    made.commit()
    made.close()


def test_a_store_of_the_first_schema_goes_on(tmp_path):
    with DurableEngine(tmp_path / "store", EpsilonGreedy(), arms=TABLE, key=KEY, seed=3) as engine:
        engine.publish()
        late(engine, Decider(tmp_path / "store.board", key=KEY), 40)
        state, lines = engine.state(), engine.cursor
    of_the_first_schema(tmp_path / "store", tmp_path / "old")
    with DurableEngine(tmp_path / "old", key=KEY) as engine:
        assert np.array_equal(engine.state(), state)
        engine.verify()
        assert [e.cursor for e in engine.log()] == [None] * lines  # not known, and not made up
        ticket = engine.decide(QUOTE)
        engine.update(ticket, seen(ticket, 0.9))
    with DurableEngine(tmp_path / "old", key=KEY) as engine:
        assert [e.cursor for e in engine.log()] == [None] * lines + [lines]
        engine.verify()
    assert sqlite3.connect(tmp_path / "old").execute("pragma user_version").fetchone() == (SCHEMA,)


def test_a_migration_that_fails_changes_nothing(tmp_path):
    with DurableEngine(tmp_path / "store", UCB1(), arms=TABLE, key=KEY) as engine:
        late(engine, engine, 20)
    of_the_first_schema(tmp_path / "store", tmp_path / "old")
    spoilt = sqlite3.connect(tmp_path / "old")
    spoilt.executescript("alter table feedback rename to elsewhere")
    spoilt.close()
    before = (tmp_path / "old").read_bytes()
    with pytest.raises(StoreError, match="cannot be opened"):
        DurableEngine(tmp_path / "old", key=KEY)
    made = sqlite3.connect(tmp_path / "old")
    assert made.execute("pragma user_version").fetchone() == (1,)
    assert {name for (name,) in made.execute("select name from sqlite_master where type = 'table'")} == {
        "snapshots",
        "elsewhere",
        "events",
    }
    made.close()
    assert len(before) == (tmp_path / "old").stat().st_size


def test_a_store_of_a_later_schema_is_refused(tmp_path):
    with DurableEngine(tmp_path / "store", UCB1(), arms=TABLE, key=KEY):
        pass
    made = sqlite3.connect(tmp_path / "store")
    made.execute(f"pragma user_version={SCHEMA + 1}")
    made.close()
    with pytest.raises(StoreError, match=f"schema {SCHEMA + 1}, allowed are .* and 1 to {SCHEMA}"):
        DurableEngine(tmp_path / "store", key=KEY)


class Interrupted(Observation):
    """An observation at whose n-th reading the user presses Ctrl-C."""

    __slots__ = ("_left", "_row")

    def __init__(self, given, readings):
        self._row, self._left = given.row, readings

    @property
    def row(self):
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        return self._row


@pytest.mark.parametrize("reading", [1, 2, 3, 4])
def test_what_is_decided_on_follows_the_store_after_an_interrupt(tmp_path, reading):
    """Readings: by the learner, by the candidate, by the log, and by the copy that decides once it is written."""
    with DurableEngine(tmp_path / "store", UCB1(), arms=TABLE, key=KEY) as engine:
        engine.shadow(EpsilonGreedy(epsilon=0.0), share=1.0)
        for sure in np.linspace(0.4, 0.9, 12):
            ticket = engine.decide(QUOTE)
            engine.update(ticket, seen(ticket, sure))
        ticket = engine.decide(QUOTE)
        with pytest.raises(KeyboardInterrupt):
            engine.update(ticket, Interrupted(seen(ticket, 0.9), reading))
        assert engine.update(ticket, seen(ticket, 0.9)) is (Outcome.DUPLICATE if reading == 4 else Outcome.COUNTED)
        for _ in range(40):
            ticket = engine.decide(QUOTE)
            engine.update(ticket, seen(ticket, 0.9 if ticket.cut == 2 else 0.1))
        engine.verify()
        last = engine.decide(QUOTE)
        chosen, watched = last.row, last.shadow
    with DurableEngine(tmp_path / "store", key=KEY) as again:
        fresh = again.decide(QUOTE)
        assert np.array_equal(fresh.row, chosen)
        assert np.array_equal(fresh.shadow, watched)
