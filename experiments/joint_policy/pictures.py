"""The study's figures: cost against accuracy, regret over rounds, and recovery after abrupt changes."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from offramp.experiments.figures import STYLE, svg
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT, best_of, totals, worlds_of
from offramp.experiments.joint_policy.tables import recovered
from offramp.experiments.results import T95, interval

matplotlib.use("Agg")
COLOURS = {"joint": "#d1495b", "published": "#1b6ca8", "aware": "#2e933c", "unaware": "#e0a000", "trivial": "#7f7f7f"}
NAMES = {
    "joint": "joint policy",
    "published": "published policies",
    "aware": "policies that know the prices",
    "unaware": "policies that learn the prices",
    "trivial": "policies that never learn",
}
COLUMNS = 4
Found = dict[str, Any]


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by file name, the same from run to run."""
    made = {}
    for what, figure in (("money", money), ("regret", regret), ("recovery", recovery)):
        if worlds_of(found):
            with plt.rc_context(STYLE | {"svg.hashsalt": name}):
                made[f"{what}_{name}"] = svg(figure(name, found), what) + "\n"
    return made


def _panels(count: int) -> tuple[Figure, Any]:
    rows = -(-count // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(13, 2.7 * rows), squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes


def _named(found: Found) -> str:
    return f"{found['config']['horizon']:,} rounds, n = {found['config']['seeds']} seeds, 95 % intervals"


def money(name: str, found: Found) -> Figure:
    """Mean cost against accuracy in every world, one point for each policy, with intervals both ways."""
    worlds = worlds_of(found)
    figure, axes = _panels(len(worlds))
    for ax, (world, here) in zip(axes.flat, worlds.items(), strict=False):
        for key, one in here["played"].items():
            group = found["policies"][key]["group"]
            cost, right = interval(one["cost"]), interval([100.0 * x for x in one["accuracy"]])
            ax.errorbar(
                cost["mean"], right["mean"], xerr=cost["half"], yerr=right["half"], color=COLOURS[group],
                marker="*" if key == JOINT else "s" if group == "trivial" else "o", ms=11 if key == JOINT else 4,
                lw=0.8, alpha=1.0 if key == JOINT else 0.7, zorder=3 if key == JOINT else 2,
            )  # fmt: skip
        ax.set_title(world, fontsize=9)
        ax.set(xlabel="cost an image (cost units)", ylabel="accuracy (%)")
        low = min(float(np.mean(one["cost"])) for one in here["played"].values())
        if low > 0.0:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
            ax.xaxis.set_minor_formatter("{x:g}")
    for group, colour in COLOURS.items():
        figure.legends or axes[0][0].plot([], [], "o", color=colour, label=NAMES[group])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(COLOURS), frameon=False)
    figure.suptitle(f"{name}: {_named(found)}; up and to the left is better", fontsize=10)
    return figure


def _curves(found: Found, played: Found) -> list[str]:
    chosen = [key for key in (JOINT, AT_THE_CUT) if key in played]
    for group in ("published", "aware", "unaware"):
        key = best_of(found, played, (group,))
        chosen += [key] if key is not None else []
    return chosen


def regret(name: str, found: Found) -> Figure:
    """Regret over rounds in every world: the joint policy and the best of each group there."""
    worlds, n = worlds_of(found), found["config"]["seeds"]
    width = (T95[n - 2] if n - 2 < len(T95) else 1.96) / np.sqrt(n)
    figure, axes = _panels(len(worlds))
    for ax, (world, here) in zip(axes.flat, worlds.items(), strict=False):
        for key in _curves(found, here["played"]):
            one, policy = here["played"][key], found["policies"][key]
            mean, half = np.array(one["curve"], dtype=float), width * np.array(one["curve_sd"], dtype=float)
            at = np.linspace(0, found["config"]["horizon"], len(mean))
            line = ":" if key == AT_THE_CUT else "-"
            ax.plot(at, mean, line, color=COLOURS[policy["group"]], lw=1.3, label=policy["title"])
            ax.fill_between(at, mean - half, mean + half, color=COLOURS[policy["group"]], alpha=0.2, lw=0)
        static = interval(here["oracles"]["static"])
        ax.axhline(static["mean"], color="#444", lw=0.9, ls="--", label="best static arm, at the end")
        ax.set_title(world, fontsize=9)
        ax.set(xlabel="round", ylabel="regret (confidence)")
        ax.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none", fontsize=6.5)
    figure.suptitle(
        f"{name}: dynamic pseudo-regret with the price of audits, mean over seeds; {_named(found)}", fontsize=10
    )
    return figure


def recovery(name: str, found: Found) -> Figure:
    """Share of changes from which a policy has recovered after so many rounds, over all abrupt worlds."""
    figure, ax = plt.subplots(figsize=(9, 5))
    sums = totals(found)
    shown = sorted(
        (k for k in sums if k != "static" and recovered(found, k)), key=lambda k: float(np.mean(sums[k]["regret"]))
    )
    by_group: dict[str, int] = {}
    changes = 0
    for key in shown:
        group = found["policies"][key]["group"]
        by_group[group] = by_group.get(group, 0) + 1
        if group == "trivial" or by_group[group] > 2:  # the two best of each group
            continue
        taken = np.sort(recovered(found, key))
        changes = max(changes, len(taken))
        share = np.arange(1, len(taken) + 1) / len(taken)
        style = "-" if by_group[group] == 1 else "--"
        label = f"{found['policies'][key]['title']}: median {np.median(taken):,.0f}"
        ax.step(np.maximum(taken, 1.0), 100.0 * share, where="post", color=COLOURS[group], ls=style, label=label)
    ax.axvline(300, color="#444", lw=0.9, ls=":", label="wanted: median at most 300")
    ax.set(
        xscale="log",
        xlabel="rounds since the change (1 = none needed)",
        ylabel="recovered (% of changes)",
        ylim=(0, 101),
    )
    ax.legend(frameon=False, fontsize=8)
    ax.set_title(
        f"{name}: rounds until 50 rounds lie within .01 of the segment's best\n"
        f"n = {changes:,} changes, {found['config']['seeds']} seeds; never = length of the segment",
        fontsize=9,
    )
    return figure
