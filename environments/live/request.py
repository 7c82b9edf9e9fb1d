"""One request on the real edge: what was seen of it, the one answer that it gets, and its row in the journal."""

import math
import threading
from typing import NamedTuple

import numpy as np

from offramp.bandits.contract import Decision, Observation
from offramp.bandits.reveal import PREFIX, edge_cost, offload_cost, reveal
from offramp.bandits.rows import (
    ARM,
    AUDIT,
    CONFIDENCE,
    CUT,
    EDGE_PAID,
    EXITS,
    MU,
    OFFLOAD_PAID,
    FloatArray,
    prediction_at,
)
from offramp.environments.link_kernels import transmit_mj
from offramp.environments.live.parts import Pass
from offramp.environments.physical import DEADLINE, ENERGY, PER_MJ, edge_price, offload_price
from offramp.environments.timed import tables as t
from offramp.environments.timed.journey import best_local
from offramp.environments.timed.tables import Facts

# Why a request was answered as it was: there was no room; an exit on the edge was sure enough; the cloud answered; or
# the best exit on the edge had to stand in, because the link was down, the circuit to the cloud was open, as many
# questions as may be were under way, the cloud's answer was not there in time, or it failed.
WHY = ("dropped", "local", "cloud", "down", "open", "full", "deadline", "failed")
ROOM, LOCAL, CLOUD, DOWN, OPEN, FULL, LATE, FAILED = range(8)


class Answer(NamedTuple):
    """The one answer to a request; `offloaded` = the cloud's, `exit` = whose it is, 1..L, 0 = none for want of room.

    `expert` is the one whose exits were asked, -1 = none.
    """

    round: int
    prediction: int
    confidence: float
    exit: int
    why: str
    latency_ms: float
    served_ms: float
    cut: int
    arm: int
    variant: int
    threshold: float
    offloaded: bool
    expert: int


