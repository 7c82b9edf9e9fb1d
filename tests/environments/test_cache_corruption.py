"""Hypothesis breaks a valid cache file in ten ways, up to two in a row: none is accepted, none crashes otherwise."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.environments import CacheError, Condition, ConfidenceCache

CONDITIONS = ["pristine", Condition("noise 5", "noise", {"sigma": 5, "seed": 0.5})]


@functools.cache
def valid_file():
    rng = np.random.default_rng(0)
    cache = ConfidenceCache.from_arrays(
        confidence=rng.random((2, 1, 5, 2)),
        prediction=rng.integers(0, 3, (2, 1, 5, 2)),
        label=[0, 1, 2, 1, 0],
        conditions=CONDITIONS,
        notes={"by": 'a "name" \u00e9\u4e16', "numbers": [1, 2.5, None], "sha256": "0" * 64},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.safetensors"
        cache.save(path)
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
def corruptions(draw):
    changed = valid_file()
    for way in draw(st.lists(st.sampled_from(WAYS), min_size=1, max_size=2)):
        changed = bytes(way(draw, changed)) if len(changed) > 8 else changed
    return changed


@settings(max_examples=800, deadline=None, database=None)
@given(changed=corruptions())
def test_no_corruption_is_accepted(changed):
    if changed == valid_file():
        assert ConfidenceCache._parse(changed, "file here").conditions[1] == CONDITIONS[1]
    else:
        with pytest.raises(CacheError):
            ConfidenceCache._parse(changed, "file here")
