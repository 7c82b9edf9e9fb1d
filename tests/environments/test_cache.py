"""A confidence cache keeps what it was given, to the bit; whatever is no cache, it refuses in one clear sentence."""

import functools
import hashlib
import json
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from offramp.bandits import Profile
from offramp.environments import CacheError, Condition, ConfidenceCache

PROFILE = Profile(segment_macs=[5, 6], head_macs=[1, 2], payload_bytes=[3072, 800, 0], layers=[3, 6])


def arguments(**changed):
    """What `from_arrays` needs for 2 conditions, 5 samples, 2 exits, with something changed."""
    rng = np.random.default_rng(0)
    good = {
        "confidence": rng.random((2, 1, 5, 2)),
        "prediction": rng.integers(0, 3, (2, 1, 5, 2)),
        "label": [0, 1, 2, 1, 0],
        "conditions": ["pristine", Condition("noise 5", "noise", {"sigma": 5, "seed": 0.5})],
        "profile": PROFILE,
        "split": [0, 0, 1, 1, 1],
        "sample": [10, 11, 0, 1, 2**40],
        "hashes": {"model": "ab" * 32, "data": "0" * 64},
        "notes": {"by": 'a "name" \u00e9\u4e16', "numbers": [1, 2.5, None], "sha256": "0" * 64},
    }
    return {**good, **changed}


def made(**changed):
    return ConfidenceCache.from_arrays(**arguments(**changed))


def with_value(name, at, value):
    array = np.array(arguments()[name], dtype=np.float64)
    array[at] = value
    return {name: array}


@functools.cache
def valid_file():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.safetensors"
        made().save(path)
        return path.read_bytes()


def header():
    """Of the valid file, and where it ends."""
    end = 8 + int.from_bytes(valid_file()[:8], "little")
    return json.loads(valid_file()[8:end]), end


def rewritten(**manifest):
    """The valid file with fields of its manifest replaced, under a hash that is right."""
    meta = header()[0]["__metadata__"]
    meta["manifest"] = json.dumps({**json.loads(meta["manifest"]), **manifest})
    return sealed(load(valid_file()), meta)


def sealed(tensors, meta):
    raw = save(tensors, metadata={**meta, "sha256": "0" * 64})
    digest = hashlib.sha256(raw).hexdigest()
    return raw.replace(('"sha256":"' + "0" * 64).encode(), f'"sha256":"{digest}'.encode(), 1)


def test_from_arrays_keeps_values_and_shapes():
    given = arguments()
    cache = ConfidenceCache.from_arrays(**given)
    assert cache.confidence.shape == cache.prediction.shape == (2, 1, 5, 2)
    assert cache.confidence.dtype == np.float64
    assert cache.prediction.dtype == cache.label.dtype == np.int16
    assert np.array_equal(cache.confidence, given["confidence"].astype(np.float32))
    assert np.array_equal(cache.prediction, given["prediction"])
    assert cache.label.tolist() == given["label"]
    assert cache.sample.tolist() == given["sample"]
    assert cache.split.tolist() == given["split"]
    assert cache.conditions == (Condition("pristine", "pristine"), given["conditions"][1])
    assert cache.experts == ("only",)
    assert cache.exits == ("exit 1", "exit 2")
    assert cache.classes == 3
    assert cache.profile == PROFILE


def test_axis_of_one_expert_may_be_left_out():
    given = arguments()
    flat = made(confidence=given["confidence"][:, 0], prediction=given["prediction"][:, 0])
    assert np.array_equal(flat.confidence, made().confidence)
    assert np.array_equal(flat.prediction, made().prediction)


def test_samples_and_split_have_defaults():
    cache = made(sample=None, split=None, profile=None, hashes=None, notes=None)
    assert cache.sample.tolist() == [0, 1, 2, 3, 4]
    assert cache.split.tolist() == [1] * 5
    assert (cache.profile, dict(cache.hashes), dict(cache.notes)) == (None, {}, {})


def test_float16_and_boolean_input_are_converted():
    cache = made(confidence=np.full((2, 1, 5, 2), 0.7, dtype=np.float16), label=np.array([0, 1, 0, 1, 1], dtype=bool))
    assert cache.confidence.dtype == np.float64
    assert cache.confidence.max() == float(np.float16(0.7))
    assert cache.label.tolist() == [0, 1, 0, 1, 1]


