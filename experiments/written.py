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


def filled(text: str, sections: Mapping[str, Callable[[], str]]) -> str:
    """The text with each section, by the name in its marker, made anew; what has no marker there is not made."""
    for name, made in sections.items():
        place = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if place.search(text):
            table = made()
            text = place.sub(lambda m, table=table: f"{m[1]}\n{table}\n\n{m[2]}", text)  # type: ignore[misc]
    return text


def run_study(
    folder: Path,
    measure: Measure,
    *,
    draw: Callable[[str, Any], dict[str, str]],
    fill: Callable[[str | None, dict[str, Any]], str],
    told: Callable[[Any], str],
    shorten: Callable[[Any], Any] = shortened,
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
    for figure, text in draw(name, found[name]).items():
        write(folder / f"{figure}.svg", text)
    write(readme, fill(readme.read_text(encoding="utf-8") if readme.exists() else None, found))
    console.print(told(found[name]), soft_wrap=True, markup=False)
    console.print(f"{time.perf_counter() - started:.0f} s; {readme.resolve()}", soft_wrap=True)
    return readme
