"""The routes of the service's own interface: decide, update, state, health, metrics."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from offramp.bandits import ContractError, Observation, Quote, rows
from offramp.bandits.contract import explain
from offramp.bandits.durable import Decider, Outcome, Ticket, TicketError
from offramp.bandits.rows import FloatArray
from offramp.experiments.service.bodies import Bodies, brief, observation_of, quote_of, read
from offramp.experiments.service.frames import Item
from offramp.experiments.service.guard import Rates
from offramp.experiments.service.link import Link
from offramp.experiments.service.metrics import CONTENT_TYPE, Metrics
from offramp.experiments.service.refused import Refused

JSON = "application/json"


class Routes:
    """What a worker answers.

    Parameters
    ----------
    decider
        Decides on the newest board and reads tokens.
    link
        To the learner.
    bodies
        Models of the requests.
    rates, metrics
        Shared with the guard.

    """

    def __init__(self, *, decider: Decider, link: Link, bodies: Bodies, rates: Rates, metrics: Metrics) -> None:
        self.decider = decider
        self.link = link
        self.bodies = bodies
        self.metrics = metrics
        self._rates = rates

    async def decide(self, request: Request) -> Response:
        """POST /v1/decide."""
        asked = read(self.bodies.decide, await body_of(request))
        return _json(shown(self.decided(quote_of(asked), asked.context, asked.stream)))

    async def decide_many(self, request: Request) -> Response:
        """POST /v1/decide_many."""
        asked = read(self.bodies.decide_many, await body_of(request)).requests
        self.charge(request, len(asked))
        quotes = [quote_of(one) for one in asked]
        tickets = [self.decided(q, one.context, one.stream) for q, one in zip(quotes, asked, strict=True)]
        return _json({"decisions": [shown(ticket) for ticket in tickets]})

    async def update(self, request: Request) -> Response:
        """POST /v1/update."""
        given = read(self.bodies.update, await body_of(request)).feedback
        self.charge(request, len(given))
        outcomes = await self.learnt([(one.token, observation_of(one)) for one in given])
        return _json({"outcomes": outcomes})

    async def state(self, request: Request) -> Response:
        """GET /v1/state."""
        stream = request.query_params.get("stream", self.decider.streams[0])
        if stream not in self.decider.streams:
            raise Refused(404, f"stream is {brief(stream)}, allowed are {list(self.decider.streams)}", field="stream")
        cursor, state = await self.link.state(stream)
        arms = [
            {"cut": arm.cut, "threshold": plain([arm.threshold])[0], "early": plain(arm.early)}
            for arm in self.decider.arms
        ]
        found = [value if math.isfinite(value) else None for value in state.tolist()]
        told = {"stream": stream, "cursor": cursor, "policy": repr(self.decider.policy), "arms": arms, "state": found}
        return _json(told)

    async def alive(self, _: Request) -> Response:
        """GET /healthz: the process answers."""
        return _json({"status": "alive", "learner": self.link.up})

    async def ready(self, _: Request) -> Response:
        """GET /readyz: there is a board to decide on; `learner` says whether feedback can be taken as well."""
        return _json({"status": "ready", "learner": self.link.up})

    async def numbers(self, _: Request) -> Response:
        """GET /metrics."""
        self.decider.refresh()
        self.metrics.cursor.set(self.decider.cursor)
        self.metrics.damaged.set(self.decider.damaged is not None)
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    def decided(self, quote: Quote, context: Sequence[float] | FloatArray, stream: str) -> Ticket:
        """Decide, and count it.

        Raises
        ------
        Refused
            The engine does not take this quote or context (422).

        """
        try:
            ticket = self.decider.decide(quote, context if len(context) else None, stream=stream)
        except ContractError as error:
            raise Refused(422, str(error)) from None
        self.metrics.decisions[ticket.cut].inc()
        return ticket

    async def learnt(self, items: Sequence[Item]) -> list[Outcome]:
        """Have feedback applied, all of it or none, and count it.

        Raises
        ------
        Refused
            A token is none of ours, or an observation cannot be its decision's (422); the learner is away (503).

        """
        for i, (token, observation) in enumerate(items):
            try:
                self._check(token, observation)
            except TicketError:
                where = f"feedback[{i}].token"
                what = f"is of {len(token)} characters and not signed here: cut off, changed, or another store's"
                raise Refused(422, f"{where} {what}, allowed is one as a decision bore it", field=where) from None
            except ContractError as error:
                raise Refused(422, f"feedback[{i}]: {error}", field=f"feedback[{i}]") from None
        outcomes = await self.link.update(items)
        for outcome in outcomes:
            self.metrics.learnt(outcome)
        return outcomes

    def charge(self, request: Request, items: int) -> None:
        """Take what a batch holds beyond its first item from its sender's rate."""
        if items > 1:
            self._rates.take(request.client.host if request.client else "", items - 1)

    def _check(self, token: str, observation: Observation) -> None:
        """Refuse here what the learner would refuse, so that it has to look at nothing that is not to be learnt."""
        row = self.decider.read(token).row
        exits = self.decider.arms.exits
        flag = rows.check_observation(row, observation.row, exits) or rows.check_hidden(observation.row, exits)
        if flag:
            raise ContractError(explain(flag, observation.row, exits))


async def body_of(request: Request) -> bytes:
    """The body of a request that says that it is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON or "content-encoding" in request.headers:
        said = f"{kind[:64]!r}" + (", encoded" if "content-encoding" in request.headers else "")
        raise Refused(415, f"content-type is {said}, allowed is {JSON!r} without an encoding")
    return await request.body()


def plain(thresholds: Sequence[float] | FloatArray) -> list[float | None]:
    """Thresholds as JSON has them: null = never; 0 = always, for no confidence is below it.

    Examples
    --------
    >>> plain([float("inf"), 0.8, -float("inf")])
    [None, 0.8, 0.0]

    """
    return [None if t == np.inf else max(float(t), 0.0) for t in thresholds]


def shown(ticket: Ticket) -> dict[str, Any]:
    """A decision as JSON has it."""
    return {
        "token": ticket.token,
        "cut": ticket.cut,
        "thresholds": plain(ticket.thresholds),
        "audit": ticket.audit,
        "arm": ticket.arm,
        "p_action": ticket.p_action,
        "p_reveal": ticket.p_reveal,
        "stream": ticket.stream,
    }


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content), media_type=JSON)
