"""Readers of recorded links: the three public forms, recognised by their content, in one list of segments."""

import json
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

Segment = tuple[float, float, float | None]  # ms, Mbit/s, round trip in ms where the form has one

FORMS = ("json", "seconds", "mahimahi")
KEYS = ("duration_ms", "bandwidth_kbps", "latency_ms")
PACKET = 1_500  # bytes of one Mahimahi opportunity
SILENCE_MS = 1_000.0  # a longer wait for the next packet is an outage, a shorter one a slow link
FASTEST_MBIT_S = 10_000.0  # of a recorded mobile or home link; beyond it the unit is another
EPOCH_S = 1e8  # three years: no trace starts there, a clock does
MOST = 1e15  # of anything
SLOWEST_MS = 60_000.0  # round trip
STEP_S = 500.0  # median step from which seconds are taken for milliseconds
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class TraceError(ValueError):
    """A trace that cannot be read: says where, what was read, and what was expected."""


def read_segments(path: str | Path, form: str | None = None) -> list[Segment]:
    """Read a recorded link.

    Parameters
    ----------
    path
        A text file.  Any line ends, and empty lines, are read alike.
    form
        "json": a list of {duration_ms, bandwidth_kbps, latency_ms}, each segment with its length, rate, and round
        trip (the simulator that publishes this form waits the latency once per request).
        "seconds": lines `seconds Mbit/s` with increasing times; the rate of a line holds until its time, from that of
        the line before.  The first holds from 0, where it is not later than the longest step that follows, and else
        only says when the recording starts.
        "mahimahi": one whole number of milliseconds per line, not decreasing, each the chance to send a packet of
        1,500 bytes; the last is the length of the trace.  The bytes of a packet are spread over the wait for it, where
        that is at most 1,000 ms; a longer wait is an outage, but for its last millisecond.
        None = recognised by the first line.

    Returns
    -------
    list of (ms, Mbit/s, round trip in ms or None)
        Lengths > 0; a rate of 0 is an outage.

    Raises
    ------
    TraceError
        With file, line, what was read and what was expected.

    """
    if form is not None and form not in FORMS:
        raise ValueError(f"form is {form!r}, allowed are {FORMS}, or None: recognised by the content")
    where = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TraceError(f"{where} cannot be read ({error.strerror}), expected is a text file") from error
    except UnicodeDecodeError as error:
        raise TraceError(
            f"{where}: byte {error.start} is no UTF-8 text, expected is one of the forms {FORMS}"
        ) from error
    lines = [(n, line.split()) for n, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    if not lines:
        raise TraceError(f"{where}: the file is empty, expected is one of the forms {FORMS}")
    chosen = form or _recognised(text, lines[0][1], where, lines[0][0])
    if chosen == "json":
        made = _json(text, where)
    else:
        made = _seconds(lines, where) if chosen == "seconds" else _mahimahi(lines, where)
    if not any(rate > 0.0 for _, rate, _ in made):
        raise TraceError(f"{where}: all {len(made)} rates are 0, expected is at least one rate > 0")
    return made


def _recognised(text: str, first: list[str], where: str, line: int) -> str:
    if text.lstrip()[0] in "[{":
        return "json"
    if len(first) not in (1, 2):
        expected = "a JSON list, `seconds Mbit/s`, or one whole number of milliseconds"
        raise TraceError(f"{where}, line {line}: {' '.join(first)[:60]!r} was read, expected is {expected}")
    return "mahimahi" if len(first) == 1 else "seconds"


def _refuse_rate(at: str, mbit_s: float, read: str) -> None:
    if not 0.0 <= mbit_s <= FASTEST_MBIT_S:
        expected = f"0..{FASTEST_MBIT_S:,.0f} Mbit/s; is it in another unit?"
        raise TraceError(f"{at}: {read} was read, which is {mbit_s:g} Mbit/s, expected is a rate in {expected}")


def _json(text: str, where: str) -> list[Segment]:
    expected = "a list of {duration_ms, bandwidth_kbps, latency_ms}"
    try:
        read: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"{where}, line {error.lineno}: no JSON ({error.msg}), expected is {expected}") from error
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{where}: no JSON that can be read ({error}), expected is {expected}") from error
    if not isinstance(read, list) or not read:
        raise TraceError(f"{where}, line 1: {_short(read)} was read, expected is {expected}, at least one")
    made: list[Segment] = []
    for n, entry in enumerate(read):
        if not isinstance(entry, dict) or not set(KEYS) <= set(entry):
            raise TraceError(f"{_entry(text, where, n)}: {_short(entry)} was read, expected are the numbers {KEYS}")
        for key in KEYS:
            value = entry[key]
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= MOST:
                raise TraceError(f"{_entry(text, where, n)}: {key} is {_short(value)}, expected is a number >= 0")
        ms, kbit_s, trip = (float(entry[key]) for key in KEYS)
        if ms == 0.0:
            raise TraceError(f"{_entry(text, where, n)}: duration_ms is 0, expected is a number > 0")
        if trip > SLOWEST_MS:
            expected = f"a round trip in ms, at most {SLOWEST_MS:,.0f}; is it in another unit?"
            raise TraceError(f"{_entry(text, where, n)}: latency_ms is {trip:g}, expected is {expected}")
        if not 0.0 <= kbit_s / 1e3 <= FASTEST_MBIT_S:
            _refuse_rate(_entry(text, where, n), kbit_s / 1e3, f"bandwidth_kbps {kbit_s:g}")
        made.append((ms, kbit_s / 1e3, trip))
    return made


