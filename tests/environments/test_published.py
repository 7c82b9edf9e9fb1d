"""Files in the published layouts: what is written is read, the table from a file is the table from the arrays."""

import csv
import io
import itertools
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments import CacheError, ConfidenceCache
from offramp.environments.operating_points import exit_quality, operating_points
from offramp.environments.published import LAYOUTS, Layout, read_published, recognise

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def table(confidence, prediction, label, conditions, *, lacks=(), base=1, level="distortion_lvl", turns=(None,)):
    """Header and rows of the layout, (S, N, L) arrays and one (type, level) a condition."""
    header = ["", "distortion_type", level]
    header += ([] if turns == (None,) else ["p_tar"]) + ([] if "label" in lacks else ["target"])
    for i in range(base, base + confidence.shape[2]):
        header += [f"conf_branch_{i}"]
        header += [] if "prediction" in lacks else [f"infered_class_branches_{i}"]
        header += [] if "correct" in lacks else [f"correct_branch_{i}"]
    rows = []
    for s, (kind, strength) in enumerate(conditions):
        for n, turn in itertools.product(range(len(label)), turns):
            row = [n, kind, strength] + ([] if turn is None else [turn]) + ([] if "label" in lacks else [label[n]])
            for c, p in zip(confidence[s, n], prediction[s, n], strict=True):
                row += [float(c)] + ([] if "prediction" in lacks else [p])
                row += [] if "correct" in lacks else [int(p == label[n])]
            rows.append([str(cell) for cell in row])
    return header, rows


def text(header, rows, end="\n"):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows([header, *rows])
    return out.getvalue()


