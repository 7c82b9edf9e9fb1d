"""Reads a published file into a cache, with an account of what was read, dropped and missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from offramp.bandits.costs import Profile
from offramp.environments.cache import CacheError, Condition, ConfidenceCache
from offramp.environments.confidences import NOTE
from offramp.environments.published.answers import answers
from offramp.environments.published.blocks import TIMES, Blocks, from_columns, from_places
from offramp.environments.published.files import open_table
from offramp.environments.published.layouts import Layout, recognise
from offramp.environments.published.long_form import from_rows
from offramp.environments.published.report import ReadReport
from offramp.environments.published.samples import conditions_of
from offramp.environments.published.table import Table
from offramp.environments.published.tokens import from_tokens
from offramp.environments.published.vectors import from_vectors

_READERS: Mapping[str, Callable[[Table, Layout, int | None], Blocks]] = {
    "columns": from_columns,
    "rows": from_rows,
    "vectors": from_vectors,
    "places": from_places,
    "tokens": from_tokens,
}
_BARE = "the file has no confidences: only policies that need none may play this cache"
_UNKNOWN_UNIT = "the unit of the times is not known"


class Published(NamedTuple):
    """A published file as a cache, and the report of how it was read, which is in the cache's notes as well."""

    cache: ConfidenceCache
    report: ReadReport

    @property
    def confidences(self) -> bool:
        """False where the file has none: then only policies that need none may play the cache."""
        return self.report.confidences


def read_published(
    path: str | Path,
    *,
    layout: str | Layout | None = None,
    where: Mapping[str, str | float] | None = None,
    classes: int | None = None,
    layers: Sequence[int] | None = None,
) -> Published:
    r"""A cache from a published file.

    Parameters
    ----------
    path
        Comma- or tab-separated text in UTF-8, packed by gzip or not, or Parquet.
    layout
        One of `LAYOUTS` by name, or one of your own; None recognises it by its columns.
    where
        Read only the rows with these values, ``{"p_tar": 0.8}``.
    classes
        Number of classes; None takes it from the largest class that occurs, or from the length of softmax vectors.
    layers
        Layers of the backbone passed at each exit, increasing: the cache gets a profile that `PaperUnits` prices.

    Raises
    ------
    CacheError
        Names file, line, column, the value found and what is allowed.

    Notes
    -----
    Without predictions, an answer is the label where it is correct and the next class where it is not; without
    labels, the label is the prediction that was correct, or else a class that no exit predicted; without both, class 0
    is correct and class 1 is not.  Accuracy is then exact; agreement of exits, where both are wrong, is not.  Where
    correctness is not known either, the last exit's prediction stands for the label.  The report's notes say which.
    A cache keeps confidences in float32, in which the published networks computed them; where a file has none they
    are 0 and mean nothing, see `offramp.environments.confidences`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from offramp.environments.published import read_published
    >>> text = "Sample_ID,Exit,Confidence,Prediction,Label\n0,0,0.6,1,0\n0,1,0.9,0,0\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "df.csv").write_text(text)
    ...     cache, report = read_published(Path(folder, "df.csv"))
    >>> report.layout, cache.prediction.tolist(), cache.label.tolist()
    ('buffer_long', [[[[1, 0]]]], [0])

    """
    table = open_table(Path(path))
    chosen = layout if isinstance(layout, Layout) else recognise(table.header, layout, headless=table.headless)
    if table.headless and chosen.shape != "places":
        raise CacheError(f"{table.file} has no header, allowed with layout {chosen.name} is one")
    rows = len(table)
    table.keep(where or {})
    filtered = rows - len(table)
    blocks = _READERS[chosen.shape](table, chosen, classes)
    if chosen.bare:
        blocks.values["confidence"] = np.empty((len(blocks.row), 0))
    classes = blocks.classes if classes is None else classes
    missing = tuple(x for x in ("confidence", "correct", "prediction", "label") if not blocks[x].size)
    conditions, groups = conditions_of(table, chosen, blocks)
    prediction, label = answers(table, blocks, groups, missing, classes)
    if classes is None:
        classes = max(2, int(max(prediction.max(), label.max())) + 1)
    bare = "confidence" in missing
    times = {role: blocks[role][groups.ravel()] for role in TIMES if blocks[role].size}
    unknown = [_UNKNOWN_UNIT] if times and chosen.time_unit == "unknown" else []
    dropped = {"rows left out by where": filtered} if filtered else {}
    report = ReadReport(
        file=Path(path).name,
        layout=chosen.name,
        base=blocks.exits[0],
        rows=rows,
        samples=groups.shape[1],
        conditions=tuple(c.name for c in conditions),
        exits=chosen.names(blocks.exits),
        filtered=filtered,
        repeated=sum(count for what, count in blocks.dropped.items() if what.startswith("rows that repeat")),
        dropped={**dropped, **blocks.dropped},
        identical=0 if bare else sum(len(group) - len(np.unique(blocks.facts[group], axis=0)) for group in groups),
        headers=table.headers,
        blank=table.blank,
        line_ends=table.line_ends,
        byte_order_mark=table.mark,
        confidences=not bare,
        missing=missing + (() if times else ("times",)),
        used=table.used(),
        unread=table.unread(),
        clipped=table.clipped,
        mean_times={role: tuple(float(mean) for mean in block.mean(axis=0)) for role, block in times.items()},
        time_unit=chosen.time_unit,
        notes=(*([_BARE] if bare else []), *blocks.notes, *unknown),
    )
    cache = ConfidenceCache.from_arrays(
        confidence=np.zeros(prediction.shape) if bare else blocks["confidence"][groups],
        prediction=prediction,
        label=label,
        conditions=conditions,
        exits=report.exits,
        classes=classes,
        sample=None if blocks.sample is None else blocks.sample[groups[0]],
        profile=None if layers is None else layers_profile(layers, len(blocks.exits)),
        notes={"published": report.as_dict(), **(NOTE if bare else {})},
    )
    return Published(cache, report)


