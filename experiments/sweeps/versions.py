"""Which rows of a data set belong together: of each run the newest version alone, never two in one interval."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

WHERE = ["stream", "stream_config", "world", "world_config", "setting"]
WHO = ["policy", "policy_config"]
WHAT = [*WHO, *WHERE]
EXACT = 2**53  # up to which every whole number is a float


def canonical(value: Any) -> Any:
    """The same with whole floats as whole numbers: 1 and 1.0 configure the same."""
    if isinstance(value, Mapping):
        return {k: canonical(v) for k, v in value.items()}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value


def one_text(texts: "pd.Series[str]") -> "pd.Series[str]":
    """Texts of configurations, where those that mean the same are written as the last of them is."""
    means = {text: json.dumps(canonical(json.loads(text)), sort_keys=True) for text in texts.unique()}
    last = {means[text]: text for text in texts}
    return texts.map(lambda text: last[means[text]])


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows over the newest cache of each stream, world and setting; of each policy there those of the newest code.

    Parameters
    ----------
    frame
        Rows with `written`, `source`, `cache` and `files`, and the names and configurations of `WHAT`.

    Returns
    -------
    DataFrame
        Ordered by `written`. Policies over another cache are left out with it: they cannot be compared.

    """
    frame = frame.sort_values("written", kind="stable")
    frame = frame.assign(**{name: one_text(frame[name]) for name in ("stream_config", "world_config", "policy_config")})
    frame = frame.assign(setting=one_text(frame.setting))
    frame = frame[frame.cache == frame.groupby(WHERE).cache.transform("last")]
    version = frame.groupby(WHAT)[["source", "files"]].transform("last")
    return frame[(frame.source == version.source) & (frame.files == version.files)]
