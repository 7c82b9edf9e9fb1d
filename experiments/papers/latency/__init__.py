"""The latency experiment: expert branches against plain ones over three links, level by level."""

from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from omegaconf import DictConfig

from offramp.bandits.rows import FloatArray
from offramp.environments.offloading import LINKS, answers, latency
from offramp.environments.reliability import Z
from offramp.experiments.calibration.offload import Machines
from offramp.experiments.calibration.samples import PRISTINE as PRISTINE_EXITS
from offramp.experiments.calibration.samples import ROUTED
from offramp.experiments.earlier import open_cache, title
from offramp.experiments.expert_branches.systems import (
    EXPERTS,
    PRISTINE,
    PRISTINE_CALIBRATED,
    SYSTEMS,
    answers_of,
    views,
)
from offramp.experiments.figures import STYLE, svg
from offramp.experiments.markdown import grid
from offramp.experiments.papers.page import Check, Found, Page, Told, at_least, at_most, every, less, share, tally

matplotlib.use("Agg")
LOOK = {PRISTINE: ("#d1495b", "s"), PRISTINE_CALIBRATED: ("#e0a000", "D"), EXPERTS: ("#1b6ca8", "o")}


def measure(cfg: DictConfig, pool: ThreadPoolExecutor) -> Found:
    """Mean time and accuracy of the cascade of each system, at each level, target and link."""
    per, cache = cfg.latency, open_cache(cfg.cache)
    caches = views(cache)
    test = caches["raw"]
    assert test.profile is not None
    k = min(per.edge_exits, len(test.exits) - 1)
    machines = Machines(edge_gmacs=per.edge_gmacs, cloud_gmacs=per.cloud_gmacs, edge_exits=k)
    rows = []
    for name in LOOK:
        said = answers_of(SYSTEMS[name], caches)
        times = machines.times(test.profile, ROUTED if name == EXPERTS else PRISTINE_EXITS)
        for family, levels in per.levels.items():
            for condition in levels:
                s = test.condition(condition)
                for target in per.targets:
                    who = answers(said.confidence[s], said.correct[s], target, edge_exits=k)
                    right = who.correct
                    took = {link.name: latency(who, link=link, **times) for link in LINKS.values()}
                    rows.append(
                        {
                            "system": name,
                            "family": family,
                            "condition": condition,
                            "target": target,
                            "offloaded": float(100.0 * (~who.edge).mean()),
                            "accuracy": float(100.0 * right.mean()),
                            "ms": {to: mean_of(t) for to, t in took.items()},
                            "right_ms": {to: float(t.sum() / max(right.sum(), 1)) for to, t in took.items()},
                        }
                    )
    return {
        "cache": title(cache, cfg.cache),
        "images": len(test.label),
        "edge_exits": k,
        "targets": list(per.targets),
        "speeds": [per.edge_gmacs, per.cloud_gmacs],
        "rows": rows,
    }


def each_ms(at: dict[tuple[str, str, str], Found], system: str, place: tuple[str, str], to: str) -> float:
    """Time for each right answer over a link."""
    return float(at[system, *place]["right_ms"][to])


def mean_of(ms: FloatArray) -> dict[str, float]:
    """A mean over images with its 95 % interval."""
    return {"mean": float(ms.mean()), "half": float(Z * ms.std(ddof=1) / np.sqrt(len(ms)))}


