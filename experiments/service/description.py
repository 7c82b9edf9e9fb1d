"""The service described for machines: OpenAPI 3.1."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from offramp.experiments.service.bodies import Answer, Bodies, Decided, DecidedMany, Health, Learnt, State
from offramp.experiments.service.tensors import InferRequest, InferResponse

WRONG = {
    400: "The request is malformed.",
    401: "The key is missing or wrong.",
    404: "There is nothing of this name.",
    405: "This path does not know the method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "A value is not allowed; nothing was learnt or decided.",
    429: "Too many items for now.",
    503: "The learner is away, or there are too many connections; the same request may be sent again.",
}
WAIT = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
POSTED = (400, 401, 405, 408, 413, 415, 422, 429, 503)
ASKED = (401, 405, 413, 429)
OPEN = (405,)
REF = "#/components/schemas/{model}"


def describe(bodies: Bodies, *, version: str, streams: tuple[str, ...], keyed: bool) -> dict[str, Any]:
    """The description of one service.

    Parameters
    ----------
    bodies
        Its request models.
    version
        Of Offramp.
    streams
        That it knows.
    keyed
        Does it ask for a key?

    """
    models = (*vars(bodies).values(), Decided, DecidedMany, Learnt, State, Health, Answer, InferRequest, InferResponse)
    # What is sent must keep to the schema of validation, and what is answered keeps to it as well.
    schemas = models_json_schema([(model, "validation") for model in models], ref_template=REF)[1]["$defs"]
    stream = {
        "name": "stream",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": list(streams), "default": streams[0]},
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": ["decide", "update"]}}
    paths = {
        "/v1/decide": {"post": _call("Decide on one request.", Decided, POSTED, body=bodies.decide)},
        "/v1/decide_many": {"post": _call("Decide on a batch.", DecidedMany, POSTED, body=bodies.decide_many)},
        "/v1/update": {
            "post": _call(
                "Learn from a batch, all of it or none. Each decision is learnt from once, however often it is sent.",
                Learnt,
                POSTED,
                body=bodies.update,
            )
        },
        "/v1/state": {"get": _call("What a stream has learnt.", State, (*ASKED, 404, 503), parameters=[stream])},
        "/metrics": {"get": _call("Counters in Prometheus's text form.", None, ASKED)},
        "/healthz": {"get": _call("Does the process answer?", Health, OPEN, open_to_all=True)},
        "/readyz": {"get": _call("Can it decide, and can it learn?", Health, OPEN, open_to_all=True)},
        "/v2": {"get": _call("Open Inference Protocol: the server.", {}, ASKED)},
        "/v2/health/live": {"get": _call("Open Inference Protocol: alive?", {}, OPEN, open_to_all=True)},
        "/v2/health/ready": {"get": _call("Open Inference Protocol: ready?", {}, OPEN, open_to_all=True)},
        "/v2/models/{name}": {"get": _call("The tensors of a model.", {}, (*ASKED, 404), parameters=[name])},
        "/v2/models/{name}/ready": {
            "get": _call("Is this model ready?", {}, (*ASKED, 404, 503), parameters=[name]),
        },
        "/v2/models/{name}/infer": {
            "post": _call(
                "Decide on, or learn from, a batch of tensors; tensors may follow the JSON as bytes.",
                InferResponse,
                (*POSTED, 404),
                body=InferRequest,
                parameters=[name],
            )
        },
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Offramp", "version": version, "description": "Split and threshold, request by request."},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if keyed:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _call(
    text: str,
    found: type[BaseModel] | dict[str, Any] | None,
    wrong: tuple[int, ...],
    *,
    body: type[BaseModel] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    open_to_all: bool = False,
) -> dict[str, Any]:
    content: dict[str, Any]
    if found is None:
        content = {"text/plain": {"schema": {"type": "string"}}}
    elif isinstance(found, dict):
        content = {"application/json": {"schema": {"type": "object"}}}
    else:
        content = {"application/json": {"schema": _ref(found)}}
    if found is InferResponse:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    answers: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in wrong:
        answers[str(status)] = {
            "description": WRONG[status],
            "content": {"application/json": {"schema": _ref(Answer)}},
            **({"headers": WAIT} if status in (429, 503) else {}),
        }
    call: dict[str, Any] = {"summary": text, "responses": answers}
    if body is not None:
        call["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    if parameters:
        call["parameters"] = parameters
    if open_to_all:
        call["security"] = []
    return call


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
