"""Sealed files: safetensors with a JSON manifest and a hash over every byte, written whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

_UNSEALED = "0" * 64  # stands where the file's own hash will stand, while that hash is taken


class CacheError(ValueError):
    """A cache cannot be built or read; the message names the field, the value and what is allowed."""


def write(path: str | Path, tensors: Mapping[str, npt.NDArray[Any]], manifest: Mapping[str, Any], schema: str) -> None:
    """Write a sealed file: it is the old one or the whole new one, never a part."""
    meta = {"schema": schema, "manifest": json.dumps(manifest, sort_keys=True), "sha256": _UNSEALED}
    # The library writes the memory as it lies, whatever the strides: another order would be read back as other values.
    raw = save({name: np.ascontiguousarray(values) for name, values in tensors.items()}, metadata=meta)
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(_sealed(raw, _UNSEALED, _digest(raw, _UNSEALED)))
    partial.replace(path)


def read(path: str | Path) -> bytes:
    """The bytes of a file, for `parse`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CacheError(f"file {path} cannot be read ({error.strerror}), allowed is a file written by save") from error


def parse(raw: bytes, where: str, schema: str) -> tuple[dict[str, npt.NDArray[Any]], Any]:
    """The tensors and the manifest of what `write` wrote.

    Raises
    ------
    CacheError
        It is truncated, altered, or of another schema.

    """
    meta = _header(raw, where, schema)
    digest = _digest(raw, meta["sha256"])
    if meta["sha256"] != digest:
        raise CacheError(f"{where}: its sha256 is {digest}, allowed is {meta['sha256']} as in its header")
    try:
        return load(raw), json.loads(meta["manifest"])
    except (SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise CacheError(f"{where} is damaged ({error}), allowed is a file written by save") from error


def _sealed(raw: bytes, old: str, new: str) -> bytes:
    """The file with another hash in its header; quotes inside the manifest are escaped, so there is only one place."""
    before, after = (f'"sha256":"{text}"'.encode(errors="replace") for text in (old, new))
    return raw.replace(before, after, 1)


def _digest(raw: bytes, written: str) -> str:
    """SHA-256 of a whole file but for the hash that is written in it: not a byte of header or data may change."""
    return hashlib.sha256(_sealed(raw, written, _UNSEALED)).hexdigest()


def _header(raw: bytes, where: str, schema: str) -> dict[str, str]:
    """The metadata of a sealed file."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise CacheError(f"{where} is {len(raw)} bytes long, allowed is {length + 8} or more: it is truncated")
    try:
        meta = json.loads(raw[8 : 8 + length].decode())["__metadata__"]
        found = {str(k): str(v) for k, v in meta.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"{where} is damaged ({error}), allowed is a file written by save") from error
    if found.get("schema") != schema:
        raise CacheError(f"{where}: schema is {found.get('schema')!r}, allowed is {schema!r}")
    if sorted(found) != ["manifest", "schema", "sha256"]:
        raise CacheError(f"{where}: the header holds {sorted(found)}, allowed are manifest, schema, sha256")
    return found
