"""What passes between world and engine: the quote before acting, the decision, and the observation that it led to."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits import rows
from offramp.bandits.rows import FloatArray, IntArray

_PLAIN = frozenset((float, int))  # types of numbers that need no look
_UNDECIDED = (0.0,) * (rows.COSTS - rows.ARM)  # the fields between mu and the prices, before a decision is made


class ContractError(ValueError):
    """A quote, context or observation breaks the contract; the message names field, value and what is allowed."""


class Quote:
    """Prices of one request, known before acting.

    Parameters
    ----------
    edge_cost
        Cost of computing on the edge up to each cut 0..L, heads and router included; (L + 1,), finite, >= 0.
    offload_cost
        Cost of sending the rest to the cloud from each cut; (L + 1,), >= 0.  The last must be 0.  +inf keeps learners
        from arms that have offloaded before; what must never be sent (the input, say) is left out of the table of arms.
    mu
        Reward lost per unit of cost, in confidence per cost unit, finite, >= 0.

    Raises
    ------
    ContractError
        A value is outside its range or the lengths differ.

    Examples
    --------
    >>> from offramp.bandits import Quote
    >>> quote = Quote(edge_cost=[0.0, 0.3, 0.6], offload_cost=[0.5, 0.5, 0.0], mu=1.0)
    >>> quote.exits, quote.offload_cost
    (2, array([0.5, 0.5, 0. ]))

    """

    __slots__ = ("row",)
    row: FloatArray

    def __init__(self, *, edge_cost: npt.ArrayLike, offload_cost: npt.ArrayLike, mu: float) -> None:
        edge, offload = _listed(edge_cost), _listed(offload_cost)
        if edge is None or offload is None or len(edge) != len(offload) or len(edge) < 2:
            raise ContractError(
                f"edge_cost has shape {np.shape(edge_cost)} and offload_cost {np.shape(offload_cost)}, allowed is "
                "(L + 1,) twice, L >= 1"
            )
        exits = len(edge) - 1
        # One array from one list, and sums in place of a look at each price: a quarter of the time.
        self.row = np.array([exits, mu, *_UNDECIDED, *edge, *offload, *([math.inf] * exits)], dtype=np.float64)
        prices = self.row[rows.COSTS : rows.thresholds_at(exits)].tolist()
        if prices[-1] != 0.0:
            raise ContractError(f"offload_cost of the last cut is {prices[-1]}, allowed is 0: nothing is left to send")
        scale = self.row.item(rows.MU)
        if not (scale >= 0.0 and min(prices) >= 0.0 and scale * sum(prices) < math.inf):  # else beyond doubt
            flag = rows.check_given(self.row, exits, 0)
            if flag:
                raise ContractError(explain(flag, self.row, exits))

    @property
    def exits(self) -> int:
        """Exits L of the network."""
        return int(self.row[rows.EXITS])

    @property
    def mu(self) -> float:
        """Reward lost per unit of cost."""
        return float(self.row[rows.MU])

    @property
    def edge_cost(self) -> FloatArray:
        """Cost of computing up to each cut, (L + 1,)."""
        return self.row[rows.COSTS : rows.COSTS + self.exits + 1].copy()

    @property
    def offload_cost(self) -> FloatArray:
        """Cost of offloading from each cut, (L + 1,)."""
        return self.row[rows.offload_cost_at(self.exits) : rows.thresholds_at(self.exits)].copy()

    def __repr__(self) -> str:
        return f"Quote(edge_cost={self.edge_cost.tolist()}, offload_cost={self.offload_cost.tolist()}, mu={self.mu})"


class Decision:
    """What to do with one request.  It travels with the request and must come back with the observation.

    Compute up to `cut`; answer on the edge at the first exit j <= cut whose confidence is at least `thresholds[j - 1]`;
    otherwise offload.  With `audit`, offload in any case and serve the edge's answer if there is one.
    """

    __slots__ = ("id", "row", "stream")
    row: FloatArray
    id: int
    stream: str

    def __init__(self, row: FloatArray, id: int, stream: str) -> None:
        self.row = row
        self.id = id
        self.stream = stream

    @property
    def exits(self) -> int:
        """Exits L of the network."""
        return int(self.row[rows.EXITS])

    @property
    def cut(self) -> int:
        """Where the edge stops computing: 0 = send the input, L = the whole network on the edge."""
        return int(self.row[rows.CUT])

    @property
    def thresholds(self) -> FloatArray:
        """Confidence from which each exit answers, (L,); +inf = never there, -inf = always."""
        start = rows.thresholds_at(self.exits)
        return self.row[start : start + self.exits].copy()

    @property
    def threshold(self) -> float:
        """Threshold at the cut itself; +inf where the cut is 0."""
        return float(self.row[rows.thresholds_at(self.exits) + self.cut - 1]) if self.cut else math.inf

    @property
    def audit(self) -> bool:
        """Offload even if the edge answers, to see the cloud's answer."""
        return bool(self.row[rows.AUDIT])

    @property
    def arm(self) -> int:
        """Index into the engine's table of arms, -1 for a rule outside it."""
        return int(self.row[rows.ARM])

    @property
    def p_action(self) -> float:
        """Probability with which this arm was chosen, (0, 1]."""
        return float(self.row[rows.P_ACTION])

    @property
    def p_reveal(self) -> float:
        """Probability that the last exit's confidence is revealed although the edge answers, [0, 1]."""
        return float(self.row[rows.P_REVEAL])

    @property
    def round(self) -> int:
        """Decisions that the policy had made before this one: the version of its knowledge."""
        return int(self.row[rows.ROUND])

    @property
    def quote(self) -> Quote:
        """The prices that the decision was made on."""
        quote = Quote.__new__(Quote)
        quote.row = self.row[: rows.context_at(self.exits)].copy()
        quote.row[rows.ARM : rows.COSTS] = 0.0
        quote.row[rows.thresholds_at(self.exits) :] = math.inf
        return quote

    @property
    def context(self) -> FloatArray:
        """Context features, (d,)."""
        return self.row[rows.context_at(self.exits) :].copy()

    def __repr__(self) -> str:
        return f"Decision(id={self.id}, cut={self.cut}, threshold={self.threshold}, audit={self.audit}, arm={self.arm})"


