"""Rows about whole runs: the compiled rollout against the same loop in C, and seeds on threads."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import setting
from row import Row, in_turns, of, seconds
from yardstick import Sums, Yardstick, textbook

from offramp.bandits.loop import FIELDS, Record
from offramp.environments import rollout
from offramp.environments.trace import record

ROUNDS = 1_000_000
REPEATS = 11


def rollout_c(quick: bool) -> Iterator[Row]:
    """Rollout of UCB1 with 12 arms against the same loop in C, one thread, on the same arrays."""
    rounds = ROUNDS // 10 if quick else ROUNDS
    arrays, arms, policy, block = setting.arrays(), setting.world().arms, setting.policy(), setting.one_block(rounds)
    part = arms.part(policy.plays(arms))
    c = {
        contract: Yardstick(arrays, arms, part, beta=policy.beta, contract=contract, name=name)
        for contract, name in (("off", "ucb1"), ("fast", "ucb1"))
    }
    rows, ahead = (
        Yardstick(arrays, arms, part, beta=policy.beta, contract="off", name=name)
        for name in ("ucb1_rows", "ucb1_ahead")
    )

    def ours() -> Record:
        kept = record(arms, rounds)
        policy.kernels.rollout(policy.initial(arms, 0), arrays, block, kept)
        return kept

    checks = {name: same(ours(), y.play(block)) for name, y in {**c, "rows": rows, "ahead": ahead}.items()}
    rewards = np.random.default_rng(0).random((10_000, setting.ARMS)) * np.linspace(0.5, 1.0, setting.ARMS)
    bare = textbook(rewards, rounds)
    jobs: list[Callable[[], object]] = [ours, *(lambda y=y: y.play(block) for y in (*c.values(), rows, ahead)), bare]
    taken = in_turns(jobs, REPEATS, time.thread_time)
    ratio, nano = taken[:, 1:] / taken[:, :1], taken / rounds * 1e9
    size = f"{setting.ARMS} arms, {rounds:,} rounds"
    goal = {"unit": "x", "target": 0.9, "at_least": True}
    reason = "ours writes the rows that every policy and scorer reads, and checks them; this C knows one policy"
    yield of(f"rollout of UCB1 / C, same rounding ({size})", ratio[:, 0], **goal, note=checks["off"])
    yield of("rollout of UCB1 / C, gcc may fuse multiply and add", ratio[:, 1], **goal, note=checks["fast"])
    yield of("rollout of UCB1 / C that writes the whole observation", ratio[:, 2], "x", note=checks["rows"])
    what = "rollout of UCB1 / C that fetches ahead as our loop does"
    yield of(what, ratio[:, 3], **goal, note=checks["ahead"], reason=reason)
    names = "rollout of UCB1", "C, same rounding", "C, fused", "C, whole observation", "C, fetching ahead"
    for k, who in enumerate(names):
        yield of(f"· {who}", nano[:, k], "ns a round")
    yield of(
        "· C, textbook UCB1 on a matrix of rewards", nano[:, -1], "ns a round", note="no world, no prices, no sums"
    )


def same(ours: Record, theirs: Sums) -> str:
    """Say how far two runs agree.

    Raises
    ------
    ValueError
        They did not play the same arms, or their reward differs by more than 1e-9 of it.

    """
    if np.array_equal(ours.kept, theirs.kept):
        return "all sums at all checkpoints equal, bit for bit"
    counts = [run[:, len(FIELDS) :] for run in (ours.kept, theirs.kept)]
    reward = [float(run.totals[0]) for run in (ours, theirs)]
    if not np.array_equal(*counts) or abs(reward[0] - reward[1]) > 1e-9 * abs(reward[0]):
        raise ValueError(f"the yardstick plays another history: rewards {reward}")
    return f"same arms at all checkpoints; rewards differ by {abs(reward[0] - reward[1]):.1g}"


def threads(quick: bool) -> Iterator[Row]:
    """Twenty seeds on two threads against one seed alone, rounds a second."""
    horizon, seeds = (50_000 if quick else 500_000), 20

    def play(seed: int) -> None:
        rollout(
            setting.policy(), setting.world(), setting.stream(), horizon=horizon, seed=seed, arrays=setting.arrays()
        )

    def all_seeds() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(play, range(seeds)))

    arms, policy, block = setting.world().arms, setting.policy(), setting.one_block(horizon)
    c = Yardstick(setting.arrays(), arms, arms.part(policy.plays(arms)), beta=policy.beta)

    def both_cores() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: c.play(block), range(seeds)))

    play(0)
    alone, together, ceiling = [], [], []
    for _ in range(5):
        alone.append(seconds(lambda: play(0)))
        together.append(seconds(all_seeds))
        alone.append(seconds(lambda: play(0)))
        ceiling.append(seeds * seconds(lambda: c.play(block)) / seconds(both_cores))
    gain = seeds * np.median(alone) / np.array(together)
    what = f"{seeds} seeds on 2 threads / one seed ({horizon:,} rounds each)"
    yield of(what, gain, "x", target=1.7, at_least=True, note="wall clock, the laying out of the stream included")
    yield of("· the same with the loop in C", ceiling, "x", note="what two threads are worth on this machine, just now")
    yield of("· one seed", horizon / np.array(alone) / 1e6, "M rounds/s")
    yield of("· twenty seeds", seeds * horizon / np.array(together) / 1e6, "M rounds/s")
