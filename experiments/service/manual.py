"""The service described for people: one page without scripts, of the same models as the description for machines."""

import json
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from offramp.bandits import Arms
from offramp.experiments.service.bodies import Answer, ArmShown, Bodies, Decided, DecidedMany, Health, Learnt, State
from offramp.experiments.service.routes import plain

STYLE = (
    "body{font:16px/1.4 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "td,th{padding:.2em 1em .2em 0;vertical-align:top;text-align:left}pre{background:#eee;padding:.6em;overflow:auto}"
)
TOKEN = "TOKEN"
Examples = Mapping[str, tuple[Any, Any]]  # by path: what is sent, what is answered


def examples(made: Bodies, *, arms: Arms, features: int, streams: tuple[str, ...]) -> Examples:
    """A request and an answer for each route of the service's own, as its models take them.

    Parameters
    ----------
    made
        The request models.
    arms, features, streams
        Of the service.

    """
    exits, place = arms.exits, min(1, len(arms) - 1)
    arm = arms.table[place]
    quote: dict[str, Any] = {
        "edge_cost": [round(0.1 * j, 1) for j in range(exits + 1)],
        "offload_cost": [None, *(round(0.4 * (exits - j) / exits, 3) for j in range(1, exits)), 0],
        "mu": 0.5,
    }
    if features:
        quote["context"] = [0.0] * features
    cut = arm.cut
    thresholds = [*(plain(arm.early) or [None] * (cut - 1)), *plain([arm.threshold])][: max(cut, 0)]
    thresholds += [None] * (exits - len(thresholds))
    answers = cut > 0 and thresholds[cut - 1] is not None
    at = cut if answers else exits
    decided = Decided(
        token=TOKEN,
        cut=cut,
        thresholds=thresholds,
        audit=False,
        arm=place,
        p_action=1.0,
        p_reveal=0.0,
        stream=streams[0],
    ).model_dump()
    seen = [max(0.93, thresholds[at - 1] or 0.0) if j == at else None for j in range(1, exits + 1)]
    feedback = {"token": TOKEN, "confidence": seen, "answered_at": at, "offloaded": not answers}
    table = [ArmShown(cut=arm.cut, threshold=plain([arm.threshold])[0], early=plain(arm.early)) for arm in arms][:1]
    state = State(stream=streams[0], cursor=1, policy="UCB1(beta=1.0, ...)", arms=table, state=[1.0, 0.5])
    found: dict[str, tuple[Any, Any]] = {
        "/v1/decide": (quote, decided),
        "/v1/decide_many": ({"requests": [quote]}, DecidedMany(decisions=[Decided(**decided)]).model_dump()),
        "/v1/update": ({"feedback": [feedback]}, Learnt(outcomes=["counted"]).model_dump()),
        "/v1/state": (None, state.model_dump()),
        "/metrics": (None, "offramp_decisions_total{cut=...} ..."),
        "/healthz": (None, Health(status="alive", learner=True).model_dump()),
        "/readyz": (None, Health(status="ready", learner=True).model_dump()),
        "/v2/models/{name}/infer": (_tensors(quote), _answered(cut)),
    }
    for path, model in (("decide", made.decide), ("decide_many", made.decide_many), ("update", made.update)):
        model.model_validate_json(json.dumps(found[f"/v1/{path}"][0]))
    return found


def _tensors(quote: Mapping[str, Any]) -> dict[str, Any]:
    rows = {name: value if isinstance(value, list) else [value] for name, value in quote.items()}
    inputs = [{"name": k, "shape": [1, len(v)], "datatype": "FP64", "data": v} for k, v in rows.items()]
    return {"inputs": inputs, "outputs": [{"name": "token"}, {"name": "cut"}]}


def _answered(cut: int) -> dict[str, Any]:
    outputs = [
        {"name": "token", "shape": [1, 1], "datatype": "BYTES", "data": [TOKEN]},
        {"name": "cut", "shape": [1, 1], "datatype": "INT64", "data": [cut]},
    ]
    return {"model_name": "decide", "id": "", "outputs": outputs}


def page(described: Mapping[str, Any], shown: Examples, *, url: str) -> str:
    """The page.

    Parameters
    ----------
    described
        What `offramp.experiments.service.description.describe` gave.
    shown
        What `examples` gave.
    url
        Where the service answers.

    """
    schemas = described["components"]["schemas"]
    keyed = bool(described.get("security"))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Offramp</title>",
        f"<style>{STYLE}</style><h1>Offramp {escape(described['info']['version'])}</h1>",
        "<p>Ask <code>/v1/decide</code> what to do with a request: run the network on the edge up to <code>cut</code>, "
        "answer at the first exit whose confidence is at least its threshold, else offload. Then tell "
        "<code>/v1/update</code> what that revealed, with the decision's token. No label is ever asked for.</p>",
        "<p>In full, for machines: <a href=openapi.json>openapi.json</a></p>",
    ]
    for path, calls in described["paths"].items():
        for method, call in calls.items():
            parts += [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(call['summary'])}</p>"]
            parts += _parameters(call.get("parameters", ()))
            sent = call.get("requestBody")
            if sent is not None:
                parts += ["<h3>Request</h3>", *_tables(sent["content"]["application/json"]["schema"], schemas)]
            found = call["responses"]["200"]["content"].get("application/json", {}).get("schema", {})
            parts += ["<h3>Answer</h3>", *_tables(found, schemas)] if "$ref" in found else []
            if path in shown:
                key = keyed and call.get("security") != []
                parts += _example(path.replace("{name}", "decide"), *shown[path], url=url, keyed=key)
            others = (f"{status}: {answer['description']}" for status, answer in call["responses"].items())
            parts += [f"<p>{escape(' '.join(others))}</p>"]
    refusal = f"#/components/schemas/{Answer.__name__}"
    parts += ["<h2>What every refusal says</h2>", *_tables({"$ref": refusal}, schemas), "</html>"]
    return "".join(parts)


