"""The figures of the study: reliability, error by level, offloading against the target, deadlines, and time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.environments.reliability import reliability
from offramp.experiments.calibration.honesty import matched_view
from offramp.experiments.calibration.samples import PRISTINE, ROUTED, Caches
from offramp.experiments.figures import CALIBRATED, STYLE

Rows = list[dict[str, Any]]
PALE = "#74b3d8"  # of pristine exits, where the calibration alone does not tell the systems apart
SMALLEST = 20  # samples of a bin that is drawn


def reliability_diagrams(name: str, caches: Caches, exits: Sequence[int]) -> Figure:
    """Accuracy against confidence of some exits of every expert, matched, before and after, with Wilson intervals."""
    experts, last = caches["raw"].experts, list(caches)[-1]
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(experts),
            len(exits),
            figsize=(3.4 * len(exits), 2.7 * len(experts)),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for e, expert in enumerate(experts):
            for axes, exit_at in zip(grid[e], exits, strict=True):
                axes.plot([0, 1], [0, 1], "--", color="#888", lw=0.8)
                for calibration, shift in (("raw", -0.006), (last, 0.006)):
                    found = matched_view(caches[calibration], e)
                    r = reliability(found.confidence[:, exit_at - 1], found.correct[:, exit_at - 1])
                    some = r.count >= SMALLEST
                    x, y = r.confidence[some] + shift, r.accuracy[some]
                    error = [y - r.low[some], r.high[some] - y]
                    label, colour, mark = CALIBRATED[calibration]
                    axes.errorbar(x, y, error, marker=mark, ms=3, lw=0.9, color=colour, label=label)
                    axes.bar(
                        0.5 * (r.edges[1:] + r.edges[:-1]) + shift, 0.3 * r.count / r.count.max(), width=0.028,
                        color=colour, alpha=0.25,
                    )  # fmt: skip
                axes.set(xlim=(0, 1), ylim=(0, 1), title=f"{expert} expert, exit {exit_at}")
            grid[e][0].set_ylabel("accuracy")
        for axes in grid[-1]:
            axes.set_xlabel("mean confidence of the bin")
        handles, labels = grid[0][0].get_legend_handles_labels()
        n = len(caches["raw"].label)
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False,
            title=f"{name}: n = {n:,} test images, half pristine, half at the family's levels; 15 bins, those of "
            f"{SMALLEST} images or more;\n95 % Wilson intervals; bars: share of images in the bin, the highest drawn "
            "as .3; dashed: accuracy = confidence", title_fontsize=9,
        )  # fmt: skip
        return figure


def level_errors(name: str, rows: Rows) -> Figure:
    """Calibration error of every exit under every condition, by who answers."""
    systems = list(dict.fromkeys((r["system"], r["calibration"]) for r in rows))
    names = list(dict.fromkeys(r["condition"] for r in rows))
    exits = max(r["exit"] for r in rows)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, grid = plt.subplots(1, len(systems), figsize=(3.6 * len(systems), 0.3 * len(names) + 1.6), sharey=True)
        for axes, (system, calibration) in zip(np.atleast_1d(grid), systems, strict=True):
            chosen = [r for r in rows if (r["system"], r["calibration"]) == (system, calibration)]
            values = np.array([r["ece"] for r in chosen]).reshape(len(names), exits)
            shown = axes.imshow(values, cmap="YlOrRd", vmin=0.0, vmax=0.5, aspect="auto")
            for (i, j), value in np.ndenumerate(values):
                colour = "white" if value > 0.3 else "black"
                axes.text(j, i, f"{value:.2f}"[1:], ha="center", va="center", fontsize=8, color=colour)
            axes.set_xticks(range(exits), [str(i + 1) for i in range(exits)])
            axes.set_yticks(range(len(names)), names)
            axes.set(xlabel="exit", title=f"{system},\n{CALIBRATED[calibration][0]}")
            axes.title.set_fontsize(10)
        figure.colorbar(shown, ax=grid, label="calibration error (15 bins, units of confidence)", aspect=40)
        figure.suptitle(f"{name}: n = {rows[0]['n']:,} test images under every condition", fontsize=10)
        return figure


EFFECTS = (
    ("edge_probability", "answered at the edge (share)"),
    ("edge_accuracy", "accuracy of the edge (share)"),
    ("accuracy", "accuracy of both (share)"),
    ("outage", "outage (share of batches)"),
)


def offloading(name: str, rows: Rows, edge_exits: int, shuffles: int) -> Figure:
    """Edge share, edge accuracy, accuracy and outage against the target, by condition."""
    conditions = list(dict.fromkeys(r["condition"] for r in rows))
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(EFFECTS),
            len(conditions),
            figsize=(3.2 * len(conditions), 2.5 * len(EFFECTS)),
            sharex=True,
            sharey="row",
        )
        for c, condition in enumerate(conditions):
            for k, (metric, label) in enumerate(EFFECTS):
                axes = grid[k][c]
                for system, style in ((ROUTED, "-"), (PRISTINE, ":")):
                    for calibration, (spelled, colour, mark) in CALIBRATED.items():
                        wanted = (system, condition, calibration)
                        own = [r for r in rows if (r["system"], r["condition"], r["calibration"]) == wanted]
                        look = {"ls": style, "color": colour, "marker": mark, "ms": 3}
                        _band(axes, own, metric, f"{system}, {spelled}", look)
                if metric == "edge_accuracy":
                    axes.plot([0.5, 0.95], [0.5, 0.95], color="#888", lw=0.8)
                axes.set_ylim(0, 1)
                if c == 0:
                    axes.set_ylabel(label, fontsize=9)
            grid[0][c].set_title(condition)
            grid[-1][c].set_xlabel("target p_tar (confidence)")
        handles, labels = grid[0][0].get_legend_handles_labels()
        n = rows[0]["n"]
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8,
            title=f"{name}: n = {n:,} test images, {edge_exits} exits at the edge; bands: 95 % (Wilson; outage: over "
            f"{shuffles} shuffles into batches of 256); grey line: accuracy = target",
        )  # fmt: skip
        return figure


def _band(axes: Axes, own: Rows, metric: str, label: str, look: dict[str, Any]) -> None:
    x = [r["target"] for r in own]
    axes.plot(x, [r[metric] for r in own], lw=1.2, label=label, **look)
    if own and f"{metric}_low" in own[0]:
        low, high = ([r[f"{metric}_{end}"] for r in own] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.15, lw=0)


def deadlines(name: str, rows: Rows, shown: Sequence[tuple[str, str]], about: str) -> Figure:
    """Missed deadlines against the deadline over the three links."""
    links = list(dict.fromkeys(r["link"] for r in rows))
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(shown),
            len(links),
            figsize=(3.7 * len(links), 2.6 * len(shown)),
            sharey=True,
            sharex="col",
            squeeze=False,
        )
        for k, (system, condition) in enumerate(shown):
            for axes, link in zip(grid[k], links, strict=True):
                for row in rows:
                    if (row["system"], row["condition"], row["link"]) == (system, condition, link):
                        curve, (label, colour, mark) = row["curve"], CALIBRATED[row["calibration"]]
                        x = curve["deadline_ms"]
                        few = max(1, len(x) // 9)
                        axes.plot(
                            x, curve["missed"], color=colour, marker=mark, ms=3.5, markevery=few, lw=1.3, label=label
                        )
                        axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.2, lw=0)
                        target = row["target"]
                axes.set(ylim=(0, 1.02), title=f"{system}, {condition}\n{link}, p_tar = {target:g}")
                axes.title.set_fontsize(9)
            grid[k][0].set_ylabel("missed deadlines\n(share of batches)")
        for axes in grid[-1]:
            axes.set_xlabel("deadline t_tar, mean of a batch (ms)")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, frameon=False,
            title=f"{name}: {about}",
        )  # fmt: skip
        return figure


def over_time(name: str, series: Rows, segments: Sequence[str]) -> Figure:
    """Calibration error of one exit along the mixed stream, with and without streaming recalibration."""
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(3, 1, figsize=(10, 8), sharex=True)
        for s in series:
            spelled, colour, mark = CALIBRATED[s["calibration"]]
            if s["system"] == PRISTINE and s["calibration"] != "raw":
                colour, mark = PALE, "v"
            style = f"{mark}{'-' if s['streaming'] else '--'}"
            label = f"{s['system']}, {spelled}{', recalibrated in the stream' if s['streaming'] else ''}"
            x, gap, half = (np.array(s[k]) for k in ("round", "gap", "gap_half"))
            grid[0].plot(x, s["ece_cloud"], style, color=colour, lw=1.1, ms=3, label=label)
            grid[1].plot(x, s["ece_label"], style, color=colour, lw=1.1, ms=3)
            grid[2].plot(x, gap, style, color=colour, lw=1.1, ms=3)
            grid[2].fill_between(x, gap - half, gap + half, color=colour, alpha=0.2, lw=0)
        horizon = series[0]["round"][-1]
        for axes in grid:
            for k in range(1, len(segments)):
                axes.axvline(k * horizon / len(segments), color="#888", lw=0.6)
        for k, condition in enumerate(segments):
            grid[0].text(
                (k + 0.5) / len(segments), 1.02, condition, transform=grid[0].transAxes, ha="center", fontsize=8
            )
        n = series[0]["window"] * series[0]["seeds"]
        grid[0].set_ylabel("calibration error against\nagreement with the cloud")
        grid[1].set_ylabel("calibration error\nagainst the label")
        grid[2].set_ylabel("mean confidence\n− accuracy")
        grid[2].set(xlabel="round", xlim=(0, horizon))
        grid[2].xaxis.set_major_formatter("{x:,.0f}")
        grid[2].axhline(0.0, color="#888", lw=0.6)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8,
            title=f"{name}: exit {series[0]['exit']}; windows of {series[0]['window']} rounds, "
            f"{series[0]['seeds']} seeds pooled (n = {n:,} a window, 15 bins); band: 95 % over seeds",
        )  # fmt: skip
        return figure
