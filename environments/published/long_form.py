"""The long form: a row is one exit of one sample; turned into one row a sample."""

import numpy as np

from offramp.environments.cache import CacheError
from offramp.environments.published.blocks import ROLES, Blocks, limits, numbered
from offramp.environments.published.layouts import Layout
from offramp.environments.published.table import Table, codes, number


def from_rows(table: Table, layout: Layout, classes: int | None) -> Blocks:
    """Samples in the order of their numbers, or as they come where they bear names; every sample needs every exit.

    Raises
    ------
    CacheError
        A sample lacks an exit, has one twice with other values, or two labels.

    """
    place = {role: table.first(getattr(layout, role)) for role in ("sample", "exit", "confidence")}
    lacking = [getattr(layout, role) for role, j in place.items() if j is None]
    optional = {role: table.first(getattr(layout, role)) for role in ("prediction", "correct", "label")}
    if optional["correct"] is None and None in (optional["prediction"], optional["label"]):
        lacking.append((*layout.correct, "or both", *layout.prediction, *layout.label))
    if lacking:
        raise CacheError(f"{table.file} has columns {table.header}, allowed are columns {lacking} as well")
    which, at, sure = (j for j in place.values() if j is not None)
    exit_of = table.numbers(at, 1_000_000, True).astype(np.int64)
    exits = np.unique(exit_of)
    numbered(table, layout, exits.tolist())
    high = limits(classes)
    columns = {"confidence": table.numbers(sure, 1.0, False)}
    for role, j in optional.items():
        if j is not None:
            columns[role] = table.numbers(j, high[role], True, role == "correct")
    names = table.text(which)
    turns = [j for name in (*layout.repeats, *layout.family, *layout.level) if (j := table.place(name)) is not None]
    # A sample of one condition or turn is another row than the same sample of the next.
    parts = np.stack([codes(table.text(j)) for j in [*turns, which]], axis=1)
    _, first, group = np.unique(parts, axis=0, return_index=True, return_inverse=True)
    group, seat = group.ravel(), np.searchsorted(exits, exit_of)
    facts = np.stack(list(columns.values()), axis=1)
    held = np.full((len(first), len(exits)), -1)
    again = 0
    for i, (g, e) in enumerate(zip(group.tolist(), seat.tolist(), strict=True)):
        before = int(held[g, e])
        if before < 0:
            held[g, e] = i
        elif (facts[before] != facts[i]).any():
            raise CacheError(
                f"{table.where(i)}: found {table.row(i)}, allowed is the same as in line {table.lines[before]}, or "
                "another sample or exit"
            )
        else:
            again += 1
    for g, e in np.argwhere(held < 0)[:1]:
        has = exits[held[g] >= 0].tolist()
        raise CacheError(
            f"{table.where(int(first[g]))}: sample {names[int(first[g])]} has exits {has}, allowed are "
            f"{exits.tolist()}: {exits[e]} is missing"
        )
    none = np.empty((len(first), 0))
    values = {role: columns[role][held] if role in columns else none for role in ROLES}
    if "label" in columns:
        other = values["label"] != values["label"][:, :1]
        for g, e in np.argwhere(other)[:1]:
            row = int(held[g, e])
            raise CacheError(f"{table.where(row)}: found {table.row(row)}, allowed is one label for each sample")
        values["label"] = values["label"][:, :1]
    found = Blocks(row=first, exits=tuple(exits.tolist()), values=values)
    ids = [number(names[i]) for i in first.tolist()]
    whole = [int(x) for x in ids if x is not None and 0 <= x < 2**53 and x == int(x)]
    if len(whole) == len(ids):
        found.sample = np.array(whole, dtype=np.int64)
        found.take(np.lexsort((first, found.sample)))
    else:
        found.take(np.argsort(first))
    if again:
        found.dropped["rows that say again what an earlier row says"] = again
    return found
