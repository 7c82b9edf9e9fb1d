"""What was measured last, group by group: the file that the pages are made of, and how a new measurement enters it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from row import Row

from offramp.experiments.earlier import earlier, significant, write

Kept = dict[str, Any]  # {"machines": {name: facts}, "groups": {name: {what, at, load, seconds, quick, machine, rows}}}


def read(path: Path) -> Kept:
    """The file, or an empty one.

    Raises
    ------
    ValueError
        The file is none that `save` wrote.

    """
    found = earlier(path) or {"machines": {}, "groups": {}}
    if set(found) != {"machines", "groups"}:
        raise ValueError(f"{path} has {sorted(found)}, allowed are machines and groups; move it away")
    return found


def save(path: Path, kept: Kept) -> None:
    """Write it, whole; machines of which nothing is kept any more are left out."""
    used = {group["machine"] for group in kept["groups"].values()}
    kept["machines"] = {name: facts for name, facts in kept["machines"].items() if name in used}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(significant(kept), allow_nan=False, indent=1, ensure_ascii=False) + "\n")


def rows(group: Mapping[str, Any]) -> list[Row]:
    """The rows of a group; nan where there is no number."""
    names = {field.name for field in fields(Row)} - {"target"}
    found = []
    for each in group["rows"]:
        given = {k: float("nan") if each[k] is None else each[k] for k in names}
        found.append(Row(**given, target=each["target"]))
    return found


def without_number(measured: Iterable[Row]) -> str:
    """Which rows have none, and why; "" where all have one."""
    return "; ".join(f"{row.what}: {row.note}" for row in measured if row.value != row.value)


def add(
    kept: Kept, name: str, measured: list[Row], *, order: Iterable[str], facts: dict[str, Any], **about: Any
) -> str:
    """Put a group's new measurement in its place; one with a gap never replaces one without.

    Parameters
    ----------
    kept
        What there is; changed in place.
    name, measured
        The group and its rows.
    order
        Names of all groups; others are dropped.
    facts
        The machine.
    about
        What the group says of itself: what, at, load, seconds, quick.

    Returns
    -------
    str
        What a reader must be told: that a row has no number, and what became of it; else "".

    """
    machine = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    groups, gap = kept["groups"], without_number(measured)
    before = groups.get(name)
    told = f"{name}: without a number: {gap}" if gap else ""
    if gap and before is not None and not without_number(rows(before)):
        groups[name] = before | {"failed": {"at": about["at"], "why": gap}}
        told += f"; what was measured on {before['at']} stays"
    else:
        kept["machines"][machine] = facts
        told_rows = [asdict(row) | {"verdict": row.verdict} for row in measured]
        groups[name] = {**about, "machine": machine, "rows": told_rows}
    kept["groups"] = {each: groups[each] for each in order if each in groups}
    return told
