"""The study's tables as Markdown, written between the markers of its README, and what was to be shown."""

from collections.abc import Callable
from typing import Any

import numpy as np

from offramp.experiments.joint_policy.statistics import paired
from offramp.experiments.joint_policy.sums import AT_THE_CUT, JOINT
from offramp.experiments.joint_policy.tables import number
from offramp.experiments.link_change.sums import (
    MOST,
    POINT,
    best_earning,
    counted,
    differences,
    judged,
    mean,
    over_links,
    quicker,
)
from offramp.experiments.markdown import grid
from offramp.experiments.results import interval
from offramp.experiments.written import filled_by_cache

Found = dict[str, Any]
Kept = dict[str, Found]
BEST = "best fixed choice of each link"
COLUMNS = (
    ("latency_ms", "latency ms", 1.0, 0),
    ("latency_p95_ms", "p95 ms", 1.0, 0),
    ("missed", "missed %", 100.0, 1),
    ("energy_mj", "energy mJ", 1.0, 0),
    ("accuracy", "accuracy %", 100.0, 1),
    ("agreement", "as final exit %", 100.0, 1),
    ("offloaded", "offloaded %", 100.0, 0),
    ("reward", "reward", 1.0, 3),
)


def played(found: Found) -> dict[str, Found]:
    """The cases that were played."""
    return {name: case for name, case in found["cases"].items() if case}


def signed(values: dict[str, float], digits: int, scale: float = 1.0) -> str:
    """A difference with the half-width of its interval."""
    half = "" if np.isnan(values["half"]) else f" ±{scale * values['half']:,.{digits}f}"
    return f"{scale * values['mean']:+,.{digits}f}{half}"


def fraction(values: dict[str, float] | None) -> str:
    """A ratio with the half-width of its interval, marked where it is above what was wanted."""
    if values is None:
        return "none as accurate"
    half = "" if np.isnan(values["half"]) else f" ±{values['half']:.3f}"
    text = f"{values['mean']:.3f}{half}"
    return f"**{text}**" if values["mean"] > MOST else text


def title(arm: Found | None) -> str:
    """A fixed choice in words."""
    if arm is None:
        return "none"
    if arm["cut"] == 0:
        return "send the input"
    if arm["threshold"] == "always":
        return f"exit {arm['cut']} answers"
    bar = "never answers" if arm["threshold"] == "never" else f"from {arm['threshold']:g}"
    return f"exit {arm['cut']} {bar}"


def claim(case: Found, key: str = JOINT) -> Found:
    """The claim in one case: mean latency at most 1.05 of the best fixed choice, within a point and as accurate."""
    row: Found = {}
    for less, rule in ((POINT, "point"), (0.0, "equal")):
        holds, of = counted(case, key, less)
        all_ = [judged(here, key, less) for here in case.values()]
        ratios = [j["ratio"]["mean"] for j in all_ if j["ratio"] is not None]
        row[rule] = {
            "holds": holds,
            "of": of,
            "median": float(np.median(ratios)) if ratios else float("nan"),
            "worst": max(ratios, default=float("nan")),
            "later": float(np.median([j["later"] for j in all_ if j["later"] is not None] or [np.nan])),
        }
    return row


def claims(found: Found) -> list[Found]:
    """The claim for the joint policy in every case."""
    return [{"case": name, **claim(case)} for name, case in played(found).items() if JOINT in found["policies"]]


def cells(row: Found) -> list[str]:
    """A claim in numbers."""
    made = []
    for rule in ("point", "equal"):
        one = row[rule]
        mark = "" if one["holds"] == one["of"] else "**"
        made += [f"{mark}{one['holds']} of {one['of']}{mark}", f"{one['median']:.3f}", f"{one['worst']:.3f}"]
        made += ["–" if np.isnan(one["later"]) else f"{one['later']:.3f}"] if rule == "point" else []
    return made


HEADS = (
    "within a point: holds on so many links", "median ratio", "largest ratio", "median ratio without the first sixth",
    "as accurate: holds on so many links", "median ratio", "largest ratio",
)  # fmt: skip


def shown(found: Found) -> str:
    """On how many links the claim holds, case by case; also without answers on the way."""
    rows = [
        [name, found["policies"][key]["title"], *cells(claim(case, key))]
        for key in (JOINT, AT_THE_CUT)
        for name, case in played(found).items()
        if key in found["policies"]
    ]
    return grid(["case", "policy", *HEADS], rows, 2)


