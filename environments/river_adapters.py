"""river on both sides: our policies inside `river.bandit.evaluate`, and river's policies inside our replay."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from river import bandit

from offramp.bandits.arms import Arm
from offramp.bandits.engine import Engine
from offramp.bandits.loop import due, keep, score
from offramp.bandits.policy import Policy, needs_oracle
from offramp.bandits.reveal import FALLBACK, fall_back, reveal, reward
from offramp.bandits.rows import ARM, CUT, FloatArray, context_at, thresholds_at
from offramp.environments.off_table import OffTable
from offramp.environments.rounds import numbers_of, observation_of, quote_of, rules_of
from offramp.environments.stream import Stream, blocks
from offramp.environments.trace import Trace, record
from offramp.environments.world import World


class Wire:
    """Where an environment leaves what river does not hand on: the observation, and what a step revealed.

    A deep copy of a wire is the wire itself, so that the copies that `river.bandit.evaluate` makes of environments and
    policies stay connected.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        inner: Any = env.unwrapped
        for name in ("arms", "features"):
            if not hasattr(inner, name):
                raise ValueError(f"env is {type(inner).__name__}, allowed is an OfframpEnv: it has no {name}")
        self.arms, self.features = inner.arms, inner.features
        self.resets = 0
        self.first: FloatArray | None = None  # the observation that the episode began with
        self.left: tuple[int, float, dict[str, Any], FloatArray] | None = None  # arm, reward, info, next observation

    def __deepcopy__(self, memo: dict[int, Any]) -> "Wire":
        return self


