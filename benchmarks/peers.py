"""Rows about UCB1 over one matrix of rewards: ours, C and other libraries, of whom each plays the very same game."""

import time
from collections.abc import Callable, Iterator

import numpy as np
from machine import ABSENT, release
from players import ARMS, PEERS, STEPS, Play, array_level, engine, matrix, refilled, whole
from row import Row, failed, in_turns, of
from yardstick import textbook

ROUNDS, REPEATS = 50_000, 11


def learnt(who: str, played: list[int], ours: list[int]) -> str:
    """Say how far a run has the arms of ours.

    Raises
    ------
    ValueError
        The best arm is not the one that was played most: whatever was timed, it was not UCB1.

    """
    pulls = np.bincount(played, minlength=ARMS)
    if int(pulls.argmax()) != ARMS - 1:
        raise ValueError(f"{who} pulled {pulls.tolist()}, allowed is a run in which the last, best arm leads")
    same = sum(a == b for a, b in zip(played, ours, strict=False))
    if same == len(played):
        return f"the arms of ours in all {same:,} rounds"
    return f"the best arm in {pulls[-1] / len(played):.0%} of {len(played):,} rounds, ours in {same / len(played):.0%}"


def peers(quick: bool) -> Iterator[Row]:
    """UCB1 over one matrix of rewards, 12 arms, against C, river, lightrl and MABWiser, in turns."""
    table = matrix(ROUNDS // 10 if quick else ROUNDS)
    rewards = table.tolist()
    there = [peer for peer in PEERS if release(peer.name) != ABSENT]
    python: list[tuple[str, str, Play, int]] = [
        ("array level", "decide, learn", array_level, STEPS),
        ("engine, an observation refilled", "decide, update", refilled, STEPS),
        ("engine, an observation made each round", "decide, update", engine, STEPS),
    ]
    python += [(peer.name, f"{release(peer.name)}: {peer.calls}", peer.play, peer.rounds) for peer in there]
    rounds = [n // 10 if quick else n for *_, n in python]
    ours, compiled, c = array_level(rewards), whole(table), textbook(table, len(table))
    notes = [learnt(who, play(rewards[:n]), ours[:n]) for (who, _, play, _), n in zip(python, rounds, strict=True)]
    for who, run in (("the rollout", compiled), ("C", c)):
        if not np.array_equal(run(), np.bincount(ours, minlength=ARMS)):
            raise ValueError(f"{who} pulled {run()}, allowed is what the array level does, {np.bincount(ours)}")
    jobs: list[Callable[[], object]] = [compiled, c]
    jobs += [lambda p=play, n=n: p(rewards[:n]) for (_, _, play, _), n in zip(python, rounds, strict=True)]
    nano = in_turns(jobs, REPEATS, time.thread_time) / np.array([len(table), len(table), *rounds]) * 1e9

    size = f"UCB1 over a matrix of rewards, {ARMS} arms, a round"
    yield of(f"{size}: compiled loop", nano[:, 0], "ns", note="with all sums of a run")
    yield of("· C, as the textbook prints it", nano[:, 1], "ns", note=f"same pulls in {len(table):,} rounds")
    yield of("· compiled loop / C, rounds a second", nano[:, 1] / nano[:, 0], "x")
    for k, (who, calls, _, _) in enumerate(python):
        yield of(f"· {who}", nano[:, 2 + k] / 1e3, "µs", note=f"{calls}; {notes[k]}")
    first = 2 + len(python) - len(there)
    for peer in PEERS:
        if peer not in there:
            yield failed(f"· {peer.name}", f"not installed: pip install {peer.name}")
            continue
        k = first + there.index(peer)
        goal = {"target": 10.0, "at_least": True} if peer is PEERS[0] else {}
        reason = "from Python, reading the arm and writing the reward count as much as the decision"
        yield of(f"time of {peer.name} / of our array level", nano[:, k] / nano[:, 2], "x", **goal, reason=reason)
        for j, name in ((3, "refilled"), (4, "made each round")):
            yield of(f"· time of {peer.name} / of our engine, an observation {name}", nano[:, k] / nano[:, j], "x")
        yield of(f"time of {peer.name} / of our compiled loop", nano[:, k] / nano[:, 0], "x")
