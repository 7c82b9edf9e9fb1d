"""Streams: which image comes when, under which distortion, over which state of the link; rebuilt from spec and seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from offramp.bandits.loop import Block
from offramp.bandits.rows import FloatArray, IntArray

BLOCK = 65_536  # rounds that are laid out at once: memory stays constant in the horizon
Schedule = tuple[IntArray, IntArray]


class Stream(Protocol):
    """An immutable spec of how condition and link develop.

    `conditions` names the conditions, `links` the factors on the price of communication (> 0) that it goes through;
    `schedule` says which of each holds in rounds start..start + n - 1.
    """

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, in the order that the schedule's indices refer to."""

    @property
    def links(self) -> tuple[float, ...]:
        """Factors on the price of communication, in the order that the schedule's indices refer to."""

    def schedule(self, start: int, n: int, horizon: int, rng: np.random.Generator, carry: IntArray) -> Schedule:
        """Indices of condition and link, (n,) each.

        Parameters
        ----------
        start, n, horizon
            First round, how many, and of how many in all.
        rng
            The stream's own generator, used block after block: draw round by round, as `rng.random((n, k))` does, and
            the rounds are the same whatever the size of the blocks.
        carry
            Two numbers that the stream may keep from one block to the next.

        """


def blocks(stream: Stream, *, samples: int, horizon: int, seed: int, size: int = BLOCK) -> Iterator[Block]:
    """Lay a stream out, block by block.

    Each pass over the samples is a fresh permutation: no sample comes twice before all have come once.

    Parameters
    ----------
    stream, seed
        What rebuilds the very same rounds.
    samples, horizon
        Samples to draw from; rounds in all, >= 1.
    size
        Rounds in a block.

    """
    for name, value in (("samples", samples), ("horizon", horizon), ("size", size)):
        if value < 1:
            raise ValueError(f"{name} is {value}, allowed is 1 or more")
    order, chance = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, 1)).spawn(2))
    carry = np.zeros(2, dtype=np.int64)
    left = np.empty(0, dtype=np.int64)
    for start in range(0, horizon, size):
        n = min(size, horizon - start)
        passes = -(-max(0, n - len(left)) // samples)
        left = np.concatenate([left, *(order.permutation(samples) for _ in range(passes))])
        condition, link = stream.schedule(start, n, horizon, chance, carry)
        yield Block(np.ascontiguousarray(left[:n]), condition, link)
        left = left[n:]


def _names(conditions: tuple[str, ...], links: tuple[float, ...]) -> None:
    if not conditions or not links:
        raise ValueError(f"conditions are {conditions} and links {links}, allowed is one or more of each")
    if not all(0.0 < x < float("inf") for x in links):
        raise ValueError(f"links are {links}, allowed are finite factors > 0")


def _mixed(position: FloatArray, n: int, uniform: FloatArray) -> IntArray:
    """A place in 0..n-1 for each position in [0, 1]: between two places the nearer one is the likelier."""
    return np.floor(position * (n - 1) + uniform).astype(np.int64).clip(0, n - 1)


def _walk(places: int, stay: float, uniform: FloatArray, carry: IntArray, which: int) -> IntArray:
    """A random walk over 0..places-1 that is reflected at both ends; two uniforms a round, (n, 2)."""
    moves = np.where(uniform[:, 0] < stay, 0, np.where(uniform[:, 1] < 0.5, 1, -1))
    if places == 1:
        return np.zeros(len(moves), dtype=np.int64)
    after = carry[which] + np.cumsum(moves)
    carry[which] = after[-1]
    folded = (after - moves) % (2 * (places - 1))
    walked: IntArray = np.minimum(folded, 2 * (places - 1) - folded).astype(np.int64)
    return walked


@dataclass(frozen=True, kw_only=True)
class Stationary:
    """One condition and one link for good."""

    condition: str = "pristine"
    link: float = 1.0

    def __post_init__(self) -> None:
        _names(self.conditions, self.links)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The one condition."""
        return (self.condition,)

    @property
    def links(self) -> tuple[float, ...]:
        """The one link."""
        return (self.link,)

    def schedule(self, start: int, n: int, horizon: int, rng: np.random.Generator, carry: IntArray) -> Schedule:
        """Always the same."""
        return np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Abrupt:
    """Segments of equal length, each with its condition and its link.

    Parameters
    ----------
    segments
        (condition, link) of each segment, in order; after the last the first comes again.
    length
        Rounds of a segment; None = the horizon is cut into as many equal parts.

    """

    segments: tuple[tuple[str, float], ...]
    length: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple((str(c), float(x)) for c, x in self.segments))
        _names(self.conditions, self.links)
        if self.length is not None and self.length < 1:
            raise ValueError(f"length is {self.length}, allowed is 1 or more, or None")

    @property
    def conditions(self) -> tuple[str, ...]:
        """Condition of each segment."""
        return tuple(c for c, _ in self.segments)

    @property
    def links(self) -> tuple[float, ...]:
        """Link of each segment."""
        return tuple(x for _, x in self.segments)

    def schedule(self, start: int, n: int, horizon: int, rng: np.random.Generator, carry: IntArray) -> Schedule:
        """The segment of each round."""
        rounds = np.arange(start, start + n)
        count = len(self.segments)
        at = rounds * count // horizon if self.length is None else rounds // self.length % count
        return at, at.copy()


@dataclass(frozen=True, kw_only=True)
class Gradual:
    """From the first condition to the last, and from the first link to the last, over the whole horizon.

    Between two places each round draws one of them, the nearer with the larger probability.
    """

    conditions: tuple[str, ...]
    links: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "links", tuple(float(x) for x in self.links))
        _names(self.conditions, self.links)

    def schedule(self, start: int, n: int, horizon: int, rng: np.random.Generator, carry: IntArray) -> Schedule:
        """Draw around a position that moves on linearly."""
        position = np.arange(start, start + n) / max(1, horizon - 1)
        uniform = rng.random((n, 2))
        return (
            _mixed(position, len(self.conditions), uniform[:, 0]),
            _mixed(position, len(self.links), uniform[:, 1]),
        )


@dataclass(frozen=True, kw_only=True)
class Recurring:
    """Day and night: there and back again along the conditions and the links, once each period.

    Parameters
    ----------
    conditions, links
        From noon to midnight.
    period
        Rounds from noon to noon.

    """

    conditions: tuple[str, ...]
    links: tuple[float, ...] = (1.0,)
    period: int = 5_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "links", tuple(float(x) for x in self.links))
        _names(self.conditions, self.links)
        if self.period < 2:
            raise ValueError(f"period is {self.period}, allowed is 2 or more")

    def schedule(self, start: int, n: int, horizon: int, rng: np.random.Generator, carry: IntArray) -> Schedule:
        """Draw around a position that swings on a cosine."""
        phase = 2.0 * np.pi * (np.arange(start, start + n) % self.period) / self.period
        position = 0.5 - 0.5 * np.cos(phase)
        uniform = rng.random((n, 2))
        return (
            _mixed(position, len(self.conditions), uniform[:, 0]),
            _mixed(position, len(self.links), uniform[:, 1]),
        )


@dataclass(frozen=True, kw_only=True)
class RandomWalk:
    """Condition and link wander, each on its own, to a neighbour or not at all.

    Parameters
    ----------
    conditions, links
        The places, in the order of neighbourhood (severities, say); both start at the first.
    stay
        Probability to stay in a round, [0, 1).

    """

    conditions: tuple[str, ...]
    links: tuple[float, ...] = (1.0,)
    stay: float = 0.999

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(self.conditions))
        object.__setattr__(self, "links", tuple(float(x) for x in self.links))
        _names(self.conditions, self.links)
        if not 0.0 <= self.stay < 1.0:
            raise ValueError(f"stay is {self.stay}, allowed is [0, 1)")

    def schedule(self, start: int, n: int, horizon: int, rng: np.random.Generator, carry: IntArray) -> Schedule:
        """Go on from where the last block ended."""
        uniform = rng.random((n, 4))
        condition = _walk(len(self.conditions), self.stay, uniform[:, :2], carry, 0)
        return condition, _walk(len(self.links), self.stay, uniform[:, 2:], carry, 1)
