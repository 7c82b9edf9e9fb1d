"""A file as named columns of text or of lists, each row with its line; numbers are checked as they are taken."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.cache import CacheError

ROUNDING = 1e-6  # float32 sums of probabilities end this far beyond 1
_WORDS = {"true": "1", "false": "0"}
_INDEX = re.compile(r"|Unnamed: .*|__index_level_\d+__")
_FROM = r"(?:np\.|numpy\.|torch\.)?"
_SCALAR = re.compile(_FROM + r"(?:tensor|array|u?int\d+|float\d+)\(\s*\[?([^\[\]()]*?)\]?(?:,\s*\w+=[^()]*)?\)")
_VECTOR = re.compile(_FROM + r"(?:tensor|array)\(([\[(].*[\])])(?:,\s*\w+=[^()\[\]]*)*\)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists of numbers, one a row: all values in a row behind each other, and where each row begins, (rows + 1,)."""

    values: FloatArray
    starts: IntArray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> FloatArray:
        return self.values[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> IntArray:
        """Numbers in each row, (rows,)."""
        return np.diff(self.starts)

    def take(self, rows: IntArray) -> "Lists":
        """The lists of these rows, in their order."""
        return Lists.of([self[row] for row in rows])

    @classmethod
    def of(cls, lists: Sequence[FloatArray]) -> "Lists":
        """From one array a row."""
        starts = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
        return cls(values=np.concatenate([np.zeros(0), *lists]), starts=starts)


@dataclass(kw_only=True)
class Table:
    """The columns of a file, each row with its line; remembers which columns were read and which values it clipped."""

    file: str
    header: list[str]
    columns: list[list[str] | Lists]
    lines: list[int]
    headless: bool = False
    headers: int = 0
    blank: int = 0
    line_ends: Mapping[str, int] = field(default_factory=dict)
    mark: bool = False
    read: set[int] = field(default_factory=set)
    clipped: int = 0

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, name: str) -> int | None:
        """Place of a column; capitals count only where two columns differ by nothing else."""
        if name in self.header:
            return self.header.index(name)
        folded = [column.casefold() for column in self.header]
        return folded.index(name.casefold()) if name.casefold() in folded else None

    def first(self, names: Sequence[str]) -> int | None:
        """Place of the first of these columns that is there; it counts as read."""
        for name in names:
            place = self.place(name)
            if place is not None:
                self.read.add(place)
                return place
        return None

    def index(self) -> int | None:
        """Place of the column that pandas writes without a name, if there is one."""
        return next((j for j, name in enumerate(self.header) if _INDEX.fullmatch(name)), None)

    def unread(self) -> tuple[str, ...]:
        """Columns that nobody asked for, but for the unnamed index that pandas writes."""
        return tuple(name for j, name in enumerate(self.header) if j not in self.read and not _INDEX.fullmatch(name))

    def used(self) -> tuple[str, ...]:
        """Columns that were read, in their order."""
        return tuple(self.header[j] for j in sorted(self.read))

    def text(self, place: int) -> list[str]:
        """One column as text."""
        column = self.columns[place]
        if isinstance(column, Lists):
            raise CacheError(f"{self.file}, column {self.header[place]}: found lists, allowed are single values")
        return column

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.file}, line {self.lines[row]}"

    def row(self, row: int) -> list[str]:
        """One row as text, for messages."""
        return [str(column[row]) for column in self.columns]

    def fail(self, row: int, place: int, allowed: str) -> NoReturn:
        """Refuse one cell."""
        found = repr(self.columns[place][row])
        found = found if len(found) < 80 else found[:77] + "..."
        raise CacheError(f"{self.where(row)}, column {self.header[place]}: found {found}, allowed is {allowed}")

    def keep(self, where: Mapping[str, str | float]) -> None:
        """Only the rows with these values."""
        for name, value in where.items():
            place = self.first([name])
            if place is None:
                raise CacheError(f"where names column {name!r}, allowed in {self.file} are {self.header}")
            wanted, cells = key(str(value)), self.text(place)
            rows = np.flatnonzero([key(cell) == wanted for cell in cells])
            if not len(rows):
                present = list(dict.fromkeys(cells))[:20]
                raise CacheError(f"where asks for {name} = {value!r}, allowed in {self.file} are {present}")
            self.columns = [c.take(rows) if isinstance(c, Lists) else [c[i] for i in rows] for c in self.columns]
            self.lines = [self.lines[i] for i in rows]

    def numbers(self, place: int, high: float, whole: bool, words: bool = False) -> FloatArray:
        """One column of numbers in 0..high, infinity never; with words, True and False count as 1 and 0."""
        span = f"{'a whole number' if whole else 'a number'} " + (">= 0" if math.isinf(high) else f"in 0..{high:g}")
        slack = 0.0 if whole else ROUNDING
        out = np.empty(len(self))
        for i, cell in enumerate(self.text(place)):
            value = number(_WORDS.get(cell.strip().lower(), cell) if words else cell)
            if value is None or math.isinf(value) or not -slack <= value <= high + slack:
                self.fail(i, place, span)
            if whole and value != int(value):
                self.fail(i, place, span)
            out[i] = value
        self.read.add(place)
        return self.bounded(out, high)

    def bounded(self, values: FloatArray, high: float) -> FloatArray:
        """Values that rounding left beyond 0..high put back, and counted."""
        self.clipped += int(((values < 0.0) | (values > high)).sum())
        clipped: FloatArray = np.clip(values, 0.0, high)
        return clipped

    def lists(self, place: int) -> Lists:
        """One column of lists of numbers: of a Parquet file, or as text such as "[0.25, 0.75]"."""
        self.read.add(place)
        column = self.columns[place]
        if isinstance(column, Lists):
            return column
        rows = []
        for i, cell in enumerate(column):
            found = vector(cell)
            if found is None:
                self.fail(i, place, 'a list of numbers, "[0.25, 0.75]"')
            rows.append(found)
        return Lists.of(rows)


