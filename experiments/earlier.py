"""What programs and studies share: opening a cache and its payloads, its name, results that are there, safe writing."""

import json
import math
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from offramp.environments import ConfidenceCache
from offramp.environments.payloads import PayloadTable


def open_cache(name: str) -> ConfidenceCache:
    """An embedded cache by name, or a file by path."""
    return ConfidenceCache.load(name) if name.endswith(".safetensors") else ConfidenceCache.embedded(name)


def open_payloads(name: str) -> PayloadTable:
    """The table of payloads of a cache: embedded by the cache's name, or the file beside the cache's path."""
    if not name.endswith(".safetensors"):
        return PayloadTable.embedded(name)
    return PayloadTable.load(name.removesuffix(".safetensors") + ".payloads.safetensors")


def title(cache: ConfidenceCache, given: str) -> str:
    """What a cache is called in the results: its network, and the seed of its training unless that is 0 or said."""
    seed = cache.notes.get("seed", 0)
    name, suffix = str(cache.notes.get("network", Path(given).stem)), f"_seed{seed}" if seed else ""
    return name if name.endswith(suffix) else name + suffix


def earlier(path: Path) -> dict[str, Any]:
    """What an earlier run left in a result.json, {} where there is none.

    Raises
    ------
    ValueError
        The file is none that a study wrote.

    """
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}), allowed is what a study wrote; move it away") from error
    if not isinstance(kept, dict):
        raise ValueError(f"{path} holds {type(kept).__name__}, allowed is what a study wrote; move it away")
    return kept


def shortened(value: Any) -> Any:
    """The same with five digits after the point: more than any interval here resolves."""
    if isinstance(value, dict):
        return {k: shortened(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [shortened(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value


def significant(value: Any) -> Any:
    """The same with six significant digits, for numbers of very different sizes; what is no number is null."""
    if isinstance(value, dict):
        return {k: significant(v) for k, v in value.items()}
    if isinstance(value, list):
        return [significant(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write(path: Path, text: str) -> None:
    """Write a file: it is the old one or the whole new one, never a part."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # two processes shall not share it
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
