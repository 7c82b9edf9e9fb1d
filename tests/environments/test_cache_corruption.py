"""Hypothesis breaks valid files in ten ways, up to two in a row: none is accepted, none crashes otherwise."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments import CacheError, Condition, ConfidenceCache
from offramp.environments.logits import LogitTable, codes_of
from offramp.environments.temperature import spread_of

CONDITIONS = ["pristine", Condition("noise 5", "noise", {"sigma": 5, "seed": 0.5})]
KINDS = {"cache": ConfidenceCache, "small": ConfidenceCache, "logits": LogitTable}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")

    def load(kind, raw):
        (folder / kind).write_bytes(raw)
        return KINDS[kind].load(folder / kind)

    return load


@functools.cache
def valid_file(kind):
    """A file of 2 conditions, 2 experts, 5 samples, 2 exits and 3 classes with everything that it may hold."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 3.0, (2, 2, 5, 2, 3))
    experts, label = ("pristine", "noise"), [0, 1, 2, 1, 0]
    if kind == "logits":
        made = LogitTable(
            codes=codes_of(logits),
            label=np.array(label, dtype=np.int16),
            sample=np.arange(5),
            split=np.array([0, 0, 1, 1, 1], dtype=np.int8),
            conditions=("pristine", "noise 5"),
            experts=experts,
            hashes={"sha256": "0" * 64},
        )
    else:
        made = ConfidenceCache.from_arrays(
            confidence=1.0 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1),
            prediction=logits.argmax(axis=-1),
            spread=spread_of(logits),
            router=rng.dirichlet((1.0, 1.0), (2, 5)),
            calibrations={"exit": rng.uniform(0.5, 2.0, (2, 2))},
            label=label,
            conditions=CONDITIONS,
            experts=experts,
            notes={"by": 'a "name" \u00e9\u4e16', "numbers": [1, 2.5, None], "sha256": "0" * 64},
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "valid"
        made.save(path, **({"small": True} if kind == "small" else {}))
        return path.read_bytes()


def flip_bits(draw, raw):
    changed = bytearray(raw)
    for at in draw(st.lists(st.integers(0, 8 * len(raw) - 1), min_size=1, max_size=8)):
        changed[at // 8] ^= 1 << at % 8
    return changed


def overwrite(draw, raw):
    changed = bytearray(raw)
    changed[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return changed


def place(draw, raw):
    start = draw(st.integers(0, len(raw) - 1))
    return start, min(len(raw), start + draw(st.integers(1, 64)))


def delete(draw, raw):
    start, stop = place(draw, raw)
    return raw[:start] + raw[stop:]


def insert(draw, raw):
    start, _ = place(draw, raw)
    return raw[:start] + draw(st.binary(min_size=1, max_size=64)) + raw[start:]


def truncate(draw, raw):
    return raw[: draw(st.integers(0, len(raw)))]


def duplicate(draw, raw):
    start, stop = place(draw, raw)
    return raw[:stop] + raw[start:]


def swap(draw, raw):
    (a, b), (c, d) = sorted([place(draw, raw), place(draw, raw)])
    b = min(b, c)
    return raw[:a] + raw[c:d] + raw[b:c] + raw[a:b] + raw[d:]


def header_end(raw):
    return min(len(raw), 8 + int.from_bytes(raw[:8], "little"))


def change_digits(draw, raw):
    changed = bytearray(raw)
    digits = [i for i in range(8, header_end(raw)) if chr(raw[i]).isdigit()] or [8]
    for at in draw(st.lists(st.sampled_from(digits), min_size=1, max_size=4)):
        changed[at] = ord(draw(st.sampled_from("0123456789")))
    return changed


def change_length(draw, raw):
    return draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little") + raw[8:]


def respell(draw, raw):
    """Insert JSON's own signs into the header, and correct its length."""
    at = draw(st.integers(8, header_end(raw)))
    signs = draw(st.sampled_from(SIGNS))
    return (header_end(raw) - 8 + len(signs)).to_bytes(8, "little") + raw[8:at] + signs + raw[at:]


SIGNS = (b" ", b"\n", b"[" * 3000, b"9" * 5000, b'"', b"\\ud800", b"{}", b",", b"\x00", b"1e999")
WAYS = (flip_bits, overwrite, delete, insert, truncate, duplicate, swap, change_digits, change_length, respell)


@st.composite
def corruptions(draw, kind):
    changed = valid_file(kind)
    for way in draw(st.lists(st.sampled_from(WAYS), min_size=1, max_size=2)):
        changed = bytes(way(draw, changed)) if len(changed) > 8 else changed
    return changed


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400, deadline=None, database=None)
@given(data=st.data())
def test_no_corruption_is_accepted(kind, loaded, data):
    changed = data.draw(corruptions(kind))
    if changed == valid_file(kind):
        assert loaded(kind, changed).experts == ("pristine", "noise")
    else:
        with pytest.raises(CacheError):
            loaded(kind, changed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_counts(kind, loaded):
    raw = valid_file(kind)
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << at % 8
        with pytest.raises(CacheError):
            loaded(kind, bytes(changed))


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_at_every_length(kind, loaded):
    raw = valid_file(kind)
    for length in range(len(raw)):
        with pytest.raises(CacheError):
            loaded(kind, raw[:length])
