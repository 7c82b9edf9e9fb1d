"""What a live run leaves behind: the simulator's journal, and beside it what only a real run has."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.live.request import WHY
from offramp.environments.timed.journal import Journal


@dataclass(frozen=True, eq=False, kw_only=True)
class LiveRun:
    """A run, n requests long.

    Parameters
    ----------
    journal
        As the simulator writes it; real milliseconds, real bytes.
    start_ms, served_ms
        When a request's turn came and when it was answered, since the run began, (n,); nan where it was dropped.
    prediction
        Class that was served, (n,); -1 where it was dropped.
    why
        Index into `WHY`, (n,).
    expert
        Whose exits were asked, (n,), 0 without a router; -1 where it was dropped.
    changes
        (ms, state) of each change of the circuit breaker.
    late
        Answers of the cloud that came after another one had stood in for them: none was served.
    learnt, refused, undecided
        Pieces of feedback that the engine counted, and that it could not take; requests on which it could not decide,
        which the whole network then answered on the edge.
    faults
        How often the cloud failed for which reason.

    """

    journal: Journal
    start_ms: FloatArray
    served_ms: FloatArray
    prediction: IntArray
    why: IntArray
    expert: IntArray
    changes: list[tuple[float, str]] = field(default_factory=list)
    late: int = 0
    learnt: int = 0
    refused: int = 0
    undecided: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def because(self, name: str) -> npt.NDArray[np.bool_]:
        """Which requests were answered for a reason in `WHY`, (n,)."""
        return np.asarray(self.why == WHY.index(name))

    def summary(self) -> dict[str, float]:
        """The journal's summary, and beside it the number of requests, of each reason, and of what went wrong."""
        counts = {f"answered_{name}": float(self.because(name).sum()) for name in WHY}
        more = {name: float(getattr(self, name)) for name in ("late", "learnt", "refused", "undecided")}
        opened = float(sum(state == "open" for _, state in self.changes))
        return {
            "requests": float(len(self.why)),
            **(self.journal.summary() if len(self.why) else {}),
            **counts,
            **more,
            "circuit_opened": opened,
            "seconds": self.journal.seconds,
        }
