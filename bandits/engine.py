"""The engine: serves decisions for many streams, takes their feedback in any order, and can be stopped and resumed."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from offramp.bandits import rows
from offramp.bandits.arms import Arms
from offramp.bandits.contract import ContractError, Decision, Observation, Quote, explain
from offramp.bandits.loop import guarded_select, guarded_step, guarded_update
from offramp.bandits.policy import Policy, fresh
from offramp.bandits.rearm import Places, after_another, places, rearmed
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import CURSOR, SEES_ALL, UNIFORMS, T, refill

SCHEMA = "offramp-engine-2"
DEFAULT = "default"
_ABSENT = object()


class _Stream:
    """What the engine keeps for one stream: the policy's state, its random generator, and the open decisions."""

    __slots__ = ("earlier", "next", "pending", "rng", "state")

    def __init__(self, state: FloatArray, rng: np.random.Generator) -> None:
        self.state = state
        self.rng = rng
        self.next = 0
        self.pending: dict[int, float] = {}  # id -> arm, so that a decision from elsewhere is not taken for this one
        self.earlier: dict[int, Places] = {}  # id -> today's places of the arms that it was made on, after a change


class Engine:
    """Decides and learns, one request at a time.  One writer: calls must not overlap.

    Parameters
    ----------
    policy
        An immutable spec.
    arms
        The table of (cut, threshold) arms.
    seed
        Seed of the policy's randomness; each stream draws from (seed, name of the stream).
    features
        Context features d that every decision brings.
    open_decisions
        Decisions that may wait for feedback at once in each stream; beyond it the oldest is given up, and feedback
        for it is refused like a duplicate.
    compiled
        Run the kernels compiled (the default) or as plain Python: same decisions, slower, open to a debugger.

    Examples
    --------
    >>> from offramp.bandits import Arms, Engine, Observation, Quote, SplitEE
    >>> engine = Engine(SplitEE(threshold=0.8), arms=Arms.grid(exits=2), seed=0)
    >>> quote = Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0)
    >>> decision = engine.decide(quote)
    >>> decision.cut, decision.thresholds
    (1, array([0.8, inf]))
    >>> seen = Observation(confidence=[0.93, float("nan")], answered_at=1, offloaded=False)
    >>> engine.update(decision, seen), engine.update(decision, seen)
    (True, False)

    """

    def __init__(
        self,
        policy: Policy,
        *,
        arms: Arms,
        seed: int,
        features: int = 0,
        open_decisions: int = 65_536,
        compiled: bool = True,
    ) -> None:
        if features < 0 or open_decisions < 1:
            raise ValueError(f"features is {features} and open_decisions {open_decisions}, allowed are >= 0 and >= 1")
        self.policy = policy
        self.arms = arms
        self.seed = seed
        self.features = features
        self.open_decisions = open_decisions
        kernels = policy.kernels
        self._decide, self._learn, self._step = kernels.decide, kernels.learn, kernels.step
        if not compiled:
            self._decide = partial(guarded_select, kernels.select)
            self._learn = partial(guarded_update, kernels.update)
            self._step = partial(guarded_step, kernels.select, kernels.update)
        self._streams: dict[str, _Stream] = {}
        self.start(DEFAULT)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams."""
        return tuple(self._streams)

    def start(self, stream: str, *, like: str | None = None) -> None:
        """Open a stream, from nothing or from what another one has learnt so far.

        Raises
        ------
        ValueError
            The stream exists, or the one to start from does not.

        """
        if stream in self._streams:
            raise ValueError(f"stream {stream!r} is open already")
        state = fresh(self.policy, self.arms, self.features) if like is None else self._stream(like).state.copy()
        name = stream.encode()
        key = (len(name), *name) if stream != DEFAULT else ()
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        state[CURSOR] = state[UNIFORMS]  # a stream never uses up another's random numbers
        self._streams[stream] = _Stream(state, rng)

    def decide(
        self, quote: Quote, context: Sequence[float] | FloatArray | None = None, *, stream: str = DEFAULT
    ) -> Decision:
        """Decide on one request.

        Parameters
        ----------
        quote
            Prices of this request.
        context
            Features of this request, (d,), finite.
        stream
            Which stream the request belongs to.

        Raises
        ------
        ContractError
            Quote or context do not fit this engine.

        """
        mine = self._streams.get(stream) or self._stream(stream)
        row = quote.row.copy() if context is None else self._given(quote, context)
        flag = self._decide(mine.state, row)
        if flag:
            self._refill(mine, row, flag)
        return self._open(mine, row, stream)

    def update(self, decision: Decision, observation: Observation) -> bool:
        """Learn from what a decision revealed, once; late and out of order are welcome.

        Returns
        -------
        bool
            False for feedback that was counted before (a duplicate), or whose decision was given up.

        Raises
        ------
        ContractError
            The observation cannot have come from this decision; nothing was learnt, and the decision stays open.

        """
        mine = self._streams.get(decision.stream) or self._stream(decision.stream)
        if decision.id not in mine.pending:
            return False
        self._check_origin(mine, decision)
        if mine.earlier and decision.id in mine.earlier:
            flag = self._learn_earlier(mine, decision, observation)
        else:
            flag = self._learn(mine.state, decision.row, observation.row)
        if flag:
            raise ContractError(self._explain(flag, observation.row))
        del mine.pending[decision.id]
        mine.earlier.pop(decision.id, None)
        return True

    def step(
        self,
        decision: Decision | None,
        observation: Observation | None,
        quote: Quote,
        context: Sequence[float] | FloatArray | None = None,
    ) -> Decision:
        """Take the feedback of the last request and decide on the next one of the same stream, in one compiled call.

        As `update` and then `decide`: a duplicate, or feedback that is still missing (None), teaches nothing.
        """
        if decision is None or observation is None:
            return self.decide(quote, context, stream=DEFAULT if decision is None else decision.stream)
        mine = self._streams.get(decision.stream) or self._stream(decision.stream)
        if decision.id not in mine.pending or decision.id in mine.earlier:
            self.update(decision, observation)
            return self.decide(quote, context, stream=decision.stream)
        self._check_origin(mine, decision)
        row = quote.row.copy() if context is None else self._given(quote, context)
        flag = self._step(mine.state, decision.row, observation.row, row)
        if flag > 0:
            raise ContractError(self._explain(flag, observation.row))
        del mine.pending[decision.id]
        if flag:
            self._refill(mine, row, flag if flag == rows.REFILL else -flag)
        return self._open(mine, row, decision.stream)

    def decide_many(
        self, quotes: Sequence[Quote], contexts: Sequence[Any] | None = None, *, stream: str = DEFAULT
    ) -> list[Decision]:
        """Decide on a batch, in order, as if one by one and without feedback in between."""
        given: Iterable[Any] = [None] * len(quotes) if contexts is None else contexts
        return [self.decide(q, c, stream=stream) for q, c in zip(quotes, given, strict=True)]

    def update_many(self, feedback: Iterable[tuple[Decision, Observation]]) -> int:
        """Learn from a batch, in order; returns how many were counted.

        Raises
        ------
        ContractError
            At the first observation that does not fit; those before it are counted.

        """
        return sum(self.update(decision, observation) for decision, observation in feedback)

    def forget(self, factor: float, *, stream: str = DEFAULT) -> None:
        """Shrink what a stream has learnt to a share of its weight, in (0, 1]."""
        if not 0.0 < factor <= 1.0:
            raise ValueError(f"factor is {factor}, allowed is (0, 1]")
        self.policy.kernels.forget(self._stream(stream).state, factor)

    def change(self, arms: Arms) -> None:
        """Go on with another table of arms, in all streams, without losing what was learnt.

        What is known about arms that stay is kept bit for bit; new ones were never tried.  Feedback for open decisions
        stays welcome: it teaches the arm that was played, or nothing where that was withdrawn.  A new price list needs
        no change at all: prices come with each quote.

        Parameters
        ----------
        arms
            The new table, of as many exits: `engine.arms.plus([Arm(3, 0.7)])`, `engine.arms.without(cuts=[2])`.

        Raises
        ------
        ValueError
            The policy cannot play this table, or cannot carry over what it knows; nothing has changed.

        Examples
        --------
        >>> from offramp.bandits import UCB1, Arms, Engine, Quote
        >>> engine = Engine(UCB1(), arms=Arms.grid(exits=3, thresholds=(0.5, 0.8)), seed=0)
        >>> quote = Quote(edge_cost=[0.0, 0.1, 0.3, 0.6], offload_cost=[0.4, 0.3, 0.2, 0.0], mu=1.0)
        >>> engine.decide(quote).cut
        1
        >>> engine.change(engine.arms.without(cuts=[1]))
        >>> engine.decide(quote).cut
        2

        """
        fresh(self.policy, arms, self.features)  # can it be played at all, whether or not there is a stream?
        moved = {
            name: rearmed(self.policy, mine.state, self.arms, arms, self.features)
            for name, mine in self._streams.items()
        }
        for name, mine in self._streams.items():
            now = places(mine.state, moved[name])
            before = {id(of): after_another(of, now) for of in mine.earlier.values()}
            mine.earlier = {
                which: before[id(mine.earlier[which])] if which in mine.earlier else now for which in mine.pending
            }
            mine.state = moved[name]
        self.arms = arms

    def state(self, stream: str = DEFAULT) -> FloatArray:
        """A copy of the policy's state, laid out as in `offramp.bandits.state`."""
        return self._stream(stream).state.copy()

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on exactly here: spec, arms, states, random generators, open decisions."""
        return {
            "schema": SCHEMA,
            "policy": repr(self.policy),
            "seed": self.seed,
            "arms": self.arms,
            "features": self.features,
            "streams": {
                name: {
                    "state": s.state.copy(),
                    "random": s.rng.bit_generator.state,
                    "next": s.next,
                    "pending": dict(s.pending),
                    "earlier": dict(s.earlier),
                }
                for name, s in self._streams.items()
            },
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot, bit for bit; the engine's own streams are dropped.

        Decisions made after the snapshot was taken belong to a history that has ended: drop their feedback, since ids
        are given out again from where the snapshot stood.

        Raises
        ------
        ValueError
            The snapshot has another schema, policy, table of arms or number of features.

        """
        mine = {"schema": SCHEMA, "policy": repr(self.policy), "arms": self.arms, "features": self.features}
        for field, value in mine.items():
            if snapshot.get(field) != value:
                raise ValueError(f"the snapshot's {field} is {snapshot.get(field)!r}, allowed is {value!r}")
        streams = {}
        first = fresh(self.policy, self.arms, self.features)
        for name, kept in snapshot["streams"].items():
            same = [i for i in range(SEES_ALL + 1) if i not in (T, CURSOR)]
            if kept["state"].shape != first.shape or (kept["state"][same] != first[same]).any():
                raise ValueError(f"the snapshot's state of stream {name!r} has another layout than this policy's")
            rng = np.random.default_rng()
            rng.bit_generator.state = kept["random"]
            streams[name] = stream = _Stream(kept["state"].copy(), rng)
            stream.next = kept["next"]
            stream.pending = dict(kept["pending"])
            stream.earlier = dict(kept["earlier"])
        self._streams = streams
        self.seed = snapshot["seed"]

    def _given(self, quote: Quote, context: Sequence[float] | FloatArray) -> FloatArray:
        try:
            return np.append(quote.row, np.asarray(context, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ContractError(f"context is {context!r}, allowed are {self.features} finite numbers") from error

    def _check_origin(self, mine: _Stream, decision: Decision) -> None:
        if mine.pending[decision.id] != decision.row[rows.ARM]:
            raise ContractError(
                f"decision {decision.id} plays arm {decision.arm}, but arm {mine.pending[decision.id]:g} is open under "
                f"this id in stream {decision.stream!r}: it was made by another engine, or before a restore"
            )

    def _learn_earlier(self, mine: _Stream, decision: Decision, observation: Observation) -> int:
        """Learn from a decision that was made on an earlier table of arms; 0 or a flag."""
        row = decision.row.copy()
        key = float(row[rows.ARM]), float(row[rows.PLAY])
        if key not in mine.earlier[decision.id]:
            return rows.FAULT * rows.FOREIGN
        place = mine.earlier[decision.id][key]
        if place is not None:
            row[rows.ARM], row[rows.PLAY] = place
            return self._learn(mine.state, row, observation.row)
        flag = rows.check_observation(row, observation.row, self.arms.exits)
        if flag or mine.state[SEES_ALL]:
            return flag
        return rows.check_hidden(observation.row, self.arms.exits)

    def _refill(self, mine: _Stream, row: FloatArray, flag: int) -> None:
        """Decide after all, with fresh uniforms, where those were what was missing; else say what was."""
        if flag != rows.REFILL:
            raise ContractError(self._explain(flag, row))
        refill(mine.state, mine.rng)
        self._decide(mine.state, row)

    def _open(self, mine: _Stream, row: FloatArray, stream: str) -> Decision:
        id = mine.next
        mine.next = id + 1
        mine.pending[id] = float(row[rows.ARM])
        if len(mine.pending) > self.open_decisions:
            oldest = next(iter(mine.pending))
            del mine.pending[oldest]
            mine.earlier.pop(oldest, None)
        return Decision(row, id, stream)

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            raise ValueError(f"stream {name!r} is not open; open are {list(self._streams)}; see Engine.start")
        return self._streams[name]

    def _explain(self, flag: int, row: FloatArray) -> str:
        if (
            flag // rows.FAULT == rows.WIDTH
            and len(row) >= rows.context_at(self.arms.exits)
            and row[0] == self.arms.exits
        ):
            given = len(row) - rows.context_at(self.arms.exits)
            return f"the context has {given} features, the engine was built for {self.features}"
        return explain(flag, row, self.arms.exits)
