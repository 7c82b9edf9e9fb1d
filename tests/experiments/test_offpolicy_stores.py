"""Evaluation from logs: stores that durable engines wrote, learners replayed, the command, the page of the study."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from offramp.bandits import (
    UCB1,
    Arm,
    Arms,
    ChainUCB,
    EpsilonGreedy,
    FinalExit,
    Fixed,
    Observation,
    Quote,
    RandomArm,
    rows,
)
from offramp.bandits.durable import DurableEngine
from offramp.bandits.durable.bounds import value_bounds
from offramp.bandits.reveal import reveal
from offramp.experiments import offpolicy
from offramp.experiments.offpolicy import Log, evaluate, replayed, study, tables
from offramp.experiments.offpolicy.candidates import named, rule, target
from offramp.experiments.offpolicy.paths import rule_of

HERE = Path(offpolicy.__file__).parent
INF, NAN = math.inf, math.nan
QUOTE = Quote(edge_cost=[0.0, 0.125, 0.25, 0.5], offload_cost=[0.5, 0.375, 0.25, 0.0], mu=0.5)
CASCADE = Arm(2, 0.5, (0.75,))
SAMPLES = np.random.default_rng(3).choice((0.25, 0.5, 0.75, 1.0), (60, 3))


def shown(row, truth):
    """What a decision reveals of a sample."""
    seen = np.full(11, NAN)
    reveal(truth, np.zeros(3, dtype=int), row, np.array([1, 0, 0, 0]), seen)
    return seen


def worth(arm):
    """Mean reward of a rule over all samples, each looked at whole."""
    row = QUOTE.row.copy()
    row[rows.CUT], row[rows.thresholds_at(3) :] = arm.cut, rule_of(arm, 3)[1:]
    whole = np.zeros((len(SAMPLES), 11))
    whole[:, rows.CONFIDENCE : rows.CONFIDENCE + 3] = SAMPLES
    return float(np.mean([value_bounds(row, one)[0] for one in whole]))


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("offpolicy", overrides=list(overrides))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores written by durable engines: feedback at once, feedback late, random arms late, one rule."""
    folder = tmp_path_factory.mktemp("stores")
    arms = Arms.grid(exits=3, thresholds=(0.5, 0.75))
    rng = np.random.default_rng(0)
    for name, policy, late in (
        ("greedy", EpsilonGreedy(epsilon=0.5), 1),
        ("late", EpsilonGreedy(epsilon=0.5), 7),
        ("random", RandomArm(), 7),
        ("fixed", Fixed(cut=1, threshold=0.5), 1),
    ):
        with DurableEngine(folder / name, policy, arms=arms, key=bytes(32)) as engine:
            open_ = []
            for _ in range(420):
                ticket = engine.decide(QUOTE)
                seen = shown(ticket.row, SAMPLES[rng.integers(len(SAMPLES))])
                observation = Observation(
                    confidence=seen[rows.CONFIDENCE : rows.CONFIDENCE + 3],
                    answered_at=int(seen[rows.ANSWERED_AT]),
                    offloaded=bool(seen[rows.OFFLOADED]),
                )
                open_.append((ticket, observation))
                if len(open_) == late:
                    engine.update_many(open_)
                    open_.clear()
    return folder, arms


def test_a_real_store_is_read_with_its_probabilities(stores):
    folder, arms = stores
    log = Log.read(folder / "greedy")
    assert (len(log), log.why, log.policy, log.arms) == (420, "", EpsilonGreedy(epsilon=0.5), arms)
    assert log.sure.sum() == len(arms)  # each rule once
    truth = worth(CASCADE)
    found = evaluate([(1.0, CASCADE)], log)  # a rule that is in no table
    assert found.refusal == ""
    assert found.used >= 420 - len(arms)
    for one in found.estimates.values():
        assert abs(one.value - truth) < 4.0 * one.error
    assert found.lowest < truth < found.highest


def test_where_feedback_came_late_the_cursor_says_what_was_known(stores):
    folder, arms = stores
    log = Log.read(folder / "late")
    assert log.why == ""
    truth = worth(CASCADE)
    for one in evaluate([(1.0, CASCADE)], log).estimates.values():
        assert abs(one.value - truth) < 4.0 * one.error
    late = Log.read(folder / "random")
    assert late.why == ""
    assert (late.chance == 1.0 / len(arms)).all()


def test_stores_that_cannot_be_read(stores, tmp_path):
    folder, _ = stores
    with pytest.raises(ValueError, match="is not there"):
        Log.read(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="stream is 'north'"):
        Log.read(folder / "greedy", stream="north")
    with DurableEngine(folder / "greedy", key=bytes(32)), pytest.raises(ValueError, match="open in another learner"):
        Log.read(folder / "greedy")


