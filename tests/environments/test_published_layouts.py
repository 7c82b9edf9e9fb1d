"""All ten published layouts: real numbers written as each publisher writes them are read as they were."""

import csv
import gzip
import io
import itertools
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments import CacheError, ConfidenceCache
from offramp.environments.published import joined, read_published
from offramp.environments.published.layouts import LAST


@pytest.fixture(scope="module")
def real():
    """Confidence, prediction (S, N, L) and label of three exits, 60 samples, two conditions of the embedded cache."""
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    picked = [cache.condition(name) for name in ("pristine", "blur 1.0")]
    at = np.ix_(picked, range(60), [1, 4, 6])
    confidence = cache.confidence[:, 0][at].astype(np.float32).astype(np.float64)
    return confidence, cache.prediction[:, 0][at].astype(int), cache.label[:60].astype(int)


def text(header, rows, between=",", end="\n"):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=between, lineterminator=end).writerows([header, *rows] if header else rows)
    return out.getvalue()


def branches(real, *, level="distortion_level", device=True, turns=(None,), times=True, said="prediction_branch_{}"):
    """Wide rows of samples: EE_MAB and AdaEE, every cell once a numpy string."""
    confidence, prediction, label = real
    header = ["", "distortion_type", level] + ["p_tar"] * (turns != (None,)) + ["device"] * device + ["target"]
    for i in range(1, confidence.shape[2] + 1):
        header += [f"conf_branch_{i}", f"correct_branch_{i}", said.format(i)]
        header += [f"delta_inf_time_branch_{i}", f"cum_inf_time_branch_{i}"] * times
    rows = []
    for (s, value), turn in itertools.product(enumerate((0, 1)[: len(confidence)]), turns):
        for n, y in enumerate(label):
            row = [n, "blur", value] + ([] if turn is None else [turn]) + ["cuda"] * device + [y]
            for i, (c, p) in enumerate(zip(confidence[s, n], prediction[s, n], strict=True)):
                row += [c, int(p == y), p] + [0.5, 0.5 * (i + 1)] * times
            rows.append([str(cell) for cell in row])
    return header, rows


def long_form(real, base=0):
    confidence, prediction, label = real
    rows = [
        [n, i + base, confidence[0, n, i], prediction[0, n, i], y]
        for n, y in enumerate(label)
        for i in range(confidence.shape[2])
    ]
    return ["Sample_ID", "Exit", "Confidence", "Prediction", "Label"], rows


def softmax(real):
    """A vector of ten with this largest probability at this class, whenever it is above an even share of the rest."""
    confidence, prediction, label = real
    p = np.repeat(((1.0 - confidence[0]) / 9.0)[..., None], 10, axis=2)
    np.put_along_axis(p, prediction[0][..., None], confidence[0][..., None], axis=2)
    frame = pd.DataFrame({f"tup_layer{i + 1}": [tuple(v) for v in p[:, i].tolist()] for i in range(p.shape[1])})
    return frame.assign(output_labels=label)


def words(real, named=("Thi", "Six", "Las")):
    confidence, prediction, label = real
    header = ["", *("Last_layer" if w == "Las" else f"{w}_layer_P" for w in named)]
    header += [*(f"PProb_{w.lower()}" for w in named), "True_labels"]
    return header, [[n, *prediction[0, n], *confidence[0, n], y] for n, y in enumerate(label)]


def places(real):
    confidence, prediction, label = real
    return [
        [n, *itertools.chain(*zip(confidence[0, n], prediction[0, n], strict=True)), y] for n, y in enumerate(label)
    ]


def matches(read, real, s=1):
    confidence, prediction, label = real
    cache, report = read
    assert np.array_equal(cache.confidence[:, 0], confidence[:s])
    assert np.array_equal(cache.prediction[:, 0], prediction[:s])
    assert np.array_equal(cache.label, label)
    json.dumps(report.as_dict())
    assert report.file in str(report)
    assert f"{len(label)} samples x {s} conditions x {confidence.shape[2]} exits" in str(report)
    return report


