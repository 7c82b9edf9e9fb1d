"""How likely a log was to reveal what a rule would have led to: what estimates are weighted by."""

from dataclasses import dataclass

import numpy as np

from offramp.bandits import rows
from offramp.bandits.rows import FloatArray
from offramp.experiments.offpolicy.logs import BoolArray, Log
from offramp.experiments.offpolicy.paths import Delivery, Paths, bounds, hardest, paths, reveals, stops

MARKS = 64  # paths of the past by which it is foreseen how likely the next one is to be revealed
UNLIKELY = 1e-12  # stands for a probability of 0, which no estimate uses
HELD = 4.0  # marks that the beginning of such a foresight counts as
RECENT = 64  # requests before one whose foresights are averaged


@dataclass(frozen=True, eq=False)
class Revelation:
    r"""One rule on one log.

    Parameters
    ----------
    weight
        (n,) :math:`w_t = R_t / \rho_t`, 0 where the outcome is not revealed.
    chance
        (n,) :math:`\rho_t`, nan where it is not revealed.
    least
        (n,) the least :math:`\rho_t` that any sample could have had: 0 = this request cannot tell of the rule.
    audited
        (n,) the same if each request had been audited.
    scarcity
        (n,) foreseen mean of :math:`1 / \rho_t`, by what was known before the request and its price came, inf where
        that is nothing; None where probabilities do not follow from the log (then `least` is what was stated when the
        rule was played).
    low, high
        (n,) the least and the largest reward that the rule can have had.
    stop
        (n,) exit at which it answered on the edge, 0 = offloaded; right where it is revealed.

    Notes
    -----
    Let N be the confidences that the rule looks at on a sample, and with them those that come before in a world that
    reveals all heads on the way.  :math:`R_t = 1` where the decision was *sure* to reveal N, given N: taking every
    other confidence for as large as it can be.  Then :math:`\rho_t = \sum_a p_t(a) [(1 - q_t) R(a) + q_t R'(a)]`, with
    R' for a with an audit, depends on N alone, and N is known wherever :math:`R_t = 1`, so that :math:`E[w_t | C] = 1`
    for each sample.  What a decision reveals by luck (its own exit happened to be unsure, so that it offloaded) has a
    probability that hangs on what the others would have seen, is not known, and does not count.

    The rule that was played is certain in many logs (:math:`p = 1`); then this needs no more than what the decision
    states, and as all that it shows without an audit is then no matter of chance, it belongs to N too: where it
    offloaded anyway, :math:`\rho_t = 1`.  Where it was drawn, the whole distribution is needed, see
    `offramp.experiments.offpolicy.chances`.  Where that is not to be had, the rule's own plays alone count, by their
    stated probability, as in a log of a bandit.

    """

    weight: FloatArray
    chance: FloatArray
    least: FloatArray
    audited: FloatArray
    scarcity: FloatArray | None
    low: FloatArray
    high: FloatArray
    stop: np.ndarray[tuple[int, ...], np.dtype[np.int64]]

    @property
    def known(self) -> BoolArray:
        """Requests on which the rule's reward shows, whether or not that counts, (n,)."""
        found: BoolArray = self.low == self.high
        return found