def _example(path: str, sent: Any, answered: Any, *, url: str, keyed: bool) -> Iterator[str]:
    words = ["curl", "-s", f"{url}{path}"]
    words += ["-H", "content-type: application/json", "-d", json.dumps(sent)] if sent is not None else []
    line = shlex.join(words) + (' -H "authorization: Bearer $OFFRAMP_API_KEY"' if keyed else "")
    text = answered if isinstance(answered, str) else json.dumps(answered)
    yield f"<h3>Example</h3><pre>{escape(line)}\n\n{escape(text)}</pre>"


def _parameters(parameters: Any) -> Iterator[str]:
    for one in parameters:
        yield f"<p>In the {escape(one['in'])}: <code>{escape(one['name'])}</code>, {escape(_kind(one['schema']))}</p>"


def _tables(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a model, then those of the models in it."""
    waiting, done = list(_references(schema)), set[str]()
    for name in waiting:
        if name in done:
            continue
        done.add(name)
        model = schemas[name]
        needed = model.get("required", ())
        yield f"<p>{escape(name)}: {escape(model.get('description', ''))}</p>"
        yield "<table><tr><th>field<th>type and range<th>meaning</tr>"
        for field, told in model.get("properties", {}).items():
            kind = _kind(told)
            if field not in needed:
                default = json.dumps(told.get("default"))
                kind += f"; default {default}"
            yield f"<tr><td><code>{escape(field)}</code><td>{escape(kind)}<td>{escape(_meaning(told))}</tr>"
            waiting += _references(told)
        yield "</table>"


def _references(told: Any) -> Iterator[str]:
    if isinstance(told, dict):
        if "$ref" in told:
            yield told["$ref"].rsplit("/", 1)[1]
        for inner in told.values():
            yield from _references(inner)
    elif isinstance(told, list):
        for inner in told:
            yield from _references(inner)


def _meaning(told: Mapping[str, Any]) -> str:
    inner = told.get("items")
    parts = [told.get("description", ""), inner.get("description", "") if isinstance(inner, dict) else ""]
    return "; ".join(part for part in parts if part)


def _kind(told: Mapping[str, Any]) -> str:
    """Type and range in words."""
    if "$ref" in told:
        return str(told["$ref"].rsplit("/", 1)[1])
    if "enum" in told or "const" in told:
        return " or ".join(json.dumps(v) for v in told.get("enum", [told.get("const")]))
    if "anyOf" in told:
        return " or ".join(dict.fromkeys(_kind(one) for one in told["anyOf"]))
    kind = told.get("type", "anything")
    if kind == "array":
        if "prefixItems" in told:
            kinds = list(dict.fromkeys(_kind(one) for one in told["prefixItems"]))
            return f"list of {len(told['prefixItems'])}: {', the last '.join(kinds)}"
        return f"list{_range(told, 'minItems', 'maxItems')}: {_kind(told.get('items', {}))}"
    if kind == "string":
        return f"string{_range(told, 'minLength', 'maxLength', ' characters')}"
    return f"{kind}{_range(told, 'minimum', 'maximum')}"


def _range(told: Mapping[str, Any], low: str, high: str, unit: str = "") -> str:
    least, most = told.get(low), told.get(high)
    if least is None and most is None:
        return ""
    if least == most:
        return f" of {least:g}{unit}"
    if most is None:
        return f" >= {least:g}{unit}"
    if least is None:
        return f" of at most {most:g}{unit}"
    return f" {least:.10g}..{most:.10g}{unit}"
