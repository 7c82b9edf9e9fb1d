r"""Temperature scaling: one number that makes an exit's softmax as sure as it is right, fitted on validation logits.

:math:`\hat p = \mathrm{softmax}(z / T)`; T > 1 humbles an exit, T < 1 encourages it.  T minimises the negative
log-likelihood of the labels, which is convex in 1/T: a bounded search of one variable finds it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from offramp.models.fitting_set import (
    FEWEST,
    TARGET,
    CalibrationError,
    FloatArray,
    Labels,
    check_target,
    checked,
    each_exit,
    finite,
    top,
)

POOLED = ("all", "fired")
SMALLEST, LARGEST = 1.0 / 20.0, 20.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Temperature:
    """Temperatures of exits.

    Parameters
    ----------
    temperature
        T > 0, finite, of a shape that broadcasts to that of the logits without their last axis: (L,) for logits
        (n, L, K), (E, 1, L) for those of E experts (E, n, L, K).
    samples
        How many samples each T was fitted on, of the same shape; 0 = too few were left, and T was given.

    Raises
    ------
    CalibrationError
        A temperature is not finite and > 0.

    Examples
    --------
    >>> import numpy as np
    >>> from offramp.models.calibrate import Temperature
    >>> half = Temperature(temperature=np.array([2.0]), samples=np.array([500]))
    >>> confidence, prediction = half.confidence(np.log([[[0.9, 0.1]]]))
    >>> confidence.round(3), prediction
    (array([[0.75]]), array([[0]]))

    """

    temperature: FloatArray
    samples: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        bad = ~(np.isfinite(self.temperature) & (self.temperature > 0.0))
        if bad.any():
            raise CalibrationError(f"temperature is {self.temperature[bad][0]}, allowed is a finite number > 0")

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Logits divided by their temperature, float64 of the same shape."""
        scaled: FloatArray = finite(logits) / self.temperature[..., None]
        return scaled

    def confidence(self, logits: npt.ArrayLike) -> tuple[FloatArray, Labels]:
        """Largest class probability and its class; that class is the same at every temperature."""
        return top(self.apply(logits))[0], finite(logits).argmax(axis=-1)


def fit_temperature(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    on: str = "reaching",
    target: float = TARGET,
    fewest: int = FEWEST,
    otherwise: float = 1.0,
) -> Temperature:
    r"""One temperature for each exit, (L,).

    Parameters
    ----------
    logits, labels
        Of n >= 200 validation samples: (n, L, K) finite with K >= 2, and (n,) in 0..K-1 of at least two classes.
    on
        Which samples an exit is fitted on.  "all", as a policy of one cut needs.  "reaching": those that a cascade
        leaves to it, no earlier exit's calibrated confidence being :math:`\geq` the target; exits are fitted in turn.
        "exiting": those that it answers in the uncalibrated cascade, as in the papers; the last exit answers the rest.
    target
        p_tar in (0, 1); of no effect on "all".
    fewest, otherwise
        An exit with fewer samples, >= 1, keeps this temperature.  The papers' code has 1 and 1.5.

    Raises
    ------
    CalibrationError
        An argument is not as described.

    Notes
    -----
    Guo et al. (ICML 2017); "exiting" is the per-branch temperature scaling of Pacheco et al. (JNCA 217, 2023).  That
    selects an exit's surest samples, so over all its samples it may become worse calibrated than without.  A bounded
    search on log T replaces their L-BFGS; T stays within 1/20..20, and T = 1 wherever no other is better.

    No prediction and no order of classes changes.  The order of samples by their confidence may, with three classes or
    more: how well an exit tells right from wrong is not quite the same after it.

    """
    if not 0.0 < otherwise < np.inf:
        raise CalibrationError(f"otherwise is {otherwise}, allowed is a finite number > 0")
    fitted = each_exit(
        logits, labels, on, target, fewest, fit=best_temperature, apply=lambda t, z: top(z / t)[0], otherwise=otherwise
    )
    return Temperature(
        temperature=np.array([t for t, _ in fitted]), samples=np.array([n for _, n in fitted], dtype=np.int64)
    )


def fit_global(logits: npt.ArrayLike, labels: npt.ArrayLike, *, on: str = "all", target: float = TARGET) -> Temperature:
    r"""One temperature for all exits, repeated (L,).

    Parameters
    ----------
    logits, labels, target
        See `fit_temperature`.
    on
        "all": every exit's logits of every sample.  "fired": of each sample the logits of the exit that answers it in
        the uncalibrated cascade, the papers' overall temperature scaling.

    Raises
    ------
    CalibrationError
        An argument is not as described.

    """
    z, y = checked(logits, labels)
    check_target(target)
    if on not in POOLED:
        raise CalibrationError(f"on is {on!r}, allowed are {POOLED}")
    n, exits, classes = z.shape
    if on == "fired":
        fires = top(z)[0] >= target
        fires[:, -1] = True
        pooled, truth = z[np.arange(n), fires.argmax(axis=1)], y
    else:
        pooled, truth = z.reshape(n * exits, classes), np.repeat(y, exits)
    return Temperature(
        temperature=np.full(exits, best_temperature(pooled, truth)), samples=np.full(exits, len(truth), dtype=np.int64)
    )


def temperature_tables(
    experts: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], *, on: str = "reaching", target: float = TARGET
) -> dict[str, FloatArray]:
    """The temperatures that a confidence cache keeps by name, (E, L) each.

    Parameters
    ----------
    experts
        For each expert logits (n, L, K) and labels (n,) of validation samples under the distortions that it is for.
    on, target
        See `fit_temperature`.  "global" is fitted on all samples, or on those that fire where this is "exiting".

    Returns
    -------
    dict
        "global": one for everything.  "exit": one for each exit, from the samples of all experts.  "expert_exit".

    Raises
    ------
    CalibrationError
        See `fit_temperature`; or the experts do not have as many exits and classes.

    """
    pairs = [checked(z, y) for z, y in experts]
    shapes = {z.shape[1:] for z, _ in pairs}
    if len(shapes) != 1:
        raise CalibrationError(f"experts have logits of {sorted(shapes)}, allowed is one (exits, classes)")
    z, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    pooled = fit_global(z, y, on="fired" if on == "exiting" else "all", target=target)
    each = fit_temperature(z, y, on=on, target=target)
    own = [fit_temperature(z, y, on=on, target=target).temperature for z, y in pairs]
    return {
        "global": np.tile(pooled.temperature, (len(pairs), 1)),
        "exit": np.tile(each.temperature, (len(pairs), 1)),
        "expert_exit": np.stack(own),
    }


def best_temperature(logits: FloatArray, labels: Labels) -> float:
    """The temperature in 1/20..20 of least negative log-likelihood, and 1 where none is lower; (n, K) and (n,)."""
    found = minimize_scalar(
        lambda x: likelihood_loss(logits * np.exp(-x), labels),
        bounds=(np.log(SMALLEST), np.log(LARGEST)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(np.exp(found.x)) if found.fun < likelihood_loss(logits, labels) else 1.0


def likelihood_loss(logits: FloatArray, labels: Labels) -> float:
    """Mean negative log-likelihood of the labels in nats; (n, K) and (n,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())
