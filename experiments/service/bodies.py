"""The JSON that requests bring: models for one table of arms, and the contract's objects made from them."""

import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from offramp.bandits import Observation, Quote
from offramp.experiments.service.refused import Refused
from offramp.experiments.service.settings import LARGEST

INT32 = 2**31 - 1
SHOWN = 20  # characters of a text that a message repeats
LONG_TEXT = re.compile(rf"[\w-]{{{SHOWN + 1},}}")

Cost = Annotated[float, Field(ge=0.0, le=LARGEST, description="in the price list's unit")]
Price = Annotated[float | None, Field(ge=0.0, le=LARGEST, description="null = not offered")]
Nothing = Annotated[float, Field(ge=0.0, le=0.0, description="nothing is left to send")]
Confidence = Annotated[float | None, Field(ge=0.0, le=1.0, description="null = not revealed")]
Class = Annotated[int, Field(ge=-1, le=INT32, description="-1 = not revealed")]
Feature = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Token = Annotated[str, Field(min_length=1, max_length=65_536, description="as the decision bore it")]
Threshold = Annotated[float | None, Field(ge=0.0, description="the exit answers from this confidence on; null = never")]


class Body(BaseModel):
    """JSON of exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Decided(Body):
    """What to do with one request: compute up to `cut`, answer at the first exit that is sure enough, else offload."""

    token: str = Field(description="bring it back with what the decision revealed")
    cut: int = Field(ge=0, description="where the edge stops computing; 0 = send the input")
    thresholds: list[Threshold] = Field(
        description="of exits 1 to the last: the first exit up to the cut whose confidence is at least its threshold "
        "answers, and if none is, the sample is offloaded at the cut; null = never answers, 0 = always"
    )
    audit: bool = Field(
        description="offload even if an exit on the edge answers: its answer is served, and the last exit's confidence "
        "is sent with the feedback (audited: true)"
    )
    arm: int = Field(ge=-1, description="row in the table of arms, from 0 on; -1 = thresholds of no row of it")
    p_action: float = Field(ge=0.0, le=1.0, description="probability with which this was chosen")
    p_reveal: float = Field(ge=0.0, le=1.0, description="probability with which the last exit is seen")
    stream: str = Field(description="which it was decided for")


class DecidedMany(Body):
    """Decisions in the order of the requests."""

    decisions: list[Decided] = Field(description="each as /v1/decide gives it")


class Learnt(Body):
    """What became of each piece of feedback: applied, known already, too late, or of an arm that is no more."""

    outcomes: list[Literal["counted", "duplicate", "late", "obsolete"]] = Field(
        description="in the order of the feedback: applied, known already, too late, or of an arm that is no more"
    )


class Answer(Body):
    """What was wrong."""

    error: str = Field(description="the value, and what is allowed")
    field: str | None = Field(default=None, description="where it stands in the request")


class ArmShown(Body):
    """One arm of the table."""

    cut: int = Field(description="where the edge stops computing")
    threshold: Threshold = Field(description="of the exit at the cut")
    early: list[Threshold] = Field(description="of the exits before it; empty = they never answer")


class State(Body):
    """What one stream has learnt."""

    stream: str = Field(description="which this is")
    cursor: int = Field(ge=0, description="pieces of feedback that were applied")
    policy: str = Field(description="with all its parameters")
    arms: list[ArmShown] = Field(description="the table of arms; a decision's `arm` is a place in it, from 0 on")
    state: list[float | None] = Field(description="the flat state of `offramp.bandits.state`; null = not finite")


class Health(Body):
    """Is the process there, and what can it do?"""

    status: Literal["alive", "ready", "unavailable"] = Field(description="of this process")
    learner: bool | None = Field(default=None, description="can feedback be taken now?")


@dataclass(frozen=True)
class Bodies:
    """The request models of one service."""

    decide: type[BaseModel]
    decide_many: type[BaseModel]
    update: type[BaseModel]


def bodies(*, exits: int, features: int, streams: tuple[str, ...], batch: int) -> Bodies:
    """Request models for a network of so many exits.

    Examples
    --------
    >>> made = bodies(exits=2, features=0, streams=("default",), batch=16)
    >>> asked = read(made.decide, b'{"edge_cost": [0, 0.1, 0.5], "offload_cost": [null, 0.2, 0], "mu": 1}')
    >>> quote_of(asked)
    Quote(edge_cost=[0.0, 0.1, 0.5], offload_cost=[inf, 0.2, 0.0], mu=1.0)
    >>> read(made.decide, b'{"edge_cost": [0, 0.1, 0.5], "offload_cost": [null, 0.2, 0], "mu": -1}')
    Traceback (most recent call last):
        ...
    offramp.experiments.service.refused.Refused: mu is -1: input should be greater than or equal to 0

    """
    cuts = exits + 1
    offers: Any = tuple[(*[Price] * exits, Nothing)]  # type: ignore[misc]
    lists = {"min_length": 1, "max_length": batch}
    context: Any = (
        Annotated[list[Feature], Field(min_length=features, max_length=features, description="features of the sample")],
        ... if features else [],
    )
    stream: Any = (Annotated[Literal[streams], Field(description="each learns for itself")], streams[0])
    decide = create_model(
        "Decide",
        __base__=Body,
        __doc__="The prices of one request.",
        edge_cost=(
            Annotated[list[Cost], Field(min_length=cuts, max_length=cuts, description=f"of cuts 0 to {exits}")],
            ...,
        ),
        offload_cost=(
            Annotated[offers, Field(description=f"from cuts 0 to {exits}: null = not offered, and the last is 0")],
            ...,
        ),
        mu=(Annotated[float, Field(ge=0.0, le=LARGEST, description="reward lost per unit of cost")], ...),
        context=context,
        stream=stream,
    )
    feedback = create_model(
        "Feedback",
        __base__=Body,
        __doc__="What one decision revealed.",
        token=(Token, ...),
        confidence=(
            Annotated[
                list[Confidence],
                Field(
                    min_length=exits,
                    max_length=exits,
                    description=f"of exits 1 to {exits}, null = not revealed; exit {exits}'s is known where it ran or "
                    "the sample was offloaded",
                ),
            ],
            ...,
        ),
        answered_at=(
            Annotated[
                int,
                Field(
                    ge=1,
                    le=exits,
                    description=f"the exit whose answer was served: the first that reached its threshold, {exits} "
                    "where the sample was offloaded",
                ),
            ],
            ...,
        ),
        offloaded=(Annotated[bool, Field(description="was the cloud asked for the answer?")], ...),
        audited=(
            Annotated[bool, Field(description="was the edge's answer served, and the sample offloaded as well?")],
            False,
        ),
        prediction=(
            Annotated[
                Annotated[list[Class], Field(min_length=exits, max_length=exits)] | None,
                Field(description="class that each exit found, -1 = not revealed; null = none is told"),
            ],
            None,
        ),
        edge_cost=(
            Annotated[float | None, Field(ge=0.0, le=LARGEST, description="as measured; null = as quoted")],
            None,
        ),
        offload_cost=(
            Annotated[float | None, Field(ge=0.0, le=LARGEST, description="as measured; null = as quoted")],
            None,
        ),
    )
    many = create_model(
        "DecideMany",
        __base__=Body,
        __doc__="A batch.",
        requests=(Annotated[list[decide], Field(**lists, description="each as for /v1/decide")], ...),
    )
    update = create_model(
        "Update",
        __base__=Body,
        __doc__="A batch.",
        feedback=(Annotated[list[feedback], Field(**lists, description="applied all or none")], ...),
    )
    return Bodies(decide, many, update)


def quote_of(asked: Any) -> Quote:
    """The contract's quote."""
    return Quote(
        edge_cost=asked.edge_cost,
        offload_cost=[math.inf if price is None else price for price in asked.offload_cost],
        mu=asked.mu,
    )