def test_ee_mab(read, real):
    header, rows = branches(real)
    report = matches(read(text(header, rows)), real, 2)
    assert (report.layout, report.time_unit, report.missing, report.unread) == ("ee_mab", "ms", (), ())
    assert report.mean_times == {"delta_time": (0.5,) * 3, "cumulative_time": (0.5, 1.0, 1.5)}
    cpu = [[*row[:3], "cpu", *row[4:]] for row in rows]
    report = matches(read(text(header, rows + cpu)), real, 2)
    assert report.dropped == {"rows that repeat a sample for another value of device": 120}


def test_adaee_as_pandas_appends_it(read, real):
    """Each append leaves an index column of its own, empty in the rows that come later."""
    header, rows = branches(
        real, level="distortion_lvl", device=False, times=False, said="infered_class_branches_{}", turns=(0.7, 0.8, 1.0)
    )
    header = ["", "Unnamed: 0", "Unnamed: 0.1", *header[1:]]
    rows = [[row[0], "" if i > 200 else str(i), "" if i > 60 else str(i), *row[1:]] for i, row in enumerate(rows)]
    report = matches(read(text(header, rows)), real, 2)
    assert (report.layout, report.repeated, report.unread, report.base) == ("adaee", 240, (), 1)
    assert report.dropped == {"rows that repeat a sample for another value of p_tar": 240}
    assert report.missing == ("times",)


def test_mab_early_exits_and_buffer(read, real):
    confidence, prediction, label = real
    one = confidence[:1], prediction[:1], label
    header, rows = branches(one, device=False, times=False, said="infered_class_branches_{}")
    header = ["", "delta_conf", "label", *header[3:]] + [f"infered_label_branches_{i}" for i in (1, 2, 3)]
    rows = [[row[0], "-0.25", f"class {row[3]}", f"{row[3]}.0", *row[4:], "cat", "dog", "cat"] for row in rows]
    report = matches(read(text(header, rows)), one)
    assert report.layout == "mab_early_exits"
    assert set(report.unread) == {"delta_conf", "label", *(f"infered_label_branches_{i}" for i in (1, 2, 3))}
    header, rows = branches(one)
    header, rows = ["", "device", "target", "class_name", *header[5:]], [[r[0], r[3], r[4], "x", *r[5:]] for r in rows]
    report = matches(read(text(header, rows)), one)
    assert (report.layout, report.time_unit, report.unread) == ("buffer", "s", ("class_name",))


@pytest.mark.parametrize("base", [0, 1])
def test_the_long_form(read, real, base):
    report = matches(read(text(*long_form(real, base))), real)
    assert (report.layout, report.base, report.rows, report.exits) == (
        "buffer_long",
        base,
        180,
        ("exit 1", "exit 2", "exit 3"),
    )


def test_splitee_as_parquet_and_as_text(read, real, tmp_path):
    frame = softmax(real)
    assert (frame["tup_layer1"].map(np.argmax) == real[1][0, :, 0]).all()
    frame.to_parquet(tmp_path / "vectors.parquet")
    report = matches(read_published(tmp_path / "vectors.parquet"), real)
    assert (report.layout, report.exits, report.base) == ("splitee", ("layer 1", "layer 2", "layer 3"), 1)
    matches(read(frame.to_csv()), real)
    matches(read(frame.map(lambda v: f"tensor({list(v)})" if isinstance(v, tuple) else v).to_csv(index=False)), real)
    lists = frame.map(lambda v: "[" + " ".join(map(str, v)) + "]" if isinstance(v, tuple) else v)
    assert read(lists.to_csv(index=False)).cache.classes == 10
    matches(read(lists.to_csv(index=False)), real)


