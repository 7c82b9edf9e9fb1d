"""Estimates of a rule's mean reward from weights and rewards: IPS, SNIPS, doubly robust, adaptively weighted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.bandits import rows
from offramp.bandits.rows import FloatArray
from offramp.experiments.offpolicy.intervals import Estimate, interval, left_out, mean, weighted
from offramp.experiments.offpolicy.logs import Log
from offramp.experiments.offpolicy.revelation import Revelation

BINS = 8  # of the first exit's confidence, where every request reveals it
DOUBT = 2.0  # requests that a model's beginning counts as
IPS, SNIPS, DR, ADAPTIVE = NAMES = ("ips", "snips", "dr", "adaptive_dr")


def effective(weight: FloatArray) -> float:
    """Effective sample size of weights, (sum w)^2 / sum w^2; 0 where all are 0."""
    squares = float(weight @ weight)
    return float(weight.sum()) ** 2 / squares if squares > 0.0 else 0.0


def before(values: FloatArray) -> FloatArray:
    """Running sums over the first axis of what came before."""
    total = np.cumsum(values, axis=0)
    return np.concatenate([np.zeros_like(total[:1]), total[:-1]])


def foreseen(rule: FloatArray, log: Log, of: Revelation) -> FloatArray:
    """A model's reward of a rule on each request, from what was revealed before it, (n,).

    Weighted means of the answer's confidence and of where the rule ends, priced at the request's own quote; by bins of
    the first exit's confidence where every request reveals that.
    """
    n, cut, mu = len(log), int(rule[0]), log.decision[:, rows.MU]
    shown = of.weight > 0.0
    edge = log.decision[:, rows.COSTS : rows.COSTS + log.exits + 1]
    offload = log.decision[:, rows.offload_cost_at(log.exits) + cut]
    ends = [*(np.flatnonzero(rule[1 : 1 + cut] < np.inf) + 1), *([0] if cut < log.exits else [])]
    price = np.stack(
        [mu * (edge[:, e] if e else edge[:, cut] + np.where(offload < np.inf, offload, 0.0)) for e in ends]
    )
    is_end = np.stack([of.stop == e for e in ends], axis=1)
    paid = (price.T * is_end).sum(axis=1)
    facts = np.concatenate([np.where(shown, of.low + paid, 0.0)[:, None], is_end, np.ones((n, 1))], axis=1)
    facts *= of.weight[:, None]
    start = np.array([0.5, *[1.0 / len(ends)] * len(ends)])
    total = before(facts)
    general = (total[:, :-1] + DOUBT * start) / (total[:, -1:] + DOUBT)
    first = log.confidence[:, 0]
    if not np.isnan(first).any():
        place = np.minimum((first * BINS).astype(np.int64), BINS - 1)
        local = np.zeros_like(facts)
        for b in range(BINS):
            local[place == b] = before(facts[place == b])
        general = (local[:, :-1] + DOUBT * general) / (local[:, -1:] + DOUBT)
    found: FloatArray = general[:, 0] - (general[:, 1:] * price.T).sum(axis=1)
    return found


@dataclass(frozen=True, eq=False)
class Scores:
    """What a mixture of rules scores request by request, on the requests that can tell of it.

    Parameters
    ----------
    ips, dr
        (n,) scores.
    snips
        The ratio, and (n,) what it would lose without each request.
    weight
        (n,) weights, mixed.
    steady
        (n,) weights that steady the variance of the doubly robust scores; None where the log does not allow them.

    """

    ips: FloatArray
    snips: tuple[float, FloatArray]
    dr: FloatArray
    weight: FloatArray
    steady: FloatArray | None

    @classmethod
    def of(cls, mixture: Sequence[tuple[float, FloatArray]], log: Log, found: Sequence[Revelation]) -> "Scores":
        r"""Scores of a mixture of (share, rule), each with its revelation.

        Notes
        -----
        With :math:`y_t` the reward where it is revealed and :math:`m_t` a model of it from the past alone:

        - IPS: :math:`\frac{1}{n} \sum w_t y_t` (Horvitz, Thompson 1952).
        - SNIPS: :math:`\sum w_t y_t / \sum w_t` (Swaminathan, Joachims 2015).
        - DR: :math:`\frac{1}{n} \sum \Gamma_t`, :math:`\Gamma_t = m_t + w_t (y_t - m_t)` (Robins, Rotnitzky, Zhao 1994;
          Dudík, Langford, Li 2011).
        - Adaptive DR: :math:`\sum h_t \Gamma_t / \sum h_t` (Hadad, Hirshberg, Zhan, Wager, Athey, PNAS
          118(15), 2021).  Their constant allocation has :math:`h_t \propto \sqrt{e_t}` with e the probability of the
          arm, which steadies the variance.  Here :math:`\rho_t` hangs on sample and price as well, so that
          :math:`h_t = \hat E_{t-1}[1 / \rho_t]^{-1/2}`, which is the same where it does not.  It knows neither of
          them: a weight that knew the price would not give each price its share (Zhan, Hadad, Hirshberg, Athey, KDD
          2021, weight by context and normalise by context instead).

        IPS, SNIPS and DR are right for the mean over the requests of the log, whether or not the stream drifts; uneven
        weights over time ask for a stream that does not.

        """
        n = len(log)
        ips, dr, lost, weight, value = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), 0.0
        scarcity: FloatArray | None = np.zeros(n)
        for (share, rule), one in zip(mixture, found, strict=True):
            w, y = one.weight, np.where(one.weight > 0.0, one.low, 0.0)
            model = foreseen(rule, log, one)
            ips += share * w * y
            dr += share * (model + w * (y - model))
            ratio = float(w @ y / w.sum()) if w.any() else 0.0
            value += share * ratio
            lost += share * left_out(y, w, ratio)
            weight += share * w
            scarcity = None if scarcity is None or one.scarcity is None else scarcity + share * one.scarcity
        steady = None if scarcity is None else 1.0 / np.sqrt(scarcity)
        return cls(ips, (value, lost), dr, weight, steady)

    def estimates(self) -> dict[str, Estimate]:
        """All estimators that the log allows, by name."""
        found = {IPS: mean(self.ips), SNIPS: interval(*self.snips), DR: mean(self.dr)}
        if self.steady is not None:
            found[ADAPTIVE] = weighted(self.dr, self.steady)
        return found
