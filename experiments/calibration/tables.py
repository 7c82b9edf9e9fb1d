"""The study's tables as Markdown, one for each question, written between the markers of its README."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from offramp.experiments.calibration import papers
from offramp.experiments.calibration.honesty import largest
from offramp.experiments.calibration.record import unpacked
from offramp.experiments.calibration.samples import PRISTINE
from offramp.experiments.markdown import grid
from offramp.experiments.written import filled_by_cache

Rows = list[dict[str, Any]]
PARTS = (slice(0, 3), slice(3, None))
LIMIT = 0.03  # calibration error that is allowed on matched conditions


def number(value: float, digits: int = 3) -> str:
    """A number without the zero before its point, as the papers write shares; a dash for nan."""
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "−")


def spread(found: Mapping[str, float], digits: int = 3) -> str:
    """Mean ± half-width."""
    return f"{number(found['mean'], digits)} ±{number(found['half'], digits)}"


def several(rows: Rows, column: str, digits: int = 3) -> str:
    """One value of each row, in order."""
    return " / ".join(number(r[column], digits) for r in rows)


def groups(rows: Rows, *keys: str) -> dict[tuple[Any, ...], Rows]:
    """Rows by the values of some columns, in the order of their first appearance."""
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return found


def summary(found: Mapping[str, Any]) -> str:
    """The answer in a few lines."""
    matched, others = found["matched"], found["assignments"]
    kinds = list(groups(matched, "calibration"))
    rows = []
    for (name,) in kinds:
        at = largest(matched, name)
        over = sum(r["ece"] > LIMIT for r in matched if r["calibration"] == name)
        total = sum(r["calibration"] == name for r in matched)
        mean = sum(r["ece"] for r in matched if r["calibration"] == name) / total
        error, where = f"{number(at['ece'], 4)} ±{number(at['half'], 4)}", f"{at['expert']}, exit {at['exit']}"
        rows.append([name, error, where, number(mean, 4), f"{over} of {total}"])
    head = ["calibration", "largest ECE", "of", "mean ECE", f"exits above {number(LIMIT, 2)}"]
    n = matched[0]["n"]
    tail = (
        f"n = {n:,} test images, each at every level; ± from {found['draws']} bootstrap draws of images. With each "
        f"image under one condition alone, {n // 2:,} of them pristine, the largest ECE under expert_exit is "
        f"{number(found['in_turn'], 4)} with levels in turn, and {number(min(others), 4)} to {number(max(others), 4)} "
        f"over {len(others)} random assignments, {sum(x > LIMIT for x in others)} of them above {number(LIMIT, 2)}."
    )
    signs = "; ".join(f"{r['condition']} {number(r['gap'])}" for r in found["signs"])
    at = largest(matched, kinds[-2][0])
    why = f"Confidence less accuracy of that exit ({at['expert']} expert, exit {at['exit']}), by condition: {signs}."
    return grid(head, rows) + f"\n\n{tail}\n\n{why}"


def matched(found: Mapping[str, Any]) -> str:
    """Every expert's exits on what they are for."""
    logits = {(r["expert"], r["exit"], r["method"]): r["nll"] for r in found["methods"]}
    rows = []
    for (expert, exit_at), own in groups(found["matched"], "expert", "exit").items():
        raw, last = own[0], own[-2]
        nll = [number(logits[expert, exit_at, m], 3) for m in ("none", "T per exit, all")]
        rows.append(
            [
                f"{expert}, {exit_at}",
                number(raw["accuracy"]),
                f"{number(raw['confidence'])} → {number(last['confidence'])}",
            ]
            + [number(r["ece"]) for r in own]
            + [f"±{number(last['half'])}", number(last["floor"]), " → ".join(nll)]
            + [f"{number(raw['auroc'])} → {number(last['auroc'])}"]
        )
    names = [r["calibration"] for r in own]
    heads = ["expert, exit", "accuracy", "confidence", *(f"ECE {n}" for n in names), "95 %", "floor", "NLL", "AUROC"]
    return grid(heads, rows)


def levels(found: Mapping[str, Any]) -> str:
    """Largest error over exits, condition by condition."""
    rows = []
    for (condition,), own in groups(found["levels"], "condition").items():
        parts = groups(own, "system", "calibration").values()
        rows.append([condition, *(number(max(r["ece"] for r in p)) for p in parts)])
        rows[-1] += [number(p[-1]["gap"]) for p in parts]
    heads = [f"{s}, {c}" for s, c in groups(found["levels"], "system", "calibration")]
    text = grid(["condition", *heads, *(f"last exit: {h}" for h in heads)], rows)
    lost = found["misrouted"]
    if lost:
        text += (
            f"\n\nMisrouted images ({number(100 * lost[0]['share'], 1)} % of all under conditions of a known family, "
            f"n = {lost[0]['n']:,}), ECE by exit after calibration: {several(lost, 'ece')}."
        )
    return text


