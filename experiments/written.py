"""The frame of a study: its record is written after each step, then figures and README are made of what was written."""

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from offramp.experiments.earlier import earlier, shortened, write
from offramp.experiments.sweeps.keys import plain

RESULT = "result.json"
Save = Callable[[], None]
Measure = Callable[[dict[str, Any], Save, Console], str]
Section = Callable[[], str]
Draw = Callable[[str, Any], dict[str, str]]


def filled(text: str | None, sections: Mapping[str, Section]) -> str:
    """The text with each section, by the name in its marker, made anew; what has no marker there is not made.

    Without a text, the sections alone.
    """
    if text is None:
        text = "\n\n".join(f"## {name.capitalize()}\n\n<!-- {name} -->\n<!-- end -->" for name in sections) + "\n"
    for name, made in sections.items():
        place = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if place.search(text):
            table = made()
            text = place.sub(lambda m, table=table: f"{m[1]}\n{table}\n\n{m[2]}", text)  # type: ignore[misc]
    return text


def filled_by_cache(text: str | None, heading: str, sections: Mapping[str, Mapping[str, Section]]) -> str:
    """The same where every cache has sections of its own, with markers of its name and theirs.

    Parameters
    ----------
    text
        What stood there; None = nothing: then all sections, under the heading.
    heading
        Of a new page.
    sections
        Those of each cache.

    """
    if text is None:
        blocks = [f"## {c}: {s}\n\n<!-- {c} {s} -->\n<!-- end -->" for c, own in sections.items() for s in own]
        text = "\n\n".join([f"# {heading}", *blocks]) + "\n"
    return filled(text, {f"{c} {s}": made for c, own in sections.items() for s, made in own.items()})


def named_by_cache(draw: Callable[[str, Any], Mapping[str, str]]) -> Draw:
    """Figures whose files are named by what they show and by the cache."""
    return lambda name, found: {f"{figure}_{name}": text for figure, text in draw(name, found).items()}


def run_study(
    folder: Path,
    measure: Measure,
    *,
    draw: Draw,
    fill: Callable[[str | None, dict[str, Any]], str],
    told: Callable[[Any], str],
    shorten: Callable[[Any], Any] = shortened,
    pages: Draw = lambda name, found: {},
    under: str | None = None,
) -> Path:
    """Measure, and write result.json, figures and README.md; what other caches left in the folder stays.

    Parameters
    ----------
    folder
        Where to.
    measure
        Is given what earlier runs left, what writes it after a step, and a console; adds to it, and returns the name of
        what it added.
    draw
        Figures of that name: SVG by the name of its file.
    fill
        The README with its generated blocks filled in, from what stood there (None = nothing) and the whole record.
    told
        What the console says at the end.
    shorten
        Leaves as many digits as the record shall have.
    pages
        Further pages of that name: Markdown by the name of its file.
    under
        Key below which the record holds what was measured, by name; None = it holds nothing else.

    Returns
    -------
    Path
        The README.

    """
    console, started = Console(), time.perf_counter()
    path, readme = folder / RESULT, folder / "README.md"
    kept = earlier(path)  # read first: what cannot be added to is refused before anything is measured

    def save() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(shorten(plain(kept)), allow_nan=False, separators=(",", ":")) + "\n")

    name = measure(kept, save, console)
    save()
    found = earlier(path)  # what is drawn and told is what was written
    own = (found if under is None else found[under])[name]
    for figure, text in draw(name, own).items():
        write(folder / f"{figure}.svg", text)
    for page, text in pages(name, own).items():
        write(folder / f"{page}.md", text)
    write(readme, fill(readme.read_text(encoding="utf-8") if readme.exists() else None, found))
    console.print(told(own), soft_wrap=True, markup=False)
    console.print(f"{time.perf_counter() - started:.0f} s; {readme.resolve()}", soft_wrap=True)
    return readme
