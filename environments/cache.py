"""The confidence cache: what every exit says about every sample under every condition, checked to the last bit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.bandits import sealed
from offramp.bandits.costs import Profile as Profile
from offramp.environments import checked, compact
from offramp.environments.checked import CacheError as CacheError
from offramp.environments.temperature import tempered

SCHEMA = "offramp-cache-2"
SPLITS = ("validation", "test")
CALIBRATIONS = ("raw", "global", "exit", "expert_exit")
HERE = Path(__file__).parent
_TENSORS = {"confidence": np.float32, "prediction": np.int16, "label": np.int16, "sample": np.int64, "split": np.int8}
_WIDE = ("confidence",)  # float32 in a file, float64 in a cache
_OPTIONAL = {"spread": np.uint8, "router": np.float16}
_MANIFEST = ("calibrations", "conditions", "experts", "exits", "classes", "profile", "hashes", "notes")


@dataclass(frozen=True)
class Condition:
    """How the images of one condition were distorted: a name, a family, and the family's parameters."""

    name: str
    family: str
    parameters: Mapping[str, float | str] = field(default_factory=dict)


def rows_of(split: str, of: npt.NDArray[np.int8], where: str) -> npt.NDArray[np.bool_]:
    """Which samples belong to a split of the data, given the number of each one's split, (N,).

    Raises
    ------
    CacheError
        No split has this name, or none of the samples is of it.

    """
    if split not in SPLITS:
        raise CacheError(f"split is {split!r}, allowed are {SPLITS}")
    keep: npt.NDArray[np.bool_] = of == SPLITS.index(split)
    if not keep.any():
        raise CacheError(f"split {split!r} is empty in {where}")
    return keep


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
    spread
        With the confidence it stands for the logits at any temperature, (S, E, N, L) uint8, see
        `offramp.environments.temperature`; None where it was not kept.
    router
        The router's probability of each expert, (S, N, E) in [0, 1], each row summing to 1; None without a router.
    calibrations
        Temperatures (E, L) > 0 by name, fitted on validation samples: "global" (one for all), "exit" (one for each
        exit, whichever expert is asked), "expert_exit".

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
    spread: npt.NDArray[np.uint8] | None = None
    router: npt.NDArray[np.float64] | None = None
    calibrations: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

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
        spread: npt.ArrayLike | None = None,
        router: npt.ArrayLike | None = None,
        calibrations: Mapping[str, npt.ArrayLike] | None = None,
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
        c = checked.array("confidence", confidence, np.float32)
        p = checked.array("prediction", prediction, np.int16)
        y = checked.array("label", label, np.int16)
        w = None if spread is None else checked.array("spread", spread, np.uint8)
        if c.ndim == 3 and p.ndim == 3 and len(experts) == 1:
            c, p, w = c[:, None], p[:, None], w if w is None else w[:, None]
        if c.ndim != 4:
            raise CacheError(f"confidence has shape {c.shape}, allowed is (conditions, experts, samples, exits)")
        if y.ndim != 1:
            raise CacheError(f"label has shape {y.shape}, allowed is (samples,)")
        n, exit_count = c.shape[2:]
        made = cls(
            confidence=np.ascontiguousarray(c, dtype=np.float64),
            prediction=p,
            label=y,
            sample=np.arange(n) if sample is None else checked.array("sample", sample, np.int64),
            split=np.ones(n, dtype=np.int8) if split is None else checked.array("split", split, np.int8),
            conditions=tuple(x if isinstance(x, Condition) else Condition(x, x) for x in conditions),
            experts=tuple(experts),
            exits=tuple(f"exit {i + 1}" for i in range(exit_count)) if exits is None else tuple(exits),
            classes=int(max(p.max(initial=0), y.max(initial=0))) + 1 if classes is None else classes,
            profile=profile,
            hashes=dict(hashes or {}),
            notes=dict(notes or {}),
            spread=w,
            router=None if router is None else checked.array("router", router, np.float64),
            calibrations={k: checked.numbers(f"calibrations[{k!r}]", v) for k, v in (calibrations or {}).items()},
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
        if not isinstance(self.classes, int) or not 1 <= self.classes <= 32_767:
            raise CacheError(f"classes is {self.classes!r}, allowed is a whole number in 1..32767")
        checked.within("prediction", self.prediction, 0, self.classes - 1)
        checked.within("label", self.label, 0, self.classes - 1)
        checked.within("sample", self.sample, 0, 2**53)
        checked.within("split", self.split, 0, len(SPLITS) - 1)
        for axis, names in (
            ("conditions", [c.name for c in self.conditions]),
            ("experts", self.experts),
            ("exits", self.exits),
        ):
            if len(set(names)) != len(names):
                raise CacheError(f"{axis} are {list(names)}, allowed are names that differ")
        if self.profile is not None and self.profile.exits != shape[3]:
            raise CacheError(f"profile speaks of {self.profile.exits} exits, allowed is {shape[3]} as in confidence")
        self._check_router_and_calibrations(shape)

    def _check_router_and_calibrations(self, shape: tuple[int, ...]) -> None:
        if self.spread is not None and self.spread.shape != shape:
            raise CacheError(f"spread has shape {self.spread.shape}, allowed is {shape} as confidence")
        if self.router is not None:
            wanted = (shape[0], shape[2], shape[1])
            if self.router.shape != wanted:
                raise CacheError(f"router has shape {self.router.shape}, allowed is {wanted}: condition, label, expert")
            total = self.router.sum(axis=2)
            checked.refuse("router's sum over the experts", total, ~(np.abs(total - 1.0) < 0.02), "1 to within .02")
        for name, temperature in self.calibrations.items():
            if name not in CALIBRATIONS[1:]:
                raise CacheError(f"calibrations name {name!r}, allowed are {CALIBRATIONS[1:]}")
            if temperature.shape != (shape[1], shape[3]):
                raise CacheError(f"calibrations[{name!r}] has shape {temperature.shape}, allowed is {shape[1::2]}")
            bad = ~((temperature > 0.0) & (temperature < np.inf))
            checked.refuse(f"calibrations[{name!r}]", temperature, bad, "a finite temperature > 0")
        if self.calibrations and self.spread is None:
            raise CacheError("calibrations are given without the spread, allowed are both: temperatures need it")

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
        return self.select(rows_of(split, self.split, "this cache"))

    def select(self, keep: npt.NDArray[Any]) -> "ConfidenceCache":
        """The samples that an index or a mask picks, in its order."""
        return replace(
            self,
            confidence=np.ascontiguousarray(self.confidence[:, :, keep]),
            prediction=np.ascontiguousarray(self.prediction[:, :, keep]),
            label=self.label[keep],
            sample=self.sample[keep],
            split=self.split[keep],
            spread=None if self.spread is None else np.ascontiguousarray(self.spread[:, :, keep]),
            router=None if self.router is None else np.ascontiguousarray(self.router[:, keep]),
        )

    def calibrated(self, calibration: str) -> "ConfidenceCache":
        """The same cache with its confidences at the temperatures of a calibration, or as they are for "raw".

        Raises
        ------
        CacheError
            This cache does not hold the calibration.

        """
        if calibration == "raw":
            return self
        if calibration not in self.calibrations or self.spread is None:
            allowed = ("raw", *self.calibrations)
            raise CacheError(f"calibration is {calibration!r}, allowed in this cache are {allowed}")
        at = self.calibrations[calibration][None, :, None, :]
        confidence = tempered(self.confidence, self.spread, at, self.classes)
        # The spread belongs to the confidence at temperature 1: it would be wrong beside these.
        return replace(self, confidence=confidence, spread=None, calibrations={})

    @property
    def manifest(self) -> dict[str, Any]:
        """All but the arrays, as JSON can hold it."""
        return {
            "conditions": [asdict(c) for c in self.conditions],
            "experts": self.experts,
            "exits": self.exits,
            "classes": self.classes,
            "profile": None if self.profile is None else asdict(self.profile),
            "hashes": dict(self.hashes),
            "notes": dict(self.notes),
            "calibrations": {name: t.tolist() for name, t in self.calibrations.items()},
        }

    def save(self, path: str | Path, *, small: bool = False) -> None:
        """Write the cache: the file is the old one or the whole new one, never a part.

        Parameters
        ----------
        path
            Where to.
        small
            Pack each confidence and prediction into 2 bytes (4 above 16 classes) in place of 6, and each of the
            router's probabilities into 1 in place of 2: confidences then lose up to 3.7e-4 (see
            `offramp.environments.compact`), probabilities up to .002.

        """
        kinds: dict[str, Any] = {n: k for n, k in (_TENSORS | _OPTIONAL).items() if getattr(self, n) is not None}
        tensors = {name: np.asarray(getattr(self, name), dtype=kind) for name, kind in kinds.items()}
        if small:
            if self.router is not None:
                tensors["router"] = np.rint(255.0 * self.router).astype(np.uint8)
            tensors["answer"] = compact.encode(self.confidence, tensors.pop("prediction"), self.classes)
            del tensors["confidence"]
        sealed.write(path, tensors, self.manifest, SCHEMA)

    @classmethod
    def load(cls, path: str | Path) -> "ConfidenceCache":
        """Read a cache and check all of it.

        Raises
        ------
        CacheError
            The file is missing, truncated, altered, of an unknown schema, or holds what no cache may hold.

        """
        return cls._of_file(*sealed.load(path, SCHEMA, wide=_WIDE), f"file {path}")

    @classmethod
    def _parse(cls, raw: bytes, where: str) -> "ConfidenceCache":
        return cls._of_file(*sealed.parse(raw, where, SCHEMA, wide=_WIDE), where)

    @classmethod
    def _of_file(cls, tensors: sealed.Tensors, manifest: Any, where: str) -> "ConfidenceCache":
        found = sorted(manifest) if isinstance(manifest, dict) else type(manifest).__name__
        if found != sorted(_MANIFEST):
            raise CacheError(f"{where}: the manifest holds {found}, allowed are {sorted(_MANIFEST)}")
        try:
            made = cls(**_unpacked(tensors, manifest["classes"], where), **_listed(**manifest))
            made._check()
        except CacheError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise CacheError(f"{where}: the manifest cannot be used ({error})") from error
        return made

    @classmethod
    def embedded(cls, name: str) -> "ConfidenceCache":
        """One of the caches that ship with the package."""
        shipped = sorted(p.stem for p in HERE.glob("*.safetensors") if "." not in p.stem)
        if name not in shipped:
            raise CacheError(f"embedded cache {name!r} does not exist, allowed are {shipped}")
        return cls.load(HERE / f"{name}.safetensors")


def _unpacked(tensors: dict[str, Any], classes: Any, where: str) -> dict[str, Any]:
    """The arrays of a cache, from those of a file, whichever way it keeps confidences and predictions."""
    kinds: dict[str, Any] = {k: v for k, v in (_TENSORS | _OPTIONAL).items() if k in tensors or k in _TENSORS}
    if "answer" in tensors:
        if not isinstance(classes, int) or not 1 <= classes <= 32_767:
            raise CacheError(f"classes is {classes!r}, allowed is a whole number in 1..32767")
        kinds = {k: v for k, v in kinds.items() if k not in ("confidence", "prediction")}
        kinds["answer"] = compact.layout_type(classes)
        if "router" in kinds:
            kinds["router"] = np.uint8
    kinds |= {name: np.float64 for name in _WIDE if name in kinds}
    for name, kind in kinds.items():
        if name not in tensors or tensors[name].dtype != kind:
            found = tensors[name].dtype if name in tensors else "missing"
            raise CacheError(f"{where}: {name} is {found}, allowed is an array of {np.dtype(kind)}")
    if len(tensors) != len(kinds):
        raise CacheError(f"{where} holds {sorted(tensors)}, allowed are {sorted(kinds)}")
    if "answer" in tensors:
        tensors["confidence"], tensors["prediction"] = compact.decode(tensors.pop("answer"), classes, rounded=True)
        if "router" in tensors:
            tensors["router"] = tensors["router"] / 255.0
    else:
        checked.within("confidence", tensors["confidence"], 0.0, 1.0)
    if "router" in tensors:
        tensors["router"] = tensors["router"].astype(np.float64)
        checked.within("router", tensors["router"], 0.0, 1.0)
    return tensors


def _listed(
    *, profile: Any, conditions: Any, experts: Any, exits: Any, calibrations: Any, **rest: Any
) -> dict[str, Any]:
    """What a manifest says, as a cache holds it."""
    return {
        "profile": None if profile is None else Profile(**profile),
        "conditions": tuple(Condition(**c) for c in conditions),
        "experts": tuple(experts),
        "exits": tuple(exits),
        "calibrations": {k: checked.numbers(f"calibrations[{k!r}]", v) for k, v in (calibrations or {}).items()},
        "hashes": dict(rest.pop("hashes") or {}),
        "notes": dict(rest.pop("notes") or {}),
        **rest,
    }
