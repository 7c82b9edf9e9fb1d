"""The routes of the Open Inference Protocol v2: two "models", decide and update, for clients that speak it already."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from offramp.bandits import Observation, Quote
from offramp.bandits.contract import ContractError
from offramp.experiments.service.bodies import brief
from offramp.experiments.service.refused import Refused
from offramp.experiments.service.routes import JSON, Routes
from offramp.experiments.service.settings import LARGEST
from offramp.experiments.service.tensors import Array, compose, parse

BYTES = "application/octet-stream"
LENGTH = "inference-header-content-length"
FLOATS, WHOLE = ("FP64", "FP32"), ("INT64", "INT32")
KINDS = {"f": FLOATS, "i": WHOLE, "b": ("BOOL",), "O": ("BYTES",)}
Columns = dict[str, tuple[str, int, bool]]  # name -> kind of numbers, width, must it be there?


class OpenInference:
    """What a client of an inference server finds here.

    Parameters
    ----------
    routes
        What decides and learns.
    exits, features, batch
        Of the service.
    version
        Of Offramp.

    """

    def __init__(self, routes: Routes, *, exits: int, features: int, batch: int, version: str) -> None:
        self._routes = routes
        self._exits = exits
        self._batch = batch
        self._version = version
        prices = ("f", exits + 1, True)
        decide: Columns = {"edge_cost": prices, "offload_cost": prices, "mu": ("f", 1, True)}
        if features:
            decide["context"] = ("f", features, True)
        update: Columns = {
            "token": ("O", 1, True),
            "confidence": ("f", exits, True),
            "answered_at": ("i", 1, True),
            "offloaded": ("b", 1, True),
            "audited": ("b", 1, False),
            "prediction": ("i", exits, False),
            "edge_cost": ("f", 1, False),
            "offload_cost": ("f", 1, False),
        }
        self._inputs = {"decide": decide, "update": update}
        self._outputs: dict[str, dict[str, tuple[str, int]]] = {
            "decide": {
                "token": ("BYTES", 1),
                "cut": ("INT64", 1),
                "thresholds": ("FP64", exits),
                "audit": ("BOOL", 1),
                "arm": ("INT64", 1),
                "p_action": ("FP64", 1),
                "p_reveal": ("FP64", 1),
            },
            "update": {"outcome": ("BYTES", 1)},
        }

    async def server(self, _: Request) -> Response:
        """GET /v2."""
        return _json({"name": "offramp", "version": self._version, "extensions": ["binary_tensor_data"]})

    async def live(self, _: Request) -> Response:
        """GET /v2/health/live."""
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """GET /v2/health/ready."""
        return _json({"ready": True})

    async def model(self, request: Request) -> Response:
        """GET /v2/models/{name}."""
        name = self._name(request)
        inputs = [
            {"name": n, "datatype": KINDS[kind][0], "shape": [-1, width]}
            for n, (kind, width, _) in self._inputs[name].items()
        ]
        outputs = [{"name": n, "datatype": d, "shape": [-1, w]} for n, (d, w) in self._outputs[name].items()]
        return _json({"name": name, "versions": ["1"], "platform": "offramp", "inputs": inputs, "outputs": outputs})

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/{name}/ready."""
        name = self._name(request)
        if name == "update" and not self._routes.link.up:
            raise Refused(503, "the learner is away", retry_after=1)
        return _json({"name": name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/{name}/infer."""
        name = self._name(request)
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        length = request.headers.get(LENGTH)
        if kind not in (JSON, BYTES) or "content-encoding" in request.headers:
            raise Refused(415, f"content-type is {kind[:64]!r}, allowed is {JSON!r} without an encoding")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 10):
            raise Refused(400, f"Inference-Header-Content-Length is {length[:64]!r}, allowed is a number of bytes")
        asked, tensors = parse(await request.body(), None if length is None else int(length))
        n = self._check(name, tensors)
        compose(asked, name, {k: (d, np.empty((0, w))) for k, (d, w) in self._outputs[name].items()})
        self._routes.charge(request, n)
        found = await (self._decide if name == "decide" else self._update)(tensors, asked.parameters, n)
        told, behind = compose(
            asked, name, {k: (d, found[k].reshape(n, w)) for k, (d, w) in self._outputs[name].items()}
        )
        text = to_json(told)
        if not behind:
            return Response(text, media_type=JSON)
        headers = {LENGTH: str(len(text)), "content-type": BYTES}
        return Response(b"".join((text, *behind)), headers=headers)

    def _name(self, request: Request) -> str:
        name = str(request.path_params["name"])
        if name not in self._inputs:
            raise Refused(404, f"model is {name[:64]!r}, allowed are {list(self._inputs)}")
        return name

    def _check(self, name: str, tensors: Mapping[str, Array]) -> int:
        """How many requests there are, if all tensors are there and of one length."""
        columns = self._inputs[name]
        for given in tensors:
            if given not in columns:
                raise Refused(422, f"input {given[:64]!r} is given, allowed are {list(columns)}")
        n = len(next(iter(tensors.values())))
        if not 1 <= n <= self._batch:
            raise Refused(422, f"the batch is of {n}, allowed is 1..{self._batch}")
        for column, (kind, width, needed) in columns.items():
            if column not in tensors:
                if needed:
                    raise Refused(422, f"input {column!r} is missing", field=column)
                continue
            values = tensors[column]
            if values.shape != (n, width) and not (width == 1 and values.shape == (n,)):
                shape = list(values.shape)
                raise Refused(422, f"{column}: shape is {shape}, allowed is [{n}, {width}]", field=column)
            if values.dtype.kind != kind:
                raise Refused(422, f"{column}: allowed are the datatypes {list(KINDS[kind])}", field=column)
            if kind == "f" and (np.abs(np.where(np.isfinite(values), values, 0.0)) > LARGEST).any():
                raise Refused(422, f"{column}: allowed are numbers up to {LARGEST:g}", field=column)
        return n

    async def _decide(self, tensors: Mapping[str, Array], parameters: Mapping[str, Any], n: int) -> dict[str, Array]:
        stream = parameters.get("stream", self._routes.decider.streams[0])
        if stream not in self._routes.decider.streams:
            raise Refused(422, f"stream is {brief(stream)}, allowed are {list(self._routes.decider.streams)}")
        edge, offload = (tensors[c].astype(np.float64) for c in ("edge_cost", "offload_cost"))
        mu = tensors["mu"].astype(np.float64).ravel()
        context = tensors["context"].astype(np.float64) if "context" in tensors else np.empty((n, 0))
        offload[np.isnan(offload)] = np.inf  # null in JSON
        try:
            quotes = [Quote(edge_cost=edge[i], offload_cost=offload[i], mu=mu[i]) for i in range(n)]
        except ContractError as error:
            raise Refused(422, str(error)) from None
        if not np.isfinite(context).all():
            raise Refused(422, "context holds a number that is not finite, allowed are finite ones", field="context")
        tickets = [self._routes.decided(q, c, stream) for q, c in zip(quotes, context, strict=True)]
        tokens = np.array([*(t.token.encode() for t in tickets), None], dtype=np.object_)[:-1]
        return {
            "token": tokens,
            "cut": np.array([t.cut for t in tickets]),
            "thresholds": np.maximum([t.thresholds for t in tickets], 0.0),
            "audit": np.array([t.audit for t in tickets]),
            "arm": np.array([t.arm for t in tickets]),
            "p_action": np.array([t.p_action for t in tickets]),
            "p_reveal": np.array([t.p_reveal for t in tickets]),
        }

    async def _update(self, tensors: Mapping[str, Array], _: Mapping[str, Any], n: int) -> dict[str, Array]:
        unknown = np.full(n, np.nan)
        guess = tensors.get("prediction", np.full((n, self._exits), -1))
        audited = tensors.get("audited", np.zeros(n, dtype=np.bool_)).ravel()
        edge, offload = (tensors.get(c, unknown).ravel() for c in ("edge_cost", "offload_cost"))
        if np.isinf(edge).any() or np.isinf(offload).any():
            raise Refused(422, "a cost as measured is infinite, allowed is a finite number, or nan", field="edge_cost")
        items = []
        for i in range(n):
            observation = Observation(
                confidence=tensors["confidence"][i],
                answered_at=int(tensors["answered_at"].ravel()[i]),
                offloaded=bool(tensors["offloaded"].ravel()[i]),
                audited=bool(audited[i]),
                prediction=guess[i],
                edge_cost=float(edge[i]),
                offload_cost=float(offload[i]),
            )
            token = tensors["token"].ravel()[i].decode("ascii", "replace")
            items.append((token, observation))
        outcomes = await self._routes.learnt(items)
        return {"outcome": np.array([*(str(o).encode() for o in outcomes), None], dtype=np.object_)[:-1]}


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content), media_type=JSON)