def read(content, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "published.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_published(path, **options)


@pytest.fixture(scope="module")
def real():
    """The embedded cache, cut to two exits, 1,000 test samples and three conditions."""
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    picked = [cache.condition(name) for name in ("pristine", "blur 1.0", "noise 20")]
    at = np.ix_(picked, range(1000), [2, 6])
    return (
        cache.confidence[:, 0][at].astype(np.float32).astype(np.float64),
        cache.prediction[:, 0][at],
        cache.label[:1000],
        [("pristine", 0), ("blur", 1.0), ("noise", 20)],
    )


def by_hand(confidence, prediction, label, target):
    """The definition, one sample at a time."""
    stays = right_there = right = 0
    for (own, _), (said, said_last), truth in zip(confidence, prediction, label, strict=True):
        if own >= target:
            stays += 1
            right_there += said == truth
            right += said == truth
        else:
            right += said_last == truth
    return stays / len(label), right_there / stays if stays else math.nan, right / len(label)


@pytest.mark.parametrize("lacks", [(), ("prediction",), ("label",), ("correct",), ("prediction", "label")], ids=str)
@pytest.mark.parametrize("turns", [(None,), (0.7, 0.8, 0.9)], ids=["once", "repeated"])
def test_the_table_from_the_file_is_the_table_from_the_arrays(real, lacks, turns):
    """Acceptance check 8, on a file of our own in the published layout."""
    cache, report = read(text(*table(*real, lacks=lacks, turns=turns)))
    confidence, prediction, label, _ = real
    assert [c.name for c in cache.conditions] == ["pristine", "blur 1", "noise 20"]
    assert (report.rows, report.repeated) == (3000 * len(turns), 3000 * (len(turns) - 1))
    assert report.missing == (*(x for x in ("correct", "prediction", "label") if x in lacks), "times")
    for s in range(3):
        for point in operating_points(cache, TARGETS, condition=s):
            wanted = by_hand(confidence[s], prediction[s], label, point.target)
            assert (point.edge_share, point.edge_accuracy, point.accuracy) == pytest.approx(wanted, abs=1e-12)
        for i, quality in enumerate(exit_quality(cache, condition=s)):
            right = prediction[s, :, i] == label
            assert quality.accuracy == pytest.approx(right.mean(), abs=1e-12)
            assert quality.mean_confidence == pytest.approx(confidence[s, :, i].mean(), abs=1e-12)
            error = 0.0
            for k in range(15):
                inside = (confidence[s, :, i] > k / 15) & (confidence[s, :, i] <= (k + 1) / 15)
                error += abs(right[inside].sum() - confidence[s, inside, i].sum()) / len(label)
            assert quality.calibration_error == pytest.approx(error, abs=1e-12)


# B-AlexNet on CIFAR-10, 10,000 images, exits .7281 and .9064; p_tar: edge share, edge accuracy, overall accuracy
PUBLISHED = {
    0.5: (0.825, 0.803, 0.805),
    0.6: (0.711, 0.843, 0.840),
    0.7: (0.606, 0.880, 0.865),
    0.8: (0.494, 0.921, 0.886),
    0.9: (0.359, 0.952, 0.899),
    0.95: (0.260, 0.971, 0.904),
}


def test_the_published_table_agrees_with_the_definition():
    """A population with the table's margins exists, and its file gives the table back to three decimals."""
    edges = [0.0, *PUBLISHED, 1.0]
    stay = [10_000, *(round(10_000 * share) for share, _, _ in PUBLISHED.values()), 0]
    own = [7281, *(round(10_000 * share * there) for share, there, _ in PUBLISHED.values()), 0]
    all_ = [9064, *(round(10_000 * overall) for _, _, overall in PUBLISHED.values()), 9064]
    last = [0, *(overall - right for overall, right in zip(all_[1:-1], own[1:-1], strict=True)), 9064]
    confidence, prediction = [], []
    for k in range(len(edges) - 1):
        count, right, right_last = stay[k] - stay[k + 1], own[k] - own[k + 1], last[k + 1] - last[k]
        assert 0 <= right <= right_last <= count, "no exit is right more often than there are samples"
        confidence += [(0.5 * (edges[k] + edges[k + 1]), 0.99)] * count
        prediction += [(int(i >= right), int(i >= right_last)) for i in range(count)]
    cache, _ = read(
        text(*table(np.array([confidence]), np.array([prediction]), np.zeros(10_000, int), [("pristine", 0)]))
    )
    for point in operating_points(cache, PUBLISHED):
        wanted = PUBLISHED[point.target]
        assert (point.edge_share, point.edge_accuracy, point.accuracy) == pytest.approx(wanted, abs=5e-4)
    assert [round(quality.accuracy, 4) for quality in exit_quality(cache)] == [0.7281, 0.9064]


def test_cascade_and_fallback():
    cache = ConfidenceCache.from_arrays(
        confidence=[[[0.75, 0.5, 0.25], [0.25, 0.75, 0.5], [0.5, 0.25, 0.5], [0.5, 0.25, 0.375]]],
        prediction=[[[0, 1, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1]]],
        label=[0, 0, 0, 0],
        conditions=["pristine"],
    )

    def points(target, **options):
        (point,) = operating_points(cache, [target], **options)
        return point.edge_share, point.edge_accuracy, point.accuracy

    assert points(0.75) == (0.5, 1.0, 0.5)
    assert points(0.75, edge_exits=1) == (0.25, 1.0, 0.25)
    assert points(0.75, fallback="most_confident") == (0.5, 1.0, 0.75), "of equals, the last"
    assert points(0.9, edge_exits=1, fallback="most_confident") == (0.0, pytest.approx(math.nan, nan_ok=True), 0.5)
    assert points(0.9)[0] == 0.0
    assert math.isnan(points(0.9)[1])
    assert points(0.0) == (1.0, 0.75, 0.75), "the first exit that is sure enough"
    for options in ({"edge_exits": 3}, {"edge_exits": 0}, {"fallback": "best"}, {"condition": 1}, {"expert": -1}):
        with pytest.raises(CacheError, match="allowed"):
            points(0.5, **options)
    for target in (-0.1, math.nan):
        with pytest.raises(CacheError, match="allowed is a number >= 0"):
            points(target)


@st.composite
def tables(draw):
    """Any table of the layout, as it was and as bytes of a file."""
    conditions, samples, exits = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    shape = (conditions, samples, exits)
    count = math.prod(shape)
    unit = st.floats(0, 1, width=32)
    confidence = np.reshape(draw(st.lists(unit, min_size=count, max_size=count)), shape)
    prediction = np.reshape(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), shape)
    label = np.array(draw(st.lists(st.integers(0, 9), min_size=samples, max_size=samples)))
    kinds = st.tuples(st.sampled_from(["blur", "noise, strong", 'a "kind"']), st.sampled_from([0, 0.5, 5, 40]))
    names = draw(st.lists(kinds, min_size=conditions, max_size=conditions, unique=True))
    base = draw(st.sampled_from([0, 1]))
    turns = draw(st.sampled_from([(None,), (0.7, 0.8)]))
    lacks = draw(st.sampled_from([(), ("correct",)]))
    header, rows = table(confidence, prediction, label, names, base=base, turns=turns, lacks=lacks)
    order = draw(st.permutations(range(len(header))))
    header, *rows = ([row[j] for j in order] for row in [header, *rows])
    content = text(header, rows, draw(st.sampled_from(["\n", "\r\n", "\r"]))).encode()
    return confidence, prediction, label, names, base, turns, draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + content