class Observation:
    """What a decision revealed.

    Parameters
    ----------
    confidence
        Confidence of each exit in [0, 1], nan = not revealed; (L,).
    answered_at
        Exit whose answer was served, 1..L.
    offloaded
        Was the cloud asked for the answer?  It is exit L that answers then, but for the fallback of
        `offramp.bandits.reveal.most_confident`.
    audited
        Was the edge's answer served and the sample offloaded as well?
    prediction
        Class of each exit, -1 = not revealed; (L,).  None: no predictions.
    edge_cost, offload_cost
        Costs as measured, in the quote's unit, >= 0; nan = as quoted.  They are for the record, and for
        policies that do not take the quote at its word (`offramp.bandits.MuLinUCB`).

    Notes
    -----
    There is no field for a label: nothing that a policy learns from can carry one.

    """

    __slots__ = ("row",)
    row: FloatArray

    def __init__(
        self,
        *,
        confidence: npt.ArrayLike,
        answered_at: int,
        offloaded: bool,
        audited: bool = False,
        prediction: Sequence[int] | IntArray | None = None,
        edge_cost: float = math.nan,
        offload_cost: float = math.nan,
    ) -> None:
        values = _listed(confidence)
        if values is None:
            raise ContractError(f"confidence has shape {np.shape(confidence)}, allowed is (L,)")
        classes: Sequence[float] | IntArray = [-1.0] * len(values) if prediction is None else prediction
        if prediction is not None and np.shape(prediction) != (len(values),):
            raise ContractError(
                f"prediction has shape {np.shape(prediction)}, allowed is ({len(values)},) as confidence"
            )
        first = (answered_at, offloaded, audited, edge_cost, offload_cost)
        self.row = np.array([*first, *values, *classes], dtype=np.float64)  # one array from one list is quickest

    @classmethod
    def of(cls, row: FloatArray) -> "Observation":
        """The observation that a row of kernels, logs or messages says; it keeps the row, which is not looked at."""
        made = cls.__new__(cls)
        made.row = row
        return made

    @property
    def confidence(self) -> FloatArray:
        """Confidence of each exit, nan = not revealed, (L,)."""
        return self.row[rows.CONFIDENCE : rows.prediction_at(self._exits)].copy()

    @property
    def prediction(self) -> IntArray:
        """Class of each exit, -1 = not revealed, (L,)."""
        return self.row[rows.prediction_at(self._exits) :].astype(np.int64)

    @property
    def answered_at(self) -> int:
        """Exit whose answer was served, 1..L."""
        return int(self.row[rows.ANSWERED_AT])

    @property
    def offloaded(self) -> bool:
        """Was the cloud asked for the answer?"""
        return bool(self.row[rows.OFFLOADED])

    @property
    def audited(self) -> bool:
        """Was the edge's answer served and the sample offloaded as well?"""
        return bool(self.row[rows.AUDITED])

    @property
    def _exits(self) -> int:
        return (len(self.row) - rows.CONFIDENCE) // 2

    def __repr__(self) -> str:
        shown = [None if math.isnan(c) else round(float(c), 4) for c in self.confidence]
        return f"Observation(answered_at={self.answered_at}, offloaded={self.offloaded}, confidence={shown})"