def test_part_and_select_pick_the_same_samples_everywhere():
    cache = made()
    test = cache.part("test")
    assert test.sample.tolist() == [0, 1, 2**40]
    assert np.array_equal(test.confidence, cache.confidence[:, :, 2:])
    assert np.array_equal(test.prediction, cache.prediction[:, :, 2:])
    assert test.label.tolist() == [2, 1, 0]
    assert cache.part("validation").sample.tolist() == [10, 11]
    picked = cache.select(np.array([4, 0]))
    assert picked.sample.tolist() == [2**40, 10]
    assert np.array_equal(picked.confidence, cache.confidence[:, :, [4, 0]])
    assert picked.conditions == cache.conditions


def test_condition_gives_its_index():
    assert [made().condition(name) for name in ("pristine", "noise 5")] == [0, 1]


BAD = {
    "nan": (with_value("confidence", (1, 0, 3, 1), np.nan), ["confidence[1, 0, 3, 1]", "nan", "[0.0, 1.0]"]),
    "above 1": (with_value("confidence", (0, 0, 2, 0), 1.5), ["confidence[0, 0, 2, 0]", "1.5", "[0.0, 1.0]"]),
    "below 0": (with_value("confidence", (0, 0, 0, 0), -0.25), ["confidence[0, 0, 0, 0]", "-0.25", "[0.0, 1.0]"]),
    "infinite": (with_value("confidence", (0, 0, 0, 1), np.inf), ["confidence[0, 0, 0, 1]", "inf", "[0.0, 1.0]"]),
    "too large for float32": (
        with_value("confidence", (0, 0, 0, 1), 1e300),
        ["confidence[0, 0, 0, 1]", "1e+300", "[0.0, 1.0]"],
    ),
    "a little above 1": (
        with_value("confidence", (0, 0, 0, 1), 1.0 + 1e-12),
        ["confidence[0, 0, 0, 1]", "1.000000000001", "[0.0, 1.0]"],
    ),
    "two axes": ({"confidence": [[0.5, 0.5]]}, ["confidence", "(1, 2)", "(conditions, experts, samples, exits)"]),
    "prediction of other shape": (
        {"prediction": np.zeros((2, 1, 4, 2))},
        ["prediction", "(2, 1, 4, 2)", "(2, 1, 5, 2)"],
    ),
    "too few labels": ({"label": [0, 1, 2, 1]}, ["confidence", "(2, 1, 5, 2)", "(2, 1, 4, 2)"]),
    "too few conditions": ({"conditions": ["pristine"]}, ["confidence", "(2, 1, 5, 2)", "(1, 1, 5, 2)"]),
    "too many experts": ({"experts": ["a", "b"]}, ["confidence", "(2, 1, 5, 2)", "(2, 2, 5, 2)"]),
    "too many exits": ({"exits": ["a", "b", "c"]}, ["confidence", "(2, 1, 5, 2)", "(2, 1, 5, 3)"]),
    "labels in a column": ({"label": np.zeros((5, 1))}, ["label", "(5, 1)", "(samples,)"]),
    "one label without axis": ({"label": 0}, ["label", "()", "(samples,)"]),
    "too few samples": ({"sample": [1, 2]}, ["sample", "(2,)", "(5,)"]),
    "too few splits": ({"split": [1]}, ["split", "(1,)", "(5,)"]),
    "ragged": ({"confidence": [[[0.5, 0.5], [0.5]]]}, ["confidence", "inhomogeneous", "an array of numbers"]),
    "ragged labels": ({"label": [[0], [1, 2]]}, ["label", "inhomogeneous", "an array of numbers"]),
    "strings": ({"label": list("abcde")}, ["label", "<U1", "an array of numbers"]),
    "objects": ({"prediction": np.full((2, 1, 5, 2), None)}, ["prediction", "object", "an array of numbers"]),
    "complex": ({"confidence": np.zeros((2, 1, 5, 2), complex)}, ["confidence", "complex128", "an array of numbers"]),
    "label not whole": ({"label": [0, 1, 1.5, 1, 0]}, ["label[2]", "1.5", "a whole number"]),
    "label nan": ({"label": [0, 1, 1, np.nan, 0]}, ["label[3]", "nan", "a whole number"]),
    "prediction not whole": (
        with_value("prediction", (0, 0, 4, 1), 0.5),
        ["prediction[0, 0, 4, 1]", "0.5", "a whole number"],
    ),
    "prediction too large for int16": (
        with_value("prediction", (0, 0, 0, 0), 40_000),
        ["prediction[0, 0, 0, 0]", "40000", "[-32768, 32767]"],
    ),
    "negative label": ({"label": [0, -1, 0, 0, 0]}, ["label[1]", "-1", "[0, 2]"]),
    "label beyond the classes": ({"label": [0, 0, 0, 0, 7], "classes": 3}, ["label[4]", "7", "[0, 2]"]),
    "prediction beyond the classes": ({"classes": 1}, ["prediction[", "allowed is [0, 0]"]),
    "no classes": ({"classes": 0}, ["classes", "0", "1..32767"]),
    "classes not whole": ({"classes": 2.5}, ["classes", "2.5", "a whole number"]),
    "negative sample": ({"sample": [0, 1, 2, 3, -4]}, ["sample[4]", "-4", "[0, 9007199254740992]"]),
    "third split": ({"split": [0, 1, 2, 0, 0]}, ["split[2]", "2", "[0, 1]"]),
    "condition twice": ({"conditions": ["a", "a"]}, ["conditions", "['a', 'a']", "names that differ"]),
    "exit twice": ({"exits": ["x", "x"]}, ["exits", "['x', 'x']", "names that differ"]),
    "expert twice": (
        {
            "confidence": np.zeros((2, 2, 5, 2)),
            "prediction": np.zeros((2, 2, 5, 2)),
            "experts": ["e", "e"],
        },
        ["experts", "['e', 'e']", "names that differ"],
    ),
    "profile of another network": (
        {"profile": Profile(segment_macs=[1] * 3, head_macs=[1] * 3, payload_bytes=[1, 1, 1, 0], layers=[1, 2, 3])},
        ["profile", "3 exits", "allowed is 2"],
    ),
    "no samples": (
        {"confidence": np.zeros((2, 1, 0, 2)), "prediction": np.zeros((2, 1, 0, 2)), "label": []},
        ["confidence", "(2, 1, 0, 2)", "no axis of length 0"],
    ),
    "no conditions": (
        {"confidence": np.zeros((0, 1, 5, 2)), "prediction": np.zeros((0, 1, 5, 2)), "conditions": []},
        ["confidence", "(0, 1, 5, 2)", "no axis of length 0"],
    ),
    "no exits": (
        {"confidence": np.zeros((2, 1, 5, 0)), "prediction": np.zeros((2, 1, 5, 0)), "profile": None},
        ["confidence", "(2, 1, 5, 0)", "no axis of length 0"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_value_and_what_is_allowed(case):
    changed, said = BAD[case]
    with pytest.raises(CacheError) as caught:
        made(**changed)
    for words in [*said, "allowed"]:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: c.condition("fog"), ["condition", "'fog'", "allowed are ['pristine', 'noise 5']"]),
        (lambda c: c.part("train"), ["split", "'train'", "allowed are ('validation', 'test')"]),
        (lambda c: c.select(c.split == 1).part("validation"), ["split", "'validation'", "empty"]),
        (lambda c: type(c).embedded("nobody"), ["embedded cache", "'nobody'", "allowed are ["]),
    ],
)
def test_unknown_name_is_answered_with_the_names_there_are(ask, said):
    with pytest.raises(CacheError) as caught:
        ask(made())
    for words in said:
        assert words in str(caught.value)


