"""A Hydra sweeper that lets Optuna choose what to play next.

The released hydra-optuna-sweeper 1.3.0 needs Optuna < 3; this one reads the same grammar of ranges and needs no more
than this package has: `policy.beta=interval(0.1,3)`, `tag(log,interval(...))`, `range(1,9)`, `choice(a,b)`, or a,b.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from offramp.experiments.earlier import write
from offramp.experiments.refusals import whole_numbers
from offramp.experiments.sweeps.purpose import ATTRIBUTE, hold, purpose

LOG = logging.getLogger(__name__)
JOURNAL = "tuning.log"


def space(override: Override) -> Any:
    """The distribution that a sweep over one key stands for.

    Raises
    ------
    ValueError
        It stands for none.

    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    given, key = override.value(), override.get_key_element()
    if isinstance(given, IntervalSweep):
        log = "log" in given.tags
        whole = isinstance(given.start, int) and isinstance(given.end, int) and "float" not in given.tags
        if whole:
            return IntDistribution(int(given.start), int(given.end), log=log)
        return FloatDistribution(float(given.start), float(given.end), log=log)
    if isinstance(given, RangeSweep):
        start, stop, step = given.start, given.stop, given.step
        if start is None or stop is None:
            raise ValueError(f"{key} has a range without bounds, allowed is range(start, stop, step)")
        if all(float(x).is_integer() for x in (start, stop, step)):
            last = start + math.ceil((stop - start) / step - 1) * step
            return IntDistribution(int(start), int(last), step=int(step))
    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise ValueError(f"{key} has no values to choose from, allowed are interval, range, choice and lists")


def first(given: Any) -> Any:
    """One value of a distribution: its lower bound, or what is named first."""
    return given.choices[0] if hasattr(given, "choices") else given.low


def journal(folder: Path) -> Any:
    """Where a search keeps its trials: one file, which may lie on a shared file system."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def trials_left(folder: Path, study: str, wanted: int) -> int:
    """How many of the wanted trials are not there yet."""
    import optuna

    if not (folder / JOURNAL).exists():
        return wanted
    try:
        known = optuna.load_study(study_name=study, storage=journal(folder), sampler=optuna.samplers.RandomSampler())
    except KeyError:
        return wanted
    return max(0, wanted - len(known.get_trials(states=(optuna.trial.TrialState.COMPLETE,))))


class OptunaSweeper(Sweeper):
    """Tunes by the number that each job returns; an interrupted search goes on where it was.

    The study keeps what it was made for (`purpose`), and is not gone on with for anything else.

    Parameters
    ----------
    n_trials
        How many runs there shall be in all, 1 or more.
    n_jobs
        How many are launched at once, 1 or more.
    direction
        minimize or maximize.
    sampler
        Any `optuna.samplers` class, as a configuration with `_target_`; None: TPE.
    seed
        Of the sampler, where it is TPE.
    study
        Name in the journal `tuning.log` of the sweep's folder, which other programs may read.

    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int = 1,
        direction: str = "minimize",
        sampler: Any = None,
        seed: int | None = 0,
        study: str = "offramp",
    ) -> None:
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.sampler, self.seed, self.study = sampler, seed, study
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Ask, launch, tell, until there are enough trials.

        Raises
        ------
        CompactHydraException
            What is asked for means nothing, or the study in this folder was made for something else.

        """
        try:
            study, spaces, fixed = self.begin(arguments)
        except (ValueError, OSError) as error:
            raise CompactHydraException(str(error)) from error  # which Hydra prints without a traceback
        self.go_on(study, spaces, fixed)

    def begin(self, arguments: list[str]) -> tuple[Any, dict[str, Any], list[str]]:
        """Check what is asked for; returns the study, what is tuned, and what all jobs have in common."""
        import optuna

        whole_numbers(self.config, {"hydra.sweeper.n_trials": 1, "hydra.sweeper.n_jobs": 1})
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        spaces = {o.get_key_element(): space(o) for o in parsed if o.is_sweep_override()}
        fixed = [f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in parsed if not o.is_sweep_override()]
        if not spaces:
            raise ValueError("nothing is left to tune, allowed is at least one key with an interval, a range or a list")
        job = [*fixed, *(f"{key}={first(given)}" for key, given in spaces.items())]
        asked = purpose(self.hydra_context.config_loader.load_sweep_config(self.config, job), spaces, self.direction)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kept = journal(folder)
        try:
            study = optuna.load_study(study_name=self.study, storage=kept)
        except KeyError:
            study = optuna.create_study(
                study_name=self.study, storage=kept, direction=self.direction, load_if_exists=True
            )
        hold(study, asked)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        return study, spaces, fixed

    def go_on(self, study: Any, spaces: dict[str, Any], fixed: list[str]) -> None:
        """Play what is missing."""
        import optuna
        from optuna.trial import TrialState

        assert self.launcher is not None
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)  # of a search that was broken off
        done = len(study.get_trials(states=(TrialState.COMPLETE,)))
        number = len(study.get_trials(deepcopy=False))
        seed = None if self.seed is None else self.seed + number  # one that goes on shall not ask the same again
        study.sampler = self.sampler or optuna.samplers.TPESampler(seed=seed)
        while done < self.n_trials:
            trials = [study.ask(spaces) for _ in range(min(self.n_jobs, self.n_trials - done))]
            jobs = [[*fixed, *(f"{k}={v}" for k, v in trial.params.items())] for trial in trials]
            self.validate_batch_is_legal(jobs)
            for trial, result in zip(trials, self.launcher.launch(jobs, initial_job_idx=number), strict=True):
                value = float(result.return_value)
                failed = math.isnan(value)
                study.tell(trial, None if failed else value, TrialState.FAIL if failed else None)
            done, number = done + len(trials), number + len(trials)
        self.say(study)

    def say(self, study: Any) -> None:
        """Print the best trial and keep it."""
        import optuna

        known = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        if not known:
            LOG.warning("no trial came to an end")
            return
        asked = study.user_attrs[ATTRIBUTE]
        best = {"study": study.study_name, "objective": asked["objective"], "direction": asked["direction"]}
        best |= {"number": study.best_trial.number, "value": study.best_value, "params": study.best_params}
        write(Path(self.config.hydra.sweep.dir) / "best.yaml", OmegaConf.to_yaml(OmegaConf.create(best)))
        found: Sequence[str] = [f"{k}={v}" for k, v in study.best_params.items()]
        LOG.info("best of %d: %s at %s", len(known), study.best_value, " ".join(found))
