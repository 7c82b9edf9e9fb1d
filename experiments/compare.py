"""`offramp compare`: policies x seeds against a stream; a table in the terminal, data and a report in a folder."""

import json
import math
import re
import time
from importlib.metadata import version
from pathlib import Path

import hydra
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from offramp.experiments.earlier import write
from offramp.experiments.playing import cache_part, check, make_world, play, play_all, several
from offramp.experiments.refusals import in_one_line
from offramp.experiments.results import REFERENCE, WITHIN_METRIC, Played, long_traces, summary, table
from offramp.experiments.sweeps import dataset
from offramp.experiments.sweeps.job import job, sweeping
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.sweeps.plugins import register

__all__ = ["make_world", "plain", "play", "several"]  # others take them from here
SUMMARY = "summary.json"
SWEEP = ("multirun.yaml", "jobs")  # what a sweep leaves in its folder
PART = r"[0-9a-f]{20}\.parquet"
Means = dict[str, dict[str, dict[str, float]]]


def shown(value: dict[str, float], scale: float = 1.0, digits: int = 3) -> str:
    """Mean and half-width as text."""
    text = f"{value['mean'] * scale:.{digits}f}"
    return text if math.isnan(value["half"]) else f"{text} ±{value['half'] * scale:.{digits}f}"


HEADS = ("cost", "saved %", "accuracy %", "change, points", "agreement %", "offloaded %", "regret", "µs/round")
WITHIN = "regret, ceiling kept"


def heads(means: Means) -> tuple[str, ...]:
    """What the columns say; one more where a policy has a ceiling to keep."""
    return (*HEADS[:-1], WITHIN, HEADS[-1]) if any(WITHIN_METRIC in found for found in means.values()) else HEADS


def cells(found: dict[str, dict[str, float]], columns: tuple[str, ...] = HEADS) -> list[str]:
    """The cells of one policy under these columns."""
    within = shown(found[WITHIN_METRIC], 1, 0) if WITHIN_METRIC in found else "–"
    return [
        shown(found["cost"]),
        shown(found["cost_saved"], 100, 1) if "cost_saved" in found else "–",
        shown(found["accuracy"], 100, 1),
        shown(found["accuracy_change"], 100, 1) if "accuracy_change" in found else "–",
        shown(found["agreement"], 100, 1),
        shown(found["offload_share"], 100, 1),
        shown(found["regret_total"], 1, 0),
        *([within] if WITHIN in columns else []),
        f"{found['microseconds_per_round']['mean']:.2f}",
    ]


def show(console: Console, played: Played, means: Means) -> None:
    """Print the table of one world."""
    n = len(played.seeds)
    grid = Table(
        title=f"world {played.name}: {played.horizon:,} rounds, {n} seed{'s' * (n > 1)}, mean ±95 % interval",
        caption=f"saved and change are against {REFERENCE}, paired by seed; regret is the dynamic pseudo-regret",
    )
    grid.add_column("policy")
    columns = heads(means)
    for head in columns:
        grid.add_column(head, justify="right")
    for policy, found in means.items():
        grid.add_row(policy, *cells(found, columns))
    for policy in played.refused:
        grid.add_row(policy, "not offered in this world", *[""] * (len(columns) - 1))
    console.print(grid)


def markdown(played: Played, means: Means) -> str:
    """The table of one world as Markdown, without the clock: what stays the same from run to run."""
    columns = heads(means)
    rows = [["policy", *columns[:-1]], ["---", *["--:"] * (len(columns) - 1)]]
    rows += [[policy, *cells(found, columns)[:-1]] for policy, found in means.items()]
    rows += [[policy, "not offered", *[""] * (len(columns) - 2)] for policy in played.refused]
    return f"World `{played.name}`:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def earlier_parts(folder: Path) -> list[Path]:
    """What an earlier comparison left in the data set of a folder.

    Raises
    ------
    ValueError
        The folder holds a sweep, or its data set something that no comparison wrote.

    """
    allowed = "allowed is a folder of its own, or that of an earlier comparison"
    if found := [name for name in SWEEP if (folder / name).exists()]:
        raise ValueError(f"folder is {folder}, which holds {found[0]} of a sweep, {allowed}; or -m and sweep={folder}")
    inside = folder / dataset.FOLDER
    if not inside.exists():
        return []
    there = sorted(path for path in inside.iterdir() if not path.name.startswith("."))
    if foreign := [path for path in there if not (re.fullmatch(PART, path.name) and path.is_file())]:
        raise ValueError(f"folder is {folder}, but {foreign[0]} is of no comparison, {allowed}")
    if there and not (folder / SUMMARY).exists():
        raise ValueError(f"folder is {folder}, where {inside} holds runs of a sweep, {allowed}")
    return there


def run(cfg: DictConfig, folder: Path) -> Path:
    """Play, print, and write the run folder; returns the path of the report."""
    check(cfg)
    before = earlier_parts(folder)
    console = Console(width=None if Console().is_terminal else 150)
    started = time.perf_counter()
    look = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console) as bar:
        played = play_all(cfg, bar)
    for p in played:
        if not p.traces:
            raise ValueError(f"world {p.name} can play none of the policies: {next(iter(p.refused.values()))}")
    folder.mkdir(parents=True, exist_ok=True)
    frames = [table(p) for p in played]
    means = [summary(frame) for frame in frames]
    for p, m in zip(played, means, strict=True):
        show(console, p, m)
    everything = pd.concat(frames, ignore_index=True)
    everything.to_json(folder / "results.jsonl", orient="records", lines=True)
    everything.to_parquet(folder / "results.parquet")
    pd.concat([long_traces(p) for p in played], ignore_index=True).to_parquet(folder / "traces.parquet")
    facts = {
        "offramp": version("offramp"),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "cache": dict(cache_part(cfg.cache, cfg.split).hashes),
        "worlds": {p.name: m for p, m in zip(played, means, strict=True)},
        "refused": {p.name: dict(p.refused) for p in played},
    }
    write(folder / SUMMARY, json.dumps(plain(facts), indent=1, allow_nan=False))
    tables = "\n".join(markdown(p, m) for p, m in zip(played, means, strict=True))
    write(folder / "table.md", tables)
    part = dataset.write_part(folder, dataset.rows(cfg, played, time.perf_counter() - started))
    for path in before:
        if path != part:
            path.unlink()  # of other policies
    from offramp.experiments.report import write_report  # its drawing takes seconds to import

    path = write_report(folder)
    console.print(f"{time.perf_counter() - started:.1f} s; report: {path.resolve()}", soft_wrap=True)
    return path


@in_one_line
def alone(cfg: DictConfig) -> None:
    """One comparison, in a folder of its own."""
    run(cfg, Path(HydraConfig.get().runtime.output_dir))


@hydra.main(config_path="pkg://offramp.conf", config_name="compare", version_base="1.3")
def program(cfg: DictConfig) -> float | None:
    """One comparison, or one job of a sweep."""
    return job(cfg) if sweeping() else alone(cfg)


def main() -> None:
    """Entry point of `offramp compare`."""
    register()
    program()


if __name__ == "__main__":
    main()