def test_round_trip_is_exact(tmp_path):
    cache = made()
    path = tmp_path / "cache.safetensors"
    cache.save(str(path))
    again = ConfidenceCache.load(path)
    for name in ("confidence", "prediction", "label", "sample", "split"):
        one, other = getattr(cache, name), getattr(again, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    for name in ("conditions", "experts", "exits", "classes", "profile", "hashes", "notes"):
        assert getattr(again, name) == getattr(cache, name)
    assert isinstance(again.conditions[1].parameters["sigma"], int)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_round_trip_without_profile(tmp_path):
    made(profile=None, notes=None).save(tmp_path / "c")
    assert ConfidenceCache.load(tmp_path / "c").profile is None


def test_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cache.safetensors"
    made().save(path)
    before = path.read_bytes()

    def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(OSError, match="killed"):
            made(notes={"other": 1}).save(path)
    assert path.read_bytes() == before
    assert ConfidenceCache.load(path).notes == made().notes
    made(notes={"other": 1}).save(path)  # what the kill left behind is in nobody's way
    assert ConfidenceCache.load(path).notes == {"other": 1}


def refused(raw):
    with pytest.raises(CacheError) as caught:
        ConfidenceCache._parse(raw, "file here")
    assert "file here" in str(caught.value)
    return str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CacheError, match="cannot be read") as caught:
            ConfidenceCache.load(path)
        assert str(path) in str(caught.value)