def observation_of(given: Any) -> Observation:
    """The contract's observation."""
    return Observation(
        confidence=[math.nan if c is None else c for c in given.confidence],
        answered_at=given.answered_at,
        offloaded=given.offloaded,
        audited=given.audited,
        prediction=given.prediction,
        edge_cost=math.nan if given.edge_cost is None else given.edge_cost,
        offload_cost=math.nan if given.offload_cost is None else given.offload_cost,
    )


def read(model: type[BaseModel], body: bytes) -> Any:
    """The body as its model.

    Raises
    ------
    Refused
        400 for what is no JSON, 422 for JSON that the model does not allow.

    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise Refused(400, f"the body is no JSON: {first['msg'].removeprefix('Invalid JSON: ')}") from None
        where = ""
        for step in first["loc"]:
            name = str(step)
            name = name if len(name) <= 40 else f"{name[:20]}..."  # an unknown field is the name that the sender chose
            where += f"[{name}]" if isinstance(step, int) else f".{name}" if where else name
        given = "" if "token" in first["loc"] else f" is {brief(first['input'])}"
        if first["type"] == "missing":
            raise Refused(422, f"{where} is missing", field=where) from None
        what = _allowed(first)
        raise Refused(422, f"{where or 'the body'}{given}: {what}", field=where or None) from None


def _allowed(error: Any) -> str:
    """What is allowed there, in words."""
    limits = error.get("ctx", {})
    most, least = limits.get("max_length"), limits.get("min_length")
    if error["type"] == "too_long" and "actual_length" in limits:
        if not most:
            return "allowed is an empty list: this service has no context features"
        return f"allowed are at most {most} items"
    if error["type"] == "too_short" and "actual_length" in limits:
        return f"allowed are {least} items or more"
    if error["type"] == "extra_forbidden":
        return "there is no field of this name"
    text: str = error["msg"]
    return text[:1].lower() + text[1:]


def brief(value: Any) -> str:
    """A value as a message may show it: as JSON, and short; a longer text, which may be a token, only by its length.

    Examples
    --------
    >>> brief([0.5, None]), brief("north"), brief("A" * 450)
    ('[0.5, null]', '"north"', 'a text of 450 characters')

    """
    if isinstance(value, str) and len(value) > SHOWN:
        return f"a text of {len(value)} characters"
    text = json.dumps(value, default=str)
    if isinstance(value, dict | list) and LONG_TEXT.search(text):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return text if len(text) <= 60 else f"{text[:57]}..."
