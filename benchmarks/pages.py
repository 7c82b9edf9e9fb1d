"""What README and docs show of the measurements: the blocks between their markers, made of benchmarks/result.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import measured, number, percentile, plain, spread, why
from front import chosen, reading
from kept import Kept, rows
from machine import in_words
from row import Row

from offramp.experiments.earlier import write
from offramp.experiments.written import filled

README, WHOLE = Path("README.md"), Path("docs/results/speed.md")
MARKERS = {README: ("speed: rows", "speed: reading"), WHOLE: ("speed: machine", "speed: table")}

HEAD = "| what | measured | quartiles | n | asked for | verdict | note |\n|---|--:|--:|--:|--:|---|---|"


def draw(root: Path, kept: Kept) -> None:
    """Write the blocks of README and of the page about speed anew.

    Raises
    ------
    ValueError
        A page has lost one of its markers; nothing was written.

    """
    sections: dict[str, Callable[[], str]] = {
        "speed: rows": lambda: chosen(kept),
        "speed: reading": lambda: reading(kept),
        "speed: machine": lambda: machines(kept),
        "speed: table": lambda: table(kept),
    }
    check(root)
    made = {page: filled((root / page).read_text(encoding="utf-8"), sections) for page in MARKERS}
    for page, text in made.items():
        write(root / page, text)


def check(root: Path) -> None:
    """See that all markers are there."""
    for page, names in MARKERS.items():
        text = (root / page).read_text(encoding="utf-8") if (root / page).exists() else ""
        for name in names:
            if f"<!-- {name} -->\n" not in text or "<!-- end -->" not in text.split(f"<!-- {name} -->\n", 1)[1]:
                raise ValueError(f"{page} has no block <!-- {name} --> ... <!-- end -->, allowed is a page that has it")


def machines(kept: Kept) -> str:
    """All machines in words."""
    names = list(kept["machines"])
    told = [in_words(facts) for facts in kept["machines"].values()]
    if len(told) == 1:
        return told[0]
    return "\n\n".join(f"Machine `{name}`: {text}" for name, text in zip(names, told, strict=True)) or "None yet."


def table(kept: Kept) -> str:
    """Every row of every group."""
    parts = []
    for name, group in kept["groups"].items():
        load = f"load {' '.join(map(number, group['load']))} before it" if group["load"] else "load unknown"
        about = [group["at"].replace("T", " ").replace("Z", " UTC"), load, f"{number(group['seconds'])} s in all"]
        about += [f"machine `{group['machine']}`"] if len(kept["machines"]) > 1 else []
        about += ["**a quick run, to be looked at only**"] if group["quick"] else []
        lines = [f"### {name}", "", plain(group["what"]), "", f"Measured {', '.join(about)}.", "", HEAD]
        lines += [line(row, group, kept) for row in rows(group)]
        if failed := group.get("failed"):
            lines += [
                "",
                f"**Measured again {failed['at']} and left as it was, for it failed:** {plain(failed['why'])}.",
            ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) or "Nothing was measured yet."


def line(row: Row, group: dict[str, Any], kept: Kept) -> str:
    """One row; of a miss, why."""
    parts = f"{which} of all requests, quartiles of the {which} of parts" if (which := percentile(row)) else ""
    note = "; ".join(filter(None, (plain(row.note), parts)))
    if row.verdict == "missed":
        missed = f"**missed: {plain(why(row, group, kept))}**"
        note = f"{note}; {missed}" if note else missed
    verdict = f"**{row.verdict}**" if row.verdict in ("missed", "failed") else row.verdict
    return f"| {plain(row.what)} | {measured(row)} | {spread(row)} | {row.count} | {row.goal} | {verdict} | {note} |"
