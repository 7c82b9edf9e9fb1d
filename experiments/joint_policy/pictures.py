"""The study's figures: cost against accuracy, regret over rounds, and recovery after abrupt changes."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from offramp.experiments.figures import STYLE, plain, svg
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT, best_of, totals, worlds_of
from offramp.experiments.joint_policy.tables import recovered
from offramp.experiments.results import interval, t95

matplotlib.use("Agg")
COLOURS = {"joint": "#d1495b", "published": "#1b6ca8", "aware": "#2e933c", "unaware": "#e0a000", "trivial": "#7f7f7f"}
NAMES = {
    "joint": "joint policy",
    "published": "published policies",
    "aware": "policies that know the prices",
    "unaware": "policies that learn the prices",
    "trivial": "policies that never learn",
}
MARKS = {"joint": "*", "published": "o", "aware": "^", "unaware": "D", "trivial": "s"}
LINES = {"joint": "-", "published": (0, (6, 1)), "aware": "-.", "unaware": "--"}
STATIC = "best static arm, at the end"
AT_CUT = "joint policy, answers at the cut alone"
AT = (10, 100, 300, 1_000)  # rounds since a change at which intervals are drawn
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


def _panels(count: int, height: float = 2.7) -> tuple[Figure, Any]:
    rows = -(-count // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(13, height * rows), squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes


def _named(found: Found) -> str:
    return f"{found['config']['horizon']:,} rounds, n = {found['config']['seeds']} seeds, 95 % intervals"


def keys(*, cut: bool = True) -> list[Line2D]:
    """What a legend shows of every group of policies."""
    size = {"joint": 11, "trivial": 4}
    found = [
        Line2D([], [], color=colour, marker=MARKS[group], ms=size.get(group, 5), ls="none", label=NAMES[group])
        for group, colour in COLOURS.items()
    ]
    if cut:
        found.insert(1, Line2D([], [], color=COLOURS["joint"], marker="P", ms=6, ls="none", label=AT_CUT))
    return found


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
                marker="P" if key == AT_THE_CUT else MARKS[group], lw=0.8,
                ms={JOINT: 11, AT_THE_CUT: 6}.get(key, 4), alpha=1.0 if group == "joint" else 0.7,
                zorder=3 if group == "joint" else 2,
            )  # fmt: skip
        ax.set_title(world, fontsize=9)
        ax.set(xlabel="cost an image (cost units)", ylabel="accuracy (%)")
        low = min(float(np.mean(one["cost"])) for one in here["played"].values())
        if low > 0.0:
            ax.set_xscale("log")
            plain(ax.xaxis)
            ax.tick_params(axis="x", labelsize=8)
    figure.legend(handles=keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{name}: a mark for each policy; {_named(found)} over seeds; up and to the left is better", fontsize=10
    )
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
    width = _width(n)
    figure, axes = _panels(len(worlds), 3.1)
    shared: dict[str, Any] = {}
    for ax, (world, here) in zip(axes.flat, worlds.items(), strict=False):
        for key in _curves(found, here["played"]):
            one, policy = here["played"][key], found["policies"][key]
            mean, half = np.array(one["curve"], dtype=float), width * np.array(one["curve_sd"], dtype=float)
            at = np.linspace(0, found["config"]["horizon"], len(mean))
            line = ":" if key == AT_THE_CUT else LINES[policy["group"]]
            ax.plot(at, mean, ls=line, color=COLOURS[policy["group"]], lw=1.3, label=policy["title"])
            ax.fill_between(at, mean - half, mean + half, color=COLOURS[policy["group"]], alpha=0.2, lw=0)
        static = interval(here["oracles"]["static"])
        ax.axhline(static["mean"], color="#444", lw=0.9, ls="--", label=STATIC)
        ax.set_title(world, fontsize=9)
        ax.set_xlabel("round")
        ax.set_ylabel("regret (units of confidence)", fontsize=8)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.tick_params(axis="x", labelsize=8)
        everywhere = {found["policies"][key]["title"] for key in (JOINT, AT_THE_CUT) if key in found["policies"]}
        signs = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        own = {label: sign for label, sign in signs.items() if label not in everywhere | {STATIC}}
        below = {"loc": "upper center", "bbox_to_anchor": (0.45, -0.22), "fontsize": 7, "frameon": False}
        ax.legend(own.values(), own.keys(), ncols=1, **below)
        shared |= {label: sign for label, sign in signs.items() if label not in own}
    figure.legend(shared.values(), shared.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{name}: dynamic pseudo-regret with the price of audits, of the joint policy and the best of each group;\n"
        f"mean over seeds, {_named(found)} over seeds",
        fontsize=10,
    )
    return figure


def _width(n: int) -> float:
    """Half-width of a 95 % interval of a mean over n runs, in standard deviations."""
    return float(t95(n) / np.sqrt(n))


def _shares(found: Found, key: str, at: Any) -> Any:
    """Share of changes from which each seed's runs have recovered after so many rounds, (seeds, len(at))."""
    seeds = found["config"]["seeds"]
    lists = [here["played"].get(key, {}).get("recovery", ()) for here in worlds_of(found).values()]
    taken = np.concatenate([np.array(one).reshape(seeds, -1) for one in lists if len(one)], axis=1)
    return (taken[:, :, None] <= np.array(at)).mean(axis=1)


def recovery(name: str, found: Found) -> Figure:
    """Share of changes from which a policy has recovered after so many rounds, over all abrupt worlds."""
    figure, ax = plt.subplots(figsize=(11, 5))
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
        style = LINES[group] if by_group[group] == 1 else ":"
        label = f"{found['policies'][key]['title']}: median {np.median(taken):,.0f}"
        ax.step(np.maximum(taken, 1.0), 100.0 * share, where="post", color=COLOURS[group], ls=style, label=label)
        runs = _shares(found, key, AT)
        mean, half = 100.0 * runs.mean(axis=0), 100.0 * _width(len(runs)) * runs.std(axis=0, ddof=1)
        ax.errorbar(AT, mean, yerr=half, fmt="none", ecolor=COLOURS[group], elinewidth=0.9, capsize=2)
    ax.axvline(300, color="#444", lw=0.9, ls=":", label="wanted: median at most 300")
    ax.set(
        xscale="log",
        xlabel="rounds since the change (1: none needed)",
        ylabel="recovered (% of changes)",
        ylim=(0, 101),
    )
    plain(ax.xaxis)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.set_title(
        f"{name}: rounds until 50 rounds lie within .01 of the segment's best; never = length of the segment\n"
        f"n = {changes:,} changes in {found['config']['seeds']} seeds; bars: 95 % intervals over seeds",
        fontsize=9,
    )
    return figure
