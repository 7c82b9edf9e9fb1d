"""What `offramp offpolicy` prints: no number is cut or broken, each column is explained, paths are whole."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from offramp.experiments.offpolicy.estimators import NAMES
from offramp.experiments.offpolicy.evaluation import Evaluation
from offramp.experiments.offpolicy.intervals import Estimate
from offramp.experiments.offpolicy.printed import ESTIMATES, FACTS, spoken
from offramp.experiments.offpolicy.replayed import Replayed

LONG = "[[0.25, '1@0.55'], [0.25, '2@0.55'], [0.25, '3@0.75'], [0.25, '7']]"


class Nine(SimpleNamespace):
    """What is printed of a log of nine requests."""

    def __len__(self):
        return 9


LOG = Nine(reward=np.linspace(-1.0, 1.0, 9), policy="UCB1()", lost=3, chance=None, sure=np.ones(9, bool))
FEW = {"requests": 9, "used": 8, "lowest": -0.51234, "highest": 0.5, "shown": 0.5, "naive": 0.1}


def found():
    ends = {name: Estimate(value=-0.0123 - i, error=0.01, half=0.0196) for i, name in enumerate(NAMES)}
    good = Evaluation(
        **FEW, estimates=ends, gain=Estimate(value=-0.0456, error=0.01, half=0.0196), ess=1_234.0, drift=-1.5
    )
    bad = {f"{cut}@0.5": Evaluation(**FEW, refusal=f"why {cut}") for cut in range(5)}
    return {**bad, LONG: good, "ucb1": Replayed(requests=9, accepted=4, estimate=next(iter(ends.values())))}


def said(tmp_path, width, terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    spoken(LOG, found(), console, tmp_path / "evaluation.json")
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "terminal"), [(80, False), (80, True), (40, True), (300, True)])
def test_no_number_is_cut_at_any_width(tmp_path, width, terminal):
    text = said(tmp_path, width, terminal)
    assert "…" not in text
    lines = text.splitlines()
    cells = [f"-{i}.0123 ±0.0196" for i in range(len(NAMES))]
    assert any(all(cell in line for cell in cells) for line in lines)
    assert all(len(line) <= width for line in lines if "±0.0196" in line) or width == 40 or not terminal
    assert any("-0.512 to 0.500" in line and "1,234" in line and "-1.5 se" in line for line in lines)
    heads = [line for line in lines if line.startswith("candidate")]
    assert len(heads) == (1 if width == 300 or not terminal else 2)
    assert all(head in " ".join(heads) for head in (*ESTIMATES, *FACTS))
    if (width, terminal) == (80, False):
        assert any(line.startswith(LONG) for line in lines)


def test_columns_are_explained_and_the_path_is_whole(tmp_path):
    text = said(tmp_path, 80, False)
    assert all(f"\n{head}: " in text for head in FACTS)
    assert text.count(" is refused: why") == 3
    assert text.endswith(f"2 more are refused; all numbers and reasons: {tmp_path / 'evaluation.json'}\n")
