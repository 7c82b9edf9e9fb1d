"""Softmax vectors: a row is a sample, each exit one cell with the probabilities of all classes."""

import numpy as np

from offramp.environments.cache import CacheError
from offramp.environments.published.blocks import TIMES, Blocks, limits, numbered
from offramp.environments.published.layouts import Layout, exit_columns
from offramp.environments.published.table import ROUNDING, Table

_SUM = 0.01  # float16 probabilities sum to 1 within this


def from_vectors(table: Table, layout: Layout, classes: int | None) -> Blocks:
    """Confidence = the largest probability, prediction = its class, the first of equals.

    Raises
    ------
    CacheError
        A vector is no distribution, or has another length than the first.

    """
    found = exit_columns(table.header, layout.confidence, layout.words)
    label = table.first(layout.label)
    if not found or label is None:
        raise CacheError(
            f"{table.file} has columns {table.header}, allowed are columns {layout.confidence} and {layout.label}"
        )
    exits = list(found)
    numbered(table, layout, exits)
    confidence, prediction, count = [], [], 0
    for place in found.values():
        lists = table.lists(place)
        count = count or int(lists.lengths[0])
        wrong = np.flatnonzero(lists.lengths != count)
        if len(wrong) or count < 2:
            row = int(wrong[0]) if len(wrong) else 0
            table.fail(row, place, f"a list of {max(count, 2)} probabilities, as in the first row and column")
        p = lists.values.reshape(-1, count)
        beyond = (p < -ROUNDING) | (p > 1.0 + ROUNDING)
        wrong = np.flatnonzero(beyond.any(axis=1) | ~(np.abs(p.sum(axis=1) - 1.0) <= _SUM))
        if len(wrong):
            table.fail(int(wrong[0]), place, "probabilities in 0..1 that sum to 1: softmax, not logits")
        prediction.append(p.argmax(axis=1))
        confidence.append(table.bounded(p.max(axis=1), 1.0))
    if classes is not None and classes != count:
        raise CacheError(f"classes is {classes}, allowed is {count} as the vectors of {table.file} are long")
    none = np.empty((len(table), 0))
    return Blocks(
        row=np.arange(len(table)),
        exits=tuple(exits),
        values={
            "confidence": np.stack(confidence, axis=1),
            "correct": none,
            "prediction": np.stack(prediction, axis=1).astype(np.float64),
            "label": table.numbers(label, limits(count)["label"], True)[:, None],
            **dict.fromkeys(TIMES, none),
        },
        notes=["of each softmax vector the largest probability and its class are kept"],
        classes=count,
    )
