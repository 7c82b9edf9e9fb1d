"""The figures of the study: phase diagrams with their labels, bytes of every codec, accuracy against bytes, points."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from offramp.experiments.figures import STYLE, plain, svg
from offramp.experiments.payload.rules import OFFERED, spelled

Rows = list[dict[str, Any]]
# One hue for each kind, told apart also without red or green; darker = deeper exit or more bytes.
RAMPS = {"edge alone": "Greys", "image sent": "Blues", "map sent": "Purples", "exit, else map": "Oranges"}
IMAGES = ("raw image", "PNG")
MAPS = ("float32", "float16", "uint8", "uint8 + zlib")
LEAST_LISTED = 0.002  # share of a map's cells below which the legend leaves an area out
LETTER, LINE, POINTS = 4.4, 9.5, (222.0, 205.0)  # points: a letter's width, a line's height, a panel's sides
CODEC_COLOURS = {
    "raw": "#1b1b1b", "png": "#7f7f7f", "jpeg_95": "#08306b", "jpeg_75": "#2171b5", "jpeg_50": "#6baed6",
    "jpeg_25": "#c6dbef", "float32": "#7f2704", "float16": "#d94801", "uint8": "#fd8d3c", "uint8_zlib": "#fdd0a2",
}  # fmt: skip


def colour_of(codec: str) -> str:
    """One colour for each codec: images blue, maps orange."""
    return CODEC_COLOURS.get(codec, "#00a6b4")


def coloured(maps: Iterable[Mapping[str, Any]], exits: int) -> dict[str, Any]:
    """One colour for each area of some maps, by its kind's ramp and its exit or codec: the same in every figure."""
    kinds = {name: kind for m in maps for name, kind in zip(m["areas"], m["kinds"], strict=True)}
    found: dict[str, Any] = {}
    for kind in OFFERED:
        depths = {name: depth_of(name, exits) for name in kinds if kinds[name] == kind}
        for name in sorted(depths, key=lambda n: depths[n]):
            found[name] = colormaps[RAMPS[kind]](depths[name])
    return found


def depth_of(area: str, exits: int) -> float:
    """How dark an area is, in 0..1: by codec where the image is sent, else by exit and a little by codec."""
    if area in IMAGES:
        return 0.95 - 0.1 * IMAGES.index(area)
    if area.startswith("JPEG"):
        return 0.15 + 0.6 * int(area.split()[1]) / 100.0
    codec = area.split(", ")[-1]
    shift = 0.035 * MAPS.index(codec) if codec in MAPS else 0.0
    return 0.2 + 0.6 * (int(area.split()[1].rstrip(",")) - 1) / (exits - 1) + shift


def inside(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """The cell of a region that is farthest from its border, and how many cells it is away from it."""
    left, last, depth = np.pad(mask, 1), np.pad(mask, 1), 0
    while left.any():
        last, depth = left, depth + 1
        left = left & np.roll(left, 1, 0) & np.roll(left, -1, 0) & np.roll(left, 1, 1) & np.roll(left, -1, 1)
    places = np.argwhere(last)
    middle = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()] - 1
    return int(middle[0]), int(middle[1]), depth


def _cache(found: Mapping[str, Any]) -> str:
    return Path(found["config"]["cache"]).name


def roomy(mask: npt.NDArray[np.bool_], text: str) -> npt.NDArray[np.bool_]:
    """The cells of a region around which a text lies wholly inside it."""
    lines = text.split("\n")
    sides = len(lines) * LINE / POINTS[1], max(map(len, lines)) * LETTER / POINTS[0]
    half = [int(np.ceil(0.5 * side * n)) for side, n in zip(sides, mask.shape, strict=True)]
    padded = np.pad(mask, [(n, n) for n in half])
    windows = np.lib.stride_tricks.sliding_window_view(padded, [2 * n + 1 for n in half])
    found: npt.NDArray[np.bool_] = windows.all(axis=(2, 3))
    return found


