"""The one ordered table of (cut, threshold) that an engine owns and that policies play parts of."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from offramp.bandits.rows import FloatArray

THRESHOLDS = (-math.inf, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, math.inf)


@dataclass(frozen=True)
class Arm:
    """Compute up to exit `cut`; answer there from `threshold` on, else offload."""

    cut: int
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Arms:
    """A table of arms, ordered by cut, then threshold.

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
            if not 0 <= arm.cut <= self.exits or math.isnan(arm.threshold):
                raise ValueError(f"{arm} is not an arm: the cut must be in 0..{self.exits} and the threshold a number")
            if (arm.cut == 0 and arm.threshold != math.inf) or (arm.cut == self.exits and arm.threshold != -math.inf):
                raise ValueError(f"{arm} is not an arm: cut 0 goes with threshold +inf, cut {self.exits} with -inf")
        object.__setattr__(self, "table", tuple(sorted(self.table, key=lambda arm: (arm.cut, arm.threshold))))
        if len(set(self.table)) != len(self.table):
            raise ValueError("the table of arms holds an arm twice")

    @classmethod
    def grid(cls, *, exits: int, thresholds: Iterable[float] = THRESHOLDS, raw_input_allowed: bool = False) -> "Arms":
        """Every cut with every threshold; "send the input" only where that is allowed."""
        ladder = sorted(set(thresholds))
        table = [Arm(0, math.inf)] if raw_input_allowed else []
        table += [Arm(cut, threshold) for cut in range(1, exits) for threshold in ladder]
        return cls(exits=exits, table=(*table, Arm(exits, -math.inf)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Arm:
        return self.table[index]

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
            arm = min(missing, key=lambda a: (a.cut, a.threshold))
            here = sorted({a.threshold for a in self.table if a.cut == arm.cut})
            offered = f"thresholds offered at cut {arm.cut} are {here}" if here else f"it has no arm at cut {arm.cut}"
            raise ValueError(f"{arm} is not in the table of arms: {offered}")
        if not asked:
            raise ValueError("the policy plays none of the arms in the table")
        return np.array([(i, a.cut, a.threshold) for i, a in enumerate(self.table) if a in asked])
