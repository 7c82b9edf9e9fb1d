"""What a search tunes and under what; trials that were made for one purpose are no help with another."""

import json
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

from omegaconf import DictConfig, open_dict

from offramp.experiments.sweeps import dataset
from offramp.experiments.sweeps.contents import contents
from offramp.experiments.sweeps.keys import WITHOUT, cache_digest, resolved, source_digest

ATTRIBUTE = "made_for"  # of the Optuna study
DIRECTIONS = ("minimize", "maximize")


def purpose(cfg: DictConfig, spaces: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """What the value of a trial depends on, by names with dots.

    Parameters
    ----------
    cfg
        Configuration of one job of the search.
    spaces
        Optuna's distribution of each key that is tuned.
    direction
        minimize or maximize.

    Raises
    ------
    ValueError, OSError
        The objective is no metric, the direction none, the cache is not there, or a key changes no result.

    """
    from optuna.distributions import distribution_to_json

    if direction not in DIRECTIONS:
        raise ValueError(f"hydra.sweeper.direction is {direction!r}, allowed are {' and '.join(DIRECTIONS)}")
    if cfg.objective not in dataset.METRICS:
        raise ValueError(f"objective is {cfg.objective!r}, allowed are {', '.join(dataset.METRICS)}")
    if useless := [key for key in spaces if key in WITHOUT]:
        raise ValueError(f"{useless[0]} cannot be tuned, allowed is what changes a result")
    task = cfg.copy()
    with open_dict(task):
        task.pop("hydra", None)
    settings = resolved(task)
    found = {"objective": str(cfg.objective), "direction": direction, **flat(settings)}
    found |= {f"content of {name}": digest for name, digest in contents(settings).items()}
    found |= {key: json.loads(distribution_to_json(given)) for key, given in spaces.items()}
    return {**found, "cache": f"{cfg.cache} ({cache_digest(cfg.cache)})", "package": source_digest()}


def flat(given: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by names with dots.

    Examples
    --------
    >>> flat({"a": {"b": 1, "c": [2, 3]}, "d": None})
    {'a.b': 1, 'a.c': [2, 3], 'd': None}

    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) and value else {f"{before}{key}": value}
    return found


def hold(study: Any, asked: Mapping[str, Any]) -> None:
    """Write the purpose into a new study; compare it with that of one that is there.

    Raises
    ------
    ValueError
        The study was made for another purpose; the message has what differs.

    """
    made = study.user_attrs.get(ATTRIBUTE)
    if made is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(ATTRIBUTE, dict(asked))
        return
    if made is None:
        differs = ["it does not say for what"]
    else:
        keys = [key for key in {**asked, **made} if asked.get(key, ...) != made.get(key, ...)]
        differs = [f"{key} was {told(made, key)} and is {told(asked, key)}" for key in keys]
    if differs:
        more = f", and {len(differs) - 4} more" if len(differs) > 4 else ""
        raise ValueError(
            f"study {study.study_name!r} in this folder was made for something else: {'; '.join(differs[:4])}{more}; "
            "allowed is what it was made for, another sweep=FOLDER or another hydra.sweeper.study=NAME"
        )


def told(found: Mapping[str, Any], key: str) -> str:
    """A value as a message has it."""
    return shorten(json.dumps(found[key]), 80, placeholder=" ...") if key in found else "not given"