def methods(found: Mapping[str, Any]) -> str:
    """What to fit, over experts and exits."""
    rows = []
    for (method,), own in groups(found["methods"], "method").items():
        mean = {k: _mean(r[k] for r in own) for k in ("ece", "ece_reaching", "nll", "nll_fitting", "auroc")}
        change = 100 * _mean(r["accuracy_change"] for r in own)
        worst, shown = max(r["ece"] for r in own), ("ece_reaching", "nll_fitting", "nll", "auroc")
        rows.append([method, number(mean["ece"]), number(worst), *(number(mean[k]) for k in shown), number(change, 2)])
    heads = ["fitted", "mean ECE", "largest", "mean ECE of who reaches", "NLL, fitted on", "NLL, test", "AUROC"]
    return grid([*heads, "accuracy, points"], rows) + f"\n\n{_answers(found['methods'])}"


def _answers(rows: Rows) -> str:
    counts = sorted({r["n"] for r in rows})
    return f"n = {' or '.join(f'{n:,}' for n in counts)} test answers an expert, who has levels of its own or none."


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def beside_the_papers(found: Mapping[str, Any]) -> str:
    """Calibration errors in percent: none, one temperature of what fired, one per exit of what exited."""
    shown = [
        [n, *("–" if t is None else " / ".join(f"{x:.2f}" for x in t) for t in ts)] for n, ts in papers.ECE.items()
    ]
    ours = groups(found["as_in_the_papers"], "exit")
    first, more = ([" / ".join(f"{100 * r['ece']:.2f}" for r in own[part]) for own in ours.values()] for part in PARTS)
    text = grid(["reported", *(f"branch {k}" for k in range(2, 6))], shown)
    here = [["none / fired / exiting", *first], ["reaching / all", *more]]
    measured = grid(["measured", *(f"exit {k + 1}" for k in range(len(first)))], here)
    n = found["as_in_the_papers"][0]["n"]
    return f"{text}\n\n{measured}\n\nn = {n:,} pristine test images, p_tar .8; reported: {papers.SOURCE}."


def fitting_sets(found: Mapping[str, Any]) -> str:
    """Worst rise of the error over all samples at any early exit: who exits, who reaches."""
    rows = []
    for (target,), own in groups(found["fitting_sets"], "target").items():
        cells = [f"{number(100 * r['exiting'], 1)} / {number(100 * r['reaching'], 1)}" for r in own]
        rows.append([f"{target:g}", *cells])
    return grid(["p_tar", *(e for (e,) in groups(found["fitting_sets"], "expert"))], rows)


def effect(found: Mapping[str, Any]) -> str:
    """The cascade at one target, by system and condition."""
    chosen = [r for r in found["effect"] if math.isclose(r["target"], found["target"])]
    rows = []
    for (system, condition), own in groups(chosen, "system", "condition").items():
        cells = [several(own, k) for k in ("edge_probability", "edge_accuracy", "outage", "accuracy")]
        rows.append([f"{system}, {condition}", *cells, several(own, "accuracy_most_confident")])
    heads = ["edge share", "edge accuracy", "outage", "accuracy", "accuracy, most confident answers"]
    names = " / ".join(c for (c,) in groups(chosen, "calibration"))
    return grid([f"p_tar {found['target']:g}; {names}", *heads], rows)


def deadlines(found: Mapping[str, Any]) -> str:
    """Where the drop of missed deadlines lies, and what stays missed."""
    rows = []
    for (system, condition), own in groups(found["deadlines"], "system", "condition").items():
        by_link = groups(own, "link")
        drops = [several(r, "drop_ms", 0) for r in by_link.values()]
        one = next(iter(by_link.values()))
        plateaus = [several(one, k, 2) for k in ("plateau", "plateau_most_confident")]
        best = f"{number(one[0]['edge_best'])}, {number(one[0]['cloud'])}"
        rows.append([f"{system}, {condition}", f"{one[0]['target']:g}", *drops, *plateaus, best])
    links = [f"drop over {link}, ms" for (link,) in groups(found["deadlines"], "link")]
    heads = [
        "system, condition",
        "p_tar",
        *links,
        "plateau",
        "plateau, most confident",
        "accuracy: best edge exit, cloud",
    ]
    return grid(heads, rows)


