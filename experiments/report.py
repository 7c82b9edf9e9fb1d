"""One self-contained HTML page about a comparison: tables, figures as inline SVG, and what each of them means."""

import html
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from offramp.environments import ConfidenceCache
from offramp.experiments import figures
from offramp.experiments.earlier import write
from offramp.experiments.results import RECOVERED, REFERENCE, WITHIN_METRIC, Played

HERE = Path(__file__).parent
STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#1c2530;max-width:86rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.9rem;margin-bottom:.2rem}h2{margin-top:3rem;border-bottom:2px solid #1b6ca8;padding-bottom:.2rem}
h3{margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem}
td,th{padding:.3rem .55rem;text-align:right;border-bottom:1px solid #dde3e9}td{white-space:nowrap}
th{vertical-align:bottom}td:first-child,th:first-child,td.wide{text-align:left}tr:hover td{background:#f3f7fa}
figure{margin:1.2rem 0}figure svg{max-width:100%;height:auto}figcaption{color:#51606e;font-size:.92rem;max-width:60rem}
p{max-width:60rem}pre{background:#f3f7fa;padding:1rem;font-size:.85rem;overflow:auto}small{color:#51606e}
.scroll{overflow-x:auto}summary{cursor:pointer;color:#1b6ca8}
"""
COLUMNS = (
    ("cost", "cost per image", 1.0, 3),
    ("cost_saved", "saved, %", 100.0, 1),
    ("accuracy", "accuracy, %", 100.0, 1),
    ("accuracy_change", "change, points", 100.0, 1),
    ("agreement", "agreement, %", 100.0, 1),
    ("offload_share", "offloaded, %", 100.0, 1),
    ("kilobytes_sent", "kB sent", 1.0, 2),
    ("edge_megamacs", "edge, million MACs", 1.0, 2),
    ("regret_total", "dynamic regret", 1.0, 0),
    ("realised_regret_total", "realised regret", 1.0, 0),
    ("static_regret_total", "to the best static arm", 1.0, 0),
    (WITHIN_METRIC, "to the best arm that keeps the ceiling", 1.0, 0),
    ("recovery_rounds", "rounds to recover", 1.0, 0),
    ("microseconds_per_round", "µs a round", 1.0, 2),
)
PAPER_PRICES = {"_target_": "offramp.bandits.PaperUnits", "per_layer": 0.1, "offload": 0.5, "mu": 1.0}
PAPER = (
    "I-SplitEE claims, for these constants on MobileNetV2, a cost lower by at least 55 % at an accuracy lower by at "
    "most 5 points. Look at offload_first before believing any learner here: one segment on the edge and then always "
    "the cloud, without learning anything, saves 1 − (3λ + o) / 19λ = 58 % and changes no answer, because in these "
    "prices the cloud computes for nothing."
)


def cell(found: Mapping[str, Mapping[str, float]], metric: str, scale: float, digits: int) -> str:
    """One number with its interval."""
    if metric not in found:
        return "–"
    mean, half = found[metric]["mean"] * scale, found[metric]["half"] * scale
    spread = "" if math.isnan(half) else f" <small>±{half:.{digits}f}</small>"
    return f"{mean:.{digits}f}{spread}"


def numbers(played: Played, means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The table of one world."""
    within = any(WITHIN_METRIC in found for found in means.values())
    columns = [column for column in COLUMNS if column[0] != WITHIN_METRIC or within]
    head = "".join(f"<th>{name}</th>" for _, name, _, _ in columns)
    rows = [
        f"<tr><td>{html.escape(policy)}</td>"
        + "".join(f"<td>{cell(found, metric, scale, digits)}</td>" for metric, _, scale, digits in columns)
        + "</tr>"
        for policy, found in means.items()
    ]
    rows += [
        f'<tr><td>{html.escape(p)}</td><td class="wide" colspan="{len(columns)}">'
        f"not offered: {html.escape(why)}</td></tr>"
        for p, why in played.refused.items()
    ]
    return f'<div class="scroll"><table><tr><th>policy</th>{head}</tr>{"".join(rows)}</table></div>'


def figure(folder: Path, name: str, drawn: Figure, caption: str) -> str:
    """A figure with its caption for the page, and the same as a file of its own."""
    text = figures.svg(drawn, name)
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return f"<figure>{text}<figcaption>{caption}</figcaption></figure>"


def card(title: str, facts: Mapping[str, Any]) -> str:
    """A model card: what is one value as a row, what is a table as one."""
    rows = []
    for key, value in facts.items():
        wide = isinstance(value, Mapping | list) and len(str(value)) > 120
        shown = f"<pre>{html.escape(json.dumps(value, indent=1))}</pre>" if wide else html.escape(str(value))
        rows.append(f'<tr><td>{html.escape(str(key))}</td><td class="wide">{shown}</td></tr>')
    return f"<details><summary>{html.escape(title)}</summary><table>{''.join(rows)}</table></details>"


def section(folder: Path, played: Played, means: Mapping[str, Mapping[str, Mapping[str, float]]], config: Any) -> str:
    """The part of the page about one world."""
    n, name = len(played.seeds), played.name
    runs = f"{n} seeds" if n > 1 else "one seed, so without intervals"
    bound = sum(c.clairvoyant[-1] for c in played.comparators) / n / played.horizon
    rule = sum(c.binned[-1] for c in played.comparators) / n / played.horizon
    best = sum(c.dynamic[-1] for c in played.comparators) / n / played.horizon
    parts = [
        f"<h2>World: {html.escape(name)}</h2>",
        f"<details><summary>prices and rules</summary><pre>{html.escape(OmegaConf.to_yaml(config))}</pre></details>",
        f"<p>{PAPER}</p>" if dict(config.prices) == PAPER_PRICES else "",
        numbers(played, means),
        f"<p>{played.horizon:,} rounds, {runs}; ± is the half-width of the 95 % interval over seeds (Student), paired "
        f"by seed where a policy is compared with {REFERENCE}. Cost is in the price list's own unit. Dynamic regret "
        "values each decision by its population mean under that round's condition and price, against the best arm of "
        "the table there; realised regret takes the same samples instead; the third is against the one arm that is "
        f"best in hindsight. The best arm of each moment earns {best:.4f} a round; the best rule per confidence "
        f"bin, a richer class that no policy here plays, {rule:.4f}; a clairvoyant who sees each image's "
        f"confidences first, {bound:.4f}, a bound that nobody can reach. Recovery: mean rounds after a change until "
        f"regret stays below {RECOVERED} a round; one that never does counts with the rounds to the next "
        f"change. Policies whose name says oracle read cloud "
        "answers that were never requested.</p>",
        "<h3>Regret</h3>",
        figure(
            folder,
            f"{name}-regret",
            figures.regret(played),
            f"Cumulative dynamic pseudo-regret, mean and 95 % band over {runs}. Dashed: policies that do not learn. "
            "Thin vertical lines: distortion or link change.",
        ),
        "<h3>Cost against accuracy</h3>",
        figure(
            folder,
            f"{name}-front",
            figures.front(played),
            f"Up and to the left is better. Bars: 95 % intervals over {runs}. Squares: policies that do not learn.",
        ),
        "<h3>What was chosen when</h3>",
        "<p>The learner of least regret first, then one that learns the split and one that learns the threshold.</p>",
    ]
    ranked = figures.learners(played)
    picked = dict.fromkeys([*ranked[:1], *(p for p in ("isplitee", "adaee_side") if p in played.traces)])
    for policy in picked or list(played.traces)[:1]:
        parts.append(
            figure(
                folder,
                f"{name}-{policy}",
                figures.choices(played, policy),
                f"<b>{html.escape(policy)}</b>: share of rounds by split and by threshold, mean over {runs}, above the "
                "distortion, the factor on the price of the link, and the best arm there (exit ≥ threshold).",
            )
        )
    return "\n".join(parts)


def write_report(
    path: Path,
    cache: ConfidenceCache,
    cfg: DictConfig,
    played: Sequence[Played],
    means: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]],
) -> None:
    """Write the page for all worlds of a run in one step, and its figures into a folder beside it."""
    configs = [cfg.world] if "prices" in cfg.world else [cfg.world[p.name] for p in played]
    folder = path.parent / "figures"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run with other policies
    folder.mkdir()
    parts = [section(folder, p, m, c) for p, m, c in zip(played, means, configs, strict=True)]
    conditions = [c.name for c in cache.conditions]
    parts += [
        "<h2>The network and the images</h2>",
        figure(
            folder,
            "exits",
            figures.exits(cache),
            "What the exits know and what they believe. Where confidence is far above accuracy, a policy that trusts "
            "confidence pays for worse answers: this is what calibration and expert branches are for.",
        ),
    ]
    sheet = HERE / f"{cache.notes.get('network')}.samples.png"
    if sheet.exists():
        caption = "Some test images under every condition, as the network sees them."
        parts.append(figure(folder, "samples", figures.samples(sheet, conditions), caption))
    parts += [card(f"{part}'s card", facts) for part, facts in cache.notes.get("cards", {}).items()]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Offramp: a comparison</title>'
        f"<style>{STYLE}</style></head><body><h1>Offramp: a comparison</h1>"
        "<p>For each image the policy decides how deep the edge computes and how sure an exit must be to answer there; "
        "otherwise the work goes on in the cloud. It learns online from the confidences that its own decisions reveal. "
        "Labels are read by the scorer alone.</p>"
        f"{''.join(parts)}<h2>Configuration</h2><pre>{html.escape(OmegaConf.to_yaml(cfg))}</pre></body></html>"
    )
    write(path, page)
