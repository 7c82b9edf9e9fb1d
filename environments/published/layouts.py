"""Layouts of published results: which column of a file means what, and which layout a header shows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offramp.environments.cache import CacheError

SHAPES = ("columns", "rows", "vectors", "places", "tokens")
LAST = 1_000_000  # number of an exit that its column only calls the last


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which column of a file means what.

    Where several names are given, each exit is read from the first that is present.  In every name ``{}`` stands for
    the number of an exit; capitals do not matter.

    Parameters
    ----------
    name
        What it is called.
    shape
        "columns": a row is a sample, an exit a group of columns; "rows": a row is one exit of a sample; "vectors": as
        columns, each cell the probabilities of all classes; "places": as columns, which count by their place; "tokens":
        a row is a text, each cell the list of its tokens' numbers, and each token is a sample.
    marks
        Columns that tell this layout from the others; of the layouts whose marks are all present, the one with the most
        is taken.  Empty = it has to be named.
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
    sample, exit
        Of the shape "rows": which sample, and which of its exits.
    words
        Numbers of exits that columns call by a word.
    gaps
        Exits are layers, and some may be left out; otherwise every one from the base on must be there.
    bare
        Confidences are not part of the layout.
    unlabelled
        Neither label nor correctness is part of the layout.
    base
        Number of the first exit, 0 or 1; None where files of both kinds exist.
    time_unit
        Of the two times: "ms", "s" or "unknown".

    """

    name: str
    shape: str = "columns"
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
    sample: tuple[str, ...] = ()
    exit: tuple[str, ...] = ()
    words: tuple[tuple[str, int], ...] = ()
    gaps: bool = False
    bare: bool = False
    unlabelled: bool = False
    base: int | None = None
    time_unit: str = "unknown"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape is {self.shape!r}, allowed are {SHAPES}")
        if self.base not in (None, 0, 1):
            raise ValueError(f"base is {self.base!r}, allowed are 0, 1 and None")

    def names(self, exits: Sequence[int]) -> tuple[str, ...]:
        """What the exits of these numbers are called in a cache."""
        if not self.gaps:
            return tuple(f"exit {i + 1}" for i in range(len(exits)))
        return tuple("last layer" if number == LAST else f"layer {number}" for number in exits)


_ORDINALS = (
    *(("fir", 1), ("sec", 2), ("thi", 3), ("fou", 4), ("fif", 5), ("six", 6), ("sev", 7), ("eig", 8), ("nin", 9)),
    *(("ten", 10), ("ele", 11), ("twe", 12), ("one", 1), ("two", 2), ("thr", 3), ("fiv", 5), ("las", LAST)),
    ("last", LAST),
)
_EARLY_EXIT = Layout(name="early_exit", marks=("conf_branch_{}",))
LAYOUTS = (
    _EARLY_EXIT,
    replace(
        _EARLY_EXIT,
        name="ee_mab",
        marks=("conf_branch_{}", "distortion_level", "device", "prediction_branch_{}"),
        time_unit="ms",
    ),
    replace(_EARLY_EXIT, name="adaee", marks=("conf_branch_{}", "distortion_lvl", "infered_class_branches_{}")),
    replace(_EARLY_EXIT, name="mab_early_exits", marks=("conf_branch_{}", "delta_conf", "infered_label_branches_{}")),
    replace(
        _EARLY_EXIT,
        name="buffer",
        marks=("conf_branch_{}", "class_name", "device", "prediction_branch_{}"),
        time_unit="s",
    ),
    Layout(
        name="buffer_long",
        shape="rows",
        marks=("Sample_ID", "Exit", "Confidence"),
        sample=("Sample_ID",),
        exit=("Exit",),
        confidence=("Confidence",),
        prediction=("Prediction",),
        correct=("Correct",),
        label=("Label",),
    ),
    Layout(
        name="splitee",
        shape="vectors",
        marks=("tup_layer{}",),
        confidence=("tup_layer{}",),
        label=("output_labels", "label"),
        base=1,
        gaps=True,
    ),
    Layout(
        name="ceebert",
        marks=("{}_layer_P", "PProb_{}", "True_labels"),
        confidence=("PProb_{}",),
        prediction=("{}_layer_P", "{}_layer"),
        correct=(),
        label=("True_labels",),
        words=_ORDINALS,
        gaps=True,
    ),
    Layout(
        name="uee_ucb",
        marks=("{}", "op_labels"),
        confidence=(),
        prediction=("{}",),
        correct=(),
        label=("op_labels",),
        bare=True,
    ),
    Layout(name="isplitee", shape="places"),
    Layout(
        name="capeen",
        shape="tokens",
        marks=("confidence_lis_{}", "predictions_lis_{}"),
        confidence=("confidence_lis_{}", "confidence_lis{}"),
        prediction=("predictions_lis_{}", "predictions_lis{}"),
        gaps=True,
        unlabelled=True,
    ),
)


def recognise(header: Sequence[str], name: str | None = None, *, headless: bool = False) -> Layout:
    """The layout of this name; without a name, the one of `LAYOUTS` with the most marks that the header bears out.

    A file without a header, or one whose columns are numbered or are called confidence and class in turns, is taken for
    the layout in which the place counts.

    Raises
    ------
    CacheError
        No layout has this name, or none fits the header.

    """
    by_name = {known.name: known for known in LAYOUTS}
    if name is not None:
        if name not in by_name:
            raise CacheError(f"layout is {name!r}, allowed are {list(by_name)} or a Layout")
        return by_name[name]
    if headless or _in_places(header):
        return by_name["isplitee"]
    fits = [k for k in LAYOUTS if k.marks and all(exit_columns(header, [mark], k.words) for mark in k.marks)]
    if not fits:
        known = "; ".join(f"{k.name}: {', '.join(k.marks)}" for k in LAYOUTS if k.marks)
        raise CacheError(
            f"columns {list(header)} fit no layout, allowed are columns of one of these, or a layout by name ({known}; "
            "isplitee: row id, then confidence and class of each exit, then the label, whatever they are called)"
        )
    return max(fits, key=lambda known: len(known.marks))


def _in_places(header: Sequence[str]) -> bool:
    """Numbered columns, or confidence and class in turns, between one column and a last one."""
    inner = [name.casefold() for name in header[1:-1]]
    if len(header) < 4 or len(inner) % 2:
        return False
    if [name for name in header if name] == [str(i) for i in range(len([name for name in header if name]))]:
        return True
    turns = zip(inner[::2], inner[1::2], strict=True)
    label = header[-1].casefold().startswith(("label", "target", "true", "y"))
    return label and all(a.startswith("conf") and b.startswith(("class", "pred", "infered")) for a, b in turns)


def exit_columns(header: Sequence[str], names: Sequence[str], words: Sequence[tuple[str, int]] = ()) -> dict[int, int]:
    """Number of the exit to place in the header, exits ascending, each from the first of the names that has it.

    A name without ``{}`` counts as exit 0; no column, no entry.
    """
    numbered: dict[int, int] = {}
    known = dict(words)
    number = "|".join(["0|[1-9][0-9]*", *known])
    for name in names:
        shape = re.compile(f"({number})".join(re.escape(part) for part in name.split("{}")), re.IGNORECASE)
        for place, column in enumerate(header):
            match = shape.fullmatch(column)
            if match:
                word = match[1].casefold() if match.groups() else "0"
                numbered.setdefault(known[word] if word in known else int(word), place)
    return dict(sorted(numbered.items()))