def reported_effect(found: Mapping[str, Any]) -> str:
    """The papers' five numbers beside those measured on pristine images."""
    where = (PRISTINE, "pristine")
    own = [r for r in found["effect"] if (r["system"], r["condition"]) == where and math.isclose(r["target"], 0.8)]
    late = [r for r in found["deadlines"] if (r["system"], r["condition"]) == where]
    late = late[:: len(groups(late, "link"))]
    rows = []
    for name, triple in papers.EFFECT.items():
        measured = several((late if name == "plateau" else own)[:3], name)
        rows.append([name.replace("_", " "), " / ".join(number(x) for x in triple), measured])
    return grid(["none / one temperature / per exit", "reported", "measured"], rows)


def risk(found: Mapping[str, Any]) -> str:
    """Guarantees: chosen and judged in the same place, and chosen for all but judged group by group."""
    rows = []
    for (loss, method), own in groups(found["risk"], "loss", "method").items():
        everyone = next(r for r in own if r["chosen_on"] == r["judged_in"] == "all")
        inside = max(
            (r for r in own if r["chosen_on"] == "all" != r["judged_in"]), key=lambda r: float(r["risk"]), default=None
        )
        apart = [r for r in own if r["chosen_on"] == r["judged_in"] != "all"]
        cells = [f"{number(everyone['risk'])} ±{number(everyone['risk_half'])}", number(everyone["above"], 2)]
        cells += (
            ["–", "–"]
            if inside is None
            else [f"{number(inside['risk'])} ({inside['judged_in']})", number(inside["above"], 2)]
        )
        cells += [number(max((r[k] for r in apart), default=math.nan), d) for k, d in (("risk", 3), ("above", 2))]
        early = _mean(r["early"] for r in apart)
        rows.append(
            [f"{loss.replace('_', ' ')}, {method}", *cells, f"{number(everyone['early'], 2)}, {number(early, 2)}"]
        )
    one = found["risk"][0]
    heads = ["one threshold: risk", "splits above", "in the worst group", "splits above", "own threshold: worst risk"]
    names = ", ".join(g for (g,) in groups(found["risk"], "judged_in") if g != "all")
    text = grid(["loss, method", *heads, "worst splits above", "answered early: one, own"], rows)
    return text + (
        f"\n\n{one['splits']} random splits, {one['n']:,} calibration images for each threshold, eps {one['eps']:g}, "
        f"delta {one['delta']:g}; groups, by the router's word: {names}."
    )


def drift(found: Mapping[str, Any]) -> str:
    """Mean error over windows."""
    rows = []
    for s in found["drift"]:
        errors = [number(s[k]) for k in ("mean_ece_cloud", "mean_ece_label")]
        rows.append([f"{s['system']}, {s['calibration']}", "yes" if s["streaming"] else "no", *errors])
    return grid(["system, calibration", "streaming", "ECE against agreement", "ECE against the label"], rows)


def policies(found: Mapping[str, Any]) -> str:
    """What learners make of it."""
    rows = []
    for r in sorted(found["policies"], key=lambda r: (r["policy"], r["system"] == PRISTINE)):
        cells = [spread(r[k]) for k in ("accuracy", "cost", "offload_share", "overstated", "net")]
        changed = "" if r["calibration"] == "raw" else spread(r["net_change"])
        rows.append([f"{r['policy']}, {r['system']}, {r['calibration']}", *cells, changed])
    heads = ["accuracy", "cost", "offloaded", "confidence − accuracy", "accuracy − mu cost", "change, paired"]
    return grid(["policy, system, calibration", *heads], rows)


BLOCKS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "summary": summary,
    "matched": matched,
    "levels": levels,
    "methods": methods,
    "papers": beside_the_papers,
    "fitting_sets": fitting_sets,
    "effect": effect,
    "deadlines": deadlines,
    "reported_effect": reported_effect,
    "risk": risk,
    "drift": drift,
    "policies": policies,
}


def page(name: str, found: Mapping[str, Any]) -> str:
    """All tables of one cache, made of what result.json keeps: the two never differ in a digit."""
    rows = unpacked(found)
    text = "\n\n".join(f"## {block}\n\n{make(rows)}" for block, make in BLOCKS.items())
    return f"# Tables of the study on {name}\n\nWritten by `offramp calibration`.\n\n{text}\n"


def fill(text: str | None, kept: Mapping[str, Any]) -> str:
    """The README with each block between its markers written anew; without a README, the blocks alone."""
    rows = {name: unpacked(found) for name, found in kept["caches"].items()}
    own = {name: {block: partial(made, rows[name]) for block, made in BLOCKS.items()} for name in rows}
    return filled_by_cache(text, "Calibration", own)
