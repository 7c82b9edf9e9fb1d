"""Opens the store of a service: a new one with what the settings say, an existing one with what it knows itself."""

import dataclasses
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from offramp.bandits import Policy
from offramp.bandits.durable import DurableEngine, signing_key
from offramp.experiments.service.settings import Settings


def opened(settings: Settings) -> DurableEngine:
    """The engine on the store.

    Raises
    ------
    ValueError
        Something was chosen that is not as the store has it.
    StoreError
        The store cannot be opened.

    """
    policy = instantiate(settings.policy, _convert_="all") if settings.policy else None
    options: dict[str, Any] = {name: getattr(settings, name) for name in ("synchronous", "lateness", "keep")}
    if Path(settings.store).exists():
        options["key"] = signing_key(settings.store)
        streams = tuple(settings.streams) if settings.chosen("streams") else ()
        seed = settings.seed if policy is not None and settings.chosen("seed") else None
        try:
            engine = DurableEngine(settings.store, streams=streams, seed=seed, **options)
        except ValueError as error:
            if "is new" not in str(error):  # a start that failed may have left a file with nothing in it
                raise
        else:
            try:
                agree(settings, policy, engine)
            except BaseException:
                engine.close()
                raise
            return engine
    made = {"arms": settings.arms, "seed": settings.seed, "features": settings.features}
    options["key"] = signing_key(settings.store)
    return DurableEngine(settings.store, policy, streams=tuple(settings.streams), **made, **options)


def agree(settings: Settings, policy: Policy | None, engine: DurableEngine) -> None:
    """Check what was chosen against a store that was there before.

    Raises
    ------
    ValueError
        They differ; the message names the setting, its value and the store's.

    """
    as_left = f"as store {settings.store} has it"
    for name, found in (("exits", engine.arms.exits), ("features", engine.features)):
        given = getattr(settings, name)
        if given is not None and settings.chosen(name) and given != found:
            raise ValueError(f"{name} is {given}, allowed is {found}, {as_left}")
    if policy is None:
        return
    if settings.chosen("policy") and policy != engine.policy:
        raise ValueError(f"{_difference(policy, engine.policy)}, {as_left}")
    if settings.chosen("thresholds", "cuts", "raw_input_allowed"):
        arms = settings.table(engine.arms.exits)
        if arms != engine.arms:
            raise ValueError(
                f"thresholds, cuts and raw_input_allowed give another table of arms ({len(arms)}), allowed is the one "
                f"({len(engine.arms)}) that store {settings.store} has: leave them out to go on with it"
            )


def _difference(given: Policy, allowed: Policy) -> str:
    """Where two policies differ, in a few words."""
    names = type(given).__name__, type(allowed).__name__
    if names[0] != names[1] or not dataclasses.is_dataclass(given):
        return f"policy is {names[0]}, allowed is {names[1]}"
    for one in dataclasses.fields(given):
        mine, theirs = getattr(given, one.name), getattr(allowed, one.name)
        if mine != theirs:
            return f"policy.{one.name} is {str(mine)[:60]}, allowed is {str(theirs)[:60]}"
    return f"policy is {str(given)[:60]}, allowed is {str(allowed)[:60]}"
