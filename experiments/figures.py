"""Figures as inline SVG, what they have in common, and those that show a cache alone: its exits, and sample images."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from offramp.environments import ConfidenceCache
from offramp.environments.routing import experts_of

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
CALIBRATED = {  # one name, colour and mark in the figures of all studies
    "raw": ("uncalibrated", "#1b1b1b", "s"),
    "global": ("one temperature", "#e07b00", "^"),
    "exit": ("temperature per exit", "#2e933c", "D"),
    "expert_exit": ("temperature per expert and exit", "#1b6ca8", "o"),
}


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element whose ids are its own, so that many fit on one page.

    The same figure yields the same text: its ids are salted by the name, unless a salt is set.
    """
    buffer = io.StringIO()
    salt = plt.rcParams["svg.hashsalt"] or name
    with plt.rc_context({"svg.hashsalt": salt, "svg.fonttype": STYLE["svg.fonttype"]}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = shorter(text, 2)
    return re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", text)


def shorter(text: str, digits: int) -> str:
    """An SVG whose coordinates have so many decimals."""

    def rounded(found: re.Match[str]) -> str:
        return f"{float(found[0]):.{digits}f}"

    many = re.compile(rf"-?\d+\.\d{{{digits + 1},}}")
    return re.sub(r'(?<= )(?:d|x|y)="[^"]*"', lambda found: many.sub(rounded, found[0]), text)


def plain(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis: those of 1, 2, 5 and 10; more below a decade, fewer above three."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    few = (1.0, 2.0, 5.0) if decades > 0.9 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3.0 else few))
    axis.set_major_formatter("{x:,.10g}")
    axis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axis.set_minor_formatter(NullFormatter())


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