def variants(found: Found) -> str:
    """The claim where one thing is otherwise."""
    rows = [
        [
            variant,
            name,
            number(100.0 * float(np.mean(over_links(case, JOINT, "accuracy"))), 1),
            number(100.0 * float(np.mean(over_links(case, JOINT, "offloaded")))),
            *cells(claim(case)),
        ]
        for variant, cases in found.get("variants", {}).items()
        for name, case in cases.items()
        if case and JOINT in found["policies"]
    ]
    return grid(["variant", "case", "accuracy %", "offloaded %", *HEADS], rows, 2)


def links(case: Found) -> str:
    """Every link of a case: the joint policy against the best fixed choice, by both rules and by reward."""
    rows = []
    for trace, here in case.items():
        ours = here["played"][JOINT]
        near, equal = judged(here), judged(here, less=0.0)
        earned = best_earning(here)
        rows.append(
            [
                trace,
                f"{here['mbit_s']:.2f}",
                number(mean(ours, "latency_ms")),
                number(100.0 * mean(ours, "accuracy"), 1),
                title(near["arm"]),
                "–" if near["arm"] is None else number(mean(near["arm"], "latency_ms")),
                "–" if near["arm"] is None else number(100.0 * mean(near["arm"], "accuracy"), 1),
                fraction(near["ratio"]),
                "–" if near["later"] is None else f"{near['later']:.3f}",
                fraction(equal["ratio"]),
                signed(paired(ours["reward"], earned["reward"]), 3),
            ]
        )
    heads = ["link", "Mbit/s", "joint: ms", "accuracy %", "best fixed within a point", "ms", "accuracy %"]
    return grid(
        [*heads, "ratio", "without the first sixth", "ratio, as accurate", "reward minus the best fixed one's"], rows
    )


def policies(found: Found, case: Found) -> str:
    """Every policy, as means over the links of a case, with differences to the joint policy paired by link."""
    rows = []
    for key in sorted(
        [*found["policies"], "best"],
        key=lambda k: -np.nan_to_num(np.nanmean(over_links(case, k, "reward")), nan=-np.inf),
    ):
        row = [BEST, "oracle"] if key == "best" else [found["policies"][key][k] for k in ("title", "group")]
        for metric, _, scale, digits in COLUMNS:
            row.append(number(scale * float(np.nanmean(over_links(case, key, metric))), digits))
        for metric, scale, digits in (("latency_ms", 1.0, 0), ("accuracy", 100.0, 1), ("reward", 1.0, 3)):
            row.append("" if key == JOINT else signed(differences(case, key, metric), digits, scale))
        rows.append(row)
    heads = ["policy", "group", *(head for _, head, _, _ in COLUMNS), "ms", "accuracy", "reward"]
    return grid([*heads[:-3], *(f"{head} minus joint" for head in heads[-3:])], rows, 2)


def better(found: Found) -> str:
    """Where another policy is at once quicker and more accurate than the joint one."""
    rows = []
    for name, case in played(found).items():
        at: dict[str, list[str]] = {}
        for trace, key in quicker(case, list(found["policies"])):
            at.setdefault(key, []).append(trace)
        rows += [[name, found["policies"][key]["title"], f"{len(on)} of {len(case)}"] for key, on in at.items()]
        if not at:
            rows.append([name, "nobody", ""])
    return grid(["case", "at once quicker and more accurate than the joint policy", "on so many links"], rows, 2)


def changes(found: Found) -> str:
    """What distortion changes: the joint policy and the best fixed choice, with and without."""
    cases = played(found)
    rows = []
    for name, case in cases.items():
        for key, text in ((JOINT, "joint policy"), ("best", BEST)):
            row = [name, text]
            for metric, scale, digits in (("latency_ms", 1.0, 0), ("accuracy", 100.0, 1), ("offloaded", 100.0, 0)):
                values = interval([scale * v for v in over_links(case, key, metric) if not np.isnan(v)])
                row.append(f"{number(values['mean'], digits)} ±{values['half']:,.{digits}f}")
            rows.append(row)
    return grid(["case", "who", "latency ms", "accuracy %", "offloaded %"], rows, 2)


def sections(found: Found) -> dict[str, Callable[[], str]]:
    """What stands between markers: name -> text."""
    made: dict[str, Callable[[], str]] = {
        "shown": lambda: shown(found),
        "better": lambda: better(found),
        "changes": lambda: changes(found),
        "variants": lambda: variants(found),
    }
    for name, case in played(found).items():
        made[f"links {name}"] = lambda case=case: links(case)  # type: ignore[misc]
        made[f"policies {name}"] = lambda case=case: policies(found, case)  # type: ignore[misc]
    return made


def fill(text: str | None, kept: Kept) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    return filled_by_cache(text, "Links that change", {name: sections(found) for name, found in kept.items()})
