"""A confidence cache as others read data: pandas frames, an xarray dataset, a Parquet file."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.bandits.costs import Profile
from offramp.environments.cache import SPLITS, CacheError, Condition, ConfidenceCache

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

SCHEMA = "offramp-parquet-1"
META = b"offramp"
_CHANGING = ("condition", "expert", "sample", "split", "exit")


def frames(cache: ConfidenceCache, *, tidy: bool = True) -> Iterator["pd.DataFrame"]:
    """One frame for each condition in turn, so that a large cache never is in memory as rows.  See `frame`."""
    for condition in range(len(cache.conditions)):
        yield _frame(cache, condition, tidy)


def frame(cache: ConfidenceCache, *, conditions: Iterable[str] | None = None, tidy: bool = True) -> "pd.DataFrame":
    """A cache as a pandas frame.

    Parameters
    ----------
    cache
        S conditions, E experts, N samples, L exits.
    conditions
        Names of those wanted; None = all.
    tidy
        One row per (condition, expert, sample, exit), in this order; else one per (condition, expert, sample), with
        columns "confidence 1".."confidence L" and "prediction 1".."prediction L".

    Returns
    -------
    pandas.DataFrame
        Columns condition, expert, split (categories), sample (index in the published split), exit (1..L), confidence
        [0, 1], prediction; spread and router (the router's probability of this row's expert) where the cache has them.
        `scoring_label` and `scoring_correct` tell what no policy may see: they are for scoring alone.

    Raises
    ------
    CacheError
        The cache has no such condition.

    Examples
    --------
    >>> from offramp.environments import ConfidenceCache
    >>> from offramp.environments.views import frame
    >>> cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    >>> table = frame(cache, conditions=["pristine"])
    >>> len(table) == cache.confidence[0].size
    True
    >>> [str(name) for name in table][:5]
    ['condition', 'expert', 'sample', 'split', 'exit']

    """
    import pandas as pd

    wanted = range(len(cache.conditions)) if conditions is None else [cache.condition(name) for name in conditions]
    return pd.concat([_frame(cache, s, tidy) for s in wanted], ignore_index=True)


def _frame(cache: ConfidenceCache, s: int, tidy: bool) -> "pd.DataFrame":
    import pandas as pd

    if tidy:
        columns = dict(_columns(cache, s))
        names = {
            "condition": [c.name for c in cache.conditions],
            "expert": list(cache.experts),
            "split": list(SPLITS),
        }
        named = {k: pd.Categorical.from_codes(columns[k], categories=pd.Index(v)) for k, v in names.items()}
        return pd.DataFrame({**columns, **named})
    exits = range(len(cache.exits))
    first = _frame_of_first_exits(cache, s)
    each = {
        f"{name} {k + 1}": getattr(cache, name)[s, :, :, k].ravel()
        for name in ("confidence", "prediction")
        for k in exits
    }
    right = {f"scoring_correct {k + 1}": (cache.prediction[s, :, :, k] == cache.label).ravel() for k in exits}
    return pd.concat([first, pd.DataFrame({**each, **right})], axis=1)


def _frame_of_first_exits(cache: ConfidenceCache, s: int) -> "pd.DataFrame":
    """What rows of one sample have in common."""
    tidy = _frame(cache, s, True)
    kept = [name for name in (*_CHANGING[:-1], "router", "scoring_label") if name in tidy]
    return tidy.iloc[:: len(cache.exits)].reset_index(drop=True)[kept]


def _columns(cache: ConfidenceCache, s: int) -> Iterator[tuple[str, Any]]:
    """The rows of one condition, column by column; names as their codes."""
    shape = cache.confidence.shape[1:]
    expert, sample, depth = (np.broadcast_to(x, shape).ravel() for x in np.ogrid[tuple(slice(n) for n in shape)])
    yield "condition", np.full(expert.shape, s, dtype=np.int32)
    yield "expert", expert.astype(np.int32)
    yield "sample", cache.sample[sample]
    yield "split", cache.split[sample].astype(np.int32)
    yield "exit", (depth + 1).astype(np.int16)
    yield "confidence", cache.confidence[s].ravel()
    yield "prediction", cache.prediction[s].ravel()
    if cache.spread is not None:
        yield "spread", cache.spread[s].ravel()
    if cache.router is not None:
        yield "router", cache.router[s, sample, expert]
    yield "scoring_label", cache.label[sample]
    yield "scoring_correct", cache.prediction[s].ravel() == cache.label[sample]


def dataset(cache: ConfidenceCache) -> "xr.Dataset":
    """A cache as an xarray dataset over (condition, expert, sample, exit); arrays are shared, not copied.

    Confidence, prediction, spread and router are variables; `scoring_label` is for scoring alone.  Coordinates are the
    names, with each condition's family and each sample's split; attributes are the number of classes, the hashes, and
    profile, calibrations, parameters and notes as JSON text.

    Examples
    --------
    >>> from offramp.environments import ConfidenceCache
    >>> from offramp.environments.views import dataset
    >>> cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    >>> dict(dataset(cache).confidence.isel(condition=0, expert=0).sizes)
    {'sample': 10000, 'exit': 7}

    """
    import xarray as xr

    dims = ("condition", "expert", "sample", "exit")
    variables: dict[str, Any] = {"confidence": (dims, cache.confidence), "prediction": (dims, cache.prediction)}
    if cache.spread is not None:
        variables["spread"] = (dims, cache.spread)
    if cache.router is not None:
        variables["router"] = (("condition", "sample", "expert"), cache.router)
    variables["scoring_label"] = ("sample", cache.label)
    attributes = {"classes": cache.classes, **{f"hash_{name}": text for name, text in cache.hashes.items()}}
    manifest = cache.manifest
    attributes |= {name: json.dumps(manifest[name]) for name in ("profile", "calibrations", "conditions", "notes")}
    return xr.Dataset(
        variables,
        coords={
            "condition": [c.name for c in cache.conditions],
            "expert": list(cache.experts),
            "sample": cache.sample,
            "exit": list(cache.exits),
            "family": ("condition", [c.family for c in cache.conditions]),
            "split": ("sample", np.array(SPLITS)[cache.split]),
        },
        attrs=attributes,
    )


def write_parquet(cache: ConfidenceCache, path: str | Path) -> None:
    """Write the rows of `frame` as a Parquet file, one row group per condition; needs pyarrow.

    Confidences are float32, as in a cache's own file.  The file's metadata hold the manifest, under "offramp".  The
    file is the old one or the whole new one, never a part.  Unlike a cache's own file it carries no hash of itself.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = {META: json.dumps({"schema": SCHEMA, **cache.manifest}).encode()}
    names = {"condition": [c.name for c in cache.conditions], "expert": cache.experts, "split": SPLITS}
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    writer = None
    try:
        for s in range(len(cache.conditions)):
            columns = dict(_columns(cache, s))
            columns["confidence"] = columns["confidence"].astype(np.float32)
            arrays = {
                name: pa.DictionaryArray.from_arrays(pa.array(values), pa.array(list(names[name])))
                if name in names
                else pa.array(values)
                for name, values in columns.items()
            }
            table = pa.table(arrays).replace_schema_metadata(meta)
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=table.num_rows)
    finally:
        if writer is not None:
            writer.close()
    partial.replace(path)


