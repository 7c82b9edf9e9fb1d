"""How a row is written into a cell of a table, and how one is found."""

import math
from typing import Any

from kept import Kept, rows
from row import Row


def value(kept: Kept, group: str, what: str) -> float:
    """The number of one row, nan where there is none."""
    return next((row.value for row in found(kept, group) if row.what == what), math.nan)


def found(kept: Kept, group: str) -> list[Row]:
    """The rows of a group, none where it was not measured."""
    return rows(kept["groups"][group]) if group in kept["groups"] else []


def number(x: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{x:,.0f}" if abs(x) >= 100 or x == int(x) else f"{x:.3g}"


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, in a cell of a table."""
    for mark, told in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_"), ("\n", " ")):
        text = text.replace(mark, told)
    return text


def measured(row: Row) -> str:
    """Its number with the unit; bold where it falls short."""
    if row.verdict == "failed":
        return "**no number**"
    text = f"{number(row.value)} {row.unit}"
    return f"**{text}**" if row.verdict == "missed" else text


def spread(row: Row) -> str:
    """Its quartiles."""
    return f"{number(row.low)} to {number(row.high)}" if row.count > 1 else ""


def percentile(row: Row) -> str:
    """Which percentile of all requests a row is, where it is one: its quartiles are those of parts of the run."""
    end = row.what.rpartition(", ")[2]
    return end if end in ("p50", "p99") else ""


def why(row: Row, group: dict[str, Any], kept: Kept) -> str:
    """Why a row fell short, as far as its group and the load before it tell."""
    cores, load = kept["machines"][group["machine"]]["cores"], group["load"]
    busy = (
        f"measured beside other work (load {number(load[0])} on {cores} cores)" if load and load[0] > cores / 2 else ""
    )
    return "; ".join(filter(None, (row.reason, busy))) or "not explained"
