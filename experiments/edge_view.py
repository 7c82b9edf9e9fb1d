"""What `offramp edge` shows while it runs: a table that changes in place, or a line every few seconds."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from offramp.environments.live import WHY, Answer

WINDOW = 100  # answers that the shares and means are of
EVERY_S = 5.0


class Window:
    """The last answers, and what is right about them where labels are known.

    Parameters
    ----------
    labels
        True class of each request; -1 = unknown.
    conditions
        Name of each request's condition.
    codecs
        (split, codec) of each variant.
    experts
        Names of those that a router picks from; () = there is none.
    alarms
        How often the policy's detectors rang, where it has some; None = unknown.

    """

    def __init__(
        self,
        labels: Sequence[int],
        conditions: Sequence[str],
        codecs: Sequence[tuple[int, str]],
        experts: Sequence[str],
        alarms: Callable[[], int] | None,
    ) -> None:
        self._labels, self._conditions, self._codecs = labels, conditions, codecs
        self._experts, self._alarms = experts, alarms
        self._last: deque[Answer] = deque(maxlen=WINDOW)
        self._why: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, answer: Answer) -> None:
        """Take note of an answer."""
        with self._lock:
            self._last.append(answer)
            self._why[answer.why] += 1

    def rows(self) -> dict[str, str]:
        """What is shown, name by name."""
        with self._lock:
            last, why = list(self._last), dict(self._why)
        served = [a for a in last if a.why != WHY[0]]
        if not served:
            return {"answered": "0"}
        now = served[-1]
        known = [a for a in served if self._labels[a.round] >= 0]
        right = [a.prediction == self._labels[a.round] for a in known]
        sent = [self._codecs[a.variant][1] for a in served if a.offloaded and a.variant >= 0]
        latency = np.array([a.latency_ms for a in served])
        rows = {
            "answered": f"{sum(why.values())} of {len(self._labels)}",
            "condition": self._conditions[now.round],
            "split": f"{now.cut} (usual {Counter(a.cut for a in served).most_common(1)[0][0]})",
            "threshold": f"{now.threshold:.3g}",
            "codec": Counter(sent).most_common(1)[0][0] if sent else "-",
            "offloaded": f"{100.0 * np.mean([a.offloaded for a in served]):.0f} %",
            "latency": f"{latency.mean():.1f} ms, p95 {np.quantile(latency, 0.95):.1f} ms",
            "accuracy": f"{100.0 * np.mean(right):.1f} % of {len(known)}" if known else "no labels",
            "stood in for the cloud": ", ".join(f"{why[w]} {w}" for w in WHY[3:] if w in why) or "0",
        }
        if self._experts:
            usual = Counter(a.expert for a in served).most_common(1)[0][0]
            rows["expert"] = f"{self._experts[now.expert]} (usual {self._experts[usual]})"
        if WHY[0] in why:
            rows["dropped"] = str(why[WHY[0]])
        if self._alarms is not None:
            rows["alarms"] = str(self._alarms())
        return rows


class View:
    """Shows a window until it is left; `still` prints a line every few seconds in place of a table that changes."""

    def __init__(self, window: Window, console: Console, *, still: bool) -> None:
        self._window, self._console, self._still = window, console, still
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="offramp view", daemon=True)
        self._live = None if still else Live(self._table(), console=console, auto_refresh=False)

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._left.set()
        self._thread.join()
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
        else:
            self._line()

    def _run(self) -> None:
        while not self._left.wait(EVERY_S if self._still else 0.25):
            if self._live is None:
                self._line()
            else:
                self._live.update(self._table(), refresh=True)

    def _line(self) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"{stamp} " + "; ".join(f"{k} {v}" for k, v in self._window.rows().items()), soft_wrap=True)

    def _table(self) -> Table:
        made = Table(
            title=f"offramp edge, the last {WINDOW} answers", title_justify="left", show_header=False, box=None
        )
        for name, value in self._window.rows().items():
            made.add_row(name, value)
        return made
