"""Rows about the joint policy: in a whole run, step by step from Python, and behind the engine's whole contract."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import setting
from row import Row, in_turns, of

from offramp.bandits import Engine, Observation, Policy
from offramp.bandits.chain_ucb import ChainUCB
from offramp.bandits.loop import Block, Record
from offramp.bandits.loop import World as Arrays
from offramp.bandits.reveal import reveal
from offramp.bandits.rows import COSTS, FloatArray
from offramp.environments.trace import record

ROUNDS, STEPS = 300_000, 5_000
REPEATS = 15
PRICES = 5_000


def joint(quick: bool) -> Iterator[Row]:
    """The joint policy with 7 exits and 20 bins, beside UCB1 in the same runs."""
    policy = ChainUCB()
    size = f"{setting.EXITS} exits x {policy.bins} bins"
    rounds, steps = (ROUNDS // 10, STEPS // 10) if quick else (ROUNDS, STEPS)
    every = ChainUCB(plan_every=1)
    jobs = [whole(p, rounds) for p in (policy, setting.policy(), every)]
    taken = in_turns([*jobs, whole(policy, rounds, moving=True)], REPEATS, time.thread_time)
    micro = taken / rounds * 1e6
    yield of(f"rollout of ChainUCB, {size}, a round", micro[:, 0], "µs", target=1.0)
    yield of("· UCB1 in the same run", micro[:, 1], "µs")
    yield of("rollout of ChainUCB, offloads dearer or cheaper by 1 to 5 % every round", micro[:, 3], "µs", target=2.0)
    yield of("· ChainUCB that plans in every round, as where prices change by more than a tenth", micro[:, 2], "µs")
    taken = in_turns([bare(p, steps) for p in (policy, setting.policy())], REPEATS, time.thread_time) / steps * 1e6
    yield of("a step of ChainUCB from Python, decision and update", taken[:, 0], "µs", target=2.0)
    yield of("· UCB1 in the same run", taken[:, 1], "µs")
    taken = in_turns([served(p, steps) for p in (policy, setting.policy())], REPEATS, time.thread_time) / steps * 1e6
    yield of("Engine.decide and Engine.update of ChainUCB", taken[:, 0], "µs", target=5.0)
    yield of("· UCB1 in the same run", taken[:, 1], "µs")


def wandering(arrays: Arrays, block: Block) -> tuple[Arrays, Block]:
    """The same world with offload prices that go up or down by 1 to 5 % a round, and are back after 5,000 rounds."""
    rng, first = np.random.default_rng(0), COSTS + setting.EXITS + 1
    steps = rng.uniform(0.01, 0.05, PRICES // 2) * rng.choice((-1.0, 1.0), PRICES // 2)
    factors = np.exp(np.cumsum(np.concatenate([steps, -rng.permutation(steps)])))
    quotes = np.tile(arrays.quotes[0], (PRICES, 1))
    quotes[:, first : first + setting.EXITS] *= factors[:, None]
    gap = np.zeros((len(arrays.gap), PRICES, arrays.gap.shape[2]))  # regret is not what is measured
    price = np.arange(len(block.price)) % PRICES
    return arrays._replace(quotes=quotes, gap=gap), block._replace(price=price)


def whole(policy: Policy, rounds: int, moving: bool = False) -> Callable[[], Record]:
    """A run in the compiled loop; what rules outside the table are worth is not added up."""
    arrays, arms, block = setting.arrays(), setting.world().arms, setting.one_block(rounds)
    if moving:
        arrays, block = wandering(arrays, block)

    def run() -> Record:
        kept, state, done = record(arms, rounds), policy.initial(arms, 0), 0
        while done < rounds:
            done += policy.kernels.rollout(state, arrays, Block(*(part[done:] for part in block)), kept)
            kept.rules[0, 0] = 0.0
        return kept

    return run


def lived(policy: Policy, steps: int) -> list[FloatArray]:
    """What a policy sees in its first steps at one quote: since none here draws, it sees the same again each time."""
    arrays, arms = setting.arrays(), setting.world().arms
    engine, quote = Engine(policy, arms=arms, seed=0), setting.quote()
    samples = np.random.default_rng(0).integers(0, len(arrays.label), steps)
    found = []
    for sample in samples.tolist():
        decision = engine.decide(quote)
        seen = Observation(confidence=np.zeros(setting.EXITS), answered_at=1, offloaded=False)
        reveal(arrays.confidence[0, sample], arrays.prediction[0, sample], decision.row, arrays.options, seen.row)
        engine.update(decision, seen)
        found.append(seen.row)
    return found


def bare(policy: Policy, steps: int) -> Callable[[], None]:
    """Decision and update at array level."""
    decide, learn, seen = policy.kernels.decide, policy.kernels.learn, lived(policy, steps)
    first, quoted = policy.initial(setting.world().arms, 0), setting.quote().row

    def run() -> None:
        state, row = first.copy(), quoted.copy()
        for each in seen:
            flag = decide(state, row) or learn(state, row, each)
            assert flag == 0, flag

    return run


def served(policy: Policy, steps: int) -> Callable[[], None]:
    """The same through an engine."""
    arms, quote, observations = setting.world().arms, setting.quote(), []
    for row in lived(policy, steps):
        observations.append(Observation.of(row))

    def run() -> None:
        engine = Engine(policy, arms=arms, seed=0)
        for seen in observations:
            counted = engine.update(engine.decide(quote), seen)
        assert counted

    return run
