"""The study's figures: missed deadlines over the deadline, by calibration and by policy, and what the price changes."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.experiments.deadline.places import BUSY, CALM
from offramp.experiments.deadline.tables import ARRIVALS, cascade_cells, player_cells
from offramp.experiments.figures import CALIBRATED, PALETTE, STYLE, plain, svg

matplotlib.use("Agg")
LINKS = {"wifi": "Wi-Fi", "lte": "LTE", "cell_3g": "3G", "4g_train": "4G on a train"}
MARKS = "osD^vPX*h"
LEARNT = "_published"  # of keys: drawn dashed, in the colour of the same policy with known prices
Found = dict[str, Any]


def draw(name: str, found: Found) -> dict[str, str]:
    """SVG texts by file name, the same from run to run."""
    made = {}
    streams = dict.fromkeys(c["stream"] for c in cascade_cells(found))
    figures = {f"cascades_{stream}": cascades(name, found, stream) for stream in streams}
    figures |= {f: policies(name, found, m) for f, m in (("policies", "missed"), ("right", "right"))}
    figures["price"] = price(name, found)
    for what, figure in figures.items():
        with plt.rc_context(STYLE | {"svg.hashsalt": name}):
            made[f"{what}_{name}"] = svg(figure, what) + "\n"
    return made


def _panels(rows: int, columns: int) -> tuple[Figure, Any]:
    return plt.subplots(rows, columns, figsize=(3.4 * columns, 2.7 * rows), sharex=True, sharey=True, squeeze=False)


def _band(axes: Axes, x: Any, run: Found, **style: Any) -> None:
    mean, half = (100.0 * np.array(run[k], dtype=np.float64) for k in ("mean", "half"))
    axes.plot(x, mean, lw=1.2, ms=3, **style)
    low, high = np.maximum(mean - half, 0.0), np.minimum(mean + half, 100.0)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, lw=0)


def _log(axes: Axes) -> None:
    axes.set_xscale("log")
    plain(axes.xaxis)


def _named(found: Found) -> str:
    cfg = found["config"]
    return f"{cfg['horizon']:,} requests, n = {cfg['seeds']} seeds, 95 % intervals over seeds"


def _pristine(name: str, cfg: Found) -> str:
    return f"{name}: pristine images, {CALIBRATED[cfg['calibrations'][-1]][0]}"


def cascades(name: str, found: Found, stream: str) -> Figure:
    """Missed batches of each cascade at one target, by calibration: where the drop lies, and the plateau."""
    cfg, target = found["config"], found["shown"][stream]
    with plt.rc_context(STYLE):
        figure, grid = _panels(len(cfg["exits"]), len(cfg["links"]))
        for axes_row, k in zip(grid, cfg["exits"], strict=True):
            for axes, link in zip(axes_row, cfg["links"], strict=True):
                for row in cascade_cells(found, stream=stream, link=link, exits=k, target=target):
                    label, colour, mark = CALIBRATED[row["calibration"]]
                    look = {"color": colour, "label": label, "marker": mark, "markevery": 4}
                    _band(axes, found["fine"], row["curve"]["batches"], **look)
                _log(axes)
                axes.set(ylim=(0, 102))
                axes.set_title(f"{LINKS.get(link, link)}, {k} exit{'s' if k > 1 else ''} at the edge", fontsize=9)
            axes_row[0].set_ylabel("missed batches (%)")
        _finish(figure, grid, f"{name}: {stream} images, target {target:g}, batches of {cfg['batch']}; {_named(found)}")
        return figure


def _finish(figure: Figure, grid: Any, title: str, columns: int = 4) -> None:
    for axes in grid[-1]:
        axes.set_xlabel("deadline (ms)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5, title=title,
        title_fontsize=9.5,
    )  # fmt: skip


def look(found: Found) -> dict[str, Found]:
    """Colour, mark and line of each player: the same policy with the price learnt is dashed."""
    base = list(dict.fromkeys(key.removesuffix(LEARNT) for key in found["titles"]))
    ramp = dict(zip(base, zip((PALETTE[i] for i in (4, 7, 5, 9, 6, 11, 1, 0, 2)), MARKS, strict=True), strict=False))
    return {
        key: {
            "color": ramp[key.removesuffix(LEARNT)][0],
            "marker": ramp[key.removesuffix(LEARNT)][1],
            "ls": "--" if key.endswith(LEARNT) else "-",
            "label": title.replace("p_tar =", "target"),
        }
        for key, title in found["titles"].items()
    }


def policies(name: str, found: Found, metric: str) -> Figure:
    """Every policy without the price, over all deadlines: requests that miss one, or right answers in time."""
    cfg, styles = found["config"], look(found)
    with plt.rc_context(STYLE):
        figure, grid = _panels(2, len(cfg["links"]))
        for axes_row, arrivals in zip(grid, (CALM, BUSY), strict=True):
            for axes, link in zip(axes_row, cfg["links"], strict=True):
                for key, style in styles.items():
                    here = {"player": key, "link": link, "arrivals": arrivals, "priced": False}
                    row = player_cells(found, **here, calibration=cfg["calibrations"][-1])[0]
                    _band(axes, cfg["deadlines"], row[metric], **style)
                _log(axes)
                axes.set(ylim=(0, 102))
                axes.set_title(f"{LINKS.get(link, link)}, {ARRIVALS[arrivals]}", fontsize=9)
            axes_row[0].set_ylabel("missed, dropped (%)" if metric == "missed" else "right in time (%)")
        _finish(figure, grid, f"{_pristine(name, cfg)}; {_named(found)}", 3)
        return figure


def price(name: str, found: Found) -> Figure:
    """What the price on a missed deadline changes in missed deadlines, policy by policy."""
    cfg, styles = found["config"], look(found)
    with plt.rc_context(STYLE):
        figure, grid = _panels(2, len(cfg["links"]))
        for axes_row, arrivals in zip(grid, (CALM, BUSY), strict=True):
            for axes, link in zip(axes_row, cfg["links"], strict=True):
                axes.axhline(0.0, color="#888", lw=0.6)
                for i, (key, style) in enumerate(styles.items()):
                    row = player_cells(found, player=key, link=link, arrivals=arrivals, priced=True)[0]
                    run = row["missed_change"]
                    mean, half = (100.0 * np.array(run[k], dtype=np.float64) for k in ("mean", "half"))
                    x = np.array(cfg["priced"]) * (1.0 + 0.012 * (i - len(styles) / 2))
                    axes.errorbar(x, mean, half, ms=3, lw=0.9, elinewidth=0.8, **style)
                _log(axes)
                axes.set_title(f"{LINKS.get(link, link)}, {ARRIVALS[arrivals]}", fontsize=9)
            axes_row[0].set_ylabel("missed with the price less\nmissed without (points)")
        spread = "paired; points of one deadline are spread sideways"
        _finish(figure, grid, f"{_pristine(name, cfg)}; {_named(found)}, {spread}", 3)
        return figure
