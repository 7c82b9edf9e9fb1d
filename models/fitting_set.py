"""Which validation samples an exit is calibrated on: all, those that a cascade leaves to it, or those it answers."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Found = TypeVar("Found")

FITTED_ON = ("all", "reaching", "exiting")
FEWEST = 200
TARGET = 0.8


class CalibrationError(ValueError):
    """Logits or labels cannot be fitted; the message names the argument, what was found and what is allowed."""


def top(logits: FloatArray) -> tuple[FloatArray, Labels]:
    """Largest softmax probability and its class, over the last axis."""
    confidence: FloatArray = 1.0 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
    return confidence, logits.argmax(axis=-1)


def each_exit(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    on: str,
    target: float,
    fewest: int,
    *,
    fit: Callable[[FloatArray, Labels], Found],
    apply: Callable[[Found, FloatArray], FloatArray],
    otherwise: Found,
) -> list[tuple[Found, int]]:
    """Fit exit after exit on the samples selected by name; what was found and on how many, or 0 and `otherwise`.

    `fit` takes logits (m, K) and labels (m,), `apply` what that found and logits (n, K), and gives confidences (n,).
    See `fit_temperature` for the rest.
    """
    z, y = checked(logits, labels)
    check_target(target)
    if on not in FITTED_ON:
        raise CalibrationError(f"on is {on!r}, allowed are {FITTED_ON}")
    if fewest < 1:
        raise CalibrationError(f"fewest is {fewest}, allowed is a whole number >= 1")
    here = np.ones(len(y), dtype=bool)
    fitted: list[tuple[Found, int]] = []
    for i in range(z.shape[1]):
        own = z[:, i]
        answered = top(own)[0] >= target
        chosen = _chosen(on, here, answered, last=i + 1 == z.shape[1])
        n = int(chosen.sum())
        found, n = (fit(own[chosen], y[chosen]), n) if n >= fewest else (otherwise, 0)
        fitted.append((found, n))
        here &= ~(answered if on == "exiting" else apply(found, own) >= target)
    return fitted


def _chosen(on: str, here: Mask, answered: Mask, *, last: bool) -> Mask:
    if on == "all":
        return np.ones_like(here)
    return here if on == "reaching" or last else here & answered


def checked(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, Labels]:
    """Logits (n, L, K) as float64 and labels (n,) as int64, if they can be fitted.

    Raises
    ------
    CalibrationError
        They cannot.

    """
    z, y = finite(logits), np.asarray(labels)
    if z.ndim != 3 or z.shape[1] < 1 or z.shape[2] < 2:
        raise CalibrationError(f"logits have shape {z.shape}, allowed is (samples, exits, classes >= 2)")
    if y.shape != z.shape[:1]:
        raise CalibrationError(f"labels have shape {y.shape}, allowed is {z.shape[:1]}")
    if len(z) < FEWEST:
        raise CalibrationError(f"logits are of {len(z)} samples, allowed are {FEWEST} or more")
    bad = ~np.isin(y, np.arange(z.shape[2]))
    if bad.any():
        raise CalibrationError(f"labels hold {y[bad][0]}, allowed is a whole number in 0..{z.shape[2] - 1}")
    if (y == y[0]).all():
        raise CalibrationError(f"labels are all {y[0]}, allowed are at least two classes")
    return z, y.astype(np.int64)


def finite(logits: npt.ArrayLike) -> FloatArray:
    """Logits as float64; CalibrationError where one is not a finite number."""
    found: npt.NDArray[Any] = np.asarray(logits)
    if found.dtype.kind not in "iuf":
        raise CalibrationError(f"logits have type {found.dtype}, allowed is an array of numbers")
    bad = ~np.isfinite(found)
    if bad.any():
        at = [int(i) for i in np.argwhere(bad)[0]]
        raise CalibrationError(f"logits{at} is {found[tuple(at)]}, allowed is a finite number")
    return found.astype(np.float64)


def check_target(target: float) -> None:
    """Raise CalibrationError for a target outside (0, 1)."""
    if not 0.0 < target < 1.0:
        raise CalibrationError(f"target is {target}, allowed is a number in (0, 1)")
