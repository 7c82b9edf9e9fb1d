"""The study's tables as Markdown, written between the markers of its README, and what was to be shown."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from offramp.experiments.joint_policy.statistics import holm, paired
from offramp.experiments.joint_policy.sums import (
    AT_THE_CUT,
    JOINT,
    best_of,
    dominated,
    learners,
    reference,
    totals,
    worlds_of,
)
from offramp.experiments.markdown import grid
from offramp.experiments.results import interval
from offramp.experiments.written import filled_by_cache

Found = dict[str, Any]
Kept = dict[str, Found]
TRIVIAL = ("send_input", "offload_first")


def spread(values: list[float], digits: int = 0, scale: float = 1.0) -> str:
    """Mean and half-width of the 95 % interval over seeds."""
    found = interval([scale * v for v in values])
    return f"{number(found['mean'], digits)} ±{found['half']:,.{digits}f}"


def number(value: float, digits: int = 0) -> str:
    """A number as text, without a minus before nothing."""
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def summed(name: str, found: Found) -> str:
    """Regret summed over the suite, best first, with paired differences to the joint policy and Holm's correction."""
    sums, ours = totals(found), reference(found)
    if ours is None:
        return "no policy was played in every world"
    against = {k: paired(v["regret"], sums[ours]["regret"]) for k, v in sums.items() if k != ours}
    p = holm({k: v["p"] for k, v in against.items() if k != "static"})  # an oracle is no baseline
    rows = []
    for key in sorted(sums, key=lambda k: float(np.mean(sums[k]["regret"]))):
        mine = sums[key]
        versus = against.get(key)
        ratio = float(np.mean(mine["regret"])) / max(float(np.mean(sums["static"]["regret"])), 1e-9)
        rows.append(
            [
                found["policies"][key]["title"] if key in found["policies"] else "best static arm in hindsight",
                found["policies"][key]["group"] if key in found["policies"] else "oracle",
                spread(mine["regret"]),
                "" if versus is None else f"{versus['mean']:+,.0f} ±{versus['half']:,.0f}",
                small(p[key]) if key in p else "",
                f"{ratio:.2f}",
                spread(mine["cost"], 4) if "cost" in mine else "",
                spread(mine["accuracy"], 2, 100.0) if "accuracy" in mine else "",
            ]
        )
    heads = ["policy", "group", "regret", f"minus {found['policies'][ours]['title']}", "p (Holm)"]
    return grid([*heads, "of static", "cost", "accuracy %"], rows, 2)


def small(p: float) -> str:
    """A probability as text."""
    return "–" if np.isnan(p) else "< 1e-6" if p < 1e-6 else f"{p:.2g}"


def by_world(name: str, found: Found) -> str:
    """Every world: the joint policy, the best of each group there, the static oracle, and where it loses."""
    rows = []
    for world, here in worlds_of(found).items():
        played = here["played"]
        ours = reference(found)
        mean = {k: float(np.mean(v["regret"])) for k, v in played.items()}
        cells = [world]
        cells.append(spread(played[ours]["regret"]) if ours in played else "–")
        for group in ("published", "aware", "unaware"):
            key = best_of(found, played, (group,))
            cells.append("–" if key is None else f"{mean[key]:,.0f} ({found['policies'][key]['title']})")
        cells.append(spread(here["oracles"]["static"]))
        cells.append(spread(here["oracles"]["bin_rule"]))
        other = best_of(found, played, ("published", "aware", "unaware"), without=ours)
        if ours not in played or other is None:
            cells.append("–")
        else:
            versus = paired(played[ours]["regret"], played[other]["regret"])
            sure = versus["mean"] - versus["half"] > 0.0
            cells.append(
                f"loses by {versus['mean']:,.0f} ±{versus['half']:,.0f}" if sure else
                f"{versus['mean']:+,.0f} ±{versus['half']:,.0f}"
            )  # fmt: skip
        beaten = [found["policies"][k]["title"] for k in played if ours in played and k != ours
                  and dominated(played[ours], played[k]) != "no"]  # fmt: skip
        cells.append(", ".join(beaten) or "none")
        rows.append(cells)
    ours = reference(found)
    title = "–" if ours is None else found["policies"][ours]["title"]
    heads = ["world", title, "best published", "best cost-aware", "best without prices", "best static arm"]
    return grid([*heads, "best bin rule", "minus the best other learner", "cheaper and more accurate"], rows)


