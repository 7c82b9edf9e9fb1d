"""No figure in README or docs is typed: each stands in a block that a command wrote, or is a setting that we chose.

Blocks between `<!-- name -->` and `<!-- end -->` are written by `make studies`, `make demo` and `make bench`.  What
remains of a page is prose.  A number there that looks measured (a decimal point, a unit, a share of something, a
hundred or more) must stand, at its own rounding, in a cell of a block of the same page or of a page that its paragraph
links to; that cell must be of the number's unit, and share two words with the paragraph (by its row, its column or the
name of its block).  Or it is a setting: a phrase of `CONSTANTS`, or, in the part of a study that says how it was done,
a number of that study's code or configuration.  Code blocks are run by other tests.

What this cannot see: a digit that turns one cell's number into its neighbour's.  `python tests/test_numbers.py` says
how many of all changes of one digit it does see, page by page.
"""

import ast
import posixpath
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "experiments").rglob("README.md"),
    )
)
WHOLE = "it writes this page, all of it"  # says a page that a command writes from the first line to the last
BLOCK = re.compile(r"^<!-- (?P<name>[^\n>]+?) -->\n(?P<body>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^( *)```.*?^\1```$|^(?: {4}[^\n]*\n)+", re.DOTALL | re.MULTILINE)
PARAGRAPH = re.compile(r"(?:^(?!\s*$)(?:(?!\n *(?:\d+\.|-) )[^\n])+\n?)+", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]+)[^)]*\)")
ASIDE = re.compile(
    r"`[^`]+`|<!--.*?-->|\]\([^)]*\)|https?://\S+|\barXiv \d{4}\.\d{4,5}|\$\$.*?\$\$|\\\(.*?\\\)", re.DOTALL
)
DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(rf"(?<![\w.,])(?<![A-Za-z]-){DIGITS}(?!\w|[.,]\d)")
UNIT = (
    r"%|points?\b|ms\b|µs\b|us\b|ns\b|s\b|(?:milli|micro|nano)?seconds?\b|minutes?\b|hours?\b|[kMG]?B\b|"
    r"(?:mega|kilo)?bytes\b|times\b|x\b|m?J\b|W\b|Mbit/s|of \d"
)
MEASURED = re.compile(rf" ?(?:±\S+ )?(?:{UNIT})")
LISTED = re.compile(r" ?(?:to|and|or|→|against|/|,|±|in place of|not) ?")
ALIKE = (  # what follows a number, and what its cell, row or column must hold then
    (re.compile(r" ?(?:±\S+ )?%"), re.compile(r"%|share|probability")),
    (re.compile(r" ?(?:±\S+ )?points?\b"), re.compile(r"%|points|gain|change")),
    (re.compile(r" ?(?:±\S+ )?ms\b"), re.compile(r"\bms\b|latency|deadline")),
    (re.compile(r" ?(?:±\S+ )?mJ\b"), re.compile(r"mJ")),
)
WORD = re.compile(r"[a-z][a-z0-9_]{2,}|[34]g\b")
FILLING = frozenset(
    WORD.findall(
        "the and for with that which from are its has not one two all but was they this than where what who how more "
        "less same each both into over under only also can have here there nothing mean"
    )
)
SHARED = 2  # words
HOW = re.compile(r"^# |protocol|measured$|compared|Setting|What a log identifies", re.IGNORECASE)
FRONT = ("README.md",)  # quotes its own blocks alone
CONSTANTS = {  # phrases whose numbers are nobody's measurement, and why; a space is any white space
    r"95 % (?:t )?(?:intervals?|quantile|over\b)|intervals? (?:is|are) 95 %|± 95 %|± is the 95 %": "level of intervals",
    r"Python 3\.\d+|earlyon 0\.3|Zensical is at 0\.1|hydra-[a-z-]+ 1\.\d\.\d|Material below 10": "versions",
    r"SHA-256|hash of 128 bits|32 bytes from|mode 0600|0700 is right|take 2 bytes": "formats and permissions",
    r"\((?:\d{3}(?:, )?)+\)|\((?:413|503) [^)]*\)|time \(408\)|(?:with|a) 503": "HTTP statuses",
    r"(?:32|128) x (?:32|128)(?: pixels)?|2 x 2 (?:cells|in)|4 x 4 cells": "shapes",
    r"128 hidden units|At 128 pixels|300 px|modulo 256": "shapes, and values of a pixel",
    r"3,925 (?:test images|under)|400 validation images|7,850 requests": "sizes of the data set's parts, and twice",
    r"(?:MobiSys|JNCA 217,|5 May|\w,) (?:19|20)\d{2}|\((?:19|20)\d{2}\)": "dates",
    r"20,000 (?:rounds|(?:test )?images)|every 2,500 images": "conf/compare.yaml, conf/stream/abrupt.yaml",
    r"at least 55 %|at most 5 points|\.1 per layer, \.5 per offload|mu 1, threshold \.5": "I-SplitEE's",
    r"at most 1\.05 of|Ratios above 1\.05": "what link_change asks for",
    r"at least 65 %|at least 12 points": "what headline asks for",
    r"20,000 decisions|exceeds 400 lines": "test_durable_kills.py, test_architecture.py",
    r"92 to 98 %|92 and 98 % of 200|below 92 %|above 98 %|95 % of all logs": "what offpolicy asks of its intervals",
    r"threshold of \.8|worth \.01 (?:cost units|of cost)": "of an example that runs; mu = 1",
}