@given(tables())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(drawn):
    confidence, prediction, label, names, base, turns, content = drawn
    cache, report = read(content)
    assert (cache.confidence[:, 0] == confidence).all()
    assert (cache.prediction[:, 0] == prediction).all()
    assert (cache.label == label).all()
    assert [(c.family, c.parameters["level"]) for c in cache.conditions] == names
    assert (report.base, report.layout, report.unread) == (base, "adaee", ())
    assert report.repeated == confidence.shape[0] * confidence.shape[1] * (len(turns) - 1)
    assert report.byte_order_mark == content.startswith(b"\xef")
    json.dumps(cache.notes)


HEAD = "target,conf_branch_1,correct_branch_1,conf_branch_2,correct_branch_2\n"
GOOD = HEAD + "1,.5,0,.9,1\n0,.75,1,.5,0\n"


def test_what_is_safe_is_handled_and_reported():
    plain, _ = read(GOOD)
    header, first, second = GOOD.splitlines()
    cache, report = read(f"\ufeff{header}\r\n\n{first}\r{header}\n{second}\n\n")
    assert (cache.confidence == plain.confidence).all()
    assert (cache.prediction == plain.prediction).all()
    assert plain.conditions[0].name == "as published"
    assert (report.headers, report.blank, report.rows, report.byte_order_mark) == (1, 2, 2, True)
    assert report.line_ends == {r"\r\n": 1, r"\r": 1, r"\n": 4}
    assert read(GOOD + GOOD)[1].identical == 2
    assert read(GOOD)[1].identical == 0


def test_times_and_unread_columns_are_reported():
    header = ",device,target,class_name,conf_branch_1,correct_branch_1,delta_inf_time_branch_1,prediction_branch_1\n"
    cache, report = read(header + "0,cpu,3,cat,.5,True,.25,3\n1,cpu,1,dog,1.0,False,.75,2.0\n", layout=None)
    assert cache.prediction[0, 0, :, 0].tolist() == [3, 2]
    assert cache.notes["published"]["layout"] == "buffer"
    assert (report.layout, report.time_unit, report.mean_times) == ("buffer", "s", {"delta_time": (0.5,)})
    assert report.unread == ("class_name",)
    cache, report = read("label,target,conf_branch_1,correct_branch_1\ncat,3,.5,1\n")
    assert (cache.label.tolist(), report.unread) == ([3], ("label",))


def test_where_chooses_among_turns_that_differ():
    header = "p_tar,target,conf_branch_1,correct_branch_1\n"
    rows = "0.7,0,.5,1\n0.7,1,.6,1\n0.80,0,.25,1\n0.80,1,.125,1\n"
    with pytest.raises(CacheError, match=r"line 4: found for \['p_tar'\] = \[0.8\] other samples"):
        read(header + rows)
    cache, report = read(header + rows, where={"p_tar": 0.8})
    assert cache.confidence[0, 0, :, 0].tolist() == [0.25, 0.125]
    assert (report.rows, report.filtered, report.repeated) == (4, 2, 0)
    with pytest.raises(CacheError, match=r"where asks for p_tar = 0.9, allowed in file published.csv are \['0.7'"):
        read(header + rows, where={"p_tar": 0.9})
    with pytest.raises(CacheError, match="where names column 'device'"):
        read(header + rows, where={"device": "cpu"})
    with pytest.raises(CacheError, match=r"other samples \(1\) than for \[0.7\] \(2\)"):
        read(header + "0.7,0,.5,1\n0.7,1,.6,1\n0.8,0,.5,1\n")


