"""Calibration beyond one temperature: a scale and a bias for each class, or any rising map of the confidence."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize

from offramp.models.calibrate import best_temperature, likelihood_loss
from offramp.models.fitting_set import FEWEST, TARGET, CalibrationError, FloatArray, Labels, each_exit, finite, top

PENALTY = 0.001


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorScaling:
    """Logits z become scale * z + bias, class by class; unlike a temperature, this may change the prediction.

    Parameters
    ----------
    scale, bias
        (L, K) each.
    samples
        How many samples each exit was fitted on, (L,); 0 = too few were left, and it stays as it was.

    """

    scale: FloatArray
    bias: FloatArray
    samples: npt.NDArray[np.int64]

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Scaled and shifted logits, (n, L, K) float64."""
        made: FloatArray = finite(logits) * self.scale + self.bias
        return made

    def confidence(self, logits: npt.ArrayLike) -> tuple[FloatArray, Labels]:
        """Largest class probability and its class, (n, L) each."""
        return top(self.apply(logits))


def fit_vector(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    on: str = "reaching",
    target: float = TARGET,
    fewest: int = 5 * FEWEST,
    penalty: float = PENALTY,
) -> VectorScaling:
    """A scale and a bias for each exit and class.

    Parameters
    ----------
    logits, labels, on, target, fewest
        See `offramp.models.calibrate.fit_temperature`; 2 K numbers an exit want 1,000 samples or more.
    penalty
        >= 0, in nats: on the mean square of the biases, and on that of the scales' relative distance from the best
        temperature's.  Where it is large, only that temperature is left.

    Raises
    ------
    CalibrationError
        An argument is not as described.

    Notes
    -----
    Guo et al. (ICML 2017), who do not regularise.  L-BFGS starts from the best temperature, and the likelihood on the
    samples fitted on is never lower than there.

    """
    if not 0.0 <= penalty < np.inf:
        raise CalibrationError(f"penalty is {penalty}, allowed is a finite number >= 0")
    classes = np.shape(logits)[-1] if np.ndim(logits) else 0
    fitted = each_exit(
        logits,
        labels,
        on,
        target,
        fewest,
        fit=lambda z, y: _vector(z, y, penalty),
        apply=lambda found, z: top(z * found[0] + found[1])[0],
        otherwise=np.stack([np.ones(classes), np.zeros(classes)]),
    )
    both = np.stack([found for found, _ in fitted])
    return VectorScaling(scale=both[:, 0], bias=both[:, 1], samples=np.array([n for _, n in fitted], dtype=np.int64))


def _vector(z: FloatArray, y: Labels, penalty: float) -> FloatArray:
    """Scale and bias, (2, K)."""
    n, classes = z.shape
    temperature = best_temperature(z, y)
    scaled = z / temperature  # the unknown scales are relative to this
    hot = y[:, None] == np.arange(classes)

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        scale, bias = x[:classes], x[classes:]
        made = scaled * scale + bias
        shifted = np.exp(made - made.max(axis=1, keepdims=True))
        error = (shifted / shifted.sum(axis=1, keepdims=True) - hot) / n
        slope = np.concatenate([(error * scaled).sum(axis=0), error.sum(axis=0)])
        off = np.concatenate([scale - 1.0, bias])
        return likelihood_loss(made, y) + penalty * float((off**2).mean()), slope + 2.0 * penalty * off / len(off)

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    if likelihood_loss(scaled * found[:classes] + found[classes:], y) > likelihood_loss(scaled, y):
        found = start
    made: FloatArray = found.reshape(2, classes)
    made[0] /= temperature
    return made


@dataclass(frozen=True, eq=False, kw_only=True)
class Isotonic:
    """Confidences go through a rising map of their own at each exit: through its knots, level beyond the outer ones.

    Parameters
    ----------
    knot, value
        Confidences, strictly rising within an exit, and what they become, never falling; (M,) in [0, 1], exit by exit.
    start
        Exit i has the knots start[i]..start[i + 1] - 1, (L + 1,).
    samples
        How many samples each exit was fitted on, (L,); 0 = too few were left, and it stays as it was.

    """

    knot: FloatArray
    value: FloatArray
    start: npt.NDArray[np.int64]
    samples: npt.NDArray[np.int64]

    def confidence(self, logits: npt.ArrayLike) -> tuple[FloatArray, Labels]:
        """Confidence after the map, and the class of the largest logit, (n, L) each."""
        raw, prediction = top(finite(logits))
        if raw.ndim != 2 or raw.shape[1] != len(self.start) - 1:
            raise CalibrationError(f"logits give {raw.shape}, allowed is (samples, {len(self.start) - 1} exits)")
        made = np.empty_like(raw)
        for i, (a, b) in enumerate(zip(self.start[:-1], self.start[1:], strict=True)):
            made[:, i] = np.interp(raw[:, i], self.knot[a:b], self.value[a:b])
        return made, prediction


def fit_isotonic(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    on: str = "reaching",
    target: float = TARGET,
    fewest: int = 5 * FEWEST,
) -> Isotonic:
    """A rising map of the confidence for each exit, of the least squared distance from being right.

    Parameters
    ----------
    logits, labels, on, target, fewest
        See `offramp.models.calibrate.fit_temperature`; a map without a form wants 1,000 samples or more.

    Raises
    ------
    CalibrationError
        An argument is not as described.

    Notes
    -----
    Zadrozny and Elkan (KDD 2002), on the confidence alone.  Each level of the fit is one knot, at the mean confidence
    of its samples, so that between levels the order of samples is kept; beyond the outer knots it is lost.

    """
    same = np.array([[0.0, 1.0], [0.0, 1.0]])
    fitted = each_exit(
        logits,
        labels,
        on,
        target,
        fewest,
        fit=_isotonic,
        apply=lambda found, z: np.interp(top(z)[0], found[0], found[1]),
        otherwise=same,
    )
    knot, value = np.concatenate([found for found, _ in fitted], axis=1)
    return Isotonic(
        knot=knot,
        value=value,
        start=np.cumsum([0, *(found.shape[1] for found, _ in fitted)]),
        samples=np.array([n for _, n in fitted], dtype=np.int64),
    )


def _isotonic(z: FloatArray, y: Labels) -> FloatArray:
    """Knots and values, (2, M)."""
    confidence, prediction = top(z)
    at, place, count = np.unique(confidence, return_inverse=True, return_counts=True)
    right = np.bincount(place, prediction == y) / count
    found = isotonic_regression(right, weights=count)
    weight = np.add.reduceat(count, found.blocks[:-1])
    knot = np.add.reduceat(at * count, found.blocks[:-1]) / weight
    return np.stack([knot, np.clip(found.x[found.blocks[:-1]], 0.0, 1.0)])
