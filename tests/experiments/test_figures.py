"""Figures: the same from run to run, numbers on logarithmic axes that a reader can read, labels inside their areas."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from offramp.experiments.figures import plain, svg
from offramp.experiments.payload.pictures import borders, roomy


def drawn() -> Figure:
    figure, axes = plt.subplots()
    axes.errorbar([1, 2], [3, 4], yerr=[0.1, 0.2], marker="o", capsize=2, label="a")
    axes.fill_between([1, 2], [2, 3], [4, 5], alpha=0.2, hatch="//")
    axes.imshow(np.arange(4).reshape(2, 2), aspect="auto")
    axes.legend()
    return figure


def test_a_figure_drawn_twice_is_the_same_text():
    first = svg(drawn(), "one")
    assert svg(drawn(), "one") == first
    assert svg(drawn(), "two") != first  # their ids differ, so that both fit on one page
    assert not plt.get_fignums()


def test_text_stays_text():
    assert ">a</text>" in svg(drawn(), "one")


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        ((30.0, 70.0), ["30", "40", "50", "70"]),
        ((10.0, 1_000.0), ["10", "20", "50", "100", "200", "500", "1,000"]),
        ((0.1, 20_000.0), ["0.1", "1", "10", "100", "1,000", "10,000"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(span, labels):
    figure, axes = plt.subplots()
    axes.set(xscale="log", xlim=span)
    plain(axes.xaxis)
    figure.canvas.draw()
    low, high = span
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    assert [label.get_text() for at, label in ticks if low <= at <= high * 1.0001] == labels
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))
    plt.close(figure)


def test_a_label_is_placed_only_where_it_fits():
    mask = np.zeros((50, 56), dtype=bool)
    mask[10:20, 5:40] = True
    places = np.argwhere(roomy(mask, "exit 3"))
    assert 10 < places[:, 0].min() <= places[:, 0].max() < 19
    assert places[:, 1].min() > 5
    assert not roomy(mask, "exit 3 or map\nuint8\nand\nmore").any()  # ten cells are not four lines
    assert not roomy(mask, "e" * 60).any()


def test_areas_are_parted_by_lines_along_their_cells():
    cells, edges = np.array([[0, 0], [0, 1]]), np.array([1.0, 2.0, 3.0])
    lines = [segment.tolist() for segment in borders(cells, edges, edges).get_segments()]
    assert sorted(lines) == [[[2.0, 2.0], [2.0, 3.0]], [[2.0, 2.0], [3.0, 2.0]]]
