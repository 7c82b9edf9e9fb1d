"""Tensors of the Open Inference Protocol: from JSON or from bytes behind it, and back."""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from offramp.experiments.service.bodies import INT32, brief, read
from offramp.experiments.service.refused import Refused

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
Array = npt.NDArray[Any]
Size = Annotated[int, Field(ge=0, le=INT32)]
Scalar = bool | int | float | str | None
Parameters = dict[str, bool | int | float | str]


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class InputTensor(_Loose):
    """A tensor: its values in `data`, row by row, or behind the JSON (then `binary_data_size` says how many bytes)."""

    name: str
    shape: list[Size] = Field(min_length=1, max_length=2)
    datatype: Literal["BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES"]
    parameters: Parameters = {}
    data: list[Scalar | list[Scalar]] | None = None


class OutputAsked(_Loose):
    """An output that is asked for, and how."""

    name: str
    parameters: Parameters = {}


class InferRequest(_Loose):
    """An inference request."""

    id: str = ""
    parameters: Parameters = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=16)
    outputs: list[OutputAsked] = Field(default=[], max_length=16)


class OutputTensor(_Loose):
    """A tensor of an answer; null in `data` = not finite."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: list[Scalar] | None = None


class InferResponse(_Loose):
    """An answer to an inference request."""

    model_name: str
    id: str
    outputs: list[OutputTensor]


def parse(body: bytes, header_length: int | None) -> tuple[InferRequest, dict[str, Array]]:
    """The request and its tensors.

    Raises
    ------
    Refused
        What is written there does not fit together (422), or is no JSON (400).

    """
    size = len(body) if header_length is None else header_length
    if not 0 <= size <= len(body):
        raise Refused(400, f"Inference-Header-Content-Length is {size}, allowed is 0..{len(body)}")
    request: InferRequest = read(InferRequest, body[:size])
    tensors: dict[str, Array] = {}
    at = size
    for tensor in request.inputs:
        count = math.prod(tensor.shape)
        if count > len(body):
            raise Refused(422, f"{tensor.name}: shape is {tensor.shape}, allowed is what the request can hold")
        binary = tensor.parameters.get("binary_data_size")
        if binary is None:
            values = _from_json(tensor, count)
        elif isinstance(binary, bool) or not isinstance(binary, int) or not 0 <= binary <= len(body) - at:
            raise Refused(422, f"{tensor.name}: binary_data_size is {binary!r}, {len(body) - at} bytes are left")
        else:
            values = _from_bytes(tensor, body[at : at + binary], count)
            at += binary
        tensors[tensor.name] = values.reshape(tensor.shape)
    if at != len(body):
        raise Refused(422, f"{len(body) - at} bytes follow the last tensor, allowed are none")
    return request, tensors


def _from_json(tensor: InputTensor, count: int) -> Array:
    flat = [v for row in tensor.data or [] for v in (row if isinstance(row, list) else [row])]
    if len(flat) != count:
        raise Refused(422, f"{tensor.name}: data holds {len(flat)} values, shape {tensor.shape} allows {count}")
    kind = tensor.datatype
    fits = {"BOOL": (bool,), "BYTES": (str,), "INT32": (int,), "INT64": (int,)}.get(kind, (int, float, type(None)))
    for value in flat:
        if not isinstance(value, fits) or (isinstance(value, bool) and kind != "BOOL"):
            raise Refused(422, f"{tensor.name}: data holds {brief(value)}, allowed is what {kind} can hold")
    if kind == "BYTES":
        return np.array([str(v).encode() for v in flat], dtype=np.object_)
    try:
        return np.array([math.nan if v is None else v for v in flat], dtype=DTYPES[kind])
    except OverflowError:
        raise Refused(422, f"{tensor.name}: data holds a number that is too large for {kind}") from None


def _from_bytes(tensor: InputTensor, raw: bytes, count: int) -> Array:
    if tensor.datatype == "BYTES":
        strings = list(_strings(raw))
        if len(strings) != count:
            raise Refused(422, f"{tensor.name}: {len(strings)} strings, shape {tensor.shape} allows {count}")
        return np.array([*strings, None], dtype=np.object_)[:-1]
    dtype = np.dtype(DTYPES[tensor.datatype]).newbyteorder("<")
    if len(raw) != count * dtype.itemsize:
        raise Refused(422, f"{tensor.name}: {len(raw)} bytes, shape {tensor.shape} allows {count * dtype.itemsize}")
    if tensor.datatype == "BOOL" and raw.translate(None, b"\x00\x01"):
        raise Refused(422, f"{tensor.name}: a byte is neither 0 nor 1")
    return np.frombuffer(raw, dtype=dtype)


def _strings(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        end = at + 4 + (struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else len(raw))
        if end > len(raw):
            raise Refused(422, f"a string ends {end - len(raw)} bytes behind its tensor")
        yield raw[at + 4 : end]
        at = end


def compose(
    request: InferRequest, model: str, outputs: Mapping[str, tuple[str, Array]]
) -> tuple[dict[str, Any], list[bytes]]:
    """The answer's JSON, and the tensors that follow it as bytes where that was asked for.

    Raises
    ------
    Refused
        An output is asked for that there is not (422).

    """
    wanted = request.outputs or [OutputAsked(name=name) for name in outputs]
    whole = request.parameters.get("binary_data_output", False)
    told: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for one in wanted:
        if one.name not in outputs:
            raise Refused(422, f"output {one.name[:64]!r} is asked for, allowed are {list(outputs)}")
        datatype, values = outputs[one.name]
        described: dict[str, Any] = {"name": one.name, "shape": list(values.shape), "datatype": datatype}
        if one.parameters.get("binary_data", whole) is True:
            raw = _to_bytes(datatype, values)
            described["parameters"] = {"binary_data_size": len(raw)}
            behind.append(raw)
        else:
            described["data"] = _to_json(datatype, values.ravel().tolist())
        told.append(described)
    return {"model_name": model, "id": request.id, "outputs": told}, behind


def _to_bytes(datatype: str, values: Array) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in values.ravel().tolist())
    return values.astype(np.dtype(DTYPES[datatype]).newbyteorder("<")).tobytes()


def _to_json(datatype: str, values: Sequence[Any]) -> list[Any]:
    if datatype == "BYTES":
        return [v.decode() for v in values]
    return [None if isinstance(v, float) and not math.isfinite(v) else v for v in values]