def read_parquet(path: str | Path) -> ConfidenceCache:
    """Read what `write_parquet` wrote, with all the checks of a cache; needs pyarrow.

    Raises
    ------
    CacheError
        The file cannot be read, has no manifest, or its rows are not those of `frame` in their order.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(Path(path))
    except (OSError, pa.ArrowException) as error:
        raise CacheError(f"file {path} cannot be read ({error}), allowed is one that write_parquet wrote") from error
    try:
        said = json.loads((table.schema.metadata or {})[META])
        if said.pop("schema") != SCHEMA:
            raise ValueError("it has another schema")
        said["conditions"] = [Condition(**c) for c in said["conditions"]]
        said["profile"] = None if said["profile"] is None else Profile(**said["profile"])
        names = {"condition": [c.name for c in said["conditions"]], "expert": said["experts"], "split": SPLITS}
        columns = {n: table[n].combine_chunks() for n in table.column_names}
        values = {n: _codes(c, list(names[n])) if n in names else c.to_numpy(False) for n, c in columns.items()}
        exits = len(said["exits"])
        outer = (len(said["conditions"]), len(said["experts"]))
        shape = (*outer, table.num_rows // (outer[0] * outer[1] * exits), exits)
        cube = {n: v.reshape(shape) for n, v in values.items()}
        made = ConfidenceCache.from_arrays(
            confidence=cube["confidence"],
            prediction=cube["prediction"],
            spread=cube.get("spread"),
            router=cube["router"][..., 0].transpose(0, 2, 1) if "router" in cube else None,
            label=cube["scoring_label"][0, 0, :, 0],
            sample=cube["sample"][0, 0, :, 0],
            split=cube["split"][0, 0, :, 0],
            **said,
        )
    except CacheError as error:
        raise CacheError(f"file {path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, pa.ArrowException) as error:
        raise CacheError(f"file {path} is damaged ({error}), allowed is one that write_parquet wrote") from error
    for s in range(shape[0]):
        for name, expected in _columns(made, s):
            if name not in cube or not np.array_equal(cube[name][s].ravel(), expected):
                raise CacheError(
                    f"file {path}: {name} is not in the order of frame, allowed is what write_parquet wrote"
                )
    return made


def _codes(column: Any, names: list[str]) -> Any:
    """Places of a column's values among the names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column.dictionary_decode(), pa.array(names))
    if found.null_count:
        raise ValueError(f"names are not among {names}")
    return found.to_numpy(zero_copy_only=False)


__all__ = ["dataset", "frame", "frames", "read_parquet", "write_parquet"]