def _listed(values: npt.ArrayLike) -> list[float] | None:
    """The values of one row as a list, None where they are of another shape; quick for a list of plain numbers."""
    if isinstance(values, list) and _PLAIN.issuperset(map(type, values)):
        return values
    array = np.asarray(values, dtype=np.float64)
    return array.tolist() if array.ndim == 1 else None


def explain(flag: int, row: FloatArray, exits: int) -> str:
    """The sentence behind a flag of `rows.check_given` or `rows.check_observation`."""
    code, at = divmod(flag, rows.FAULT)
    value: Any = float(row[at]) if at < len(row) else at
    if code == rows.WIDTH:
        return f"the row is {at} numbers long and speaks of {row[0]:g} exits, the engine was built for {exits} exits"
    if code == rows.PRICE:
        return f"mu is {row[rows.MU]}, allowed is a finite number >= 0"
    if code == rows.COST:
        beyond = f", times mu = {row[rows.MU]} beyond all numbers" if 0.0 <= value < math.inf else ""
        if at < rows.offload_cost_at(exits):
            return f"edge_cost of cut {at - rows.COSTS} is {value}{beyond}, allowed is a finite number >= 0"
        cut = at - rows.offload_cost_at(exits)
        return f"offload_cost of cut {cut} is {value}{beyond}, allowed is a number >= 0 or +inf"
    if code == rows.CONTEXT:
        return f"context feature {at - rows.context_at(exits)} is {value}, allowed is a finite number"
    if code == rows.VALUE and at >= rows.prediction_at(exits):
        return f"prediction of exit {at - rows.prediction_at(exits) + 1} is {value}, allowed is a whole number >= -1"
    if code == rows.HIDDEN:
        return (
            f"exit {at - rows.CONFIDENCE + 1} is revealed (confidence {value}), allowed is nan without class: exit "
            f"{row[0]:g} answered on the edge, and nothing went deeper"
        )
    if code == rows.VALUE:
        return f"confidence of exit {at - rows.CONFIDENCE + 1} is {value}, allowed is [0, 1], or nan where not revealed"
    if code == rows.LENGTH:
        return f"confidence has {(at - rows.CONFIDENCE) // 2} values, allowed are {exits}, one for each exit"
    if code == rows.FOREIGN:
        return "the decision was not made by this engine: its arm is none that this policy plays"
    if code == rows.KIND and at in (rows.EDGE_PAID, rows.OFFLOAD_PAID):
        return f"{('edge_cost', 'offload_cost')[at - rows.EDGE_PAID]} is {value}, allowed is a number >= 0, or nan"
    if code == rows.KIND and at == rows.AUDITED and row[at] == 1.0:
        return "audited is 1, allowed is 0: the decision asked for no audit, or left nothing to send"
    if code == rows.KIND and at == rows.OFFLOADED:
        return (
            f"offloaded is {value:g} with answered_at {row[0]:g}: the cloud answers at exit {exits} and without audit, "
            f"or is revealed to be below the threshold at the cut and less sure than the exit that answers"
        )
    if code == rows.KIND:
        return f"field {('answered_at', 'offloaded', 'audited')[at]} is {value}, allowed is 0 or 1"
    if at == 2:
        return "offloaded is 1, but an exit up to the cut was sure enough to answer by this decision"
    if at == 3:
        return f"answered_at is {row[0]:g}, but an exit before it was sure enough to answer by this decision"
    if at == 0:
        return f"answered_at is {row[0]}, allowed is a whole number in 1..{exits}"
    return (
        f"answered_at is {row[0]:g}, but the decision does not let exit {row[0]:g} answer with what was revealed there"
    )
