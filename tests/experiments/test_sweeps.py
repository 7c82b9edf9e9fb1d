"""Sweeps: one data set from many jobs, on processes; what was broken off goes on; what fails is recorded."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import open_dict

from offramp.experiments.playing import Silent, play_all
from offramp.experiments.results import table
from offramp.experiments.sweeps import dataset, keys

COMMAND = [sys.executable, "-m", "offramp.experiments.cli", "compare", "-m", "threads=1", "seeds=2", "horizon=300"]


def sweep(*arguments, cwd):
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True)


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("compare", overrides=["threads=1", "seeds=2", "horizon=300", *overrides])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two streams, three values of which one is none: on two processes."""
    tmp = tmp_path_factory.mktemp("sweep")
    done = sweep(
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "stream=abrupt,stationary", "policy=ucb1",
        "policy.beta=1.0,2.0,-1.0", "sweep=out", cwd=tmp,
    )  # fmt: skip
    return tmp / "out", done


def test_a_failing_run_is_recorded_and_the_others_go_on(swept):
    folder, done = swept
    assert done.returncode == 1
    assert "4 runs finished, 0 were there, 2 failed" in done.stdout
    frame = dataset.read(folder)
    lost = frame[frame.status == dataset.FAILED]
    assert sorted(lost.stream) == ["abrupt", "stationary"]
    assert lost.why.str.contains("beta is -1.0").all()
    assert lost.why.str.contains("Traceback").all()
    assert json.loads(lost.policy_config.iloc[0])["beta"] == -1.0
    assert len(frame[frame.status == dataset.FINISHED]) == 2 * 2 * 2
    status = json.loads((folder / "status.json").read_text())
    assert (status["total"], status["finished"], status["failed"], status["running"]) == (6, 4, 2, False)
    assert status["seconds_left"] == 0.0


def test_the_rows_are_those_of_a_comparison_alone(swept):
    folder, _ = swept
    frame = dataset.read(folder)
    found = frame[(frame.stream == "abrupt") & frame.policy_config.str.contains('"beta": 2.0')].set_index("seed")
    (played,) = play_all(config("policy=ucb1", "policy.beta=2.0"), Silent())
    alone = table(played).set_index("seed")
    assert found.regret_total.tolist() == alone.regret_total.tolist()
    assert found.accuracy.tolist() == alone.accuracy.tolist()
    assert np.allclose(found.regret_sum[1], played.traces["policy"][1].sums["regret"], rtol=1e-6)
    assert found.rounds[0].tolist() == played.traces["policy"][0].rounds.tolist()


def test_finished_runs_are_not_repeated_and_failures_may_be_allowed(swept):
    folder, _ = swept
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").iterdir() if dataset.state(p) == dataset.FINISHED}
    assert len(before) == 4
    done = sweep(
        "stream=stationary,recurring", "policy=ucb1", "policy.beta=2.0,-1.0", "sweep=out", "allow_failures=true",
        cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 runs finished, 1 were there, 2 failed" in done.stdout
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert len(dataset.read(folder)) == 5 * 2 + 3


def test_a_sweep_that_is_killed_goes_on(tmp_path):
    arguments = [
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "policy=ucb1,final_exit",
        "stream=abrupt,stationary,gradual", "sweep=out",
    ]  # fmt: skip
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        lines = []
        for line in running.stdout:
            lines.append(line)
            if "finished in" in line:
                break
        else:
            pytest.fail("".join(lines))
        os.killpg(running.pid, signal.SIGKILL)
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").glob("[!.]*.parquet")}
    assert parts
    done = sweep(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{6 - len(parts)} runs finished, {len(parts)} were there, 0 failed" in done.stdout
    assert all(path.stat().st_mtime_ns == at for path, at in parts.items())
    assert len(dataset.read(tmp_path / "out")) == 6 * 2


def test_what_is_not_offered_is_no_failure(tmp_path):
    done = sweep("policy=send_input", "world=default,isplitee", "sweep=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 runs finished, 0 were there, 1 were not offered, 0 failed" in done.stdout
    frame = dataset.read(tmp_path / "out").set_index("world")
    assert frame.status["default"] == dataset.REFUSED
    assert (frame.status["isplitee"] == dataset.FINISHED).all()


def test_a_key_depends_on_what_the_result_depends_on(tmp_path, monkeypatch):
    first = keys.key(config("policy=ucb1"))
    assert keys.key(config("policy=ucb1", "folder=x", "sweep=y", "objective=cost", "allow_failures=true")) == first
    assert (
        len({first, *(keys.key(config("policy=ucb1", o)) for o in ("seeds=3", "split=validation", "policy.beta=2"))})
        == 4
    )
    monkeypatch.setattr(keys, "source_digest", lambda: "another text")
    assert keys.key(config("policy=ucb1")) != first


def test_the_last_version_of_a_run_counts(tmp_path):
    cfg = config("policy=final_exit", "stream=stationary")
    rows = dataset.rows(cfg, play_all(cfg, Silent()), 0.1)
    dataset.write_part(tmp_path, rows)
    for row in rows:
        row |= {"key": "later", "source": "another", "written": row["written"] + 1.0, "cost": 9.0}
    dataset.write_part(tmp_path, rows)
    assert dataset.read(tmp_path).cost.tolist() == [9.0, 9.0]
    with open_dict(cfg):
        cfg.seeds = 3
    more = dataset.rows(cfg, play_all(cfg, Silent()), 0.1)
    dataset.write_part(tmp_path, [{**row, "written": row["written"] + 2.0} for row in more])
    assert sorted(dataset.read(tmp_path).seed) == [0, 1, 2]
    lost = dataset.failure(cfg, "later it failed", 0.0)
    dataset.write_part(tmp_path, [{**row, "key": "lost", "written": row["written"] + 3.0} for row in lost])
    frame = dataset.read(tmp_path)
    assert sorted(frame.seed) == [0, 1, 2]
    assert set(frame.status) == {dataset.FINISHED}, "a result stands, though the same run failed later"


def test_a_part_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no runs"):
        dataset.read(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "odd.parquet").write_bytes(b"odd")
    with pytest.raises(ValueError, match=r"odd\.parquet cannot be read"):
        dataset.read(tmp_path)
