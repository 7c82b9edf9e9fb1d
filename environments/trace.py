"""The record of one run: running sums at log-spaced rounds, of constant size whatever the horizon."""

from dataclasses import dataclass

import numpy as np

from offramp.bandits.arms import Arms
from offramp.bandits.loop import FIELDS, Record
from offramp.bandits.rows import CONFIDENCE, FloatArray, IntArray, context_at

PER_DECADE = 13
EVEN = 64
RULES = 4_096  # changes of rule that a record holds before they are valued


def checkpoints(horizon: int) -> IntArray:
    """Rounds at which a trace is kept: 13 a decade for a log scale, and 64 even ones for what happens when."""
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}, allowed is 1 or more")
    log = np.logspace(0.0, np.log10(horizon), int(np.ceil(np.log10(horizon) * PER_DECADE)) + 1)
    even = np.linspace(0, horizon, EVEN + 1)[1:]
    rounds = np.round(np.concatenate([log, even, [horizon]])).astype(np.int64)
    return np.unique(rounds.clip(1, horizon))  # in this order: a round that came twice would be waited for in vain


def record(arms: Arms, horizon: int, features: int = 0, at: IntArray | None = None) -> Record:
    """An empty record for the loop to fill, kept at `checkpoints(horizon)` or at rounds of your own."""
    at = checkpoints(horizon) if at is None else np.asarray(at, dtype=np.int64)
    width = len(FIELDS) + len(arms)
    return Record(
        totals=np.zeros(width),
        checkpoints=at,
        kept=np.zeros((len(at), width)),
        at=np.zeros(2, dtype=np.int64),
        row=np.zeros(context_at(arms.exits) + features),
        seen=np.concatenate([np.zeros(CONFIDENCE), np.full(arms.exits, np.nan), np.full(arms.exits, -1.0)]),
        rules=np.zeros((RULES + 1, arms.exits + 2)),
    )


@dataclass(frozen=True, eq=False)
class Trace:
    """Sums up to each checkpoint.

    Parameters
    ----------
    rounds
        Rounds played at each checkpoint, (R,).
    sums
        Running sums by name, (R,) each: reward, edge_cost and offload_cost (cost units), regret (dynamic
        pseudo-regret), counts of offloads, audits, correct answers, and agreement with the last exit; and
        multiply-accumulates on the edge and bytes sent.
    arms
        How often each arm was played so far, (R, A).
    cuts
        How often rules outside the table of arms were played so far, by their cut, (R, L + 1).
    seconds
        Wall-clock time of the run without compilation, for all rounds.

    """

    rounds: IntArray
    sums: dict[str, FloatArray]
    arms: FloatArray
    cuts: FloatArray
    seconds: float

    @classmethod
    def of(cls, record: Record, cuts: list[FloatArray], seconds: float) -> "Trace":
        """The trace of a finished record, and what `offramp.environments.off_table` found of other rules."""
        fields = {name: record.kept[:, f].copy() for f, name in enumerate(FIELDS)}
        return cls(record.checkpoints.copy(), fields, record.kept[:, len(FIELDS) :].copy(), np.array(cuts), seconds)

    def mean(self, name: str) -> float:
        """Mean per round of one of the sums over the whole run."""
        return float(self.sums[name][-1] / self.rounds[-1])

    @property
    def cost(self) -> FloatArray:
        """Running sum of edge and offload cost, (R,), in cost units."""
        return self.sums["edge_cost"] + self.sums["offload_cost"]
