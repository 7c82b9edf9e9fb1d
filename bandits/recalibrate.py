r"""Keeps an exit's confidence honest while the world drifts, from the cloud's answers to what was sent there anyway.

Only the largest probability c of an exit is known, so its logits cannot be rescaled.  What can be is its log-odds:

.. math:: \hat p = \sigma(b + a\,\mathrm{logit}(c)), \qquad a > 0

where :math:`\hat p` is the probability that the exit agrees with the cloud.  Each agreement y that is revealed with
propensity p is worth a weight 1/p, and moves (b, a) to

.. math:: \arg\min\ \tfrac12\lVert\theta - \theta_t\rVert^2_{H} - \tfrac1p\log P(y \mid \theta),

where H is the discounted curvature of what was seen before.  The step is implicit, the slope of the loss being taken
where it ends: it is finite whatever the weight.
"""

import math
from typing import Final

import numpy as np

from offramp.bandits.kernel import kernel
from offramp.bandits.rows import FloatArray

BIAS, SLOPE, H_BIAS, H_CROSS, H_SLOPE, SEEN, DISCOUNT, PRIOR = range(8)
SIZE: Final = 8
EDGE = 1e-4  # a confidence is read as at least this far from 0 and 1
FLATTEST = 0.05
HALVINGS = 40
RAREST = 1e-6  # heavier weights would drown the prior in rounding


@kernel
def log_odds(confidence: float) -> float:
    """Log-odds of a confidence, which stay finite at 0 and 1."""
    inside = min(max(confidence, EDGE), 1.0 - EDGE)
    return math.log(inside / (1.0 - inside))


@kernel
def logistic(x: float) -> float:
    """Probability of log-odds, without overflow."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    return 1.0 - 1.0 / (1.0 + math.exp(x))


@kernel
def recalibrated(state: FloatArray, at: int, confidence: float) -> float:
    """Calibrated confidence; the SIZE numbers of the exit begin at `at` in the state."""
    return logistic(state[at + BIAS] + state[at + SLOPE] * log_odds(confidence))


@kernel
def learn(state: FloatArray, at: int, confidence: float, agreed: float, propensity: float) -> None:
    """Take in one revealed agreement (1) or disagreement (0), see `StreamingCalibration.update`."""
    x = log_odds(confidence)
    discount, prior = state[at + DISCOUNT], state[at + PRIOR]
    bias, slope = state[at + BIAS], state[at + SLOPE]
    h0 = discount * state[at + H_BIAS] + (1.0 - discount) * prior
    h1 = discount * state[at + H_CROSS]
    h2 = discount * state[at + H_SLOPE] + (1.0 - discount) * prior
    determinant = h0 * h2 - h1 * h1  # > 0: the prior is inside
    along_bias, along_slope = (h2 - h1 * x) / determinant, (h0 * x - h1) / determinant
    odds, gain = bias + slope * x, along_bias + along_slope * x
    low, high = 0.0, 1.0  # the length of the step in units of its largest, the weight
    weight, sign = 1.0 / propensity, 1.0 if agreed == 1.0 else -1.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        surprise = logistic(-sign * odds - middle * weight * gain)
        if middle < surprise:
            low = middle
        else:
            high = middle
    step = sign * weight * 0.5 * (low + high)
    bias += step * along_bias
    slope += step * along_slope
    p = logistic(bias + slope * x)
    curvature = weight * p * (1.0 - p)
    h0, h1, h2 = h0 + curvature, h1 + curvature * x, h2 + curvature * x * x
    if slope < FLATTEST:
        bias -= (FLATTEST - slope) * h1 / h0  # the nearest map, as H measures it, that still rises
        slope = FLATTEST
    state[at + BIAS], state[at + SLOPE] = bias, slope
    state[at + H_BIAS], state[at + H_CROSS], state[at + H_SLOPE] = h0, h1, h2
    state[at + SEEN] += 1.0


class StreamingCalibration:
    """The map of one exit's confidence, and what moves it; constant time and memory per observation.

    Parameters
    ----------
    discount
        Factor on older evidence at each observation, in (0, 1): .995 remembers about 200 of them.
    prior
        Weight > 0 of the belief that the confidence is right as it is, in curvature of the loss: about four times as
        many observations.

    Attributes
    ----------
    state
        All that is known, (SIZE,) float64: copy it to keep it, or let it lie inside a larger state and use `learn` and
        `recalibrated` on that.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    Platt (1999), on the confidence, online.  The cloud's answer stands in for the label: what is estimated is agreement
    with the cloud, which under a distortion may itself be wrong most of the time.

    Weights are for what is revealed by more than the confidence, as where an exit is followed by another that decides
    what is sent: heard of where that one is unsure, an exit seems worse than it is (measured: by 6 to 11 points of
    agreement).  Where its own confidence alone decides, nothing is selected given the confidence, and a propensity of 1
    for all is nearer to the truth, as equal weights vary less (measured over a drift: error .04 against .05).

    Examples
    --------
    >>> from offramp.bandits.recalibrate import StreamingCalibration
    >>> exit_1 = StreamingCalibration()
    >>> round(exit_1(0.9), 6)
    0.9
    >>> for t in range(1000):
    ...     exit_1.update(0.9, agreed=t % 2 == 0, propensity=0.1)
    >>> round(exit_1(0.9), 1)
    0.5

    """

    def __init__(self, *, discount: float = 0.995, prior: float = 5.0) -> None:
        if not 0.0 < discount < 1.0:
            raise ValueError(f"discount is {discount}, allowed is a number in (0, 1)")
        if not 0.0 < prior < math.inf:
            raise ValueError(f"prior is {prior}, allowed is a finite number > 0")
        self.state: FloatArray = np.zeros(SIZE)
        self.state[SLOPE] = 1.0
        self.state[H_BIAS] = self.state[H_SLOPE] = self.state[PRIOR] = prior
        self.state[DISCOUNT] = discount

    def __call__(self, confidence: float) -> float:
        """Calibrated confidence in (0, 1); it rises strictly with the confidence inside [1e-4, 1 - 1e-4].

        Raises
        ------
        ValueError
            The confidence is outside [0, 1].

        """
        return recalibrated(self.state, 0, _confidence(confidence))

    def update(self, confidence: float, *, agreed: bool, propensity: float = 1.0) -> None:
        """Take in what an offload or an audit revealed.

        Parameters
        ----------
        confidence
            The exit's own, in [0, 1].
        agreed
            Was its prediction the cloud's?
        propensity
            Probability in [1e-6, 1] with which this sample would be revealed, given all that decided about it: 1 where
            the rule offloads it, the rate of audits where it is answered at the edge.  See the notes of the class.

        Raises
        ------
        ValueError
            An argument is out of its range; nothing is learnt.

        """
        if not RAREST <= propensity <= 1.0:
            raise ValueError(f"propensity is {propensity}, allowed is a number in [{RAREST}, 1]")
        if agreed not in (0, 1):
            raise ValueError(f"agreed is {agreed!r}, allowed are True and False")
        learn(self.state, 0, _confidence(confidence), float(agreed), float(propensity))


def _confidence(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"confidence is {value}, allowed is [0, 1]")
    return float(value)
