"""What each wire codec makes of each sample: its bytes at every split, and what the cloud then answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits import sealed
from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import checked, payload_file
from offramp.environments.cache import HERE, SPLITS, CacheError, ConfidenceCache, rows_of
from offramp.environments.temperature import tempered

SCHEMA = "offramp-payloads-1"


@dataclass(frozen=True, eq=False, kw_only=True)
class PayloadTable:
    """Bytes and answers of V variants, one (split, codec) pair each; S conditions, N samples.

    Build one with `from_arrays`, `load` or `embedded`: they check what they are given.  `check` says whether it belongs
    to a cache.

    Parameters
    ----------
    codecs
        Codec of each variant, (V,) names.
    splits
        Where the network is split, (V,) in 0..L-1: 0 sends the input, i the feature map after exit i's segment.
    bytes
        Payload of each sample, frame and all, (S, V, N) uint32 >= 1.
    confidence, prediction
        What the last exit says when the cloud goes on from the decoded payload: (S, V, N) float64 in [0, 1] and int16
        in 0..classes-1.
    encode_ms, decode_ms
        Median milliseconds of coding one sample on the machine that made the table, (V,); 0 = not measured.
    conditions
        Names along the first axis, as in the cache.
    classes
        Number of classes.
    sample, split_of_data
        Index in the published split, int64, and 0 = validation or 1 = test, int8; (N,) each, as in the cache.
    hashes
        SHA-256 of model and data, as in the cache.
    notes
        Whatever else a reader should know.
    spread
        With the confidence it stands for the logits at any temperature, (S, V, N) uint8; None where it was not kept.

    """

    codecs: tuple[str, ...]
    splits: IntArray
    bytes: npt.NDArray[np.uint32]
    confidence: FloatArray
    prediction: npt.NDArray[np.int16]
    encode_ms: FloatArray
    decode_ms: FloatArray
    conditions: tuple[str, ...]
    classes: int
    sample: npt.NDArray[np.int64]
    split_of_data: npt.NDArray[np.int8]
    hashes: Mapping[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)
    spread: npt.NDArray[np.uint8] | None = None

    @classmethod
    def from_arrays(
        cls,
        *,
        codecs: Sequence[str],
        splits: npt.ArrayLike,
        bytes: npt.ArrayLike,
        confidence: npt.ArrayLike,
        prediction: npt.ArrayLike,
        conditions: Sequence[str],
        classes: int,
        sample: npt.ArrayLike | None = None,
        split_of_data: npt.ArrayLike | None = None,
        hashes: Mapping[str, str] | None = None,
        encode_ms: npt.ArrayLike | None = None,
        decode_ms: npt.ArrayLike | None = None,
        notes: Mapping[str, Any] | None = None,
        spread: npt.ArrayLike | None = None,
    ) -> "PayloadTable":
        """Build a table from arrays of your own; see the class for shapes.

        `sample` counts from 0 and `split_of_data` is all test where they are left out; times are then 0.

        Raises
        ------
        CacheError
            At the first thing wrong.

        Examples
        --------
        >>> from offramp.environments.payloads import PayloadTable
        >>> table = PayloadTable.from_arrays(
        ...     codecs=["raw", "jpeg_75", "float32"],
        ...     splits=[0, 0, 1],
        ...     bytes=[[[3084, 3084], [910, 1204], [16396, 16396]]],
        ...     confidence=[[[0.9, 0.8], [0.85, 0.8], [0.9, 0.8]]],
        ...     prediction=[[[1, 0], [1, 0], [1, 0]]],
        ...     conditions=["pristine"],
        ...     classes=2,
        ... )
        >>> table.mean_bytes
        array([[ 3084.,  1057., 16396.]])
        >>> table.variants(0).tolist(), table.variant(0, "jpeg_75")
        ([0, 1], 1)

        """
        said = checked.array("confidence", confidence, np.float32)  # rounded as in a cache
        if said.ndim != 3:
            raise CacheError(f"confidence has shape {said.shape}, allowed is (conditions, variants, samples)")
        variants, n = said.shape[1:]
        given = np.ones(n) if split_of_data is None else split_of_data
        made = cls(
            codecs=tuple(codecs),
            splits=checked.array("splits", splits, np.int64),
            bytes=checked.array("bytes", bytes, np.uint32),
            confidence=said.astype(np.float64),
            prediction=checked.array("prediction", prediction, np.int16),
            encode_ms=_times("encode_ms", encode_ms, variants),
            decode_ms=_times("decode_ms", decode_ms, variants),
            conditions=tuple(conditions),
            classes=classes,
            sample=np.arange(n) if sample is None else checked.array("sample", sample, np.int64),
            split_of_data=checked.array("split_of_data", given, np.int8),
            hashes=dict(hashes or {}),
            notes=dict(notes or {}),
            spread=None if spread is None else checked.array("spread", spread, np.uint8),
        )
        made._check()
        return made

    def _check(self) -> None:
        shape = (len(self.conditions), len(self.codecs), len(self.sample))
        if min(shape) < 1:
            raise CacheError(f"confidence has shape {self.confidence.shape}, allowed is no axis of length 0")
        if not isinstance(self.classes, int) or not 1 <= self.classes <= 32_767:
            raise CacheError(f"classes is {self.classes!r}, allowed is a whole number in 1..32767")
        arrays = {"confidence": shape, "prediction": shape, "bytes": shape, "splits": shape[1:2]}
        arrays |= {"encode_ms": shape[1:2], "decode_ms": shape[1:2], "sample": shape[2:], "split_of_data": shape[2:]}
        arrays |= {} if self.spread is None else {"spread": shape}
        for name, wanted in arrays.items():
            if getattr(self, name).shape != wanted:
                raise CacheError(f"{name} has shape {getattr(self, name).shape}, allowed is {wanted}")
        for name, low, high in (
            ("prediction", 0, self.classes - 1),
            ("bytes", 1, 2**32 - 1),
            ("splits", 0, 32_767),
            ("sample", 0, 2**53),
            ("split_of_data", 0, len(SPLITS) - 1),
        ):
            checked.within(name, getattr(self, name), low, high)
        for axis, names in (
            ("conditions", self.conditions),
            ("variants", tuple(zip(self.splits.tolist(), self.codecs, strict=True))),
        ):
            if len(set(names)) != len(names):
                raise CacheError(f"{axis} are {list(names)}, allowed are some that differ")
        if not all(isinstance(name, str) for name in (*self.conditions, *self.codecs)):
            raise CacheError(f"names are {[*self.conditions, *self.codecs]}, allowed are texts")

    def check(self, cache: ConfidenceCache) -> None:
        """Refuse a cache of another model, other data, or other samples.

        Raises
        ------
        CacheError
            Says what the table holds and what the cache holds.

        """
        told = {k: cache.hashes.get(k) for k in self.hashes}
        for name, value in self.hashes.items():
            if told[name] != value:
                raise CacheError(f"payloads: hash of {name} is {value}, allowed is {told[name]} as in the cache")
        if "model" in cache.hashes and "model" not in self.hashes:
            raise CacheError(f"payloads: no hash of the model, allowed is {cache.hashes['model']} as in the cache")
        if self.classes != cache.classes:
            raise CacheError(f"payloads: classes is {self.classes}, allowed is {cache.classes} as in the cache")
        names = tuple(c.name for c in cache.conditions)
        if self.conditions != names:
            raise CacheError(f"payloads: conditions are {self.conditions}, allowed are {names} as in the cache")
        if self.splits.max() >= len(cache.exits):
            raise CacheError(f"payloads: a split is {self.splits.max()}, allowed is 0..{len(cache.exits) - 1}")
        for name, mine, its in (
            ("sample", self.sample, cache.sample),
            ("split_of_data", self.split_of_data, cache.split),
        ):
            if len(mine) != len(its):
                raise CacheError(f"payloads: samples are {len(mine)}, allowed are {len(its)} as in the cache")
            if (mine != its).any():
                i = int(np.flatnonzero(mine != its)[0])
                raise CacheError(f"payloads: {name}[{i}] is {mine[i]}, allowed is {its[i]} as in the cache")

    def variants(self, split: int) -> IntArray:
        """Indices of the variants at a split, in their order."""
        return np.flatnonzero(self.splits == split)

    def variant(self, split: int, codec: str) -> int:
        """Index of one variant.

        Raises
        ------
        CacheError
            There is none.

        """
        found = [v for v in self.variants(split) if self.codecs[v] == codec]
        if not found:
            allowed = [(int(s), c) for s, c in zip(self.splits, self.codecs, strict=True)]
            raise CacheError(f"(split, codec) is {(split, codec)}, allowed are {allowed}")
        return int(found[0])

    @property
    def mean_bytes(self) -> FloatArray:
        """Mean payload over the samples, (S, V) bytes."""
        mean: FloatArray = self.bytes.mean(axis=2, dtype=np.float64)
        return mean

    def part(self, split: str) -> "PayloadTable":
        """The samples of one split of the data, "validation" or "test"."""
        return self.select(rows_of(split, self.split_of_data, "this table of payloads"))

    def select(self, keep: npt.NDArray[Any]) -> "PayloadTable":
        """The samples that an index or a mask picks, in its order."""
        return replace(
            self,
            bytes=np.ascontiguousarray(self.bytes[:, :, keep]),
            confidence=np.ascontiguousarray(self.confidence[:, :, keep]),
            prediction=np.ascontiguousarray(self.prediction[:, :, keep]),
            spread=None if self.spread is None else np.ascontiguousarray(self.spread[:, :, keep]),
            sample=self.sample[keep],
            split_of_data=self.split_of_data[keep],
        )

    def calibrated(self, temperature: float) -> "PayloadTable":
        """The same table with its confidences at the last exit's temperature, > 0, of a cache's calibration.

        Raises
        ------
        CacheError
            This table does not hold the spread.

        """
        if self.spread is None:
            raise CacheError("spread is missing in this table of payloads: without it no temperature can be applied")
        confidence = tempered(self.confidence, self.spread, temperature, self.classes)
        # The spread belongs to the confidence at temperature 1: it would be wrong beside these.
        return replace(self, confidence=confidence, spread=None)

    def save(self, path: str | Path, *, small: bool = False) -> None:
        """Write the table: answers that variants share are written once, a payload that never varies as one number.

        Parameters
        ----------
        path
            Where to.
        small
            Pack confidence and prediction as a small cache does (see `offramp.environments.compact`): the two then
            agree to the last bit where a codec loses nothing.

        """
        sealed.write(path, *payload_file.pack(vars(self), small=small), SCHEMA)

    @classmethod
    def load(cls, path: str | Path) -> "PayloadTable":
        """Read a table and check all of it.

        Raises
        ------
        CacheError
            The file is missing, truncated, altered, of an unknown schema, or holds what no table may hold.

        """
        where = f"file {path}"
        tensors, manifest = sealed.parse(sealed.read(path), where, SCHEMA)
        try:
            return cls.from_arrays(**payload_file.unpack(dict(tensors), manifest, where))
        except CacheError:
            raise
        except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            raise CacheError(f"{where} cannot be used ({error}), allowed is a file written by save") from error

    @classmethod
    def embedded(cls, name: str) -> "PayloadTable":
        """The table beside one of the caches that ship with the package."""
        shipped = sorted(p.name.split(".")[0] for p in HERE.glob("*.payloads.safetensors"))
        if name not in shipped:
            raise CacheError(f"embedded table of payloads {name!r} does not exist, allowed are {shipped}")
        return cls.load(HERE / f"{name}.payloads.safetensors")


def _times(name: str, values: npt.ArrayLike | None, variants: int) -> FloatArray:
    found = np.zeros(variants) if values is None else checked.numbers(name, values)
    checked.refuse(name, found, ~((found >= 0.0) & (found < np.inf)), "a finite number of milliseconds >= 0")
    return found
