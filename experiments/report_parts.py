"""Parts of a report that are text: tables, links to the data behind, filters, and how far a sweep is."""

import base64
import html
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from offramp.experiments.collected import Collected, Facet
from offramp.experiments.results import WITHIN_METRIC, t95
from offramp.experiments.sweeps import dataset
from offramp.experiments.sweeps.watch import STATUS, told

PAIRED = ("saved", "change", "regret_change")
COLUMNS = (
    ("cost", "cost per image", 1.0, 3),
    ("saved", "saved, %", 100.0, 1),
    ("accuracy", "accuracy, %", 100.0, 1),
    ("change", "change, points", 100.0, 1),
    ("agreement", "agreement, %", 100.0, 1),
    ("offload_share", "offloaded, %", 100.0, 1),
    ("kilobytes_sent", "kB sent", 1.0, 2),
    ("edge_megamacs", "edge, million MACs", 1.0, 2),
    ("regret_total", "dynamic regret", 1.0, 0),
    ("regret_change", "regret, change", 1.0, 0),
    ("realised_regret_total", "realised regret", 1.0, 0),
    ("static_regret_total", "to the best static arm", 1.0, 0),
    (WITHIN_METRIC, "to the best arm that keeps the ceiling", 1.0, 0),
    ("recovery_rounds", "rounds to recover", 1.0, 0),
    ("calibration_error", "calibration error", 1.0, 3),
    ("microseconds_per_round", "µs a round", 1.0, 2),
)


def columns(frame: pd.DataFrame) -> tuple[tuple[str, str, float, int], ...]:
    """The columns of a table: that of ceilings only where a policy keeps one."""
    return tuple(c for c in COLUMNS if c[0] in PAIRED or (c[0] in frame and frame[c[0]].notna().any()))


def cell(found: Mapping[str, float] | None, scale: float, digits: int, runs: int) -> str:
    """One number with its interval, and of how many seeds where these are not all runs."""
    if found is None:
        return "–"
    mean, half = found["mean"] * scale, found["half"] * scale
    spread = "" if math.isnan(half) else f" <small>±{half:.{digits}f}</small>"
    fewer = "" if found["n"] == runs else f" <small>n = {found['n']}</small>"
    return f"{mean:.{digits}f}{spread}{fewer}"


def numbers(facet: Facet, all_: Collected) -> str:
    """The table of one facet."""
    shown = columns(facet.frame)
    paired = {name: ' class="paired"' if name in PAIRED else "" for name, *_ in shown}
    head = "".join(f"<th{paired[name]}>{title}</th>" for name, title, *_ in shown)
    rows = []
    for policy in facet.policies:
        against, n = facet.paired(policy, all_.baseline), len(facet.policies[policy])
        cells = "".join(
            f'<td{paired[name]} data-metric="{name}">'
            f"{cell(against.get(name) if name in PAIRED else facet.means(policy, name), scale, digits, n)}</td>"
            for name, _, scale, digits in shown
        )
        rows.append(f"{_row(all_, policy)}<td>{n}</td>{cells}</tr>")
    for policy, (status, why) in facet.lost.items():
        said = "not offered" if status == dataset.REFUSED else '<span class="bad">failed</span>'
        first = html.escape(str(why).splitlines()[0])
        rows.append(f'{_row(all_, policy)}<td>–</td><td class="wide" colspan="{len(shown)}">{said}: {first}</td></tr>')
    table = f"<table><tr><th>policy</th><th>n</th>{head}</tr>{''.join(rows)}</table>"
    return f'<div class="scroll" data-facet="{facet.number}">{table}</div>'


def _row(all_: Collected, policy: str) -> str:
    return f'<tr data-policy="{all_.policies.index(policy)}"><td><span class="name">{html.escape(policy)}</span></td>'


def download(frame: pd.DataFrame, name: str) -> str:
    """A link that holds a table as CSV."""
    text = frame.to_csv(index=False, float_format="%.6g")
    coded = base64.b64encode(text.encode()).decode()
    return f'<a download="{name}.csv" href="data:text/csv;base64,{coded}">data ({len(frame):,} rows, CSV)</a>'


