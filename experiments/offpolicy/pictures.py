"""The study's figures: coverage by estimator, width by length of the log, estimates against the truth."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from offramp.environments.reliability import wilson
from offramp.experiments.figures import STYLE, svg
from offramp.experiments.offpolicy.estimators import ADAPTIVE, DR, IPS, NAMES, SNIPS
from offramp.experiments.offpolicy.tables import TITLES, WANTED

matplotlib.use("Agg")
Found = dict[str, Any]
COLOURS = {IPS: "#7f7f7f", SNIPS: "#e07b00", DR: "#1b6ca8", ADAPTIVE: "#2e933c"}


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by the name of the file, the same from run to run."""
    made = {}
    for what, figure in (("coverage", coverage), ("widths", widths), ("truth", truth)):
        with plt.rc_context(STYLE | {"svg.hashsalt": name}):
            made[f"{what}_{name}"] = svg(figure(name, found), what) + "\n"
    return made


def _panels(found: Found, **options: Any) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(
        1, len(found["cases"]), figsize=(3.6 * len(found["cases"]), 4.4), squeeze=False, **options
    )
    for ax, key in zip(axes[0], found["cases"], strict=True):
        ax.set_title(f"log of {found['loggers'][key]['title']}", fontsize=10)
    return figure, axes[0]


def coverage(name: str, found: Found) -> Figure:
    """Share of logs whose 95 % interval holds the truth, with binomial intervals."""
    figure, axes = _panels(found, sharey=True)
    logs = 0
    for ax, case in zip(axes, found["cases"].values(), strict=True):
        ax.axhspan(100.0 * WANTED[0], 100.0 * WANTED[1], color="#2e933c", alpha=0.12, lw=0)
        ax.axhline(95.0, color="#444", lw=0.8, ls=":")
        for k, e in enumerate(NAMES):
            for i, row in enumerate(case.values()):
                if e not in row["estimators"]:
                    continue
                one = row["estimators"][e]
                logs = max(logs, one["logs"])
                low, high = wilson(one["held"], one["logs"])
                share, at = 100.0 * one["held"] / one["logs"], i + 0.17 * (k - 1.5)
                ax.plot([at, at], [100.0 * low, 100.0 * high], color=COLOURS[e], lw=1.2)
                ax.plot(at, share, "o", ms=4, color=COLOURS[e], label=TITLES[e] if i == 0 else None)
        ax.set_xticks(range(len(case)), list(case), rotation=20)
        ax.set_xlabel("target")
    axes[0].set_ylabel("intervals that hold the truth (%)")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[0]))
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{name}: coverage over n = {logs} logs, 95 % intervals (Wilson); shaded: wanted", fontsize=10)
    return figure


def widths(name: str, found: Found) -> Figure:
    """Half-width of the interval by length of the log, mean over the targets."""
    figure, axes = _panels(found, sharey=True)
    config = found["config"]
    for ax, case in zip(axes, found["cases"].values(), strict=True):
        for e in NAMES:
            at: dict[int, list[float]] = {}
            for row in case.values():
                for n, made in [*row["lengths"].items(), (config["requests"], row["estimators"])]:
                    if made.get(e, {}).get("logs"):
                        at.setdefault(int(n), []).append(made[e]["half"])
            full = {n: float(np.mean(v)) for n, v in sorted(at.items()) if len(v) == max(map(len, at.values()))}
            if full:
                ax.plot(list(full), list(full.values()), "o-", ms=4, lw=1.2, color=COLOURS[e], label=TITLES[e])
        ax.set(xscale="log", yscale="log", xlabel="requests in the log")
        lengths = [*config["lengths"], config["requests"]]
        ax.set_xticks(lengths, [f"{n:,}" for n in lengths])
        ax.xaxis.set_minor_formatter("")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.tick_params(axis="y", which="minor", labelsize=7)
    axes[0].set_ylabel("half-width of the 95 % interval (reward)")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[0]))
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        f"{name}: width by length of the log, mean over {len(next(iter(found['cases'].values())))} targets and "
        f"n = {min(config['length_logs'], config['logs'])} logs ({config['logs']} at full length)",
        fontsize=10,
    )
    return figure


def truth(name: str, found: Found) -> Figure:
    """Estimates of all logs beside the truth, and what a naive mean says where nothing identifies it."""
    figure, axes = _panels(found, sharey=True)
    for ax, (key, case) in zip(axes, found["cases"].items(), strict=True):
        names = list(case)
        for i, row in enumerate(case.values()):
            _beside(ax, i, row["truth"])
            if row["values"]:
                ends = np.quantile(row["values"], (0.0, 0.025, 0.975, 1.0))
                ax.plot([i, i], ends[[0, 3]], color=COLOURS[ADAPTIVE], lw=0.8)
                ax.plot([i, i], ends[1:3], color=COLOURS[ADAPTIVE], lw=4, alpha=0.6, solid_capstyle="butt")
                ax.plot(i, np.mean(row["values"]), "o", ms=4, color=COLOURS[ADAPTIVE])
        if key == list(found["cases"])[-1]:
            for row in found["blind"].values():
                at, naive = len(names), row["naive"]
                _beside(ax, at, row["truth"])
                ax.errorbar(at, row["truth"] + naive["bias"], naive["half"], fmt="X", ms=7, color="#d1495b")
                names.append(f"{row['target']}, no audits")
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set_xlabel("target")
    axes[0].set_ylabel("reward")
    axes[0].plot([], [], "-", color="#1b1b1b", lw=1.5, label="truth")
    axes[0].plot([], [], "o-", color=COLOURS[ADAPTIVE], ms=4, label="adaptive DR: mean, 95 % and all of the estimates")
    axes[0].plot([], [], "X", color="#d1495b", ms=7, label="mean of what shows, where the program refuses")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{name}: estimates of n = {found['config']['logs']} logs of {found['config']['requests']:,} requests",
        fontsize=10,
    )
    return figure


def _beside(ax: Any, at: int, truth: float) -> None:
    """The truth, as a line across its column."""
    ax.plot([at - 0.35, at + 0.35], [truth, truth], color="#1b1b1b", lw=1.5, zorder=3)