def page(found: Found) -> Page:
    """The page of the claim."""
    target, links = found["targets"][0], [link.name for link in LINKS.values()]
    at = {(r["system"], r["family"], r["condition"]): r for r in found["rows"] if r["target"] == target}
    levels = [(f, c) for s, f, c in at if s == EXPERTS and c != "pristine"]

    def quicker(than: str) -> list[Told]:
        places = [(p, to) for p in levels for to in links]
        return [at_most(less(at[EXPERTS, *p]["ms"][to], at[than, *p]["ms"][to]), 0.0) for p, to in places]

    def right(system: str, place: tuple[str, str]) -> dict[str, float]:
        return share(at[system, *place]["accuracy"] / 100.0, found["images"])

    n = len(levels) * len(links)
    more = [at_least(less(right(EXPERTS, p), right(PRISTINE, p)), 0.0) for p in levels]
    raw, honest = quicker(PRISTINE), quicker(PRISTINE_CALIBRATED)
    each = sum(each_ms(at, EXPERTS, p, to) < each_ms(at, PRISTINE, p, to) for p in levels for to in links)
    won = [to for to in links if any(each_ms(at, EXPERTS, p, to) < each_ms(at, PRISTINE, p, to) for p in levels)]
    gaining = f"over {' and '.join(won)} alone" if won else "over none"
    pristine = (
        {s: at[s, "blur", "pristine"]["ms"][links[0]]["mean"] for s in LOOK}
        if (PRISTINE, "blur", "pristine") in at
        else {}
    )
    checks = [
        Check(
            what="mean time with experts below that of plain exits, distorted images",
            wanted="at all levels and links",
            found=tally(raw),
            holds=every(raw),
        ),
        Check(
            what="the same against plain exits that are calibrated",
            wanted="at all levels and links",
            found=tally(honest),
            holds=every(honest),
        ),
        Check(
            what="more accurate than plain exits, distorted images",
            wanted="at all levels",
            found=tally(more),
            holds=every(more),
        ),
        Check(
            what="time for each right answer below that of plain exits",
            wanted="at all levels and links",
            found=f"{each} of {n}; a quotient of means, without an interval",
            holds=each == n,
        ),
    ]
    clean = (
        f"On undistorted images over {links[0]} the means are "
        f"{', '.join(f'{ms:.1f} ms ({s})' for s, ms in pristine.items())}."
        if pristine
        else ""
    )
    return Page(
        title="Expert branches: do they answer sooner?",
        hypothesis="With a classifier of the distortion and expert branches the mean time to the answer is shorter "
        "at every level of distortion, since fewer images go to the cloud.",
        source="arXiv 2108.09343: the experiment with edge and cloud, and the links São Paulo, Fremont and Paris "
        "measured from Rio de Janeiro (README of its code: 93.6, 73.3, 60.0 Mbit/s; round trips of 10, 180, 216 ms). "
        "**Its times were not at hand**: the hypothesis is how we read its purpose, and no number can be compared.",
        setting=f"`{found['cache']}`, {found['images']:,} test images at each level, {found['edge_exits']} exits at "
        f"the edge of {found['speeds'][0]:g} GMAC/s (the router included), a cloud of {found['speeds'][1]:g} GMAC/s, "
        "the map at the last of these exits as floats. Exits are decided, image by image, by the confidence; the "
        "paper replays shares. Time is computed, not measured: the study [live](../../live/README.md) holds such a "
        "model against real processes.",
        tables={f"Mean ms / offloaded % / accuracy %, target {t:g}": table(found, t) for t in found["targets"]},
        pictures={"latency": draw(found)},
        checks=checks,
        why=[
            "Plain exits are quick under a distortion because they are wrong and sure: they answer at the edge what "
            "they should have sent. Time alone rewards that. The more honest the exits, the more goes to the cloud, "
            "and over Fremont and Paris a round trip is many times the edge's whole work.",
            f"Who counts a wrong answer as lost asks for the time of each right one. There experts gain at {each} of "
            f"{n} levels and links, {gaining}: they are right two to three times as often, and take more than that "
            "longer wherever a round trip is long.",
            clean,
        ],
    )


def table(found: Found, target: float) -> str:
    """One row for each level, a column for each system and link."""
    rows, links = [], [link.name for link in LINKS.values()]
    at = {(r["system"], r["family"], r["condition"]): r for r in found["rows"] if r["target"] == target}
    seen = set()
    for system, family, condition in at:
        if system != PRISTINE or condition in seen:
            continue
        seen.add(condition)
        cells = []
        for name in LOOK:
            r = at[name, family, condition]
            ms = " · ".join(f"{r['ms'][to]['mean']:.0f}" for to in links)
            cells.append(f"{ms} / {r['offloaded']:.0f} / {r['accuracy']:.1f}")
        plain, mine = (at[s, family, condition]["right_ms"] for s in (PRISTINE, EXPERTS))
        each = " · ".join(f"{plain[to]:.0f} → {mine[to]:.0f}" for to in links)
        rows.append([condition, *cells, each])
    heads = ["level", *LOOK, "ms for each right answer: plain → experts"]
    return f"Links: {', '.join(links)}.\n\n{grid(heads, rows)}"


def draw(found: Found) -> str:
    """Mean time by level, a panel for each link and family."""
    target, links = found["targets"][0], [link.name for link in LINKS.values()]
    families = list(dict.fromkeys(r["family"] for r in found["rows"]))
    with plt.rc_context(STYLE | {"svg.hashsalt": "latency"}):
        figure, axes = plt.subplots(
            len(families), len(links), figsize=(12, 3.4 * len(families)), squeeze=False, sharey="col"
        )
        for row, family in zip(axes, families, strict=True):
            for ax, to in zip(row, links, strict=True):
                for name, (colour, mark) in LOOK.items():
                    own = [
                        r for r in found["rows"] if (r["system"], r["family"], r["target"]) == (name, family, target)
                    ]
                    y, half = [r["ms"][to]["mean"] for r in own], [r["ms"][to]["half"] for r in own]
                    ax.errorbar(range(len(own)), y, yerr=half, color=colour, marker=mark, ms=4, lw=1, label=name)
                    ax.set_xticks(range(len(own)), [r["condition"] for r in own], rotation=40, ha="right", fontsize=8)
                ax.set_title(f"{to}, {family}", fontsize=10)
            row[0].set_ylabel("mean time to the answer (ms)")
        axes[0][0].legend(frameon=False, fontsize=8)
        figure.suptitle(
            f"{found['cache']}: cascade of {found['edge_exits']} edge exits, target {target:g}, n = "
            f"{found['images']:,} images at each level, 95 % intervals over images",
            fontsize=9,
        )
        return svg(figure, "latency") + "\n"
