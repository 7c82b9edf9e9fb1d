"""What to fit, and on whom: temperatures, vector scaling and isotonic maps on the committed coarse logits."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments import ConfidenceCache
from offramp.environments.logits import LogitTable
from offramp.environments.reliability import auroc, ece
from offramp.experiments.calibration.samples import CLEAR
from offramp.models.calibrate import Temperature, fit_global, fit_temperature, likelihood_loss
from offramp.models.calibration_maps import fit_isotonic, fit_vector
from offramp.models.fitting_set import FEWEST

Labels = npt.NDArray[np.int64]
Rows = list[dict[str, Any]]


class Fitted(Protocol):
    """What gives confidences and predictions (n, L) from logits (n, L, K)."""

    def confidence(self, logits: npt.ArrayLike) -> tuple[FloatArray, Labels]:
        """Confidence and prediction."""


Fit = Callable[[FloatArray, Labels, float], Fitted]
# As the papers' code has it, an exit that answers nobody keeps 1.5, one that answers one sample is fitted on it.
METHODS: dict[str, Fit] = {
    "none": lambda z, y, p: Temperature(temperature=np.ones(z.shape[1]), samples=np.zeros(z.shape[1], dtype=np.int64)),
    "global T, all": lambda z, y, p: fit_global(z, y),
    "global T, fired": lambda z, y, p: fit_global(z, y, on="fired", target=p),
    "T per exit, all": lambda z, y, p: fit_temperature(z, y, on="all"),
    "T per exit, reaching": lambda z, y, p: fit_temperature(z, y, on="reaching", target=p),
    "T per exit, exiting": lambda z, y, p: fit_temperature(z, y, on="exiting", target=p, fewest=1, otherwise=1.5),
    "vector, all": lambda z, y, p: fit_vector(z, y, on="all"),
    "isotonic, all": lambda z, y, p: fit_isotonic(z, y, on="all"),
}


def table_beside(name: str) -> LogitTable:
    """The coarse logits of an embedded cache by name, or beside the file of one."""
    if name.endswith(".safetensors"):
        return LogitTable.load(name.removesuffix(".safetensors") + ".logits.safetensors")
    return LogitTable.embedded(name)


def matched_logits(cache: ConfidenceCache, table: LogitTable, expert: str, split: str) -> tuple[FloatArray, Labels]:
    """Each sample twice, pristine and at one of its family's levels in turn, as the cache was calibrated."""
    families = {c.name: c.family for c in cache.conditions}
    levels = [name for name in table.conditions if families[name] == expert != CLEAR]
    clear, y = table.of(next(n for n in table.conditions if families[n] == CLEAR), expert, split)
    if not levels:
        return clear, y
    turn, distorted = np.arange(len(y)) % len(levels), np.empty_like(clear)
    for k, name in enumerate(levels):
        distorted[turn == k] = table.of(name, expert, split)[0][turn == k]
    return np.concatenate([clear, distorted]), np.tile(y, 2)


def survivors_error(confidence: FloatArray, correct: npt.NDArray[np.bool_], target: float) -> FloatArray:
    """Calibration error of each exit over the samples that no earlier one answers, (L,); nan below 200 of them."""
    left, found = np.ones(len(confidence), dtype=bool), np.full(confidence.shape[1], np.nan)
    for i in range(confidence.shape[1]):
        if left.sum() >= FEWEST:
            found[i] = ece(confidence[left, i], correct[left, i])
        left &= confidence[:, i] < target
    return found


def method_rows(cache: ConfidenceCache, table: LogitTable, target: float) -> Rows:
    """One row for each expert, method and exit, fitted on validation and judged on test logits, both matched."""
    rows = []
    for expert in table.experts:
        z, y = matched_logits(cache, table, expert, "validation")
        held, truth = matched_logits(cache, table, expert, "test")
        plain_right = held.argmax(axis=2) == truth[:, None]
        for method, fit in METHODS.items():
            found = fit(z, y, target)
            confidence, prediction = found.confidence(held)
            right = prediction == truth[:, None]
            apply = getattr(found, "apply", None)
            for i, (error, of_survivors, separates) in enumerate(
                zip(
                    ece(confidence, right),
                    survivors_error(confidence, right, target),
                    auroc(confidence, right),
                    strict=True,
                )
            ):
                rows.append(
                    {
                        "expert": expert,
                        "method": method,
                        "exit": i + 1,
                        "n": len(truth),
                        "ece": float(error),
                        "ece_reaching": float(of_survivors),
                        "auroc": float(separates),
                        "nll": float("nan") if apply is None else likelihood_loss(apply(held)[:, i], truth),
                        "nll_fitting": float("nan") if apply is None else likelihood_loss(apply(z)[:, i], y),
                        "accuracy": float(right[:, i].mean()),
                        "accuracy_change": float((right[:, i] * 1.0 - plain_right[:, i]).mean()),
                    }
                )
    return rows


def as_in_the_papers(cache: ConfidenceCache, table: LogitTable, target: float) -> Rows:
    """Calibration error of each exit of the pristine network on pristine images, fitted as the papers do and not."""
    clear = next(c.name for c in cache.conditions if c.family == CLEAR)
    z, y = table.of(clear, table.experts[0], "validation")
    held, truth = table.of(clear, table.experts[0], "test")
    rows = []
    for method in ("none", "global T, fired", "T per exit, exiting", "T per exit, reaching", "T per exit, all"):
        confidence, prediction = METHODS[method](z, y, target).confidence(held)
        for i, error in enumerate(ece(confidence, prediction == truth[:, None])):
            rows.append({"method": method, "exit": i + 1, "n": len(truth), "ece": float(error)})
    return rows


def fitting_set_rows(cache: ConfidenceCache, table: LogitTable, targets: Sequence[float]) -> Rows:
    """By target, the worst rise of the calibration error over all samples at any early exit, against no calibration."""
    rows = []
    for expert in table.experts:
        z, y = matched_logits(cache, table, expert, "validation")
        held, truth = matched_logits(cache, table, expert, "test")
        errors = {"none": _errors(METHODS["none"](z, y, 0.8), held, truth)}
        for target in targets:
            for on in ("exiting", "reaching"):
                errors[on] = _errors(METHODS[f"T per exit, {on}"](z, y, target), held, truth)
            rise = {on: float((errors[on] - errors["none"])[:-1].max()) for on in ("exiting", "reaching")}
            rows.append({"expert": expert, "target": target, **rise})
    return rows


def _errors(found: Fitted, z: FloatArray, y: Labels) -> FloatArray:
    confidence, prediction = found.confidence(z)
    return ece(confidence, prediction == y[:, None])
