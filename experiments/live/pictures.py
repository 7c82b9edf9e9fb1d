"""The study's figures: latency live against modelled, both runs over time and by who answered, the cloud's death."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from offramp.environments.link_traces import LinkTrace
from offramp.experiments.figures import STYLE, plain, svg
from offramp.experiments.live.model import CLOUD, EDGE, FALLBACK, KINDS, kinds
from offramp.experiments.live.scene import rates
from offramp.experiments.live.sums import WITHIN, columns_of, recovery
from offramp.experiments.results import interval

matplotlib.use("Agg")
COLOURS = {EDGE: "#1b6ca8", CLOUD: "#e07b00", FALLBACK: "#d1495b"}
MARKS = {EDGE: "o", CLOUD: "x", FALLBACK: "^"}
LIVE, SIMULATED, MODEL = "#1b1b1b", "#2e933c", "#7b3fa0"
STRETCH = 60  # requests of one point of the figure over time
Found = dict[str, Any]


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by file name, the same from run to run."""
    made = {}
    for what, figure, there in (
        ("scatter", scatter, found["runs"]),
        ("time", over_time, found["runs"]),
        ("answers", answers, found["runs"]),
        ("kill", death, found["kills"]),
    ):
        if there:
            with plt.rc_context(STYLE | {"svg.hashsalt": name}):
                made[what] = svg(figure(name, found), what) + "\n"
    return made


def scatter(name: str, found: Found) -> Figure:
    """Each request's latency live against what the cost model says of the same decision."""
    runs = found["runs"]
    figure, axes = plt.subplots(1, len(runs), figsize=(5.6 * len(runs), 5.2), squeeze=False)
    for ax, run in zip(axes[0], runs.values(), strict=True):
        live, model = columns_of(run["live"]["run"]), columns_of(run["model"])["latency_ms"]
        kind, ms = kinds(live), live["latency_ms"]
        for which, colour in COLOURS.items():
            here = (kind == which) & np.isfinite(model)
            if not here.any():
                continue
            label = f"{KINDS[which]}, n = {int(here.sum()):,}"
            ax.plot(
                model[here], ms[here], MARKS[which], ms=2.5, mew=0.6, alpha=0.5, color=colour, label=label,
                rasterized=True,
            )  # fmt: skip
        fine = np.isfinite(model)
        span = np.array([0.8 * min(model[fine].min(), ms.min()), 1.2 * max(model[fine].max(), ms.max())])
        ax.plot(span, span, color="#444", lw=0.9, label="as modelled")
        ax.fill_between(span, (1 - WITHIN) * span, (1 + WITHIN) * span, color="#888", alpha=0.2, lw=0, label="±15 %")
        ax.set(xscale="log", yscale="log", xlim=span, ylim=span)
        ax.set(xlabel="cost model, same decision and bytes (ms)", ylabel="live (ms)")
        for axis in (ax.xaxis, ax.yaxis):
            plain(axis)
        ax.set_title(run["title"], fontsize=9)
        ax.legend(loc="upper left", fontsize=7.5, framealpha=0.5, markerscale=2)
    figure.suptitle(f"{name}: latency of every request", fontsize=10)
    return figure


def over_time(name: str, found: Found) -> Figure:
    """The link, and both runs' latency and share of the cloud, in stretches of requests."""
    runs, cfg = found["runs"], found["config"]
    figure, axes = plt.subplots(1 + 2 * len(runs), 1, figsize=(11, 2.2 * (1 + 2 * len(runs))), sharex=True)
    squeeze = 1e3 / cfg["every_ms"]
    link = LinkTrace.embedded(cfg["trace"], scale=cfg["scale"])
    ends, rate = rates(link, 1e3 * cfg["requests"])
    axes[0].stairs(rate, np.concatenate([[0.0], ends / 6e4]), color="#444", baseline=None, lw=0.7)
    axes[0].set(ylabel="rate (Mbit/s)", ylim=(0, None))
    for run, ax, low in zip(runs.values(), axes[1::2], axes[2::2], strict=True):
        live, simulated = columns_of(run["live"]["run"]), columns_of(run["simulated"]["run"])
        model = columns_of(run["model"])
        for columns, label, colour, mark, shift in (
            (live["latency_ms"], "live", LIVE, "o", -0.15),
            (simulated["latency_ms"], "simulated", SIMULATED, "s", 0.0),
            (model["latency_ms"], "cost model on the live decisions", MODEL, "^", 0.15),
        ):
            x, mean, half = _stretches(columns)
            ax.errorbar(x + shift, mean, yerr=half, fmt=mark, ms=3, lw=0.7, color=colour, label=label)
        ax.set(ylabel="latency (ms)", ylim=(0, 1.25 * ax.get_ylim()[1]))
        ax.set_title(run["title"], fontsize=9)
        ax.legend(loc="upper right", fontsize=7.5, ncols=3)
        for columns, label, colour, look in ((live, "live", LIVE, "o-"), (simulated, "simulated", SIMULATED, "s--")):
            x, mean, half = _stretches(100.0 * columns["offloaded"])
            low.errorbar(x, mean, yerr=half, fmt=look, ms=3, lw=0.7, color=colour, label=label)
        low.set(ylabel="cloud answers (%)", ylim=(-3, 103))
        condition = np.array(run["condition"])
        for at in np.flatnonzero(np.diff(condition)) + 1:
            for one in (ax, low):
                one.axvline(at / 60.0, color="#888", lw=0.6, alpha=0.6)
    axes[-1].set(xlabel="time of the hour (min)", xlim=(0, cfg["requests"] / 60.0))
    figure.suptitle(
        f"{name}: means of {STRETCH} requests, 95 % intervals, n = {cfg['requests']:,}; {cfg['trace']}, {squeeze:g} "
        "times as fast; lines: the condition changes",
        fontsize=10,
    )
    return figure


