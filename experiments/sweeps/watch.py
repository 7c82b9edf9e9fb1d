"""Watches a sweep from the process that started it, whatever launches the jobs: progress, failures, the exit code."""

import contextlib
import json
import logging
import math
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from offramp.experiments.earlier import write
from offramp.experiments.sweeps.claim import claim
from offramp.experiments.sweeps.dataset import FAILED, REFUSED
from offramp.experiments.sweeps.job import DONE, THERE, record_failure
from offramp.experiments.sweeps.keys import plain
from offramp.experiments.sweeps.tuning import trials_left

STATUS = "status.json"
LOG = logging.getLogger(__name__)


def total(config: DictConfig) -> int | None:
    """How many jobs a sweep will have; None where only its sweeper knows."""
    if "n_trials" in config.hydra.sweeper:
        sweeper = config.hydra.sweeper
        if not isinstance(sweeper.n_trials, int):
            return None  # which the sweeper refuses in words of its own
        return trials_left(Path(config.hydra.sweep.dir), str(sweeper.study), sweeper.n_trials)
    if "max_batch_size" not in config.hydra.sweeper:
        return None
    given = [*(f"{k}={v}" for k, v in (config.hydra.sweeper.get("params") or {}).items())]
    given += list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return sum(len(batch) for batch in BasicSweeper.split_arguments(parser.parse_overrides(given), None))


class Line(threading.Thread):
    """One line about all jobs, and the same as `status.json` in the folder of the sweep.

    Parameters
    ----------
    folder, total
        Of the sweep, and how many jobs it has.
    every
        Seconds between two looks.

    """

    def __init__(self, folder: Path, total: int | None, every: float = 0.5) -> None:
        super().__init__(daemon=True, name="sweep-progress")
        self.folder, self.total, self.every = folder, total, every
        self.over = threading.Event()
        self.begun = time.time()
        self.notes: dict[str, dict[str, Any]] = {}

    def look(self) -> dict[str, Any]:
        """Count the notes that jobs have left."""
        for path in self.folder.glob(f"jobs/*/{DONE}"):
            if path.parent.name not in self.notes:
                with contextlib.suppress(OSError, ValueError):  # of a file system that is behind: at the next look
                    self.notes[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
        states = [found["status"] for found in self.notes.values()]
        there, failed, refused = (states.count(what) for what in (THERE, FAILED, REFUSED))
        seconds = time.time() - self.begun
        played, left = len(states) - there, None if self.total is None else max(0, self.total - len(states))
        ahead = seconds / played * left if left is not None and played else (0.0 if left == 0 else math.nan)
        return {
            "total": self.total,
            "finished": len(states) - failed - refused - there,
            "there": there,
            "refused": refused,
            "failed": failed,
            "seconds": seconds,
            "seconds_left": ahead,
        }

    def run(self) -> None:
        """Look again and again until it is over."""
        console = Console(stderr=True)
        look = (TextColumn("jobs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        said = 0.0
        with Progress(*look, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=self.total)
            while not self.over.wait(self.every):
                now = self.look()
                bar.update(task, completed=len(self.notes), description=told(now))
                with contextlib.suppress(OSError):
                    write(self.folder / STATUS, json.dumps(plain({**now, "running": True})))
                if not console.is_terminal and time.time() - said > 10.0:
                    said = time.time()
                    LOG.info("%d of %s jobs; %s", len(self.notes), self.total or "?", told(now))

    def end(self) -> dict[str, Any]:
        """Stop, and say how it ended."""
        self.over.set()
        self.join()
        now = self.look()
        try:
            write(self.folder / STATUS, json.dumps(plain({**now, "running": False})))
        except OSError as error:  # raised further it would hide how the sweep ended
            LOG.warning("%s cannot be written: %s", self.folder / STATUS, error)
        return now


def told(now: dict[str, Any]) -> str:
    """Progress as text."""
    parts = [f"{now['failed']} failed"] * (now["failed"] > 0) + [f"{now['there']} were there"] * (now["there"] > 0)
    if not math.isnan(now["seconds_left"]):
        minutes, seconds = divmod(round(now["seconds_left"]), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)


class Watch(Callback):
    """Hydra calls this where a sweep begins and ends, and wherever one of its jobs ends."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self.lock: int | None = None
        self.begun = time.perf_counter()

    def __getstate__(self) -> dict[str, Any]:
        """Travel to other machines without the line and the claim on the folder."""
        return {"line": None, "lock": None, "begun": self.begun}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder, and begin the line."""
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = claim(folder)
            for path in folder.glob(f"jobs/*/{DONE}"):
                if path.is_file():
                    path.unlink()  # of a sweep before this one
            self.line = Line(folder, total(config))
        except (ValueError, OSError) as error:  # Hydra makes a mere warning of what a callback raises
            sys.exit(f"offramp compare: {error}")
        self.line.start()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the clock of a job, on the machine of the job."""
        self.begun = time.perf_counter()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record a failure, on the machine of the job, and let the sweep go on."""
        error = job_return._return_value if job_return.status == JobStatus.FAILED else None
        if config.hydra.mode is None or config.hydra.mode.name != "MULTIRUN" or not isinstance(error, BaseException):
            return
        where = "".join(traceback.format_exception(error))
        LOG.error("failed: %s", where)
        why = f"{type(error).__name__}: {error}\n\n{where}"
        output, seconds = Path(config.hydra.runtime.output_dir), time.perf_counter() - self.begun
        assert job_return.cfg is not None
        record_failure(job_return.cfg, Path(config.hydra.sweep.dir), output, why, seconds)
        job_return.return_value, job_return.status = math.nan, JobStatus.COMPLETED

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say how it ended; the process fails where a run did, unless that is allowed."""
        if self.line is None:
            return
        now, folder = self.line.end(), self.line.folder
        if self.lock is not None:
            os.close(self.lock)
        known, jobs = len(self.line.notes), now["total"] or 0
        refused = f"{now['refused']} were not offered, " if now["refused"] else ""
        counts = f"{now['finished']} runs finished, {now['there']} were there, {refused}{now['failed']} failed"
        print(f"{counts}; {folder.resolve()}")
        for name, note in sorted(self.line.notes.items()):
            if note["status"] == FAILED:
                print(f"  job {name}: {note['why'].splitlines()[0][:300]}")
        if jobs > known:
            print(f"  {jobs - known} of {jobs} jobs left no word; their logs lie in {folder / 'jobs'}")
        if (now["failed"] or jobs > known) and not config.allow_failures:
            sys.exit(1)
