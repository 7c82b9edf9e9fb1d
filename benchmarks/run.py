"""Prints and writes what was measured beside what was asked for: `python benchmarks/run.py [--only NAME ...]`."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import durable
import interfaces
import joint
import loops
import network
import programs
import service
import steps
import sweep
import timed
from rich.console import Console
from rich.table import Table
from row import Row, failed
from yardstick import FLAGS

JOBS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "rollout-c": loops.rollout_c,
    "policy-step": steps.policy_step,
    "engine": steps.engine,
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


def machine() -> dict[str, object]:
    """On what the numbers were taken."""
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    compiler = shutil.which("gcc") or shutil.which("cc")
    asked = [compiler, "--version"] if compiler else None
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines() if asked else []
    packages = {}
    for name in ("offramp", "numpy", "numba", "llvmlite", "river", "gymnasium", "torch"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "compiler": said[0] if said else "none",
        "flags": " ".join(FLAGS),
        "packages": packages,
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def play(names: list[str], quick: bool, console: Console) -> dict[str, list[Row]]:
    """Measure; a job that breaks becomes a row that says so."""
    found: dict[str, list[Row]] = {}
    for name in names:
        with console.status(f"{name} …"):
            rows = found[name] = []
            try:
                rows.extend(JOBS[name](quick))
            except (ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                rows.append(failed(_what(name), f"{type(error).__name__}: {error}"))
    return found


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
            value = "–" if row.value != row.value else f"{row.value:.3g} {row.unit}"
            spread = f"{row.low:.3g} … {row.high:.3g}" if row.count > 1 else ""
            color = {"met": "green", "missed": "bold red", "failed": "bold red"}.get(row.verdict, "")
            verdict = f"[{color}]{row.verdict}[/]" if color else ""
            grid.add_row(row.what, value, spread, str(row.count), row.goal, verdict, row.note)
        grid.add_section()
    console.print(grid)


def plain(found: dict[str, list[Row]]) -> dict[str, list[dict[str, object]]]:
    """The rows as JSON knows them: null where nothing was measured."""
    return {
        name: [{k: None if v != v else v for k, v in asdict(row).items()} | {"verdict": row.verdict} for row in rows]
        for name, rows in found.items()
    }


def _what(name: str) -> str:
    return (JOBS[name].__doc__ or name).strip().splitlines()[0]


def main() -> None:
    """Entry point."""
    names = "\n".join(f"  {name:<12} {_what(name)}" for name in JOBS)
    parser = argparse.ArgumentParser(
        description="Measures this checkout on this machine; a missed target is shown, the exit code stays 0.",
        epilog=f"rows:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(JOBS), metavar="NAME", help="measure these rows alone")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that everything runs")
    parser.add_argument("--out", type=Path, help="also write table and machine as JSON to this file")
    asked = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 180)
    about = machine()
    console.print(f"{about['processor']}, {about['cores']} cores, load {about['load']}; {about['compiler']}")
    found = play(asked.only or list(JOBS), asked.quick, console)
    show(found, console)
    if asked.out:
        text = json.dumps({"machine": about, "quick": asked.quick, "rows": plain(found)}, indent=1)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
        console.print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