@dataclass(frozen=True)
class Figure:
    """A number in the prose of a page that looks measured."""

    text: str
    line: int
    after: str  # what follows it
    words: frozenset[str]  # of its paragraph
    linked: tuple[str, ...]  # pages that its paragraph links to
    how: bool  # it stands where a study says how it was done


@dataclass(frozen=True)
class Cell:
    """A number that a command wrote: in a cell of a table, or in a line of text."""

    value: float
    digits: int
    words: frozenset[str]  # of its block's name, its row and its column
    units: str  # what may say its unit: row, column, and the lines above the table


def words_of(text):
    """Words that tell what a text is about."""
    return frozenset(WORD.findall(text.lower())) - FILLING


def blanked(pattern, text):
    """The text with what matches blanked out, each line in its place."""
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def figures(text, here="README.md"):
    """All numbers in the prose of a page that look measured."""
    text, found, how = blanked(CODE, blanked(BLOCK, text)), [], True
    for paragraph in PARAGRAPH.finditer(text):
        said = paragraph[0]
        if said.startswith("#"):
            how = bool(HOW.search(said.splitlines()[0]))
        bare = blanked(ASIDE, said)
        for phrase in CONSTANTS:
            bare = blanked(re.compile(phrase.replace(" ", r"\s+")), bare)
        flat = bare.replace("\n", " ")
        tokens = list(NUMBER.finditer(flat))
        rests = [flat[token.end() :].lstrip("*") for token in tokens]
        looks, after = [False] * len(tokens), [rest[:20] for rest in rests]
        for i in reversed(range(len(tokens))):
            text_of = tokens[i][0]
            last = i + 1 == len(tokens)
            listed = not last and LISTED.fullmatch(flat[tokens[i].end() : tokens[i + 1].start()]) and looks[i + 1]
            if listed and not MEASURED.match(after[i]):
                after[i] = after[i + 1]  # "3 to 12 ms": both are milliseconds
            looks[i] = bool(
                "." in text_of
                or float(text_of.replace(",", "")) >= 100
                or MEASURED.match(rests[i])
                or flat[: tokens[i].start()].endswith("±")
                or listed
            )
        linked = tuple(page_at(target, here) for target in LINK.findall(said))
        for token, is_one, rest in zip(tokens, looks, after, strict=True):
            if is_one:
                line = text.count("\n", 0, paragraph.start() + token.start()) + 1
                found.append(Figure(token[0], line, rest, words_of(said), linked, how))
    return found


def page_at(target, here):
    """The path of a linked page in the repository."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    return f"{path}/README.md" if (ROOT / path).is_dir() else path


def value_of(text):
    """A number's value and how many decimals it is given with."""
    plain = text.replace(",", "")
    return float(plain), len(plain.partition(".")[2])


def numbers_in(text):
    """Every number of a text, in whatever company."""
    return [value_of(m) for m in re.findall(rf"(?<![\w.]){DIGITS}(?!\d)", text)]


@cache
def cells_of(text):
    """All numbers in the blocks of a page."""
    found = []
    for block in BLOCK.finditer(text):
        heads, caption = None, text[: block.start()].rstrip().rpartition("\n\n")[2]
        for line in block["body"].splitlines():
            if not line.startswith("|"):
                heads, caption = None, line or caption
                found += [Cell(*number, words_of(f"{block['name']} {line}"), line) for number in numbers_in(line)]
                continue
            row = [cell.strip() for cell in line.strip("|").split("|")]
            heads = heads or row
            for head, cell in zip(heads, row, strict=True):
                said = " ".join((block["name"], *row[:3], head, cell))
                words = words_of(said)
                found += [Cell(*number, words, f"{said} {caption}") for number in numbers_in(cell)]
    return tuple(found)


@cache
def written(page):
    """All that commands wrote into a page of the repository."""
    path = ROOT / page
    if path.suffix != ".md" or not path.exists():
        return ()
    text = path.read_text(encoding="utf-8")
    return cells_of(f"<!-- page -->\n{text}\n<!-- end -->" if WHOLE in text else text)