@pytest.mark.parametrize("named", [("Thi", "Six", "Las"), ("Fou", "Six", "Las")])
def test_ceebert(read, real, named):
    report = matches(read(text(*words(real, named))), real)
    first = {"Thi": 3, "Fou": 4}[named[0]]
    assert (report.layout, report.exits) == ("ceebert", (f"layer {first}", "layer 6", "last layer"))
    assert LAST > 12
    one = real[0][..., 1:], real[1][..., 1:], real[2]
    report = matches(read(text(*words(one, ("Fou", "Las"))), layers=(4, 12)), one)
    assert report.exits == ("layer 4", "last layer")


def test_uee_ucb_is_tab_separated_and_has_no_confidences(read, real):
    _, prediction, label = real
    rows = [[*prediction[0, n], y] for n, y in enumerate(label)]
    for content in (text(["0", "1", "2", "op_labels"], rows, "\t"), text(["0", "1", "2", "op_labels"], rows)):
        got = read(content)
        matches(got, (np.zeros_like(real[0]), prediction, label))
        assert not got.confidences
        assert got.cache.notes["confidence"] == "none"
        assert (got.report.layout, got.report.base, got.report.missing[0]) == ("uee_ucb", 0, "confidence")
        assert "only policies that need none" in str(got.report)


def test_isplitee_by_place_with_and_without_a_header(read, real):
    rows = places(real)
    names = ["", *itertools.chain(*((f"conf_{i}", f"class_{i}") for i in (1, 2, 3))), "label"]
    for header, options in (
        (None, {}),
        (["", *map(str, range(7))], {}),
        (names, {}),
        (list("abcdefgh"), {"layout": "isplitee"}),
    ):
        report = matches(read(text(header, rows), **options), real)
        assert (report.layout, report.rows) == ("isplitee", 60)
    with pytest.raises(CacheError, match="fit no layout"):
        read(text(list("abcdefgh"), rows))
    with pytest.raises(CacheError, match="has 7 columns, allowed is an even number"):
        read(text(None, [row[1:] for row in rows]))
    with pytest.raises(CacheError, match=r"column column 2: found .*, allowed is a number in 0..1"):
        read(text(None, [[row[0], row[2] + 2, row[1], *row[3:]] for row in rows]))
    with pytest.raises(CacheError, match="has no header"):
        read(text(None, rows), layout="adaee")


def test_capeen_takes_each_token_as_a_sample(read):
    confidence = [[[0.5, 0.25], [0.75]], [[0.5, 0.5], [0.875, 0.25]], [[1.0, 0.25], [0.75]]]
    token = [[[464, 50256], [11]], [[464, 290], [13, 7]], [[290, 290], [11]]]
    for pad in (0, 4):
        header, rows = ["", "caption"], [[0, "a, b"], [1, ""]]
        for k, c, p in zip((1, 2, 12), confidence, token, strict=True):
            header += [f"confidence_lis_{k}", f"predictions_lis{'' if k == 2 else '_'}{k}"]
            for row, values, classes in zip(rows, c, p, strict=True):
                fill = max(pad - len(values), 0)
                row += [str(values + [1.0] * fill), str(classes + [50256] * fill)]
        cache, report = read(text(header, rows))
        assert cache.confidence[0, 0].tolist() == [[0.5, 0.5, 1.0], [0.25, 0.5, 0.25], [0.75, 0.875, 0.75]]
        # tokens 11, 13, 290, 464 and 50256, the last with a confidence that padding never has
        assert cache.prediction[0, 0].tolist() == [[3, 3, 2], [4, 2, 2], [0, 1, 0]]
        assert cache.label.tolist() == [2, 2, 0]
        assert report.exits == ("layer 1", "layer 2", "layer 12")
        assert report.dropped["tokens at which only some exits go on"] == 1
        assert report.dropped.get("padding: no exit goes on", 0) == (0 if pad == 0 else 4)
        assert report.missing == ("correct", "label", "times")
        assert any("last exit's predictions" in note for note in report.notes)
        assert report.unread == ("caption",)


