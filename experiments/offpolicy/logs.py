"""A log of decisions and of what they revealed, read from a store, as the arrays that evaluation needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from offramp.bandits import rows
from offramp.bandits.arms import Arms
from offramp.bandits.durable.fold import Fold
from offramp.bandits.durable.reading import reading
from offramp.bandits.durable.store import FIRST, Entry, StoreError
from offramp.bandits.policy import Policy
from offramp.bandits.rows import FloatArray
from offramp.experiments.offpolicy.chances import Recomputed
from offramp.experiments.offpolicy.makers import in_order

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Log:
    """Requests of a log whose answers came back, in the order in which they were decided where the log says it.

    Parameters
    ----------
    decision, observation
        Decision rows (n, W) and observation rows (n, 2 L + 5), see `offramp.bandits.rows`.
    lost
        How many more there were whose answer, or audit, got lost: they are in no estimate, which is right where losses
        have nothing to do with what was lost.
    chance
        (n, K) probability of each rule in `rules` at each decision, recomputed from the log; None where it cannot be.
    rules
        (K, 1 + L) cut and thresholds of what the logging policy draws from.
    why
        Why `chance` is None.
    policy, arms, features
        What logged, where a store said so.

    """

    decision: FloatArray
    observation: FloatArray
    lost: int = 0
    chance: FloatArray | None = None
    rules: FloatArray | None = None
    why: str = "the log does not say which policy made it"
    policy: Policy | None = None
    arms: Arms | None = None
    features: int = 0

    @classmethod
    def of(cls, decision: FloatArray, observation: FloatArray, recomputed: Recomputed | None = None) -> "Log":
        """From all rows of a log; those whose answer got lost are left out.

        Raises
        ------
        ValueError
            The log is empty, or of a world whose answers are not read here.

        """
        if not len(decision):
            raise ValueError("the log holds no feedback, allowed is one piece or more")
        exits = int(decision[0, rows.EXITS])
        at = observation[:, rows.ANSWERED_AT].astype(np.int64)
        sent = observation[:, rows.OFFLOADED] == 1.0
        if (sent & (at < exits)).any():
            raise ValueError(
                "the log has offloads that the edge answered after all (fallback), allowed are those that exit "
                f"{exits} answered: what another rule would have led to is not known otherwise"
            )
        confidence = observation[:, rows.CONFIDENCE : rows.CONFIDENCE + exits]
        answered = ~np.isnan(confidence[np.arange(len(at)), at - 1])
        asked = (decision[:, rows.AUDIT] == 1.0) & (decision[:, rows.CUT] < exits) & ~sent
        back = answered & (~asked | ~np.isnan(confidence[:, -1]))
        if not back.any():
            raise ValueError("no answer of the log came back, allowed is one or more")
        found = recomputed or Recomputed(None, None, cls.why)
        return cls(
            decision[back],
            observation[back],
            int((~back).sum()),
            None if found.chance is None else found.chance[back],
            found.rules,
            found.why,
        )

    @classmethod
    def read(cls, path: str | Path, *, stream: str | None = None, known: tuple[type, ...] = ()) -> "Log":
        """From the store of a durable engine, which stays as it is; it must not be open in a learner.

        Parameters
        ----------
        path
            The store.
        stream
            The one to read; None = all.
        known
            As for `offramp.bandits.durable.DurableEngine`.

        Raises
        ------
        ValueError
            There is no store, it cannot be read, or it holds nothing that can be evaluated.

        """
        if not Path(path).exists():
            raise ValueError(f"store {path} is not there, allowed is one that a durable engine wrote")
        try:
            with reading(path) as store:
                raw = store.snapshot(FIRST)
                if raw is None:
                    raise ValueError(f"store {path} is empty, allowed is one that a durable engine wrote")
                fold = Fold.unpacked(raw, f"store {path}", known=known)
                entries = list(store.entries(fold.cursor))
        except StoreError as error:
            raise ValueError(str(error)) from error
        return cls.folded(fold, entries, stream)

    @classmethod
    def folded(cls, fold: Fold, entries: Iterable[Entry], stream: str | None = None) -> "Log":
        """From a learner as it was before its log, and the log: the probabilities are recomputed on the way."""
        entries = list(entries)
        streams = sorted({e.stream for e in entries if e.kind is None})
        if stream is not None and stream not in streams:
            raise ValueError(f"stream is {stream!r}, allowed are those with feedback: {streams}")
        recomputed = Recomputed.along(fold, entries, stream)
        kept = in_order([e for e in entries if e.kind is None and stream in (None, e.stream)])
        found = cls.of(
            np.array([e.decision for e in kept]),
            np.array([e.observation for e in kept]),
            recomputed,
        )
        mine = fold.learner
        return cls(**(vars(found) | {"policy": mine.policy, "arms": mine.arms, "features": mine.features}))

    def __len__(self) -> int:
        return len(self.decision)

    def first(self, n: int) -> "Log":
        """The log as it was after so many requests."""
        chance = None if self.chance is None else self.chance[:n]
        cut = {"decision": self.decision[:n], "observation": self.observation[:n], "chance": chance}
        return Log(**(vars(self) | cut))

    @property
    def exits(self) -> int:
        """Exits L of the network."""
        return int(self.decision[0, rows.EXITS])

    @property
    def confidence(self) -> FloatArray:
        """What was revealed, nan elsewhere, (n, L)."""
        return self.observation[:, rows.CONFIDENCE : rows.CONFIDENCE + self.exits]

    @property
    def sure(self) -> BoolArray:
        """Requests whose rule was no matter of chance, (n,)."""
        found: BoolArray = self.decision[:, rows.P_ACTION] == 1.0
        return found

    @property
    def played(self) -> FloatArray:
        """Cut and thresholds of what was played, (n, 1 + L)."""
        at = rows.thresholds_at(self.exits)
        return np.concatenate([self.decision[:, [rows.CUT]], self.decision[:, at : at + self.exits]], axis=1)

    @property
    def reward(self) -> FloatArray:
        """Reward of what was played, audits unpaid, (n,)."""
        at = self.observation[:, rows.ANSWERED_AT].astype(np.int64)
        sent = self.observation[:, rows.OFFLOADED] == 1.0
        every = np.arange(len(self))
        cut = self.decision[:, rows.CUT].astype(np.int64)
        edge = self.decision[every, rows.COSTS + np.where(sent, cut, at)]
        offload = np.where(sent, self.decision[every, rows.offload_cost_at(self.exits) + cut], 0.0)
        mu = self.decision[:, rows.MU]
        with np.errstate(invalid="ignore"):
            price = np.where(mu > 0.0, mu * (edge + offload), 0.0)
        found: FloatArray = self.confidence[every, at - 1] - price
        return found