def test_one_rule_without_audits_is_refused_with_the_audits_that_would_do(stores):
    log = Log.read(stores[0] / "fixed")
    found = evaluate([(1.0, Arm(1, 0.75))], log)
    assert (found.best, found.used) == (None, 0)
    assert "the cloud's answer was hidden wherever a threshold let the edge answer" in found.refusal
    assert "with audits on 10 % of them, about " in found.refusal
    assert "with audits on about " in evaluate([(1.0, Arm(1, 0.75))], log, half=0.1).refusal
    truth = worth(Arm(1, 0.75))
    assert found.lowest < truth < found.highest
    assert abs(found.naive - truth) > 0.01
    same = evaluate([(1.0, Arm(1, 0.5))], log)
    assert same.estimates["dr"].value == pytest.approx(log.reward.mean())
    assert same.gain.value == pytest.approx(0.0)
    deeper = evaluate([(1.0, Arm(2, 0.5))], log)
    assert "which no audit changes" not in deeper.refusal
    assert "no audit shows more; with plays of the target" in deeper.refusal


# Learners.


def test_a_learner_lives_through_what_the_log_did_as_well(stores):
    log = Log.read(stores[0] / "random")
    found = replayed(UCB1(), log, seed=1)
    assert found.refusal == ""
    assert found.accepted == pytest.approx(420 / 5, abs=30)
    one = replayed(Fixed(cut=2, threshold=0.75), log)
    mine = (log.played == rule_of(Arm(2, 0.75), 3)).all(axis=1)
    assert one.accepted == mine.sum()
    assert one.estimate.value == pytest.approx(log.reward[mine].mean())


def test_learners_that_cannot_be_replayed(stores):
    folder, _ = stores
    assert "drawn by chance" in replayed(UCB1(), Log.read(folder / "fixed")).refusal
    log = Log.read(folder / "random")
    assert "that no log of arms holds" in replayed(ChainUCB(), log).refusal
    assert "would live through about" in replayed(UCB1(), log.first(60)).refusal
    narrow = Log(**(vars(log) | {"rules": np.delete(log.rules, 0, axis=0), "chance": log.chance[:, 1:]}))
    assert "which the log never draws" in replayed(UCB1(), narrow).refusal


# The command.


def test_what_a_candidate_is_called():
    arms = Arms.grid(exits=3, thresholds=(0.5, 0.75))
    assert target("2@0.75", arms) == [(1.0, Arm(2, 0.75))]
    assert target(3, arms) == target("final_exit", arms) == [(1.0, Arm(3, -INF))]
    assert target([[0.5, "1@0.5"], [0.5, "3"]], arms) == [(0.5, Arm(1, 0.5)), (0.5, Arm(3, -INF))]
    assert len(target("random_arm", arms)) == len(arms)
    assert target("ucb1", arms) == UCB1()
    assert target({"_target_": "offramp.bandits.FinalExit"}, arms) == [(1.0, FinalExit().plays(arms)[0])]
    assert all(rule(named(arm), 3) == arm for arm in (CASCADE, Arm(0, INF), Arm(2, -INF), Arm(3, -INF, (INF, 0.75))))
    for wrong in ("none", "2@x", {"cut": 2}):
        with pytest.raises(ValueError, match="candidate is"):
            target(wrong, arms)
    with pytest.raises(ValueError, match="not an arm"):
        rule("4@0.5", 3)


def test_the_command_on_a_store(stores, tmp_path, capsys):
    folder, arms = stores
    path = offpolicy.run(config(f"store={folder}/greedy"), tmp_path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert set(found["candidates"]) == {named(arm) for arm in arms.table}
    assert "420 requests of EpsilonGreedy" in capsys.readouterr().out
    offpolicy.run(config(f"store={folder}/fixed", "candidate=2@0.75"), tmp_path)
    assert "2@0.75 is refused: on 100.0% of the requests" in capsys.readouterr().out
    offpolicy.run(config(f"store={folder}/random", "candidate=ucb1"), tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["candidates"]["ucb1"]["accepted"] > 30


def test_the_study_from_end_to_end(tmp_path):
    cfg = config("quick=true")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offpolicy, "QUICK", offpolicy.QUICK | {"logs": 2, "requests": 600, "lengths": [300]})
        offpolicy.run(cfg, tmp_path)
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["mobilenet_v2_cifar10"]
    assert {p.name for p in tmp_path.glob("*.svg")} == {
        f"{name}_mobilenet_v2_cifar10.svg" for name in ("coverage", "widths", "truth")
    }
    for key in study.BLIND:
        assert found["blind"][key]["refused"] == 2
    for wrong in ("logs=1", "lengths=[9]", "threads=0"):
        with pytest.raises(ValueError, match=wrong.split("=")[0]):
            offpolicy.run(config(wrong), tmp_path)


def test_the_page_shows_what_the_record_holds():
    kept = json.loads((HERE / "result.json").read_text(encoding="utf-8"))
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert tables.fill(page, kept) == page
    for name, found in kept.items():
        for section in tables.sections(found):
            assert f"<!-- {name} {section} -->" in page
        assert found["config"]["logs"] == 200
        for case in found["cases"].values():
            for row in case.values():
                for e in ("snips", "dr", "adaptive_dr"):
                    one = row["estimators"][e]
                    assert 0.92 <= one["held"] / one["logs"] <= 0.98
        for row in found["blind"].values():
            assert row["refused"] == row["logs"]
            assert row["naive"]["held"] == 0
            assert row["bounded"] > 0.92
