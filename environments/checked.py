"""Arrays that a cache is given: numbers, whole numbers and ranges, checked in one pass where nothing is wrong."""

from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits.sealed import SealedError

CacheError = SealedError  # what caches and their neighbours refuse


def array(name: str, values: npt.ArrayLike, kind: type[np.generic]) -> npt.NDArray[Any]:
    """A copy of the values as an array of one type: whole numbers that it can hold, or floats in [0, 1].

    Raises
    ------
    CacheError
        At the first value that is not allowed.

    """
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise CacheError(f"{name} is ragged ({error}), allowed is an array of numbers") from error
    if found.dtype.kind not in "biuf":
        raise CacheError(f"{name} has type {found.dtype}, allowed is an array of numbers")
    if np.issubdtype(kind, np.integer):
        if found.dtype.kind == "f":
            refuse(name, found, ~np.isfinite(found) | (found != np.trunc(found)), "a whole number")
        limits = np.iinfo(kind)  # type: ignore[type-var]
        within(name, found, limits.min, limits.max)
    else:
        within(name, found, 0.0, 1.0)
    return found.astype(kind, order="C")


def numbers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The values as floats, whatever they are.

    Raises
    ------
    CacheError
        They are no array of numbers.

    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CacheError(f"{name} cannot be read ({error}), allowed is an array of numbers") from error


def within(name: str, values: npt.NDArray[Any], low: float, high: float) -> None:
    """Refuse values outside [low, high], and nan.

    Raises
    ------
    CacheError
        With the place and the value of the first.

    """
    # The extremes of an array with a nan are nan, and no comparison with nan holds.
    if values.size and not (values.min() >= low and values.max() <= high):
        refuse(name, values, ~((values >= low) & (values <= high)), f"[{low}, {high}]")


def refuse(name: str, values: npt.NDArray[Any], bad: npt.NDArray[np.bool_], allowed: str) -> None:
    """Refuse the values that a mask marks, if it marks any.

    Raises
    ------
    CacheError
        With the place and the value of the first.

    """
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise CacheError(f"{name}{list(at)} is {values[at]}, allowed is {allowed}")
