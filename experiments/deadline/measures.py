"""What a journal says of deadlines: requests that miss one, batches that fail, and where both turn."""

from collections.abc import Sequence

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments.timed import Journal


def missed_requests(journal: Journal, deadlines_ms: Sequence[float]) -> FloatArray:
    """Share of all requests whose answer came after each deadline, or never since they were dropped, (D,).

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.environments.timed import Journal
    >>> from offramp.environments.timed.tables import DROPPED, FIELDS, LATENCY
    >>> pages = np.zeros((4, len(FIELDS)))
    >>> pages[:, LATENCY], pages[3, DROPPED] = [10.0, 20.0, 30.0, 0.0], 1.0
    >>> missed_requests(Journal(pages, 0, 0.0), [5.0, 20.0, 100.0])
    array([1.  , 0.5 , 0.25])

    """
    late = journal["latency_ms"][:, None] > np.asarray(deadlines_ms, dtype=np.float64)
    share: FloatArray = (late | ~journal.answered[:, None]).mean(axis=0)
    return share


def right_in_time(journal: Journal, deadlines_ms: Sequence[float]) -> FloatArray:
    """Share of all requests that were answered rightly and by each deadline, (D,)."""
    soon = journal["latency_ms"][:, None] <= np.asarray(deadlines_ms, dtype=np.float64)
    share: FloatArray = (soon & (journal.answered & (journal["correct"] == 1.0))[:, None]).mean(axis=0)
    return share


def batches(journal: Journal, size: int) -> tuple[FloatArray, FloatArray]:
    """Mean latency of the answered, and share of all that were answered rightly, of each batch, (B,) each.

    Parameters
    ----------
    journal
        Of a whole number of batches, in the order of arrival: time and answer stay those of the same requests.
    size
        Requests in a batch, >= 1.

    Returns
    -------
    tuple
        Milliseconds, inf where all of a batch was dropped; and the share in [0, 1], what was dropped counting as wrong.

    Raises
    ------
    ValueError
        The journal ends within a batch.

    """
    n = len(journal.pages)
    if size < 1 or n % size:
        raise ValueError(f"batch is {size} with {n} requests, allowed is a whole number >= 1 that divides them")
    kept = journal.answered.reshape(-1, size)
    count = kept.sum(axis=1)
    total = np.where(kept, journal["latency_ms"].reshape(-1, size), 0.0).sum(axis=1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    return mean, np.where(kept, journal["correct"].reshape(-1, size), 0.0).mean(axis=1)


def missed_batches(mean_ms: FloatArray, right: FloatArray, deadlines_ms: Sequence[float], target: float) -> FloatArray:
    """Share of batches whose mean latency exceeds each deadline, or whose accuracy stays below the target, (D,)."""
    late = mean_ms[:, None] > np.asarray(deadlines_ms, dtype=np.float64)
    share: FloatArray = (late | (right < target)[:, None]).mean(axis=0)
    return share


def plateau(right: FloatArray, target: float) -> float:
    """Share of batches that fail however long one waits."""
    return float((right < target).mean())


def drop_ms(mean_ms: FloatArray, right: FloatArray, target: float) -> float:
    """The deadline at which half of what waiting can help is no longer missed; nan where nothing can be helped.

    It is the median over the batches that are right often enough.
    """
    enough = right >= target
    return float(np.median(mean_ms[enough])) if enough.any() else float("nan")
