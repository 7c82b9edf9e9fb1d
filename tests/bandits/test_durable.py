"""The durable engine plays as an engine does, keeps what it says it kept, and can be taken over, moved and trimmed."""

import math
import random
import stat

import numpy as np
import pytest

from offramp.bandits import (
    UCB1,
    AdaEE,
    Arm,
    Arms,
    ChainUCB,
    ContractError,
    Engine,
    EpsilonGreedy,
    FinalExit,
    Observation,
    Quote,
)
from offramp.bandits.durable import (
    Decider,
    DurableEngine,
    Outcome,
    StoreError,
    TicketError,
    arms_from_json,
    arms_to_json,
    policy_from_json,
    signing_key,
)
from offramp.bandits.sealed import SealedError

ARMS = Arms.grid(exits=4, thresholds=(0.5, 0.7, 0.9))
QUOTES = [
    Quote(edge_cost=[0.0, 0.05, 0.1, 0.2, 0.35], offload_cost=[0.5, 0.4 * x, 0.3 * x, 0.2 * x, 0.0], mu=1.0)
    for x in (1.0, 0.2)
]
NAN = math.nan


def seen(decision, rng):
    """What a random sample reveals by a decision."""
    exits = decision.exits
    truth = [rng.random() ** 0.4 for _ in range(exits)]
    for j in range(decision.cut):
        if truth[j] >= decision.thresholds[j]:
            shown = truth[: j + 1] + [NAN] * (exits - j - 1)
            return Observation(confidence=shown, answered_at=j + 1, offloaded=False)
    shown = truth[: decision.cut] + [NAN] * (exits - decision.cut)
    shown[-1] = truth[-1]
    return Observation(confidence=shown, answered_at=exits, offloaded=True, audited=False)