def every(name: str, found: Found) -> str:
    """Mean regret of every policy in every world."""
    worlds = worlds_of(found)
    rows = []
    for key, policy in found["policies"].items():
        cells = []
        for here in worlds.values():
            one = here["played"].get(key)
            mark = "*" if one is not None and one["realised"] else ""
            cells.append("–" if one is None else number(np.mean(one["regret"])) + mark)
        rows.append([policy["title"], *cells])
    rows.append(["best static arm", *(number(np.mean(here["oracles"]["static"])) for here in worlds.values())])
    rows.append(["best bin rule", *(number(np.mean(here["oracles"]["bin_rule"])) for here in worlds.values())])
    rows.append(["clairvoyant", *(number(np.mean(here["oracles"]["clairvoyant"])) for here in worlds.values())])
    return grid(["policy", *worlds], rows)


def money(name: str, found: Found) -> str:
    """Cost, accuracy, agreement and offloads, as means over all worlds in which a policy played."""
    rows = []
    for key, policy in found["policies"].items():
        ones = [here["played"][key] for here in worlds_of(found).values() if key in here["played"]]
        if not ones:
            continue
        cells = [
            spread(np.mean([one[field] for one in ones], axis=0).tolist(), digits, scale)
            for field, digits, scale in (
                ("cost", 4, 1.0), ("accuracy", 2, 100.0), ("agreement", 2, 100.0), ("offloads", 1, 100.0),
                ("audits", 2, 100.0),
            )
        ]  # fmt: skip
        rows.append([policy["title"], str(len(ones)), *cells])
    heads = ["policy", "worlds", "cost", "accuracy %", "agreement %", "offloaded %", "audited %"]
    return grid(heads, rows)


def recovered(found: Found, key: str) -> list[float]:
    """Rounds from every change in every abrupt world and every seed until a policy has recovered."""
    return [x for here in worlds_of(found).values() for x in here["played"].get(key, {}).get("recovery", ())]


def recovery(name: str, found: Found) -> str:
    """Recovery after abrupt changes: median, upper quantile, and how often never within the segment."""
    worlds = {w: here for w, here in worlds_of(found).items() if here["abrupt"]}
    rows = []
    for key, policy in found["policies"].items():
        taken = recovered(found, key)
        if not taken:
            continue
        cells = []
        for here in worlds.values():
            one = here["played"].get(key)
            cells.append("–" if one is None else f"{np.median(one['recovery']):,.0f}")
        rows.append([policy["title"], f"{np.median(taken):,.0f}", f"{np.quantile(taken, 0.9):,.0f}", *cells])
    return grid(["policy", "median, all", "90 % quantile, all", *worlds], rows)


def settings(name: str, found: Found) -> str:
    """What tuning chose."""
    rows = [
        [policy["title"], ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in chosen.items())]
        for policy in found["policies"].values()
        if (chosen := policy["chosen"])
    ]
    rows += [[key, f"not played: {why}"] for key, why in found["absent"].items()]
    return grid(["policy", "chosen on the tuning worlds"], rows, 2)


