"""What other images could say: every seed plays on a part of the test images that no other seed sees."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import Abrupt
from offramp.experiments.headline.playing import (
    BEST,
    FIRST,
    ISPLITEE,
    OURS,
    PLAIN,
    SEND,
    WHOLE,
    Caches,
    Runs,
    Table,
    grounds,
    players,
)
from offramp.experiments.headline.prices import At

MIXED = "mixed"
CLAIMED_OF = (OURS, WHOLE, PLAIN, SEND, FIRST, BEST, ISPLITEE)  # who plays the stream of the claims
COMPARED = (OURS, WHOLE, BEST, ISPLITEE)  # who plays every other stream
Play = tuple[str, str]  # a stream and a price list


@dataclass(frozen=True, eq=False, kw_only=True)
class Played:
    """A stream with the exit that validation images prefer there, who plays it, and at which prices."""

    stream: Abrupt
    best: int
    who: tuple[str, ...]
    prices: Mapping[str, At]


def parts(images: int, count: int) -> list[IntArray]:
    """The images dealt out to so many parts of nearly equal size: each image lies in one, the same whenever asked.

    Raises
    ------
    ValueError
        There are fewer images than parts.

    Examples
    --------
    >>> from offramp.experiments.headline.images import parts
    >>> [len(part) for part in parts(10, 3)]
    [4, 3, 3]

    """
    if images < count:
        raise ValueError(f"the cache has {images} test images, allowed are at least as many as seeds, {count}")
    dealt = np.random.default_rng(0).permutation(images)
    return [np.sort(part) for part in np.array_split(dealt, count)]


def apart(cfg: DictConfig, caches: Caches, plan: Mapping[str, Played], table: Table) -> dict[Play, dict[str, Runs]]:
    """Play every stream of the plan, the k-th seed on the k-th part of the images alone.

    Parameters
    ----------
    cfg, caches
        The study's configuration, and the test images by calibration.
    plan
        What is played, by the stream's name.
    table
        Horizon, seeds and pool.

    Returns
    -------
    dict
        (stream, price list) -> player -> what its R runs came to, (R,) each.

    Notes
    -----
    The parts share no image and the runs no draw, so that R differences between two players are independent and alike:
    the t interval of their mean is one over images and streams together (the method of batch means, with the images in
    the place of time).  It holds the training, the corruptions and the validation images fixed.

    """
    found: dict[Play, list[dict[str, Runs]]] = {}
    for seed, keep in zip(table.seeds, parts(len(caches["raw"].label), len(table.seeds)), strict=True):
        own = {name: cache.select(keep) for name, cache in caches.items()}
        one = replace(table, seeds=[seed])
        for name, listed, jobs in each(cfg, own, plan):
            found.setdefault((name, listed), []).append(one.play(jobs))
    return {at: joined(runs) for at, runs in found.items()}


def each(cfg: DictConfig, caches: Caches, plan: Mapping[str, Played]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every stream under every price list of its plan, with the jobs of those who play it."""
    for name, played in plan.items():
        on = grounds(caches, played.stream, cfg)
        for listed, prices in played.prices.items():
            jobs = players(cfg, on, prices, played.best)
            yield name, listed, {who: jobs[who] for who in played.who}


def joined(runs: Iterable[dict[str, Runs]]) -> dict[str, Runs]:
    """The runs of several seeds as one."""
    every = list(runs)

    def of(who: str, field: str) -> FloatArray:
        return np.concatenate([run[who][field] for run in every])

    return {who: {field: of(who, field) for field in fields} for who, fields in every[0].items()}
