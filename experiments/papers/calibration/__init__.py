"""Calibration: outage and missed deadlines, from the record of the study `calibration`."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from omegaconf import DictConfig

from offramp.environments.reliability import wilson
from offramp.experiments.calibration.papers import EFFECT, SOURCE
from offramp.experiments.calibration.record import unpacked
from offramp.experiments.calibration.samples import PRISTINE
from offramp.experiments.figures import CALIBRATED, STYLE, svg
from offramp.experiments.markdown import grid
from offramp.experiments.papers.page import Check, Found, Page, Told, above, every, share
from offramp.experiments.papers.studies import record

matplotlib.use("Agg")
CALIBRATIONS = ("raw", "global", "exit")  # none, one temperature, one for each exit
CONDITION, TARGET, NETWORKS = "pristine", 0.8, ("mobilenet_v2_cifar10", "alexnet_cifar10")
OF_EFFECT = (
    "calibration", "target", "edge_probability", "edge_accuracy", "outage", "outage_low", "outage_high", "accuracy", "n"
)  # fmt: skip
OF_DEADLINES = ("calibration", "link", "target", "drop_ms", "plateau", "plateau_low", "plateau_high")
HIGH, OUTAGE_AT_HIGH = 0.9, (0.330, 0.157, 0.242)  # the paper's outage of the same exits at another target
# Which way each number moves from no calibration to one temperature, in all that the papers report.
WAYS = {"edge_probability": -1, "edge_accuracy": +1, "outage": -1, "outage at .9": -1, "accuracy": +1, "plateau": -1}
REPORTED = EFFECT | {"outage at .9": OUTAGE_AT_HIGH}


def measure(cfg: DictConfig, pool: ThreadPoolExecutor) -> Found:
    """Nothing anew: pristine exits on pristine images, from the study's record."""
    kept, out = record(cfg, "calibration").get("caches", {}), {}
    for name in NETWORKS:
        if name not in kept:
            continue
        found = unpacked(kept[name])
        where = {"system": PRISTINE, "condition": CONDITION}
        effect = [
            r for r in found["effect"] if all(r[k] == v for k, v in where.items()) and r["calibration"] in CALIBRATIONS
        ]
        deadlines = [
            r
            for r in found["deadlines"]
            if all(r[k] == v for k, v in where.items()) and r["calibration"] in CALIBRATIONS
        ]
        out[name] = {
            "edge_exits": found["edge_exits"],
            "effect": [{k: r[k] for k in OF_EFFECT} for r in effect],
            "deadlines": [{k: r[k] for k in OF_DEADLINES} for r in deadlines],
        }
    if not out:
        raise ValueError(f"the record of calibration holds {list(kept)}, allowed is one that holds {NETWORKS[0]}")
    return {"networks": no_nan(out)}


