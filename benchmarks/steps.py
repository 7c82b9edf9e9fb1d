"""Rows about single steps, as a server takes them: the bare policy, and the engine with its whole contract."""

import time
from collections.abc import Callable, Iterator

import setting
from machine import ABSENT, release
from row import Row, failed, in_turns, of

from offramp.bandits import Engine

STEPS = 5_000
REPEATS = 25


def policy_step(quick: bool) -> Iterator[Row]:
    """One decision and one update at array level, against river's UCB, both from Python and always with one reward."""
    steps, arms, policy = (STEPS // 10 if quick else STEPS), setting.world().arms, setting.policy()
    decide, learn = policy.kernels.decide, policy.kernels.learn
    state, row, seen = policy.initial(arms, 0), setting.quote().row.copy(), setting.offloaded().row

    def ours() -> None:
        for _ in range(steps):
            flag = decide(state, row) or learn(state, row, seen)
        assert flag == 0, flag

    jobs: list[Callable[[], object]] = [ours]
    if release("river") != ABSENT:
        from river import bandit

        theirs, names = bandit.UCB(delta=1, seed=1), list(range(setting.ARMS))

        def river() -> None:
            for _ in range(steps):
                theirs.update(theirs.pull(names), 0.9)

        jobs.append(river)
    taken = in_turns(jobs, REPEATS, time.thread_time)
    micro = taken / steps * 1e6
    yield of(f"a step of UCB1 from Python, {setting.ARMS} arms", micro[:, 0], "µs", target=0.6)
    ratio = "river's UCB / UCB1, a step"
    if len(jobs) == 1:
        yield failed(ratio, "not installed: pip install river", target=10.0, at_least=True)
        return
    yield of(ratio, taken[:, 1] / taken[:, 0], "x", target=10.0, at_least=True)
    yield of("· river's UCB, pull and update", micro[:, 1], "µs")


def engine(quick: bool) -> Iterator[Row]:
    """Engine.decide and Engine.update with the whole contract: ids, open decisions, all checks."""
    steps, arms = (STEPS // 10 if quick else STEPS), setting.world().arms
    quote, seen = setting.quote(), setting.offloaded()
    apart, fused = (Engine(setting.policy(), arms=arms, seed=0) for _ in range(2))
    last = fused.decide(quote)

    def two_calls() -> None:
        for _ in range(steps):
            counted = apart.update(apart.decide(quote), seen)
        assert counted

    def one_call() -> None:
        nonlocal last
        for _ in range(steps):
            last = fused.step(last, seen, quote)

    taken = in_turns([two_calls, one_call], REPEATS, time.thread_time) / steps * 1e6
    yield of(f"Engine.decide and Engine.update, {setting.EXITS} exits", taken[:, 0], "µs", target=2.5)
    yield of("· the same in one call, Engine.step", taken[:, 1], "µs")
