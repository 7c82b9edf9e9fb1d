"""What the studies share: the name of a cache in their results, and the results that are there already."""

import json
from pathlib import Path
from typing import Any

from offramp.environments import ConfidenceCache


def title(cache: ConfidenceCache, given: str) -> str:
    """What a cache is called in the results: its network, and the seed of its training unless that is 0."""
    seed = cache.notes.get("seed", 0)
    return str(cache.notes.get("network", Path(given).stem)) + (f"_seed{seed}" if seed else "")


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
