"""What the service counts, in Prometheus's text form, over all its processes."""

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one process; `text` adds up those of all.

    Where the environment variable PROMETHEUS_MULTIPROC_DIR was set before this module was imported, every process keeps
    its numbers in files of that folder; elsewhere there is this process alone.

    Parameters
    ----------
    exits
        Exits L of the network: cuts are 0..L.
    routes
        Paths that are told apart; all others count as one.

    """

    def __init__(self, *, exits: int, routes: tuple[str, ...]) -> None:
        own = CollectorRegistry()
        self._own = own
        seconds = Histogram("offramp_request_seconds", "Answers by route.", ["route"], registry=own, buckets=BUCKETS)
        self._requests = Counter("offramp_requests", "Answers by route and status.", ["route", "status"], registry=own)
        decisions = Counter("offramp_decisions", "Decisions by cut.", ["cut"], registry=own)
        self._feedback = Counter("offramp_feedback", "Pieces of feedback by outcome.", ["outcome"], registry=own)
        self._rejected = Counter("offramp_rejected", "Requests refused, by reason.", ["reason"], registry=own)
        self.cursor = Gauge(
            "offramp_cursor",
            "Pieces of feedback that the newest board was made of.",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.learner = Gauge(
            "offramp_learner_up", "1 = every worker reaches the learner.", registry=own, multiprocess_mode="livemin"
        )
        self.damaged = Gauge(
            "offramp_board_damaged",
            "1 = decisions are made on an older board, for the newest is damaged.",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.decisions = [decisions.labels(str(cut)) for cut in range(exits + 1)]
        self._seconds = {route: seconds.labels(route) for route in (*routes, "other")}
        self._counted: dict[tuple[str, int], Counter] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        route = path if path in self._seconds else "other"
        self._seconds[route].observe(seconds)
        counter = self._counted.get((route, status))
        if counter is None:
            counter = self._counted[route, status] = self._requests.labels(route, str(status))
        counter.inc()

    def learnt(self, outcome: str) -> None:
        """Count a piece of feedback."""
        self._feedback.labels(outcome).inc()

    def rejected(self, reason: str) -> None:
        """Count a request that was refused."""
        self._rejected.labels(reason).inc()

    def text(self) -> bytes:
        """All counters of all processes."""
        if FOLDER not in os.environ:
            return generate_latest(self._own)
        everything = CollectorRegistry()
        MultiProcessCollector(everything)
        return generate_latest(everything)


def gone(pid: int, folder: Path) -> None:
    """Forget the gauges of a process that has ended; what it counted stays counted."""
    mark_process_dead(pid, str(folder))
