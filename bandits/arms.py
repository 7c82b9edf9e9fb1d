"""The one ordered table of (cut, threshold) that an engine owns and that policies play parts of; cascades included."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np

from offramp.bandits.rows import FloatArray

THRESHOLDS = (-math.inf, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, math.inf)
STEPS = (0.5, 0.6, 0.7, 0.8, 0.9, math.inf)  # of a threshold vector: its grid grows with a power of their number


@dataclass(frozen=True)
class Arm:
    """Compute up to exit `cut`; answer there from `threshold` on, else offload.

    Parameters
    ----------
    cut
        Where the edge stops computing, 0..L.
    threshold
        Confidence from which the exit at the cut answers; +inf = never, -inf = always.
    early
        Thresholds of exits 1..cut - 1, for a cascade, which answers at the first exit that is sure enough.  Empty = all
        +inf: nobody answers before the cut.

    Raises
    ------
    ValueError
        There are not as many early thresholds as exits before the cut, or one is nan.

    Examples
    --------
    >>> from offramp.bandits import Arm
    >>> Arm(3, 0.7, (math.inf, 0.9))
    Arm(cut=3, threshold=0.7, early=(inf, 0.9))
    >>> Arm(2, 0.7, (math.inf,)) == Arm(2, 0.7)
    True

    """

    cut: int
    threshold: float
    early: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        early = tuple(float(t) for t in self.early)
        if early and (len(early) != self.cut - 1 or any(math.isnan(t) for t in early)):
            raise ValueError(f"early is {early} at cut {self.cut}, allowed are {max(self.cut - 1, 0)} numbers, or none")
        object.__setattr__(self, "early", () if all(t == math.inf for t in early) else early)

    def __repr__(self) -> str:
        early = f", early={self.early}" if self.early else ""
        return f"Arm(cut={self.cut}, threshold={self.threshold}{early})"


@dataclass(frozen=True, kw_only=True)
class Arms:
    """A table of arms, ordered by cut, then threshold, then early thresholds (where none are given, +inf).

    Parameters
    ----------
    exits
        Exits L of the network.
    table
        The arms, in any order; they are kept sorted.  At cut 0 only +inf makes sense (the input is sent), at cut L only
        -inf (the last exit always answers).

    Examples
    --------
    >>> from offramp.bandits import Arms
    >>> arms = Arms.grid(exits=3, thresholds=(0.5, 0.8))
    >>> [(arm.cut, arm.threshold) for arm in arms]
    [(1, 0.5), (1, 0.8), (2, 0.5), (2, 0.8), (3, -inf)]

    """

    exits: int
    table: tuple[Arm, ...]

    def __post_init__(self) -> None:
        if self.exits < 1:
            raise ValueError(f"exits is {self.exits}, allowed is 1 or more")
        if not self.table:
            raise ValueError("the table of arms is empty, allowed is one arm or more")
        for arm in self.table:
            if not 0 <= arm.cut <= self.exits or arm.cut != int(arm.cut) or math.isnan(arm.threshold):
                raise ValueError(f"{arm} is not an arm: the cut must be in 0..{self.exits} and the threshold a number")
            if (arm.cut == 0 and arm.threshold != math.inf) or (arm.cut == self.exits and arm.threshold != -math.inf):
                raise ValueError(f"{arm} is not an arm: cut 0 goes with threshold +inf, cut {self.exits} with -inf")
        object.__setattr__(self, "table", tuple(sorted(self.table, key=_place)))
        if len(set(self.table)) != len(self.table):
            raise ValueError("the table of arms holds an arm twice")

    @classmethod
    def grid(cls, *, exits: int, thresholds: Iterable[float] = THRESHOLDS, raw_input_allowed: bool = False) -> "Arms":
        """Every cut with every threshold; "send the input" only where that is allowed."""
        ladder = sorted(set(thresholds))
        table = [Arm(0, math.inf)] if raw_input_allowed else []
        table += [Arm(cut, threshold) for cut in range(1, exits) for threshold in ladder]
        return cls(exits=exits, table=(*table, Arm(exits, -math.inf)))

    @classmethod
    def cascades(
        cls, *, exits: int, at: Iterable[int], thresholds: Iterable[float] = STEPS, cut: int | None = None
    ) -> "Arms":
        """Every vector of thresholds over some exits, as CeeBERT plays them.

        Parameters
        ----------
        exits
            Exits L of the network.
        at
            Exits that may answer, each from any of the thresholds, 1..L - 1.
        thresholds
            Values of each entry; +inf = this exit never answers.
        cut
            Where samples end up of which none of these was sure: None = they are offloaded from the last of `at`; a
            deeper cut before L offloads them from there; at L the last exit answers on the edge.

        Raises
        ------
        ValueError
            No exit is given or one is not in 1..L - 1, there is no threshold, or the cut is before one of the exits.

        Examples
        --------
        >>> from offramp.bandits import Arms
        >>> Arms.cascades(exits=3, at=(1, 2), thresholds=(0.5, 0.9)).table[0]
        Arm(cut=2, threshold=0.5, early=(0.5,))
        >>> len(Arms.grid(exits=3).joined(Arms.cascades(exits=3, at=(1, 2), cut=3)))
        56

        """
        answering, ladder = sorted(set(at)), sorted(set(thresholds))
        if not answering or not set(answering) <= set(range(1, exits)):
            raise ValueError(f"at is {answering}, allowed is one exit or more in 1..{exits - 1}")
        if not ladder:
            raise ValueError("thresholds are empty, allowed is one or more")
        end = answering[-1] if cut is None else cut
        if end not in range(answering[-1], exits + 1):
            raise ValueError(f"cut is {cut}, allowed is {answering[-1]}..{exits}, or None")
        table = []
        for values in product(ladder, repeat=len(answering)):
            vector = [math.inf] * end
            vector[-1] = -math.inf if end == exits else math.inf
            for exit_index, value in zip(answering, values, strict=True):
                vector[exit_index - 1] = value
            table.append(Arm(end, vector[-1], tuple(vector[:-1])))
        return cls(exits=exits, table=tuple(table))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Arm:
        return self.table[index]

    @property
    def single(self) -> tuple[Arm, ...]:
        """The arms that answer at their cut alone: all but the cascades."""
        return tuple(arm for arm in self.table if not arm.early)

    def joined(self, other: "Arms") -> "Arms":
        """The arms of both tables, each once.

        Raises
        ------
        ValueError
            The tables are for different numbers of exits.

        """
        if other.exits != self.exits:
            raise ValueError(f"exits is {other.exits}, allowed is {self.exits}: both tables are for one network")
        return Arms(exits=self.exits, table=tuple({*self.table, *other.table}))

    def plus(self, added: Iterable[Arm]) -> "Arms":
        """The same table with more arms in it, for `offramp.bandits.Engine.change`.

        Raises
        ------
        ValueError
            An arm is none, or there already.

        """
        return Arms(exits=self.exits, table=(*self.table, *added))

    def without(self, withdrawn: Iterable[Arm] = (), *, cuts: Iterable[int] = ()) -> "Arms":
        """The same table without some arms, or without all arms at some cuts.

        Raises
        ------
        ValueError
            An arm or a cut is not in the table, or nothing is left.

        """
        gone, at = set(withdrawn), set(cuts)
        for name, asked, offered in (
            ("withdrawn", gone, set(self.table)),
            ("cuts", at, {arm.cut for arm in self.table}),
        ):
            if not asked <= offered:
                raise ValueError(f"{name} are {sorted(asked, key=repr)}, allowed are those in the table of arms")
        kept = tuple(arm for arm in self.table if arm not in gone and arm.cut not in at)
        return Arms(exits=self.exits, table=kept)

    def part(self, wanted: Iterable[Arm]) -> FloatArray:
        """The rows (index, cut, threshold) of the wanted arms in the table's order, (K, 3).

        Raises
        ------
        ValueError
            A wanted arm is not in the table, or none is wanted.

        """
        asked = set(wanted)
        missing = asked - set(self.table)
        if missing:
            arm = min(missing, key=_place)
            here = sorted({a.threshold for a in self.single if a.cut == arm.cut})
            offered = f"thresholds offered at cut {arm.cut} are {here}" if here else f"it has no arm at cut {arm.cut}"
            raise ValueError(f"{arm} is not in the table of arms: {offered}")
        if not asked:
            raise ValueError("the policy plays none of the arms in the table")
        return np.array([(i, a.cut, a.threshold) for i, a in enumerate(self.table) if a in asked])


def _place(arm: Arm) -> tuple[int, float, tuple[float, ...]]:
    """Key of the table's order: a vector that is nowhere above another one comes before it."""
    return arm.cut, arm.threshold, arm.early or (math.inf,) * (arm.cut - 1)