@cache
def chosen(page):
    """Numbers of a study's code and configuration."""
    folder = (ROOT / page).parent
    found = numbers_in("\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "conf").glob(f"{folder.name}.yaml")))
    for path in folder.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found += numbers_in("\n".join(str(n.value) for n in nodes if isinstance(n, ast.Constant)))
    return frozenset(found)


def same(text, value, digits):
    """Whether a number with so many decimals is the one in the text, at the text's own rounding."""
    wanted, given = value_of(text)
    return digits >= given and abs(value - wanted) <= (0.5 * 10.0**-given + 1e-9 if digits > given else 1e-9)


def holds(text, figure, cells, settings=()):
    """Whether a text in a figure's place is a setting, or stands in a cell that speaks of the same."""
    if any(same(text, *number) for number in settings):
        return True
    wanted = [alike for follows, alike in ALIKE if follows.match(figure.after)]
    return any(
        same(text, cell.value, cell.digits)
        and all(alike.search(cell.units) for alike in wanted)
        and len(cell.words & figure.words) >= SHARED
        for cell in cells
    )


def sources(page, text, figure):
    """The cells in which a figure may stand, and the settings that it may be."""
    cells = cells_of(text)
    if page not in FRONT:
        cells += tuple(cell for linked in figure.linked for cell in written(linked))
    return cells, chosen(page) if figure.how and page.startswith("experiments/") else ()


def strays(page, text):
    """Figures of a page that no command prints and nobody chose."""
    return [f for f in figures(text, page) if not holds(f.text, f, *sources(page, text, f))]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_printed_or_chosen(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    if WHOLE not in text:
        found = strays(page, text)
        assert not found, "\n".join(f"{page}:{f.line}: {f.text}, also looked in {f.linked or 'no page'}" for f in found)


PAGE = """# A page

## What came of it

<!-- everybody -->

| policy | cost saved % | latency ms | regret |
| --- | --: | --: | --: |
| splitee | 53.4 ±0.2 | 41.56 | 1,842 |
| isplitee | 60.4 ±0.5 | 37.21 | 936 |

<!-- end -->

"""


@pytest.mark.parametrize(
    "sentence",
    [
        "The policy splitee saves 53.4 ±0.2 % of the cost.",
        "The policy isplitee saves 60 % of the cost, splitee 53.",
        "A latency of splitee: 41.6 ms.  Its regret is 1,842.",
        "`isplitee`, at a latency of 37.21\nms.",
        "At 95 % intervals, two policies, exit 4, three rounds; `x = 12.5`, [here](page-7.5.md).",
        "```python\n0.75\n```",
    ],
)
def test_a_figure_that_is_printed_passes(sentence):
    assert strays("README.md", PAGE + sentence + "\n") == []


@pytest.mark.parametrize(
    ("sentence", "stray"),
    [
        ("The policy splitee saves 53.5 ±0.2 % of the cost.", ["53.5"]),  # one digit
        ("The policy splitee saves 53.4 ±0.3 % of the cost.", ["0.3"]),
        ("The policy isplitee saves 61 % of the cost.", ["61"]),
        ("A latency of splitee: 41.57 ms.", ["41.57"]),
        ("Its regret, of splitee: 1,843.", ["1,843"]),
        ("A latency of splitee: 53.4 ms.", ["53.4"]),  # of another unit
        ("Nobody saves 53.4 % elsewhere.", ["53.4"]),  # of something else
        ("The policy splitee saves 53.40 % of the cost.", ["53.40"]),  # more than was printed
        ("- splitee, cost: 12 to 53.4 %\n- splitee, regret: 17 of 24", ["12", "17", "24"]),
    ],
)
def test_a_figure_that_nobody_printed_is_found(sentence, stray):
    found = [f.text for f in strays("README.md", PAGE + sentence + "\n")]
    assert found == [text for text in stray if text in found] != []


def test_settings_count_where_a_study_says_how_it_was_done_and_nowhere_else():
    """headline.yaml has a price of .3 for the network, and 24,000 rounds."""
    page = "experiments/headline/README.md"
    assert strays(page, "# T\n\nA network at .3 and 24,000 rounds.\n") == []
    found = strays(page, "# T\n\n## Findings\n\nA network at .3 and 24,000 rounds.\n")
    assert [f.text for f in found] == [".3", "24,000"]


def seen(page, text):
    """Of all changes of one digit in a page's figures: how many there are, and how many would be found."""
    tried = caught = 0
    for figure in figures(text, page):
        near = sources(page, text, figure)
        for at in (i for i, c in enumerate(figure.text) if c.isdigit()):
            for digit in set("0123456789") - {figure.text[at]}:
                tried += 1
                caught += not holds(f"{figure.text[:at]}{digit}{figure.text[at + 1 :]}", figure, *near)
    return tried, caught


def test_most_changes_of_one_digit_in_the_front_page_are_noticed():
    tried, caught = seen("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert caught >= 0.7 * tried > 200


if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        page_text = (ROOT / name).read_text(encoding="utf-8")
        if WHOLE not in page_text:
            for f in strays(name, page_text):
                sys.stdout.write(f"{name}:{f.line}: {f.text}: {page_text.splitlines()[f.line - 1].strip()[:150]}\n")
            tried, noticed = seen(name, page_text)
            if tried:
                sys.stdout.write(f"{name}: of {tried} changes of one digit {noticed / tried:.0%} are noticed\n")
