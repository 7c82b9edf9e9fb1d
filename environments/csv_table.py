"""A CSV file as cells of text, each with its line, and numbers that are checked as they are taken from it."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments.cache import CacheError

_WORDS = {"true": "1", "false": "0"}
_INDEX = ("", "Unnamed: 0")


@dataclass(kw_only=True)
class Table:
    """The cells of a file as text, each with its line; remembers which columns were read."""

    file: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    headers: int
    blank: int
    line_ends: dict[str, int]
    mark: bool
    read: set[int] = field(default_factory=set)

    def first(self, names: Sequence[str]) -> int | None:
        """Place of the first of these columns that is there; it counts as read."""
        for name in names:
            if name in self.header:
                self.read.add(self.header.index(name))
                return self.header.index(name)
        return None

    def fail(self, row: int, column: int, allowed: str) -> NoReturn:
        """Refuse one cell."""
        raise CacheError(
            f"{self.file}, line {self.lines[row]}, column {self.header[column]}: found "
            f"{self.rows[row][column]!r}, allowed is {allowed}"
        )

    def keep(self, where: Mapping[str, str | float]) -> None:
        """Only the rows with these values."""
        for name, value in where.items():
            j = self.first([name])
            if j is None:
                raise CacheError(f"where names column {name!r}, allowed in {self.file} are {self.header}")
            wanted = key(str(value))
            found = [key(row[j]) == wanted for row in self.rows]
            if not any(found):
                present = list(dict.fromkeys(row[j] for row in self.rows))[:20]
                raise CacheError(f"where asks for {name} = {value!r}, allowed in {self.file} are {present}")
            self.rows = [row for row, yes in zip(self.rows, found, strict=True) if yes]
            self.lines = [line for line, yes in zip(self.lines, found, strict=True) if yes]

    def numbers(self, column: int, high: float, whole: bool, words: bool = False) -> FloatArray:
        """One column of numbers in 0..high, infinity never; with words, True and False count as 1 and 0."""
        span = f"{'a whole number' if whole else 'a number'} " + (">= 0" if math.isinf(high) else f"in 0..{high:g}")
        out = np.empty(len(self.rows))
        for i, row in enumerate(self.rows):
            cell = row[column].strip()
            value = number(_WORDS.get(cell.lower(), cell) if words else cell)
            if value is None or not 0.0 <= value <= high or math.isinf(value) or (whole and value != int(value)):
                self.fail(i, column, span)
            out[i] = value
        self.read.add(column)
        return out

    def unread(self) -> tuple[str, ...]:
        """Columns that nobody asked for, but for the unnamed index that pandas writes."""
        return tuple(name for j, name in enumerate(self.header) if j not in self.read and name not in _INDEX)


def number(cell: str) -> float | None:
    """A finite or infinite number; None for anything else, 1_000 and nan among it."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return None if math.isnan(value) or "_" in cell else value


def key(cell: str) -> str | float:
    """What a cell is compared by: 5, 5.0 and " 5" are one value."""
    value = number(cell)
    return cell.strip() if value is None else value


def open_table(path: Path) -> Table:
    """Read a file; line ends of any kind, a byte order mark, empty lines and repeated headers are passed over.

    Raises
    ------
    CacheError
        The file cannot be read, is not text in UTF-8, is empty, or has rows of another length than its header.

    """
    where = f"file {path.name}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CacheError(f"file {path} cannot be read ({error.strerror}), allowed is a CSV file") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise CacheError(
            f"{where}, line {line}: found byte {raw[error.start]:#04x}, allowed is text in UTF-8"
        ) from error
    pairs = raw.count(b"\r\n")
    ends = {r"\r\n": pairs, r"\n": raw.count(b"\n") - pairs, r"\r": raw.count(b"\r") - pairs}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    rows, lines, headers, blank = [], [], 0, 0
    try:
        for row in reader:
            names = [cell.strip() for cell in row]
            if names in ([], [""]):
                blank += 1
            elif header is None:
                header = names
            elif names == header:
                headers += 1
            elif len(row) != len(header):
                raise CacheError(f"{where}, line {reader.line_num}: found {len(row)} values, allowed is {len(header)}")
            else:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise CacheError(f"{where}, line {reader.line_num}: {error}, allowed is a CSV file") from error
    if header is None:
        raise CacheError(f"{where} is empty, allowed is a header and rows")
    if not rows:
        raise CacheError(f"{where} holds a header and no rows, allowed is one row or more")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise CacheError(f"{where}, line 1: columns {twice} stand there twice, allowed are names that differ")
    return Table(
        file=where,
        header=header,
        rows=rows,
        lines=lines,
        headers=headers,
        blank=blank,
        line_ends={end: count for end, count in ends.items() if count},
        mark=raw.startswith(b"\xef\xbb\xbf"),
    )
