"""`offramp report DIR`: one self-contained HTML page about a comparison or a sweep, and its figures as files."""

import argparse
import hashlib
import html
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from offramp.environments import ConfidenceCache
from offramp.experiments import drawings, figures
from offramp.experiments.collected import Collected, Facet
from offramp.experiments.earlier import open_cache, write
from offramp.experiments.report_page import SCRIPT, STYLE
from offramp.experiments.report_parts import download, filters, numbers, script_facts, told_of
from offramp.experiments.results import RECOVERED

HERE = Path(__file__).parent
PAPER_PRICES = {"_target_": "offramp.bandits.PaperUnits", "per_layer": 0.1, "offload": 0.5, "mu": 1.0}
PAPER = (
    "I-SplitEE claims, for these constants on MobileNetV2, a cost lower by at least 55 % at an accuracy lower by at "
    "most 5 points. Look at offload_first before believing any learner here: one segment on the edge and then always "
    "the cloud, without learning anything, saves 1 − (3λ + o) / 19λ = 58 % and changes no answer, because in these "
    "prices the cloud computes for nothing."
)
TERMS = (
    "± is the half-width of the 95 % interval over seeds (Student), n in a cell how many they are where some do not "
    "know the number or were not played by both. Blue columns are differences to <b class=against>"
    "</b>, paired by seed. Cost is in the price list's own unit. Dynamic regret values each decision by its population "
    "mean under that round's condition and price, against the best arm of the table there; realised regret takes the "
    "same samples instead; the third is against the one arm that is best in hindsight. Recovery: mean rounds after a "
    f"change until regret stays below {RECOVERED} a round; one that never does counts with the rounds to the next "
    "change. Calibration error: mean distance between confidence and accuracy of the answers given, over ten bins. "
    "Policies whose name says oracle read cloud answers that were never requested."
)
LONG = 80  # bytes of a label in the name of a file, of which there may be two; file systems allow 255
WIDE = 120  # characters of a table in a card, beyond which it is folded
MANY, VERY_MANY = 6, 24  # facets from which on fewer choices are drawn, and none


class Page:
    """Collects the parts of a page, and writes every figure as a file of its own beside it.

    Parameters
    ----------
    folder
        For the figures.
    all_
        The runs.

    """

    def __init__(self, folder: Path, all_: Collected) -> None:
        self.folder, self.all = folder, all_
        self.parts: list[str] = []
        self.names: set[str] = set()

    def add(self, *text: str) -> None:
        """Add text."""
        self.parts += text

    def figure(self, name: str, drawn: Figure, caption: str, behind: pd.DataFrame | None = None) -> None:
        """Add a figure with its caption and the numbers behind it; its name gets a number where it is taken."""
        wanted, number = name, 1
        while name.casefold() in self.names:  # of labels that differ in signs alone, or in what is a capital
            number += 1
            name = f"{wanted}-{number}"
        self.names.add(name.casefold())
        text = drawings.slim(drawn, name)
        (self.folder / f"{name}.svg").write_text(text, encoding="utf-8")
        link = "" if behind is None else f" {download(behind, name)}"
        self.add(f'<figure id="figure-{name}">{text}<figcaption>{caption}{link}</figcaption></figure>')

    def card(self, title: str, facts: Mapping[str, Any]) -> None:
        """Add a model card: what is one value as a row, what is a table folded into one."""
        rows = []
        for key, value in facts.items():
            wide = isinstance(value, Mapping | list) and len(str(value)) > WIDE
            entries = f"{len(value)} {'entry' if len(value) == 1 else 'entries'}, as JSON" if wide else ""
            shown = folded(entries, json.dumps(value, indent=1)) if wide else html.escape(str(value))
            rows.append(f'<tr><td>{html.escape(str(key))}</td><td class="wide">{shown}</td></tr>')
        self.add(f"<details><summary>{html.escape(title)}</summary><table>{''.join(rows)}</table></details>")


def folded(summary: str, text: str) -> str:
    """Text as it is, below a line that opens it."""
    return f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>"


def slug(text: str) -> str:
    """A label as a name of files and ids: what is long, or holds no letter, ends in a digest of the label."""
    name, digest = re.sub(r"[^\w.]+", "-", text).strip("-"), hashlib.sha256(text.encode()).hexdigest()[:6]
    if len(name.encode()) > LONG:
        name = f"{name.encode()[:LONG].decode(errors='ignore')}-{digest}"
    return name or digest


def facet_name(facet: Facet, all_: Collected) -> str:
    """A facet's name in files and ids."""
    return slug(all_.title(facet).replace("stream ", ""))


def seeds_of(facet: Facet) -> str:
    """How many seeds, as text."""
    low, high = facet.seeds
    return (f"n = {low} seeds" if low == high else f"n = {low} to {high} seeds") + (
        "" if high > 1 else ": one, so without intervals"
    )


