"""The study's tables as Markdown, one for each question, written between the markers of its README."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from offramp.experiments.markdown import grid
from offramp.experiments.payload.rules import KINDS, OFFERED, spelled
from offramp.experiments.written import filled_by_cache

Found = Mapping[str, Any]


def points(value: float, digits: int = 1, sign: bool = False) -> str:
    """A share in hundredths; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    rounded = round(100.0 * value, digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "−")


def ms(value: float) -> str:
    """Milliseconds with three digits that matter."""
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.1f}" if value >= 10.0 else f"{value:.2f}"


def size(value: float) -> str:
    """Bytes."""
    return f"{value:,.0f}"


def speed(found: Found, factor: float) -> str:
    """An edge by what it takes for a whole image."""
    return f"{ms(factor * found['edge_ms'][-1])} ms"


def families(found: Found) -> list[str]:
    """Families of conditions in their order, "all" last."""
    return list(dict.fromkeys(r["family"] for r in found["wire"]))


def variants(found: Found) -> list[dict[str, dict[str, Any]]]:
    """Rows of each variant by family."""
    made: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
    for r in found["wire"]:
        made.setdefault((r["split"], r["codec"]), {})[r["family"]] = r
    return list(made.values())


def where_of(row: Mapping[str, Any]) -> str:
    """What is sent, as a row's name."""
    return f"{'image' if row['split'] == 0 else 'map ' + str(row['split'])}, {spelled(row['codec'])}"


def summary(found: Found) -> str:
    """Who holds how much of the diagram."""
    rows = []
    for r in found["shares"]:
        if r["condition"] in [m["condition"] for m in found["maps"]]:
            trip = "–" if r["round_trip_ms"] is None else f"{r['round_trip_ms']:g}"
            rows.append([r["objective"], r["condition"], trip, *(points(r[k], 0) for k in OFFERED)])
    heads = ["objective", "condition", "round trip, ms", *(f"{k}, %" for k in OFFERED)]
    return grid(heads, rows, 2)


def conditions(found: Found) -> str:
    """The same by latency for every condition apart."""
    rows = []
    trips = list(dict.fromkeys(r["round_trip_ms"] for r in found["shares"] if r["round_trip_ms"] is not None))
    own = [r for r in found["shares"] if r["objective"] == "latency"]
    for name in dict.fromkeys(r["condition"] for r in own):
        by_trip = {r["round_trip_ms"]: r for r in own if r["condition"] == name}
        rows.append(
            [
                name,
                points(found["whole"][name]),
                *(" / ".join(points(by_trip[t][k], 0) for k in OFFERED) for t in trips),
            ]
        )
    return grid(
        ["condition", "whole network right, %", *(f"round trip {t:g} ms: {' / '.join(OFFERED)}, %" for t in trips)],
        rows,
    )


def wire(found: Found) -> str:
    """Mean bytes of every variant by family."""
    names = families(found)
    rows = [[where_of(v[names[0]]), *(size(v[f]["bytes"]) for f in names)] for v in variants(found)]
    return grid(["sent", *names], rows)


def answers(found: Found) -> str:
    """What each codec does to the last exit, by family."""
    names = families(found)
    rows, least = [], 0.0005
    for v in variants(found):
        cells = []
        if max(abs(v[f][k]) for f in names for k in ("accuracy_change", "confidence_change")) < least:
            continue
        for f in names:
            a, c = (points(v[f][k], 1, sign=True) for k in ("accuracy_change", "confidence_change"))
            cells.append(f"{a} ±{points(v[f]['accuracy_change_half'], 1)}, {c}")
        rows.append([where_of(v[names[0]]), *cells])
    return grid(["sent", *names], rows) + (
        f"\n\nAll {len(variants(found)) - len(rows)} others change both by less than {points(least, 2)} points in "
        "every family."
    )