def _entry(text: str, where: str, n: int) -> str:
    """Where the n-th entry of a JSON list is: its line as well, as long as entries lie flat in the list."""
    starts = [found.start() for found in re.finditer(r"\{", text)]
    line = f", line {text.count(chr(10), 0, starts[n]) + 1}" if n < len(starts) else ""
    return f"{where}{line}, entry {n + 1}"


def _short(read: Any) -> str:
    shown = repr(read)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _numbers(
    lines: list[tuple[int, list[str]]], where: str, wanted: int, form: str
) -> Iterator[tuple[int, list[float]]]:
    for n, words in lines:
        if len(words) != wanted or not all(NUMBER.fullmatch(word) for word in words):
            raise TraceError(f"{where}, line {n}: {' '.join(words)[:60]!r} was read, expected is {form}")
        numbers = [float(word) for word in words]
        if not all(-MOST <= x <= MOST for x in numbers) or numbers[0] < 0.0:
            raise TraceError(f"{where}, line {n}: {' '.join(words)[:60]!r} was read, expected is a time >= 0")
        yield n, numbers


def _seconds(lines: list[tuple[int, list[str]]], where: str) -> list[Segment]:
    times: list[float] = []
    rates: list[float] = []
    for n, (seconds, mbit_s) in _numbers(lines, where, 2, "`seconds Mbit/s`, two numbers"):
        at = f"{where}, line {n}"
        if times and seconds <= times[-1]:
            raise TraceError(f"{at}: time {seconds:g} s after {times[-1]:g} s was read, expected are increasing times")
        if not times and seconds >= EPOCH_S:
            raise TraceError(f"{at}: time {seconds:.0f} s was read, a clock's; expected are seconds from the start")
        _refuse_rate(at, mbit_s, f"{mbit_s:g}")
        times.append(seconds)
        rates.append(mbit_s)
    steps = [after - before for before, after in pairwise(times)]
    if not steps:
        expected = "two or more: the rate of a line holds until its time, from that of the line before"
        raise TraceError(f"{where}: one line of `seconds Mbit/s` was read, expected are {expected}")
    if sorted(steps)[len(steps) // 2] >= STEP_S:
        raise TraceError(
            f"{where}: steps of {sorted(steps)[len(steps) // 2]:g} were read, expected are seconds, not ms"
        )
    if 0.0 < times[0] <= max(steps):
        steps.insert(0, times[0])
    return [(1e3 * step, rate, None) for step, rate in zip(steps, rates[-len(steps) :], strict=True)]


def _mahimahi(lines: list[tuple[int, list[str]]], where: str) -> list[Segment]:
    form = "a whole number of milliseconds (a packet of 1,500 bytes may be sent then)"
    packets: dict[float, int] = {}
    last = 0.0
    for n, (ms,) in _numbers(lines, where, 1, form):
        if ms != math.floor(ms):
            raise TraceError(f"{where}, line {n}: {ms:g} was read, expected is {form}; are these seconds?")
        if ms < last:
            raise TraceError(
                f"{where}, line {n}: {ms:.0f} ms after {last:.0f} ms was read, expected is no earlier time"
            )
        if not packets and ms >= EPOCH_S:
            raise TraceError(f"{where}, line {n}: {ms:.0f} ms was read, a clock's; expected are ms from the start")
        last = ms
        packets[max(ms, 1.0)] = packets.get(max(ms, 1.0), 0) + 1
    if last == 0.0:
        raise TraceError(f"{where}: the last time is 0 ms, expected is the length of the trace, > 0 ms")
    made: list[Segment] = []
    before = 0.0
    for ms, count in packets.items():
        wait = ms - before
        if wait > SILENCE_MS:
            made.append((wait - 1.0, 0.0, None))
            wait = 1.0
        rate = count * PACKET * 8e-3 / wait
        _refuse_rate(f"{where}, {count} lines of {ms:.0f} ms", rate, f"{count} packets in {wait:.0f} ms")
        made.append((wait, rate, None))
        before = ms
    return made
