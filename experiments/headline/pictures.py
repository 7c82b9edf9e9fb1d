"""The study's figure: accuracy over cost as mu grows, under each price list, with I-SplitEE's own constants marked."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.experiments.expert_branches.pictures import COLOURS, MARKS
from offramp.experiments.expert_branches.systems import EXPERTS
from offramp.experiments.figures import STYLE, svg
from offramp.experiments.headline.playing import BEST, FIRST, OURS, PLAIN, SEND, WHOLE
from offramp.experiments.headline.prices import AUTHORS, CLAIMED, CONTESTED, PAPER, Place

matplotlib.use("Agg")
Found = dict[str, Any]
TRIVIAL = {
    WHOLE: ("*", "#1b1b1b", "final exit of the experts"),
    SEND: ("P", "#7a4fa3", "send the input to the experts"),
    FIRST: ("X", "#8a5a2b", "offload after exit 1 of the experts"),
    BEST: ("h", "#4a7c59", "best exit of the experts"),
    PLAIN: ("*", "#d1495b", "final exit of the plain network"),
}
CHEAPER = 65.0  # % below the final exit, as the study set out to show


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by file name, the same from run to run."""
    with plt.rc_context(STYLE | {"svg.hashsalt": name}):
        return {f"fronts_{name}": svg(fronts(name, found), "fronts") + "\n"}


def fronts(name: str, found: Found) -> Figure:
    """Four panels, one for each price list; costs as a share of what the experts' last exit costs on the edge."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.6), sharey=True)
    players = {row["prices"]: row["players"] for row in found["lists"]}
    config = found["config"]["places"]
    contested = next((p for p in found["places"] if p["place"] == place_name(config["contested"])), None)
    if contested is not None:
        players[CONTESTED] = contested["players"]
    titles = {
        PAPER: "paper units: network .3, offload .1",
        AUTHORS: "I-SplitEE's own constants: .1 a layer, .5 an offload",
        CLAIMED: place_name(config["claimed"]),
        CONTESTED: place_name(config["contested"]),
    }
    for ax, listed in zip(axes.flat, (PAPER, AUTHORS, CLAIMED, CONTESTED), strict=True):
        whole = next(f["whole"] for f in found["fronts"] if (f["prices"], f["system"]) == (listed, EXPERTS))
        for front in sorted(found["fronts"], key=lambda f: f["system"] == EXPERTS):  # the claim's own on top
            if front["prices"] == listed:
                curve(ax, front, whole, marked=listed == AUTHORS)
        for who, (mark, colour, label) in TRIVIAL.items():
            if listed in players:
                at = players[listed][who]
                x, y = 100.0 * at["cost"]["mean"] / whole, 100.0 * at["accuracy"]["mean"]
                if x <= 130.0:
                    half = at["cost"]["half"] * 100.0 / whole, at["accuracy"]["half"] * 100.0
                    ax.errorbar(
                        x, y, xerr=half[0], yerr=half[1], fmt=mark, color=colour, ms=10, elinewidth=1.0, label=label,
                        zorder=4,
                    )  # fmt: skip
        ax.axvline(
            100.0 - CHEAPER, color="#444", lw=0.9, ls="--", label=f"wanted: {CHEAPER:g} % cheaper than the final exit"
        )
        ax.set(title=titles[listed], xlabel="mean cost per image (% of the whole network on the edge)", xlim=(0, 130))
        ax.title.set_fontsize(10)
    for row in axes:
        row[0].set_ylabel("accuracy (%)")
    entries: dict[str, Any] = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    settings = found["config"]
    figure.suptitle(
        f"{name}: mixed stream, {settings['horizon']:,} rounds; mean and 95 % interval over "
        f"n = {settings['fronts']['seeds']} seeds (single points: {settings['seeds']}); fronts: mu = "
        f"{found['fronts'][0]['settings'][0]} to {found['fronts'][0]['settings'][-1]}, ring: mu = {settings['mu']:g}\n"
        "up and to the left is better; what costs more than 130 % is not shown",
        fontsize=9,
    )
    return figure


def curve(ax: Axes, front: Found, whole: float, *, marked: bool) -> None:
    """One front, its setting at mu = 1 ringed."""
    x, y = 100.0 * np.array(front["cost"]) / whole, 100.0 * np.array(front["accuracy"])
    colour, ours = COLOURS[front["system"]], front["policy"] == OURS
    ax.errorbar(
        x, y, yerr=100.0 * np.array(front["half"]), color=colour, marker=MARKS[front["system"]], ms=4, lw=1.2,
        mfc=colour if ours else "white", elinewidth=0.7, ls="-" if ours else ":", alpha=0.9,
        label=f"{front['policy']}, {front['system']}",
    )  # fmt: skip
    at = front["settings"].index("1")
    ax.plot(x[at], y[at], "o", mfc="none", mec=colour, ms=12, mew=1.4, zorder=5)
    if marked and not ours:
        ax.annotate("as in I-SplitEE", (x[at], y[at]), xytext=(6, -14), textcoords="offset points", fontsize=8)


def place_name(of: list[Any]) -> str:
    """A place of the configuration as tables name it."""
    return Place(device=of[0], slower=float(of[1]), link=of[2]).name