def test_unknown_schema():
    said = refused(valid_file().replace(b"offramp-cache-2", b"offramp-cache-9"))
    assert "'offramp-cache-9'" in said
    assert "allowed is 'offramp-cache-2'" in said
    assert "schema is None" in refused(save({"x": np.zeros(1)}, metadata={"manifest": "{}"}))


def test_file_of_another_program():
    assert "__metadata__" in refused(save({"x": np.zeros(1)}))
    assert "truncated" in refused(b"\x89PNG\r\n\x1a\n and so on")
    assert "truncated" in refused(b"")


def test_truncated_at_every_length():
    raw = valid_file()
    assert all(refused(raw[:length]) for length in range(len(raw)))


def test_wrong_hash_names_both():
    raw = valid_file()
    at = raw.index(b'"sha256":"') + len(b'"sha256":"')
    written = raw[at : at + 64].decode()
    changed = ("1" if written[0] == "0" else "0") + written[1:]
    said = refused(raw[:at] + changed.encode() + raw[at + 64 :])
    assert f"its sha256 is {written}, allowed is {changed}" in said


def test_header_in_another_order_is_refused():
    """The arrays would be the same: only a hash over the whole file sees it."""
    raw = valid_file()
    fields, end = header()
    turned = json.dumps({k: fields[k] for k in reversed(fields)}, separators=(",", ":"), ensure_ascii=False).encode()
    changed = raw[:8] + turned.ljust(end - 8) + raw[end:]
    assert set(load(changed)) == set(load(raw))
    assert "its sha256 is" in refused(changed)


def test_longer_padding_is_refused():
    raw, (_, end) = valid_file(), header()
    changed = end.to_bytes(8, "little") + raw[8:end] + b" " * 8 + raw[end:]
    assert set(load(changed)) == set(load(raw))
    assert "its sha256 is" in refused(changed)


def test_every_bit_counts():
    raw = valid_file()
    for at in range(0, len(raw) * 8, 3):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        assert refused(bytes(changed))


@pytest.mark.parametrize(
    "manifest",
    [
        {"conditions": [{"name": "x"}]},
        {"conditions": 5},
        {"conditions": ["pristine", "noise"]},
        {"profile": {"segment_macs": [1]}},
        {"profile": 3},
        {"experts": None},
        {"exits": 7},
        {"classes": "ten"},
        {"hashes": 3},
        {"notes": "none"},
        {"more": 1},
    ],
)
def test_manifest_that_save_would_not_write(manifest):
    with pytest.raises(CacheError):
        ConfidenceCache._parse(rewritten(**manifest), "file here")


def test_manifest_is_rewritten_well():
    """The forgery of the test above is refused for its content, not for its hash."""
    assert ConfidenceCache._parse(rewritten(notes={"new": 1}), "file here").notes == {"new": 1}


def test_missing_and_foreign_arrays():
    tensors, meta = load(valid_file()), header()[0]["__metadata__"]
    assert "label is missing" in refused(sealed({k: v for k, v in tensors.items() if k != "label"}, meta))
    assert "float64" in refused(sealed({**tensors, "label": tensors["label"].astype(np.float64)}, meta))
    assert "'more'" in refused(sealed({**tensors, "more": np.zeros(2)}, meta))
    assert "holds ['extra'" in refused(sealed(tensors, {**meta, "extra": "1"}))


@pytest.mark.parametrize("small", [False, True])
def test_a_file_of_many_pieces_is_read_as_it_was_written(small, tmp_path, monkeypatch):
    """Files are read and decoded piece by piece; here the pieces are a few numbers long."""
    made().save(tmp_path / "c", small=small)
    whole = ConfidenceCache.load(tmp_path / "c")
    monkeypatch.setattr("offramp.bandits.sealed.PIECE", 24)
    monkeypatch.setattr("offramp.environments.compact.PIECE", 3)
    found = ConfidenceCache.load(tmp_path / "c")
    for name in ("confidence", "prediction", "label", "sample", "split"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
        assert getattr(found, name).flags.writeable


def test_a_pipe_is_read_like_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(valid_file()))
    writer.start()
    found = ConfidenceCache.load(tmp_path / "pipe")
    writer.join()
    assert np.array_equal(found.confidence, made().confidence)


def test_confidences_of_another_type_are_refused():
    tensors, meta = load(valid_file()), header()[0]["__metadata__"]
    for kind in (np.float64, np.float16):
        changed = {**tensors, "confidence": tensors["confidence"].astype(kind)}
        assert "allowed is an array of float32" in refused(sealed(changed, meta))
