"""The figures of a report, as inline SVG: regret, cost against accuracy, choices over time, exits, sample images."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.bandits import Arm
from offramp.environments import ConfidenceCache, blocks
from offramp.environments.routing import experts_of
from offramp.environments.trace import EVEN
from offramp.experiments.results import Played, interval

matplotlib.use("Agg")
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.constrained_layout.use": True,
}
PALETTE = (
    "#7f7f7f", "#1b1b1b", "#a5682a", "#bcbd22", "#1b6ca8", "#e07b00",
    "#d1495b", "#2e933c", "#74c476", "#7b3fa0", "#c77dff", "#00a6b4",
)  # fmt: skip
NEVER = ("final_exit", "send_input", "offload_first", "random_arm", "fixed")


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element whose ids are its own, so that many fit on one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", text)


def colours(played: Played) -> dict[str, str]:
    """One colour for each policy, the same in all figures."""
    return {policy: PALETTE[i % len(PALETTE)] for i, policy in enumerate([*played.traces, *played.refused])}


def learners(played: Played) -> list[str]:
    """Policies that learn, least regret first."""
    named = [p for p in played.traces if p not in NEVER]
    return sorted(named, key=lambda p: float(np.mean([t.sums["regret"][-1] for t in played.traces[p]])))


def spread(runs: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and half-width of the 95 % interval along the first axis."""
    found = [interval(column.tolist()) for column in runs.T]
    half = np.array([f["half"] for f in found])
    return np.array([f["mean"] for f in found]), np.nan_to_num(half)


def changes(axes: Axes, played: Played) -> None:
    """A thin line wherever condition or link change in segments."""
    condition, link = strip(played)
    moved = np.flatnonzero((np.diff(condition) != 0) | (np.diff(link) != 0)) + 1
    if len(moved) <= 40:
        for at in moved:
            axes.axvline(at * played.horizon / len(condition), color="#888", lw=0.6, alpha=0.6)


def strip(played: Played, places: int = 800) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Condition and link of the first seed's stream at evenly spaced rounds."""
    wanted = np.linspace(0, played.horizon - 1, min(places, played.horizon)).astype(np.int64)
    condition, link, start = [], [], 0
    for block in blocks(played.stream, samples=1_000, horizon=played.horizon, seed=played.seeds[0]):
        here = wanted[(wanted >= start) & (wanted < start + len(block.sample))] - start
        condition.append(block.condition[here])
        link.append(block.price[here])
        start += len(block.sample)
    return np.concatenate(condition), np.concatenate(link)


def regret(played: Played) -> Figure:
    """Cumulative dynamic pseudo-regret of every policy, mean and 95 % band over seeds."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 4.6))
        palette = colours(played)
        order = sorted(played.traces, key=lambda p: float(np.mean([t.sums["regret"][-1] for t in played.traces[p]])))
        last = {p: float(np.mean([t.sums["regret"][-1] for t in played.traces[p]])) for p in order}
        limit = 1.08 * max([last[p] for p in learners(played)] or list(last.values()))
        for policy in order:
            runs = np.array([t.sums["regret"] for t in played.traces[policy]])
            mean, half = spread(runs)
            rounds = played.traces[policy][0].rounds
            note = " (leaves the axes)" if last[policy] > limit else ""
            style = "--" if policy in NEVER else "-"
            axes.plot(rounds, mean, style, color=palette[policy], lw=1.6, label=f"{policy}: {last[policy]:,.0f}{note}")
            axes.fill_between(rounds, mean - half, mean + half, color=palette[policy], alpha=0.2, lw=0)
        low = 1.08 * min(0.0, *last.values())
        axes.set(xlim=(0, played.horizon), ylim=(low, max(limit, 0.05 - low)), xlabel="round")
        axes.set_ylabel("cumulative regret (confidence units)")
        changes(axes, played)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="policy: regret at the end")
        return figure


def front(played: Played) -> Figure:
    """Mean cost against accuracy, with 95 % intervals both ways."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 4.6))
        palette = colours(played)
        for policy, traces in played.traces.items():
            cost = interval([float(t.cost[-1] / t.rounds[-1]) for t in traces])
            right = interval([100.0 * t.mean("correct") for t in traces])
            axes.errorbar(
                cost["mean"], right["mean"], xerr=np.nan_to_num(cost["half"]), yerr=np.nan_to_num(right["half"]),
                fmt="s" if policy in NEVER else "o", color=palette[policy], ms=7, capsize=3,
                label=f"{policy}: {cost['mean']:.3f}, {right['mean']:.1f} %",
            )  # fmt: skip
        axes.set(xlabel="cost per image (cost units)", ylabel="accuracy (%)")
        axes.set_xlim(left=0.0)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="policy: cost, accuracy")
        return figure


