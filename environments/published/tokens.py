"""Texts, token by token: a row is a text, each cell one exit's list over its tokens; each token is a sample."""

import numpy as np

from offramp.environments.cache import CacheError
from offramp.environments.published.blocks import LARGEST_CLASS, TIMES, Blocks
from offramp.environments.published.layouts import Layout, exit_columns
from offramp.environments.published.table import Lists, Table

PADDING = 50_256  # GPT-2's end of text, which stands with a confidence of exactly 1 where a text has ended


def from_tokens(table: Table, layout: Layout, classes: int | None) -> Blocks:
    """One row a token at which every exit speaks; class = place of the token's number among those that occur.

    Raises
    ------
    CacheError
        The lists of one exit differ in length, hold what is no confidence or token, or more kinds of token than a
        cache may hold classes.

    """
    sure = exit_columns(table.header, layout.confidence, layout.words)
    said = exit_columns(table.header, layout.prediction, layout.words)
    if not sure or list(sure) != list(said):
        raise CacheError(
            f"{table.file} has confidences of exits {list(sure)} and predictions of {list(said)}, allowed are the same"
        )
    length = np.zeros(len(table), dtype=np.int64)
    pairs = []
    for exit_number, place in sure.items():
        confidence, token = table.lists(place), table.lists(said[exit_number])
        for row in np.flatnonzero(confidence.lengths != token.lengths)[:1].tolist():
            table.fail(row, place, f"a list of {token.lengths[row]} numbers, as in {table.header[said[exit_number]]}")
        _in(table, place, confidence, 1.0, whole=False)
        _in(table, said[exit_number], token, 2**53, whole=True)
        pairs.append((confidence, token))
        length = np.maximum(length, confidence.lengths)
    starts = np.concatenate([[0], np.cumsum(length)])
    total, wide = int(starts[-1]), len(pairs)
    # Beyond a list's end its exit has ended the text, as in the padding that some files hold.
    c, p = np.ones((total, wide)), np.full((total, wide), float(PADDING))
    for e, (confidence, token) in enumerate(pairs):
        inside = np.arange(len(confidence.values)) - np.repeat(confidence.starts[:-1], confidence.lengths)
        at = inside + np.repeat(starts[:-1], confidence.lengths)
        c[at, e], p[at, e] = table.bounded(confidence.values, 1.0), token.values
    ended = (c == 1.0) & (p == PADDING)
    keep = np.flatnonzero(~ended.any(axis=1))
    if not len(keep):
        raise CacheError(f"{table.file} has no token at which every exit speaks, allowed is one or more")
    tokens, prediction = np.unique(p[keep], return_inverse=True)
    if len(tokens) > LARGEST_CLASS + 1:
        raise CacheError(f"{table.file} has {len(tokens)} kinds of token, allowed are {LARGEST_CLASS + 1} or fewer")
    if classes is not None and classes < len(tokens):
        raise CacheError(f"classes is {classes}, allowed is {len(tokens)} or more as kinds of token in {table.file}")
    none = np.empty((len(keep), 0))
    dropped = {
        "padding: no exit goes on": int(ended.all(axis=1).sum()),
        "tokens at which only some exits go on": int((ended.any(axis=1) & ~ended.all(axis=1)).sum()),
    }
    kinds = ", ".join(str(int(t)) for t in tokens[:8])
    return Blocks(
        row=np.repeat(np.arange(len(table)), length)[keep],
        exits=tuple(sure),
        values={
            "confidence": c[keep],
            "correct": none,
            "prediction": prediction.reshape(len(keep), wide).astype(np.float64),
            "label": none,
            **dict.fromkeys(TIMES, none),
        },
        dropped={what: count for what, count in dropped.items() if count},
        notes=[
            "each token is a sample",
            f"classes count the {len(tokens)} tokens that occur, in the order of their numbers: {kinds}, ...",
        ],
        classes=max(len(tokens), 2) if classes is None else classes,
    )


def _in(table: Table, place: int, lists: Lists, high: float, *, whole: bool) -> None:
    bad = (lists.values < 0.0 if whole else lists.values < -1e-6) | ~(lists.values <= high + (0.0 if whole else 1e-6))
    if whole:
        bad |= lists.values != np.floor(lists.values)
    for at in np.flatnonzero(bad)[:1].tolist():
        row = int(np.searchsorted(lists.starts, at, side="right")) - 1
        kind = "token numbers, whole and >= 0" if whole else "confidences in 0..1"
        table.fail(row, place, f"a list of {kind}: found {lists.values[at]:g}")
