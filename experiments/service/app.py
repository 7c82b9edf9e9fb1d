"""The ASGI application of a worker: the guard, then the routes."""

from importlib.metadata import version

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from offramp.bandits.durable import Decider
from offramp.experiments.service.bodies import Answer, bodies
from offramp.experiments.service.description import describe
from offramp.experiments.service.guard import Guard, Rates
from offramp.experiments.service.link import Link
from offramp.experiments.service.manual import examples, page
from offramp.experiments.service.metrics import Metrics
from offramp.experiments.service.open_inference import OpenInference
from offramp.experiments.service.refused import REASONS, Refused
from offramp.experiments.service.routes import JSON, Routes
from offramp.experiments.service.settings import Settings, api_key

PATHS = (
    "/v1/decide",
    "/v1/decide_many",
    "/v1/update",
    "/v1/state",
    "/metrics",
    "/healthz",
    "/readyz",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/decide/infer",
    "/v2/models/update/infer",
)


def make_metrics(settings: Settings) -> Metrics:
    """The counters of a worker."""
    return Metrics(exits=settings.exits, routes=PATHS)


def make_app(settings: Settings, decider: Decider, link: Link, metrics: Metrics) -> ASGIApp:
    """The application of one worker.

    Parameters
    ----------
    settings
        Of the service.
    decider
        Decides on the newest board.
    link
        To the learner; whoever serves the application runs it.
    metrics
        As `make_metrics` makes them, once in a process.

    """
    key, streams = api_key(), tuple(settings.streams)
    made = bodies(exits=settings.exits, features=settings.features, streams=streams, batch=settings.batch)
    rates = Rates(rate=settings.rate, burst=settings.burst)
    own = Routes(decider=decider, link=link, bodies=made, rates=rates, metrics=metrics)
    v2 = OpenInference(
        own, exits=settings.exits, features=settings.features, batch=settings.batch, version=version("offramp")
    )
    routes = [
        Route("/v1/decide", own.decide, methods=["POST"]),
        Route("/v1/update", own.update, methods=["POST"]),
        Route("/v1/decide_many", own.decide_many, methods=["POST"]),
        Route("/v1/state", own.state, methods=["GET"]),
        Route("/healthz", own.alive, methods=["GET"]),
        Route("/readyz", own.ready, methods=["GET"]),
        Route("/metrics", own.numbers, methods=["GET"]),
        Route("/v2", v2.server, methods=["GET"]),
        Route("/v2/health/live", v2.live, methods=["GET"]),
        Route("/v2/health/ready", v2.ready, methods=["GET"]),
        Route("/v2/models/{name}", v2.model, methods=["GET"]),
        Route("/v2/models/{name}/ready", v2.model_ready, methods=["GET"]),
        Route("/v2/models/{name}/infer", v2.infer, methods=["POST"]),
    ]
    if settings.docs:
        described = describe(made, version=version("offramp"), streams=streams, keyed=bool(key))

        async def openapi(_: Request) -> Response:
            return Response(to_json(described), media_type=JSON)

        shown = examples(made, arms=decider.arms, features=settings.features, streams=streams)

        async def docs(request: Request) -> Response:
            host, port = request.scope.get("server") or ("127.0.0.1", settings.port)
            return HTMLResponse(page(described, shown, url=f"http://{f'[{host}]' if ':' in host else host}:{port}"))

        routes += [Route("/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        metrics.rejected(error.reason)
        headers = {} if error.retry_after is None else {"retry-after": str(max(1, error.retry_after))}
        return _said(error.status, error.message, error.field, headers)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        metrics.rejected(REASONS.get(error.status_code, "other"))
        path, headers = request.url.path[:64], dict(error.headers or {})
        what = f"path is {path!r}, which is none of this service's"
        if error.status_code == 405:
            what = f"method is {request.method[:16]!r}, allowed for {path!r} is {headers.get('Allow', 'another')}"
        return _said(error.status_code, what, None, headers)

    inner = Starlette(routes=routes, exception_handlers={Refused: refused, HTTPException: unknown})
    inner.router.redirect_slashes = False
    return Guard(inner, settings=settings, key=key, rates=rates, metrics=metrics)


def _said(status: int, error: str, field: str | None, headers: dict[str, str]) -> Response:
    return Response(Answer(error=error, field=field).model_dump_json(), status, headers=headers, media_type=JSON)