def number(cell: str) -> float | None:
    """A finite or infinite number, also as "[0.5]" or "tensor(0.5)"; None for anything else, 1_000 and nan among it."""
    try:
        value = float(cell)
    except ValueError:
        inner = _inner(cell)
        return None if inner is None else number(inner)
    return None if math.isnan(value) or "_" in cell else value


def _inner(cell: str) -> str | None:
    """What the one pair of brackets or call around a single value encloses."""
    text = cell.strip()
    found = _SCALAR.fullmatch(text) or re.fullmatch(r"\[([^\[\]]*)\]", text)
    return found[1] if found and found[1] != text else None


def vector(cell: str) -> FloatArray | None:
    """A flat list of finite numbers, as Python, numpy or torch print one; None for anything else."""
    text = cell.strip()
    called = _VECTOR.fullmatch(text)
    text = called[1].strip() if called else text
    if len(text) < 2 or text[0] + text[-1] not in ("[]", "()"):
        return None
    values = _json(f"[{text[1:-1]}]")
    if values is None:
        body = _SCALAR.sub(r"\1", text[1:-1]).strip()
        body = body[1:-1] if body[:1] + body[-1:] in ("[]", "()") else body
        values = [number(part) for part in body.replace(",", " ").split()]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values):
        return None
    return np.array(values, dtype=np.float64)


def _json(text: str) -> list[Any] | None:
    try:
        found: list[Any] = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def key(cell: str) -> str | float:
    """What a cell is compared by: 5, 5.0 and " 5" are one value."""
    value = number(cell)
    return cell.strip() if value is None else value


def codes(column: Sequence[str]) -> npt.NDArray[np.int64]:
    """A number for each value of a column, in the order in which they first occur, (rows,)."""
    seen: dict[str | float, int] = {}
    return np.array([seen.setdefault(key(cell), len(seen)) for cell in column], dtype=np.int64)
