"""What every change detector is: a spec, and a kernel that takes one number at a time and says when to ring."""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from offramp.bandits.kernel import compile_here
from offramp.bandits.rows import FloatArray, IntArray

Push = Callable[[FloatArray, int, float], float]


@runtime_checkable
class Detector(Protocol):
    """An immutable spec of a change detector."""

    @property
    def push(self) -> Push:
        """`push(state, at, x)` takes x into the detector whose numbers start at `at`; 1.0 = alarm, else 0.0.

        After an alarm the detector begins anew, from nothing, as river's do.
        """

    def initial(self) -> FloatArray:
        """The detector's first numbers: its parameters, then what it keeps; the length never changes."""


@lru_cache
def _scan(push: Push) -> Callable[[FloatArray, FloatArray, IntArray], int]:
    def scan(state: FloatArray, values: FloatArray, found: IntArray) -> int:
        n = 0
        for i in range(values.shape[0]):
            if push(state, 0, values[i]) > 0.0:
                found[n] = i
                n += 1
        return n

    return compile_here(scan)


def alarms(detector: Detector, values: npt.ArrayLike) -> IntArray:
    """Where a detector rings on a stream; after each alarm it begins anew.

    Parameters
    ----------
    detector
        The spec.
    values
        The stream in order, (n,), finite.

    Returns
    -------
    IntArray
        Indices of the alarms, increasing.

    Raises
    ------
    ValueError
        The values are not one row of finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.bandits.adwin import ADWIN
    >>> from offramp.bandits.detectors import alarms
    >>> rng = np.random.default_rng(0)
    >>> stream = np.concatenate([rng.normal(0.8, 0.1, 500), rng.normal(0.5, 0.1, 500)])
    >>> alarms(ADWIN(), stream)
    array([543])

    """
    stream = np.ascontiguousarray(values, dtype=np.float64)
    if stream.ndim != 1 or not np.isfinite(stream).all():
        raise ValueError(f"values have shape {stream.shape}, allowed is one row (n,) of finite numbers")
    found = np.zeros(len(stream), dtype=np.int64)
    return found[: _scan(detector.push)(detector.initial(), stream, found)].copy()