def _stretches(values: Any) -> tuple[Any, Any, Any]:
    """Middle in minutes of the hour, mean and half-width of each stretch."""
    parts = [values[i : i + STRETCH] for i in range(0, len(values), STRETCH)]
    found = [interval(part[np.isfinite(part)].tolist()) if np.isfinite(part).any() else None for part in parts]
    x = np.array([(i + 0.5) * STRETCH / 60.0 for i in range(len(parts))])
    mean = np.array([np.nan if f is None else f["mean"] for f in found])
    half = np.nan_to_num(np.array([np.nan if f is None else f["half"] for f in found]))
    return x, mean, half


def answers(name: str, found: Found) -> Figure:
    """Distributions of the latency by who answered, live and simulated."""
    runs = found["runs"]
    figure, axes = plt.subplots(len(runs), 2, figsize=(11, 3.2 * len(runs)), squeeze=False)
    for row, run in zip(axes, runs.values(), strict=True):
        for ax, which in zip(row, (EDGE, CLOUD), strict=True):
            for key, colour, line in (("live", LIVE, "-"), ("simulated", SIMULATED, "--")):
                columns = columns_of(run[key]["run"])
                ms = np.sort(columns["latency_ms"][kinds(columns) == which])
                if len(ms):
                    share = np.arange(1, len(ms) + 1) / len(ms)
                    ax.step(ms, share, where="post", color=colour, lw=1.2, ls=line, label=f"{key}, n = {len(ms):,}")
                    half = np.sqrt(np.log(2.0 / 0.05) / (2.0 * len(ms)))
                    low, high = np.maximum(share - half, 0.0), np.minimum(share + half, 1.0)
                    ax.fill_between(ms, low, high, step="post", color=colour, alpha=0.15, lw=0)
            ax.set_title(f"{run['title']}: {KINDS[which]}", fontsize=9)
            ax.set(ylim=(0, 1.02), xlabel="latency (ms)", ylabel="share of requests")
            if ax.has_data():
                ax.set_xscale("log")
                plain(ax.xaxis)
                ax.legend(loc="lower right", fontsize=8)
    figure.suptitle(
        f"{name}: how long an answer took; bands: 95 % (Dvoretzky-Kiefer-Wolfowitz, as of independent requests)",
        fontsize=10,
    )
    return figure


def death(name: str, found: Found) -> Figure:
    """Each request of the runs in which the cloud was killed: how long it took, and who answered."""
    kills = found["kills"]
    figure, axes = plt.subplots(len(kills), 1, figsize=(11, 3.2 * len(kills)), squeeze=False)
    for ax, kill in zip(axes[:, 0], kills.values(), strict=True):
        run, start = columns_of(kill["run"]), np.array(kill["start_ms"]) / 1e3
        kind = kinds(run)
        for which, colour in COLOURS.items():
            here = kind == which
            if not here.any():
                continue
            label = f"{KINDS[which]}, n = {int(here.sum()):,}"
            ax.plot(start[here], run["latency_ms"][here], MARKS[which], ms=3, mew=0.8, color=colour, label=label)
        killed, back = kill["killed_ms"] / 1e3, kill["back_ms"] / 1e3
        ax.axvspan(killed, back, color="#888", alpha=0.12, lw=0, label="the cloud is gone")
        ax.axvline(kill["started_ms"] / 1e3, color="#444", lw=0.8, ls=":", label="the cloud's process is started again")
        one = recovery(kill)
        if np.isfinite(one["seconds"]):
            ax.axvline(back + one["seconds"], color="#2e933c", lw=0.9, label="the cloud's first answer after that")
        ax.set(ylabel="latency (ms)", yscale="log")
        plain(ax.yaxis)
        ax.set_title(
            f"{kill['title']}: killed at {killed:.1f} s, back at {back:.1f} s, "
            f"{one['unanswered']} of {one['requests']:,} unanswered",
            fontsize=9,
        )
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    axes[-1, 0].set_xlabel("time of the run (s)")
    figure.suptitle(f"{name}: the cloud is killed; every request of one run", fontsize=10)
    return figure
