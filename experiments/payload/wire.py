"""What is on the wire: bytes of every codec at every split, what it does to the last exit, and what coding takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from offramp.bandits.rows import FloatArray
from offramp.environments import ConfidenceCache
from offramp.environments.links import BYTES_PER_MS
from offramp.environments.payloads import PayloadTable

Rows = list[dict[str, Any]]
ALL = "all"


def families(cache: ConfidenceCache) -> dict[str, list[int]]:
    """Conditions by family, in their order, and all of them."""
    found: dict[str, list[int]] = {}
    for s, condition in enumerate(cache.conditions):
        found.setdefault(condition.family, []).append(s)
    return found | {ALL: list(range(len(cache.conditions)))}


def half_width(values: FloatArray) -> float:
    """Half of the 95 % interval of a mean over images."""
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


def wire_rows(cache: ConfidenceCache, table: PayloadTable) -> Rows:
    """One row for each variant and family: bytes, accuracy and confidence behind it, and their change by the codec.

    Intervals are over images, each averaged over the family's conditions first.
    """
    right = (cache.prediction[:, 0, :, -1] == cache.label).astype(np.float64)
    sure, rows = cache.confidence[:, 0, :, -1], []
    for v, (split, codec) in enumerate(zip(table.splits.tolist(), table.codecs, strict=True)):
        behind = (table.prediction[:, v] == cache.label).astype(np.float64)
        for family, at in families(cache).items():
            size, hit = table.bytes[at, v].mean(axis=0), behind[at].mean(axis=0)
            change, doubt = hit - right[at].mean(axis=0), (table.confidence[at, v] - sure[at]).mean(axis=0)
            rows.append(
                {
                    "split": split,
                    "codec": codec,
                    "family": family,
                    "bytes": float(size.mean()),
                    "bytes_half": half_width(size),
                    "accuracy": float(hit.mean()),
                    "accuracy_half": half_width(hit),
                    "accuracy_change": float(change.mean()),
                    "accuracy_change_half": half_width(change),
                    "confidence_change": float(doubt.mean()),
                    "confidence_change_half": half_width(doubt),
                    "encode_ms": float(table.encode_ms[v]),
                    "decode_ms": float(table.decode_ms[v]),
                }
            )
    return rows


def deflated(rows: Rows, factors: Sequence[float]) -> Rows:
    """What deflating buys: bytes saved, milliseconds more, and the rate below which it is worth them.

    The edge encodes so many times slower than the machine that measured; the cloud decodes at its speed.
    """
    by_name = {(r["split"], r["codec"], r["family"]): r for r in rows}
    found = []
    for (split, codec, family), row in by_name.items():
        plain = by_name.get((split, codec.removesuffix("_zlib"), family))
        if plain is None or plain is row:
            continue
        saved = plain["bytes"] - row["bytes"]
        found.append({"split": split, "codec": codec, "family": family, "share": saved / plain["bytes"], "rates": []})
        for factor in factors:
            more = factor * (row["encode_ms"] - plain["encode_ms"]) + row["decode_ms"] - plain["decode_ms"]
            rate = saved / more / BYTES_PER_MS if more > 0.0 else float("inf")
            found[-1]["rates"].append(max(rate, 0.0))
    return found
