"""What a contender is, and the kinds of parameters that tuning may choose."""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import optuna

from offramp.bandits import Arms, Policy
from offramp.environments import World
from offramp.experiments.joint_policy.suite import THRESHOLDS

# Parts of the table's thresholds that a policy over (cut, threshold) may be given: more arms are dearer to learn.
PARTS: dict[str, tuple[float, ...]] = {
    "all": THRESHOLDS,
    "ten": (-math.inf, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, math.inf),
    "six": (-math.inf, 0.3, 0.5, 0.7, 0.9, math.inf),
    "three": (-math.inf, 0.6, math.inf),
}

FEWEST = 3  # exits of a network on which any contender can be built


class Searched(Protocol):
    """A parameter that is searched: where the search starts, and how a trial chooses."""

    @property
    def start(self) -> Any:
        """The policy's own default, or the constant of its paper: the first trial."""

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """A value for one trial."""


@dataclass(frozen=True)
class Log:
    """A positive number on a log scale."""

    low: float
    high: float
    start: float

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """A value for one trial."""
        return trial.suggest_float(name, self.low, self.high, log=True)


@dataclass(frozen=True)
class OneOf:
    """One of several values; the first is where the search starts."""

    values: tuple[Any, ...]

    @property
    def start(self) -> Any:
        """The first value."""
        return self.values[0]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """A value for one trial."""
        return trial.suggest_categorical(name, self.values)


Space = dict[str, Searched]


def found(where: str) -> Any:
    """A class of the decision layer by "module:Name".

    Raises
    ------
    LookupError
        It is not there.

    """
    module, name = where.split(":")
    try:
        return getattr(importlib.import_module(f"offramp.bandits.{module}"), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise LookupError(f"offramp.bandits.{module} has no {name}") from error


def side_exits(exits: int) -> OneOf:
    """The exit of a policy that plays one: first the fourth, as AdaEE's authors chose, or the last side exit."""
    first = min(4, exits - 1)
    return OneOf((first, *(c for c in range(1, exits) if c != first)))


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One entry of the comparison.

    Parameters
    ----------
    title
        Its name in tables and figures.
    group
        "joint", "published" (a policy of this literature as it was published), "aware" (it knows the current prices),
        "unaware" (it learns them through its reward), or "trivial".
    needs
        "module:Name" of the classes that it is made of.
    make
        The policy from chosen parameters and the number of exits.
    searched
        The parameters that tuning chooses, for a number of exits; none for what is played as it is.
    needs_input
        Does it play only where the input may be sent?
    adds
        The arms that it plays beside those of the common table, from that table; regret stays that against the best
        arm of the common table.  None = none.

    """

    title: str
    group: str
    needs: tuple[str, ...]
    make: Callable[[Mapping[str, Any], int], Policy]
    searched: Callable[[int], Space] = field(default=lambda _exits: {})
    needs_input: bool = False
    adds: Callable[[Arms], Arms] | None = None

    def widened(self, world: World) -> World:
        """The world with the arms that this policy adds to the table, or the world itself."""
        return world if self.adds is None else replace(world, arms=world.arms.joined(self.adds(world.arms)))

    def lacking(self) -> str | None:
        """None if all it is made of is there, else what is not."""
        try:
            for where in self.needs:
                found(where)
            self.build({}, FEWEST)
        except (LookupError, TypeError) as error:  # no such class, or no such option
            return str(error)
        return None

    def space(self, exits: int) -> Space:
        """The parameters that tuning chooses."""
        return self.searched(exits)

    def nearest(self, chosen: Mapping[str, Any], exits: int) -> dict[str, Any]:
        """What was chosen for another network, where this one has it too; elsewhere the start."""
        space = self.space(exits)
        return {
            name: value
            for name, value in chosen.items()
            if name in space and not (isinstance(each := space[name], OneOf) and value not in each.values)
        }

    def build(self, chosen: Mapping[str, Any], exits: int) -> Policy:
        """The policy with these parameters, those that are not named at their start.

        Raises
        ------
        ValueError
            A parameter is not one of the space.

        """
        space = self.space(exits)
        unknown = set(chosen) - set(space)
        if unknown:
            raise ValueError(f"{sorted(unknown)} of {self.title} are not searched, allowed are {sorted(space)}")
        given = {name: each.start for name, each in space.items()} | dict(chosen)
        if "part" in given:
            given["thresholds"] = PARTS[given.pop("part")]
        return self.make(given, exits)


def plain(
    title: str, group: str, where: str, space: Callable[[int], Space] | Space | None = None, **fixed: Any
) -> Contender:
    """A contender that is one policy: fixed options, and parameters that are options under the same name."""
    searched: Callable[[int], Space] = space if callable(space) else (lambda _exits: dict(space or {}))

    def make(given: Mapping[str, Any], _exits: int) -> Policy:
        policy: Policy = found(where)(**fixed, **given)
        return policy

    return Contender(title=title, group=group, needs=(where,), make=make, searched=searched)


def played_as_it_is(contender: Contender, title: str) -> Contender:
    """The same at its start, untuned: the constants of the paper."""

    def make(_given: Mapping[str, Any], exits: int) -> Policy:
        return contender.build({}, exits)

    return Contender(title=title, group=contender.group, needs=contender.needs, make=make)
