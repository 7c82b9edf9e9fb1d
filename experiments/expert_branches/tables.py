"""The study's tables as Markdown, written between the markers of its README."""

from collections.abc import Callable
from functools import partial
from typing import Any

from offramp.experiments.expert_branches.mixed import ANY_EXIT, BY_LABELS, DISTORTED, POLICIES, WHOLE
from offramp.experiments.expert_branches.shapes import matched
from offramp.experiments.expert_branches.systems import (
    EXPERTS,
    EXPERTS_RAW,
    ORACLE,
    PRICES,
    PRISTINE,
    PRISTINE_CALIBRATED,
    SUREST,
    SYSTEMS,
)
from offramp.experiments.markdown import grid
from offramp.experiments.written import filled

Found = dict[str, Any]
Kept = dict[str, Found]
MAIN = "mobilenet_v2_cifar10"
# From the result files beside the authors' code, at target .8: sigma, the condition here beside it, and overall
# accuracy % / edge share % / edge accuracy % of the pristine model and of the expert.
PAPER: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "blur": (
        ("1", "blur 0.5", "69.1 / 48.9 / 76.6", "74.1 / 48.7 / 85.8"),
        ("2", "blur 0.8", "38.2 / 31.4 / 53.6", "68.8 / 41.6 / 86.4"),
        ("3", "blur 1.0", "17.0 / 21.4 / 31.6", "58.6 / 30.4 / 87.2"),
        ("4", "blur 1.5", "9.8 / 19.7 / 22.1", "46.3 / 20.9 / 88.4"),
        ("5", "blur 2.0", "6.8 / 18.0 / 19.8", "37.0 / 14.0 / 85.0"),
    ),
    "noise": (
        ("5", "noise 5", "52.3 / 34.9 / 73.4", "71.4 / 33.6 / 90.3"),
        ("10", "noise 10", "30.4 / 24.6 / 51.9", "65.4 / 28.7 / 88.4"),
        ("20", "noise 20", "8.5 / 15.2 / 18.3", "53.9 / 18.1 / 90.3"),
        ("30", "noise 25.5", "2.2 / 16.6 / 3.6", "41.1 / 8.8 / 91.9"),
        ("40", "noise 40", "0.9 / 26.8 / 0.6", "25.1 / 2.0 / 90.2"),
    ),
}
PAPER_PRISTINE = {"pristine": "81.5 / 54.1 / 91.0", "blur": "76.8 / 48.3 / 90.9", "noise": "76.3 / 37.5 / 91.7"}


def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    """A number as text; a dash for none."""
    return "–" if value is None else f"{scale * value:.{digits}f}"


def with_interval(value: dict[str, float], digits: int = 1, scale: float = 1.0) -> str:
    """Mean and half-width as text."""
    return f"{number(value['mean'], digits, scale)} ±{number(value['half'], digits, scale)}"


def triple(row: Found) -> str:
    """Overall accuracy / edge share / edge accuracy."""
    return " / ".join(number(row[f], 1, 100.0) for f in ("accuracy", "edge_share", "edge_accuracy"))


def main_of(kept: Kept) -> tuple[str, Found]:
    """The cache that the long tables are about."""
    name = MAIN if MAIN in kept else next(iter(kept))
    return name, kept[name]


def scores(kept: Kept) -> str:
    """One line for each cache."""
    return "\n".join(
        f"- `{name}`: **{f['score']['points']:.1f} points** ({f['score']['policy']} at cost {f['score']['cost']:.3f}, "
        f"against {f['score']['against']})"
        for name, f in kept.items()
    )


