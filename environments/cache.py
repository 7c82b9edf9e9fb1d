"""The confidence cache: what every exit says about every sample under every condition, checked to the last bit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from offramp.bandits.costs import Profile as Profile

SCHEMA = "offramp-cache-1"
SPLITS = ("validation", "test")
HERE = Path(__file__).parent
_TENSORS = {"confidence": np.float32, "prediction": np.int16, "label": np.int16, "sample": np.int64, "split": np.int8}
_MANIFEST = ("conditions", "experts", "exits", "classes", "profile", "hashes", "notes")
_UNSEALED = "0" * 64  # stands where the file's own hash will stand, while that hash is taken


class CacheError(ValueError):
    """A cache cannot be built or read; the message names the field, the value and what is allowed."""


@dataclass(frozen=True)
class Condition:
    """How the images of one condition were distorted: a name, a family, and the family's parameters."""

    name: str
    family: str
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConfidenceCache:
    """Confidences and predictions of all exits; S conditions, E experts, N samples, L exits.

    Build one with `from_arrays`, `load` or `embedded`: they check what they are given.

    Parameters
    ----------
    confidence
        Largest class probability, (S, E, N, L) float64 in [0, 1].
    prediction
        Class, (S, E, N, L) int16 in 0..classes-1.
    label
        True class, (N,) int16.  For scoring alone: no policy ever sees it.
    sample
        Index of each sample in its published split, (N,) int64.
    split
        0 = validation, 1 = test, (N,) int8.
    conditions, experts, exits
        Names along the first, second and last axis.
    classes
        Number of classes.
    profile
        What the network asks of device and link; None where it was not measured.
    hashes
        SHA-256 of model and data.
    notes
        Whatever else a reader should know.

    """

    confidence: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.int16]
    label: npt.NDArray[np.int16]
    sample: npt.NDArray[np.int64]
    split: npt.NDArray[np.int8]
    conditions: tuple[Condition, ...]
    experts: tuple[str, ...]
    exits: tuple[str, ...]
    classes: int
    profile: Profile | None
    hashes: Mapping[str, str]
    notes: Mapping[str, Any]

    @classmethod
    def from_arrays(
        cls,
        *,
        confidence: npt.ArrayLike,
        prediction: npt.ArrayLike,
        label: npt.ArrayLike,
        conditions: Sequence[Condition | str],
        exits: Sequence[str] | None = None,
        experts: Sequence[str] = ("only",),
        classes: int | None = None,
        sample: npt.ArrayLike | None = None,
        split: npt.ArrayLike | None = None,
        profile: Profile | None = None,
        hashes: Mapping[str, str] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> "ConfidenceCache":
        """Build a cache from arrays of your own; see the class for shapes.  An axis of one expert may be left out.

        Raises
        ------
        CacheError
            At the first thing wrong.

        Examples
        --------
        >>> from offramp.environments import ConfidenceCache
        >>> cache = ConfidenceCache.from_arrays(
        ...     confidence=[[[0.6, 0.9], [0.8, 0.7]]],
        ...     prediction=[[[1, 0], [1, 1]]],
        ...     label=[0, 1],
        ...     conditions=["pristine"],
        ... )
        >>> cache.confidence.shape, cache.exits
        ((1, 1, 2, 2), ('exit 1', 'exit 2'))

        """
        c = _array("confidence", confidence, np.float32)
        p = _array("prediction", prediction, np.int16)
        y = _array("label", label, np.int16)
        if c.ndim == 3 and p.ndim == 3 and len(experts) == 1:
            c, p = c[:, None], p[:, None]
        if c.ndim != 4:
            raise CacheError(f"confidence has shape {c.shape}, allowed is (conditions, experts, samples, exits)")
        if y.ndim != 1:
            raise CacheError(f"label has shape {y.shape}, allowed is (samples,)")
        n, exit_count = c.shape[2:]
        made = cls(
            confidence=c.astype(np.float64),
            prediction=p,
            label=y,
            sample=np.arange(n) if sample is None else _array("sample", sample, np.int64),
            split=np.ones(n, dtype=np.int8) if split is None else _array("split", split, np.int8),
            conditions=tuple(x if isinstance(x, Condition) else Condition(x, x) for x in conditions),
            experts=tuple(experts),
            exits=tuple(f"exit {i + 1}" for i in range(exit_count)) if exits is None else tuple(exits),
            classes=int(max(p.max(initial=0), y.max(initial=0))) + 1 if classes is None else classes,
            profile=profile,
            hashes=dict(hashes or {}),
            notes=dict(notes or {}),
        )
        made._check()
        return made

    def _check(self) -> None:
        shape = (len(self.conditions), len(self.experts), len(self.label), len(self.exits))
        if min(shape) < 1:
            raise CacheError(f"confidence has shape {self.confidence.shape}, allowed is no axis of length 0")
        for name in ("confidence", "prediction"):
            if getattr(self, name).shape != shape:
                raise CacheError(
                    f"{name} has shape {getattr(self, name).shape}, allowed is {shape}: condition, expert, label, exit"
                )
        for name in ("label", "sample", "split"):
            if getattr(self, name).shape != (shape[2],):
                raise CacheError(f"{name} has shape {getattr(self, name).shape}, allowed is ({shape[2]},)")
        _range("confidence", self.confidence, 0.0, 1.0)
        if not isinstance(self.classes, int) or not 1 <= self.classes <= 32_767:
            raise CacheError(f"classes is {self.classes!r}, allowed is a whole number in 1..32767")
        _range("prediction", self.prediction, 0, self.classes - 1)
        _range("label", self.label, 0, self.classes - 1)
        _range("sample", self.sample, 0, 2**53)
        _range("split", self.split, 0, len(SPLITS) - 1)
        for axis, names in (
            ("conditions", [c.name for c in self.conditions]),
            ("experts", self.experts),
            ("exits", self.exits),
        ):
            if len(set(names)) != len(names):
                raise CacheError(f"{axis} are {list(names)}, allowed are names that differ")
        if self.profile is not None and self.profile.exits != shape[3]:
            raise CacheError(f"profile speaks of {self.profile.exits} exits, allowed is {shape[3]} as in confidence")

    def condition(self, name: str) -> int:
        """Index of a condition.

        Raises
        ------
        CacheError
            No condition has this name.

        """
        names = [c.name for c in self.conditions]
        if name not in names:
            raise CacheError(f"condition {name!r} is not in this cache, allowed are {names}")
        return names.index(name)

    def part(self, split: str) -> "ConfidenceCache":
        """The samples of one split, "validation" or "test"."""
        if split not in SPLITS:
            raise CacheError(f"split is {split!r}, allowed are {SPLITS}")
        keep = self.split == SPLITS.index(split)
        if not keep.any():
            raise CacheError(f"split {split!r} is empty in this cache")
        return self.select(keep)

    def select(self, keep: npt.NDArray[Any]) -> "ConfidenceCache":
        """The samples that an index or a mask picks, in its order."""
        return ConfidenceCache(
            **{
                **self.__dict__,
                "confidence": np.ascontiguousarray(self.confidence[:, :, keep]),
                "prediction": np.ascontiguousarray(self.prediction[:, :, keep]),
                "label": self.label[keep],
                "sample": self.sample[keep],
                "split": self.split[keep],
            }
        )

    def save(self, path: str | Path) -> None:
        """Write the cache: the file is the old one or the whole new one, never a part."""
        manifest = {
            "conditions": [asdict(c) for c in self.conditions],
            "experts": self.experts,
            "exits": self.exits,
            "classes": self.classes,
            "profile": None if self.profile is None else asdict(self.profile),
            "hashes": dict(self.hashes),
            "notes": dict(self.notes),
        }
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=kind) for name, kind in _TENSORS.items()}
        meta = {"schema": SCHEMA, "manifest": json.dumps(manifest, sort_keys=True), "sha256": _UNSEALED}
        raw = save(tensors, metadata=meta)
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(_sealed(raw, _UNSEALED, _digest(raw, _UNSEALED)))
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "ConfidenceCache":
        """Read a cache and check all of it.

        Raises
        ------
        CacheError
            The file is missing, truncated, altered, of an unknown schema, or holds what no cache may hold.

        """
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise CacheError(
                f"file {path} cannot be read ({error.strerror}), allowed is a file written by save"
            ) from error
        return cls._parse(raw, f"file {path}")

    @classmethod
    def embedded(cls, name: str) -> "ConfidenceCache":
        """One of the caches that ship with the package."""
        shipped = sorted(p.stem for p in HERE.glob("*.safetensors"))
        if name not in shipped:
            raise CacheError(f"embedded cache {name!r} does not exist, allowed are {shipped}")
        return cls.load(HERE / f"{name}.safetensors")

    @classmethod
    def _parse(cls, raw: bytes, where: str) -> "ConfidenceCache":
        meta = _header(raw, where)
        digest = _digest(raw, meta["sha256"])
        if meta["sha256"] != digest:
            raise CacheError(f"{where}: its sha256 is {digest}, allowed is {meta['sha256']} as in its header")
        try:
            tensors = load(raw)
        except (SafetensorError, KeyError, ValueError, OverflowError) as error:
            raise CacheError(f"{where} is damaged ({error}), allowed is a file written by save") from error
        for name, kind in _TENSORS.items():
            if name not in tensors or tensors[name].dtype != kind:
                found = tensors[name].dtype if name in tensors else "missing"
                raise CacheError(f"{where}: {name} is {found}, allowed is an array of {np.dtype(kind)}")
        if len(tensors) != len(_TENSORS):
            raise CacheError(f"{where} holds {sorted(tensors)}, allowed are {sorted(_TENSORS)}")
        try:
            manifest = json.loads(meta["manifest"])
            if sorted(manifest) != sorted(_MANIFEST):
                raise CacheError(f"{where}: the manifest holds {sorted(manifest)}, allowed are {sorted(_MANIFEST)}")
            profile = manifest["profile"]
            manifest["profile"] = None if profile is None else Profile(**profile)
            manifest["conditions"] = [Condition(**c) for c in manifest["conditions"]]
            return cls.from_arrays(**{**tensors, **manifest})
        except CacheError:
            raise
        except (TypeError, ValueError) as error:
            raise CacheError(f"{where}: the manifest cannot be used ({error})") from error


