"""What every layout comes down to: one row a sample and condition, one column an exit, for each thing a file says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.cache import CacheError
from offramp.environments.published.layouts import Layout, exit_columns
from offramp.environments.published.table import Table

LARGEST_CLASS = 32_766
TIMES = ("delta_time", "cumulative_time")
ROLES = ("confidence", "correct", "prediction", "label", *TIMES)


@dataclass(kw_only=True)
class Blocks:
    """R rows, L exits; what a file does not say has no columns.

    Attributes
    ----------
    row
        Row of the table that each row comes from, for conditions and messages, (R,).
    exits
        Numbers of the exits in the file, (L,).
    values
        By role: confidence, correct, prediction and times (R, L) or (R, 0), label (R, 1) or (R, 0).
    sample
        What the file itself calls each sample, (R,), or None.
    dropped
        How many of what were left out.
    notes
        What a reader of the cache should know.
    classes
        Number of classes, where the layout says it.

    """

    row: IntArray
    exits: tuple[int, ...]
    values: dict[str, FloatArray]
    sample: IntArray | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: int | None = None

    def __getitem__(self, role: str) -> FloatArray:
        return self.values[role]

    @property
    def facts(self) -> FloatArray:
        """All that a row says but for times, (R, columns)."""
        return np.concatenate([self.values[role] for role in ROLES if role not in TIMES], axis=1)

    def take(self, rows: IntArray) -> None:
        """Keep these rows, in their order."""
        self.row, self.values = self.row[rows], {role: block[rows] for role, block in self.values.items()}
        self.sample = None if self.sample is None else self.sample[rows]


def limits(classes: int | None) -> dict[str, float]:
    """Largest value of each role; whole numbers where it is one."""
    top = LARGEST_CLASS if classes is None else classes - 1
    return {"confidence": 1.0, "correct": 1, "prediction": top, "label": top, **dict.fromkeys(TIMES, math.inf)}


def numbered(table: Table, layout: Layout, exits: Sequence[int]) -> None:
    """Refuse exits that are not all there, from the base on; of layers some may be missing."""
    bases = (0, 1) if layout.base is None else (layout.base,)
    whole = layout.gaps or list(exits) == list(range(exits[0], exits[0] + len(exits)))
    if not whole or (exits[0] not in bases and not layout.gaps):
        raise CacheError(
            f"{table.file} has a {'prediction' if layout.bare else 'confidence'} of exits {list(exits)}, allowed is "
            f"every exit from one of {bases} on"
        )


def from_columns(table: Table, layout: Layout, classes: int | None) -> Blocks:
    """A row is a sample, an exit a group of columns."""
    where = {role: exit_columns(table.header, getattr(layout, role), layout.words) for role in ROLES}
    label = table.first(layout.label)
    where["label"] = {} if label is None else {0: label}
    main = "prediction" if layout.bare else "confidence"
    exits = list(where[main])
    if not exits:
        raise CacheError(f"{table.file} has columns {table.header}, allowed are columns {getattr(layout, main)}")
    numbered(table, layout, exits)
    for role, found in where.items():
        if role != "label" and found and list(found) != exits:
            raise CacheError(f"{table.file} has {role} of exits {list(found)}, allowed are {exits} as in {main}")
    if not layout.unlabelled and not where["correct"] and not (where["prediction"] and where["label"]):
        raise CacheError(
            f"{table.file} has columns {table.header}, allowed are columns {layout.correct}, or both "
            f"{layout.prediction} and {layout.label}"
        )
    values = {}
    for role, found in where.items():
        high = limits(classes)[role]
        read = [table.numbers(place, high, isinstance(high, int), role == "correct") for place in found.values()]
        values[role] = np.stack(read, axis=1) if read else np.empty((len(table), 0))
    return Blocks(row=np.arange(len(table)), exits=tuple(exits), values=values)


def from_places(table: Table, layout: Layout, classes: int | None) -> Blocks:
    """Row id, then confidence and class of each exit, then the label, whatever the columns are called."""
    width = len(table.header)
    if width < 4 or width % 2:
        raise CacheError(
            f"{table.file} has {width} columns, allowed is an even number from 4 on: row id, confidence and class of "
            "each exit, label"
        )
    last = width - 1
    named = {1 + (j - 1) // 2: j for j in range(1, last, 2)}
    high = limits(classes)
    table.read.add(0)
    confidence = [table.numbers(j, high["confidence"], False) for j in named.values()]
    prediction = [table.numbers(j + 1, high["prediction"], True) for j in named.values()]
    none = np.empty((len(table), 0))
    return Blocks(
        row=np.arange(len(table)),
        exits=tuple(named),
        values={
            "confidence": np.stack(confidence, axis=1),
            "correct": none,
            "prediction": np.stack(prediction, axis=1),
            "label": table.numbers(last, high["label"], True)[:, None],
            **dict.fromkeys(TIMES, none),
        },
        notes=["columns are read by their place: row id, confidence and class of each exit, label"],
    )