def test_more_than_one_file_is_one_cache(read, real):
    header, rows = branches(real)
    blur = read(text(header, rows), "blur.csv")
    noise = read(text(header, [[r[0], "noise", *r[2:]] for r in rows]), "noise.csv")
    both = joined([blur, noise, blur])
    assert [c.name for c in both.conditions] == ["blur 0", "blur 1", "noise 0", "noise 1"]
    assert np.array_equal(both.confidence[2:], blur.cache.confidence)
    one, two = (read(text(*long_form(real)), f"{name}.csv") for name in ("imdb", "yelp"))
    assert [c.name for c in joined([one, two]).conditions] == ["imdb", "yelp"]
    assert len(both.notes["published"]) == 3
    for other, message in (
        (read(text(*words(real))), "other exits"),
        (read(text(header, rows[:59] + rows[60:119])), "other samples"),
        (read(text(*long_form((real[0], real[1] * 0, real[2] * 0)))), "has label 0 for sample"),
    ):
        with pytest.raises(CacheError, match=message):
            joined([blur, other])
    changed = read(text(header, [[*r[:5], "0.5", *r[6:]] for r in rows]), "again.csv")
    with pytest.raises(CacheError, match="says of condition 'blur 0' something else than"):
        joined([blur, changed])
    with pytest.raises(CacheError, match="files are none"):
        joined([])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_order_and_repetition_of_rows_change_nothing(data, tmp_path_factory):
    """An index, a sample number or none of both: what a file says twice counts once, in whatever order."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.integers(1, 8))
    made = (
        rng.random((2, n, 3)).astype(np.float32).astype(np.float64),
        rng.integers(0, 3, (2, n, 3)),
        rng.integers(0, 3, n),
    )
    layout = data.draw(st.sampled_from(["ee_mab", "buffer_long"]))
    header, rows = branches(made) if layout == "ee_mab" else long_form(made)
    written = data.draw(st.integers(1, 3)) * rows
    order = data.draw(st.permutations(range(len(written))))
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    path.write_text(text(header, [written[i] for i in order]))
    cache, report = read_published(path)
    assert report.layout == layout
    wanted = 2 if layout == "ee_mab" else 1
    at = [cache.condition(name) for name in ("blur 0", "blur 1")] if wanted == 2 else [0]
    assert np.array_equal(cache.confidence[at, 0], made[0][:wanted])
    assert np.array_equal(cache.prediction[at, 0], made[1][:wanted])
    assert np.array_equal(cache.label, made[2])
    assert sum(report.dropped.values()) == len(written) - len(rows)


def test_samples_that_share_an_index_and_differ_are_all_kept(read, real):
    header, rows = branches((real[0][:1], real[1][:1], real[2]))
    cache, report = read(text(header, [["0", *row[1:]] for row in rows]))
    assert (len(cache.label), report.dropped) == (60, {})


def test_packed_files_and_pickles(read, real, tmp_path):
    content = text(*long_form(real), end="\r\n").encode()
    report = matches(read(gzip.compress(b"\xef\xbb\xbf" + content + b"\n\n"), "df.csv.gz"), real)
    assert (report.byte_order_mark, report.blank, report.line_ends) == (True, 2, {r"\r\n": 181, r"\n": 2})
    with pytest.raises(CacheError, match="cannot be unpacked"):
        read(gzip.compress(content)[:-20], "df.csv.gz")
    for name in ("confidence_label_dict.pkl", "without_a_suffix"):
        with pytest.raises(CacheError, match=r"is a pickle, .*runs whatever code it names") as caught:
            read(pickle.dumps({"df_imdb": 1}), name)
    command = str(caught.value).splitlines()[1].strip()
    path = tmp_path / "without_a_suffix"
    pd.to_pickle({"df_imdb": softmax(real)}, path)
    code = command.removeprefix('python -c "').removesuffix('"')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(code, {})
    matches(read_published(tmp_path / "df_imdb.parquet"), real)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "df_imdb.parquet").read_bytes()[:-50])
    with pytest.raises(CacheError, match=r"cut.parquet is damaged"):
        read_published(tmp_path / "cut.parquet")