def gains(kept: Kept) -> str:
    """Gains at equal cost."""
    heads = ["cache", "prices", "policy", "costs compared", "whole, raw", "whole, calibrated"]
    heads += ["distorted, raw", "distorted, calibrated", "predicted − oracle"]
    rows = []
    for name, found in kept.items():
        policies = (*POLICIES, ANY_EXIT, BY_LABELS) if name == main_of(kept)[0] else POLICIES
        for prices in PRICES:
            for policy in policies:
                at = {
                    (g["against"], g["part"]): g
                    for g in found["gains"]
                    if (g["prices"], g["policy"], g["system"]) == (prices, policy, EXPERTS)
                }
                whole = at[PRISTINE, WHOLE]
                cells = [
                    f"{with_interval(at[other, part]['least'])} ({number(at[other, part]['mean']['mean'])})"
                    for part in (WHOLE, DISTORTED)
                    for other in (PRISTINE, PRISTINE_CALIBRATED)
                ]
                oracle = with_interval(at[ORACLE, WHOLE]["least"], 2) if (ORACLE, WHOLE) in at else ""
                costs = "–".join(f"{c:.3f}" for c in whole["costs"])
                rows.append([name, prices, policy, costs, *cells, oracle])
    return grid(heads, rows, 4)


def at_one(kept: Kept) -> str:
    """Accuracy, cost and offloads at mu = 1 in paper units."""
    rows = []
    for system in SYSTEMS:
        cells = []
        for policy in POLICIES:
            row = next(
                r
                for r in main_of(kept)[1]["at_mu_1"]
                if (r["prices"], r["system"], r["policy"]) == ("paper", system, policy)
            )
            cost, sent = number(row["cost"]["mean"], 3), number(row["offloads"]["mean"], 0, 100.0)
            cells.append(f"{with_interval(row['accuracy'], 1, 100.0)} / {cost} / {sent}")
        rows.append([system, *cells])
    best = "; ".join(
        f"{r['system']} {r['best']} ({with_interval(r['accuracy'], 1, 100.0)} at {number(r['cost']['mean'], 3)})"
        for r in main_of(kept)[1]["adaee_exits"]
        if r["prices"] == "paper"
    )
    note = f"The exit at which AdaEE earns most, its accuracy % and cost:\n{best}."
    return f"{grid(['system', *POLICIES], rows)}\n\n{note}"


def calibration_and_fallback(kept: Kept) -> str:
    """What calibration and what the fallback add to the experts on the stream, at equal cost, paper units."""
    rows = []
    for name, found in kept.items():
        for what, system, other in (("calibration", EXPERTS, EXPERTS_RAW), ("fallback", SUREST, EXPERTS)):
            at = {
                g["policy"]: g
                for g in found["gains"]
                if (g["prices"], g["system"], g["against"], g["part"]) == ("paper", system, other, WHOLE)
            }
            cells = [f"{with_interval(at[p]['least'])} ({number(at[p]['mean']['mean'])})" for p in POLICIES]
            rows.append([name, what, *cells])
    return grid(["cache", "what is added", *POLICIES], rows, 2)


def levels(kept: Kept) -> str:
    """The cascade at one target under every condition."""
    found = main_of(kept)[1]
    at = {(r["condition"], r["system"]): r for r in found["levels"] if r["target"] == found["target"]}
    change = {(r["condition"], r["system"]): r for r in found["fallback"]}
    rows = []
    for place in found["routing"]:
        condition = place["condition"]
        mine = at[condition, EXPERTS]
        interval = f"{number(mine['low'], 1, 100.0)}–{number(mine['high'], 1, 100.0)}"
        over = number(100.0 * (mine["edge_confidence"] - mine["edge_accuracy"])) if mine["edge_accuracy"] else "–"
        cells = [triple(at[condition, system]) for system in (PRISTINE, PRISTINE_CALIBRATED, EXPERTS)]
        effects = [with_interval(change[condition, s]) for s in (PRISTINE_CALIBRATED, EXPERTS)]
        rows.append([condition, *cells, interval, over, *effects])
    heads = ["condition", PRISTINE, PRISTINE_CALIBRATED, EXPERTS, "95 % of edge accuracy", "overclaim"]
    return grid([*heads, "fallback, pristine", "fallback, experts"], rows)