def section(page: Page, facet: Facet) -> None:
    """Add the part of the page about one facet."""
    all_, name, runs = page.all, facet_name(facet, page.all), seeds_of(facet)
    prices = json.loads(facet.frame.world_config.iloc[0])
    per_round = {
        what: float(((facet.frame[f"{what}_gap_total"]) / facet.horizon + facet.frame.reward).mean())
        for what in ("clairvoyant", "bin_rule")
    }
    best = float((facet.frame.realised_regret_total / facet.horizon + facet.frame.reward).mean())
    page.add(
        f'<section data-stream="{facet.stream}" data-price="{facet.price}" data-setting="{facet.setting}">',
        f"<h2>World: {html.escape(all_.title(facet))}</h2>",
        folded("prices and rules of this world, as YAML", _yaml(prices)),
        f"<p>{PAPER}</p>" if prices["prices"] == PAPER_PRICES else "",
        numbers(facet, all_),
        f"<p>{facet.horizon:,} rounds; {runs}. The best arm of each moment earns {best:.4f} a round; the best rule per "
        f"confidence bin, a richer class that no policy here plays, {per_round['bin_rule']:.4f}; a clairvoyant who "
        f"sees each image's confidences first, {per_round['clairvoyant']:.4f}, a bound that nobody can reach.</p>",
        "<h3>Regret</h3>",
    )
    if (drawn := drawings.regret(facet, all_)) is not None:
        page.figure(
            f"{name}-regret",
            *_shuffled(
                drawn,
                f"Cumulative dynamic pseudo-regret; mean and 95 % band, {runs}. Dashed: policies that do not learn. "
                "Thin vertical lines: distortion or link change.",
            ),
        )
    if (drawn := drawings.recovery(facet, all_)) is not None:
        changes = float(facet.frame.changes.mean())
        page.add("<h3>Recovery</h3>")
        page.figure(
            f"{name}-recovery",
            *_shuffled(
                drawn,
                f"Regret a round since distortion or link changed, mean over {changes:.3g} changes of a run; mean and "
                f"95 % band, {runs}. Dotted: {RECOVERED}, below which a policy has caught up.",
            ),
        )
    if (drawn := drawings.calibration(facet, all_)) is not None:
        page.add("<h3>Calibration</h3>")
        page.figure(
            f"{name}-calibration",
            *_shuffled(
                drawn,
                "Share of right answers against the confidence that they were given with, over ten bins of up to 512 "
                f"evenly spaced rounds of each run; mean and 95 % interval, {runs}; bins where half of the runs have "
                f"{drawings.FEW} answers or more. On the dotted line confidence is deserved; below it answers are too "
                "sure.",
            ),
        )
    chosen(page, facet, name, runs)
    page.add("</section>")


def chosen(page: Page, facet: Facet, name: str, runs: str) -> None:
    """Add what was chosen when: of three policies; where there are many facets of the best, where very many of none."""
    facets = len(page.all.facets)
    if facets > VERY_MANY:
        return
    ranked = facet.learners
    named = {p: str(found.policy.iloc[0]) for p, found in facet.policies.items()}
    others = [p for p in facet.policies if named[p] in ("isplitee", "adaee_side")] if facets <= MANY else []
    picked = list(dict.fromkeys([*ranked[:1], *others])) or list(facet.policies)[:1]
    page.add(
        "<h3>What was chosen when</h3>",
        "<p>The learner of least regret first, then one that learns the split and one that learns the threshold.</p>"
        if len(picked) > 1
        else "",
    )
    for policy in picked:
        number = page.all.policies.index(policy)
        page.add(f'<div data-policy="{number}">')
        page.figure(
            f"{name}-{slug(policy)}",
            *_shuffled(
                drawings.choices(facet, page.all, policy),
                f"<b>{html.escape(policy)}</b>: share of rounds by split and by threshold, mean, {runs}, above the "
                "distortion, the factor on the price of the link, and the best arm there (exit ≥ threshold).",
            ),
        )
        page.add("</div>")


def _shuffled(drawn: drawings.Drawn, caption: str) -> tuple[Figure, str, pd.DataFrame]:
    return drawn[0], caption, drawn[1]


def _yaml(config: Any) -> str:
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text


