"""The figures of a report that show runs, each with the numbers behind it."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from offramp.experiments.collected import NEVER, Collected, Facet, clipped, spread
from offramp.experiments.figures import PALETTE, STYLE, shorter, svg

Drawn = tuple[Figure, pd.DataFrame]
ASIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
SIZE = (11, 4.6)
WIDE = 64  # characters of a label in a figure: a longer one would leave the axes no room
LOOK = STYLE | {"text.parse_math": False}  # a label may hold $
MARKS = "oD^v<>pPXh*"  # of policies that learn; those that do not are squares
DASHES: tuple[Any, ...] = ("-", "-.", (0, (6, 1, 1, 1, 1, 1)))  # theirs too
FEW = 5  # answers in a bin of one run, below which its accuracy says nothing


def slim(figure: Figure, name: str) -> str:
    """A figure as SVG: coordinates to a tenth of a point, and what a page filters by as data attributes."""
    text = shorter(svg(figure, name), 1)
    return re.sub(rf'id="{re.escape(name)}-p(\d+)(?:w(\d+))?\.[^"]*"', _data, text)


def _data(found: re.Match[str]) -> str:
    price = "" if found[2] is None else f' data-price="{found[2]}"'
    return f'data-policy="{found[1]}"{price}'


def mark(artists: Iterable[Artist], policy: int, price: int | None = None) -> None:
    """Let the page show and hide these by policy, and by price."""
    for k, artist in enumerate(artists):
        artist.set_gid(f"p{policy}{'' if price is None else f'w{price}'}.{k}")


def look(all_: Collected, policy: str) -> tuple[int, str, Any, str]:
    """Number, colour, dash and mark of a policy: the same in all figures."""
    number = all_.policies.index(policy)
    color, dash = PALETTE[number % len(PALETTE)], DASHES[(number + number // len(PALETTE)) % len(DASHES)]
    if policy.split(" · ")[0] in NEVER:
        return number, color, "--", "s"
    return number, color, dash, MARKS[number % len(MARKS)]


def head(axes: Axes, facet: Facet, all_: Collected, what: str, world: str | None = None) -> None:
    """A line above a figure: the cache, the world, what is drawn, and how many seeds."""
    cache = Path(json.loads(facet.frame.setting.iloc[0])["cache"]).name
    low, high = facet.seeds
    seeds = f"{low}" if low == high else f"{low} to {high}"
    title = f"{cache}, world {clipped(world or all_.title(facet), WIDE)}: {what}, n = {seeds} seeds"
    axes.set_title(title, loc="left", fontsize=9)


def legend(
    axes: Axes, all_: Collected, shown: Mapping[str, str], title: str, *, lines: bool = True, marks: bool = True
) -> None:
    """A legend at the side, policy -> what follows its name; entries are shown and hidden with their policies."""
    made = {p: look(all_, p) for p in shown}
    signs = [
        Line2D([], [], color=color, ls=dash if lines else "none", marker=mark if marks else "", ms=5)
        for _, color, dash, mark in made.values()
    ]
    small = 9 if len(shown) <= 14 else 7
    drawn = axes.legend(
        signs, [f"{clipped(p, WIDE)}{text}" for p, text in shown.items()], **ASIDE, title=title, fontsize=small
    )
    for policy, text, handle in zip(shown, drawn.get_texts(), drawn.legend_handles, strict=True):
        mark([text, *([] if handle is None else [handle])], made[policy][0])


def numbers(facet: Facet, all_: Collected, policy: str, **columns: Any) -> pd.DataFrame:
    """Rows of the data behind a figure."""
    where: dict[str, Any] = {"stream": all_.streams[facet.stream], "price": all_.prices[facet.price]}
    if len(all_.settings) > 1:
        where["setting"] = all_.settings[facet.setting]
    return pd.DataFrame({**where, "policy": policy, **columns})


def moved(axes: Axes, facet: Facet) -> None:
    """A thin line wherever condition or link change in segments."""
    starts = [at for at, *_ in facet.facts["strip"][1:]]
    if len(starts) <= 40:
        for at in starts:
            axes.axvline(at, color="#888", lw=0.6, alpha=0.6)


def regret(facet: Facet, all_: Collected) -> Drawn | None:
    """Cumulative dynamic pseudo-regret, mean and 95 % band over seeds; None where no run knows it."""
    last = {p: found["mean"] for p in facet.policies if (found := facet.means(p, "regret_total")) is not None}
    if not last:
        return None
    order = sorted(last, key=lambda p: last[p])
    limit = 1.08 * max([last[p] for p in facet.learners if p in last] or list(last.values()))
    behind = []
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=SIZE)
        for policy in order:
            rounds = np.asarray(facet.policies[policy]["rounds"].iloc[0])
            mean, half, n = spread(facet.curve(policy, "regret_sum"))
            number, color, dash, _ = look(all_, policy)
            lines = axes.plot(rounds, mean, ls=dash, color=color, lw=1.6)
            wide = np.nan_to_num(half)
            mark([*lines, axes.fill_between(rounds, mean - wide, mean + wide, color=color, alpha=0.2, lw=0)], number)
            behind.append(numbers(facet, all_, policy, round=rounds, regret=mean, half=half, n=n))
        low = 1.08 * min(0.0, *last.values())
        axes.set(xlim=(0, facet.horizon), ylim=(low, max(limit, 0.05 - low)), xlabel="round")
        axes.set_ylabel("cumulative regret (confidence units)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,.10g}")
        head(axes, facet, all_, "mean and 95 % band")
        moved(axes, facet)
        notes = {p: " (leaves the axes)" if last[p] > limit else "" for p in order}
        legend(axes, all_, {p: f": {last[p]:,.0f}{notes[p]}" for p in order}, "policy: regret at the end", marks=False)
    return figure, pd.concat(behind, ignore_index=True)


def recovery(facet: Facet, all_: Collected) -> Drawn | None:
    """Regret a round against the rounds since a change; None where nothing changes in stretches."""
    offsets = np.array(facet.facts["offsets"], dtype=np.float64)
    seen = {p: curve for p in facet.policies if np.isfinite(curve := facet.curve(p, "recovery")).any()}
    if not seen:
        return None
    behind = []
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=SIZE)
        middle = np.sqrt(np.maximum(offsets[:-1], 4.0) * offsets[1:])
        order = sorted(seen, key=lambda p: float(np.nanmean(seen[p])))
        found = {p: spread(seen[p]) for p in order}
        limit = 1.08 * max(float(np.nanmax(found[p][0])) for p in [q for q in order if q in facet.learners] or order)
        for policy in order:
            mean, half, n = found[policy]
            known = n > 0
            number, color, dash, sign = look(all_, policy)
            lines = axes.plot(middle[known], mean[known], ls=dash, marker=sign, ms=4, color=color, lw=1.6)
            low, high = (mean + end * np.nan_to_num(half) for end in (-1.0, 1.0))
            band = axes.fill_between(middle[known], low[known], high[known], color=color, alpha=0.2, lw=0)
            mark([*lines, band], number)
            runs = facet.policies[policy]
            behind.append(
                numbers(
                    facet,
                    all_,
                    policy,
                    after=offsets[:-1][known],
                    until=offsets[1:][known],
                    regret=mean[known],
                    half=half[known],
                    n=n[known],
                    changes=round(float(runs.changes.mean()), 1),
                )
            )
        axes.axhline(facet.facts["recovered"], color="#333", lw=0.8, ls=":")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="rounds since distortion or link changed", ylabel="regret a round (confidence units)")
        head(axes, facet, all_, f"mean and 95 % band, dotted: {facet.facts['recovered']:g}")
        low = min(0.0, 1.08 * min(float(np.nanmin(mean)) for mean, _, _ in found.values()))
        axes.set_ylim(low, max(limit, 1.2 * facet.facts["recovered"]))
        out = {p: " (leaves the axes)" if np.nanmax(found[p][0]) > limit else "" for p in order}
        legend(axes, all_, out, "policy")
    return figure, pd.concat(behind, ignore_index=True)


def calibration(facet: Facet, all_: Collected) -> Drawn | None:
    """Accuracy of the answers given against their confidence; None where no outcome is known."""
    error = {p: found["mean"] for p in facet.policies if (found := facet.means(p, "calibration_error")) is not None}
    if not error:
        return None
    behind = []
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=SIZE)
        axes.plot([0, 1], [0, 1], color="#333", lw=0.8, ls=":")
        order = sorted(error, key=lambda p: error[p])
        for policy in order:
            count, sure, right = (facet.curve(policy, f"answers{x}") for x in ("", "_confidence", "_correct"))
            with np.errstate(invalid="ignore", divide="ignore"):
                accuracy = np.where(count >= FEW, right / count, np.nan)
                middle = sure.sum(axis=0) / count.sum(axis=0)
            mean, half, n = spread(accuracy)
            known = n >= (len(count) + 1) // 2
            number, color, dash, sign = look(all_, policy)
            bar = axes.errorbar(
                middle[known], mean[known], yerr=np.nan_to_num(half[known]), marker=sign, ls=dash, ms=4, capsize=2,
                lw=1.2, color=color,
            )  # fmt: skip
            mark([bar.lines[0], *bar.lines[1], *bar.lines[2]], number)
            behind.append(
                numbers(
                    facet,
                    all_,
                    policy,
                    confidence=middle[known],
                    accuracy=mean[known],
                    half=half[known],
                    n=n[known],
                    answers=count.sum(axis=0)[known].astype(int),
                )
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of the answer", ylabel="share of right answers")
        legend(axes, all_, {p: f": {error[p]:.3f}" for p in order}, "policy: calibration error")
        head(axes, facet, all_, "mean and 95 % interval, dotted: accuracy = confidence")
    return figure, pd.concat(behind, ignore_index=True)


def front(facets: list[Facet], all_: Collected) -> Drawn:
    """Mean cost against accuracy with 95 % intervals both ways; prices of one world are joined."""
    points: dict[str, list[tuple[Facet, dict[str, float], dict[str, float]]]] = {}
    for facet in facets:
        for policy in facet.policies:
            cost, right = facet.means(policy, "cost"), facet.means(policy, "accuracy")
            if cost is not None and right is not None:
                points.setdefault(policy, []).append((facet, cost, right))
    behind = []
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=SIZE)
        for policy, found in points.items():
            number, color, dash, sign = look(all_, policy)
            found.sort(key=lambda point: point[1]["mean"])
            if len(found) > 1:
                xs, ys = [c["mean"] for _, c, _ in found], [100.0 * r["mean"] for *_, r in found]
                mark(axes.plot(xs, ys, ls=dash, color=color, lw=1.0, alpha=0.7), number)
            for facet, cost, right in found:
                bar = axes.errorbar(
                    cost["mean"], 100.0 * right["mean"], xerr=np.nan_to_num(cost["half"]),
                    yerr=np.nan_to_num(100.0 * right["half"]), fmt=sign, color=color, ms=7, capsize=3,
                )  # fmt: skip
                mark([bar.lines[0], *bar.lines[1], *bar.lines[2]], number, facet.price)
                row = {"cost": [cost["mean"]], "cost_half": [cost["half"]], "accuracy": [right["mean"]]}
                n = min(cost["n"], right["n"])
                behind.append(numbers(facet, all_, policy, **row, accuracy_half=[right["half"]], n=[n]))
        axes.set(xlabel="cost per image (cost units)", ylabel="accuracy (%)")
        axes.set_xlim(left=0.0)
        means = {p: f": {c['mean']:.3f}, {100 * r['mean']:.1f} %" for p, [(_, c, r), *_] in points.items()}
        alone = all(len(found) == 1 for found in points.values())
        title = "policy: cost, accuracy" if alone else "policy"
        legend(axes, all_, means if alone else dict.fromkeys(points, ""), title, lines=not alone)
        one = all_.title(facets[0]) if len(facets) == 1 else f"{facets[0].family}, {len(facets)} prices"
        head(axes, facets[0], all_, "mean and 95 % intervals, up and to the left is better", world=one)
    return figure, pd.concat(behind, ignore_index=True)


def choices(facet: Facet, all_: Collected, policy: str) -> Drawn:
    """Which split and threshold a policy chose when, above a strip of what the stream did."""
    facts, exits = facet.facts, int(facet.facts["exits"])
    split = facet.curve(policy, "split_share").mean(axis=0).reshape(-1, exits + 1)
    edges = np.unique(np.concatenate([[0], np.round(np.linspace(0, facet.horizon, 65)[1:]).clip(1)]))
    own = [float(level) for cut, level, _ in facts["arms"] if 0 < cut < exits]
    ladder = sorted(set(own))
    level = facet.curve(policy, "level_share").mean(axis=0).reshape(len(split), -1)
    with plt.rc_context(LOOK | {"axes.grid": False}):
        figure, (top, middle, low) = plt.subplots(
            3, 1, figsize=(11, 6.2), sharex=True, gridspec_kw={"height_ratios": (3, 2, 1.1)}
        )
        ramp = plt.get_cmap("viridis")(np.linspace(0.05, 0.95, exits + 1))
        used = [c for c in range(exits + 1) if split[:, c].any() or any(cut == c for cut, *_ in facts["arms"])]
        layers = [split[np.r_[0, : len(split)], c] for c in used]
        names = [_cut(c, exits) for c in used]
        top.stackplot(edges, layers, colors=[ramp[c] for c in used], step="pre", labels=names)
        top.set(ylabel="share of rounds by split", ylim=(0, 1))
        top.legend(**ASIDE, title="the edge computes up to")
        mesh = middle.pcolormesh(
            edges, np.arange(len(ladder) + 1), level.T, cmap="Greys", vmin=0.0, vmax=1.0, rasterized=True
        )
        middle.set_yticks(np.arange(len(ladder)) + 0.5, [_level(x) for x in ladder], fontsize=8)
        middle.set_ylabel("threshold")
        whole = split[:, [0, exits]].sum(axis=1)
        if (whole + level.sum(axis=1) < 1.0 - 1e-4).any():
            middle.text(
                0.5, 0.5, "thresholds at several exits, outside the table of arms", ha="center", va="center",
                transform=middle.transAxes,
            )  # fmt: skip
        figure.colorbar(mesh, cax=middle.inset_axes((1.02, 0.0, 0.015, 1.0)), label="share of rounds")
        head(top, facet, all_, f"{clipped(policy, WIDE)}, mean")
        _strip(low, facet)
    columns = {f"cut {c}": split[:, c] for c in used} | {f"threshold {x:g}": level[:, i] for i, x in enumerate(ladder)}
    return figure, numbers(
        facet, all_, policy, until_round=edges[1:].astype(int), **columns, n=len(facet.policies[policy])
    )


def _cut(cut: int, exits: int) -> str:
    return "nothing: send the input" if cut == 0 else f"exit {cut}" + (" (all)" if cut == exits else "")


def _arm(cut: int, level: float) -> str:
    if cut == 0:
        return "send"
    return f"exit {cut}" + {-math.inf: "", math.inf: " offload"}.get(level, f" ≥ {level:g}")


def _level(threshold: float) -> str:
    return {-math.inf: "always answer", math.inf: "always offload"}.get(threshold, f"{threshold:g}")


def _strip(axes: Axes, facet: Facet) -> None:
    facts = facet.facts
    starts = np.array(facts["strip"])
    names, links = facts["conditions"], facts["links"]
    different = list(dict.fromkeys(names))
    number = np.array([different.index(names[s]) for s in starts[:, 1]])
    bounds = np.append(starts[:, 0], facet.horizon)
    axes.pcolormesh(bounds, [0, 1], number[None, :], cmap="Pastel1", vmin=0, vmax=8, rasterized=True)
    axes.set(yticks=[], xlabel="round", xlim=(0, facet.horizon))
    if len(starts) <= 24:
        for (_, condition, link), start, end in zip(starts, bounds[:-1], bounds[1:], strict=True):
            cut, level, _ = facts["arms"][facts["best"][condition][link]]
            text = f"{names[condition]}\nlink ×{links[link]:g}\n{_arm(cut, float(level))}"
            axes.text((start + end) / 2, 0.5, text, ha="center", va="center", fontsize=7.5)
    else:
        handles = [plt.Rectangle((0, 0), 1, 1, color=plt.get_cmap("Pastel1")(i / 8)) for i in range(len(different))]
        axes.legend(handles, different, **ASIDE, fontsize=8)
    axes.set_ylabel("distortion\nlink\nbest arm", rotation=0, ha="right", va="center")
    axes.xaxis.set_major_formatter("{x:,.0f}")
