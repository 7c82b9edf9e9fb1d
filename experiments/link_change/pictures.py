"""The study's figures: latency ratios link by link, accuracy against latency, and one link over time."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from offramp.experiments.figures import STYLE, plain, svg
from offramp.experiments.joint_policy.pictures import COLOURS, MARKS, keys
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT
from offramp.experiments.link_change.sums import MOST, POINT, judged, over_links
from offramp.experiments.link_change.tables import played, title
from offramp.experiments.results import interval

matplotlib.use("Agg")
Found = dict[str, Any]


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by file name, the same from run to run."""
    made = {}
    for what, figure in (("ratios", ratios), ("scatter", scatter), ("episode", episode)):
        if played(found) and JOINT in found["policies"] and (what != "episode" or "episode" in found):
            with plt.rc_context(STYLE | {"svg.hashsalt": name}):
                made[what] = svg(figure(name, found), what) + "\n"
    return made


def ratios(name: str, found: Found) -> Figure:
    """Mean latency of the joint policy over that of the best fixed choice, link by link, by both rules."""
    cases = played(found)
    rows = -(-len(cases) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(12, 3.3 * rows), squeeze=False)
    for ax in axes.flat[len(cases) :]:
        ax.set_axis_off()
    for ax, (case, links) in zip(axes.flat, cases.items(), strict=False):
        for shift, less, colour, mark, label in (
            (-0.15, POINT, COLOURS["joint"], "o", "best of those at most a point less accurate"),
            (0.15, 0.0, COLOURS["published"], "s", "best of those at least as accurate"),
        ):
            all_ = [judged(here, less=less)["ratio"] for here in links.values()]
            at = [i + shift for i, one in enumerate(all_) if one is not None]
            mean = [one["mean"] for one in all_ if one is not None]
            half = [float(np.nan_to_num(one["half"])) for one in all_ if one is not None]
            ax.errorbar(at, mean, yerr=half, fmt=mark, ms=4, capsize=2, color=colour, label=label)
        ax.axhline(1.0, color="#888", lw=0.6)
        ax.axhline(MOST, color="#444", lw=0.9, ls=":", label=f"wanted: at most {MOST:g}")
        ax.set_xticks(range(len(links)), [trace.split("/")[1] for trace in links], rotation=60, fontsize=7, ha="right")
        ax.set(ylabel="ratio of mean latencies", xlabel="recorded link")
        ax.set_ylim(0.0, max(1.15, ax.get_ylim()[1]))
        ax.set_title(case.replace("g ", "G "), fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{name}: joint policy over the best fixed (cut, threshold) of each link in hindsight; "
        f"n = {found['config']['seeds']} seeds, 95 % intervals; below 1 is better",
        fontsize=10,
    )
    return figure


def scatter(name: str, found: Found) -> Figure:
    """Accuracy against mean latency of every policy, as means over the links of a case."""
    cases = played(found)
    rows = -(-len(cases) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(12, 3.6 * rows), squeeze=False)
    for ax in axes.flat[len(cases) :]:
        ax.set_axis_off()
    for ax, (case, links) in zip(axes.flat, cases.items(), strict=False):
        for key in [*found["policies"], "best"]:
            group = "oracle" if key == "best" else found["policies"][key]["group"]
            x = interval([v for v in over_links(links, key, "latency_ms") if not np.isnan(v)])
            y = interval([100.0 * v for v in over_links(links, key, "accuracy") if not np.isnan(v)])
            wide = float(np.nan_to_num(x["half"]))
            ax.errorbar(
                x["mean"], y["mean"], yerr=float(np.nan_to_num(y["half"])),
                xerr=[[min(wide, 0.9 * x["mean"])], [wide]],  # what a logarithmic axis can show
                fmt="X" if key == "best" else "P" if key == AT_THE_CUT else MARKS[group],
                color=COLOURS.get(group, "#000000"), ms=12 if key == JOINT else 7 if key == "best" else 5, lw=0.8,
                alpha=1.0 if key in (JOINT, "best") else 0.7, zorder=3 if key in (JOINT, "best") else 2,
            )  # fmt: skip
        ax.set_xscale("log")
        plain(ax.xaxis)
        ax.set(xlabel="mean latency (ms)", ylabel="accuracy (%)")
        ax.set_title(case.replace("g ", "G "), fontsize=10)
    best = "best fixed choice of each link, within a point"
    oracle = Line2D([], [], color="#000000", marker="X", ms=7, ls="none", label=best)
    figure.legend(handles=[*keys(), oracle], loc="outside lower center", ncols=3, frameon=False)
    n = max(len(links) for links in cases.values())
    figure.suptitle(
        f"{name}: means over n = {n} links of {found['config']['seeds']} seeds each, 95 % intervals over links; "
        "a mark for each policy; up and to the left is better",
        fontsize=10,
    )
    return figure


def episode(name: str, found: Found) -> Figure:
    """One link over time: its rate, where the joint policy splits, and how long it and the best fixed choice take."""
    one = found["episode"]
    ours, theirs, every = one["joint"], one["fixed"], one["every_ms"] / 1e3
    at = np.arange(len(ours["latency_ms"])) * every
    figure, axes = plt.subplots(3, 1, figsize=(11, 7), sharex=True)
    lengths, rates = np.array(one["rate"]).T
    axes[0].stairs(rates, np.concatenate([[0.0], np.cumsum(lengths) / 1e3]), color="#444", baseline=None)
    axes[0].set(ylabel="rate (Mbit/s)", ylim=(0, 1.05 * rates[np.cumsum(lengths) / 1e3 <= at[-1] + every].max()))
    sent = np.array(ours["offloaded"]) > 0.5
    where = np.where(sent, ours["cut"], ours["answered_at"])
    axes[1].plot(at[sent], where[sent], "o", ms=3, color=COLOURS["joint"], label="sent from this split (0 = the input)")
    axes[1].plot(at[~sent], where[~sent], "x", ms=3, color=COLOURS["published"], label="answered at this exit")
    axes[1].set(ylabel="split or exit")
    label = f"best fixed choice in hindsight ({title({'cut': theirs['cut_at'], 'threshold': theirs['threshold']})})"
    axes[2].plot(at, theirs["latency_ms"], "-", lw=0.8, color="#888", label=label)
    axes[2].plot(at, ours["latency_ms"], "-", lw=0.8, color=COLOURS["joint"], label="joint policy")
    axes[2].set(yscale="log", ylabel="latency (ms)", xlabel="time (s)", xlim=(0, at[-1] + every))
    plain(axes[2].yaxis)
    for ax in axes[1:]:
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=7.5, frameon=False)
    figure.suptitle(
        f"{name}: {one['case'].replace('g ', 'G ')}, link {one['trace']}, n = {len(at)} requests, seed 0", fontsize=10
    )
    return figure
