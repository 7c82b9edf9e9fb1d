"""Which rows are which sample under which condition: turns that repeat every sample are left out, once compared."""

import math
from typing import Any

import numpy as np

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.cache import CacheError, Condition
from offramp.environments.published.blocks import Blocks
from offramp.environments.published.layouts import Layout
from offramp.environments.published.table import Table, key, number

_NO_LEVEL = ("", "nan", "none")


def conditions_of(table: Table, layout: Layout, blocks: Blocks) -> tuple[list[Condition], IntArray]:
    """The conditions as they come in the file, and the row of the blocks of each of their samples, (S, N).

    Raises
    ------
    CacheError
        A turn says something else than the one before, or conditions have different numbers of samples.

    """
    family, level = table.first(layout.family), table.first(layout.level)
    again = [place for name in layout.repeats if (place := table.first([name])) is not None]
    index = None if blocks.sample is not None or layout.shape == "tokens" else table.index()
    facts = blocks.facts
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], list[int]]] = {}
    for i, row in enumerate(blocks.row.tolist()):
        kind = "" if family is None else table.text(family)[row].strip()
        strength = None
        if level is not None and table.text(level)[row].strip().lower() not in _NO_LEVEL:
            strength = number(table.text(level)[row])
            if strength is None or math.isinf(strength):
                table.fail(row, level, "a number, or nothing")
        turn = tuple(key(table.text(place)[row]) for place in again)
        found.setdefault((kind, strength), {}).setdefault(turn, []).append(i)
    groups, repeated, copies = [], 0, 0
    for turns in found.values():
        (named, group), *others = ((turn, _ordered(table, blocks, index, rows, facts)) for turn, rows in turns.items())
        copies += sum(len(rows) for rows in turns.values()) - len(group) - sum(len(other) for _, other in others)
        for turn, other in others:
            shared = min(len(group), len(other))
            differ = (facts[group[:shared]] != facts[other[:shared]]).any(axis=1)
            if differ.any() or len(group) != len(other):
                at = int(differ.argmax()) if differ.any() else shared - 1
                turned = [table.header[place] for place in again]
                raise CacheError(
                    f"{table.where(int(blocks.row[other[at]]))}: found for {turned} = {list(turn)} other samples "
                    f"({len(other)}) than for {list(named)} ({len(group)}), allowed are the same again: choose by where"
                )
            repeated += len(other)
        groups.append(group)
    if len({len(group) for group in groups}) > 1:
        counts = {" ".join(str(part) for part in k): len(g) for k, g in zip(found, groups, strict=True)}
        raise CacheError(f"{table.file} has samples per condition {counts}, allowed is the same number for each")
    if repeated:
        columns = ", ".join(table.header[place] for place in again)
        blocks.dropped[f"rows that repeat a sample for another value of {columns}"] = repeated
    if copies:
        blocks.dropped["rows that were written again with the same index"] = copies
    return [_condition(*name) for name in found], np.array(groups)


def _ordered(table: Table, blocks: Blocks, index: int | None, rows: list[int], facts: FloatArray) -> IntArray:
    """Rows of one condition and turn by their index where it tells them apart, as they come where it does not.

    Rows that were all written equally often, each time the same, count once.
    """
    group = np.array(rows)
    if index is None:
        return group
    cells = table.text(index)
    places = [number(cells[row]) for row in blocks.row[group].tolist()]
    if any(place is None for place in places):
        return group
    at = np.array(places, dtype=np.float64)
    order = np.argsort(at, kind="stable")
    _, starts, counts = np.unique(at[order], return_index=True, return_counts=True)
    if counts.min() != counts.max():
        return group
    passes: IntArray = group[order][starts[:, None] + np.arange(counts[0])]
    same = facts[passes] == facts[passes[:, :1]]
    first: IntArray = passes[:, 0]
    return first if same.all() else group


def _condition(family: str, level: float | None) -> Condition:
    family = family or "as published"
    parameters = {} if level is None else {"level": level}
    if level is None or (family == "pristine" and level == 0.0):
        return Condition(family, family, parameters)
    return Condition(f"{family} {int(level) if level == int(level) else level}", family, parameters)
