"""A table of coarse logits beside a confidence cache: for whatever a confidence alone cannot tell."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits import sealed
from offramp.environments.cache import HERE, SPLITS, CacheError

SCHEMA = "offramp-logits-1"
STEP = 1 / 4  # nats from one code to the next
_KINDS = {"deflated": np.uint8, "label": np.int16, "sample": np.int64, "split": np.int8}
_MANIFEST = ("conditions", "experts", "hashes", "shape")


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitTable:
    """Logits of some samples relative to the largest of each answer, in steps of 1/4 down to -63.75.

    Parameters
    ----------
    codes
        Distance from the largest logit in steps, (S, E, n, L, K) uint8.
    label, sample, split
        As in the cache: true class, index in the published split, 0 = validation or 1 = test; (n,) each.
    conditions, experts
        Names along the first and second axis.
    hashes
        SHA-256 of model and data, as in the cache.

    """

    codes: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int16]
    sample: npt.NDArray[np.int64]
    split: npt.NDArray[np.int8]
    conditions: tuple[str, ...]
    experts: tuple[str, ...]
    hashes: Mapping[str, str]

    def __post_init__(self) -> None:
        for axis, names in (("conditions", self.conditions), ("experts", self.experts)):
            if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
                raise CacheError(f"{axis} are {list(names)}, allowed are names that differ")
        wanted = (len(self.conditions), len(self.experts), len(self.label))
        if self.codes.ndim != 5 or self.codes.shape[:3] != wanted:
            raise CacheError(f"codes have shape {self.codes.shape}, allowed is {wanted} and exits, classes")
        if self.sample.shape != self.label.shape or self.split.shape != self.label.shape:
            raise CacheError(
                f"sample and split have {self.sample.shape} and {self.split.shape}, allowed is {wanted[2:]}"
            )
        for field, values, top in (("label", self.label, self.codes.shape[-1] - 1), ("split", self.split, 1)):
            if values.ndim != 1 or ((values < 0) | (values > top)).any():
                raise CacheError(
                    f"{field} has shape {values.shape} and values outside 0..{top}, allowed is (n,) within"
                )
        if (self.codes.min(axis=-1) != 0).any():
            raise CacheError("codes of an answer lack a 0, allowed is one where its largest logit is")

    def of(self, condition: str, expert: str, split: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Logits (n, L, K), the largest of each answer being 0, and labels (n,) of one split's samples.

        Raises
        ------
        CacheError
            No condition, expert or split has this name.

        """
        for name, value, allowed in (
            ("condition", condition, self.conditions),
            ("expert", expert, self.experts),
            ("split", split, SPLITS),
        ):
            if value not in allowed:
                raise CacheError(f"{name} is {value!r}, allowed are {tuple(allowed)}")
        keep = self.split == SPLITS.index(split)
        codes = self.codes[self.conditions.index(condition), self.experts.index(expert), keep]
        return codes * -STEP, self.label[keep].astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write the table, deflated."""
        manifest = {
            "conditions": self.conditions,
            "experts": self.experts,
            "hashes": dict(self.hashes),
            "shape": self.codes.shape,
        }
        # Neighbouring exits are alike, and so are one class's codes over the samples: this order deflates best.
        changes = self.codes.copy()
        changes[:, :, :, 1:] -= self.codes[:, :, :, :-1]
        raw = np.ascontiguousarray(np.moveaxis(changes, 2, 4)).tobytes()
        packed = np.frombuffer(zlib.compress(raw, 9), dtype=np.uint8)
        tensors: dict[str, npt.NDArray[Any]] = {
            "deflated": packed,
            "label": self.label,
            "sample": self.sample,
            "split": self.split,
        }
        sealed.write(path, tensors, manifest, SCHEMA)

    @classmethod
    def load(cls, path: str | Path) -> "LogitTable":
        """Read a table and check all of it.

        Raises
        ------
        CacheError
            The file is missing, truncated, altered, or of an unknown schema.

        """
        tensors, manifest = sealed.parse(sealed.read(path), f"file {path}", SCHEMA)
        if not isinstance(manifest, dict):
            raise CacheError(f"file {path}: the manifest is {type(manifest).__name__}, allowed is what save writes")
        if sorted(tensors) != ["deflated", "label", "sample", "split"] or sorted(manifest) != sorted(_MANIFEST):
            raise CacheError(f"file {path} holds {sorted(tensors)} and {sorted(manifest)}, allowed is what save writes")
        for name, kind in _KINDS.items():
            if tensors[name].dtype != kind:
                raise CacheError(
                    f"file {path}: {name} is {tensors[name].dtype}, allowed is an array of {np.dtype(kind)}"
                )
        try:
            raw = zlib.decompress(tensors["deflated"].tobytes())
            s, e, n, exits, classes = manifest["shape"]
            if min(manifest["shape"]) < 1:
                raise ValueError(f"shape is {manifest['shape']}")
            changes = np.moveaxis(np.frombuffer(raw, dtype=np.uint8).reshape(s, e, exits, classes, n), 4, 2)
            codes = np.cumsum(changes, axis=3, dtype=np.uint8)
            names: dict[str, Any] = {k: tuple(manifest[k]) for k in ("conditions", "experts")}
            hashes = {str(k): str(v) for k, v in manifest["hashes"].items()}
        except (zlib.error, ValueError, TypeError, AttributeError) as error:
            raise CacheError(f"file {path} is damaged ({error}), allowed is a file written by save") from error
        rest: dict[str, Any] = {k: tensors[k] for k in ("label", "sample", "split")}
        return cls(codes=codes, hashes=hashes, **names, **rest)

    @classmethod
    def embedded(cls, name: str) -> "LogitTable":
        """The table beside one of the caches that ship with the package."""
        shipped = sorted(p.name.split(".")[0] for p in HERE.glob("*.logits.safetensors"))
        if name not in shipped:
            raise CacheError(f"embedded table of logits {name!r} does not exist, allowed are {shipped}")
        return cls.load(HERE / f"{name}.logits.safetensors")


def codes_of(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Codes of logits (..., K): the distance from the largest, in steps, at most 255."""
    if not np.isfinite(logits).all():
        raise CacheError("logits hold nan or infinity, allowed are finite numbers")
    gaps = logits.max(axis=-1, keepdims=True) - logits
    codes: npt.NDArray[np.uint8] = np.rint(np.minimum(gaps / STEP, 255.0)).astype(np.uint8)
    return codes
