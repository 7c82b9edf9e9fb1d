"""Tuning: the same number of trials for every policy, on streams and images that no report shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from offramp.bandits import Arms, Policy
from offramp.bandits.loop import World as Arrays
from offramp.environments import ConfidenceCache, World
from offramp.environments.replay import arms_of
from offramp.experiments.joint_policy.play import one
from offramp.experiments.joint_policy.spaces import Contender
from offramp.experiments.joint_policy.suite import TUNING_SEEDS, Setting, missing, world_of

SEED = 5  # of the sampler
FIRST_SEED = TUNING_SEEDS[0]  # far from the report's, which begin at 0


class Course:
    """The tuning worlds with their arrays, made once for all policies.

    Parameters
    ----------
    cache
        The validation split, as `suite.prepared` makes it.
    settings
        The worlds; those that the cache cannot offer are left out.
    horizon, seeds
        Rounds, and seeds of each world.

    """

    def __init__(
        self, cache: ConfidenceCache, settings: Sequence[Setting], *, horizon: int, seeds: Sequence[int]
    ) -> None:
        self.horizon, self.seeds = horizon, tuple(seeds)
        self.places: list[tuple[Setting, World, Arrays]] = []
        self._wide: dict[str, list[tuple[Setting, World, Arrays]]] = {}
        for setting in settings:
            if missing(setting, cache) is None:
                world = world_of(setting, cache)
                self.places.append((setting, world, world.arrays(setting.stream.conditions, setting.stream.links)))
        if not self.places:
            raise ValueError("the cache offers none of the tuning worlds, allowed are caches that offer one or more")

    @property
    def arms(self) -> Arms:
        """The table of arms, the same in every tuning world."""
        return self.places[0][1].arms

    def regret(self, policy: Policy, contender: Contender) -> float:
        """Regret, the price of audits included, summed over worlds and averaged over seeds."""
        places = self._places(contender)
        runs = [
            one(policy, setting, world, arrays, horizon=self.horizon, seed=seed)
            for setting, world, arrays in places
            for seed in self.seeds
        ]
        return float(np.sum([run["regret"] for run in runs])) / len(self.seeds)

    def _places(self, contender: Contender) -> list[tuple[Setting, World, Arrays]]:
        if contender.adds is None:
            return self.places
        if contender.title not in self._wide:
            wide = [(setting, contender.widened(world)) for setting, world, _ in self.places]
            self._wide[contender.title] = [
                (setting, world, world.arrays(setting.stream.conditions, setting.stream.links))
                for setting, world in wide
            ]
        return self._wide[contender.title]


def tuned(contender: Contender, course: Course, trials: int, advance: Callable[[], None]) -> dict[str, Any]:
    """The best setting that so many trials find, the policy's own defaults being the first.

    Returns
    -------
    dict
        chosen: parameter -> value as `Contender.build` reads it; regret: on the tuning worlds; default: that of the
        defaults, the first trial; trials: how many were made.  None and 0 where nothing is searched.

    """
    exits = course.arms.exits
    space = contender.space(exits)
    if not space:  # nothing to choose: it is played as it is
        for _ in range(trials):
            advance()
        return {"chosen": {}, "regret": None, "default": None, "trials": 0}

    def objective(trial: optuna.Trial) -> float:
        given = {name: each.suggest(trial, name) for name, each in space.items()}
        value = course.regret(contender.build(given, exits), contender)
        advance()
        return value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=SEED))
    study.enqueue_trial({name: each.start for name, each in space.items()})
    study.optimize(objective, n_trials=trials)
    return {
        "chosen": dict(study.best_params),
        "regret": float(study.best_value),
        "default": float(study.trials[0].values[0]),
        "trials": len(study.trials),
    }


def playable(contenders: Mapping[str, Contender], course: Course) -> tuple[dict[str, Contender], dict[str, str]]:
    """Those that are here and that the table of arms offers, and why the others are not."""
    here, absent = {}, {}
    for name, contender in contenders.items():
        why = contender.lacking()
        if why is None:
            policy = contender.build(
                {k: s.start for k, s in contender.space(course.arms.exits).items()}, course.arms.exits
            )
            why = arms_of(policy, contender.widened(course.places[0][1]).arms)
        if why is None or contender.needs_input:
            here[name] = contender
        else:
            absent[name] = why
    return here, absent
