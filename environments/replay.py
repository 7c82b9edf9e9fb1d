"""Two executors of one text: `rollout` runs the compiled loop, `replay` goes through an engine round by round."""

import time
from collections.abc import Callable

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.contract import Decision, Observation, Quote
from offramp.bandits.engine import DEFAULT, Engine
from offramp.bandits.loop import Block, due, full, keep, score
from offramp.bandits.loop import World as Arrays
from offramp.bandits.policy import Policy, fresh, needs_oracle
from offramp.bandits.reveal import FALLBACK, fall_back, reveal
from offramp.bandits.rows import FloatArray, IntArray
from offramp.bandits.state import CURSOR, UNIFORMS, dry, refill
from offramp.environments.confidences import check_policy
from offramp.environments.lateness import Lateness, late, learnt, waiting
from offramp.environments.off_table import OffTable
from offramp.environments.stream import Stream, blocks
from offramp.environments.trace import Trace, record
from offramp.environments.world import World


def rollout(
    policy: Policy,
    world: World,
    stream: Stream,
    *,
    horizon: int,
    seed: int,
    arrays: Arrays | None = None,
    lateness: Lateness | None = None,
    checkpoints: IntArray | None = None,
) -> tuple[Trace, FloatArray]:
    """Play a policy against a stream in the compiled loop.

    Parameters
    ----------
    policy, world, stream
        Who plays where against what.
    horizon
        Rounds, >= 1.
    seed
        Rebuilds the stream; the policy draws from it too, independently.
    arrays
        The world's arrays for this stream, where the caller has them already.
    lateness
        How late feedback is; None = none is.
    checkpoints
        Rounds after which the sums are kept, increasing; None = those of `offramp.environments.trace.checkpoints`.

    Returns
    -------
    tuple
        The trace and the policy's last state.

    """
    check_policy(policy, world.arms, world.cache)
    if arrays is None:
        arrays = world.arrays(stream.conditions, stream.links, oracle=needs_oracle(policy))
    state = fresh(policy, world.arms, arrays.context.shape[2])
    rng = np.random.default_rng(seed)
    state[CURSOR] = state[UNIFORMS]
    kept = record(world.arms, horizon, arrays.context.shape[2], checkpoints)
    run = policy.kernels.rollout
    delayed = lateness is not None and not lateness.none
    if lateness is not None and delayed:
        state = waiting(state, lateness, lateness.rounds(horizon=horizon, seed=seed))
        run = late(policy).rollout
    rules = OffTable(arrays, world.arms)
    run(state.copy(), arrays, Block(*(np.zeros(0, dtype=np.int64),) * 3), kept)  # compile outside the clock
    seconds = 0.0
    for block in blocks(stream, samples=len(arrays.label), horizon=horizon, seed=seed):
        done = 0
        while done < len(block.sample):
            rest = Block(*(part[done:] for part in block))
            start = time.perf_counter()
            played = run(state, arrays, rest, kept)
            seconds += time.perf_counter() - start
            rules.add(kept, rest.condition[:played], rest.price[:played])
            done += played
            if done < len(block.sample) and dry(state):
                refill(state, rng)
    return Trace.of(kept, rules.cuts, seconds), learnt(state) if delayed else state


def replay(
    policy: Policy,
    world: World,
    stream: Stream,
    *,
    horizon: int,
    seed: int,
    compiled: bool = False,
    lateness: Lateness | None = None,
    look: Callable[[int, Engine, Arrays, int, int], None] | None = None,
) -> tuple[Trace, FloatArray]:
    """Play a policy against a stream through an `Engine`, in plain Python: the specification of `rollout`.

    Parameters
    ----------
    policy, world, stream, horizon, seed
        As for `rollout`.
    compiled
        Let the engine use compiled steps.
    lateness
        How late feedback is; None = none is.
    look
        Called before each decision with round, engine, arrays, sample and condition.

    Returns
    -------
    tuple
        The trace and the policy's last state.

    """
    check_policy(policy, world.arms, world.cache)
    arrays = world.arrays(stream.conditions, stream.links, oracle=needs_oracle(policy))
    spec = Lateness() if lateness is None else lateness
    open_decisions = spec.delay + spec.spread + 1 + horizon  # the lost ones stay open
    engine = Engine(
        policy,
        arms=world.arms,
        seed=seed,
        features=arrays.context.shape[2],
        open_decisions=open_decisions,
        compiled=compiled,
    )
    delays = spec.rounds(horizon=horizon, seed=seed).tolist()
    repeats = spec.repeats(horizon=horizon, seed=seed).tolist()
    parked: dict[int, tuple[Decision, Observation]] = {}
    again: dict[int, list[tuple[Decision, Observation]]] = {}
    kept = record(world.arms, horizon, arrays.context.shape[2])
    quotes = [_quote(row) for row in arrays.quotes]
    rules = OffTable(arrays, world.arms)
    start = time.perf_counter()
    for block in blocks(stream, samples=len(arrays.label), horizon=horizon, seed=seed):
        valued = 0
        for i, (sample, condition, price) in enumerate(zip(*(part.tolist() for part in block), strict=True)):
            if full(kept.rules):
                rules.add(kept, block.condition[valued:i], block.price[valued:i])
                valued = i
            if look is not None:
                look(int(kept.at[0]), engine, arrays, sample, condition)
            context = arrays.context[condition, sample]
            decision = engine.decide(quotes[price], context if len(context) else None)
            seen = Observation.of(kept.seen.copy())
            truth, classes = arrays.confidence[condition, sample], arrays.prediction[condition, sample]
            reveal(truth, classes, decision.row, arrays.options, seen.row)
            if arrays.options[FALLBACK] == 1:
                fall_back(truth, decision.row, arrays.options, seen.row)
            now = int(kept.at[0])
            parked[now] = decision, seen
            for since in range(spec.delay + spec.spread, spec.delay - 1, -1):  # the oldest decision first
                if since <= now and delays[now - since] == since:
                    engine.update(*parked[now - since])
                    if repeats[now - since] >= 0:
                        again.setdefault(now + repeats[now - since], []).append(parked[now - since])
            for twice in again.pop(now, ()):
                assert not engine.update(*twice), "a duplicate was counted"
            parked.pop(now - spec.delay - spec.spread, None)
            gap, label = arrays.gap[condition, price], int(arrays.label[sample])
            score(truth, classes, label, gap, arrays.work, decision.row, seen.row, kept.totals, kept.rules, now)
            kept.at[0] += 1
            if kept.at[0] == due(kept.checkpoints, kept.at[1]):
                keep(kept.totals, kept.kept, kept.at)
        rules.add(kept, block.condition[valued:], block.price[valued:])
    return Trace.of(kept, rules.cuts, time.perf_counter() - start), engine.state(DEFAULT)


def _quote(row: FloatArray) -> Quote:
    quote = Quote.__new__(Quote)
    quote.row = row
    return quote


def arms_of(policy: Policy, arms: Arms) -> str | None:
    """None if the policy can play this table of arms, else the reason why not."""
    try:
        arms.part(policy.plays(arms))
    except ValueError as error:
        return str(error)
    return None
