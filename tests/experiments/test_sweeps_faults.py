"""Sweeps and comparisons that meet damage, strangers, changed files and other sweeps: nothing lost, nothing mixed."""

import json
import shutil
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module

from offramp.environments.cache import HERE
from offramp.experiments import compare
from offramp.experiments.playing import Silent, play_all
from offramp.experiments.sweeps import dataset, job, keys
from offramp.experiments.sweeps.claim import claimed

COMMAND = [sys.executable, "-m", "offramp.experiments.cli", "compare", "-m", "threads=1", "seeds=2", "horizon=300"]
TWO = ("policy=ucb1,final_exit", "sweep=out")


def sweep(*arguments, cwd):
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True)


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("compare", overrides=["threads=1", "seeds=2", "horizon=300", *overrides])


def lost(cfg):
    return dataset.failure(cfg, "ValueError: broken", 0.1)


def later(rows, seconds=1.0, **other):
    return [{**row, "written": row["written"] + seconds, "key": "later", **other} for row in rows]


def tenfold(value):
    return [tenfold(v) for v in value] if isinstance(value, list) else value and 10.0 * value


def damage(path, at):
    found = bytearray(path.read_bytes())
    found[at] ^= 0xFF
    path.write_bytes(found)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def rows():
    cfg = config("policy=final_exit", "stream=stationary")
    return dataset.rows(cfg, play_all(cfg, Silent()), 0.1)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two runs, finished."""
    tmp = tmp_path_factory.mktemp("sweep")
    done = sweep(*TWO, cwd=tmp)
    assert done.returncode == 0, done.stderr
    return tmp / "out"


@pytest.fixture
def copy(swept, tmp_path):
    """The same for one test alone."""
    return shutil.copytree(swept, tmp_path / "out")


def test_a_comparison_replaces_its_own_part_alone(tmp_path):
    dataset.write_part(tmp_path, lost(config("policy=ucb1")))
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("precious")
    compare.run(config("policy=final_exit", "horizon=100", "seeds=1"), tmp_path)
    (part,) = (tmp_path / "runs").iterdir()
    assert dataset.state(part) == dataset.FINISHED
    assert (tmp_path / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ("runs/compare/old/summary.json", "runs/compare"),
        ("runs/precious.parquet", r"runs/precious\.parquet"),
        ("runs/0123456789abcdef0123.parquet", "runs of a sweep"),
        ("multirun.yaml", r"multirun\.yaml"),
        ("jobs/0/done.json", "jobs"),
    ],
)
def test_a_folder_that_holds_what_others_wrote_is_refused(tmp_path, there, told):
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("precious")
    before = content(tmp_path)
    with pytest.raises(ValueError, match=f"{told}.*, allowed is "):
        compare.run(config("policy=final_exit", "horizon=100", "seeds=1"), tmp_path)
    assert content(tmp_path) == before


def test_what_fails_after_a_run_was_written_takes_nothing_away(copy):
    before = content(copy / "runs")
    shutil.rmtree(copy / "jobs")
    (copy / "jobs" / "0" / "done.json").mkdir(parents=True)  # the note cannot be written
    done = sweep(*TWO, cwd=copy.parent)
    assert done.returncode == 1
    assert "0 runs finished, 1 were there, 0 failed" in done.stdout
    assert "1 of 2 jobs left no word" in done.stdout
    assert "IsADirectoryError" in (copy / "jobs" / "0" / "compare.log").read_text()
    assert content(copy / "runs") == before


def test_a_failure_replaces_no_result(tmp_path):
    cfg = config("policy=final_exit", "stream=stationary")
    path = dataset.write_part(tmp_path, dataset.rows(cfg, play_all(cfg, Silent()), 0.1))
    before = path.read_bytes()
    job.record_failure(cfg, tmp_path, tmp_path / "jobs" / "0", "OSError: no space")
    assert path.read_bytes() == before
    assert json.loads((tmp_path / "jobs" / "0" / "done.json").read_text())["status"] == dataset.FAILED
    path.write_bytes(before[:1000])
    job.record_failure(cfg, tmp_path, tmp_path / "jobs" / "0", "OSError: no space")
    assert dataset.state(path) == dataset.FAILED, "what cannot be read is no result"


def test_no_damage_changes_what_is_read(tmp_path, rows):
    path = dataset.write_part(tmp_path, rows)
    whole, expected = path.read_bytes(), str(dataset.load(path).to_pylist())
    found = []
    for at in range(150, len(whole), 300):
        path.write_bytes(whole)
        damage(path, at)
        try:
            found.append(str(dataset.load(path).to_pylist()))
        except ValueError as error:
            found.append(str(error))
            assert "\n" not in found[-1]
    refused = [text for text in found if text.startswith(f"{path} cannot be read")]
    assert len(refused) > 0.4 * len(found)
    assert set(found) - set(refused) == {expected}  # what the format keeps twice is not looked at


def test_damaged_parts_are_played_again(copy):
    cut, flipped = sorted((copy / "runs").iterdir())
    damage(flipped, 200)
    with pytest.raises(ValueError, match=f"{flipped.name} cannot be read .*, allowed is "):
        dataset.read(copy)
    cut.write_bytes(cut.read_bytes()[:3000])
    done = sweep(*TWO, cwd=copy.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs finished, 0 were there, 0 failed" in done.stdout
    assert len(dataset.read(copy)) == 2 * 2


def test_one_sweep_at_a_time_writes_into_a_folder(copy):
    before = content(copy / "jobs")
    with claimed(copy):
        done = sweep("policy=ucb1", "policy.beta=0.5,0.7", "sweep=out", cwd=copy.parent)
    assert done.returncode == 1
    assert "another sweep writes into" in done.stderr
    assert content(copy / "jobs") == before
    assert len(list((copy / "runs").iterdir())) == 2
    with claimed(copy):
        pass  # free again


def test_a_key_depends_on_the_files_that_a_configuration_names(tmp_path, monkeypatch):
    device = tmp_path / "device.json"
    shutil.copy(HERE / "mobilenet_v2_imagenette.device.json", device)
    cfg = config(
        "policy=final_exit", "stream=stationary", "cache=mobilenet_v2_imagenette", "world=physical",
        "device@world.prices.edge=file", f"world.prices.edge.file={device}",
    )  # fmt: skip
    first, (played,) = keys.key(cfg), play_all(cfg, Silent())
    assert keys.key(cfg) == first
    measured = json.loads(device.read_text())
    device.write_text(json.dumps({k: tenfold(v) if k.endswith("_ms") else v for k, v in measured.items()}))
    assert keys.key(cfg) != first
    (anew,) = play_all(cfg, Silent())
    costs = [p.traces["policy"][0].cost[-1] for p in (played, anew)]
    assert costs[1] == pytest.approx(10.0 * costs[0], rel=1e-3), "what was read before is not kept"

    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_rule.py"
    module.write_text("class Rule: pass\n")
    cfg = config("policy=final_exit", "policy._target_=own_rule.Rule")
    first = keys.key(cfg)
    module.write_text("class Rule: better = True\n")
    assert keys.key(cfg) != first
    assert "own_rule" not in sys.modules


def test_whole_numbers_are_the_same_with_and_without_a_point(tmp_path, rows):
    assert keys.key(config("policy=ucb1", "policy.beta=1")) == keys.key(config("policy=ucb1", "policy.beta=1.0"))
    assert keys.key(config("policy=ucb1", "policy.beta=1")) != keys.key(config("policy=ucb1", "policy.beta=true"))
    for number, text in enumerate(('{"a": [1, 2.5]}', '{"a": [1.0, 2.5]}')):
        made = later(rows, number, key=f"k{number}", policy_config=text)
        dataset.write_part(tmp_path, made[number:])  # the second has another seed alone
    frame = dataset.read(tmp_path)
    assert sorted(frame.seed) == [0, 1]
    assert set(frame.policy_config) == {'{"a": [1.0, 2.5]}'}, "the last text stands for both"


@pytest.mark.parametrize("what", ["source", "cache", "files"])
def test_seeds_of_two_versions_are_never_put_together(tmp_path, rows, what, caplog):
    dataset.write_part(tmp_path, rows)
    dataset.write_part(tmp_path, later(rows[:1], cost=9.0, **{what: "another"}))
    frame = dataset.read(tmp_path)
    assert frame[["seed", "cost"]].to_numpy().tolist() == [[0, 9.0]]
    assert frame.attrs["left_out"] == 2
    assert "2 rows of older versions are left out" in caplog.text


def test_policies_over_another_cache_are_not_compared_with(tmp_path, rows):
    dataset.write_part(tmp_path, [{**row, "policy": "other", "key": "other"} for row in rows])
    dataset.write_part(tmp_path, later(rows, source="another"))
    assert set(dataset.read(tmp_path).policy) == {"other", rows[0]["policy"]}
    dataset.write_part(tmp_path, later(rows, cache="another"))
    frame = dataset.read(tmp_path)
    assert set(frame.policy) == {rows[0]["policy"]}
    assert frame.attrs["left_out"] == 2


def test_a_failure_of_a_newer_version_is_not_hidden_by_an_older_success(tmp_path, rows):
    cfg = config("policy=final_exit", "stream=stationary")
    dataset.write_part(tmp_path, rows)
    dataset.write_part(tmp_path, later(lost(cfg), key="same"))
    assert set(dataset.read(tmp_path).status) == {dataset.FINISHED}, "of the same version the result stands"
    dataset.write_part(tmp_path, later(lost(cfg), 2.0, source="another"))
    frame = dataset.read(tmp_path)
    assert frame.status.tolist() == [dataset.FAILED]
    assert frame.attrs["left_out"] == 3


def test_parts_of_before_there_were_these_columns_are_read(tmp_path, rows):
    path = dataset.write_part(tmp_path, rows)
    dataset.pq.write_table(dataset.pq.read_table(path).drop_columns(["cache", "files"]), path)
    frame = dataset.read(tmp_path)
    assert frame.cost.tolist() == [row["cost"] for row in rows]
    assert set(frame.cache) == {""}
