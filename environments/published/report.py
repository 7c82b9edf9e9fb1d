"""What was found in a published file: what of it was read, what was left out, and what stands in for the missing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """An account of one file; every row of it is a sample under a condition, or is counted among the dropped.

    Attributes
    ----------
    file, layout, base
        Name of the file and of its layout; the number its first exit bears.
    rows
        Rows of data in the file.
    samples, conditions, exits
        Number of samples; names of conditions and exits in the cache.
    filtered, repeated
        Rows that `where` left out; rows that only repeat a sample for another value of a column such as p_tar.
    dropped
        How many of what were left out, the two above among them.
    identical
        Samples kept although they say the same as an earlier one: two may, a file written twice always does.
    headers, blank
        Headers repeated among the rows, and empty lines: skipped.
    line_ends, byte_order_mark
        How often each line end occurs; whether the file begins with a mark.
    confidences
        False = the file has none.
    missing
        Of "confidence", "correct", "prediction", "label", "times": what has no column.
    used, unread
        Columns that were read; columns without a meaning here.
    clipped
        Confidences within rounding of 0 or 1 that were put back into 0..1.
    mean_times, time_unit
        Mean per exit of the times that the file holds, and their unit: "ms", "s" or "unknown".
    notes
        What a reader of the cache should know; above all, what stands in for the missing.

    """

    file: str
    layout: str
    base: int
    rows: int
    samples: int
    conditions: tuple[str, ...]
    exits: tuple[str, ...]
    filtered: int
    repeated: int
    dropped: Mapping[str, int]
    identical: int
    headers: int
    blank: int
    line_ends: Mapping[str, int]
    byte_order_mark: bool
    confidences: bool
    missing: tuple[str, ...]
    used: tuple[str, ...]
    unread: tuple[str, ...]
    clipped: int
    mean_times: Mapping[str, tuple[float, ...]]
    time_unit: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a cache keeps them in its notes."""
        return asdict(self)

    def __str__(self) -> str:
        ends = ", ".join(f"{count:,} x {end}" for end, count in self.line_ends.items())
        lines = {
            "layout": self.layout,
            "rows": f"{self.rows:,}" + (f" ({ends})" if ends else ""),
            "kept": f"{self.samples:,} samples x {len(self.conditions)} conditions x {len(self.exits)} exits",
            "exits": f"{', '.join(self.exits)} (the first is number {self.base} in the file)",
            "conditions": ", ".join(self.conditions),
            "dropped": "; ".join(f"{count:,} {what}" for what, count in self.dropped.items()) or "nothing",
            "skipped": f"{self.headers:,} repeated headers, {self.blank:,} empty lines",
            "identical": f"{self.identical:,} samples say the same as an earlier one"
            * bool(self.identical and self.confidences),
            "clipped": f"{self.clipped:,} confidences within rounding of 0..1" if self.clipped else "",
            "columns": ", ".join(self.used),
            "not used": ", ".join(self.unread) or "none",
            "missing": ", ".join(self.missing) or "nothing",
            "times": "; ".join(
                f"{role.replace('_', ' ')} {', '.join(f'{x:.4g}' for x in means)} ({self.time_unit})"
                for role, means in self.mean_times.items()
            ),
            "notes": "; ".join(self.notes),
        }
        shown = [f"  {name:<11}{text}" for name, text in lines.items() if text]
        return "\n".join([self.file, *shown])
