"""How result.json keeps rows: the columns' names once, then the values."""

import math
from typing import Any


def packed(value: Any) -> Any:
    """The same with each list of rows as its columns' names, once, and the rows' values; `unpacked` undoes it."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value)
    ):
        return {"columns": list(value[0]), "rows": [list(row.values()) for row in value]}
    return {k: packed(v) for k, v in value.items()} if isinstance(value, dict) else value


def unpacked(value: Any) -> Any:
    """Numbers of one cache as result.json keeps them, as they were measured; nan where it has nothing."""
    if isinstance(value, dict) and value.keys() == {"columns", "rows"}:
        rows = ([math.nan if x is None else x for x in row] for row in value["rows"])
        return [dict(zip(value["columns"], row, strict=True)) for row in rows]
    return {k: unpacked(v) for k, v in value.items()} if isinstance(value, dict) else value
