"""A data set of runs as a report reads it: who, where, with which label, and means with 95 % intervals over seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from offramp.experiments.results import REFERENCE, interval, t95
from offramp.experiments.sweeps import dataset

Floats = npt.NDArray[np.float64]
NEVER = ("final_exit", "send_input", "offload_first", "random_arm", "fixed")  # what does not learn
LONG = 48  # characters of a value in a label, beyond which its middle is left out


def spread(runs: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Mean, half-width of its 95 % interval, and number of the runs that are not nan, (n, R) -> (R,) each."""
    known = np.isfinite(runs)
    n = known.sum(axis=0)
    some = np.maximum(n, 1)
    mean = np.where(known, runs, 0.0).sum(axis=0) / some
    square = np.where(known, (runs - mean) ** 2, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.array([t95(int(k)) for k in n]) * np.sqrt(square / (n - 1) / n)
    return np.where(n > 0, mean, np.nan), np.where(n > 1, half, np.nan), n


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """A configuration as dotted keys and values in JSON."""
    if isinstance(config, Mapping):
        return {k: v for key, part in config.items() for k, v in flat(part, f"{prefix}{key}.").items()}
    return {prefix[:-1]: json.dumps(config, ensure_ascii=False)}


def short(coded: str) -> str:
    """A value in JSON as people write it: six digits of a float, and a text without its quotes."""
    value = json.loads(coded)
    return f"{value:g}" if isinstance(value, float) else str(value).replace("offramp.", "")


def clipped(text: str, most: int = LONG) -> str:
    """A text of at most so many characters, without its middle where it is longer."""
    return text if len(text) <= most else f"{text[: most - 15]} … {text[-12:]}"


def labels(names: Sequence[str], configs: Sequence[str]) -> list[str]:
    """A name for each configuration: its own, and in which keys it differs from others of the same name.

    Two configurations never share a label: values that look alike when written short are written in full, and what
    still looks alike is numbered.

    Parameters
    ----------
    names, configs
        Of each row: the name, and the configuration in JSON.

    Examples
    --------
    >>> labels(["ucb1", "ucb1", "final_exit"], ['{"beta": 1}', '{"beta": 0.5}', "{}"])
    ['ucb1 · beta=1', 'ucb1 · beta=0.5', 'final_exit']
    >>> labels(["ucb1"] * 2, ['{"beta": 1}', '{"beta": 1.0}'])
    ['ucb1 · beta=1', 'ucb1 · beta=1.0']

    """
    found: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(names):
        texts = list(dict.fromkeys(c for n, c in zip(names, configs, strict=True) if n == name))
        parts = [flat(json.loads(text)) for text in texts]
        for key in dict.fromkeys(k for part in parts for k in part):
            if len({part.get(key) for part in parts}) == 1:
                continue
            values = {part[key] for part in parts if key in part}
            tell = short if len({clipped(short(value)) for value in values}) == len(values) else str
            for text, part in zip(texts, parts, strict=True):
                if key in part:
                    told = found.get((name, text), "")
                    found[name, text] = f"{told}{', ' if told else ''}{key}={clipped(tell(part[key]))}"
        for text in texts:
            found[name, text] = " · ".join(x for x in (name, found.get((name, text), "")) if x)
    taken: set[str] = set()
    for pair in sorted(found):
        label, number = found[pair], 1
        while found[pair] in taken:
            number += 1
            found[pair] = " · ".join(x for x in (label, f"#{number}") if x)
        taken.add(found[pair])
    return [found[pair] for pair in zip(names, configs, strict=True)]


def known(values: pd.Series) -> dict[str, float] | None:
    """Mean and half-width of the 95 % interval of the values that are finite, and how many; None where none is."""
    found = values[np.isfinite(values.astype(float))]
    return {**interval(found.tolist()), "n": len(found)} if len(found) else None


@dataclass(frozen=True, eq=False)
class Facet:
    """One stream at one price: what can be compared with each other.

    Parameters
    ----------
    number, stream, price, setting
        Its place on the page, and the places of its labels in those of the data set.
    family
        Name of the world, without in what it differs from others of the name.
    frame
        Its finished runs, a row for each policy and seed.
    lost
        Policies that it does not offer, or whose runs failed: label -> (status, why).

    """

    number: int
    stream: int
    price: int
    setting: int
    family: str
    frame: pd.DataFrame
    lost: Mapping[str, tuple[str, str]]

    @cached_property
    def policies(self) -> dict[str, pd.DataFrame]:
        """Label -> its runs, ordered by seed."""
        return {str(p): group.sort_values("seed") for p, group in self.frame.groupby("policy_label", sort=False)}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Arms, conditions, links, best arms, and what the stream did."""
        found: dict[str, Any] = json.loads(self.frame.facts.iloc[0])
        return found

    @property
    def horizon(self) -> int:
        """Rounds."""
        return int(self.frame.horizon.iloc[0])

    @property
    def seeds(self) -> tuple[int, int]:
        """Fewest and most seeds of a policy."""
        counts = [len(runs) for runs in self.policies.values()]
        return min(counts), max(counts)

    @property
    def learners(self) -> list[str]:
        """Policies that learn, least regret first, those whose regret is not known last."""
        found = {p: self.means(p, "regret_total") for p in self.policies}
        last = {p: math.inf if mean is None else mean["mean"] for p, mean in found.items()}
        named = {str(p): str(runs.policy.iloc[0]) for p, runs in self.policies.items()}
        return sorted((p for p in last if named[p] not in NEVER), key=lambda p: last[p])

    def curve(self, policy: str, name: str) -> Floats:
        """A list column of a policy as an array, (seeds, length)."""
        return np.stack([np.asarray(x, dtype=np.float64) for x in self.policies[policy][name]])

    def means(self, policy: str, metric: str) -> dict[str, float] | None:
        """Mean and half-width of a metric over the n seeds that know it; None where none does."""
        return known(self.policies[policy][metric])

    def paired(self, policy: str, baseline: str) -> dict[str, dict[str, float]]:
        """Differences to a baseline over the n seeds that both played and know; what none knows is left out."""
        if baseline not in self.policies:
            return {}
        both = self.policies[policy].merge(self.policies[baseline], on="seed", suffixes=("", "_base"))
        found = {
            "saved": known(1.0 - both.cost / both.cost_base),
            "change": known(both.accuracy - both.accuracy_base),
            "regret_change": known(both.regret_total - both.regret_total_base),
        }
        return {name: mean for name, mean in found.items() if mean is not None}


class Collected:
    """A data set with labels.

    Parameters
    ----------
    folder
        Of a sweep or of a comparison.

    Attributes
    ----------
    frame
        All rows, with policy_label, stream_label, price_label and setting_label.
    policies, streams, prices, settings
        All labels.
    left_out
        How many rows are not in the frame because newer ones of the same runs are there, see `dataset.read`.
    facets
        Every combination of stream, price and setting that has a finished run.

    Raises
    ------
    ValueError
        There is no data set, or nothing in it came to an end.

    """

    def __init__(self, folder: Path) -> None:
        frame = dataset.read(folder)
        self.left_out = int(frame.attrs.get("left_out", 0))
        for what in ("policy", "stream", "world"):
            shown = "price" if what == "world" else what
            frame[f"{shown}_label"] = labels(frame[what].tolist(), frame[f"{what}_config"].tolist())
        frame["setting_label"] = labels([""] * len(frame), frame["setting"].tolist())
        if frame.key.nunique() > 1:  # the order in which they came to an end says nothing
            what = ["stream_label", "price_label", "setting_label"]
            rank = frame.policy.map({name: i for i, name in enumerate(NEVER)}).fillna(len(NEVER))
            frame = frame.assign(rank=rank).sort_values([*what, "rank", "policy_label", "seed"], kind="stable")
        self.frame = frame
        self.policies, self.streams, self.prices, self.settings = (
            list(dict.fromkeys(frame[f"{what}_label"])) for what in ("policy", "stream", "price", "setting")
        )
        self.facets: list[Facet] = []
        where = ["stream_label", "price_label", "setting_label"]
        for (stream, price, setting), group in frame.groupby(where, sort=False):
            done = group[group.status == dataset.FINISHED]
            gone = group[group.status != dataset.FINISHED]
            if not len(done):
                continue
            lost = {r.policy_label: (r.status, r.why) for r in gone.itertuples()}
            at = self.streams.index(stream), self.prices.index(price), self.settings.index(setting)
            self.facets.append(Facet(len(self.facets), *at, str(group.world.iloc[0]), done, lost))
        if not self.facets:
            why = str(frame.why.iloc[0]).splitlines()[0]
            raise ValueError(f"no run in {folder} came to an end; the first says: {why}")

    @property
    def failed(self) -> pd.DataFrame:
        """Runs that failed."""
        return self.frame[self.frame.status == dataset.FAILED]

    @property
    def baseline(self) -> str:
        """Whom a report compares with unless told otherwise: the final exit, else who is there most often."""
        there = [p for facet in self.facets for p in facet.policies]
        finals = [p for p in self.policies if p.split(" · ")[0] == REFERENCE and p in there]
        return finals[0] if finals else max(self.policies, key=there.count)

    def title(self, facet: Facet) -> str:
        """What a facet is called: its price, and what else varies in the data set."""
        parts = [self.prices[facet.price]]
        parts += [f"stream {self.streams[facet.stream]}"] if len(self.streams) > 1 else []
        parts += [self.settings[facet.setting]] if len(self.settings) > 1 else []
        return ", ".join(parts)
