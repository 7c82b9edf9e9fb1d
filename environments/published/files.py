"""Opens a published file: comma- or tab-separated text, packed by gzip or not, or Parquet.  A pickle is never read."""

import csv
import gzip
import importlib
import io
import itertools
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from offramp.environments.cache import CacheError
from offramp.environments.published.table import Lists, Table, number

LARGEST = 4_000_000_000  # bytes after unpacking
_PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth")
_CONVERT = (
    'python -c "import pandas as pd; d = pd.read_pickle({name!r}); '
    "[f.to_parquet(f'{{k}}.parquet') for k, f in (d if isinstance(d, dict) else {{'published': d}}).items()]\""
)


def open_table(path: Path) -> Table:
    """Read a file; line ends of any kind, a byte order mark, empty lines and repeated headers are passed over.

    Raises
    ------
    CacheError
        The file cannot be read, is a pickle, is not text in UTF-8, is empty, or has rows of another length than its
        header.

    """
    where = f"file {path.name}"
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise CacheError(f"file {path} cannot be read ({error.strerror}), allowed is a CSV file") from error
    raw = _unpacked(raw, where)
    if len(raw) > LARGEST:
        raise CacheError(f"{where} is longer than {LARGEST} bytes, allowed is a smaller one")
    if path.suffix.lower() in _PICKLES or (raw[:1] == b"\x80" and raw[1:2] <= b"\x05"):
        raise CacheError(
            f"{where} is a pickle, allowed are text and Parquet: opening a pickle runs whatever code it names, so none "
            f"is opened here.  Where you trust it, convert it with\n  {_CONVERT.format(name=path.name)}\nand import "
            "the Parquet files"
        )
    return _parquet(raw, where) if raw[:4] == b"PAR1" else _text(raw, where)


def _unpacked(raw: bytes, where: str) -> bytes:
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            return file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CacheError(f"{where} cannot be unpacked ({error}), allowed is a whole gzip file") from error


def _text(raw: bytes, where: str) -> Table:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise CacheError(
            f"{where}, line {line}: found byte {raw[error.start]:#04x}, allowed is text in UTF-8"
        ) from error
    pairs = raw.count(b"\r\n")
    ends = {r"\r\n": pairs, r"\n": raw.count(b"\n") - pairs, r"\r": raw.count(b"\r") - pairs}
    first = next((line for line in text.splitlines() if line.strip()), "")
    between = "\t" if first.count("\t") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    header: list[str] | None = None
    headless, headers, blank = False, 0, 0
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            names = [cell.strip() for cell in row]
            if names in ([], [""]):
                blank += 1
                continue
            if header is None:
                headless = _is_data(names)
                header = [f"column {j + 1}" for j in range(len(names))] if headless else names
                if not headless:
                    continue
            if names == header:
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
    _named_once(header, f"{where}, line 1")
    return _filled(
        Table(
            file=where,
            header=header,
            columns=[list(column) for column in zip(*rows, strict=True)],
            lines=lines,
            headless=headless,
            headers=headers,
            blank=blank,
            line_ends={end: count for end, count in ends.items() if count},
            mark=raw.startswith(b"\xef\xbb\xbf"),
        )
    )


def _is_data(names: list[str]) -> bool:
    """Is the first line data?  It is where it holds numbers alone, unless they count the columns."""
    values = [number(name) for name in names]
    if any(value is None for value in values):
        return False
    return any(b - a != 1 for a, b in itertools.pairwise(v for v in values if v is not None))


def _named_once(header: list[str], where: str) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise CacheError(f"{where}: columns {twice} stand there twice, allowed are names that differ")


def _filled(table: Table) -> Table:
    if not len(table):
        raise CacheError(f"{table.file} holds a header and no rows, allowed is one row or more")
    return table


def _parquet(raw: bytes, where: str) -> Table:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise CacheError(f"{where} is Parquet, which needs {error.name}: pip install 'offramp[experiments]'") from error
    try:
        read = parquet.read_table(arrow.BufferReader(raw))
    except (arrow.ArrowException, OSError) as error:
        raise CacheError(f"{where} is damaged ({error}), allowed is a whole Parquet file") from error
    header = [str(name).strip() for name in read.column_names]
    _named_once(header, where)
    columns = [
        _column(column.combine_chunks(), arrow, f"{where}, column {name}")
        for name, column in zip(header, read.columns, strict=True)
    ]
    return _filled(Table(file=where, header=header, columns=columns, lines=list(range(1, read.num_rows + 1))))


def _column(column: Any, arrow: Any, where: str) -> list[str] | Lists:
    """A column of single values as text, which repeats a float to the bit, or one of lists as numbers."""
    if hasattr(column, "num_chunks"):  # a column without rows keeps its chunks
        column = arrow.concat_arrays(column.chunks) if column.num_chunks else arrow.array([], column.type)
    kind = column.type
    if not (arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    inner = kind.value_type
    number_like = arrow.types.is_floating(inner) or arrow.types.is_integer(inner)
    if not number_like or column.null_count or column.flatten().null_count:
        raise CacheError(f"{where}: found {kind} with {column.null_count} missing, allowed are lists of numbers")
    lengths = np.array(column.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
    return Lists(values=values, starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
