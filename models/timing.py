"""Measures how many milliseconds the machine at hand needs for each segment, exit head and router of a network."""

import itertools
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns, sleep

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from offramp.environments.cache import Profile
from offramp.environments.devices import DeviceProfile, Quartiles
from offramp.models.data import normalise
from offramp.models.distort import Images
from offramp.models.experts import PRISTINE, Experts
from offramp.models.extract import profile_of
from offramp.models.network import MultiExitNetwork
from offramp.models.router import Router
from offramp.models.weights import model_hash

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]  # repeats done, in all
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, eq=False, kw_only=True)
class Timing:
    """Every time that was taken, in milliseconds for one image; R repeats, L exits.

    Parameters
    ----------
    segments, heads
        (R, L); the first segment includes turning 8-bit images into what the network reads, a head the softmax and its
        largest probability.
    router
        (R,); None without a router.
    whole
        All segments and the last head in one go, (R,).
    batch, threads
        Images that were passed at once; threads that computed.
    network, work
        SHA-256 of its weights; what it asks for.
    pace
        Seconds of rest before each pass; 0 = one pass right after the other.

    """

    segments: Floats
    heads: Floats
    router: Floats | None
    whole: Floats
    batch: int
    threads: int
    network: str
    work: Profile
    pace: float = 0.0

    @property
    def gap(self) -> float:
        """Sum of the medians of all segments and the last head over the median of the whole, less 1."""
        parts = np.median(self.segments, 0).sum() + np.median(self.heads[:, -1])
        return float(parts / np.median(self.whole) - 1.0)

    def profile(self, *, name: str | None = None, power_w: float | None = None) -> DeviceProfile:
        """Medians and quartiles as the profile of this machine.

        Parameters
        ----------
        name
            What to call it; None = its processor.
        power_w
            Watts that it draws while computing, where known.

        """
        processor, rest = processor_name(), f", {self.pace:g} s of rest before each pass" if self.pace else ""
        return DeviceProfile(
            name=processor if name is None else name,
            network=self.network,
            segment_ms=_medians(self.segments),
            head_ms=_medians(self.heads),
            router_ms=_medians(self.router[:, None])[0] if self.router is not None else 0.0,
            power_w=power_w,
            work=self.work,
            segment_quartiles_ms=_quartiles(self.segments),
            head_quartiles_ms=_quartiles(self.heads),
            router_quartiles_ms=_quartiles(self.router[:, None])[0] if self.router is not None else None,
            whole_ms=_medians(self.whole[:, None])[0],
            batch=self.batch,
            threads=self.threads,
            repeats=len(self.whole),
            source=(
                f"measured on {processor}, {os.cpu_count()} cores, torch {torch.__version__.split('+')[0]}, 32-bit "
                f"floats, {'without' if self.router is None else 'with'} a router; "
                f"medians of {len(self.whole)} repeats{rest}"
            ),
        )


def processor_name() -> str:
    """What the machine calls its processor."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(
    network: MultiExitNetwork,
    *,
    experts: Experts | None = None,
    router: Router | None = None,
    batch: int = 1,
    warm_up: int = 20,
    repeats: int = 200,
    threads: int = 1,
    pace: float = 0.0,
    progress: Progress = lambda done, total: None,
    rest: Callable[[float], None] = sleep,
) -> Timing:
    """Take the time of every part, one part after the other, again and again.

    In each repeat all parts run once in the order in which an image passes them, so that whatever else the machine does
    hits all of them alike; the whole network runs in one go before the parts and after them in turn.

    Parameters
    ----------
    network
        On the processor, in the memory order in which it will run; switched to evaluation.
    experts
        Time an expert's exits, which are all of one form, in place of the network's own.
    router
        Time it as well.
    batch
        Images passed at once, >= 1; a device that answers requests passes one.
    warm_up, repeats
        Repeats that are not counted, >= 0, and that are, >= 1.
    threads
        Threads that compute, >= 1; the number from before comes back at the end.
    pace
        Seconds of rest before each pass, >= 0: in every repeat before its parts and before its whole, those that do not
        count among them.  Passes in a loop find the processor's caches as the last pass left them; requests that come
        one at a time do not, and take longer (`offramp live` measures how much).  Give the time between two requests
        where the profile is to foretell a live edge, and 0 where one machine or network is held against another.
    progress
        Called after every repeat that counts.
    rest
        What waits for so many seconds.

    Raises
    ------
    ValueError
        A number is out of range, the experts are of another network, or the router reads images of another size.

    """
    for name, value, least in (("batch", batch, 1), ("warm_up", warm_up, 0), ("repeats", repeats, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, allowed is a whole number, {least} or more")
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads!r}, allowed is a whole number, 1 or more")
    if isinstance(pace, bool) or not isinstance(pace, int | float) or not 0.0 <= pace < math.inf:
        raise ValueError(f"pace is {pace!r}, allowed are finite seconds >= 0")
    if experts is not None and experts.network is not network:
        raise ValueError("experts are of another network, allowed are exits over the network that is measured")
    channels, height, width = network.input_shape
    if router is not None and (router.side, router.side) != (height, width):
        raise ValueError(f"the router reads {router.side} pixels a side, allowed are {height} as the network")
    heads: Sequence[nn.Module] = list(network.heads) if experts is None else experts[PRISTINE]
    images = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    network.eval()
    for part in (*heads, *([router] if router is not None else [])):
        part.eval()
    exits = network.n_exits
    taken = np.zeros((repeats, 2 * exits + 2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for turn in range(-warm_up, repeats):
                row = np.zeros(2 * exits + 2)
                for whole in (turn % 2 == 1, turn % 2 == 0):
                    if pace:
                        rest(pace)
                    if whole:
                        row[-1] = _whole(network, heads[-1], images)
                    else:
                        row[:-1] = _parts(network, heads, router, images)
                if turn >= 0:
                    taken[turn] = row / (1e6 * batch)
                    progress(turn + 1, repeats)
    finally:
        torch.set_num_threads(before)
    return Timing(
        segments=taken[:, 1 : 2 * exits : 2],
        heads=taken[:, 2 : 2 * exits + 1 : 2],
        router=None if router is None else taken[:, 0],
        whole=taken[:, -1],
        batch=batch,
        threads=threads,
        network=model_hash(network),
        work=profile_of(network, experts, 0 if router is None else router.macs),
        pace=float(pace),
    )


def _parts(network: MultiExitNetwork, heads: Sequence[nn.Module], router: Router | None, images: Images) -> list[int]:
    """Nanoseconds of the router, then of each segment and its head in turn."""
    stamps = [perf_counter_ns()]
    if router is not None:
        router(images)
    stamps.append(perf_counter_ns())
    x = normalise(images)
    for segment, head in zip(network.segments, heads, strict=True):
        x = segment(x)
        stamps.append(perf_counter_ns())
        _spoken(head, x)
        stamps.append(perf_counter_ns())
    return [after - at for at, after in itertools.pairwise(stamps)]


def _whole(network: MultiExitNetwork, last: nn.Module, images: Images) -> int:
    """Nanoseconds of all segments and the last head."""
    start = perf_counter_ns()
    x = normalise(images)
    for segment in network.segments:
        x = segment(x)
    _spoken(last, x)
    return perf_counter_ns() - start


def _spoken(head: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    best, guess = head(x).softmax(1).max(1)
    return best, guess


def _medians(times: Floats) -> tuple[float, ...]:
    return tuple(float(t) for t in np.median(times, 0).round(6))


def _quartiles(times: Floats) -> tuple[Quartiles, ...]:
    low, high = np.percentile(times, (25, 75), axis=0).round(6)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))
