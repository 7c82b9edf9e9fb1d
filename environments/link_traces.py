"""Recorded links: segments of measured rate, read from a file, or one of the mobile traces that ship along."""

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from offramp.environments.link_trace_forms import read_segments
from offramp.environments.links import (
    Energy,
    LinkArrays,
    link_arrays,
    refuse_duration,
    refuse_rate,
    refuse_round_trip,
)

SHIPPED = Path(__file__).parent / "mobile_traces.json"


@dataclass(frozen=True, kw_only=True)
class LinkTrace:
    """A recorded link, which starts again after its end; make one with `read` or `embedded`, or from segments.

    Parameters
    ----------
    segments
        (length in ms, rate in Mbit/s, round trip in ms) of each; lengths > 0; a rate of 0 is an outage, and at least
        one rate is above it.
    name
        What reports call it.
    scale
        Factor on all rates, > 0: for instance 0.2 where a downlink stands for an uplink.
    start_ms
        Where in the trace the world begins, in [0, length of the trace).
    energy
        What the radio draws.

    Examples
    --------
    >>> from offramp.environments.link_traces import LinkTrace
    >>> from offramp.environments.links import transfer_end
    >>> trace = LinkTrace(segments=((10.0, 8.0, 20.0), (10.0, 0.0, 20.0), (10.0, 1.6, 20.0)))
    >>> made = trace.arrays(duration_ms=30.0, seed=0)
    >>> transfer_end(made, 5.0, 6_000.0)  # 5 ms at 1,000 bytes per ms, an outage, 5 ms at 200
    25.0

    """

    segments: tuple[tuple[float, float, float], ...] = field(repr=False)
    name: str = ""
    scale: float = 1.0
    start_ms: float = 0.0
    energy: Energy = field(default_factory=Energy)

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("segments are empty, allowed is one or more (ms, mbit_s, round_trip_ms)")
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}, allowed is a finite factor > 0")
        made = []
        for k, segment in enumerate(self.segments):
            if len(segment) != 3:
                raise ValueError(f"segments[{k}] is {segment}, allowed is (ms, mbit_s, round_trip_ms)")
            ms, rate, trip = (float(x) for x in segment)
            if not 0.0 < ms < math.inf:
                raise ValueError(f"segments[{k}][0] is {ms}, allowed is a length in ms > 0")
            refuse_rate(f"segments[{k}][1] times scale", rate * self.scale)
            refuse_round_trip(f"segments[{k}][2]", trip)
            made.append((ms, rate, trip))
        object.__setattr__(self, "segments", tuple(made))
        if not any(rate > 0.0 for _, rate, _ in made):
            raise ValueError(f"all {len(made)} rates of the segments are 0, allowed is at least one rate > 0")
        if not 0.0 <= self.start_ms < self.length_ms:
            raise ValueError(f"start_ms is {self.start_ms}, allowed is a time within the trace, [0, {self.length_ms})")

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        form: str | None = None,
        round_trip_ms: float | None = None,
        scale: float = 1.0,
        start_ms: float = 0.0,
        energy: Energy | None = None,
    ) -> "LinkTrace":
        """Read a trace from a file, at once: what changes in the file later does not change the link.

        Parameters
        ----------
        path, form
            As `offramp.environments.link_trace_forms.read_segments` takes them.
        round_trip_ms
            Round trip in place of the recorded one, >= 0; needed for the forms that record none ("json" always does).
        scale, start_ms, energy
            As above.

        """
        read = read_segments(path, form)
        if round_trip_ms is None and any(trip is None for _, _, trip in read):
            raise ValueError(
                f"{path}: this form records no round trip; round_trip_ms is None, allowed is a number of ms"
            )
        segments = tuple((ms, rate, _either(round_trip_ms, trip)) for ms, rate, trip in read)
        name = Path(path).stem
        return cls(segments=segments, name=name, scale=scale, start_ms=start_ms, energy=energy or Energy())

    @classmethod
    def embedded(
        cls, name: str, *, scale: float = 1.0, start_ms: float = 0.0, energy: Energy | None = None
    ) -> "LinkTrace":
        """One of the 24 measured mobile traces that ship with the package; `embedded_traces` names them.

        They are downlinks, and an uplink is usually slower: where one prices an upload, say so, or scale it.  Their
        round trip is the one constant that their publisher gave each set: 100 ms for 3G, 20 ms for 4G.

        Notes
        -----
        3g: Riiser, Vigmostad, Griwodz, Halvorsen, "Commute path bandwidth traces from 3G networks", MMSys 2013.
        4g: van der Hooft et al., "HTTP/2-based adaptive streaming of HEVC video over 4G/LTE networks", IEEE
        Communications Letters, 2016.  Both in the form and under the licence of Sabre (UMass-LIDS/sabre,
        BSD-2-Clause), which the file holds.

        """
        shipped = _shipped()["traces"]
        if name not in shipped:
            raise ValueError(f"embedded trace {name!r} does not exist, allowed are {sorted(shipped)}")
        trace = shipped[name]
        pairs = zip(trace["duration_ms"], trace["kbit_s"], strict=True)
        segments = tuple((ms, kbit_s / 1e3, trace["round_trip_ms"]) for ms, kbit_s in pairs)
        return cls(segments=segments, name=name, scale=scale, start_ms=start_ms, energy=energy or Energy())

    @property
    def length_ms(self) -> float:
        """How long the trace is before it starts again, ms."""
        return sum(ms for ms, _, _ in self.segments)

    @property
    def mean_mbit_s(self) -> float:
        """Its mean rate over time, scaled, Mbit/s."""
        return self.scale * sum(ms * rate for ms, rate, _ in self.segments) / self.length_ms

    def arrays(self, *, duration_ms: float, seed: int) -> LinkArrays:
        """The whole trace from `start_ms` on, what lies before it at the end; the same for every duration and seed."""
        refuse_duration(duration_ms)
        lengths, rates, trips = np.array(self.segments).T
        ends = np.cumsum(lengths)
        first = int(np.searchsorted(ends, self.start_ms, side="right").clip(0, len(ends) - 1))
        used = max(0.0, self.start_ms - (ends[first] - lengths[first]))
        order = np.concatenate([np.arange(first, len(ends)), np.arange(first + 1)])
        turned = lengths[order]
        turned[0] -= used
        turned[-1] = used
        return link_arrays(turned, rates[order] * self.scale, trips[order])


def embedded_traces() -> tuple[str, ...]:
    """Names of the traces that ship with the package, 12 of 3G and 12 of 4G."""
    return tuple(sorted(_shipped()["traces"]))


def _either(given: float | None, recorded: float | None) -> float:
    chosen = recorded if given is None else given
    assert chosen is not None
    return chosen


@lru_cache
def _shipped() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return read
