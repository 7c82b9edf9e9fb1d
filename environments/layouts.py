"""Layouts of published confidences: which column of a file means what, and which layout a header shows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offramp.environments.cache import CacheError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which column of a file means what; where several names are given, the first that is present is read.

    Parameters
    ----------
    name
        What it is called.
    marks
        Columns that tell this layout from the others; of the layouts whose marks are all present, the one with the most
        is taken.  In every name ``{}`` stands for the number of an exit.
    confidence, correct, prediction
        Per exit: largest class probability in [0, 1]; 1 or 0; class.
    delta_time, cumulative_time
        Per exit, >= 0: time of its segment alone, and from the input on.
    label
        True class.
    family, level
        Kind and strength of the distortion: each pair of them is a condition.
    repeats
        Columns of which each value brings every sample again.
    base
        Number of the first exit, 0 or 1; None where files of both kinds exist.
    time_unit
        Of the two times.

    """

    name: str
    marks: tuple[str, ...] = ()
    confidence: tuple[str, ...] = ("conf_branch_{}",)
    correct: tuple[str, ...] = ("correct_branch_{}",)
    prediction: tuple[str, ...] = ("infered_class_branches_{}", "prediction_branch_{}")
    delta_time: tuple[str, ...] = ("delta_inf_time_branch_{}",)
    cumulative_time: tuple[str, ...] = ("cum_inf_time_branch_{}",)
    label: tuple[str, ...] = ("target", "label")
    family: tuple[str, ...] = ("distortion_type",)
    level: tuple[str, ...] = ("distortion_level", "distortion_lvl")
    repeats: tuple[str, ...] = ("p_tar", "device")
    base: int | None = None
    time_unit: str = "unknown"


_EARLY_EXIT = Layout(name="early_exit")
LAYOUTS = (
    _EARLY_EXIT,
    replace(_EARLY_EXIT, name="ee_mab", marks=("distortion_level", "device", "prediction_branch_{}"), time_unit="ms"),
    replace(_EARLY_EXIT, name="adaee", marks=("distortion_lvl", "infered_class_branches_{}")),
    replace(_EARLY_EXIT, name="mab_early_exits", marks=("delta_conf", "infered_label_branches_{}")),
    replace(_EARLY_EXIT, name="buffer", marks=("class_name", "device", "prediction_branch_{}"), time_unit="s"),
)


def recognise(header: Sequence[str], name: str | None = None) -> Layout:
    """The layout of this name; without a name, the one of `LAYOUTS` with the most marks that the header bears out.

    Raises
    ------
    CacheError
        No layout has this name.

    """
    by_name = {known.name: known for known in LAYOUTS}
    if name is not None:
        if name not in by_name:
            raise CacheError(f"layout is {name!r}, allowed are {list(by_name)} or a Layout")
        return by_name[name]
    fits = [known for known in LAYOUTS if all(exit_columns(header, [mark]) for mark in known.marks)]
    return max(fits, key=lambda known: len(known.marks))


def exit_columns(header: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Number of the exit to place in the header, exits ascending, for the first of the names that the header has.

    A name without ``{}`` counts as exit 0; no column, no entry.
    """
    for name in names:
        shape = re.compile("(0|[1-9][0-9]*)".join(re.escape(part) for part in name.split("{}")))
        found = [(shape.fullmatch(column), place) for place, column in enumerate(header)]
        numbered = {int(match[1]) if match.groups() else 0: place for match, place in found if match}
        if numbered:
            return dict(sorted(numbered.items()))
    return {}