def fronts(page: Page) -> None:
    """Add cost against accuracy: one figure for each stream and world, prices joined."""
    all_ = page.all
    together: dict[tuple[int, int, str], list[Facet]] = {}
    for facet in all_.facets:
        together.setdefault((facet.stream, facet.setting, facet.family), []).append(facet)
    page.add("<h2>Cost against accuracy</h2>")
    for (stream, setting, family), facets in together.items():
        several = (len(all_.streams) > 1, all_.streams[stream]), (len(all_.settings) > 1, all_.settings[setting])
        title = ", ".join([family, *(text for many, text in several if many)])
        name = slug(title)
        prices = " ".join(str(facet.price) for facet in facets)
        page.add(f'<div data-stream="{stream}" data-price="{prices}" data-setting="{setting}">')
        figure, behind = drawings.front(facets, all_)
        joined = f" Lines join the {len(facets)} prices." if len(facets) > 1 else ""
        page.figure(
            f"{name}-front",
            figure,
            f"<b>{html.escape(title)}</b>. Up and to the left is better. Bars: 95 % intervals, {seeds_of(facets[0])}. "
            f"Squares: policies that do not learn.{joined}",
            behind,
        )
        page.add("</div>")


def images(page: Page) -> None:
    """Add what the caches are: their exits, sample images and cards."""
    settings = [json.loads(text) for text in dict.fromkeys(page.all.frame.setting)]
    for name, split in dict.fromkeys((s["cache"], s["split"]) for s in settings):
        try:
            cache = open_cache(name).part(split)
        except (OSError, ValueError) as error:
            page.add(f"<p>The cache {html.escape(name)} is not here: {html.escape(str(error))}</p>")
            continue
        tail = "" if len(settings) == 1 else f"-{slug(Path(name).stem)}-{split}"
        _cache(page, cache, tail)


def _cache(page: Page, cache: ConfidenceCache, tail: str) -> None:
    page.add("<h2>The network and the images</h2>")
    right = (cache.prediction == cache.label[None, None, :, None]).mean(axis=2)
    behind = pd.DataFrame(
        [
            {
                "condition": condition.name, "expert": e, "exit": i + 1, "accuracy": right[c, e, i],
                "confidence": float(cache.confidence[c, e, :, i].mean()), "n": len(cache.label),
            }
            for c, condition in enumerate(cache.conditions)
            for e in range(cache.confidence.shape[1])
            for i in range(cache.confidence.shape[3])
        ]
    )  # fmt: skip
    page.figure(
        f"exits{tail}",
        figures.exits(cache),
        "What the exits know and what they believe. Where confidence is far above accuracy, a policy that trusts "
        "confidence pays for worse answers: this is what calibration and expert branches are for.",
        behind,
    )
    sheet = HERE / f"{cache.notes.get('network')}.samples.png"
    if sheet.exists():
        caption = "Some test images under every condition, as the network sees them."
        page.figure(f"samples{tail}", figures.samples(sheet, [c.name for c in cache.conditions]), caption)
    for part, facts in cache.notes.get("cards", {}).items():
        page.card(f"model card: {part}", facts)


def write_report(folder: Path) -> Path:
    """Write the page about all runs in a folder in one step, and its figures into a folder beside it.

    Raises
    ------
    ValueError
        There are no runs, or none came to an end.

    """
    all_ = Collected(folder)
    drawn = folder / "figures"
    drawn.mkdir(exist_ok=True)
    for figure in drawn.glob("*.svg"):  # of an earlier page, about other policies
        figure.unlink()
    page = Page(drawn, all_)
    title = "Offramp: a comparison" if all_.frame.key.nunique() == 1 else "Offramp: a sweep"
    page.add(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        "<p>For each image the policy decides how deep the edge computes and how sure an exit must be to answer there; "
        "otherwise the work goes on in the cloud. It learns online from the confidences that its own decisions reveal. "
        "Labels are read by the scorer alone.</p>",
        told_of(folder, all_),
        filters(all_),
        f"<p>{TERMS}</p>",
    )
    fronts(page)
    for facet in all_.facets:
        section(page, facet)
    images(page)
    settings = [json.loads(text) for text in dict.fromkeys(all_.frame.setting)]
    configs = [*settings, *({"stream": json.loads(text)} for text in dict.fromkeys(all_.frame.stream_config))]
    page.add("<h2>Configuration</h2>", folded("worlds and streams, as YAML", "".join(map(_yaml, configs))))
    policies = {r.policy_label: json.loads(r.policy_config) for r in all_.frame.itertuples()}
    page.add(folded("policies, as YAML", _yaml(policies)))
    page.add(script_facts(all_), f"<script>{SCRIPT}</script></body></html>")
    path = folder / "report.html"
    write(path, "\n".join(page.parts))
    return path


def main() -> None:
    """Entry point of `offramp report`."""
    parser = argparse.ArgumentParser(
        prog="offramp report",
        description="Writes report.html about all runs in the folder of a sweep or a comparison.",
    )
    parser.add_argument("folder", type=Path, help="folder of `offramp compare`, or the sweep= of `offramp compare -m`")
    asked = parser.parse_args()
    try:
        path = write_report(asked.folder)
    except (ValueError, OSError) as error:
        sys.exit(f"offramp report: {error}")
    print(f"report: {path.resolve()}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
