"""An engine that also learns from decisions that were made elsewhere, with the same policy on another copy of it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from offramp.bandits import rows
from offramp.bandits.arms import Arm, Arms
from offramp.bandits.contract import ContractError, Decision, Observation, Quote
from offramp.bandits.engine import DEFAULT, Engine
from offramp.bandits.kernel import whole
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import ARMS, CURSOR, FREE, HEADER, MADE, UNIFORMS, T, refill

MOVING = [T, CURSOR, MADE]  # what of the header changes as decisions are made


def rule(row: FloatArray) -> Arm:
    """The arm that a decision row plays, read from its cut and thresholds."""
    exits, cut = whole(row[rows.EXITS]), whole(row[rows.CUT])
    at = rows.thresholds_at(exits)
    thresholds = row[at : at + exits].tolist()
    return Arm(cut, thresholds[cut - 1] if cut else np.inf, tuple(thresholds[: max(cut - 1, 0)]))


def placed(row: FloatArray, state: FloatArray, arms: Arms) -> FloatArray | None:
    """The decision row in terms of this table and of what the policy plays of it; None where it plays no such arm."""
    played = rule(row)
    index = float(arms.table.index(played)) if played in arms.table else -1.0
    n = whole(state[ARMS])
    for play in range(n):
        outside = state[HEADER + play] < 0.0  # stands for all rules with its cut
        if state[HEADER + n + play] == played.cut and (outside or state[HEADER + play] == index):
            moved = row.copy()
            moved[rows.ARM], moved[rows.PLAY] = state[HEADER + play], play
            return moved
    return None


def as_quoted(row: FloatArray, exits: int) -> FloatArray:
    """A decision row as it was before the decision: quote and context alone."""
    given = row.copy()
    given[rows.ARM : rows.COSTS] = 0.0
    given[rows.thresholds_at(exits) : rows.context_at(exits)] = np.inf
    return given


class Mark:
    """One stream as it was at one moment."""

    __slots__ = ("_mine", "_random", "_state")

    def __init__(self, mine: Any) -> None:
        self._mine, self._state = mine, mine.state.copy()
        self._random = mine.rng.bit_generator.state if mine.state[UNIFORMS] else None

    def undo(self) -> None:
        """Bring the stream back to that moment."""
        self._mine.state = self._state
        if self._random is not None:
            self._mine.rng.bit_generator.state = self._random


class Follower(Engine):
    """An `Engine` whose streams can follow what others decided, and be set to what others learnt.

    Examples
    --------
    >>> from offramp.bandits import UCB1, Arms, Observation, Quote
    >>> arms = Arms.grid(exits=2, thresholds=(0.5, 0.8))
    >>> here, there = (Follower(UCB1(), arms=arms, seed=0) for _ in range(2))
    >>> decision = here.decide(Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[0.4, 0.2, 0.0], mu=1.0))
    >>> seen = Observation(confidence=[0.9, float("nan")], answered_at=1, offloaded=False)
    >>> here.update(decision, seen), there.follow(decision, seen)
    (True, True)
    >>> bool((here.state() == there.state()).all())
    True

    """

    def follow(self, decision: Decision, observation: Observation, *, made_here: bool = True) -> bool:
        """Learn from a decision that another copy made: it takes the place of one that is made here in its stead.

        Parameters
        ----------
        decision, observation
            What was decided, and what it led to.
        made_here
            Was it made on this table by this policy?  If not, it teaches the arm with the same cut and thresholds.

        Returns
        -------
        bool
            False where no such arm is played here: nothing was learnt.

        Raises
        ------
        ContractError
            The observation cannot have come from this decision; undo the stream to a `mark`.

        Notes
        -----
        Making a decision moves a policy's counts, clocks and windows; the stand-in moves them here, and the decision
        gets its number.  So its age is counted from when it is learnt, and where decisions are learnt in the order and
        with the knowledge that they were made with, this state is the other's bit for bit.

        """
        mine = self._stream(decision.stream)
        row = decision.row if made_here else placed(decision.row, mine.state, self.arms)
        if row is None:
            self._check(decision, observation)
            return False
        stand_in = as_quoted(row, self.arms.exits)
        flag = self._decide(mine.state, stand_in)
        if flag == rows.REFILL:
            refill(mine.state, mine.rng)
            flag = self._decide(mine.state, stand_in)
        if flag == 0:
            stood_for = row.copy()
            stood_for[rows.ROUND] = stand_in[rows.ROUND]
            flag = self._learn(mine.state, stood_for, observation.row)
        if flag:
            raise ContractError(self._explain(flag, observation.row))
        return True

    def preview(
        self, quote: Quote, context: Sequence[float] | FloatArray | None = None, *, stream: str = DEFAULT
    ) -> FloatArray:
        """The decision row that the next `decide` would give, without deciding."""
        mine = self._stream(stream)
        state = mine.state.copy()
        row = quote.row.copy() if context is None else self._given(quote, context)
        flag = self._decide(state, row)
        if flag == rows.REFILL:
            refill(state, copy.deepcopy(mine.rng))
            flag = self._decide(state, row)
        if flag:
            raise ContractError(self._explain(flag, row))
        return row

    def adopt(self, states: Mapping[str, FloatArray]) -> None:
        """Go on with what another copy has learnt, and with one's own random numbers; streams are opened as needed."""
        for name, theirs in states.items():
            if name not in self._streams:
                self.start(name)
            mine = self._streams[name]
            self._fits(theirs, name)
            state = theirs.copy()
            n = whole(state[UNIFORMS])
            if n:
                state[len(state) - n :] = mine.state[len(state) - n :]
                state[CURSOR] = mine.state[CURSOR]
            mine.state = state
            mine.pending.clear()
            mine.earlier.clear()

    def scatter(self, seed: int) -> None:
        """Draw other random numbers than any copy of this one from now on."""
        for i, mine in enumerate(self._streams.values()):
            mine.rng = np.random.default_rng(np.random.SeedSequence((seed, i)))
            mine.state[CURSOR] = mine.state[UNIFORMS]

    def randomness(self, stream: str) -> dict[str, Any]:
        """State of a stream's random generator, as NumPy gives it."""
        return dict(self._stream(stream).rng.bit_generator.state)

    def resume(self, stream: str, state: FloatArray, random: Mapping[str, Any]) -> None:
        """Set a stream to a state and a random generator that were kept."""
        if stream not in self._streams:
            self.start(stream)
        mine = self._streams[stream]
        self._fits(state, stream)
        mine.state = state.copy()
        mine.rng.bit_generator.state = dict(random)

    def _fits(self, state: FloatArray, stream: str) -> None:
        """Refuse a state that is laid out otherwise than this policy's: compiled code would read beyond it.

        What stands behind the header and the table is believed: go on from what was written by your own alone.
        """
        mine = self._stream(stream).state
        free = whole(mine[FREE])
        same = len(state) == len(mine) and np.array_equal(
            np.delete(state[:free], MOVING), np.delete(mine[:free], MOVING)
        )
        if not same or not (0.0 <= state[CURSOR] <= state[UNIFORMS] and state[CURSOR] == int(state[CURSOR])):
            raise ValueError(f"the state of stream {stream!r} is laid out otherwise than that of {self.policy!r}")
        if not (0.0 <= state[T] < np.inf and 0.0 <= state[MADE] < np.inf):
            raise ValueError(f"the state of stream {stream!r} counts {state[MADE]} decisions, allowed is a number >= 0")

    def mark(self, stream: str) -> "Mark":
        """Keep a stream as it is now; `Mark.undo` brings it back."""
        return Mark(self._stream(stream))

    def _check(self, decision: Decision, observation: Observation) -> None:
        """Refuse an observation that contradicts its decision, though nothing is learnt from it."""
        flag = rows.check_observation(decision.row, observation.row, self.arms.exits)
        flag = flag or rows.check_hidden(observation.row, self.arms.exits)
        if flag:
            raise ContractError(self._explain(flag, observation.row))