class Live:
    """A request under way.  Several threads may want to answer it; the first one does.

    Parameters
    ----------
    number, sample, condition
        Which request of the run it is, and which image under which condition.
    arrival, start
        When it came and when its turn came, ms since the run began.
    decision
        As the engine made it, quote and all.
    image
        The image on its way through the edge's half.

    """

    def __init__(
        self, number: int, sample: int, condition: int, arrival: float, start: float, decision: Decision, image: Pass
    ) -> None:
        self.number, self.sample, self.condition = number, sample, condition
        self.arrival, self.start, self.decision, self.image = arrival, start, decision, image
        self.row = decision.row.copy()
        exits = int(self.row[EXITS])
        self.truth = np.full(exits, math.nan)
        self.classes = np.full(exits, -1, dtype=np.int64)
        self.edge_ms = self.coding_ms = 0.0  # as stretched
        self.computed = start
        self.variant = -1
        self.bytes = self.sending_ms = 0.0
        self.offered = self.heard = False  # was anything put on the line, and did an answer come back?
        self.back = start
        self.refusal = DOWN  # why no offload was offered, where none was
        self.sure = 0  # the exit on the edge that is sure enough, 0 = none
        self.computing = threading.Lock()  # of the first exit as a stand-in
        self._lock = threading.Lock()
        self.answer: Answer | None = None

    def settle(self, why: int, now: float) -> Answer | None:
        """The answer, the first time; None where there is one already.

        Parameters
        ----------
        why
            Index into WHY.
        now
            Milliseconds since the run began.

        """
        with self._lock:
            if self.answer is not None:
                return None
            exit = self.sure if why == LOCAL else len(self.truth) if why == CLOUD else self._stand_in()
            confidence, guess = float(self.truth[exit - 1]), int(self.classes[exit - 1])
            cut = int(self.row[CUT])
            threshold = self.decision.threshold
            self.answer = Answer(
                self.number,
                guess,
                confidence,
                exit,
                WHY[why],
                now - self.arrival,
                now,
                cut,
                int(self.row[ARM]),
                self.variant,
                threshold,
                why == CLOUD,
                self.image.expert,
            )
            return self.answer

    def hear(self, confidence: float, prediction: int) -> bool:
        """Take the cloud's word; False where the request was answered without it, which then stays as it is."""
        with self._lock:
            if self.answer is not None and self.answer.why != WHY[LOCAL]:
                return False
            self.truth[-1], self.classes[-1] = confidence, prediction
            self.heard = True
            return True

    def _stand_in(self) -> int:
        """The exit that answers in the cloud's place: the surest of those evaluated, the deepest of equals."""
        if self.row[CUT] == len(self.truth):
            return len(self.truth)  # the whole network ran on the edge
        heard = np.where(np.isnan(self.truth), -1.0, self.truth)
        return int(best_local(heard, self.row, True))

    def observation(self, facts: Facts) -> Observation:
        """What the decision revealed; costs as they were.  An audit without an answer is none."""
        exits = len(self.truth)
        row = self.row.copy()
        row[AUDIT] = float(self.heard and row[AUDIT] == 1.0)
        seen = Observation.of(np.concatenate([np.zeros(CONFIDENCE), np.full(exits, math.nan), np.full(exits, -1.0)]))
        reveal(self.truth, self.classes, row, facts.options, seen.row)
        assert len(seen.row) == prediction_at(exits) + exits
        seen.row[EDGE_PAID], seen.row[OFFLOAD_PAID] = self.costs(facts)
        return seen

    def costs(self, facts: Facts) -> tuple[float, float]:
        """Cost units of computing and of sending, as they were."""
        assert self.answer is not None
        served, mj = self.answer.served_ms, self._power(facts) * self.edge_ms
        edge = edge_price(facts.terms, self.edge_ms, mj, min(served, self.computed) - self.arrival)
        if not self.offered:
            return edge, 0.0
        computed = self.computed - self.arrival
        waited = (self.back if self.heard else max(served, self.computed)) - self.computed
        ended = computed if self.answer.why == WHY[LOCAL] else max(served - self.arrival, computed)
        offload = offload_price(facts.terms, waited, self.sending_ms, self.bytes, computed, ended)
        return edge, offload + facts.terms[PER_MJ] * self._power(facts) * self.coding_ms

    def write(self, page: FloatArray, facts: Facts) -> None:
        """Fill the request's row of the journal, when nothing more can happen to it."""
        assert self.answer is not None
        served, row, why = self.answer, self.row, WHY.index(self.answer.why)
        edge, offload = self.costs(facts)
        outage, offloaded, audited = why not in (LOCAL, CLOUD), why == CLOUD, why == LOCAL and self.heard
        whole_network = facts.prediction[self.condition, self.sample, -1]
        quoted = edge
        if not outage:
            shown = self.observation(facts).row
            quoted = edge_cost(row, shown) + offload_cost(row, shown)
        sending_mj = 0.0
        if self.offered:
            sending_mj = transmit_mj(facts.terms[ENERGY:], self.sending_ms, self.bytes)
            sending_mj += self._power(facts) * self.coding_ms
        page[t.PLAYED], page[t.CUT_AT], page[t.VARIANT] = row[ARM], row[CUT], self.variant if self.offered else -1.0
        page[t.ANSWERED], page[t.OUTAGE] = served.exit, float(outage)
        page[t.OFFLOAD], page[t.AUDIT] = float(offloaded), float(audited)
        page[t.WAITED], page[t.EDGE], page[t.SENDING] = self.start - self.arrival, self.edge_ms, self.sending_ms
        page[t.LATENCY], page[t.SIZE] = served.latency_ms, self.bytes
        page[t.ENERGY] = self._power(facts) * self.edge_ms + sending_mj
        page[t.QUOTED], page[t.EDGE_COST], page[t.OFFLOAD_COST] = quoted, edge, offload
        page[t.CONFIDENCE] = served.confidence
        page[t.REWARD] = served.confidence - row[MU] * (edge + offload)
        page[t.MISSED] = float(served.latency_ms > facts.terms[DEADLINE])
        page[t.CORRECT] = float(served.prediction == facts.label[self.sample])
        page[t.AGREEMENT] = float(served.prediction == whole_network)

    @staticmethod
    def _power(facts: Facts) -> float:
        """Watts of the edge, as the device's profile has them."""
        return float(facts.edge[1, -1] / facts.edge[0, -1]) if facts.edge[0, -1] > 0.0 else 0.0


def prefix(facts: Facts) -> bool:
    """Are all heads up to the cut evaluated?"""
    return bool(facts.options[PREFIX] == 1)
