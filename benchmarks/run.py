"""Measures, prints and writes the whole table: `python benchmarks/run.py [--only NAME ...]`."""

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import durable
import interfaces
import joint
import kept
import loops
import network
import pages
import peers
import programs
import service
import steps
import sweep
import timed
from cells import number, spread
from machine import load, machine
from rich.console import Console
from rich.table import Table
from row import Row, failed

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path("benchmarks/result.json")
JOBS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "rollout-c": loops.rollout_c,
    "policy-step": steps.policy_step,
    "engine": steps.engine,
    "peers": peers.peers,
    "joint": joint.joint,
    "timed": timed.timed,
    "durable": durable.durable,
    "service": service.service,
    "sweep": sweep.sweep,
    "gym": interfaces.gym,
    "cache": interfaces.cache,
    "threads": loops.threads,
    "memory": programs.memory,
    "start": programs.start,
    "wheel": programs.wheel,
    "compare": programs.compare,
    "exits": network.exits,
    "experts": network.experts,
}
BREAKS = (AssertionError, EOFError, ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError)


def play(name: str, quick: bool) -> list[Row]:
    """Measure a group; one that breaks has a row that says so."""
    rows: list[Row] = []
    try:
        rows.extend(JOBS[name](quick))
    except BREAKS as error:
        rows.append(failed(what(name), f"{type(error).__name__}: {error}"))
    return rows


def show(found: dict[str, list[Row]], console: Console) -> None:
    """Print the table."""
    grid = Table(caption="median; spread: quartiles; n: measurements")
    grid.add_column("what")
    for head in ("measured", "spread", "n", "target"):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("verdict")
    grid.add_column("note")
    for rows in found.values():
        for row in rows:
            value = "–" if row.verdict == "failed" else f"{number(row.value)} {row.unit}"
            color = {"met": "green", "missed": "bold red", "failed": "bold red"}.get(row.verdict, "")
            verdict = f"[{color}]{row.verdict}[/]" if color else ""
            grid.add_row(row.what, value, spread(row), str(row.count), row.goal, verdict, row.note)
        grid.add_section()
    console.print(grid)


def what(name: str) -> str:
    """What a group measures."""
    return (JOBS[name].__doc__ or name).strip().splitlines()[0]


def measure(names: list[str], quick: bool, root: Path | None, console: Console) -> None:
    """Measure groups one after the other; after each, the record and the pages below `root` are whole and agree."""
    facts, told, found = machine(), [], {}
    for name in names:
        about = {"what": what(name), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load": load()}
        console.print(f"{name:<12} load {about['load']} …")
        begun = time.perf_counter()
        found[name] = play(name, quick)
        about |= {"seconds": round(time.perf_counter() - begun, 1), "quick": quick}
        if root is not None:
            record = kept.read(root / RESULT)
            told.append(kept.add(record, name, found[name], order=JOBS, facts=facts, **about))
            kept.save(root / RESULT, record)
            pages.draw(root, kept.read(root / RESULT))
    show(found, console)
    for line in filter(None, told):
        console.print(f"[bold red]{line}[/]", highlight=False)


def laid_out(folder: Path) -> Path:
    """A folder with the pages, for a record and pages of its own."""
    for page in pages.MARKERS:
        if not (folder / page).exists():
            (folder / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / page, folder / page)
    return folder


def main() -> None:
    """Entry point."""
    names = "\n".join(f"  {name:<12} {what(name)}" for name in JOBS)
    parser = argparse.ArgumentParser(
        description=f"Measures this checkout on this machine; prints it, writes {RESULT}, and of all that is kept there"
        f" the tables in {' and '.join(map(str, pages.MARKERS))}. A missed target is shown, the exit code stays 0.",
        epilog=f"groups:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(JOBS),
        metavar="NAME",
        help="measure these groups; the others stay as they are",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: to see that everything runs; writes nothing"
    )
    parser.add_argument("--draw", action="store_true", help="measure nothing: write the pages of what was measured")
    parser.add_argument("--folder", type=Path, help="write there, to copies of the pages; with --quick as well")
    asked = parser.parse_args()
    if asked.draw and (asked.only or asked.quick):
        parser.error("--draw measures nothing, allowed beside it is --folder")
    if asked.quick and asked.folder and asked.folder.resolve() == ROOT:
        parser.error(
            "--quick into this checkout is refused, allowed is another folder: its numbers are to be looked at"
        )
    console = Console(width=None if Console().is_terminal else 180)
    root = laid_out(asked.folder) if asked.folder else None if asked.quick else ROOT
    try:
        if root is not None:
            kept.read(root / RESULT)  # before anything is measured: what cannot be written to is refused
            pages.check(root)
        if asked.draw:
            assert root is not None
            pages.draw(root, kept.read(root / RESULT))
        else:
            measure(asked.only or list(JOBS), asked.quick, root, console)
    except ValueError as error:
        parser.error(str(error))
    if root is not None:
        console.print(f"written: {', '.join(str(root / each) for each in (RESULT, *pages.MARKERS))}", soft_wrap=True)


if __name__ == "__main__":
    main()
