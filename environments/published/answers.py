"""Predictions and labels, with what is known standing in for what is missing, and saying so."""

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import IntArray
from offramp.environments.cache import CacheError
from offramp.environments.published.blocks import Blocks
from offramp.environments.published.table import Table

SYNTHETIC = "labels are synthetic: correctness alone is known; accuracy is exact, agreement of exits is not"
NO_PREDICTION = (
    "predictions are synthetic where they are wrong: no more is known of them; agreement of exits is not exact"
)
DERIVED = "labels are those of correct predictions; where no exit is right, a class that none predicted stands in"
NO_LABEL = "labels are the last exit's predictions: the file has none, and accuracy means agreement with the last exit"


def answers(
    table: Table, blocks: Blocks, groups: IntArray, missing: tuple[str, ...], classes: int | None
) -> tuple[IntArray, IntArray]:
    """Predictions (S, N, L) and labels (N,).

    Raises
    ------
    CacheError
        What the file says of prediction, label and correctness does not go together.

    """
    correct, prediction, label = (blocks[role][groups].astype(np.int64) for role in ("correct", "prediction", "label"))
    if "label" not in missing:
        truth = label[..., 0]
        same = "the label that this sample has under the first condition"
        _refuse(table, blocks, groups, truth != truth[:1], same)
        if "prediction" in missing:
            count = max(2, int(truth.max()) + 1) if classes is None else classes
            prediction = np.where(correct > 0, label, (label + 1) % count)
            blocks.notes.append(NO_PREDICTION)
        elif "correct" not in missing:
            wrong = ((prediction == label) != (correct > 0)).any(axis=2)
            _refuse(table, blocks, groups, wrong, "correct exactly where prediction and label are the same")
        return prediction, truth[0]
    if "prediction" in missing:
        blocks.notes.append(SYNTHETIC)
        return 1 - correct, np.zeros(groups.shape[1], dtype=np.int64)
    if "correct" in missing:
        blocks.notes.append(NO_LABEL)
        last = prediction[..., -1]
        _refuse(table, blocks, groups, last != last[:1], "the last exit's prediction under the first condition")
        return prediction, last[0]
    said = np.where(correct > 0, prediction, -1).max(axis=(0, 2))
    clash = (prediction == said[:, None]) != (correct > 0)
    _refuse(table, blocks, groups, clash.any(axis=2), "one class that is correct for this sample, and no other")
    for n in np.flatnonzero(said < 0):
        said[n] = next(k for k in range(prediction.size + 1) if k not in prediction[:, n])
    blocks.notes.append(DERIVED)
    return prediction, said


def _refuse(table: Table, blocks: Blocks, groups: IntArray, bad: npt.NDArray[np.bool_], allowed: str) -> None:
    if bad.any():
        row = int(blocks.row[groups[tuple(np.argwhere(bad)[0])]])
        raise CacheError(f"{table.where(row)}: found {table.row(row)}, allowed is {allowed}")