class Logging:
    """The probabilities with which a log reveals paths.

    Parameters
    ----------
    log
        The log.
    by_plays
        Count a rule's own plays alone, although more is known.

    """

    def __init__(self, log: Log, *, by_plays: bool = False) -> None:
        self.log, self.delivery = log, Delivery.of(log)
        self.sure = np.zeros(len(log), dtype=bool) if by_plays else log.sure
        self.known = np.ones(len(log), dtype=bool) if log.chance is not None and not by_plays else self.sure
        if log.chance is not None and (log.decision[~self.sure, rows.P_REVEAL] > 0.0).any():
            raise ValueError("the log has audits of rules that were drawn, allowed is one of both: see AgreementFloor")

    def of(self, rule: FloatArray) -> Revelation:
        """The revelation of a rule, (1 + L,)."""
        log, delivery = self.log, self.delivery
        met = paths(rule, log.confidence, delivery)
        chance = np.full(len(log), np.nan)
        sure, drawn = self.sure, ~self.sure & self.known
        chance[sure] = self._certain(met.needed[sure], sure)
        if drawn.any():
            chance[drawn] = self._drawn(Paths(*(part[drawn] for part in met)), drawn)
        audit = (log.decision[:, rows.AUDIT] == 1.0) & (log.decision[:, rows.CUT] < log.exits)
        known = np.where(sure[:, None], log.confidence, met.known)
        shown = met.complete & reveals(log.played, known, met.needed, delivery, audit)
        own = (log.played == rule).all(axis=1)
        by_plays = ~self.known
        shown[by_plays] = (own & met.complete)[by_plays]
        chance[by_plays] = np.where(own, log.decision[:, rows.P_ACTION], np.nan)[by_plays]
        chance[~shown] = np.nan
        weight = np.where(shown, 1.0 / np.where(shown, chance, 1.0), 0.0)
        hard = hardest(rule, log.exits, delivery)
        least, audited = self._least(hard, own)
        scarcity = None if by_plays.any() else self._scarcity(met._replace(known=known), hard, weight, least > 0.0)
        low, high = bounds(rule, log)
        return Revelation(weight, chance, least, audited, scarcity, low, high, stops(rule, log.confidence))

    def _certain(self, needed: BoolArray, of: BoolArray) -> FloatArray:
        """Chance of each request's own path, rules being certain."""
        played, shown, q = self.log.played[of], self.log.confidence[of], self.log.decision[of, rows.P_REVEAL]
        plain, audited = (reveals(played, shown, needed, self.delivery, a) for a in (False, True))
        return np.where(plain, 1.0, q * audited)

    def _drawn(self, met: Paths, of: BoolArray) -> FloatArray:
        """Chance of each request's own path, rules being drawn: paths that no rule tells apart are looked at once."""
        rules, chance = self.log.rules, self.log.chance
        assert rules is not None
        assert chance is not None
        code = np.zeros(len(met.needed), dtype=np.int64)
        for j in range(self.log.exits):
            ladder = np.unique(rules[:, 1 + j][np.isfinite(rules[:, 1 + j])])
            place = np.searchsorted(ladder, met.known[:, j], side="right") + 1
            code = code * (len(ladder) + 2) + np.where(met.needed[:, j], place, 0)
            code = np.unique(code, return_inverse=True)[1]
        _, first, which = np.unique(code, return_index=True, return_inverse=True)
        alike = reveals(rules[None], met.known[first, None], met.needed[first, None], self.delivery, False)
        found: FloatArray = (chance[of] * alike[which]).sum(axis=1)
        return found

    def across(self, met: Paths, audit: float | None = None) -> FloatArray:
        """Chance of J paths at each request, (n, J), nan where not known; with `audit`, at this rate of audits."""
        found = np.full((len(self.log), len(met.known)), np.nan)
        rules, sure, drawn = self.log.rules, self.sure, ~self.sure & self.known
        if sure.any():
            q = self.log.decision[sure, rows.P_REVEAL][:, None] if audit is None else audit
            played = self.log.played[sure][:, None]
            plain, audited = (reveals(played, met.known, met.needed, self.delivery, a) for a in (False, True))
            found[sure] = np.where(plain, 1.0, q * audited)
        if drawn.any():
            assert rules is not None
            assert self.log.chance is not None
            q = audit or 0.0
            plain, audited = (
                reveals(rules, met.known[:, None], met.needed[:, None], self.delivery, a) for a in (False, True)
            )
            found[drawn] = self.log.chance[drawn] @ np.where(plain, 1.0, q * audited).T
        return found

    def _least(self, hard: Paths, own: BoolArray) -> tuple[FloatArray, FloatArray]:
        least, audited = (self.across(hard, audit).min(axis=1) for audit in (None, 1.0))
        open_ = ~self.known
        if open_.any():  # what cannot be known is believed, if the rule was played at all; the mean weight will tell
            stated = self.log.decision[:, rows.P_ACTION]
            played = own & open_ & (stated < 1.0)
            believed = float(stated[played].min()) if played.any() else 0.0
            least[open_] = np.where(own | (stated < 1.0), believed, 0.0)[open_]
            certain = open_ & (stated == 1.0)
            least[certain] = own[certain]
            audited[open_] = least[open_]
        return least, audited

    def _scarcity(self, met: Paths, hard: Paths, weight: FloatArray, able: BoolArray) -> FloatArray:
        """Foresee 1 / rho: its mean over evenly weighted paths of the past, and over the hardest ones.

        What is drawn hangs on the price of the request, and so does what a rule earns: weights that knew the price
        would take cheap requests for all.  So the foresights of the last requests stand for the next one.
        """
        n = len(self.log)
        crossed = np.diff(np.floor(np.cumsum(weight) * (MARKS / n)), prepend=0.0)
        at = np.flatnonzero(crossed > 0.0)
        start = 1.0 / np.maximum(self.across(hard), UNLIKELY)
        marks = Paths(met.known[at], met.needed[at], met.complete[at])
        inverse = np.minimum(1.0 / np.maximum(self.across(marks), UNLIKELY), start.max(axis=1)[:, None])
        past = (at < np.arange(n)[:, None]) * crossed[at]
        own = ((past * inverse).sum(axis=1) + HELD * start.mean(axis=1)) / (past.sum(axis=1) + HELD)
        until = np.arange(n)
        since = np.maximum(until - RECENT, 0)
        total, count = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(able, own, 0.0), able))
        counted = count[until] - count[since]
        found: FloatArray = np.full(n, np.inf)
        np.divide(total[until] - total[since], counted, out=found, where=counted > 0.0)
        return found
