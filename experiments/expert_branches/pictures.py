"""The study's figures: fronts on the mixed stream, the edge's accuracy level by level, and where the best exit lies."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from offramp.environments.reliability import wilson
from offramp.experiments.expert_branches.mixed import POLICIES, WHOLE
from offramp.experiments.expert_branches.systems import EXPERTS, PRICES, PRISTINE, PRISTINE_CALIBRATED, SYSTEMS
from offramp.experiments.figures import STYLE, svg

matplotlib.use("Agg")
COLOURS = dict(zip(SYSTEMS, ("#d1495b", "#e0a000", "#1b6ca8", "#1b1b1b", "#74b3d8", "#2e933c"), strict=True))
MARKS = dict(zip(SYSTEMS, ("s", "D", "o", "x", "v", "^"), strict=True))
Found = dict[str, Any]


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by file name, the same from run to run."""
    made = {}
    for what, figure in (("fronts", fronts), ("levels", levels), ("exits", exits)):
        with plt.rc_context(STYLE | {"svg.hashsalt": name}):
            made[f"{what}_{name}"] = svg(figure(name, found), what) + "\n"
    return made


def fronts(name: str, found: Found) -> Figure:
    """Mean cost against accuracy over the whole stream as mu grows, one panel for each price list and policy."""
    figure, axes = plt.subplots(2, len(POLICIES), figsize=(12, 7), sharey=True)
    for row, prices in zip(axes, PRICES, strict=True):
        for ax, policy in zip(row, POLICIES, strict=True):
            for system in SYSTEMS:
                one = next(
                    f
                    for f in found["fronts"]
                    if (f["prices"], f["policy"], f["system"], f["part"]) == (prices, policy, system, WHOLE)
                )
                ax.errorbar(
                    one["cost"], 100.0 * np.array(one["accuracy"]), yerr=100.0 * np.array(one["half"]),
                    color=COLOURS[system], marker=MARKS[system], ms=4, lw=0.9, elinewidth=0.7, alpha=0.85, label=system,
                )  # fmt: skip
            ax.set(title=f"{policy}, {PRICES[prices]}", xlabel="mean cost per image (cost units)")
            ax.title.set_fontsize(10)
        row[0].set_ylabel("accuracy (%)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    config = found["config"]
    figure.suptitle(
        f"{name}: mixed stream, {config['horizon']:,} rounds, one point for each of {len(found['mu'])} values of mu; "
        f"mean and 95 % interval, n = {config['seeds']} seeds",
        fontsize=10,
    )
    return figure


def levels(name: str, found: Found) -> Figure:
    """Accuracy of the edge's answers and the share it answers at one target, condition by condition."""
    names = [r["condition"] for r in found["routing"]]
    figure, both = plt.subplots(2, 1, figsize=(11, 6.8), sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    for k, system in enumerate((PRISTINE, PRISTINE_CALIBRATED, EXPERTS)):
        rows = [r for r in found["levels"] if r["system"] == system and r["target"] == found["target"]]
        x = np.arange(len(names)) + 0.2 * (k - 1)
        value, low, high = (
            100.0 * np.array([r[f] for r in rows], dtype=float) for f in ("edge_accuracy", "low", "high")
        )
        look = {"color": COLOURS[system], "marker": MARKS[system], "ls": "none", "ms": 5}
        both[0].errorbar(x, value, yerr=[value - low, high - value], capsize=2, label=system, **look)
        share, n = np.array([r["edge_share"] for r in rows]), found["images"]
        few, many = wilson(np.round(share * n), np.full(len(share), n))
        both[1].errorbar(x, 100.0 * share, yerr=100.0 * np.array([share - few, many - share]), capsize=2, **look)
    both[0].axhline(100.0 * found["target"], color="#444", lw=0.9, ls="--", label=f"target {found['target']:g}")
    both[0].set(ylabel="accuracy of edge answers (%)", ylim=(0, 100))
    both[1].set(ylabel="answered at the edge (%)", ylim=(0, 100))
    both[1].set_xticks(np.arange(len(names)), names, rotation=40, ha="right")
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    both[0].set_title(
        f"{name}: cascade of {found['edge_exits']} edge exits at target {found['target']:g}, "
        f"n = {found['images']:,} test images for each condition, 95 % Wilson intervals",
        fontsize=10,
    )
    return figure


def exits(name: str, found: Found) -> Figure:
    """Accuracy of every exit under each condition, the best one of each row framed."""
    with plt.rc_context({"axes.grid": False}):
        parts = [[r for r in found["exits"] if r["system"] == system] for system in (PRISTINE, EXPERTS)]
        figure, both = plt.subplots(1, 2, figsize=(11, 0.33 * len(parts[0]) + 1.6), sharey=True)
        for ax, rows, title in zip(both, parts, ("pristine exits", "experts, routed by prediction"), strict=True):
            values = 100.0 * np.array([r["accuracy"] for r in rows])
            ax.imshow(values, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
            for (i, j), value in np.ndenumerate(values):
                colour = "white" if value > 60 else "black"
                ax.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
            for i, row in enumerate(rows):
                frame = Rectangle((row["best"] - 1.47, i - 0.46), 0.94, 0.92, fill=False, ec="#d1495b", lw=1.8)
                ax.add_patch(frame)
            ax.set_xticks(range(values.shape[1]), [str(j + 1) for j in range(values.shape[1])])
            ax.set_yticks(range(len(rows)), [r["condition"] for r in rows])
            ax.set_xlabel("exit")
            ax.set_title(title, fontsize=10)
        widest = 100.0 * float(np.ptp(wilson(found["images"] / 2, found["images"]))) / 2
        figure.suptitle(
            f"{name}: accuracy (%), n = {found['images']:,} test images under every condition "
            f"(95 % intervals: ±{widest:.1f} at most); best exit framed",
            fontsize=10,
        )
    return figure