def played(engine, rng, n, *, late=0):
    """Decide n times, with feedback `late` decisions later; the outcomes."""
    open_, outcomes = [], []
    for t in range(n + late):
        if t < n:
            decision = engine.decide(QUOTES[t // 50 % 2])
            open_.append((decision, seen(decision, rng)))
        if t >= late:
            outcomes.append(engine.update(*open_.pop(0)))
    return outcomes


def test_text_names_nothing_but_policies():
    for text in (
        '{"class": "Engine"}',
        '{"class": "os.system"}',
        '"UCB1"',
        "[1, 2",
        '{"class": "UCB1", "betas": 3}',
        "{}",
    ):
        with pytest.raises(ValueError, match="allowed"):
            policy_from_json(text)
    table = Arms.grid(exits=3).joined(Arms.cascades(exits=3, at=(1, 2)))
    assert arms_from_json(arms_to_json(table)) == table


@pytest.mark.parametrize("policy", [ChainUCB(audit=0.2), UCB1(), EpsilonGreedy()], ids=lambda p: type(p).__name__)
def test_lock_step_with_an_engine(tmp_path, policy):
    plain, rng, other = Engine(policy, arms=ARMS, seed=4), random.Random(1), random.Random(1)
    with DurableEngine(tmp_path / "s", policy, arms=ARMS, seed=4) as engine:
        for t in range(700):
            a, b = engine.decide(QUOTES[t // 100 % 2]), plain.decide(QUOTES[t // 100 % 2])
            assert np.array_equal(a.row, b.row)
            first, second = seen(a, rng), seen(b, other)
            if a.audit and not first.offloaded:
                shown = [*first.confidence[:-1], 0.9]
                first = second = Observation(
                    confidence=shown, answered_at=first.answered_at, offloaded=False, audited=True
                )
            assert engine.update(a, first) == "counted"
            assert plain.update(b, second)
        assert np.array_equal(engine.state(), plain.state())
        engine.verify()


def test_what_was_learnt_is_there_after_a_restart(tmp_path):
    rng = random.Random(2)
    with DurableEngine(tmp_path / "s", EpsilonGreedy(), arms=ARMS, seed=1, streams=("a", "b")) as engine:
        assert engine.streams == ("default", "a", "b")
        played(engine, rng, 300, late=20)
        decision = engine.decide(QUOTES[0], stream="b")
        token, observation = decision.token, seen(decision, rng)
        state, cursor = engine.state(), engine.cursor
    with DurableEngine(tmp_path / "s") as engine:
        assert (engine.policy, engine.arms, engine.cursor) == (EpsilonGreedy(), ARMS, cursor)
        assert np.array_equal(engine.state(), state)
        assert engine.update(token, observation) is Outcome.COUNTED
        assert engine.update(engine.read(token), observation) is Outcome.DUPLICATE
        assert engine.update_many([(token, observation), (token, observation)]) == ["duplicate", "duplicate"]
        assert engine.cursor == cursor + 1
        engine.verify()
    with pytest.raises(ValueError, match=r"policy is UCB1\(.*allowed in store"):
        DurableEngine(tmp_path / "s", UCB1())
    with pytest.raises(ValueError, match="is new, allowed is to open it with a policy"):
        DurableEngine(tmp_path / "t")


def test_a_batch_is_all_or_nothing(tmp_path):
    rng = random.Random(3)
    with DurableEngine(tmp_path / "s", UCB1(), arms=ARMS) as engine:
        played(engine, rng, 30)
        made = [engine.decide(QUOTES[0]) for _ in range(5)]
        good = [(d, seen(d, rng)) for d in made]
        wrong = Observation(confidence=[NAN, NAN, NAN, 0.3], answered_at=2, offloaded=False)
        state, cursor = engine.state(), engine.cursor
        with pytest.raises(ContractError, match="feedback 3 of 5: answered_at is 2"):
            engine.update_many([*good[:3], (made[3], wrong), good[4]])
        assert (engine.cursor, engine.state().tobytes()) == (cursor, state.tobytes())
        assert engine.update_many([*good, good[0]]) == ["counted"] * 5 + ["duplicate"]
        engine.verify()
        assert len(list(engine.log())) == engine.cursor == cursor + 5


def test_tokens_say_all_and_cannot_be_made(tmp_path):
    with DurableEngine(tmp_path / "s", UCB1(), arms=ARMS, features=0) as engine:
        ticket = engine.decide(QUOTES[0])
        token = ticket.token
        again = engine.read(token)
        assert np.array_equal(again.row, ticket.row)
        assert (again.id, again.stream, again.epoch, again.cursor) == (ticket.id, "default", ticket.epoch, 0)
        for wrong in (
            token[:-1],
            token[1:],
            token + "A",
            token.swapcase(),
            "",
            "é" * 9,
            "A" * 20_000,
            token[:200] + "=" + token[200:],
        ):
            with pytest.raises(TicketError):
                engine.read(wrong)
    with (
        DurableEngine(tmp_path / "other", UCB1(), arms=ARMS) as other,
        pytest.raises(TicketError, match="signature is wrong"),
    ):
        other.read(token)


def test_the_key_is_the_owners_alone(tmp_path, monkeypatch):
    key = signing_key(tmp_path / "s")
    assert key == signing_key(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s.key").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["s.key"]
    monkeypatch.setenv("OFFRAMP_SIGNING_KEY", "ab" * 32)
    assert signing_key(tmp_path / "s") == bytes.fromhex("ab" * 32)
    for wrong in ("ab", "xy" * 32, ""):
        monkeypatch.setenv("OFFRAMP_SIGNING_KEY", wrong)
        with pytest.raises(ValueError, match="OFFRAMP_SIGNING_KEY holds"):
            signing_key(tmp_path / "s")


def test_late_feedback_is_refused_and_the_log_is_kept_short(tmp_path):
    rng = random.Random(4)
    with DurableEngine(tmp_path / "s", ChainUCB(), arms=ARMS, lateness=300, keep=300) as engine:
        old = engine.decide(QUOTES[0])
        early = (old, seen(old, rng))
        played(engine, rng, 300)
        assert engine.update(*early) is Outcome.COUNTED
        stale = engine.decide(QUOTES[0])
        observation = seen(stale, rng)
        played(engine, rng, 600)
        assert engine.update(stale, observation) is Outcome.LATE
        assert engine.update(*early) is Outcome.LATE
        kept = [e.seq for e in engine.log()]
        assert engine.cursor == 901
        assert kept == list(range(kept[0], 902))
        assert 300 <= len(kept) < 901
        engine.verify()
    for lateness, keep in ((0, None), (10, 9)):
        with pytest.raises(ValueError, match="lateness is"):
            DurableEngine(tmp_path / "t", UCB1(), arms=ARMS, lateness=lateness, keep=keep)
    assert not (tmp_path / "t").exists()


def test_a_candidate_watches_then_takes_over(tmp_path):
    rng = random.Random(5)
    with DurableEngine(tmp_path / "s", FinalExit(), arms=ARMS, seed=1) as engine:
        played(engine, rng, 20)
        engine.shadow(UCB1(), share=0.25)
        with pytest.raises(ValueError, match="is shadowing already"):
            engine.shadow(UCB1(), share=0.5)
        played(engine, rng, 200)
        found = engine.score()
        assert found.requests == 50
        assert found.lowest[0] <= found.played[0] + 0.5
        assert found.lowest[0] <= found.highest[0]
        open_ = engine.decide(QUOTES[0])
        engine.take_over()
        assert (engine.policy, engine.candidate) == (UCB1(), None)
        assert engine.update(open_, seen(open_, rng)) is Outcome.COUNTED, "the last exit is an arm of both"
        played(engine, rng, 50)
        assert [e.kind for e in engine.log() if e.kind] == ["shadow", "take_over"]
        engine.verify()
        with pytest.raises(ValueError, match="no candidate"):
            engine.score()
        with pytest.raises(ValueError, match="no candidate"):
            engine.take_over()
    with DurableEngine(tmp_path / "s") as engine:
        assert engine.policy == UCB1()
        engine.shadow(ChainUCB(), share=1.0)
        engine.stop_shadow()
        engine.verify()


def test_another_table_and_forgetting_are_events(tmp_path):
    rng = random.Random(6)
    with DurableEngine(tmp_path / "s", UCB1(), arms=ARMS) as engine:
        played(engine, rng, 60)
        open_ = [engine.decide(QUOTES[0]) for _ in range(4)]
        engine.forget(0.5)
        engine.change(ARMS.plus([Arm(2, 0.6)]))
        assert engine.update(open_[0], seen(open_[0], rng)) is Outcome.COUNTED
        engine.change(engine.arms.without([Arm(a.cut, a.threshold) for a in ARMS.table if a.cut == open_[1].cut]))
        assert engine.update(open_[1], seen(open_[1], rng)) is Outcome.OBSOLETE
        wrong = Observation(confidence=[NAN] * 3 + [2.0], answered_at=4, offloaded=True)
        with pytest.raises(ContractError, match="confidence of exit 4 is 2"):
            engine.update(open_[2], wrong)
        played(engine, rng, 30)
        engine.verify()
        with pytest.raises(ValueError, match="cuts are"):
            engine.change(engine.arms.without(cuts=[9]))
        with pytest.raises(ValueError, match="factor is 0"):
            engine.forget(0.0)
        engine.verify()


def test_a_snapshot_goes_on_elsewhere(tmp_path):
    rng, other = random.Random(7), random.Random(7)
    with DurableEngine(tmp_path / "s", AdaEE(cut=2), arms=ARMS, seed=2) as engine:
        played(engine, random.Random(1), 100)
        engine.shadow(EpsilonGreedy(), share=0.5)
        played(engine, random.Random(2), 100)
        engine.export(tmp_path / "snapshot")
        with DurableEngine.imported(tmp_path / "t", tmp_path / "snapshot") as moved:
            assert np.array_equal(moved.state(), engine.state())
            assert moved.candidate == EpsilonGreedy()
            played(moved, rng, 50)
            played(engine, other, 50)
            assert np.array_equal(moved.state(), engine.state())
            moved.verify()
        with pytest.raises(StoreError, match="exists"):
            DurableEngine.imported(tmp_path / "t", tmp_path / "snapshot")
    raw = (tmp_path / "snapshot").read_bytes()
    (tmp_path / "snapshot").write_bytes(raw[:-9] + b"x" + raw[-8:])
    with pytest.raises(SealedError, match="sha256"):
        DurableEngine.imported(tmp_path / "u", tmp_path / "snapshot")
    assert not (tmp_path / "u").exists()


def test_deciders_elsewhere_follow_the_board(tmp_path):
    rng, board = random.Random(8), tmp_path / "s.board"
    with DurableEngine(tmp_path / "s", UCB1(), arms=ARMS) as engine:
        key = signing_key(tmp_path / "s")
        with pytest.raises(StoreError, match=r"board .* is missing"):
            Decider(board, key=key)
        engine.publish()
        deciders = [Decider(board, key=key) for _ in range(2)]
        for _ in range(40):
            made = [d.decide(QUOTES[0]) for d in deciders for _ in range(5)]
            rng.shuffle(made)
            assert set(engine.update_many([(t.token, seen(t, rng)) for t in made])) == {"counted"}
            engine.publish()
        assert engine.cursor == 400
        engine.verify()
        assert [d.refresh() for d in deciders] == [True, True]
        assert [d.refresh() for d in deciders] == [False, False]
        assert np.array_equal(deciders[0].state(), engine.state())
        engine.shadow(ChainUCB(), share=1.0)
        engine.publish()
        assert deciders[0].decide(QUOTES[0]).shadow is not None
        engine.take_over()
        engine.publish()
        assert deciders[0].decide(QUOTES[0]).shadow is None
        assert deciders[0].policy == ChainUCB()
        board.unlink()
        assert deciders[0].decide(QUOTES[0]).cut >= 0, "decisions go on without a board"


def test_one_learner_at_a_time(tmp_path):
    with (
        DurableEngine(tmp_path / "s", UCB1(), arms=ARMS),
        pytest.raises(StoreError, match="is open in another learner, allowed is one at a time"),
    ):
        DurableEngine(tmp_path / "s")
    DurableEngine(tmp_path / "s").close()
    (tmp_path / "text").write_text("this is no database, though it is long enough to be looked at " * 40)
    with pytest.raises(StoreError, match="cannot be opened"):
        DurableEngine(tmp_path / "text")
    with pytest.raises(StoreError, match="cannot be opened"):
        DurableEngine(tmp_path / "no" / "folder", UCB1(), arms=ARMS)
    with pytest.raises(ValueError, match="synchronous is 'MAYBE'"):
        DurableEngine(tmp_path / "s", synchronous="MAYBE")


def test_a_closed_engine_stays_closed(tmp_path):
    engine = DurableEngine(tmp_path / "s", UCB1(), arms=ARMS)
    decision = engine.decide(QUOTES[0])
    engine.close()
    others = [(tmp_path / f"other{i}").open("w") for i in range(8)]
    engine.close()
    for file in others:
        file.write("still open")
        file.close()
    for call in (lambda: engine.decide(QUOTES[0]), lambda: engine.update(decision, seen(decision, random.Random(1)))):
        with pytest.raises(StoreError, match="is closed, allowed is to open it again"):
            call()


def test_what_is_no_argument_is_said_to_be_none(tmp_path):
    with pytest.raises(ValueError, match="policy is 'chain_ucb', allowed is a policy"):
        DurableEngine(tmp_path / "s", "chain_ucb", arms=ARMS)
    with pytest.raises(ValueError, match="is new, allowed is to open it with a policy"):
        DurableEngine(tmp_path / "s")
    assert not list(tmp_path.iterdir()), "what is refused leaves nothing"
    with DurableEngine(tmp_path / "s", UCB1(), arms=ARMS) as engine:
        decision = engine.decide(QUOTES[0])
        for call, what in (
            (lambda: engine.decide([1, 2]), "quote is list, allowed is a Quote"),
            (lambda: engine.update(decision, {"confidence": 1}), "observation is dict, allowed is an Observation"),
            (lambda: engine.update(5, seen(decision, random.Random(1))), "decision is int, allowed is a Ticket"),
        ):
            with pytest.raises(ContractError, match=what):
                call()
