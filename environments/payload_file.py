"""How a table of payloads lies on disk: what variants share is written once, what never varies as one number."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.environments import checked, compact
from offramp.environments.checked import CacheError

Tensors = dict[str, npt.NDArray[Any]]
MANIFEST = (
    "classes",
    "codecs",
    "conditions",
    "constant_bytes",
    "decode_ms",
    "encode_ms",
    "hashes",
    "notes",
    "spoken",
    "splits",
)
_ANSWERS = ("confidence", "prediction", "spread")


def pack(fields: Mapping[str, Any], *, small: bool) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and manifest of the fields of a `PayloadTable`; `small` packs confidence and prediction into one."""
    told = {k: fields[k] for k in _ANSWERS if fields[k] is not None}
    first = _first_of_each(told, len(fields["codecs"]))
    kept = sorted(set(first))
    sizes: npt.NDArray[np.uint32] = fields["bytes"]
    constant = [int(b[0, 0]) if (b == b[0, 0]).all() else None for b in sizes.transpose(1, 0, 2)]
    varied = sizes[:, [c is None for c in constant]]
    tensors: Tensors = {
        "bytes": varied.astype(np.uint16 if varied.max(initial=0) < 2**16 else np.uint32),
        "sample": fields["sample"],
        "split": fields["split_of_data"],
        **{k: values[:, kept] for k, values in told.items()},
    }
    if small:
        said = tensors.pop("confidence"), tensors.pop("prediction")
        tensors["answer"] = compact.encode(*said, fields["classes"])
    else:
        tensors["confidence"] = tensors["confidence"].astype(np.float32)
    manifest = {
        **{k: fields[k] for k in ("classes", "codecs", "conditions", "hashes", "notes")},
        **{k: fields[k].tolist() for k in ("decode_ms", "encode_ms", "splits")},
        "constant_bytes": constant,
        "spoken": [kept.index(v) for v in first],
    }
    return {k: v for k, v in tensors.items() if v.size}, manifest  # an array without elements cannot be written


def _first_of_each(told: Mapping[str, npt.NDArray[Any]], variants: int) -> list[int]:
    """For each variant the first one that has the same answers."""
    first: list[int] = []
    for v in range(variants):
        distinct = sorted(set(first))
        alike = (u for u in distinct if all(np.array_equal(a[:, u], a[:, v]) for a in told.values()))
        first.append(next(alike, v))
    return first


def unpack(tensors: Tensors, manifest: Any, where: str) -> dict[str, Any]:
    """Arguments for `PayloadTable.from_arrays`: what was written once is repeated for each variant that shares it.

    Raises
    ------
    CacheError
        Something is missing, too much, or of another type.  What is wrong within shows in `from_arrays`.

    """
    found = sorted(manifest) if isinstance(manifest, dict) else type(manifest).__name__
    if found != sorted(MANIFEST):
        raise CacheError(f"{where}: the manifest holds {found}, allowed are {sorted(MANIFEST)}")
    constant = manifest["constant_bytes"]
    told = _answers(tensors, manifest["classes"], None in constant, where)
    at = checked.array("spoken", manifest["spoken"], np.int64)
    if at.shape != (len(constant),) or at.min(initial=0) < 0:
        raise CacheError(f"{where}: spoken is {at.tolist()}, allowed is an index for each of {len(constant)} variants")
    told = {k: values[:, at] for k, values in told.items()}
    sizes = np.empty(told["confidence"].shape, dtype=np.uint32)
    varies = np.array([c is None for c in constant])
    if varies.any():
        wanted = (*sizes.shape[:1], int(varies.sum()), *sizes.shape[2:])
        if tensors["bytes"].shape != wanted:
            raise CacheError(f"{where}: bytes has shape {tensors['bytes'].shape}, allowed is {wanted}")
        sizes[:, varies] = tensors["bytes"]
    fixed = [c for c in constant if c is not None]
    if fixed:
        sizes[:, ~varies] = checked.array("constant_bytes", fixed, np.uint32)[:, None]
    given = {k: manifest[k] for k in MANIFEST if k not in ("constant_bytes", "spoken")}
    return {**given, **told, "bytes": sizes, "sample": tensors["sample"], "split_of_data": tensors["split"]}


def _answers(tensors: Tensors, classes: Any, varied: bool, where: str) -> Tensors:
    """Confidence, prediction and spread, however the file keeps them, once its types are as they must be."""
    if not isinstance(classes, int) or not 1 <= classes <= 32_767:
        raise CacheError(f"{where}: classes is {classes!r}, allowed is a whole number in 1..32767")
    kinds: dict[str, tuple[Any, ...]] = {"sample": (np.int64,), "split": (np.int8,)}
    if "answer" in tensors:
        kinds["answer"] = (compact.layout_type(classes),)
    else:
        kinds |= {"confidence": (np.float32,), "prediction": (np.int16,)}
    if "spread" in tensors:
        kinds["spread"] = (np.uint8,)
    if varied:
        kinds["bytes"] = (np.uint16, np.uint32)
    if sorted(tensors) != sorted(kinds):
        raise CacheError(f"{where} holds {sorted(tensors)}, allowed are {sorted(kinds)}")
    for name, allowed in kinds.items():
        if tensors[name].dtype not in allowed:
            words = " or ".join(str(np.dtype(kind)) for kind in allowed)
            raise CacheError(f"{where}: {name} is {tensors[name].dtype}, allowed is an array of {words}")
    told = {k: tensors[k] for k in _ANSWERS if k in tensors}
    if "answer" in tensors:
        told["confidence"], told["prediction"] = compact.decode(tensors["answer"], classes)
    if any(values.ndim != 3 for values in told.values()):
        raise CacheError(f"{where}: answers have {told['confidence'].ndim} axes, allowed are 3")
    return told