def choices(played: Played, policy: str) -> Figure:
    """Which split and threshold a policy chose when, above a strip of what the stream did."""
    traces = played.traces[policy]
    rounds = traces[0].rounds
    even = np.unique(np.round(np.linspace(0, played.horizon, EVEN + 1)[1:]).astype(np.int64).clip(1))
    kept = np.searchsorted(rounds, even)
    counts = np.mean([t.arms[kept] for t in traces], axis=0)
    beyond = np.diff(np.mean([t.cuts[kept] for t in traces], axis=0), axis=0, prepend=0.0)
    steps = np.diff(counts, axis=0, prepend=0.0)
    total = steps.sum(axis=1, keepdims=True) + beyond.sum(axis=1, keepdims=True)
    share, beyond = steps / total, beyond / total
    cuts = np.array([arm.cut for arm in played.arms.table])
    levels = np.array([arm.threshold for arm in played.arms.table])
    edges = np.concatenate([[0], even])
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, (top, middle, low) = plt.subplots(
            3, 1, figsize=(11, 6.2), sharex=True, gridspec_kw={"height_ratios": (3, 2, 1.1)}
        )
        ramp = plt.get_cmap("viridis")(np.linspace(0.05, 0.95, played.arms.exits + 1))
        used = [c for c in range(played.arms.exits + 1) if (cuts == c).any()]
        layers = [(share[:, cuts == c].sum(axis=1) + beyond[:, c])[np.r_[0, : len(share)]] for c in used]
        top.stackplot(edges, layers, colors=[ramp[c] for c in used], step="pre", labels=[_cut(c, played) for c in used])
        top.set(ylabel="share of rounds by split", ylim=(0, 1))
        top.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="the edge computes up to")
        own = (cuts > 0) & (cuts < played.arms.exits)
        ladder = sorted(set(levels[own]))
        grid = np.array([share[:, own & (levels == x)].sum(axis=1) for x in ladder])
        mesh = middle.pcolormesh(
            edges, np.arange(len(ladder) + 1), grid, cmap="Greys", vmin=0.0, vmax=1.0, rasterized=True
        )
        middle.set_yticks(np.arange(len(ladder)) + 0.5, [_level(x) for x in ladder], fontsize=8)
        middle.set_ylabel("threshold")
        if beyond.any():
            middle.text(
                0.5, 0.5, "thresholds at several exits, outside the table of arms", ha="center", va="center",
                transform=middle.transAxes,
            )  # fmt: skip
        figure.colorbar(mesh, ax=middle, label="share of rounds", aspect=12)
        _draw_strip(low, played)
        return figure


def _cut(cut: int, played: Played) -> str:
    return "nothing: send the input" if cut == 0 else f"exit {cut}" + (" (all)" if cut == played.arms.exits else "")


def _arm(arm: Arm) -> str:
    if arm.cut == 0:
        return "send"
    at = {-np.inf: "", np.inf: " offload"}.get(arm.threshold, f" ≥ {arm.threshold:g}")
    return f"exit {arm.cut}{at}"


def _level(threshold: float) -> str:
    return {-np.inf: "always answer", np.inf: "always offload"}.get(threshold, f"{threshold:g}")


def _draw_strip(axes: Axes, played: Played) -> None:
    condition, link = strip(played)
    names = played.stream.conditions
    different = list(dict.fromkeys(names))
    number = np.array([different.index(n) for n in names])[condition]
    x = np.linspace(0, played.horizon, len(condition) + 1)
    axes.pcolormesh(x, [0, 1], number[None, :], cmap="Pastel1", vmin=0, vmax=8, rasterized=True)
    axes.set(yticks=[], xlabel="round", xlim=(0, played.horizon))
    starts = np.flatnonzero(np.diff(number, prepend=-1) | np.diff(link, prepend=-1))
    if len(starts) <= 24:
        for start, end in zip(starts, [*starts[1:], len(number)], strict=True):
            arm = played.arms[int(played.best[condition[start], link[start]])]
            text = f"{different[number[start]]}\nlink ×{played.stream.links[link[start]]:g}\n{_arm(arm)}"
            axes.text((x[start] + x[end]) / 2, 0.5, text, ha="center", va="center", fontsize=7.5)
    else:
        handles = [plt.Rectangle((0, 0), 1, 1, color=plt.get_cmap("Pastel1")(i / 8)) for i in range(len(different))]
        axes.legend(handles, different, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    axes.set_ylabel("distortion\nlink\nbest arm", rotation=0, ha="right", va="center")


def exits(cache: ConfidenceCache) -> Figure:
    """Accuracy and mean confidence of each exit under each condition; with a router, of the expert it picks too."""
    everyone = [("first expert's exits", cache.confidence[:, 0], cache.prediction[:, 0])]
    if cache.router is not None:
        shown = cache.calibrated("expert_exit") if "expert_exit" in cache.calibrations else cache
        at = np.arange(len(cache.conditions))[:, None], experts_of(cache, "predicted"), np.arange(len(cache.label))
        everyone.append(("routed expert, calibrated", shown.confidence[at], cache.prediction[at]))
    names, n = [c.name for c in cache.conditions], len(cache.label)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        height = (0.33 * len(names) + 1.4) * len(everyone)
        figure, panels = plt.subplots(len(everyone), 2, figsize=(11, height), sharey=True, squeeze=False)
        for row, (whose, confidence, prediction) in zip(panels, everyone, strict=True):
            right = 100.0 * (prediction == cache.label[None, :, None]).mean(axis=1)
            sure = 100.0 * confidence.mean(axis=1)
            for axes, values, what in zip(row, (right, sure), ("accuracy", "mean confidence"), strict=True):
                axes.imshow(values, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
                axes.set_xticks(range(values.shape[1]), [str(i + 1) for i in range(values.shape[1])])
                axes.set_yticks(range(len(names)), names)
                axes.set(xlabel=f"exit (n = {n:,} images)", title=f"{whose}: {what} (%)")
                for (i, j), value in np.ndenumerate(values):
                    color = "white" if value > 60 else "black"
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
        return figure


def samples(path: Path, conditions: Sequence[str]) -> Figure:
    """The sheet of sample images that the extractor made, one row for each condition."""
    sheet = plt.imread(path)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(6, 0.62 * len(conditions)))
        axes.imshow(sheet, interpolation="nearest")
        side = sheet.shape[0] / len(conditions)
        axes.set_yticks(side * (np.arange(len(conditions)) + 0.5), conditions)
        axes.set_xticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return figure