def layers_profile(layers: Sequence[int], exits: int) -> Profile:
    """A profile that counts layers, for `offramp.bandits.PaperUnits` alone: nothing in it was measured.

    Raises
    ------
    CacheError
        There are not as many layers as exits, or they do not increase from 1 on.

    """
    steps = np.diff([0, *layers])
    if len(steps) != exits or (steps < 1).any():
        raise CacheError(f"layers are {list(layers)}, allowed are {exits} whole numbers that increase from 1 on")
    return Profile(
        segment_macs=tuple(steps.tolist()),
        head_macs=(0,) * exits,
        payload_bytes=(0,) * (exits + 1),
        layers=tuple(layers),
    )


def joined(read: Sequence[Published]) -> ConfidenceCache:
    """One cache of the conditions of several files, which speak of the same samples and exits.

    Where files do not say under which condition they were made, the condition bears the file's name.  A condition that
    says the same in two files counts once.

    Raises
    ------
    CacheError
        The files differ in samples, labels or exits, or one condition says two things.

    """
    if not read:
        raise CacheError("files are none, allowed is one or more")
    if len(read) == 1:
        return read[0].cache
    first, report = read[0]
    for cache, other in read[1:]:
        speak = {
            "exits": cache.exits == first.exits,
            "samples": cache.sample.tolist() == first.sample.tolist(),
            "confidences": other.confidences == report.confidences,
        }
        for what, same in speak.items():
            if not same:
                raise CacheError(
                    f"file {other.file} has other {what} ({len(cache.label):,} samples, exits {list(cache.exits)}), "
                    f"allowed are those of {report.file} ({len(first.label):,}, {list(first.exits)})"
                )
        for n in np.flatnonzero(cache.label != first.label)[:1].tolist():
            raise CacheError(
                f"file {other.file} has label {cache.label[n]} for sample {cache.sample[n]}, allowed is "
                f"{first.label[n]} as in {report.file}"
            )
    parts: dict[str, tuple[Condition, int, int]] = {}
    for f, (cache, account) in enumerate(read):
        for s, condition in enumerate(cache.conditions):
            name = condition.name
            if name == "as published":
                name = account.file.split(".")[0]
                condition = Condition(name, name, condition.parameters)
            if name in parts:
                _, g, r = parts[name]
                before = read[g].cache
                alike = (before.confidence[r] == cache.confidence[s]).all()
                if not alike or (before.prediction[r] != cache.prediction[s]).any():
                    raise CacheError(
                        f"file {account.file} says of condition {name!r} something else than {read[g].report.file}, "
                        "allowed are conditions that differ in name or say the same"
                    )
                continue
            parts[name] = condition, f, s
    made = list(parts.values())
    return replace(
        first,
        confidence=np.stack([read[f].cache.confidence[s] for _, f, s in made]),
        prediction=np.stack([read[f].cache.prediction[s] for _, f, s in made]),
        conditions=tuple(condition for condition, _, _ in made),
        classes=max(cache.classes for cache, _ in read),
        notes={**first.notes, "published": [account.as_dict() for _, account in read]},
    )