def worst(kept: Kept) -> str:
    """The lowest edge accuracy over the conditions at each target."""
    rows, targets = [], main_of(kept)[1]["config"]["targets"]
    for name, found in kept.items():
        without = [r["condition"] for r in found["routing"] if not r["has_expert"]]
        alone = [r for r in found["levels"] if r["system"] == EXPERTS and r["condition"] in without]
        named = {s: matched(found, s) for s in (PRISTINE, PRISTINE_CALIBRATED, EXPERTS)}
        if alone:
            named["experts where no family fits"] = alone
        for system, all_rows in named.items():
            cells = []
            for target in targets:
                low = min((r for r in all_rows if r["target"] == target), key=lambda r: r["edge_accuracy"])
                cells.append(f"{number(low['edge_accuracy'], 1, 100.0)} ({low['condition']})")
            rows.append([name, system, *cells])
    return grid(["cache", "system", *(f"target {t:g}" for t in targets)], rows, 2)


def paper(kept: Kept) -> str:
    """The paper's levels beside those measured here, weakest to strongest."""
    found = main_of(kept)[1]
    at = {(r["condition"], r["system"]): r for r in found["levels"] if r["target"] == found["target"]}
    clean = {r["expert"]: triple(r) for r in found["on_pristine"]}
    rows = [
        ["none", "–", PAPER_PRISTINE["pristine"], PAPER_PRISTINE[f], f"{f} expert", clean["pristine"], clean[f]]
        for f in PAPER
        if f in clean
    ]
    for family, published in PAPER.items():
        for sigma, condition, pristine, expert in published:
            if (condition, EXPERTS) in at:
                cells = [triple(at[condition, s]) for s in (PRISTINE_CALIBRATED, EXPERTS)]
                rows.append([family, f"sigma {sigma}", pristine, expert, condition, *cells])
    heads = ["distortion", "paper: level", "paper: pristine model", "paper: expert", "here: level"]
    return grid([*heads, "here: pristine, calibrated", "here: experts"], rows, 2)


def places(kept: Kept) -> str:
    """Router, misrouting and the best exit under every condition."""
    found = main_of(kept)[1]
    best = {(r["condition"], r["system"]): r for r in found["exits"]}
    rows = []
    for r in found["routing"]:
        cells = []
        for system in (PRISTINE, EXPERTS):
            e = best[r["condition"], system]
            top, final = (number(e["accuracy"][i], 1, 100.0) for i in (e["best"] - 1, -1))
            cells += [str(e["best"]), f"{top} / {final}"]
        right = number(r["right"], 1, 100.0) + ("" if r["has_expert"] else " *")
        rows.append([r["condition"], right, with_interval(r["cascade"], 2), with_interval(r["final"], 2), *cells])
    heads = ["condition", "routed right %", "misrouting, cascade", "misrouting, final exit"]
    return grid([*heads, "best exit, pristine", "it / final %", "best exit, experts", "it / final %"], rows)


def shapes(kept: Kept) -> str:
    """What was to be shown, a row for each claim, a column for each cache."""
    said = {True: "", False: "**misses:** ", None: "not judged: "}
    claims = {(row["what"], row["wanted"]): "" for found in kept.values() for row in found["shapes"]}
    rows = []
    for what, wanted in claims:
        cells = []
        for found in kept.values():
            row = next((r for r in found["shapes"] if (r["what"], r["wanted"]) == (what, wanted)), None)
            cells.append("–" if row is None else said[row["holds"]] + row["found"])
        rows.append([what, wanted, *cells])
    return grid(["what", "wanted", *kept], rows, 2 + len(kept))


SECTIONS: dict[str, Callable[[Kept], str]] = {
    "scores": scores,
    "gains": gains,
    "at mu 1": at_one,
    "additions": calibration_and_fallback,
    "levels": levels,
    "worst": worst,
    "paper": paper,
    "places": places,
    "shapes": shapes,
}


def fill(text: str | None, kept: Kept) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    return filled(text, {name: partial(made, kept) for name, made in SECTIONS.items()})
