"""The page of one claim: hypothesis, command, result, picture, and a verdict that follows from checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Found = dict[str, Any]
REPRODUCED, PARTLY, NOT = "reproduced", "partly reproduced", "not reproduced"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that a paper says, and what was found of it.

    Parameters
    ----------
    what, wanted, found
        In words, with numbers.
    holds
        Is it so here?

    """

    what: str
    wanted: str
    found: str
    holds: bool


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
        held = sum(check.holds for check in self.checks)
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
    return heads + "\n".join(
        f"| {c.what} | {c.wanted} | {c.found} | {'yes' if c.holds else '**no**'} |" for c in checks
    )


def pm(value: dict[str, float], digits: int = 1) -> str:
    """Mean and half-width of an interval."""
    return f"{value['mean']:.{digits}f} ±{value['half']:.{digits}f}"


def surely_at_least(value: dict[str, float], limit: float) -> bool:
    """Does the whole interval lie on or above a limit?"""
    return value["mean"] - value["half"] >= limit