def borders(cells: npt.NDArray[np.int_], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> LineCollection:
    """A thin white line between areas that differ, along the borders of their cells."""
    k, r = np.nonzero(cells[:, 1:] != cells[:, :-1])
    lines = [[(x[j + 1], y[i]), (x[j + 1], y[i + 1])] for i, j in zip(k, r, strict=True)]
    k, r = np.nonzero(cells[1:] != cells[:-1])
    lines += [[(x[j], y[i + 1]), (x[j + 1], y[i + 1])] for i, j in zip(k, r, strict=True)]
    return LineCollection(lines, colors="white", linewidths=0.5)


def edges_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Borders of cells around centres that lie evenly on a log scale."""
    logs = np.log(values)
    half = (logs[1] - logs[0]) / 2
    found: npt.NDArray[np.float64] = np.exp(np.append(logs - half, logs[-1] + half))
    return found


def panel(axes: Axes, m: Mapping[str, Any], rates: Any, speeds: Any, palette: Mapping[str, Any]) -> None:
    """One map, with the names of its larger areas written into them."""
    cells = np.array(m["cells"])
    x, y = edges_of(np.array(rates)), edges_of(np.array(speeds))
    axes.pcolormesh(
        x, y, cells, cmap=ListedColormap([palette[a] for a in m["areas"]]), vmin=-0.5, vmax=len(m["areas"]) - 0.5,
        rasterized=True,
    )  # fmt: skip
    axes.add_collection(borders(cells, x, y), autolim=False)
    axes.set(xscale="log", yscale="log", xlim=x[[0, -1]], ylim=y[[0, -1]])
    plain(axes.xaxis)
    plain(axes.yaxis)
    for number, area in enumerate(m["areas"]):
        wide = area.replace(", else map, ", " or map\n").replace(" on the edge", "").replace(", ", "\n")
        narrow = wide.replace(" or map", "\nor map").replace(" + ", "\n+ ")
        rooms = ((text, roomy(cells == number, text)) for text in (wide, narrow))
        text, room = next(((text, room) for text, room in rooms if room.any()), ("", None))
        if room is None:
            continue
        k, r, _ = inside(room)
        dark = float(np.dot(palette[area][:3], (0.3, 0.59, 0.11))) < 0.5
        axes.text(
            rates[r], speeds[k], text, ha="center", va="center", fontsize=7, color="white" if dark else "black",
            linespacing=0.95,
        )  # fmt: skip


def phases(maps: Rows, found: Mapping[str, Any], *, rows: Sequence[Any], by: str, title: str) -> Figure:
    """Maps in a grid: a column for each condition, a row for each value of a field."""
    rates, speeds = found["grid"]["rates"], [k * found["edge_ms"][-1] for k in found["grid"]["factors"]]
    conditions = list(dict.fromkeys(m["condition"] for m in maps))
    palette = coloured(maps, len(found["exits"]))
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, grid = plt.subplots(
            len(rows), len(conditions), figsize=(3.7 * len(conditions) + 0.5, 3.3 * len(rows) + 1.2), sharex=True,
            sharey=True, squeeze=False,
        )  # fmt: skip
        for i, value in enumerate(rows):
            for axes, condition in zip(grid[i], conditions, strict=True):
                m = next(m for m in maps if m["condition"] == condition and m[by] == value)
                panel(axes, m, rates, speeds, palette)
                named = f"round trip {value:g} ms" if by == "round_trip_ms" else str(value)
                axes.set_title(f"{condition}, {named}", fontsize=9)
            grid[i][0].set_ylabel("whole network on the edge (ms per image)")
        for axes in grid[-1]:
            axes.set_xlabel("rate of the link (Mbit/s)")
        share = {
            a: max(float(np.mean(np.array(m["cells"]) == m["areas"].index(a))) for m in maps if a in m["areas"])
            for a in palette
        }
        listed = [a for a in palette if share[a] >= LEAST_LISTED]
        handles = [plt.Rectangle((0, 0), 1, 1, color=palette[a]) for a in listed]
        figure.legend(
            handles, listed, loc="outside lower center", ncols=4, frameon=False, fontsize=7.5,
            title=f"{_cache(found)}: {title}", title_fontsize=8.5,
        )  # fmt: skip
        return figure


def bytes_bars(found: Mapping[str, Any]) -> Figure:
    """Mean bytes of every codec at every split on a log scale, and how far distortions move them."""
    families = list(dict.fromkeys(r["family"] for r in found["wire"]))
    first = families[0]
    splits = sorted({r["split"] for r in found["wire"]})
    marks = dict(zip([f for f in families[1:] if f != "all"], "ovs^DP*Xd", strict=False))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 4.6))
        at, places = 0.0, []
        seen: set[str] = set()
        for split in splits:
            codecs = [r["codec"] for r in found["wire"] if r["split"] == split and r["family"] == first]
            places.append(at + (len(codecs) - 1) / 2)
            for codec in codecs:
                own = {r["family"]: r for r in found["wire"] if r["split"] == split and r["codec"] == codec}
                label = "" if codec in seen else spelled(codec)
                seen.add(codec)
                axes.bar(at, own[first]["bytes"], 0.85, color=colour_of(codec), edgecolor="#555", lw=0.4, label=label)
                axes.errorbar(at, own[first]["bytes"], own[first]["bytes_half"], ecolor="#555", elinewidth=0.9)
                for family, mark in marks.items():
                    if abs(own[family]["bytes"] / own[first]["bytes"] - 1.0) > 0.02:
                        axes.plot(at, own[family]["bytes"], mark, ms=4.5, mfc="white", mec="#c1121f", mew=0.9)
                at += 1.0
            at += 1.0
        for family, mark in marks.items():
            axes.plot([], [], mark, ms=4.5, mfc="white", mec="#c1121f", mew=0.9, ls="", label=f"under {family}")
        axes.set_xticks(places, ["the image" if s == 0 else f"map {s}" for s in splits])
        axes.set(yscale="log", ylabel="mean size on the wire (bytes)", xlabel=f"what is sent (bars: {first})")
        plain(axes.yaxis)
        axes.set_title(
            f"{_cache(found)}: n = {found['images']['test']:,} test images under every condition; 95 % "
            "intervals over images",
            fontsize=10,
        )
        axes.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8,
        )  # fmt: skip
        return figure


def accuracy_bytes(found: Mapping[str, Any]) -> Figure:
    """Accuracy of the last exit against what was sent to it, for the first family and for all conditions."""
    first = found["wire"][0]["family"]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(11, 4.4))
        for axes, family in zip(panels, (first, "all"), strict=True):
            for row in (r for r in found["wire"] if r["family"] == family):
                codec, split = row["codec"], row["split"]
                axes.errorbar(
                    row["bytes"], 100.0 * row["accuracy"], 100.0 * row["accuracy_half"], ls="",
                    marker="o" if split else "s", ms=4 if split else 6, color=colour_of(codec), mec="#333", mew=0.3,
                    ecolor="#bbb", elinewidth=0.8,
                )  # fmt: skip
                if split:  # a line of numbers for each codec, as its points lie beside and over those of the others
                    axes.annotate(
                        str(split), (row["bytes"], 100.0 * row["accuracy"]), ha="center", fontsize=7.5,
                        xytext=(0, 8 + 9 * MAPS.index(spelled(codec))), textcoords="offset points",
                        color=0.7 * np.array(to_rgb(colour_of(codec))),
                        path_effects=[withStroke(linewidth=2, foreground="w")],
                    )  # fmt: skip
            axes.set(
                xscale="log",
                xlabel="mean size on the wire (bytes)",
                title=f"{family}" if family != "all" else "all conditions",
            )
            plain(axes.xaxis)
        panels[0].set_ylabel("accuracy of the last exit (%)")
        names = list(dict.fromkeys(r["codec"] for r in found["wire"]))
        handles = [plt.Line2D([], [], marker="o", ls="", color=colour_of(c), mec="#555") for c in names]
        figure.legend(
            handles, [spelled(c) for c in names], loc="outside lower center", ncols=5, frameon=False, fontsize=8,
            title=f"{_cache(found)}: squares: the image is sent; numbers: the map of this exit; "
            f"n = {found['images']['test']:,} test images, 95 % intervals over images",
            title_fontsize=8.5,
        )  # fmt: skip
        return figure


def online(found: Mapping[str, Any]) -> Figure:
    """Reward and latency of the joint policy against the winner of each point, paired, with intervals over seeds."""
    names = list(dict.fromkeys(r["stream"] for r in found["online"]))
    rates = sorted({r["mbit_s"] for r in found["online"]})
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, len(names), figsize=(5.4 * len(names), 6.4), sharex=True, squeeze=False)
        for column, name in enumerate(names):
            rows = [r for r in found["online"] if r["stream"] == name]
            for i, factor in enumerate(sorted({r["factor"] for r in rows})):
                own = sorted((r for r in rows if r["factor"] == factor), key=lambda r: r["mbit_s"])
                x = [rates.index(r["mbit_s"]) + 0.12 * (i - 1) for r in own]
                colour = ("#1b6ca8", "#e07b00", "#7b3fa0", "#2e933c", "#1b1b1b")[i % 5]
                label = f"{factor * found['edge_ms'][-1]:.0f} ms an image on the edge"
                for axes, values in (
                    (panels[0][column], [r["run"]["reward"]["difference"] for r in own]),
                    (panels[1][column], [r["run"]["latency_ratio"] for r in own]),
                ):
                    axes.errorbar(
                        x, [v["mean"] for v in values], [v["half"] for v in values], fmt="osD^v"[i % 5], color=colour,
                        ms=5, capsize=3, label=label,
                    )  # fmt: skip
            panels[0][column].axhline(0.0, color="#888", lw=0.8)
            panels[1][column].axhline(1.0, color="#888", lw=0.8)
            panels[0][column].set_title(f"{name}", fontsize=10)
            panels[1][column].set_xticks(range(len(rates)), [f"{r:g}" for r in rates])
            panels[1][column].set_xlabel("rate of the link (Mbit/s)")
        panels[0][0].set_ylabel("reward: joint policy − winner\n(units of confidence)")
        panels[1][0].set_ylabel("mean latency: joint policy / winner\n(ratio)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        one = found["online"][0]
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8,
            title=f"{_cache(found)}: n = {one['seeds']} seeds of {one['horizon']:,} requests, 95 % "
            f"intervals, paired by seed; round trip {one['round_trip_ms']:g} ms",
            title_fontsize=8.5,
        )  # fmt: skip
        return figure


def draw(found: Mapping[str, Any]) -> dict[str, str]:
    """All figures as SVG, by name."""
    made: dict[str, Figure] = {}
    trips = found["config"]["round_trips"]
    lost = f"{100.0 * found['config']['slack']:g} point{'' if found['config']['slack'] == 0.01 else 's'}"
    few, tested = found["images"]["validation"], f"n = {found['images']['test']:,} test images per condition"
    price = found["config"]["mu"] * found["config"]["second"]
    first, last = found["maps"][0]["condition"], found["maps"][-1]["condition"]
    for objective, title in (
        ("latency", f"least mean latency among rules at most {lost} below the whole network; {tested}"),
        ("latency, picked on validation", f"the same, picked on {few:,} validation images per condition"),
        ("reward", f"largest confidence − {price:g} per second; picked on {few:,} validation images per condition"),
    ):
        maps = [m for m in found["maps"] if m["objective"] == objective]
        made[f"phase_{objective.replace(', ', '_').replace(' ', '_')}"] = phases(
            maps, found, rows=trips, by="round_trip_ms", title=title
        )
    maps = [m for m in found["maps"] if m["objective"].startswith("energy") and m["condition"] in (first, last)]
    radios = list(dict.fromkeys(m["objective"] for m in maps))
    title = (
        f"least energy on an edge of {found['config']['power_w']:g} W while computing, among rules\nat most {lost} "
        f"below the whole network; {tested}"
    )
    made["phase_energy"] = phases(maps, found, rows=radios, by="objective", title=title)
    made["bytes"], made["accuracy_bytes"] = bytes_bars(found), accuracy_bytes(found)
    if found["online"]:
        made["online"] = online(found)
    return {name: svg(figure, name) for name, figure in made.items()}