def claims(found: Found) -> list[dict[str, Any]]:
    """What was to be shown: the claim, what was wanted, what was found, and whether it holds (None: not judged)."""
    if JOINT not in found["policies"]:
        return [{"what": "the joint policy", "wanted": "", "found": "not played", "holds": None}]
    sums = totals(found)
    mean = {k: float(np.mean(v["regret"])) for k, v in sums.items()}
    made: list[dict[str, Any]] = []

    def ratio(what: str, most: float, other: str | None, key: str) -> None:
        if key not in mean or other is None or other not in mean:
            made.append({"what": what, "wanted": f"at most {most:g}", "found": "not judged", "holds": None})
            return
        value = mean[key] / mean[other]
        label = found["policies"][other]["title"] if other in found["policies"] else "best static arm"
        text = f"{value:.3f} ({mean[key]:,.0f} against {mean[other]:,.0f}, {label})"
        made.append({"what": what, "wanted": f"at most {most:g}", "found": text, "holds": value <= most})

    for key, whose in ((JOINT, ""), (AT_THE_CUT, "; answers at the cut alone")):
        for what, most, other in (
            ("against the best tuned published policy", 0.12, best_total(found, mean, "published")),
            ("against the best cost-aware policy", 0.5, best_total(found, mean, "aware")),
            ("against the best static arm in hindsight", 1.0, "static"),
        ):
            ratio(f"regret over the suite, {what}{whose}", most, other, key)
    for key, whose in ((JOINT, ""), (AT_THE_CUT, "; answers at the cut alone")):
        worst, where, holds = -np.inf, "", True
        for world, here in worlds_of(found).items():
            played = here["played"]
            other = best_of(found, played, ("published", "aware", "unaware"))
            if key in played and other is not None:
                ours, theirs = (float(np.mean(played[k]["regret"])) for k in (key, other))
                excess = ours - (1.5 * theirs + 20.0)
                holds = holds and excess <= 0.0
                if excess > worst:
                    title = found["policies"][other]["title"]
                    worst, where = excess, f"{world}: {ours:,.0f} against {theirs:,.0f} ({title})"
        wanted = "at most 1.5 times the best other learning policy plus 20"
        made.append({"what": f"worst single world{whose}", "wanted": wanted, "found": where, "holds": holds})
        taken = recovered(found, key)
        if taken:
            median = float(np.median(taken))
            text = f"{median:,.0f} over {len(taken):,} changes"
            made.append(
                {
                    "what": f"median rounds to recover{whose}",
                    "wanted": "at most 300",
                    "found": text,
                    "holds": median <= 300,
                }
            )
    for what, keys in (
        ("published policies at once cheaper and more accurate", learners(found, ("published",))),
        ("worlds in which SendInput or OffloadFirst is at once cheaper and more accurate", list(TRIVIAL)),
    ):
        at = [
            f"{world} ({found['policies'][k]['title']}, {how})"
            for world, here in worlds_of(found).items()
            for k in keys
            if JOINT in here["played"] and k in here["played"]
            and (how := dominated(here["played"][JOINT], here["played"][k])) != "no"
        ]  # fmt: skip
        made.append({"what": what, "wanted": "none", "found": "; ".join(at) or "none", "holds": not at})
    return made


def best_total(found: Found, mean: dict[str, float], group: str) -> str | None:
    """The policy of a group with the least regret over the suite."""
    keys = [k for k in mean if k in found["policies"] and found["policies"][k]["group"] == group]
    return min(keys, key=lambda k: mean[k]) if keys else None


def shown(name: str, found: Found) -> str:
    """The claims as a table."""
    said = {True: "", False: "**misses:** ", None: ""}
    return grid(["what", "wanted", "found"], [[r["what"], r["wanted"], said[r["holds"]] + r["found"]]
                                              for r in claims(found)], 3)  # fmt: skip


SECTIONS: dict[str, Callable[[str, Found], str]] = {
    "shown": shown,
    "summed": summed,
    "worlds": by_world,
    "every": every,
    "money": money,
    "recovery": recovery,
    "settings": settings,
}


def fill(text: str | None, kept: Kept) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    own = {name: {s: partial(made, name, found) for s, made in SECTIONS.items()} for name, found in kept.items()}
    return filled_by_cache(text, "The joint policy", own)
