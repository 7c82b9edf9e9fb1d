"""Reads confidences that others have published: CSV files of one row a sample and one group of columns an exit."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments.cache import CacheError, Condition, ConfidenceCache
from offramp.environments.csv_table import Table, key, number, open_table
from offramp.environments.layouts import Layout, exit_columns, recognise

Numbers = npt.NDArray[np.int64]
_LARGEST_CLASS = 32_766
_TIMES = ("delta_time", "cumulative_time")
_ROLES = ("confidence", "correct", "prediction", "label", *_TIMES)
_NO_LEVEL = ("", "nan", "none")


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """What was found in a file, what of it was read, and what stands in for what is missing.

    Attributes
    ----------
    file, layout, base
        Name of the file and of its layout; the number its first exit bears.
    rows
        Rows of data in the file; each is a sample under a condition, or counted in one of the next two.
    filtered, repeated
        Rows that `where` left out; rows that only repeat a sample for another value of a column such as p_tar.
    identical
        Rows kept although they say the same as an earlier one: two samples may, a file written twice always does.
    headers, blank
        Headers repeated among the rows, and empty lines: skipped.
    line_ends, byte_order_mark
        How often each line end occurs; whether the file begins with a mark.
    missing
        Of "correct", "prediction", "label": what has no column.
    unread
        Columns without a meaning here.
    mean_times, time_unit
        Mean per exit of the times that the file holds.

    """

    file: str
    layout: str
    base: int
    rows: int
    filtered: int
    repeated: int
    identical: int
    headers: int
    blank: int
    line_ends: Mapping[str, int]
    byte_order_mark: bool
    missing: tuple[str, ...]
    unread: tuple[str, ...]
    mean_times: Mapping[str, tuple[float, ...]]
    time_unit: str


def read_published(
    path: str | Path,
    *,
    layout: str | Layout | None = None,
    where: Mapping[str, str | float] | None = None,
    classes: int | None = None,
) -> tuple[ConfidenceCache, ReadReport]:
    """A cache from a published file, and a report of what was read; the report is in the cache's notes as well.

    Parameters
    ----------
    path
        A comma-separated file in UTF-8.
    layout
        One of `LAYOUTS` by name, or one of your own; None recognises it by its columns.
    where
        Read only the rows with these values, ``{"p_tar": 0.8}``.
    classes
        Number of classes; None takes it from the largest class that occurs.

    Raises
    ------
    CacheError
        Names file, line, column, the value found and what is allowed.

    Notes
    -----
    Without predictions, an answer is the label where it is correct and the next class where it is not; without
    labels, the label is the prediction that was correct, or else a class that no exit predicted; without both, class 0
    is correct and class 1 is not.  Accuracy is then exact; agreement of exits, where both are wrong, is not.
    A cache keeps confidences in float32, in which the published networks computed them.

    """
    table = open_table(Path(path))
    chosen = layout if isinstance(layout, Layout) else recognise(table.header, layout)
    rows = len(table.rows)
    table.keep(where or {})
    left = len(table.rows)
    blocks, base = _blocks(table, chosen, classes)
    missing = tuple(role for role in ("correct", "prediction", "label") if not blocks[role].size)
    conditions, groups = _conditions(table, chosen, blocks)
    prediction, label = _answers(table, groups, blocks, missing, classes)
    if classes is None:
        classes = max(2, int(max(prediction.max(), label.max())) + 1)
    first = groups.ravel()
    report = ReadReport(
        file=Path(path).name,
        layout=chosen.name,
        base=base,
        rows=rows,
        filtered=rows - left,
        repeated=left - groups.size,
        identical=sum(len(group) - len(np.unique(_facts(blocks)[group], axis=0)) for group in groups),
        headers=table.headers,
        blank=table.blank,
        line_ends=table.line_ends,
        byte_order_mark=table.mark,
        missing=missing,
        unread=table.unread(),
        mean_times={
            role: tuple(float(mean) for mean in blocks[role][first].mean(axis=0))
            for role in _TIMES
            if blocks[role].size
        },
        time_unit=chosen.time_unit,
    )
    cache = ConfidenceCache.from_arrays(
        confidence=blocks["confidence"][groups],
        prediction=prediction,
        label=label,
        conditions=conditions,
        classes=classes,
        notes={"published": asdict(report)},
    )
    return cache, report


def _blocks(table: Table, layout: Layout, classes: int | None) -> tuple[dict[str, FloatArray], int]:
    """What every role holds, (rows, exits) or (rows, 0) where it has no column, and the number of the first exit."""
    where = {role: exit_columns(table.header, getattr(layout, role)) for role in _ROLES}
    exits = list(where["confidence"])
    if not exits:
        raise CacheError(f"{table.file} has columns {table.header}, allowed are columns {layout.confidence}")
    bases = (0, 1) if layout.base is None else (layout.base,)
    if exits[0] not in bases or exits != list(range(exits[0], exits[0] + len(exits))):
        raise CacheError(
            f"{table.file} has a confidence of exits {exits}, allowed is every exit from one of {bases} on"
        )
    for role, found in where.items():
        if role != "label" and found and list(found) != exits:
            raise CacheError(f"{table.file} has {role} of exits {list(found)}, allowed are {exits} as in confidence")
    if not where["correct"] and not (where["prediction"] and where["label"]):
        raise CacheError(
            f"{table.file} has columns {table.header}, allowed are columns {layout.correct}, or both "
            f"{layout.prediction} and {layout.label}"
        )
    top = _LARGEST_CLASS if classes is None else classes - 1
    limits = {"confidence": 1.0, "correct": 1, "prediction": top, "label": top, **dict.fromkeys(_TIMES, math.inf)}
    blocks = {}
    for role, found in where.items():
        whole = isinstance(limits[role], int)
        read = [table.numbers(place, limits[role], whole, role == "correct") for place in found.values()]
        blocks[role] = np.stack(read, axis=1) if read else np.empty((len(table.rows), 0))
    return blocks, exits[0]


def _facts(blocks: Mapping[str, FloatArray]) -> FloatArray:
    """All that a row says but for times, (rows, columns)."""
    return np.concatenate([blocks[role] for role in ("confidence", "correct", "prediction", "label")], axis=1)


def _conditions(table: Table, layout: Layout, blocks: Mapping[str, FloatArray]) -> tuple[list[Condition], Numbers]:
    """The conditions as they come in the file, and the row of each of their samples, (S, N)."""
    family, level = table.first(layout.family), table.first(layout.level)
    again = [place for place in (table.first([name]) for name in layout.repeats) if place is not None]
    facts = _facts(blocks)
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], list[int]]] = {}
    for i, row in enumerate(table.rows):
        kind = "" if family is None else row[family].strip()
        strength = None
        if level is not None and row[level].strip().lower() not in _NO_LEVEL:
            strength = number(row[level].strip())
            if strength is None or math.isinf(strength):
                table.fail(i, level, "a number, or nothing")
        turn = tuple(key(row[place]) for place in again)
        found.setdefault((kind, strength), {}).setdefault(turn, []).append(i)
    groups = []
    for turns in found.values():
        (named, group), *others = turns.items()
        for turn, other in others:
            shared = min(len(group), len(other))
            differ = (facts[group[:shared]] != facts[other[:shared]]).any(axis=1)
            if differ.any() or len(group) != len(other):
                at = int(differ.argmax()) if differ.any() else shared - 1
                columns = [table.header[place] for place in again]
                raise CacheError(
                    f"{table.file}, line {table.lines[other[at]]}: found for {columns} = {list(turn)} other samples "
                    f"({len(other)}) than for {list(named)} ({len(group)}), allowed are the same again: choose by where"
                )
        groups.append(group)
    if len({len(group) for group in groups}) > 1:
        counts = {" ".join(str(part) for part in k): len(g) for k, g in zip(found, groups, strict=True)}
        raise CacheError(f"{table.file} has samples per condition {counts}, allowed is the same number for each")
    return [_condition(*name) for name in found], np.array(groups)


def _condition(family: str, level: float | None) -> Condition:
    family = family or "as published"
    parameters = {} if level is None else {"level": level}
    if level is None or (family == "pristine" and level == 0.0):
        return Condition(family, family, parameters)
    return Condition(f"{family} {int(level) if level == int(level) else level}", family, parameters)


def _answers(
    table: Table, groups: Numbers, blocks: Mapping[str, FloatArray], missing: tuple[str, ...], classes: int | None
) -> tuple[Numbers, Numbers]:
    """Predictions (S, N, L) and labels (N,), with correctness standing in for what is missing."""
    correct, prediction, label = (blocks[role][groups].astype(np.int64) for role in ("correct", "prediction", "label"))
    if "label" not in missing:
        truth = label[..., 0]
        _same(table, groups, truth != truth[:1], "the label that this sample has under the first condition")
        if "prediction" in missing:
            count = max(2, int(truth.max()) + 1) if classes is None else classes
            prediction = np.where(correct > 0, label, (label + 1) % count)
        elif "correct" not in missing:
            wrong = ((prediction == label) != (correct > 0)).any(axis=2)
            _same(table, groups, wrong, "correct exactly where prediction and label are the same")
        return prediction, truth[0]
    if "prediction" in missing:
        return 1 - correct, np.zeros(groups.shape[1], dtype=np.int64)
    said = np.where(correct > 0, prediction, -1).max(axis=(0, 2))
    clash = (prediction == said[:, None]) != (correct > 0)
    _same(table, groups, clash.any(axis=2), "one class that is correct for this sample, and no other")
    for n in np.flatnonzero(said < 0):
        said[n] = next(k for k in range(prediction.size + 1) if k not in prediction[:, n])
    return prediction, said


def _same(table: Table, groups: Numbers, bad: npt.NDArray[np.bool_], allowed: str) -> None:
    if bad.any():
        row = int(groups[tuple(np.argwhere(bad)[0])])
        raise CacheError(f"{table.file}, line {table.lines[row]}: found {table.rows[row]}, allowed is {allowed}")
