"""A Markdown table."""

from collections.abc import Iterable, Sequence


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first so many columns hold words and whose others hold numbers, which stand to the right.

    Examples
    --------
    >>> from offramp.experiments.markdown import grid
    >>> print(grid(["policy", "cost"], [["SplitEE", ".31"]]))
    | policy | cost |
    | --- | --: |
    | SplitEE | .31 |

    """
    rule = ["---"] * words + ["--:"] * (len(heads) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rule, *rows])
