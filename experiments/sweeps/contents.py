"""Digests of the files that a configuration names: recordings, profiles, caches, and the code of its own classes."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from offramp.experiments.playing import cache_part, ground

OURS = "offramp"
_seen: dict[str, str] = {}


@lru_cache(maxsize=64)
def _digest(path: str, size: int, written: int, number: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123  (hashed as often as its size, time or place are new)
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def file_digest(path: str | Path) -> str:
    """Digest of a file as it is now; where it is new to this process, what was made of the old one is forgotten.

    Raises
    ------
    OSError
        There is none, or it cannot be read.

    """
    real = os.path.realpath(path)
    now = os.stat(real)  # noqa: PTH116
    found = _digest(real, now.st_size, now.st_mtime_ns, now.st_ino)
    if _seen.setdefault(real, found) != found:
        cache_part.cache_clear()
        ground.cache_clear()
        _seen[real] = found
    return found


def texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a configuration with the key that it stands under."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from texts(part, str(key))
    elif isinstance(value, list):
        for part in value:
            yield from texts(part, name)
    elif isinstance(value, str):
        yield name, value


def module_of(target: str) -> str | None:
    """File of the module that a `_target_` names, without importing it; None where there is none but ours."""
    top, *rest = target.split(".")
    if top == OURS:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    found = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return str(found)
    for part in rest:
        folder = found.parent if found.name == "__init__.py" else None
        deeper = [] if folder is None else [folder / part / "__init__.py", folder / f"{part}.py"]
        there = next((path for path in deeper if path.is_file()), None)
        if there is None:
            break
        found = there
    return str(found)


def contents(config: Any) -> dict[str, str]:
    """What a configuration names -> digest of the file that it stands for.

    Notes
    -----
    Of code that is not of this package the file of the named module counts, not what that imports. A text that is
    the path of a file by chance counts as well: such a run is at worst played again.

    """
    found = {}
    for name, text in texts(config):
        path = module_of(text) if name == "_target_" else text
        if path is not None and os.path.isfile(path):  # noqa: PTH113  (of Path it raises where a text is too long)
            found[text] = file_digest(path)
    return dict(sorted(found.items()))
