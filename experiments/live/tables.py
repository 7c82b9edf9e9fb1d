"""The study's tables as Markdown, written between the markers of its README, and what was to be shown."""

from collections.abc import Callable
from typing import Any

import numpy as np

from offramp.experiments.joint_policy.tables import number
from offramp.experiments.live.sums import (
    RECOVERED_S,
    WITHIN,
    against,
    apart,
    by_condition,
    by_kind,
    columns_of,
    parts,
    phases,
    ratio,
    recovery,
    verdict,
)
from offramp.experiments.markdown import grid
from offramp.experiments.results import interval
from offramp.experiments.written import filled_by_cache

Found = dict[str, Any]
Kept = dict[str, Found]


def known(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where it is not known."""
    return "–" if value is None or not np.isfinite(value) else number(value, digits)


def plus_minus(found: Found, digits: int, sign: str = "+") -> str:
    """A number with the half-width of its interval."""
    half = "" if found["half"] is None or not np.isfinite(found["half"]) else f" ±{found['half']:,.{digits}f}"
    return f"{found['mean']:{sign},.{digits}f}{half}"


def claims(found: Found) -> str:
    """What was to be shown."""
    rows = []
    for run in found["runs"].values():
        live, simulated = columns_of(run["live"]["run"]), columns_of(run["simulated"]["run"])
        one = verdict(live, simulated)
        rows.append(
            [
                f"{run['title']}: simulated mean latency over the live one", f"within {100 * WITHIN:.0f} %",
                plus_minus(one, 3, ""), "yes" if one["holds"] else "**no**",
            ]
        )  # fmt: skip
        model = columns_of(run["model"])["latency_ms"]
        one = ratio(model, live["latency_ms"])
        rows.append(["the same, cost model on the live decisions", "", plus_minus(one, 3, ""), ""])
        hot = ratio(columns_of({"ms": run["hot"]})["ms"], live["latency_ms"])
        rows.append(["the same, parts timed in a loop without a rest", "", plus_minus(hot, 3, ""), ""])
    for kill in found["kills"].values():
        one = recovery(kill)
        gone = f"{(kill['back_ms'] - kill['killed_ms']) / 1e3:.1f} s"
        rows.append(
            [
                f"{kill['title']}, cloud gone for {gone}: unanswered or answered twice", "0",
                f"{one['unanswered'] + one['twice']} of {one['requests']}",
                "yes" if one["unanswered"] + one["twice"] == 0 else "**no**",
            ]
        )  # fmt: skip
        rows.append(
            [
                "the same: from the cloud's return to its first answer, s", f"at most {RECOVERED_S:g}",
                known(one["seconds"], 2), "yes" if one["seconds"] <= RECOVERED_S else "**no**",
            ]
        )  # fmt: skip
    return grid(["what", "to reach", "found", "reached"], rows, 2)


def setting(found: Found) -> str:
    """What was played."""
    cfg = found["config"]
    squeeze = 1e3 / cfg["every_ms"]
    rows = [
        [
            "requests",
            f"{cfg['requests']:,}, one every {cfg['every_ms']:g} ms: an hour at one a second, {squeeze:g}x",
        ],
        ["link", f"{cfg['trace']}, {cfg['scale']:g} of its rates, its time squeezed {squeeze:g}-fold"],
        ["conditions", f"{', '.join(cfg['conditions'])}; {cfg['segment']} requests each, in turn"],
        ["edge", f"{cfg['slower']:g} times slower than the machine, {cfg['power_w']:g} W"],
        ["deadline", f"{cfg['deadline_ms']:g} ms"],
        ["price", f"a whole image on the edge is worth {cfg['image_price']:g} of confidence"],
        *([run["title"], f"`{run['spec']}`"] for run in found["runs"].values()),
    ]
    return grid(["what", "value"], rows, 2)


def machine(found: Found) -> str:
    """How quick and how steady the machine was."""
    rows = []
    for run in found["runs"].values():
        m = run["machine"]
        rows.append(
            [
                run["title"],
                *(known(m[k][-1], 2) for k in ("without_rest_ms", "rested_ms", "played_ms", "again_ms")),
                known(100.0 * run["load"], 0),
                *(known(m[when][what], 2) for when in ("before", "after") for what in ("median_ms", "p95_ms", "load")),
            ]
        )
    heads = [
        "whole network without a rest, ms", "after a rest", "by the edge's program, mean (played)",
        "mean after the run", "edge busy at most, %",
        "fixed work before: median ms", "95 %", "load", "after: median ms", "95 %", "load",
    ]  # fmt: skip
    return grid(["run", *heads], rows)


def server(found: Found) -> str:
    """What the cloud takes for each split: its parts alone, and through its server with decoding."""
    rows = []
    for run in found["runs"].values():
        m = run["machine"]
        splits, away = np.array(m["splits"]), np.array(m["away_ms"])
        for split in np.unique(splits).tolist():
            here = splits == split
            alone, through = m["cloud_ms"][split], float(away[here].mean())
            cells = [known(alone, 2), known(through, 2), f"{through - alone:+.2f}"]
            rows.append([run["title"], str(split), *cells, known(float(np.array(m["coding_ms"])[here].mean()), 2)])
    heads = ["split", "its parts, ms", "through the server, ms", "more", "coding on this machine, ms"]
    return grid(["run", *heads], rows)


def side_by_side(run: Found) -> str:
    """Every metric live and simulated."""
    live, simulated = columns_of(run["live"]["run"]), columns_of(run["simulated"]["run"])
    rows = []
    for row in against(live, simulated):
        cells = [known(row[k], row["digits"]) for k in ("live", "other")]
        rows.append([row["title"], *cells, plus_minus(row["difference"], row["digits"])])
    rows[0].append(_scatter(run, "latency_ms", 1.0, 1))
    rows[1].append(_scatter(run, "correct", 100.0, 1))
    rows[3].append(_scatter(run, "offloaded", 100.0, 1))
    full = [row if len(row) == 5 else [*row, ""] for row in rows]
    return grid(["metric", "live", "simulated", "simulated minus live", "simulated in other orders"], full)


def _scatter(run: Found, name: str, scale: float, digits: int) -> str:
    values = [scale * v for v in run["simulated"]["orders"][name]]
    found = interval(values)
    return f"{number(found['mean'], digits)}, {number(min(values), digits)} to {number(max(values), digits)}"


def answers(run: Found) -> str:
    """Latency by who answered: live, simulated, and by the cost model for the live decisions."""
    live, simulated = columns_of(run["live"]["run"]), columns_of(run["simulated"]["run"])
    model = columns_of(run["model"])["latency_ms"]
    three = (
        ("live", by_kind(live)),
        ("simulated", by_kind(simulated)),
        ("model on live decisions", by_kind(live, model)),
    )
    rows = [
        [one["kind"], who, f"{one['n']:,}", *(known(one[k]) for k in ("mean", "p50", "p95"))]
        for which in range(3)
        for who, every in three
        for one in [every[which]]
        if one["n"]
    ]
    return grid(["who", "run", "n", "mean ms", "median", "95 %"], rows, 2)


def errors(run: Found) -> str:
    """Where the cost model errs."""
    rows = [
        [row["kind"], row["part"], known(row["live"], 2), known(row["model"], 2), f"{row['model'] - row['live']:+.2f}",
         known(row["p95"], 2)]
        for row in parts(columns_of(run["live"]["run"]), columns_of(run["model"]))
    ]  # fmt: skip
    heads = ["live, ms", "model, ms", "model minus live", "95 % of requests take at most so much more"]
    return grid(["who", "part", *heads], rows, 2)


def conditions(run: Found, names: list[str]) -> str:
    """Live and simulated under each condition."""
    at = np.array(run["condition"])
    pairs = (by_condition(columns_of(run[k]["run"]), at, names) for k in ("live", "simulated"))
    rows = [
        [a["condition"], f"{a['n']:,}", known(a["latency_ms"]), known(b["latency_ms"]), known(100 * a["correct"]),
         known(100 * b["correct"]), known(100 * a["offloaded"]), known(100 * b["offloaded"])]
        for a, b in zip(*pairs, strict=True)
    ]  # fmt: skip
    heads = ["latency live, ms", "simulated", "accuracy live, %", "simulated", "cloud live, %", "simulated"]
    return grid(["condition", "n", *heads], rows)


def paths(found: Found) -> str:
    """How far the two paths part, and what an answer is worth where they do not."""
    rows = []
    for run in found["runs"].values():
        one = apart(columns_of(run["live"]["run"]), columns_of(run["simulated"]["run"]))
        rows.append(
            [
                run["title"], known(100 * one["cut"]), known(100 * one["answered_at"]),
                "never" if one["first"] is None else f"{one['first'] + 1:,}", f"{one['alike']:,}",
                f"{one['confidence_median']:.5f}", f"{one['confidence_p99']:.4f}", known(100 * one["same_answer"], 2),
            ]
        )  # fmt: skip
    heads = [
        "same cut, %", "same exit answers, %", "first other cut at request", "same cut, exit and codec, n",
        "confidence differs by, median", "99 %", "alike right or wrong, %",
    ]  # fmt: skip
    return grid(["run", *heads], rows)


def death(kill: Found) -> str:
    """Before, without and after the cloud."""
    rows = [
        [row["phase"], *(f"{row[k]:,}" for k in ("n", "edge", "cloud", "fallback")),
         *(known(row[k]) for k in ("mean", "p95", "worst")),
         plus_minus({k: None if v is None else 100 * v for k, v in row["accuracy"].items()}, 1, "")]
        for row in phases(kill)
    ]  # fmt: skip
    return grid(
        [
            "cloud",
            "requests",
            "edge answered",
            "cloud answered",
            "fallback",
            "mean ms",
            "95 %",
            "largest",
            "accuracy %",
        ],
        rows,
    )


def sections(found: Found) -> dict[str, Callable[[], str]]:
    """What stands between markers: name -> text."""
    made: dict[str, Callable[[], str]] = {
        "shown": lambda: claims(found),
        "setting": lambda: setting(found),
        "machine": lambda: machine(found),
        "server": lambda: server(found),
        "paths": lambda: paths(found),
    }
    names = found["config"]["conditions"]
    for key, run in found["runs"].items():
        made[f"sides {key}"] = lambda run=run: side_by_side(run)  # type: ignore[misc]
        made[f"answers {key}"] = lambda run=run: answers(run)  # type: ignore[misc]
        made[f"errors {key}"] = lambda run=run: errors(run)  # type: ignore[misc]
        made[f"conditions {key}"] = lambda run=run: conditions(run, names)  # type: ignore[misc]
    for key, kill in found["kills"].items():
        made[f"kill {key}"] = lambda kill=kill: death(kill)  # type: ignore[misc]
    return made


def fill(text: str | None, kept: Kept) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    return filled_by_cache(text, "Live and simulated", {name: sections(found) for name, found in kept.items()})


def verdicts(found: Found) -> str:
    """What was to be shown, for the terminal."""
    lines = []
    for run in found["runs"].values():
        one = verdict(columns_of(run["live"]["run"]), columns_of(run["simulated"]["run"]))
        lines.append(f"{run['title']}: simulated over live mean latency {plus_minus(one, 3, '')}")
    for kill in found["kills"].values():
        one = recovery(kill)
        lines.append(
            f"{kill['title']}, cloud killed: {one['unanswered']} of {one['requests']} unanswered, {one['fallbacks']} "
            f"fallbacks, first answer {known(one['seconds'], 2)} s after its return"
        )
    return "\n".join(lines)
