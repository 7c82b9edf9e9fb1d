"""Sealed files: safetensors with a JSON manifest and a hash over every byte, written whole or not at all."""

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

Tensors = dict[str, npt.NDArray[Any]]
_TYPES = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IUF" for size in (1, 2, 4, 8)} | {"BOOL": "?"}
PIECE = 1 << 20  # bytes that are read at once, and hashed and converted while they are near
_UNSEALED = "0" * 64  # stands where the file's own hash will stand, while that hash is taken


class _Source(Protocol):
    """What bytes are read from."""

    def readinto(self, room: memoryview, /) -> int | None:
        """Fill as much of the room as there is at once."""


class SealedError(ValueError):
    """What is kept in sealed files cannot be built or read; the message names field, value and what is allowed."""


def packed(tensors: Mapping[str, npt.NDArray[Any]], manifest: Mapping[str, Any], schema: str) -> bytes:
    """The bytes of a sealed file, for `parse`."""
    meta = {"schema": schema, "manifest": json.dumps(manifest, sort_keys=True), "sha256": _UNSEALED}
    # The library writes the memory as it lies, whatever the strides: another order would be read back as other values.
    raw = save({name: np.ascontiguousarray(values) for name, values in tensors.items()}, metadata=meta)
    return _sealed(raw, _UNSEALED, hashlib.sha256(raw).hexdigest())


def write(path: str | Path, tensors: Mapping[str, npt.NDArray[Any]], manifest: Mapping[str, Any], schema: str) -> None:
    """Write a sealed file: it is the old one or the whole new one, never a part."""
    replace(path, packed(tensors, manifest, schema))


def replace(path: str | Path, raw: bytes, *, lasting: bool = False) -> None:
    """Put bytes in the place of a file, whole or not at all.

    Parameters
    ----------
    path
        The file.
    raw
        What it is to hold.
    lasting
        Wait until the bytes are on the disk, so that this holds after a power loss as well.

    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(raw)
        if lasting:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)


def read(path: str | Path) -> bytes:
    """The bytes of a file, for `parse`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SealedError(
            f"file {path} cannot be read ({error.strerror}), allowed is a file written by save"
        ) from error


def load(path: str | Path, schema: str, *, wide: Collection[str] = ()) -> tuple[Tensors, Any]:
    """The tensors and the manifest of a file that `write` wrote, in one pass over it.

    Parameters
    ----------
    path
        Where it is.
    schema
        The only one allowed.
    wide
        Names of float32 tensors that are wanted as float64.

    Raises
    ------
    SealedError
        The file is missing, truncated, altered, or of another schema.

    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > 0:
                return _content(file, size, f"file {path}", schema, wide)
            raw = file.read()  # of what has no size beforehand, as a pipe
    except OSError as error:
        raise SealedError(
            f"file {path} cannot be read ({error.strerror}), allowed is a file written by save"
        ) from error
    return parse(raw, f"file {path}", schema, wide=wide)


def parse(raw: bytes, where: str, schema: str, *, wide: Collection[str] = ()) -> tuple[Tensors, Any]:
    """As `load`, of bytes that were read already."""
    return _content(BytesIO(raw), len(raw), where, schema, wide)


def _content(file: _Source, size: int, where: str, schema: str, wide: Collection[str]) -> tuple[Tensors, Any]:
    """Read everything, then give it out if the hash is right."""
    try:
        start = _filled(file, bytearray(min(8, size)))
        length = int.from_bytes(start, "little")
        if size < 8 or length > size - 8:
            raise SealedError(f"{where} is {size} bytes long, allowed is {length + 8} or more: it is truncated")
        raw = bytes(start + _filled(file, bytearray(length)))
        header, meta = _header(raw, where, schema)
        digest = hashlib.sha256(_sealed(raw, meta["sha256"], _UNSEALED))
        tensors = _tensors(file, header, size - len(raw), digest, wide)
        if meta["sha256"] != digest.hexdigest():
            said, found = meta["sha256"], digest.hexdigest()
            raise SealedError(f"{where}: its sha256 is {found}, allowed is {said} as in its header")
        return tensors, json.loads(meta["manifest"])
    except SealedError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SealedError(f"{where} is damaged ({error}), allowed is a file written by save") from error


def _tensors(file: _Source, header: dict[str, Any], size: int, digest: Any, wide: Collection[str]) -> Tensors:
    """The arrays behind the header, which must follow each other to the end of the file; all of it goes into a hash."""
    made, at, room = {}, 0, np.empty(PIECE, dtype=np.uint8)
    for name, spec in sorted(header.items(), key=lambda entry: tuple(entry[1]["data_offsets"])):
        kind, shape, (start, stop) = np.dtype(_TYPES[spec["dtype"]]), spec["shape"], spec["data_offsets"]
        count = math.prod(shape)
        if min(shape, default=0) < 0 or start != at or stop != at + count * kind.itemsize or stop > size:
            raise ValueError(f"{name} of shape {shape} is at {start}..{stop} of {size} bytes")
        if name in wide and kind != np.float32:
            raise ValueError(f"{name} is {kind}, allowed is an array of float32")
        values = np.empty(count, dtype=np.float64 if name in wide else kind)
        step = PIECE // kind.itemsize
        for first in range(0, count, step):
            part = values[first : first + step]
            piece = room[: len(part) * kind.itemsize]
            digest.update(_filled(file, piece.data))
            with np.errstate(invalid="ignore"):  # a damaged file may hold a nan that signals
                part[:] = piece.view(kind)
        made[name] = values.reshape(shape)
        at = stop
    if at != size:
        raise ValueError(f"{size - at} bytes follow the last array")
    return made


def _filled(file: _Source, room: Any) -> Any:
    """The room, filled from a file."""
    view, found = memoryview(room), 0
    while found < len(view):
        more = file.readinto(view[found:])
        if not more:
            raise ValueError(f"it ends {len(view) - found} bytes early")
        found += more
    return room


def _sealed(header: bytes, old: str, new: str) -> bytes:
    """The header with another hash in it; quotes inside the manifest are escaped, so there is only one place."""
    before, after = (f'"sha256":"{text}"'.encode(errors="replace") for text in (old, new))
    return header.replace(before, after, 1)


def _header(raw: bytes, where: str, schema: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What the header of a sealed file says of its arrays, and its metadata."""
    try:
        header = json.loads(raw[8:].decode())
        found = {str(k): str(v) for k, v in header.pop("__metadata__").items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SealedError(f"{where} is damaged ({error}), allowed is a file written by save") from error
    if found.get("schema") != schema:
        raise SealedError(f"{where}: schema is {found.get('schema')!r}, allowed is {schema!r}")
    if sorted(found) != ["manifest", "schema", "sha256"]:
        raise SealedError(f"{where}: the header holds {sorted(found)}, allowed are manifest, schema, sha256")
    return header, found
