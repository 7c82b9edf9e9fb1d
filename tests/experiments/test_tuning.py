"""Sweeps that others launch or choose: Slurm's launcher on this machine, and Optuna."""

import subprocess
import sys

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from offramp.experiments.sweeps import dataset
from offramp.experiments.sweeps.tuning import space

COMMAND = [sys.executable, "-m", "offramp.experiments.cli", "compare", "-m", "threads=1", "seeds=2", "horizon=300"]


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
