"""Two executors of a world in time: the compiled loop, and the same through an engine in plain Python, bit for bit."""

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from offramp.bandits.contract import ContractError, Decision, Observation, Quote
from offramp.bandits.engine import DEFAULT, Engine
from offramp.bandits.kernel import compile_here
from offramp.bandits.policy import Policy, fresh, needs_oracle
from offramp.bandits.reveal import ORACLE
from offramp.bandits.rows import CONFIDENCE, FloatArray, context_at, prediction_at
from offramp.bandits.state import CURSOR, UNIFORMS, refill
from offramp.environments.confidences import check_policy
from offramp.environments.link_kernels import LinkArrays
from offramp.environments.stream import Stream
from offramp.environments.timed.journal import Journal
from offramp.environments.timed.journey import carry_out
from offramp.environments.timed.loop import Decide, Learn, admit, leave, loop, next_back, take, turn
from offramp.environments.timed.offer import begin
from offramp.environments.timed.tables import CLOCK, DROPPED, FIELDS, GIVEN_UP, OF, ROUND, ROWS, Desk, Facts, Rounds
from offramp.environments.timed.world import TimedWorld

IN_FLIGHT = 4_096  # pieces of feedback that may be on their way at once; beyond it one is given up
BEYOND = 60_000.0  # milliseconds that the link is laid out for after the last arrival


@lru_cache
def _compiled(decide: Decide, learn: Learn) -> Callable[[FloatArray, Facts, LinkArrays, Rounds, Desk], int]:
    """The loop around one policy, compiled once in a process."""

    def run(state: FloatArray, facts: Facts, link: LinkArrays, rounds: Rounds, desk: Desk) -> int:
        return loop(decide, learn, state, facts, link, rounds, desk)

    return compile_here(run)


def _desk(world: TimedWorld, facts: Facts, rounds: Rounds) -> Desk:
    exits = facts.confidence.shape[2]
    width, length = context_at(exits) + facts.context.shape[2], prediction_at(exits) + exits
    return Desk(
        clock=np.zeros(CLOCK),
        estimate=world.estimate.initial(),
        waiting=np.zeros((IN_FLIGHT, ROWS + width + length)),
        left=np.zeros(0 if world.buffer is None else world.buffer + 1),
        chosen=np.zeros(exits + 1, dtype=np.int64),
        row=facts.blank.copy(),
        seen=np.concatenate([np.zeros(CONFIDENCE), np.full(exits, np.nan), np.full(exits, -1.0)]),
        truth=np.zeros(exits),
        classes=np.zeros(exits, dtype=facts.prediction.dtype),
        journal=np.zeros((len(rounds.sample), len(FIELDS))),
    )


def _link(world: TimedWorld, rounds: Rounds, seed: int) -> LinkArrays:
    return world.link.arrays(duration_ms=float(rounds.arrival[-1]) + BEYOND, seed=seed)


def rollout_timed(
    policy: Policy, world: TimedWorld, stream: Stream, *, horizon: int, seed: int, facts: Facts | None = None
) -> tuple[Journal, FloatArray]:
    """Play a policy in a world in time, in the compiled loop.

    Parameters
    ----------
    policy, world, stream
        Who plays where, on which images under which conditions.
    horizon
        Requests, >= 1.
    seed
        Rebuilds stream, arrivals, link and losses; the policy draws from it too, independently.
    facts
        The world's arrays for this stream, where the caller has them already.

    Returns
    -------
    tuple
        The journal and the policy's last state.

    Raises
    ------
    ValueError
        The facts are of another kind than this policy and this stream need.
    ContractError
        The world shows the policy what its steps refuse, a price that is not finite for one.

    """
    check_policy(policy, world.world.arms, world.world.cache)
    oracle = needs_oracle(policy)
    facts = world.facts(stream.conditions, oracle=oracle) if facts is None else facts
    if bool(facts.options[ORACLE]) != oracle or len(facts.confidence) != len(stream.conditions):
        raise ValueError(
            f"facts show {'all' if facts.options[ORACLE] else 'what is paid for'} under {len(facts.confidence)} "
            f"conditions, allowed are those of `world.facts({list(stream.conditions)}, oracle={oracle})`"
        )
    rounds = world.rounds(stream, horizon=horizon, seed=seed)
    link, desk = _link(world, rounds, seed), _desk(world, facts, rounds)
    state, rng = fresh(policy, world.world.arms, facts.context.shape[2]), np.random.default_rng(seed)
    state[CURSOR] = state[UNIFORMS]
    run = _compiled(policy.kernels.decide, policy.kernels.learn)
    none = Rounds(rounds.sample[:0], rounds.condition[:0], rounds.arrival[:0], rounds.lost[:0])
    run(state.copy(), facts, link, none, desk)  # compile outside the clock
    start = time.perf_counter()
    while (played := run(state, facts, link, rounds, desk)) < horizon:
        if played < 0:
            at = int(desk.clock[ROUND]) - 1
            raise ContractError(f"round {at}: the policy's steps refuse what the world shows; `replay_timed` says why")
        refill(state, rng)
    return Journal(desk.journal, int(desk.clock[GIVEN_UP]), time.perf_counter() - start), state


def replay_timed(
    policy: Policy, world: TimedWorld, stream: Stream, *, horizon: int, seed: int, compiled: bool = False
) -> tuple[Journal, FloatArray]:
    """Play a policy in a world in time through an `Engine`, in plain Python: the specification of `rollout_timed`.

    Every piece of feedback is delivered twice: an engine counts it once.

    Parameters
    ----------
    policy, world, stream, horizon, seed
        As for `rollout_timed`.
    compiled
        Let the engine use compiled steps.

    """
    check_policy(policy, world.world.arms, world.world.cache)
    facts = world.facts(stream.conditions, oracle=needs_oracle(policy))
    rounds = world.rounds(stream, horizon=horizon, seed=seed)
    link, desk = _link(world, rounds, seed), _desk(world, facts, rounds)
    features, width = facts.context.shape[2], len(desk.row)
    engine = Engine(
        policy, arms=world.world.arms, seed=seed, features=features, open_decisions=horizon + 1, compiled=compiled
    )
    decisions: dict[int, Decision] = {}
    started = time.perf_counter()
    for i in range(horizon):
        desk.clock[ROUND] = i + 1.0
        if not admit(desk, rounds.arrival[i]):
            desk.journal[i, DROPPED] = 1.0
            continue
        start = turn(rounds, desk, i)
        while (k := next_back(desk, start)) >= 0:
            seen = Observation.of(desk.waiting[k, ROWS + width :].copy())
            made = decisions.pop(int(desk.waiting[k, OF]))
            for counted in (True, False):
                assert engine.update(made, seen) is counted
            take(desk, k)
        begin(facts, link, rounds, desk, i, start)
        quote = Quote.__new__(Quote)
        quote.row = desk.row[: width - features].copy()
        decisions[i] = engine.decide(quote, desk.row[width - features :] if features else None)
        desk.row[:] = decisions[i].row
        carry_out(facts, link, rounds, desk, i, start)
        leave(desk)
    return Journal(desk.journal, int(desk.clock[GIVEN_UP]), time.perf_counter() - started), engine.state(DEFAULT)