def test_layouts_are_recognised_or_named():
    header = ["", "distortion_type", "target", "conf_branch_1", "correct_branch_1"]
    assert recognise([*header, "distortion_lvl", "infered_class_branches_1"]).name == "adaee"
    assert recognise([*header, "distortion_level", "device", "prediction_branch_1"]).name == "ee_mab"
    assert recognise([*header, "delta_conf", "infered_label_branches_1"]).name == "mab_early_exits"
    assert recognise(header).name == "early_exit"
    assert {recognise(header, known.name) for known in LAYOUTS} == set(LAYOUTS)
    with pytest.raises(CacheError, match="layout is 'other', allowed are"):
        recognise(header, "other")
    own = Layout(name="own", confidence=("p{}",), correct=("ok{}",), base=0)
    assert read("p0,ok0\n.5,1\n", layout=own)[0].confidence.item() == 0.5
    with pytest.raises(CacheError, match=r"exits \[1\], allowed is every exit from one of \(0,\) on"):
        read("p1,ok1\n.5,1\n", layout=own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\ufeff\r\n\n", "is empty"),
        (HEAD, "a header and no rows"),
        (GOOD.replace(".75", "high"), "line 3, column conf_branch_1: found 'high', allowed is a number in 0..1$"),
        (GOOD.replace(".75", ""), "line 3, column conf_branch_1: found '', allowed is a number in 0..1$"),
        (GOOD.replace(".75", "nan"), "line 3, column conf_branch_1: found 'nan'"),
        (GOOD.replace(".75", "0_1"), "line 3, column conf_branch_1: found '0_1'"),
        (GOOD.replace("\n0", "\n\nx"), "line 4, column target: found 'x'"),
        ("cum_inf_time_branch_1,conf_branch_1,correct_branch_1\ninf,.5,1\n", "found 'inf', allowed is a number >= 0"),
        (GOOD.replace(".75", "1.0001"), "line 3, column conf_branch_1: found '1.0001', allowed is a number in 0..1$"),
        (GOOD.replace(".75", "-0.1"), "line 3, column conf_branch_1: found '-0.1'"),
        (
            GOOD.replace(".5,0,", ".5,2,"),
            "line 2, column correct_branch_1: found '2', allowed is a whole number in 0..1",
        ),
        (
            GOOD.replace("\n1,.5", "\n1.5,.5"),
            "line 2, column target: found '1.5', allowed is a whole number in 0..32766",
        ),
        (GOOD.replace("\n1,.5", "\ncat,.5"), "line 2, column target: found 'cat'"),
        (GOOD.replace("\n1,.5", "\n-1,.5"), "line 2, column target: found '-1'"),
        (GOOD.replace("\n1,.5", "\ninf,.5"), "line 2, column target: found 'inf'"),
        (GOOD.replace(".75,1", ".75"), "line 3: found 4 values, allowed is 5"),
        (GOOD.replace(".75,1", ".75,1,1"), "line 3: found 6 values, allowed is 5"),
        (GOOD + ",,,,\n", "line 4, column conf_branch_1: found ''"),
        (GOOD + '"0,.75', "line 4: .*allowed is a CSV file"),
        (GOOD.encode("utf-16"), "line 1: found byte 0xff, allowed is text in UTF-8"),
        (GOOD.replace("conf_branch_2", "conf_branch_3"), r"confidence of exits \[1, 3\]"),
        (GOOD.replace("branch_2", "branch_3").replace("branch_1", "branch_2"), r"confidence of exits \[2, 3\]"),
        (GOOD.replace("correct_branch_2", "other"), r"has correct of exits \[1\], allowed are \[1, 2\]"),
        (
            GOOD.replace("correct_branch_1", "correct_branch_0").replace("correct_branch_2", "correct_branch_1"),
            "correct",
        ),
        (GOOD.replace("correct", "other"), r"allowed are columns \('correct_branch_\{\}',\), or both"),
        (GOOD.replace("conf_", "confidence_"), "fit no layout, allowed are columns.*early_exit: conf_branch_"),
        (GOOD.replace("correct_branch_2", "conf_branch_1"), r"columns \['conf_branch_1'\] stand there twice"),
        ("distortion_lvl," + GOOD.replace("\n1", "\n5,1").replace("\n0", "\nx,0"), "line 3, column distortion_lvl"),
        (
            "target,conf_branch_1,correct_branch_1,prediction_branch_1\n2,.5,1,2\n2,.5,0,2\n",
            "line 3: .*allowed is correct exactly where",
        ),
        (
            "conf_branch_1,correct_branch_1,prediction_branch_1,conf_branch_2,correct_branch_2,prediction_branch_2\n"
            ".5,1,0,.5,1,1\n",
            "line 2: .*allowed is one class that is correct",
        ),
        (
            "distortion_type,target,conf_branch_1,correct_branch_1\nblur,0,.5,1\nblur,1,.5,1\nnoise,0,.5,1\n",
            "samples per condition .*'blur None': 2, 'noise None': 1.*allowed is the same number",
        ),
        (
            "distortion_type,target,conf_branch_1,correct_branch_1\nblur,0,.5,1\nblur,1,.5,1\nnoise,1,.5,1\nnoise,0,.5,1\n",
            "line 4: .*allowed is the label that this sample has under the first condition",
        ),
    ],
)
def test_a_malformed_file_is_refused_by_name(content, message):
    with pytest.raises(CacheError, match=message):
        read(content)


def test_a_missing_file_and_too_few_classes_are_refused(tmp_path):
    with pytest.raises(CacheError, match="cannot be read"):
        read_published(tmp_path / "none.csv")
    with pytest.raises(CacheError, match=r"column target: found .1., allowed is a whole number in 0\.\.0$"):
        read(GOOD, classes=1)
    assert read(GOOD, classes=10)[0].classes == 10
