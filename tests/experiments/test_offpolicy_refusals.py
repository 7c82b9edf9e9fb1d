"""Evaluation from logs: what is no store and no candidate is refused by name, and a store is left as it is."""

import math

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from offramp.bandits import UCB1, Arm, Arms, Observation, Quote, RandomArm, rows
from offramp.bandits.durable import DurableEngine
from offramp.bandits.reveal import reveal
from offramp.experiments import offpolicy
from offramp.experiments.offpolicy import Log, evaluate
from offramp.experiments.offpolicy.candidates import target

ARMS = Arms.grid(exits=2, thresholds=(0.5,))
QUOTE = Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Written by random arms over two exits."""
    path = tmp_path_factory.mktemp("logs") / "store"
    with DurableEngine(path, RandomArm(), arms=ARMS, key=bytes(32)) as engine:
        for confidence in np.random.default_rng(0).choice((0.25, 0.75), (60, 2)):
            ticket = engine.decide(QUOTE)
            row = np.full(9, math.nan)
            reveal(confidence, np.zeros(2, dtype=int), ticket.row, np.array([1, 0, 0, 0]), row)
            at, sent = int(row[rows.ANSWERED_AT]), bool(row[rows.OFFLOADED])
            seen = row[rows.CONFIDENCE : rows.CONFIDENCE + 2]
            engine.update(ticket, Observation(confidence=seen, answered_at=at, offloaded=sent))
    return path


def lying(folder):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def test_the_command_leaves_what_it_reads(store, tmp_path):
    (store.parent / "store.lock").unlink()  # as of a copy
    before = lying(store.parent)
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("offpolicy", overrides=[f"store={store}"])
    offpolicy.run(cfg, tmp_path)
    assert lying(store.parent) == before
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.db", b"", r"store .*empty\.db is empty, allowed is one that a durable engine wrote"),
        ("text.db", b"words, and no pages at all\n" * 99, r"store .*text\.db cannot be read"),
        ("dir.db", None, r"store .*dir\.db is no file, allowed is one that a durable engine wrote"),
    ],
)
def test_what_is_no_store_stays_what_it_is(tmp_path, name, content, message):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Log.read(path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (2.0, r"candidate is 2\.0, allowed is cut@threshold"),
        (None, "candidate is None, allowed is cut@threshold"),
        (True, "candidate is True, allowed is cut@threshold"),
        ([], r"candidate is \[\], allowed is .*a list of \[share, rule\]"),
        ([1.0, "1@0.5"], r"candidate is \[1\.0, '1@0\.5'\], allowed is .*a list of \[share, rule\]"),
        ([["half", "1@0.5"]], "share 'half' is no number"),
        ([[True, "1@0.5"]], "share True is no number"),
        ([[1.0, "1@much"]], "candidate is '1@much', allowed is cut@threshold"),
        ({"_target_": "os.getcwd"}, "which makes a str, allowed is a policy"),
        ({"name": "ucb1"}, "allowed is a mapping that names its class by _target_"),
    ],
)
def test_what_is_no_candidate(given, message):
    with pytest.raises(ValueError, match=message):
        target(given, ARMS)


def test_what_is_one():
    half = [[0.5, "1@0.5"], [0.5, 2]]
    assert target(half, ARMS) == [(0.5, Arm(1, 0.5)), (0.5, Arm(2, -math.inf))]
    assert target(1, ARMS) == [(1.0, Arm(1, -math.inf))]
    assert target("ucb1", ARMS) == UCB1()


@pytest.mark.parametrize("shares", [(math.nan, 0.5), (0.5, math.nan), (math.inf, 0.5), (1.5, -0.5), (0.5, 0.25)])
def test_shares_that_are_none(store, shares):
    mixture = list(zip(shares, (Arm(1, 0.5), Arm(2, -math.inf)), strict=True))
    with pytest.raises(ValueError, match=r"shares are \[.*\], allowed are numbers > 0 that sum to 1"):
        evaluate(mixture, Log.read(store))