def coding(found: Found) -> str:
    """Milliseconds of coding one sample."""
    first = families(found)[0]
    rows = [
        [where_of(v[first]), f"{v[first]['encode_ms']:.3f}", f"{v[first]['decode_ms']:.3f}"] for v in variants(found)
    ]
    return grid(["sent", "encode, ms", "decode, ms"], rows)


def deflated(found: Found) -> str:
    """What zlib buys."""
    names, factors = families(found), found["config"]["online"]["factors"]
    rows = []
    for split in dict.fromkeys(r["split"] for r in found["deflated"]):
        own = {r["family"]: r for r in found["deflated"] if r["split"] == split}
        rates = own["all"]["rates"]
        told = ("always" if x is None or x == "inf" else f"{x:.2g}" for x in rates)
        rows.append([f"map {split}", *(points(own[f]["share"], 0) for f in names), *told])
    heads = [
        "sent",
        *(f"saved, {f}, %" for f in names),
        *(f"pays below, Mbit/s, edge of {speed(found, k)}" for k in factors),
    ]
    return grid(heads, rows)


def along(found: Found) -> str:
    """Some edges from slow to fast links."""
    trip = found["config"]["online"]["round_trip"]
    own = [r for r in found["along"] if r["round_trip_ms"] == trip and "picked" not in r["objective"]]
    rows = []
    for key in dict.fromkeys((r["objective"], r["condition"], r["factor"]) for r in own):
        pieces = [r for r in own if (r["objective"], r["condition"], r["factor"]) == key]
        told = "; ".join(
            f"{r['area']}" + (f" ({r['from']:.2g} to {r['to']:.2g})" if len(pieces) > 1 else "") for r in pieces
        )
        rows.append([key[0], key[1], speed(found, key[2]), told])
    return grid(["objective", "condition", "whole image on the edge", "winners in turn (Mbit/s)"], rows, 4)


def winners(found: Found) -> str:
    """Points of the diagram with numbers."""
    rows = []
    for p in found["points"]:
        best, mine = p["fastest"], p["picked"]
        if p["condition"] not in (found["points"][0]["condition"], found["points"][-1]["condition"]):
            continue
        cells = [ms(p["kinds"][k]["latency_ms"]) if k in p["kinds"] else "–" for k in KINDS]
        rows.append(
            [
                p["condition"],
                speed(found, p["factor"]),
                f"{p['mbit_s']:g}",
                best["rule"],
                f"{ms(best['latency_ms'])} ±{ms(best['latency_half'])}",
                f"{points(best['accuracy'])} ({points(p['whole_accuracy'])})",
                *cells,
                f"{ms(mine['latency_ms'])}, {points(mine['accuracy'])}",
            ]
        )
    heads = ["condition", "edge", "Mbit/s", "fastest rule", "latency, ms", "right, % (whole network)"]
    return grid([*heads, *(f"{k}, ms" for k in KINDS), "picked on validation: ms, % right"], rows, 4)


def slack(found: Found) -> str:
    """How the diagram moves with the accuracy that may be lost."""
    rows = []
    for r in found["slack"]:
        rows.append([r["condition"], points(r["slack"], 0), *(points(r[k], 0) for k in OFFERED)])
    return grid(["condition", "points that may be lost", *(f"{k}, %" for k in OFFERED)], rows)


def honest(found: Found) -> str:
    """How well validation images pick."""
    rows = []
    for r in found["honest"]:
        if r["condition"] in [m["condition"] for m in found["maps"]]:
            cells = [points(r["kept"], 0), points(r["lost_mean"], 2), points(r["lost_most"], 2), f"{r['ratio']:.3f}"]
            asked = "lower 95 % bound" if r["sure"] else "mean"
            rows.append([r["condition"], f"{r['round_trip_ms']:g}", asked, *cells])
    heads = [
        "condition",
        "round trip, ms",
        "asked of validation images",
        "cells that keep the promise on test images, %",
        "points lost, mean",
        "most",
    ]
    return grid([*heads, "latency / best on test images"], rows)


