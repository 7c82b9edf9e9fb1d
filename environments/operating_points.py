"""The table published beside confidences: what the edge answers at a target and how well, and how honest an exit is."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments.cache import CacheError, ConfidenceCache
from offramp.environments.confidences import demand_confidences
from offramp.environments.offloading import answers
from offramp.environments.reliability import ece


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One row of the table: a target in [0, 1], and three shares in [0, 1]; nan for the accuracy of no answers."""

    target: float
    edge_share: float
    edge_accuracy: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ExitQuality:
    """One exit over all samples, whoever else answered them: accuracy, mean confidence, calibration error."""

    accuracy: float
    mean_confidence: float
    calibration_error: float


def operating_points(
    cache: ConfidenceCache,
    targets: Iterable[float],
    *,
    condition: int = 0,
    expert: int = 0,
    edge_exits: int | None = None,
    fallback: str = "last",
) -> tuple[OperatingPoint, ...]:
    r"""The table of a cascade at each target.

    A sample is answered at the first edge exit whose confidence is :math:`\geq` the target, compared in float64, and
    otherwise by the fallback.  The edge share counts the former, the edge accuracy is theirs alone, and the accuracy
    is that of all samples.

    Parameters
    ----------
    cache
        With at least two exits.
    targets
        p_tar; one above every confidence offloads everything.
    condition, expert
        Places in the cache.
    edge_exits
        The first so many exits lie at the edge, 1..L-1; None: all but the last.
    fallback
        Who answers what is offloaded.  "last": the last exit.  "most_confident": of the edge exits and the last, the
        most confident, the last among equals; where the last reaches the target that is itself.

    Raises
    ------
    CacheError
        An argument is out of its range.

    Notes
    -----
    Pacheco, Couto and Simeone (ICC 2021): their offloading probability is 1 - edge share.  AdaEE (ICC 2023) scores
    with the second fallback.  Between two targets a < b the edge loses the samples with a <= C < b, so under "last" the
    three columns fix how often edge and last exit are right in each such band: figures published for both ends can be
    checked against each other.

    Examples
    --------
    >>> from offramp.environments import ConfidenceCache
    >>> from offramp.environments.operating_points import operating_points
    >>> cache = ConfidenceCache.from_arrays(
    ...     confidence=[[[0.75, 0.9], [0.5, 0.25]]],
    ...     prediction=[[[1, 0], [1, 0]]],
    ...     label=[1, 1],
    ...     conditions=["pristine"],
    ... )
    >>> operating_points(cache, [0.75])
    (OperatingPoint(target=0.75, edge_share=0.5, edge_accuracy=1.0, accuracy=0.5),)

    """
    confidence, correct = _view(cache, condition, expert)
    points = []
    for target in targets:
        try:
            found = answers(confidence, correct, target, edge_exits=edge_exits, fallback=fallback)
        except ValueError as error:
            raise CacheError(str(error)) from error
        stays, right = found.edge, found.correct
        points.append(
            OperatingPoint(
                target=float(target),
                edge_share=float(stays.mean()),
                edge_accuracy=float(right[stays].mean()) if stays.any() else float("nan"),
                accuracy=float(right.mean()),
            )
        )
    return tuple(points)


def exit_quality(
    cache: ConfidenceCache, *, condition: int = 0, expert: int = 0, bins: int = 15
) -> tuple[ExitQuality, ...]:
    """Accuracy, mean confidence and calibration error of each exit over all samples, (L,).

    Parameters
    ----------
    cache
        Any.
    condition, expert
        Places in the cache.
    bins
        Of the calibration error, >= 1.

    """
    confidence, correct = _view(cache, condition, expert)
    return tuple(
        ExitQuality(
            accuracy=float(correct[:, i].mean()),
            mean_confidence=float(confidence[:, i].mean()),
            calibration_error=float(ece(confidence[:, i], correct[:, i], bins)),
        )
        for i in range(confidence.shape[1])
    )


def _view(cache: ConfidenceCache, condition: int, expert: int) -> tuple[FloatArray, FloatArray]:
    """Confidence, and 1 where the prediction is the label, (N, L) each."""
    demand_confidences(cache, "a table of operating points")
    for name, place, names in (("condition", condition, cache.conditions), ("expert", expert, cache.experts)):
        if not 0 <= place < len(names):
            raise CacheError(f"{name} is {place}, allowed is 0..{len(names) - 1}")
    correct = cache.prediction[condition, expert] == cache.label[:, None]
    return cache.confidence[condition, expert], correct.astype(np.float64)