def filters(all_: Collected) -> str:
    """What is shown, by policy, stream, price and setting, and who is compared with."""
    rows = []
    kinds = {"policy": all_.policies, "stream": all_.streams, "price": all_.prices, "setting": all_.settings}
    for kind, names in kinds.items():
        boxes = "".join(
            f'<label><input type="checkbox" name="{kind}" value="{i}" checked> {html.escape(name)}</label>'
            for i, name in enumerate(names)
        )
        buttons = "".join(f'<button data-of="{kind}" data-to="{to}">{to}</button>' for to in ("all", "none"))
        hidden = ' class="away"' if len(names) == 1 else ""
        rows.append(f"<div{hidden}><b>{kind}</b>{buttons}{boxes}</div>")
    options = "".join(
        f'<option value="{i}"{" selected" * (name == all_.baseline)}>{html.escape(name)}</option>'
        for i, name in enumerate(all_.policies)
    )
    rows.append(f'<div><b>compare with</b><select id="baseline" autocomplete="off">{options}</select></div>')
    return f'<form id="filters" autocomplete="off" onsubmit="return false">{"".join(rows)}</form>'


def script_facts(all_: Collected) -> str:
    """What the script of the page computes with."""
    found = []
    for facet in all_.facets:
        of_policy = {}
        for policy, runs in facet.policies.items():
            rows = zip(runs.seed, runs.cost, runs.accuracy, runs.regret_total, strict=True)
            of_policy[all_.policies.index(policy)] = {
                str(seed): {"cost": cost, "accuracy": accuracy, "regret": regret}
                for seed, cost, accuracy, regret in rows
            }
        found.append(of_policy)
    kinds = {"policy": all_.policies, "stream": all_.streams, "price": all_.prices, "setting": all_.settings}
    facts = {
        "facets": found,
        "policies": {str(i): name for i, name in enumerate(all_.policies)},
        "baseline": str(all_.policies.index(all_.baseline)),
        "count": {kind: len(names) for kind, names in kinds.items()},
        "t95": [t95(n) for n in range(2, max(facet.seeds[1] for facet in all_.facets) + 1)],
    }
    text = json.dumps(dataset.plain(facts), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="facts">{text}</script>'


def told_of(folder: Path, all_: Collected) -> str:
    """How far the sweep is, what failed, and by which versions of the package."""
    parts = []
    runs, done = all_.frame.key.nunique(), int((all_.frame.status == dataset.FINISHED).sum())
    counts = {"run": runs, "history": done, "policy": len(all_.policies), "stream": len(all_.streams)}
    counts["price"] = len(all_.prices)
    several = {"history": "histories", "policy": "policies"}
    said = ", ".join(f"{n:,} {what if n == 1 else several.get(what, what + 's')}" for what, n in counts.items())
    parts.append(f"<p>{said} (a history is one policy with one seed). {download(_metrics(all_), 'runs')}</p>")
    parts.append(_progress(folder / STATUS))
    if all_.left_out:
        rows = f"{all_.left_out:,} row{'s' * (all_.left_out > 1)}"
        parts.append(f'<p class="bad">Left out: {rows} of runs that were played again by a newer version or cache.</p>')
    versions = all_.frame.source.nunique()
    if versions > 1:
        parts.append(f'<p class="bad">These runs come from {versions} versions of the package.</p>')
    if len(all_.failed):
        rows = "".join(
            f'<tr><td>{html.escape(r.policy_label)}</td><td class="wide">{html.escape(r.stream_label)}</td>'
            f'<td class="wide">{html.escape(r.price_label)}</td><td class="wide"><details><summary>'
            f"{html.escape(r.why.splitlines()[0])}</summary><pre>{html.escape(r.why)}</pre></details></td></tr>"
            for r in all_.failed.itertuples()
        )
        head = "<tr><th>policy</th><th>stream</th><th>price</th><th>error</th></tr>"
        parts.append(f'<h2 class="bad">Runs that failed</h2><table id="failed">{head}{rows}</table>')
    return "".join(parts)


def _progress(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        now = json.loads(path.read_text(encoding="utf-8"))
        over = sum(now[what] for what in ("finished", "there", "refused", "failed"))
        left = told({**now, "seconds_left": math.nan if now["seconds_left"] is None else now["seconds_left"]})
        running, total = now["running"], "" if now["total"] is None else f" of {now['total']:d}"
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # the runs can be told without it
        why = html.escape(f"{type(error).__name__}: {error}")
        return (
            f'<p class="bad">How far the sweep is cannot be told: {path.name} is not what a sweep writes ({why}).</p>'
        )
    said = "; ".join(text for text in (f"{over}{total} jobs", left) if text)
    return f"<p>The sweep goes on, or was broken off: {said}.</p>" if running else ""


def _metrics(all_: Collected) -> pd.DataFrame:
    done = all_.frame[all_.frame.status == dataset.FINISHED]
    names = ["stream_label", "price_label", "setting_label", "policy_label", "seed"]
    return done[[*names, *dataset.METRICS]].rename(columns=lambda name: name.removesuffix("_label"))