def backed(found: Found) -> str:
    """What an image in place of a map would bring after an exit that was not sure."""
    rows = []
    for r in found["backed"]:
        if r["condition"] in [m["condition"] for m in found["maps"]]:
            there = r["ratio_used"]
            rows.append(
                [
                    r["condition"],
                    f"{r['round_trip_ms']:g}",
                    points(r["used"], 0),
                    "–" if there is None else f"{there:.3f}",
                    f"{r['ratio']:.3f}",
                    f"{r['least']:.3f}",
                ]
            )
    heads = [
        "condition",
        "round trip, ms",
        "cells where it would win, %",
        "latency with / without, there",
        "everywhere",
    ]
    return grid([*heads, "at best"], rows)


def online(found: Found) -> str:
    """The joint policy beside the winner of each point."""
    rows = []
    for r in found["online"]:
        run, late = r["run"], r["second_half"]
        rows.append(
            [
                r["stream"],
                speed(found, r["factor"]),
                f"{r['mbit_s']:g}",
                r["winner"],
                f"{run['reward']['winner']['mean']:.3f}",
                *(gap(x["reward"]["difference"]) for x in (run, late)),
                f"{ms(run['latency_ms']['winner']['mean'])}",
                *(f"{x['latency_ratio']['mean']:.3f} ±{x['latency_ratio']['half']:.3f}" for x in (run, late)),
                gap(run["accuracy"]["difference"], 100.0, 1),
            ]
        )
    heads = ["stream", "edge", "Mbit/s", "winner by reward", "its reward", "joint − winner", "second half"]
    tail = ["winner's latency, ms", "joint / winner", "second half", "right, points"]
    return grid([*heads, *tail], rows, 4)


def gap(found: Mapping[str, float], scale: float = 1.0, digits: int = 4) -> str:
    """A paired difference and its interval."""
    return f"{scale * found['mean']:+.{digits}f} ±{scale * found['half']:.{digits}f}".replace("-", "−")


def verdict(found: Found) -> str:
    """The online part in a sentence."""
    rows = found["online"]
    lost = [r for r in rows if r["run"]["reward"]["difference"]["mean"] + r["run"]["reward"]["difference"]["half"] < 0]
    won = [r for r in rows if r["run"]["reward"]["difference"]["mean"] - r["run"]["reward"]["difference"]["half"] > 0]
    slow = [r for r in rows if r["run"]["latency_ratio"]["mean"] > 1.05]
    worst = min(rows, key=lambda r: float(r["run"]["reward"]["difference"]["mean"]))
    off = max(abs(r["run"]["reward"]["winner"]["mean"] - r["expected"]["reward"]) for r in rows)
    return (
        f"Of {len(rows)} points the joint policy's reward is above the winner's at {len(won)}, below at {len(lost)} "
        f"(95 % intervals, whole run), at worst by {-worst['run']['reward']['difference']['mean']:.4f} (edge of "
        f"{speed(found, worst['factor'])}, {worst['mbit_s']:g} Mbit/s, {worst['stream']}); its latency is more than 5 "
        f"% above at {len(slow)}. The winner's reward as played differs from the diagram's by at most {off:.4f}."
    )


BLOCKS: dict[str, Callable[[Found], str]] = {
    "summary": summary,
    "conditions": conditions,
    "along": along,
    "winners": winners,
    "slack": slack,
    "honest": honest,
    "backed": backed,
    "wire": wire,
    "answers": answers,
    "coding": coding,
    "deflated": deflated,
    "online": online,
    "verdict": verdict,
}


def fill(text: str | None, kept: Mapping[str, Found]) -> str:
    """The README with each block between its markers written anew; without a README, the blocks alone."""
    own = {name: {block: partial(made, found) for block, made in BLOCKS.items()} for name, found in kept.items()}
    return filled_by_cache(text, "Codecs and splits", own)
