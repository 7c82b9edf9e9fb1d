"""Builds ucb1.c, and plays it on the arrays of our own rollout."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from offramp.bandits import Arms
from offramp.bandits.loop import FIELDS, Block
from offramp.bandits.loop import World as Arrays
from offramp.bandits.reveal import PREFIX
from offramp.environments.trace import checkpoints

SOURCE = Path(__file__).with_name("ucb1.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")
MOST_ARMS, MOST_EXITS = 128, 32  # as in ucb1.c
_COUNTS = ("arms", "exits", "samples", "prices", "width", "table", "checkpoints")
_FACTS = ("confidence", "prediction", "label", "quotes", "gap", "work")
_POINTERS = (*_FACTS, "threshold", "cut", "index", "at", "totals", "kept")


class _World(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in _COUNTS),
        ("beta", ctypes.c_double),
        ("prefix", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


@cache
def library(contract: str = "off") -> ctypes.CDLL:
    """The yardstick, built afresh in each run.

    Parameters
    ----------
    contract
        "off" rounds as our loop does; "fast", the compiler's own default, fuses multiply and add.

    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("neither gcc nor cc is on the path")
    folder = Path(tempfile.mkdtemp(prefix="offramp-yardstick-"))
    try:
        target = folder / "ucb1.so"
        flags = [f if not f.startswith("-ffp") else f"-ffp-contract={contract}" for f in FLAGS]
        subprocess.run([compiler, *flags, str(SOURCE), "-o", str(target), "-lm"], check=True)
        return ctypes.CDLL(str(target))
    finally:
        shutil.rmtree(folder)  # what is loaded stays loaded


@dataclass(frozen=True)
class Sums:
    """What a run of the yardstick leaves behind, as in `offramp.bandits.loop.Record`."""

    totals: np.ndarray[Any, np.dtype[np.float64]]
    kept: np.ndarray[Any, np.dtype[np.float64]]


class Yardstick:
    """UCB1 in C on the arrays of a world.

    Parameters
    ----------
    arrays, arms
        The world, and its table of arms.
    part
        Arms that are played, (K, 3), as `Arms.part` gives them.
    beta
        Width of the confidence bonus.
    name
        Which function of ucb1.c.
    contract
        See `library`.

    """

    def __init__(
        self, arrays: Arrays, arms: Arms, part: Any, *, beta: float, name: str = "ucb1", contract: str = "off"
    ) -> None:
        if arrays.options[1:].any():
            raise ValueError("the yardstick knows worlds whose cloud returns the last confidence alone")
        if len(part) > MOST_ARMS or arrays.confidence.shape[2] > MOST_EXITS:
            raise ValueError(f"the yardstick has room for {MOST_ARMS} arms and {MOST_EXITS} exits")
        self._run = library(contract)[name]
        self._run.restype = None
        self._table = len(arms)
        self._arrays = Arrays(*(np.ascontiguousarray(a) for a in arrays))
        self._index, self._cut = (np.ascontiguousarray(part[:, k]).astype(np.int64) for k in (0, 1))
        self._threshold = np.ascontiguousarray(part[:, 2])
        self._beta = beta

    def play(self, block: Block) -> Sums:
        """Play a block as one whole run."""
        a = self._arrays
        at = checkpoints(len(block.sample))
        width = len(FIELDS) + self._table
        sums = Sums(np.zeros(width), np.zeros((len(at), width)))
        counts = (len(self._cut), a.confidence.shape[2], a.confidence.shape[1], *a.quotes.shape, self._table, len(at))
        held = [getattr(a, name) for name in _FACTS]
        held += [self._threshold, self._cut, self._index, at, sums.totals, sums.kept]
        world = _World(*counts, self._beta, int(a.options[PREFIX]), *(x.ctypes.data for x in held))
        rounds = (np.ascontiguousarray(part, dtype=np.int64) for part in block)
        pointers = [(x, ctypes.c_void_p(x.ctypes.data)) for x in rounds]
        self._run(ctypes.byref(world), ctypes.c_int64(len(block.sample)), *(p for _, p in pointers))
        return sums


def textbook(reward: np.ndarray, rounds: int) -> Callable[[], np.ndarray]:
    """UCB1 in C as textbooks print it, on a matrix of rewards (rows, arms): a run to be timed; it returns pulls."""
    reward = np.ascontiguousarray(reward, dtype=np.float64)
    rows, arms = reward.shape
    pulls, total = np.zeros(arms), np.zeros(arms)
    sizes = [ctypes.c_int64(n) for n in (rounds, arms, rows)]
    found = library()["ucb1_textbook"]
    found.restype = None

    def run() -> np.ndarray:
        pulls[:] = total[:] = 0.0
        found(*sizes, *(ctypes.c_void_p(a.ctypes.data) for a in (reward, pulls, total)))
        return pulls

    return run