def no_nan(value: Any) -> Any:
    """The same with None for what has no number."""
    if isinstance(value, dict):
        return {k: no_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [no_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def at(found: Found, name: str) -> dict[str, dict[str, tuple[float, float, float]]]:
    """What each calibration comes to: each number that is reported, with its interval where it has one."""
    one = found["networks"][name]
    out = {}
    for kind in CALIBRATIONS:
        of = {round(r["target"], 3): r for r in one["effect"] if r["calibration"] == kind}
        row, high = of[TARGET], of[HIGH]
        late = next(r for r in one["deadlines"] if r["calibration"] == kind)
        count = {
            "edge_probability": row["n"],
            "edge_accuracy": row["n"] * row["edge_probability"],
            "accuracy": row["n"],
        }
        shares = {k: share(row[k], n) for k, n in count.items()}
        out[kind] = {k: (s["mean"], s["mean"] - s["half"], s["mean"] + s["half"]) for k, s in shares.items()} | {
            "outage": (row["outage"], row["outage_low"], row["outage_high"]),
            "outage at .9": (high["outage"], high["outage_low"], high["outage_high"]),
            "plateau": (late["plateau"], late["plateau_low"], late["plateau_high"]),
        }
    return out


def moved(raw: tuple[float, float, float], one: tuple[float, float, float], way: int) -> Told:
    """Does a number with its ends move that way, beyond both intervals?"""
    rises, falls = above(one[1] - raw[2], one[2] - raw[1], 0.0), above(raw[1] - one[2], raw[2] - one[1], 0.0)
    return rises if way > 0 else falls


def drops(found: Found, name: str) -> dict[str, list[float | None]]:
    """The deadline of the drop over each link, by calibration."""
    one = found["networks"][name]["deadlines"]
    links = list(dict.fromkeys(r["link"] for r in one))
    return {
        link: [
            next(r["drop_ms"] for r in one if (r["link"], r["calibration"]) == (link, kind)) for kind in CALIBRATIONS
        ]
        for link in links
    }


def page(found: Found) -> Page:
    """The page of the claim."""
    checks = []
    names = list(found["networks"])
    numbers = {name: at(found, name) for name in names}
    for what, way in WAYS.items():
        ends = {n: (numbers[n]["raw"][what], numbers[n]["global"][what]) for n in names}
        said = [f"{raw[0]:.3f} → {one[0]:.3f} ({n})" for n, (raw, one) in ends.items()]
        checks.append(
            Check(
                what=f"one temperature: {what.replace('_', ' ')}",
                wanted="rises" if way > 0 else "falls",
                found="; ".join(said),
                holds=every(moved(raw, one, way) for raw, one in ends.values()),
            )
        )
    later = {n: [row for row in drops(found, n).values() if None not in row] for n in names}
    right = sum(row[1] > row[0] for rows in later.values() for row in rows)  # type: ignore[operator]
    count = sum(map(len, later.values()))
    checks.append(
        Check(
            what="one temperature: the drop of missed deadlines",
            wanted="moves to longer deadlines over every link",
            found=f"{right} of {count} links and networks; without an interval",
            holds=right == count,
        )
    )
    head = "none / one temperature / one for each exit"
    rows = [
        [
            what.replace("_", " "),
            " / ".join(f"{x:.3f}" for x in REPORTED[what]),
            *(" / ".join(f"{numbers[n][k][what][0]:.3f}" for k in CALIBRATIONS) for n in names),
        ]
        for what in WAYS
    ]
    over = [
        [
            f"drop over {link}, ms",
            "–",
            *(" / ".join("–" if x is None else f"{x:.0f}" for x in drops(found, n)[link]) for n in names),
        ]
        for link in drops(found, names[0])
    ]
    beside = [f"{n} with {found['networks'][n]['edge_exits']} exits at the edge" for n in names]
    targets = sorted({r["target"] for r in found["networks"][names[0]]["deadlines"]})
    return Page(
        title="Calibration: what does it do to outage and to missed deadlines?",
        hypothesis="Calibrated exits send more. The edge's answers become right more often, fewer batches of them "
        "fall below the target, missed deadlines begin at longer deadlines, and fewer are missed however long one "
        "waits.",
        source=f"arXiv 2010.16335 (ICC 2021) and its journal paper: {SOURCE}. The numbers of the ICC paper were not "
        "at hand.",
        setting="From the record of [calibration](../../calibration/README.md): exits for undistorted images, on "
        f"such images, {' and '.join(beside)}, target {TARGET:g}, batches of 256. Plateau and drop are at the target "
        f"that half of the uncalibrated batches miss ({', '.join(f'{t:g}' for t in targets)}), since at .8 hardly a "
        "batch falls short here. A number moves where its two intervals lie apart; those of shares are over "
        "images. What a price on a late answer changes, in a world in time, is the matter of "
        "[deadline](../../deadline/README.md).",
        tables={head[0].upper() + head[1:]: grid(["", "reported: MobileNetV2, Caltech-256", *names], [*rows, *over])},
        pictures={"calibration": draw(found)},
        checks=checks,
        why=[
            "Where the intervals can tell, the directions are the papers'; the sizes are not. On CIFAR-10 the exits "
            "are right far more often than the target of .8, so that there is hardly an outage to remove, where on "
            "Caltech-256 a tenth of the batches fails.",
            "One temperature for each exit lies between none and one for all in the papers, whose own is fitted on "
            "whoever exited there; here it is fitted on all images, and moves as far or farther. What moves an "
            "offload is how much less sure the exits become, not how honest they are: the study in time, on another "
            "network whose first exits are not sure enough, finds that honest exits can move the drop to shorter "
            "deadlines.",
            "Under a distortion the plateau of routed experts rises by calibration, since their last exit is right "
            "less often than one at the edge: see the study. The papers measure on undistorted images alone.",
        ],
    )


def draw(found: Found) -> str:
    """Outage and edge share over the target, a column for each network."""
    names = list(found["networks"])
    with plt.rc_context(STYLE | {"svg.hashsalt": "calibration"}):
        figure, axes = plt.subplots(
            2, len(names), figsize=(5.4 * len(names), 6.6), squeeze=False, sharex=True, sharey="row"
        )
        for column, name in zip(axes.T, names, strict=True):
            rows = found["networks"][name]["effect"]
            for kind in CALIBRATIONS:
                label, colour, mark = CALIBRATED[kind]
                own = sorted((r for r in rows if r["calibration"] == kind), key=lambda r: float(r["target"]))
                x = [r["target"] for r in own]
                low = [100.0 * (r["outage"] - r["outage_low"]) for r in own]
                high = [100.0 * (r["outage_high"] - r["outage"]) for r in own]
                column[0].errorbar(
                    x,
                    [100.0 * r["outage"] for r in own],
                    yerr=[low, high],
                    color=colour,
                    marker=mark,
                    ms=4,
                    lw=1,
                    label=label,
                )
                share, n = np.array([r["edge_probability"] for r in own]), np.array([r["n"] for r in own])
                few, many = wilson(np.round(share * n), n)
                column[1].errorbar(
                    x, 100.0 * share, yerr=100.0 * np.array([share - few, many - share]), color=colour, marker=mark,
                    ms=4, lw=1,
                )  # fmt: skip
            column[0].set_title(f"{name}, n = {rows[0]['n']:,} images", fontsize=10)
            column[1].set_xlabel("target p_tar (confidence)")
        axes[0][0].set_ylabel("outage (% of batches)")
        axes[1][0].set_ylabel("answered at the edge (%)")
        axes[0][0].legend(frameon=False)
        figure.suptitle(
            "exits for undistorted images, on such images; 95 % intervals: outage over shuffles into batches, share by "
            "Wilson",
            fontsize=9,
        )
        return svg(figure, "calibration") + "\n"