class Wired(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An `OfframpEnv` whose observations and infos also go down a wire, for `EnginePolicy`.

    Parameters
    ----------
    env
        The environment; its `wire` is what policies are given.

    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.wire = Wire(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = super().reset(seed=seed, options=options)
        self.wire.first, self.wire.left = observation, None
        self.wire.resets += 1
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one arm."""
        stepped = super().step(action)
        self.wire.left = int(action), float(stepped[1]), stepped[4], stepped[0]
        return stepped


class EnginePolicy(bandit.base.Policy):  # type: ignore[misc]  # river is not typed
    """One of our policies behind an `Engine`, as a river policy.

    River hands a policy nothing but the reward of the arm that it pulled.  Ours decide on a quote and learn from what
    was revealed, so both come over the wire of a `Wired` environment: what `pull` decides on is the observation of
    the policy's own environment, and what `update` learns from is the `info` of the step just made there.  Neither
    holds a label.

    Parameters
    ----------
    policy
        A spec that plays arms of the table without audits: river can express no other decision.
    wire
        That of the environment, `env.wire`.
    seed
        Of the engine.

    Raises
    ------
    ValueError
        By `pull`: the arms are not those of the environment, or the decision is no arm.  By `update`: the step just
        made down this wire is not the one that the policy pulled.

    Examples
    --------
    >>> import gymnasium
    >>> from river import bandit
    >>> import offramp.environments.gymnasium_env
    >>> from offramp.bandits import UCB1
    >>> from offramp.environments.river_adapters import EnginePolicy, Wired
    >>> env = Wired(gymnasium.make("offramp/SplitExit-v0", horizon=50))
    >>> policies = [EnginePolicy(UCB1(), env.wire), bandit.EpsilonGreedy(0.1, seed=0)]
    >>> steps = list(bandit.evaluate(policies, env, n_episodes=2, seed=0))
    >>> len(steps)
    200

    Notes
    -----
    `evaluate` pulls, steps and updates one policy after the other; calls that overlap otherwise, from threads or from
    two evaluations on one environment, would mix up what is on the wire.

    """

    def __init__(self, policy: Policy, wire: Wire, seed: int = 0) -> None:
        super().__init__()
        if needs_oracle(policy):
            raise ValueError(f"policy is {policy}, allowed is one that needs no hidden confidence: none is shown here")
        self.policy, self.wire, self.seed = policy, wire, seed
        self._engine = Engine(policy, arms=wire.arms, seed=seed, features=wire.features)
        self._decision: Any = None
        self._next: FloatArray | None = None
        self._episode = -1

    def _pull(self, arm_ids: Sequence[int]) -> int:
        table = self.wire.arms
        if len(arm_ids) != len(table) or list(arm_ids) != list(range(len(table))):
            raise ValueError(f"arm_ids are {arm_ids}, allowed are 0..{len(table) - 1} as in the environment's table")
        if self._episode != self.wire.resets:
            self._episode, self._next = self.wire.resets, self.wire.first
        if self._next is None:
            raise ValueError("nothing came down the wire, allowed is a policy that is pulled after env.reset")
        decision = self._engine.decide(*quote_of(self._next, table.exits))
        if decision.arm < 0 or decision.audit:
            raise ValueError(f"{self.policy} decided {decision}, allowed are arms of the table without audit")
        self._decision = decision
        return decision.arm

    def update(self, arm_id: int, *reward_args: float, **reward_kwargs: Any) -> None:
        """Learn from what the step just made revealed; river's own statistics count its reward."""
        left, decision = self.wire.left, self._decision
        if left is None or decision is None or not left[0] == decision.arm == arm_id or reward_args[0] != left[1]:
            made = None if left is None else left[:2]
            raise ValueError(f"arm and reward are {(arm_id, *reward_args)}, allowed are those on the wire, {made}")
        super().update(arm_id, *reward_args, **reward_kwargs)
        self._engine.update(decision, observation_of(left[2]))
        self._decision, self._next = None, left[3]


def replay_river(
    policy: Any, world: World, stream: Stream, *, horizon: int, seed: int, arms: Iterable[Arm] | None = None
) -> tuple[Trace, Any]:
    """Play one of river's policies against a stream, scored as `offramp.environments.replay` scores ours.

    Parameters
    ----------
    policy
        A `river.bandit.base.Policy`.  It is cloned first, as river's own `evaluate` does, and draws from its own seed.
        It pulls indices into the world's table of arms and is updated with the reward at once; a contextual one is also
        given quote and context as a dict: "mu", "edge 0".."edge L", "offload 0".."offload L" (-1 = not offered),
        "context 0"...
    world, stream, horizon, seed
        As for `rollout`.
    arms
        Those of the world's table that it may pull; None = all.

    Returns
    -------
    tuple
        The trace, and the clone with what it has learnt.

    Raises
    ------
    ValueError
        An arm is not in the table, or the policy pulls what it was not offered.

    Examples
    --------
    >>> from river import bandit
    >>> from offramp.bandits import Arms, MacsAndBytes
    >>> from offramp.environments import ConfidenceCache, Stationary, World
    >>> cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    >>> world = World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=7, thresholds=(0.7, 0.9)))
    >>> trace, _ = replay_river(bandit.UCB(delta=1, seed=0), world, Stationary(), horizon=200, seed=0)
    >>> int(trace.arms[-1].sum())
    200

    """
    arrays, exits = world.arrays(stream.conditions, stream.links), world.arms.exits
    offered = range(len(world.arms))
    ids = list(offered) if arms is None else [int(i) for i in world.arms.part(arms)[:, 0]]
    numbers, rules, rule = numbers_of(arrays.quotes, exits), rules_of(world.arms), thresholds_at(exits)
    names = ["mu", *(f"{kind} {cut}" for kind in ("edge", "offload") for cut in range(exits + 1))]
    names += [f"context {i}" for i in range(arrays.context.shape[2])]
    learner, contextual = policy.clone(), isinstance(policy, bandit.base.ContextualPolicy)
    kept = record(world.arms, horizon, arrays.context.shape[2])
    row, seen, width = kept.row, kept.seen, context_at(exits)
    off_table = OffTable(arrays, world.arms)
    start = time.perf_counter()
    for block in blocks(stream, samples=len(arrays.label), horizon=horizon, seed=seed):
        for sample, condition, price in zip(*(part.tolist() for part in block), strict=True):
            context = arrays.context[condition, sample]
            given: tuple[Any, ...] = ()
            if contextual:
                given = (dict(zip(names, np.append(numbers[price], context).tolist(), strict=True)),)
            arm = learner.pull(ids, *given)
            if arm not in ids:
                raise ValueError(f"the policy pulled {arm!r}, allowed are {ids}")
            row[:width], row[width:] = arrays.quotes[price], context
            row[ARM], row[CUT], row[rule : rule + exits] = arm, rules[arm, 0], rules[arm, 1:]
            truth, classes = arrays.confidence[condition, sample], arrays.prediction[condition, sample]
            reveal(truth, classes, row, arrays.options, seen)
            if arrays.options[FALLBACK] == 1:
                fall_back(truth, row, arrays.options, seen)
            gained = float(reward(row, seen))  # nan where an offload is not offered and costs are worth nothing
            learner.update(arm, *given, -math.inf if math.isnan(gained) else gained)
            now, label = int(kept.at[0]), int(arrays.label[sample])
            gap = arrays.gap[condition, price]
            score(truth, classes, label, gap, arrays.work, row, seen, kept.totals, kept.rules, now)
            kept.at[0] += 1
            if kept.at[0] == due(kept.checkpoints, kept.at[1]):
                keep(kept.totals, kept.kept, kept.at)
        off_table.add(kept, block.condition, block.price)
    return Trace.of(kept, off_table.cuts, time.perf_counter() - start), learner
