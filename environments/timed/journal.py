"""The journal of a run in time: what every single request went through, and what it sums up to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offramp.bandits.rows import FloatArray
from offramp.environments.timed.tables import FIELDS


@dataclass(frozen=True, eq=False)
class Journal:
    """One row for each request.

    Parameters
    ----------
    pages
        (n, F) float64, the columns are `FIELDS`: dropped, outage, offloaded, audited, missed, correct and agreement
        (with the whole network, without coding) are 0 or 1; times in milliseconds, latency from a request's arrival to
        its answer, computing on the edge with what was coded in vain; energy on the edge in millijoules, coding and
        sending included; costs in cost units, without mu; arm = -1 outside the table.
    given_up
        Feedback that was never learnt because too much of it was on its way.
    seconds
        Wall-clock time of the run, without compilation.

    """

    pages: FloatArray
    given_up: int
    seconds: float

    def __getitem__(self, name: str) -> FloatArray:
        """One column, (n,)."""
        if name not in FIELDS:
            raise KeyError(f"a journal has no column {name!r}, allowed are {FIELDS}")
        return self.pages[:, FIELDS.index(name)]

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which requests were not dropped, (n,)."""
        answered: npt.NDArray[np.bool_] = self["dropped"] == 0.0
        return answered

    def mean(self, name: str) -> float:
        """Mean of a column over the requests that were answered; nan where none was."""
        kept = self[name][self.answered]
        return float(kept.mean()) if len(kept) else float("nan")

    def latency(self, share: float = 0.5) -> float:
        """Quantile of the latency in milliseconds over the requests that were answered, for a share in [0, 1]."""
        kept = self["latency_ms"][self.answered]
        return float(np.quantile(kept, share)) if len(kept) else float("nan")

    @property
    def missed(self) -> float:
        """Share of all requests whose answer came after the deadline or, for want of room, never."""
        return float(np.mean(self["missed"] + self["dropped"]))

    def summary(self) -> dict[str, float]:
        """What a table shows of a run."""
        return {
            "latency_ms": self.mean("latency_ms"),
            "latency_p95_ms": self.latency(0.95),
            "missed": self.missed,
            "energy_mj": self.mean("energy_mj"),
            "bytes": self.mean("bytes"),
            "cost": self.mean("edge_cost") + self.mean("offload_cost"),
            "reward": self.mean("reward"),
            "accuracy": self.mean("correct"),
            "agreement": self.mean("agreement"),
            "offloaded": self.mean("offloaded"),
            "audited": self.mean("audited"),
            "outage": self.mean("outage"),
            "dropped": float(self["dropped"].mean()),
        }

    def against(self, measured_ms: npt.ArrayLike) -> float:
        """Simulated mean latency over the mean of measured latencies of the same requests; 1 = the model is right.

        Raises
        ------
        ValueError
            There is no measurement, or one is not a number > 0.

        """
        measured = np.asarray(measured_ms, dtype=np.float64)
        if measured.ndim != 1 or not len(measured) or not (measured > 0.0).all():
            raise ValueError(f"measured_ms is {measured_ms!r}, allowed is a list of milliseconds > 0")
        return self.mean("latency_ms") / float(measured.mean())
