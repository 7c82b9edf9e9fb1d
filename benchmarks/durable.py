"""Rows about the durable engine: a decision and its feedback in the store, tokens, and the board."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joint
import numpy as np
import setting
from row import Row, of

from offramp.bandits import Arms, Observation, Policy
from offramp.bandits.chain_ucb import ChainUCB
from offramp.bandits.durable import Decider, DurableEngine, signing_key

REQUESTS, TOKENS, BOARDS = 20_000, 5_000, 200


def durable(quick: bool) -> Iterator[Row]:
    """A decision and its feedback through the durable engine, each with a transaction of its own."""
    n = REQUESTS // 10 if quick else REQUESTS
    for policy, name in ((ChainUCB(), "ChainUCB"), (setting.policy(), "UCB1")):
        for synchronous in ("NORMAL", "FULL") if name == "ChainUCB" else ("NORMAL",):
            taken = _requests(policy, synchronous, n if synchronous == "NORMAL" else max(n // 40, 100))
            target = 25.0 if synchronous == "NORMAL" else None
            note = "each waits for the disk" if synchronous == "FULL" else ""
            what = f"durable decide + update of {name}, synchronous={synchronous}"
            yield of(what, taken, "µs", target=target, note=note)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        with DurableEngine(path, ChainUCB(), arms=Arms.grid(exits=setting.EXITS)) as engine:
            ticket = engine.decide(setting.quote())
            token = ticket.token
            yield of("· a token signed", _each(lambda: ticket.token, TOKENS), "µs", note=f"{len(token)} characters")
            yield of("· a token read and verified", _each(lambda: engine.read(token), TOKENS), "µs")
            engine.publish()
            decider = Decider(Path(f"{path}.board"), key=signing_key(path))
            yield of("· a decision in another process's decider", _each(_asks(decider), TOKENS), "µs")
            yield of("· a board published", _each(engine.publish, BOARDS), "µs")

            def fresh() -> None:
                engine.publish()
                decider.refresh()

            yield of("· a board published, and taken by a decider", _each(fresh, BOARDS), "µs")


def _asks(decider: Decider) -> Callable[[], object]:
    quote = setting.quote()
    return lambda: decider.decide(quote)


def _each(job: Callable[[], object], times: int) -> np.ndarray:
    """Microseconds of each call."""
    taken = np.empty(times)
    for i in range(times):
        start = time.perf_counter_ns()
        job()
        taken[i] = time.perf_counter_ns() - start
    return taken / 1e3


def _requests(policy: Policy, synchronous: str, n: int) -> np.ndarray:
    """Microseconds of each decide + update, on a store in the folder for temporary files."""
    quote, taken = setting.quote(), np.empty(n)
    with (
        tempfile.TemporaryDirectory() as folder,
        DurableEngine(Path(folder) / "store", policy, arms=setting.world().arms, synchronous=synchronous) as engine,
    ):
        for i, row in enumerate(joint.lived(policy, n)):
            observation = Observation.of(row)
            start = time.perf_counter_ns()
            engine.update(engine.decide(quote), observation)
            taken[i] = time.perf_counter_ns() - start
    return taken / 1e3
