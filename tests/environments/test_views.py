"""A cache seen through pandas, xarray and Parquet holds the very same values."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments import CacheError, Condition, ConfidenceCache
from offramp.environments.views import META, dataset, frame, frames, read_parquet, write_parquet

ARRAYS = ("confidence", "prediction", "label", "sample", "split", "spread", "router")
NAMES = ("conditions", "experts", "exits", "classes", "profile", "hashes", "notes")


def made(seed=0, conditions=2, experts=2, samples=5, exits=3, full=True):
    rng = np.random.default_rng(seed)
    shape = (conditions, experts, samples, exits)
    more = {
        "spread": rng.integers(0, 256, shape),
        "router": rng.dirichlet(np.ones(experts), (conditions, samples)),
        "calibrations": {"exit": rng.uniform(0.5, 2.0, (experts, exits))},
    }
    return ConfidenceCache.from_arrays(
        confidence=rng.random(shape),
        prediction=rng.integers(0, 4, shape),
        label=rng.integers(0, 4, samples),
        sample=rng.permutation(1_000)[:samples],
        split=rng.integers(0, 2, samples),
        classes=4,
        conditions=[Condition(f"noise {s}", "noise", {"sigma": s}) for s in range(conditions)],
        experts=[f"expert {e}" for e in range(experts)],
        hashes={"model": "ab" * 32},
        notes={"by": "é", "numbers": [1, None]},
        **(more if full else {}),
    )


def assert_equal(one, other):
    for name in ARRAYS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype, name
            assert np.array_equal(a, b), name
    for name in NAMES:
        assert getattr(one, name) == getattr(other, name)
    assert set(one.calibrations) == set(other.calibrations)
    for name, values in one.calibrations.items():
        assert np.array_equal(values, other.calibrations[name])


def test_a_tidy_frame_has_a_row_for_each_answer():
    cache = made()
    table = frame(cache)
    assert len(table) == 2 * 2 * 5 * 3
    by = table.set_index(["condition", "expert", "sample", "exit"])
    for s, e, n, k in np.ndindex(cache.confidence.shape):
        row = by.loc[(f"noise {s}", f"expert {e}", cache.sample[n], k + 1)]
        assert row.confidence == cache.confidence[s, e, n, k]
        assert row.prediction == cache.prediction[s, e, n, k]
        assert row.spread == cache.spread[s, e, n, k]
        assert row.router == cache.router[s, n, e]
        assert row.split == ("validation", "test")[cache.split[n]]
        assert row.scoring_label == cache.label[n]
        assert row.scoring_correct == (cache.prediction[s, e, n, k] == cache.label[n])
    assert list(table.condition.cat.categories) == ["noise 0", "noise 1"]


def test_a_wide_frame_has_a_row_for_each_sample():
    cache = made()
    table = frame(cache, tidy=False)
    assert len(table) == 2 * 2 * 5
    for k in range(3):
        assert np.array_equal(table[f"confidence {k + 1}"], cache.confidence[..., k].ravel())
        assert np.array_equal(table[f"prediction {k + 1}"], cache.prediction[..., k].ravel())
        assert np.array_equal(table[f"scoring_correct {k + 1}"], (cache.prediction[..., k] == cache.label).ravel())
    assert np.array_equal(table["router"], cache.router.transpose(0, 2, 1).ravel())
    assert np.array_equal(table["sample"], np.tile(cache.sample, 4))
    assert not {"exit", "confidence", "spread"} & set(table)


@pytest.mark.parametrize("tidy", [True, False])
def test_frames_come_condition_by_condition(tidy):
    cache = made(full=False)
    parts = list(frames(cache, tidy=tidy))
    assert len(parts) == 2
    assert pd.concat(parts, ignore_index=True).equals(frame(cache, tidy=tidy))
    assert parts[1].equals(frame(cache, conditions=["noise 1"], tidy=tidy))
    assert not {"router", "spread"} & set(parts[0])
    with pytest.raises(CacheError, match="condition 'fog'"):
        frame(cache, conditions=["fog"])


def test_a_dataset_shares_the_arrays_and_names_the_axes():
    cache = made()
    found = dataset(cache)
    assert found.confidence.dims == ("condition", "expert", "sample", "exit")
    for name in ("confidence", "prediction", "spread", "router"):
        assert np.shares_memory(found[name].values, getattr(cache, name))
    assert np.shares_memory(found.scoring_label.values, cache.label)
    one = found.confidence.sel(condition="noise 1", expert="expert 0", sample=cache.sample[2], exit="exit 3")
    assert float(one) == cache.confidence[1, 0, 2, 2]
    assert found.router.dims == ("condition", "sample", "expert")
    assert found.family.values.tolist() == ["noise", "noise"]
    assert found.split.values.tolist() == [("validation", "test")[s] for s in cache.split]
    assert found.attrs["classes"] == 4
    assert found.attrs["hash_model"] == "ab" * 32
    assert json.loads(found.attrs["notes"]) == cache.notes
    assert json.loads(found.attrs["profile"]) is None


def test_a_dataset_without_router_and_with_profile(embedded):
    found = dataset(embedded)
    assert {"confidence", "prediction", "scoring_label"} <= set(found)
    assert ("router" in found) == (embedded.router is not None)
    assert json.loads(found.attrs["profile"])["segment_macs"] == list(embedded.profile.segment_macs)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_parquet_is_read_back_as_it_was(tmp_path_factory, seed, conditions, experts, samples, exits, full):
    path = tmp_path_factory.mktemp("views") / "cache.parquet"
    cache = made(seed, conditions, experts, samples, exits, full)
    write_parquet(cache, path)
    assert_equal(read_parquet(path), cache)
    file = pq.ParquetFile(path)
    assert file.num_row_groups == conditions
    assert file.metadata.row_group(0).num_rows == experts * samples * exits
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_parquet_file_is_read_by_others_as_the_frame(tmp_path):
    cache = made()
    write_parquet(cache, tmp_path / "c.parquet")
    theirs, ours = pd.read_parquet(tmp_path / "c.parquet"), frame(cache)
    assert list(theirs) == list(ours)
    for name in ours:
        assert theirs[name].tolist() == ours[name].tolist()


def test_the_embedded_cache_as_parquet_equals_its_own_file(embedded, tmp_path):
    few = embedded.select(np.arange(0, len(embedded.label), 100))
    write_parquet(few, tmp_path / "c.parquet")
    assert_equal(read_parquet(tmp_path / "c.parquet"), few)


def test_a_broken_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.parquet"
    write_parquet(made(), path)
    before = path.read_bytes()

    def broken(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(OSError, match="full"):
            write_parquet(made(1), path)
    assert path.read_bytes() == before


def rewritten(path, change, manifest=None):
    """The same file with its table changed, and its manifest."""
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[META])
    table = change(table)
    meta = {META: json.dumps({**said, **(manifest or {})}).encode()}
    pq.write_table(table.replace_schema_metadata(meta), path)


def cell(name, row, value):
    def change(table):
        values = table[name].to_pylist()
        values[row] = value
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(values, type=pa.string() if isinstance(value, str) else None))

    return change


BAD = {
    "row moved": (lambda t: t.take(pa.array([1, 0, *range(2, t.num_rows)])), None, "exit is not in the order"),
    "row lost": (lambda t: t.slice(0, t.num_rows - 1), None, "damaged"),
    "column lost": (lambda t: t.drop_columns(["prediction"]), None, "damaged"),
    "label changed": (cell("scoring_label", 5, 3), None, "is not in the order"),
    "confidence above 1": (cell("confidence", 5, 1.5), None, r"confidence\[0, 0, 1, 2\] is 1.5"),
    "nan": (cell("confidence", 5, float("nan")), None, "is nan"),
    "other schema": (lambda t: t, {"schema": "x"}, "another schema"),
    "no classes": (lambda t: t, {"classes": 0}, "classes is 0"),
    "unknown field": (lambda t: t, {"more": 1}, "damaged"),
    "exits missing": (lambda t: t, {"exits": []}, "damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_changed_parquet_file_is_refused(case, tmp_path):
    change, manifest, said = BAD[case]
    path = tmp_path / "c.parquet"
    write_parquet(made(), path)
    rewritten(path, change, manifest)
    with pytest.raises(CacheError, match=said) as caught:
        read_parquet(path)
    assert str(path) in str(caught.value)


def test_names_that_the_manifest_lacks_are_refused(tmp_path):
    path = tmp_path / "c.parquet"
    write_parquet(made(), path)
    rewritten(path, cell("expert", 0, "nobody"))
    with pytest.raises(CacheError, match=r"c\.parquet"):
        read_parquet(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CacheError, match="cannot be read"):
        read_parquet(tmp_path / "none.parquet")
    (tmp_path / "text").write_text("no parquet")
    with pytest.raises(CacheError, match="cannot be read"):
        read_parquet(tmp_path / "text")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign")
    with pytest.raises(CacheError, match="damaged"):
        read_parquet(tmp_path / "foreign")
