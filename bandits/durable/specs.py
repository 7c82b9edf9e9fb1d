"""Policies and tables of arms as JSON, and back: names from a closed list and plain values, so nothing can be run."""

import dataclasses
import importlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from offramp.bandits.arms import Arm, Arms
from offramp.bandits.policy import Policy

CLASS = "class"  # the key under which the name of a spec's class stands
NUMBER = "number"  # the key under which a number stands that JSON has no form for


def policy_to_json(policy: Policy) -> str:
    """A policy's spec as text.

    Raises
    ------
    ValueError
        The policy, or something in it, is no dataclass of plain values.

    Examples
    --------
    >>> from offramp.bandits import UCB1
    >>> policy_to_json(UCB1(beta=0.5))
    '{"beta": 0.5, "class": "UCB1", "cuts": null, "known_costs": true, "thresholds": null}'

    """
    return json.dumps(_plain(policy), sort_keys=True, allow_nan=False)


def policy_from_json(text: str, known: Iterable[type] = ()) -> Policy:
    """The policy that a text speaks of.

    Parameters
    ----------
    text
        What `policy_to_json` gave.
    known
        Classes besides those of `offramp.bandits` that it may name.

    Raises
    ------
    ValueError
        The text is no spec, or names a class that is not known.

    """
    # Asked for by name when it is needed: this package is part of what it would import.
    bandits = importlib.import_module("offramp.bandits")
    classes = {name: getattr(bandits, name) for name in bandits.__all__} | {c.__name__: c for c in known}
    try:
        policy = _built(json.loads(text), classes)
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"{text[:200]!r} is no policy ({error}), allowed is what policy_to_json gave") from error
    if not isinstance(policy, Policy):
        raise ValueError(f"{text[:200]!r} is no policy, allowed is what policy_to_json gave")
    return policy


@lru_cache(maxsize=16)
def arms_to_json(arms: Arms) -> str:
    """A table of arms as text."""
    table = [[arm.cut, _plain(arm.threshold), [_plain(t) for t in arm.early]] for arm in arms.table]
    return json.dumps({"exits": arms.exits, "table": table}, allow_nan=False)


def arms_from_json(text: str) -> Arms:
    """The table of arms that a text speaks of.

    Raises
    ------
    ValueError
        The text is no table of arms.

    """
    try:
        found = json.loads(text)
        table = tuple(Arm(cut, _built(t, {}), tuple(_built(e, {}) for e in early)) for cut, t, early in found["table"])
        return Arms(exits=found["exits"], table=table)
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"{text[:200]!r} is no table of arms ({error})") from error


def _plain(value: Any) -> Any:
    """A spec, or a value in one, as JSON knows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {CLASS: type(value).__name__, **fields}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {NUMBER: repr(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    raise ValueError(f"{value!r} cannot be kept, allowed in a spec are dataclasses, numbers, texts, None, and tuples")


def _built(value: Any, classes: Mapping[str, type]) -> Any:
    """What `_plain` made it from; sequences are tuples."""
    if isinstance(value, list):
        return tuple(_built(v, classes) for v in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {NUMBER}:
        return float(value[NUMBER])
    name = value[CLASS]
    if name not in classes or not dataclasses.is_dataclass(classes[name]):
        raise ValueError(f"class is {name!r}, allowed are those of offramp.bandits and what is given as known")
    return classes[name](**{k: _built(v, classes) for k, v in value.items() if k != CLASS})
