"""A table of payloads keeps what it is given, belongs to one cache, and is small where nothing varies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offramp.bandits import sealed
from offramp.environments import CacheError, Condition, ConfidenceCache
from offramp.environments.payloads import SCHEMA, PayloadTable
from offramp.environments.temperature import spread_of

S, N, EXITS, CLASSES = 2, 9, 3, 5
CODECS = ("raw", "jpeg_50", "float32", "uint8", "uint8_zlib", "float32")
SPLITS = (0, 0, 1, 1, 1, 2)
SPOKEN = (0, 1, 0, 2, 2, 0)  # which variants have the same answers
CONSTANT = (3084, None, 4108, 1100, None, 2060)
HASHES = {"model": "ab" * 32, "validation": "cd" * 32, "test": "ef" * 32}
CONDITIONS = ("pristine", "blur 1.0")
SAMPLE, SPLIT_OF_DATA = np.array([10, 11, 12, 0, 1, 2, 3, 4, 2**40]), np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def logits(seed=0):
    """Of all exits (S, N, L, K), and of the last behind each variant (S, V, N, K)."""
    rng = np.random.default_rng(seed)
    every = rng.normal(0.0, 2.0, (S, N, EXITS, CLASSES))
    behind = np.stack([every[:, :, -1], *(every[:, :, -1] + rng.normal(0.0, 0.3, (2, S, N, CLASSES)))], axis=1)
    return every, behind[:, SPOKEN]


def fields(seed=0, **changed):
    rng = np.random.default_rng(seed)
    _, behind = logits(seed)
    sizes = rng.integers(300, 5_000, (S, len(CODECS), N))
    for v, constant in enumerate(CONSTANT):
        if constant is not None:
            sizes[:, v] = constant
    made = {
        "codecs": CODECS,
        "splits": SPLITS,
        "bytes": sizes,
        "confidence": softmax(behind).max(axis=-1),
        "prediction": behind.argmax(axis=-1),
        "spread": spread_of(behind),
        "conditions": CONDITIONS,
        "classes": CLASSES,
        "sample": SAMPLE,
        "split_of_data": SPLIT_OF_DATA,
        "hashes": HASHES,
        "encode_ms": [0.1, 0.3, 0.2, 0.2, 0.5, 0.1],
        "decode_ms": [0.1, 0.4, 0.1, 0.1, 0.2, 0.05],
        "notes": {"network": "small"},
    }
    return {**made, **changed}


def made(seed=0, **changed):
    return PayloadTable.from_arrays(**fields(seed, **changed))


def cache(seed=0, **changed):
    every, _ = logits(seed)
    given_ = {
        "confidence": softmax(every).max(axis=-1),
        "prediction": every.argmax(axis=-1),
        "spread": spread_of(every),
        "calibrations": {"exit": [[1.0, 1.5, 2.5]]},
        "label": np.arange(N) % CLASSES,
        "conditions": [Condition(name, "any") for name in CONDITIONS],
        "classes": CLASSES,
        "sample": SAMPLE,
        "split": SPLIT_OF_DATA,
        "hashes": {**HASHES, "experts": "00" * 32},
    }
    return ConfidenceCache.from_arrays(**{**given_, **changed})


def same(one, other):
    for name in ("splits", "bytes", "confidence", "prediction", "encode_ms", "decode_ms", "sample", "split_of_data"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name
    assert (one.spread is None) == (other.spread is None)
    assert one.spread is None or np.array_equal(one.spread, other.spread)
    for name in ("codecs", "conditions", "classes", "hashes", "notes"):
        assert getattr(one, name) == getattr(other, name), name


def test_types_and_shapes():
    table = made()
    assert table.bytes.dtype == np.uint32
    assert table.confidence.dtype == table.encode_ms.dtype == table.decode_ms.dtype == np.float64
    assert table.prediction.dtype == np.int16
    assert table.bytes.shape == table.confidence.shape == table.prediction.shape == table.spread.shape == (S, 6, N)
    assert np.array_equal(table.bytes, fields()["bytes"])


def test_variants_of_a_split():
    table = made()
    assert [table.variants(split).tolist() for split in range(4)] == [[0, 1], [2, 3, 4], [5], []]
    assert [table.variant(s, c) for s, c in zip(SPLITS, CODECS, strict=True)] == list(range(6))
    with pytest.raises(CacheError, match=r"\(split, codec\) is \(2, 'raw'\), allowed are \[\(0, 'raw'\), "):
        table.variant(2, "raw")


def test_mean_bytes():
    table = made()
    assert table.mean_bytes.shape == (S, 6)
    for s in range(S):
        for v in range(6):
            assert table.mean_bytes[s, v] == pytest.approx(sum(int(b) for b in table.bytes[s, v]) / N)


def test_parts_and_selections():
    table = made()
    for split, rows in (("validation", [0, 1, 2]), ("test", [3, 4, 5, 6, 7, 8])):
        part = table.part(split)
        assert part.sample.tolist() == SAMPLE[rows].tolist()
        for name in ("bytes", "confidence", "prediction", "spread"):
            assert np.array_equal(getattr(part, name), getattr(table, name)[:, :, rows])
        part.check(cache().part(split))
    picked = table.select(np.array([4, 0]))
    assert picked.sample.tolist() == [1, 10]
    assert np.array_equal(picked.bytes, table.bytes[:, :, [4, 0]])
    with pytest.raises(CacheError, match="split is 'train', allowed are"):
        table.part("train")
    with pytest.raises(CacheError, match="split 'validation' is empty in this table of payloads"):
        table.part("test").part("validation")


def test_calibrated_as_its_cache():
    table, its = made(), cache()
    calibrated, exits = table.calibrated(its.calibrations["exit"][0, -1]), its.calibrated("exit")
    for v in (0, 2, 5):  # nothing is lost there
        assert np.array_equal(table.confidence[:, v], its.confidence[:, 0, :, -1])
        assert np.allclose(calibrated.confidence[:, v], exits.confidence[:, 0, :, -1], rtol=0.0, atol=1e-15)
    assert calibrated.spread is None
    with pytest.raises(CacheError, match="spread is missing"):
        calibrated.calibrated(2.0)
    with pytest.raises(ValueError, match="temperature is 0"):
        table.calibrated(0.0)


@pytest.mark.parametrize("spread", [True, False])
def test_round_trip_is_exact(tmp_path, spread):
    table = made() if spread else made(spread=None)
    table.save(tmp_path / "t.safetensors")
    same(PayloadTable.load(tmp_path / "t.safetensors"), table)
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_small_table_agrees_with_a_small_cache_to_the_last_bit(tmp_path):
    table, its = made(), cache()
    table.save(tmp_path / "t", small=True)
    its.save(tmp_path / "c", small=True)
    packed, small = PayloadTable.load(tmp_path / "t"), ConfidenceCache.load(tmp_path / "c")
    packed.check(small)
    for v in (0, 2, 5):
        assert np.array_equal(packed.confidence[:, v], small.confidence[:, 0, :, -1])
        assert np.array_equal(packed.prediction[:, v], small.prediction[:, 0, :, -1])
        assert np.array_equal(packed.spread[:, v], small.spread[:, 0, :, -1])
    assert np.abs(packed.confidence - table.confidence).max() <= 3.7e-4
    for name in ("bytes", "prediction", "spread", "sample"):
        assert np.array_equal(getattr(packed, name), getattr(table, name))
    packed.save(tmp_path / "again", small=True)
    same(PayloadTable.load(tmp_path / "again"), packed)


@settings(deadline=None)
@given(
    sizes=arrays(np.int64, (S, 6, N), elements=st.integers(1, 2**32 - 1)),
    constant=st.lists(st.one_of(st.none(), st.integers(1, 2**32 - 1)), min_size=6, max_size=6),
    spoken=st.lists(st.integers(0, 5), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_whatever_varies_comes_back(tmp_path_factory, sizes, constant, spoken, seed):
    for v, b in enumerate(constant):
        if b is not None:
            sizes[:, v] = b
    rng = np.random.default_rng(seed)
    answers = {
        "confidence": rng.random((S, 6, N))[:, spoken],
        "prediction": rng.integers(0, CLASSES, (S, 6, N))[:, spoken],
        "spread": rng.integers(0, 256, (S, 6, N))[:, spoken],
    }
    path = tmp_path_factory.mktemp("t") / "t"
    table = made(bytes=sizes, **answers)
    table.save(path)
    same(PayloadTable.load(path), table)


def test_what_is_alike_is_written_once(tmp_path):
    made().save(tmp_path / "t")
    tensors, manifest = sealed.parse(sealed.read(tmp_path / "t"), "t", SCHEMA)
    assert manifest["spoken"] == list(SPOKEN)
    assert manifest["constant_bytes"] == list(CONSTANT)
    assert tensors["bytes"].shape == (S, 2, N)
    assert tensors["bytes"].dtype == np.uint16
    assert tensors["confidence"].shape == (S, 3, N)
    made(bytes=np.full((S, 6, N), 70_000)).save(tmp_path / "t")
    assert "bytes" not in sealed.parse(sealed.read(tmp_path / "t"), "t", SCHEMA)[0]


def test_it_belongs_to_its_cache():
    made().check(cache())
    made(hashes={}).check(cache(hashes={}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hashes": {**HASHES, "model": "11" * 32}}, f"hash of model is {'11' * 32}, allowed is {'ab' * 32}"),
        ({"hashes": {**HASHES, "test": "11" * 32}}, f"hash of test is {'11' * 32}, allowed is {'ef' * 32}"),
        ({"hashes": {**HASHES, "router": "11" * 32}}, f"hash of router is {'11' * 32}, allowed is None"),
        ({"hashes": {}}, f"no hash of the model, allowed is {'ab' * 32}"),
        (
            {"conditions": ("pristine", "blur 2.0")},
            "conditions are ('pristine', 'blur 2.0'), allowed are ('pristine', ",
        ),
        ({"conditions": CONDITIONS[::-1]}, "conditions are ('blur 1.0', 'pristine')"),
        ({"classes": CLASSES + 1}, "classes is 6, allowed is 5"),
        ({"sample": np.arange(N)}, "sample[0] is 0, allowed is 10"),
        ({"split_of_data": np.ones(N)}, "split_of_data[0] is 1, allowed is 0"),
        ({"splits": (0, 0, 1, 1, 1, 3)}, "a split is 3, allowed is 0..2"),
    ],
)
def test_another_cache_is_refused(changed, said):
    with pytest.raises(CacheError) as caught:
        made(**changed).check(cache())
    assert said in str(caught.value)


def test_fewer_samples_are_refused():
    with pytest.raises(CacheError, match="samples are 6, allowed are 9 as in the cache"):
        made().part("test").check(cache())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bytes": np.zeros((S, 6, N))}, ["bytes[0, 0, 0] is 0", "[1, 4294967295]"]),
        ({"bytes": np.full((S, 6, N), -5)}, ["bytes[0, 0, 0] is -5"]),
        ({"bytes": np.full((S, 6, N), 2**33)}, ["bytes[0, 0, 0] is 8589934592"]),
        ({"bytes": np.full((S, 6, N), 1.5)}, ["bytes[0, 0, 0] is 1.5", "a whole number"]),
        ({"bytes": np.full((S, 6, N), np.nan)}, ["bytes[0, 0, 0] is nan"]),
        ({"bytes": np.ones((S, 5, N))}, ["bytes has shape (2, 5, 9), allowed is (2, 6, 9)"]),
        ({"bytes": "many"}, ["bytes has type"]),
        ({"confidence": np.full((S, 6, N), 1.1)}, ["confidence[0, 0, 0] is 1.1", "[0.0, 1.0]"]),
        ({"confidence": np.full((S, 6, N), np.nan)}, ["confidence[0, 0, 0] is nan"]),
        ({"confidence": np.ones((6, N))}, ["confidence has shape (6, 9), allowed is (conditions, variants, samples)"]),
        ({"prediction": np.full((S, 6, N), CLASSES)}, ["prediction[0, 0, 0] is 5, allowed is [0, 4]"]),
        ({"spread": np.zeros((S, 6, N + 1))}, ["spread has shape (2, 6, 10), allowed is (2, 6, 9)"]),
        ({"spread": np.full((S, 6, N), 256)}, ["spread[0, 0, 0] is 256"]),
        ({"splits": (0, 0, 1, 1, 1, -1)}, ["splits[5] is -1"]),
        ({"splits": (0, 0, 1, 1, 1)}, ["splits has shape (5,), allowed is (6,)"]),
        (
            {"codecs": ("raw", "raw", "float32", "uint8", "uint8_zlib", "float32")},
            ["variants are [(0, 'raw'), (0, 'raw')"],
        ),
        ({"conditions": ("pristine", "pristine")}, ["conditions are ['pristine', 'pristine']"]),
        ({"conditions": ("pristine", 3)}, ["names are", "allowed are texts"]),
        ({"classes": 0}, ["classes is 0"]),
        ({"sample": np.arange(N) - 1}, ["sample[0] is -1"]),
        ({"split_of_data": np.full(N, 2)}, ["split_of_data[0] is 2, allowed is [0, 1]"]),
        ({"encode_ms": [0, 0, 0, 0, 0, -1.0]}, ["encode_ms[5] is -1.0", "milliseconds >= 0"]),
        ({"decode_ms": [0, 0, 0, 0, 0, np.nan]}, ["decode_ms[5] is nan"]),
        ({"decode_ms": [0.0]}, ["decode_ms has shape (1,), allowed is (6,)"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, said):
    with pytest.raises(CacheError) as caught:
        made(**changed)
    for words in said:
        assert words in str(caught.value)


def test_what_may_be_left_out():
    few = {k: v for k, v in fields().items() if k in ("codecs", "splits", "bytes", "confidence", "prediction")}
    table = PayloadTable.from_arrays(**few, conditions=CONDITIONS, classes=CLASSES)
    assert table.sample.tolist() == list(range(N))
    assert table.split_of_data.tolist() == [1] * N
    assert table.encode_ms.tolist() == table.decode_ms.tolist() == [0.0] * 6
    assert (table.hashes, table.notes, table.spread) == ({}, {}, None)


def test_missing_file_and_unknown_table(tmp_path):
    with pytest.raises(CacheError, match="cannot be read"):
        PayloadTable.load(tmp_path / "nothing")
    with pytest.raises(CacheError, match="embedded table of payloads 'nobody' does not exist, allowed are"):
        PayloadTable.embedded("nobody")
    cache().save(tmp_path / "c")
    with pytest.raises(CacheError, match="schema is 'offramp-cache-2', allowed is 'offramp-payloads-1'"):
        PayloadTable.load(tmp_path / "c")


def test_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    made().save(tmp_path / "t")
    before = (tmp_path / "t").read_bytes()

    def killed(*_):
        raise OSError("killed")

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(OSError, match="killed"):
        made(1).save(tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == before


@pytest.fixture
def forge(tmp_path):
    """Load a table with tensors and manifest changed, under a hash that is right."""

    def load(tensors=None, *, small=False, **manifest):
        made().save(tmp_path / "t", small=small)
        found, written = sealed.parse(sealed.read(tmp_path / "t"), "t", SCHEMA)
        found = {k: v for k, v in {**found, **(tensors or {})}.items() if v is not None}
        written = {k: v for k, v in {**written, **manifest}.items() if v != "leave out"}
        sealed.write(tmp_path / "t", found, written, SCHEMA)
        return PayloadTable.load(tmp_path / "t")

    return load


def test_a_file_that_is_rewritten_as_it_was_is_accepted(forge):
    """So the forgeries below are refused for what they hold."""
    same(forge(), made())
    forge(small=True)


@pytest.mark.parametrize(
    ("tensors", "manifest"),
    [
        ({"confidence": None}, {}),
        ({"bytes": None}, {}),
        ({"sample": None}, {}),
        ({"more": np.zeros(3)}, {}),
        ({"bytes": np.ones((S, 2, N), np.int32)}, {}),
        ({"bytes": np.ones((S, 1, N), np.uint16)}, {}),
        ({"bytes": np.ones((S, 3, N), np.uint16)}, {}),
        ({"bytes": np.ones((N,), np.uint16)}, {}),
        ({"bytes": np.zeros((S, 2, N), np.uint16)}, {}),
        ({"confidence": np.ones((S, 3, N))}, {}),
        ({"confidence": np.full((S, 3, N), np.nan, np.float32)}, {}),
        ({"confidence": np.ones((S, 3, N + 1), np.float32)}, {}),
        ({"confidence": np.ones((3, N), np.float32)}, {}),
        ({"prediction": np.full((S, 3, N), CLASSES, np.int16)}, {}),
        ({"prediction": np.zeros((S, 2, N), np.int16)}, {}),
        ({"spread": np.zeros((S, 3), np.uint8)}, {}),
        ({"sample": np.arange(N - 1)}, {}),
        ({"split": np.full(N, 3, np.int8)}, {}),
        ({}, {"spoken": [0, 1, 0, 2, 2, 3]}),
        ({}, {"spoken": [0, 1, 0, 2, 2, -1]}),
        ({}, {"spoken": [0, 1, 0, 2, 2]}),
        ({}, {"spoken": "abcdef"}),
        ({}, {"spoken": [0.5] * 6}),
        ({}, {"constant_bytes": [1, 1, 1, 1, 1, 1]}),
        ({}, {"constant_bytes": [None] * 6}),
        ({}, {"constant_bytes": [0, None, 4108, 1100, None, 2060]}),
        ({}, {"constant_bytes": ["a", None, 4108, 1100, None, 2060]}),
        ({}, {"constant_bytes": [1.5, None, 4108, 1100, None, 2060]}),
        ({}, {"constant_bytes": 7}),
        ({}, {"splits": [0, 0, 1, 1, 1]}),
        ({}, {"splits": [0, 0, 1, 1, 1, "x"]}),
        ({}, {"codecs": ["raw"]}),
        ({}, {"codecs": 5}),
        ({}, {"conditions": ["pristine"]}),
        ({}, {"classes": "5"}),
        ({}, {"classes": 40_000}),
        ({}, {"hashes": 3}),
        ({}, {"notes": 3}),
        ({}, {"encode_ms": [1.0]}),
        ({}, {"encode_ms": [[1.0], 2.0]}),
        ({}, {"decode_ms": "leave out"}),
        ({}, {"more": 1}),
    ],
)
def test_what_save_would_not_write(forge, tensors, manifest):
    with pytest.raises(CacheError):
        forge(tensors, **manifest)


@pytest.mark.parametrize("answer", [np.zeros((S, 3, N), np.uint32), np.full((S, 3, N), 15, np.uint16), None])
def test_small_file_with_other_answers(forge, answer):
    with pytest.raises(CacheError):
        forge({"answer": answer}, small=True)
