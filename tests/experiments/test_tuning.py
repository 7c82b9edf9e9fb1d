"""Sweeps that others launch or choose: Slurm's launcher on this machine, and Optuna."""

import re
import subprocess
import sys

import optuna
import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, RunMode
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from offramp.experiments.sweeps import dataset, watch
from offramp.experiments.sweeps.plugins import register
from offramp.experiments.sweeps.purpose import ATTRIBUTE, hold, purpose
from offramp.experiments.sweeps.tuning import space

COMMAND = [sys.executable, "-m", "offramp.experiments.cli", "compare", "-m", "threads=1", "seeds=2", "horizon=300"]


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("compare", overrides=["policy=ucb1", "seeds=2", *overrides])


def sweep(*arguments, cwd):
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True)


def test_submitit_on_this_machine(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = sweep("hydra/launcher=submitit_local", "policy=ucb1,final_exit", "sweep=out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs finished, 0 were there, 0 failed" in done.stdout
    frame = dataset.read(tmp_path / "out")
    assert sorted(set(frame.policy)) == ["final_exit", "ucb1"]
    assert list((tmp_path / "out" / ".submitit").iterdir())


def test_optuna_tunes_and_goes_on(tmp_path):
    arguments = [
        "hydra/sweeper=optuna", "policy=ucb1", "policy.beta=tag(log, interval(0.01, 3.0))", "objective=cost",
        "stream=stationary", "sweep=out",
    ]  # fmt: skip
    done = sweep(*arguments, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = sweep(*arguments, "hydra.sweeper.n_trials=4", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    frame = dataset.read(tmp_path / "out")
    means = frame.groupby("policy_config").cost.mean()
    assert len(means) == 4
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert best["value"] == pytest.approx(means.min(), abs=1e-12)
    assert f'"beta": {best["params"]["policy.beta"]}' in means.idxmin()
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 4
    assert sorted(p.name for p in (tmp_path / "out" / "jobs").iterdir()) == ["0", "1", "2", "3"]
    assert (best["study"], best["objective"], best["direction"]) == ("offramp", "cost", "minimize")
    before = {p: p.read_bytes() for p in (tmp_path / "out").glob("[!.]*.[yl]*") if p.is_file()}
    assert {p.name for p in before} >= {"best.yaml", "multirun.yaml", "tuning.log"}
    another = [*arguments, "objective=accuracy", "hydra.sweeper.direction=maximize", "stream=abrupt"]
    done = sweep(*another, "hydra.sweeper.n_trials=5", cwd=tmp_path)
    assert done.returncode == 1
    assert 'objective was "cost" and is "accuracy"; direction was "minimize" and is "maximize"' in done.stderr
    assert "another sweep=FOLDER or another hydra.sweeper.study=NAME" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in before} == before, "a search that is refused leaves everything as it was"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0.1,3)", FloatDistribution(0.1, 3.0)),
        ("a=tag(log,interval(1e-3,1.0))", FloatDistribution(1e-3, 1.0, log=True)),
        ("a=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("a=choice(x,y)", CategoricalDistribution(["x", "y"])),
        ("a=1,2", CategoricalDistribution(["1", "2"])),
    ],
)
def test_a_grammar_of_ranges(text, expected):
    (override,) = OverridesParser.create().parse_overrides([text])
    assert space(override) == expected


def test_trials_count_for_the_purpose_they_were_made_for():
    spaces = {"policy.beta": FloatDistribution(0.1, 3.0)}
    asked = purpose(config("stream=stationary", "objective=cost"), spaces, "minimize")
    study = optuna.create_study()
    hold(study, asked)
    hold(study, purpose(config("objective=cost", "threads=2", "stream=stationary"), spaces, "minimize"))
    wider = {"policy.beta": FloatDistribution(0.1, 4.0)}
    for other, named in [
        (purpose(config("stream=stationary", "objective=cost", "seeds=3"), spaces, "minimize"), "seeds was 2 and is 3"),
        (purpose(config("objective=cost"), spaces, "minimize"), "stream."),
        (purpose(config("stream=stationary", "objective=cost"), wider, "minimize"), "policy.beta was"),
        (purpose(config("stream=stationary", "objective=cost"), {}, "minimize"), "policy.beta was"),
        ({**asked, "package": "another text"}, "package was"),
    ]:
        with pytest.raises(ValueError, match=re.escape(named)):
            hold(study, other)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study._storage.set_study_user_attr(study._study_id, ATTRIBUTE, None)
    with pytest.raises(ValueError, match="does not say for what"):
        hold(study, asked)


def test_a_file_with_another_content_is_another_purpose(tmp_path):
    drive = tmp_path / "drive.log"
    drive.write_text("4.2\n")
    cfg, spaces = config("objective=cost", f"+stream.recorded={drive}"), {"policy.beta": FloatDistribution(0.1, 3.0)}
    study = optuna.create_study()
    hold(study, purpose(cfg, spaces, "minimize"))
    drive.write_text("4.25\n")
    with pytest.raises(ValueError, match=re.escape(f"content of {drive} was")):
        hold(study, purpose(cfg, spaces, "minimize"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("hydra.sweeper.n_jobs=-1", "hydra.sweeper.n_jobs is -1, allowed is a whole number, 1 or more"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials is 0, allowed is a whole number, 1 or more"),
        ("hydra.sweeper.n_trials=many", "hydra.sweeper.n_trials is 'many', allowed is a whole number, 1 or more"),
        ("hydra.sweeper.direction=up", "hydra.sweeper.direction is 'up', allowed are minimize and maximize"),
        ("objective=nope", "objective is 'nope', allowed are cost,"),
        ("threads=1,2", "threads cannot be tuned"),
    ],
)
def test_a_search_that_means_nothing_is_refused_before_it_plays(wrong, told, tmp_path):
    with pytest.raises(CompactHydraException, match=re.escape(told)):
        begin("policy=ucb1", "policy.beta=interval(0.1,3.0)", wrong, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def begin(*overrides, folder):
    """Start a search in this process."""
    register()
    with initialize_config_module("offramp.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        given = ["hydra/sweeper=optuna", f"sweep={folder}", *overrides]
        made = loader.load_configuration("compare", given, run_mode=RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=float, config=made)
        watch.total(made)  # as the watch counts before a sweep begins
        sweeper.sweep(list(made.hydra.overrides.task))