def _array(name: str, values: npt.ArrayLike, kind: type[np.generic]) -> npt.NDArray[Any]:
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise CacheError(f"{name} is ragged ({error}), allowed is an array of numbers") from error
    if found.dtype.kind not in "biuf":
        raise CacheError(f"{name} has type {found.dtype}, allowed is an array of numbers")
    if np.issubdtype(kind, np.integer):
        _refuse(name, found, ~np.isfinite(found) | (found != np.trunc(found)), "a whole number")
        limits = np.iinfo(kind)  # type: ignore[type-var]
        _range(name, found, limits.min, limits.max)
    else:
        _range(name, found, 0.0, 1.0)
    return found.astype(kind)


def _range(name: str, values: npt.NDArray[Any], low: float, high: float) -> None:
    _refuse(name, values, ~((values >= low) & (values <= high)), f"[{low}, {high}]")


def _refuse(name: str, values: npt.NDArray[Any], bad: npt.NDArray[np.bool_], allowed: str) -> None:
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise CacheError(f"{name}{list(at)} is {values[at]}, allowed is {allowed}")


def _sealed(raw: bytes, old: str, new: str) -> bytes:
    """The file with another hash in its header; quotes inside the manifest are escaped, so there is only one place."""
    before, after = (f'"sha256":"{text}"'.encode(errors="replace") for text in (old, new))
    return raw.replace(before, after, 1)


def _digest(raw: bytes, written: str) -> str:
    """SHA-256 of a whole file but for the hash that is written in it: not a byte of header or data may change."""
    return hashlib.sha256(_sealed(raw, written, _UNSEALED)).hexdigest()


def _header(raw: bytes, where: str) -> dict[str, str]:
    """The metadata of a safetensors file of ours."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > len(raw) - 8:
        raise CacheError(f"{where} is {len(raw)} bytes long, allowed is {length + 8} or more: it is truncated")
    try:
        meta = json.loads(raw[8 : 8 + length].decode())["__metadata__"]
        found = {str(k): str(v) for k, v in meta.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"{where} is damaged ({error}), allowed is a file written by save") from error
    if found.get("schema") != SCHEMA:
        raise CacheError(f"{where}: schema is {found.get('schema')!r}, allowed is {SCHEMA!r}")
    if sorted(found) != ["manifest", "schema", "sha256"]:
        raise CacheError(f"{where}: the header holds {sorted(found)}, allowed are manifest, schema, sha256")
    return found
