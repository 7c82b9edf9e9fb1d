"""The study's tables as Markdown, written between the markers of its README."""

import math
from collections.abc import Callable
from typing import Any

from offramp.experiments.joint_policy.statistics import paired
from offramp.experiments.joint_policy.tables import number
from offramp.experiments.markdown import grid
from offramp.experiments.offpolicy.estimators import ADAPTIVE, DR, IPS, NAMES, SNIPS
from offramp.experiments.results import interval
from offramp.experiments.written import filled_by_cache

Found = dict[str, Any]
TITLES = {IPS: "IPS", SNIPS: "SNIPS", DR: "DR", ADAPTIVE: "adaptive DR"}
WANTED = (0.92, 0.98)


def share(held: int, of: int) -> str:
    """A coverage in %, bold where it is not what was wanted."""
    text = f"{100.0 * held / of:.1f}"
    return text if WANTED[0] <= held / of <= WANTED[1] else f"**{text}**"


def coverage(found: Found) -> str:
    """Coverage of the 95 % interval, logger by logger and target by target."""
    rows = []
    for key, case in found["cases"].items():
        who = found["loggers"][key]["title"]
        for target, row in case.items():
            made = row["estimators"]
            cells = [share(made[e]["held"], made[e]["logs"]) if e in made else "–" for e in NAMES]
            told_of = number(100.0 * row["used"], 1), number(100.0 * row["shown"], 1)
            rows.append([who, f"`{target}`", number(row["truth"], 4), str(row["refused"]), *told_of, *cells])
        pooled = [[row["estimators"][e] for row in case.values() if e in row["estimators"]] for e in NAMES]
        cells = [share(sum(o["held"] for o in all_), sum(o["logs"] for o in all_)) if all_ else "–" for all_ in pooled]
        rows.append([who, "all", "", "", "", "", *cells])
    heads = ["log of", "target", "truth", "refused", "used %", "shown %", *(f"{TITLES[e]} %" for e in NAMES)]
    return grid(heads, rows, 2)


def precision(found: Found) -> str:
    """Bias, scatter and width."""
    rows = []
    for key, case in found["cases"].items():
        for target, row in case.items():
            made = row["estimators"]
            cells = []
            for e in NAMES:
                if e not in made:
                    cells.append("–")
                    continue
                error = 1.96 * made[e]["sd"] / math.sqrt(made[e]["logs"])
                bias = f"{1e3 * made[e]['bias']:+.1f} ±{1e3 * error:.1f}"
                cells.append(f"{bias}, {1e3 * made[e]['half']:.1f}")
            plays = f"{1e3 * row['by_plays']['half']:.1f}" if "by_plays" in row else "–"
            rows.append(
                [
                    found["loggers"][key]["title"],
                    f"`{target}`",
                    *cells,
                    plays,
                    number(row["ess"]),
                    number(row["largest"], 1),
                ]
            )
    heads = ["log of", "target", *(TITLES[e] for e in NAMES), "DR by plays alone", "ESS", "largest weight"]
    return grid(heads, rows, 2)


def blind(found: Found) -> str:
    """What does not identify the target."""
    rows = []
    for key, row in found["blind"].items():
        naive = row["naive"]
        rows.append(
            [
                found["loggers"][key]["title"],
                f"`{row['target']}`",
                number(row["truth"], 4),
                f"{row['refused']} of {row['logs']}",
                number(100.0 * row["shown"], 1),
                f"{row['truth'] + naive['bias']:.4f} ±{naive['half']:.4f}",
                number(100.0 * naive["held"] / naive["logs"], 1),
                number(100.0 * row["bounded"], 1),
                number(row["width"], 3),
            ]
        )
    heads = [
        "log of", "target", "truth", "refused", "shown %", "naive mean of what shows", "naive interval holds %",
        "bounds hold %", "width of the bounds",
    ]  # fmt: skip
    said = [f"> {found['loggers'][key]['title']}: {row['refusal']}." for key, row in found["blind"].items()]
    return "\n\n".join([grid(heads, rows, 2), *said])


def replay(found: Found) -> str:
    """A learner replayed, beside the learner itself."""
    one = found["replay"]
    if len(one["value"]) < 2:
        return "no learner could be replayed"
    value, own, apart = interval(one["value"]), interval(one["own"]), paired(one["value"], one["own"])
    row = [
        number(interval(one["accepted"])["mean"], 0),
        f"{value['mean']:.4f} ±{value['half']:.4f}",
        f"{own['mean']:.4f} ±{own['half']:.4f}",
        f"{apart['mean']:+.4f} ±{apart['half']:.4f}",
    ]
    return grid(["requests accepted", "UCB1 replayed", "UCB1 itself", "difference"], [row], 0)


def sections(found: Found) -> dict[str, Callable[[], str]]:
    """What stands between markers: name -> text."""
    return {
        "coverage": lambda: coverage(found),
        "precision": lambda: precision(found),
        "blind": lambda: blind(found),
        "replay": lambda: replay(found),
    }


def told(found: Found) -> str:
    """What the console says."""
    cells = [
        (one["held"] / one["logs"], e)
        for case in found["cases"].values()
        for row in case.values()
        for e, one in row["estimators"].items()
    ]
    inside = {e: [WANTED[0] <= c <= WANTED[1] for c, name in cells if name == e] for e in NAMES}
    lines = [f"{TITLES[e]}: coverage within 92 to 98 % in {sum(of)} of {len(of)} cases" for e, of in inside.items()]
    lines += [
        f"{found['loggers'][key]['title']}, target {row['target']}: refused on {row['refused']} of {row['logs']} logs"
        for key, row in found["blind"].items()
    ]
    return "\n".join(lines)


def fill(text: str | None, kept: dict[str, Found]) -> str:
    """The README with each section between its markers written anew; without a README, the sections alone."""
    return filled_by_cache(text, "Evaluation from logs", {c: sections(found) for c, found in kept.items()})
