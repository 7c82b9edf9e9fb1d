"""Whoever decided, followed through a log: what a decision was made with, if feedback is late and deciders many."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from offramp.bandits import rows
from offramp.bandits.durable.fold import Fold
from offramp.bandits.durable.follower import as_quoted
from offramp.bandits.durable.store import Entry
from offramp.bandits.policy import Policy
from offramp.bandits.rows import FloatArray
from offramp.experiments.offpolicy.distributions import DRAWS, next_uniform

CLOSE = 1e-9  # relative: a recomputed probability is the stated one
Name = tuple[str, int]  # a stream, and who decided on it


class Maker:
    """One decider's knowledge of one stream.

    Parameters
    ----------
    policy
        What it plays.
    learns
        True: it is in the learner's process, learns each piece of feedback as it comes, and counts its own decisions
        from its first one on.  False: it decides on boards, and counts its own decisions since the last one alone.

    """

    def __init__(self, policy: Policy, learns: bool) -> None:
        self.policy, self.learns = policy, learns
        self.why = ""
        self._state: FloatArray | None = None
        self._board = -1
        self._open: dict[int, FloatArray] = {}

    def decide(self, entry: Entry, learnt: FloatArray, exits: int) -> FloatArray:
        """The distribution that a decision was drawn from, (K,); then the decision is made here too.

        Parameters
        ----------
        entry
            The decision.
        learnt
            State of the learner at the decision's cursor.
        exits
            Exits L of the network.

        """
        if self._state is None or (not self.learns and entry.cursor != self._board):
            self._state, self._board = learnt.copy(), int(entry.cursor or 0)
        row, draw = entry.decision, DRAWS[type(self.policy)]
        chance = draw.chance(self.policy, self._state.copy(), as_quoted(row, exits))
        k, stated = int(row[rows.PLAY]), row[rows.P_ACTION]
        made = self._forced(row, chance, k, exits)
        if self.learns:
            self._open[entry.number] = made
        if stated == 1.0:  # no matter of chance: which rule's turn it is may hang on boards that no cursor tells apart
            certain: FloatArray = (np.arange(len(chance)) == k).astype(np.float64)
            return certain
        if not (abs(chance[k] - stated) <= CLOSE * stated and made[rows.PLAY] == k):
            self.why = f"states a probability of {stated:.6g}, and its log gives {chance[k]:.6g}"
        return chance

    def learn(self, entry: Entry, mine: bool, exits: int) -> None:
        """What a maker that learns does with the next piece of feedback of its stream."""
        if self._state is None or not self.learns:
            return
        row = self._open.pop(entry.number, None) if mine else None
        if row is None:  # another's: a stand-in takes its place, as in the learner
            row, draw = entry.decision, DRAWS[type(self.policy)]
            chance = draw.chance(self.policy, self._state.copy(), as_quoted(row, exits))
            stand_in = self._forced(row, chance, int(row[rows.PLAY]), exits)
            row = row.copy()
            row[rows.ROUND] = stand_in[rows.ROUND]
        self.policy.kernels.learn(self._state, row, entry.observation)

    def _forced(self, row: FloatArray, chance: FloatArray, k: int, exits: int) -> FloatArray:
        assert self._state is not None
        next_uniform(self._state, DRAWS[type(self.policy)].uniform(chance, k))
        made = as_quoted(row, exits)
        self.policy.kernels.decide(self._state, made)
        return made


def along(
    raw: bytes, entries: Sequence[Entry], stream: str | None, known: tuple[type, ...]
) -> tuple[dict[int, FloatArray], str]:
    """Distributions by place in the log, and why there are none.

    Parameters
    ----------
    raw
        Snapshot of the learner before the log.
    entries
        The log.
    stream
        Whose distributions are wanted; None = all.
    known
        As for `offramp.bandits.durable.DurableEngine`.

    Notes
    -----
    A ticket says how many lines of the log its decision was made with, and who made it as which of his.  What a decider
    knew is more than the fold over those lines: it counts what it has decided since.  That follows from the log where
    all its decisions are in it.  Whether it learnt in the learner's process or decided on boards the log does not say;
    one of both must give the probabilities that were stated on *all* of its decisions, else there is no distribution:
    to go by request would let what was drawn decide how it counts.  Not in the log are decisions that were never
    answered, those before its beginning, and whether a board was published twice with nothing learnt in between.

    """
    start = Fold.unpacked(raw, "the log", known=known).cursor
    by_cursor: dict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.kind is not None or stream not in (None, entry.stream):
            continue
        if entry.cursor is None:
            return {}, "the log, begun by an earlier version, does not say what its decisions were made with"
        if not start <= entry.cursor < entry.seq:
            return {}, f"line {entry.seq} was decided with {entry.cursor} lines, and the log begins after {start}"
        by_cursor[entry.cursor].append(entry)
    for decided in by_cursor.values():
        decided.sort(key=lambda e: (e.stream, e.epoch, e.number))
    found: dict[int, FloatArray] = {}
    left = {(e.stream, e.epoch) for decided in by_cursor.values() for e in decided}
    for learns in (True, False):
        fold = Fold.unpacked(raw, "the log", known=known)
        makers = {name: Maker(fold.learner.policy, learns) for name in sorted(left)}
        one = _pass(fold, entries, by_cursor, makers)
        left = {name for name, maker in makers.items() if maker.why}
        found |= {seq: chance for seq, (name, chance) in one.items() if name not in left}
        if not left:
            return found, ""
    return {}, f"a decider {makers[min(left)].why}"


def _pass(
    fold: Fold, entries: Sequence[Entry], by_cursor: dict[int, list[Entry]], makers: dict[Name, Maker]
) -> dict[int, tuple[Name, FloatArray]]:
    """Fold the log once, with these makers beside it: place in the log -> maker and distribution."""
    exits, found = fold.learner.arms.exits, {}

    def decided() -> None:
        for one in by_cursor.get(fold.cursor, ()):
            name = one.stream, one.epoch
            if name in makers and not makers[name].why:
                chance = makers[name].decide(one, fold.learner.state(one.stream), exits)
                found[one.seq] = name, chance

    decided()
    for entry in entries:
        fold.apply(entry)
        if entry.kind is None:
            for name, maker in makers.items():
                if name[0] == entry.stream and not maker.why:
                    maker.learn(entry, name[1] == entry.epoch, exits)
        decided()
    return found


def in_order(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Feedback in an order in which it was decided, where the log says so, else in the order in which it came.

    What a decision is drawn from follows from the decisions before it and from what those led to, whenever that became
    known; so estimates that let a request's weight depend on those before it are right in this order, however late and
    in whatever order feedback came.
    """
    if any(e.cursor is None for e in entries):
        return entries
    return sorted(entries, key=lambda e: (e.cursor, e.epoch, e.number))
