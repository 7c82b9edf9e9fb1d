"""The page of one claim: hypothesis, command, result, picture, and a verdict that follows from checks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from offramp.environments.reliability import Z

Found = dict[str, Any]
REPRODUCED, PARTLY, NOT = "reproduced", "partly reproduced", "not reproduced"
HELD = {True: "yes", False: "**no**", None: "**cannot be told**"}
Told = bool | None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that a paper says, and what was found of it.

    Parameters
    ----------
    what, wanted, found
        In words, with numbers.
    holds
        Is it so here?  None = the intervals cannot tell, which is not held.

    """

    what: str
    wanted: str
    found: str
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that stands on the page of a claim.

    Parameters
    ----------
    title, hypothesis, source
        The question, the claim, and where it stands.
    setting
        What was played or taken, in words.
    tables
        Heading -> Markdown.
    pictures
        File name without ending -> SVG text.
    checks
        From which the verdict follows: all hold, some, none.
    why
        Paragraphs: why the verdict is what it is, and what it leaves out.

    """

    title: str
    hypothesis: str
    source: str
    setting: str
    tables: dict[str, str]
    pictures: dict[str, str]
    checks: Sequence[Check]
    why: Sequence[str] = field(default=())

    @property
    def verdict(self) -> str:
        """Reproduced where every check holds, not where none does."""
        held = sum(check.holds is True for check in self.checks)
        return REPRODUCED if held == len(self.checks) else PARTLY if held else NOT

    def markdown(self, claim: str) -> str:
        """The page as it is written to README.md."""
        parts = [
            f"# {self.title}",
            f"**Verdict: {self.verdict}.**",
            f"**Hypothesis.** {self.hypothesis}\n\n*Source:* {self.source}",
            f"**Command** (it writes this page, all of it):\n\n    offramp papers claim={claim} "
            "folder=experiments/papers",
            f"**Setting.** {self.setting}",
            *(f"![{name}]({name}.svg)" for name in self.pictures),
            *(f"## {heading}\n\n{table}" for heading, table in self.tables.items()),
            f"## Verdict: {self.verdict}\n\n{judged(self.checks)}",
            *self.why,
        ]
        return "\n\n".join(parts) + "\n"


def judged(checks: Sequence[Check]) -> str:
    """The checks as a table."""
    heads = "| what | wanted | found | holds |\n| --- | --- | --- | --- |\n"
    return heads + "\n".join(f"| {c.what} | {c.wanted} | {c.found} | {HELD[c.holds]} |" for c in checks)


def pm(value: dict[str, float], digits: int = 1) -> str:
    """Mean and half-width of an interval."""
    return f"{value['mean']:.{digits}f} ±{value['half']:.{digits}f}"


def above(low: float, high: float, limit: float) -> Told:
    """Does an interval lie on or above a limit as a whole?  False = below it as a whole, None = on both sides."""
    return True if low >= limit else False if high < limit else None


def at_least(value: dict[str, float], limit: float) -> Told:
    """The same of a mean with its half-width."""
    return above(value["mean"] - value["half"], value["mean"] + value["half"], limit)


def at_most(value: dict[str, float], limit: float) -> Told:
    """Does the whole interval lie on or below a limit?"""
    return above(-value["mean"] - value["half"], value["half"] - value["mean"], -limit)


def less(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """One mean less another with the interval of independent ones: too wide where both are of the same images."""
    return {"mean": one["mean"] - other["mean"], "half": math.hypot(one["half"], other["half"])}


def share(value: float, n: float) -> dict[str, float]:
    """A share of n with its normal 95 % interval."""
    return {"mean": value, "half": Z * math.sqrt(value * (1.0 - value) / n)}


def every(told: Iterable[Told]) -> Told:
    """Do all hold?  False where one surely does not, None where that cannot be told."""
    seen = set(told)
    return False if False in seen else None if None in seen else True


def tally(told: Sequence[Told]) -> str:
    """How many hold, and of how many that cannot be told."""
    open_ = sum(x is None for x in told)
    return f"{sum(x is True for x in told)} of {len(told)}" + (f"; at {open_} it cannot be told" if open_ else "")
