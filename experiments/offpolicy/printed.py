"""What the console shows of an evaluation: a table whose numbers are never cut, what its columns mean, and refusals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from offramp.experiments.offpolicy.estimators import NAMES
from offramp.experiments.offpolicy.evaluation import Evaluation
from offramp.experiments.offpolicy.intervals import Estimate, mean
from offramp.experiments.offpolicy.logs import Log
from offramp.experiments.offpolicy.replayed import Replayed
from offramp.experiments.offpolicy.tables import TITLES

Found = Mapping[str, Evaluation | Replayed]
SAID = 3  # refusals that the console shows
UNBOUNDED = 10_000  # columns, more than any table needs
NAME = 12  # least width of a candidate's name where it is longer and the terminal too narrow
GAP = 2  # between columns
ESTIMATES = ("candidate", *(TITLES[e] for e in NAMES))
FACTS = ("over played", "ESS", "used", "drift", "in any case")
LEGEND = (
    "Columns: reward per request by each estimator, ± half of its 95 % interval.",
    "over played: how much more than what was played, doubly robust (DR).",
    "ESS: how many requests of equal weight would tell as much.",
    "used: share of the requests that could have shown the candidate's reward.",
    "drift: from the first to the second half of the log, in standard errors.",
    "in any case: bounds of the reward, whatever the log does not show.",
)
REPLAYED = "Of a learner: first column, mean reward of its replay; ESS and used, the requests that it lived through."


def spoken(log: Log, found: Found, console: Console, path: Path) -> None:
    """Say what was found: the best first, what is refused last.

    Parameters
    ----------
    log
        The log.
    found
        What it says of each candidate, by name.
    console
        Where to.
    path
        The file that holds all of it.

    """

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    played = mean(log.reward)
    say(
        f"{len(log):,} requests of {log.policy!r}, {log.lost:,} more without their answer; they earned "
        f"{played.value:.4f} ±{played.half:.4f} each (audits unpaid)"
    )
    if log.chance is None and not log.sure.all():
        say(f"rules that were drawn count by their own plays alone: {log.why}")
    ranked = sorted(found.items(), key=lambda item: _order(item[1]))
    show((*ESTIMATES, *FACTS), [[name, *_cells(one)] for name, one in ranked], console)
    for line in (*LEGEND, REPLAYED) if any(isinstance(one, Replayed) for one in found.values()) else LEGEND:
        say(line)
    refused = [(name, one.refusal) for name, one in ranked if one.refusal]
    for name, why in refused[:SAID]:
        say(f"{name} is refused: {why}")
    more = f"{len(refused) - SAID} more are refused; " if len(refused) > SAID else ""
    say(f"{more}all numbers and reasons: {path.resolve()}")


def show(heads: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table; in a terminal that is too narrow for it, its second half below the first, names repeated."""
    parts, room = [(heads, rows)], console.width
    if console.is_terminal and _width(_table(heads, rows), console) > room:
        cut = len(ESTIMATES)
        parts = [(heads[:cut], [row[:cut] for row in rows])]
        parts += [((heads[0], *heads[cut:]), [[row[0], *row[cut:]] for row in rows])]
    for some, cells in parts:
        made = _table(some, cells)
        least = _width(made, console)
        if console.is_terminal:  # there names are folded
            names = max((len(row[0]) for row in cells), default=0)
            numbers = _width(_table(some[1:], [row[1:] for row in cells]), console)
            least = max(room, min(names, NAME) + GAP + numbers)
        console.width = least
        console.print(made)
    console.width = room


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(box=None, pad_edge=False)
    for head in heads:
        named = head == "candidate"
        made.add_column(head, justify="left" if named else "right", overflow="fold", no_wrap=not named)
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _width(made: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=UNBOUNDED), made).maximum


def _order(one: Evaluation | Replayed) -> float:
    best = one.best if isinstance(one, Evaluation) else one.estimate
    return -best.value if best is not None else float("inf")


def _cells(one: Evaluation | Replayed) -> list[str]:
    if isinstance(one, Replayed):
        blank = ["–"] * len(NAMES)  # the other estimators, and what it gains
        return [_told(one.estimate), *blank, f"{one.accepted:,}", f"{one.accepted / one.requests:.0%}", "–", "–"]
    return [
        *(_told(one.estimates.get(e)) for e in NAMES),
        _told(one.gain, "+"),
        f"{one.ess:,.0f}",
        f"{one.used / one.requests:.0%}",
        f"{one.drift:+.1f} se" if one.estimates else "–",
        f"{one.lowest:.3f} to {one.highest:.3f}",
    ]


def _told(one: Estimate | None, sign: str = "") -> str:
    return "–" if one is None else f"{one.value:{sign}.4f} ±{one.half:.4f}"
