"""How ours, and other libraries, play UCB1 over a matrix of rewards: each by the calls that its own users make."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from offramp.bandits import UCB1, Arms, Engine, Observation, PaperUnits, Profile, Quote
from offramp.bandits.loop import Block
from offramp.bandits.rows import ANSWERED_AT, CONFIDENCE, CUT, FloatArray
from offramp.environments import ConfidenceCache, World
from offramp.environments.trace import record

ARMS = 12
STEPS, FEW = 20_000, 4_000

Rewards = list[list[float]]
Play = Callable[[Rewards], list[int]]

# An arm of ours: the exit of this number, which always answers, at no cost; its confidence is the reward.
TABLE = Arms.grid(exits=ARMS, thresholds=(0.0,))
FREE = Quote(edge_cost=[0.0] * (ARMS + 1), offload_cost=[0.0] * (ARMS + 1), mu=0.0)
POLICY = UCB1(beta=math.sqrt(2.0))  # the textbook's width; the others' own
NOTHING = [math.nan] * ARMS


def matrix(rounds: int, seed: int = 0) -> FloatArray:
    """Rewards in [0, 1], (rounds, arms), as exact in single precision; the last arm is the best."""
    drawn = np.random.default_rng(seed).normal(np.linspace(0.3, 0.7, ARMS), 0.2, (rounds, ARMS))
    return drawn.clip(0.0, 1.0).astype(np.float32).astype(np.float64)


def array_level(rewards: Rewards) -> list[int]:
    """Our policy without an engine: two compiled calls on arrays."""
    decide, learn = POLICY.kernels.decide, POLICY.kernels.learn
    state, row, played = POLICY.initial(TABLE, 0), FREE.row.copy(), []
    seen = Observation(confidence=NOTHING, answered_at=1, offloaded=False).row
    decided, shown = memoryview(row), memoryview(seen)  # for single numbers quicker than the arrays themselves
    for reward in rewards:
        flag = decide(state, row)
        at = int(decided[CUT])
        shown[ANSWERED_AT] = at
        shown[CONFIDENCE + at - 1] = reward[at - 1]
        flag = flag or learn(state, row, seen)
        shown[CONFIDENCE + at - 1] = math.nan
        assert flag == 0, flag
        played.append(at - 1)
    return played


def refilled(rewards: Rewards) -> list[int]:
    """Our engine with all its checks, given one observation whose row is written anew each time."""
    engine, played = Engine(POLICY, arms=TABLE, seed=0), []
    seen = Observation(confidence=NOTHING, answered_at=1, offloaded=False)
    shown = memoryview(seen.row)
    for reward in rewards:
        decision = engine.decide(FREE)
        at = decision.cut
        shown[ANSWERED_AT] = at
        shown[CONFIDENCE + at - 1] = reward[at - 1]
        engine.update(decision, seen)
        shown[CONFIDENCE + at - 1] = math.nan
        played.append(at - 1)
    return played


def engine(rewards: Rewards) -> list[int]:
    """Our engine as its documentation shows it: an observation is made in each round."""
    engine, played = Engine(POLICY, arms=TABLE, seed=0), []
    for reward in rewards:
        decision = engine.decide(FREE)
        at, confidence = decision.cut, NOTHING.copy()
        confidence[at - 1] = reward[at - 1]
        engine.update(decision, Observation(confidence=confidence, answered_at=at, offloaded=False))
        played.append(at - 1)
    return played


def river(rewards: Rewards) -> list[int]:
    """`river.bandit.UCB`: at first each arm once, in an order that it draws."""
    from river import bandit

    policy, names, played = bandit.UCB(delta=1, seed=0), list(range(ARMS)), []
    for reward in rewards:
        arm = policy.pull(names)
        policy.update(arm, reward[arm])
        played.append(arm)
    return played


def lightrl(rewards: Rewards) -> list[int]:
    """`lightrl.UCB1Bandit`."""
    from lightrl import UCB1Bandit

    bandit, played = UCB1Bandit(list(range(ARMS))), []
    for reward in rewards:
        arm = bandit.select_arm()
        bandit.update(arm, reward[arm])
        played.append(arm)
    return played


def mabwiser(rewards: Rewards) -> list[int]:
    """`mabwiser.mab.MAB`, fitted before it predicts, on each arm once: it would not try them itself."""
    from mabwiser.mab import MAB, LearningPolicy

    played = list(range(ARMS))
    bandit = MAB(played.copy(), LearningPolicy.UCB1(alpha=1.0))
    bandit.fit(played, [rewards[arm][arm] for arm in played])
    for reward in rewards[ARMS:]:
        arm = bandit.predict()
        bandit.partial_fit([arm], [reward[arm]])
        played.append(arm)
    return played


def whole(table: FloatArray) -> Callable[[], FloatArray]:
    """A run of ours in the compiled loop, over all rounds of a matrix; it returns the pulls of each arm."""
    rounds = len(table)
    nobody, none = np.zeros((1, 1, rounds, ARMS), dtype=np.int64), (0,) * ARMS
    cache = ConfidenceCache.from_arrays(
        confidence=table[None, None],
        prediction=nobody,
        label=nobody[0, 0, :, 0],
        conditions=["matrix"],
        classes=2,
        profile=Profile(segment_macs=none, head_macs=none, payload_bytes=(0, *none), layers=none),
    )
    arrays = World(cache=cache, prices=PaperUnits(mu=0.0), arms=TABLE).arrays(("matrix",), (1.0,))
    zero = np.zeros(rounds, dtype=np.int64)
    block = Block(np.arange(rounds), zero, zero)

    def run() -> FloatArray:
        kept = record(TABLE, rounds)
        POLICY.kernels.rollout(POLICY.initial(TABLE, 0), arrays, block, kept)
        return kept.totals[-ARMS:]

    return run


class Peer(NamedTuple):
    """Another library: its name, how it is asked and told, how it plays, and how many rounds of it are timed."""

    name: str
    calls: str
    play: Play
    rounds: int


PEERS = (
    Peer("river", "pull, update", river, STEPS),
    Peer("lightrl", "select_arm, update", lightrl, STEPS),
    Peer("mabwiser", "predict, partial_fit", mabwiser, FEW),
)
