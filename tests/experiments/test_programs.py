"""The programs as a user runs them: images to weights, weights to a cache, a cache to a report; sweeps; bad input."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from offramp.experiments import compare, results
from offramp.experiments.cli import COMMANDS
from offramp.experiments.sweeps import dataset

CONF = Path(__file__).parents[2] / "conf"


def offramp(*arguments, cwd):
    command = [sys.executable, "-m", "offramp.experiments.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def offramp_report(folder):
    command = [sys.executable, "-m", "offramp.experiments.report", str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def config(name, *overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("compare")
    done = offramp("compare", "world=demo", "horizon=600", "seeds=3", "folder=out", cwd=tmp)
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp / "out", done.stdout


def test_compare_prints_its_table_and_the_path_of_the_report(run_folder):
    folder, out = run_folder
    for head in ("cost", "saved", "accuracy", "change", "agreement", "offloaded", "regret", "µs/round"):
        assert head in out
    assert "world default" in out
    assert "not offered in this world" in out
    assert str(folder / "report.html") in out


def test_compare_writes_its_run_folder(run_folder):
    folder, _ = run_folder
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    frame = pd.read_parquet(folder / "results.parquet")
    traces = pd.read_parquet(folder / "traces.parquet")
    assert len(lines) == len(frame) == 3 * (11 + 11 + 12)
    assert set(traces["world"]) == {"default", "experts", "isplitee"}
    assert summary["worlds"]["isplitee"]["offload_first"]["cost_saved"]["mean"] == pytest.approx(0.5789, abs=1e-3)
    assert summary["worlds"]["isplitee"]["offload_first"]["accuracy_change"]["mean"] == 0.0
    assert summary["refused"]["default"].keys() == {"send_input"}
    assert frame[frame.policy == "final_exit"].agreement.eq(1.0).all()
    arms = frame.policy != "chain_ucb"  # its rules stand outside the table that regret is measured against
    assert (frame[arms].regret_total >= -1e-9).all()
    assert np.isfinite(frame.regret_total).all()
    last = traces[traces["round"] == 600]
    both = frame.merge(last, on=["world", "policy", "seed"], suffixes=("", "_trace"), validate="one_to_one")
    assert len(both) == len(frame)
    assert np.allclose(both.regret_total, both.regret)


def test_report_is_one_page_that_holds_everything(run_folder):
    page = (run_folder[0] / "report.html").read_text(encoding="utf-8")
    drawn = {path.stem for path in (run_folder[0] / "figures").glob("*.svg")}
    assert page.count("<svg") == len(drawn)
    assert {f"{world}-{name}" for world in ("default", "isplitee") for name in ("regret", "front", "isplitee")} < drawn
    assert {"exits", "samples"} < drawn
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert "src=" not in page
    for text in (
        "cumulative regret (confidence units)",
        "cost per image (cost units)",
        "accuracy (%)",
        "round",
        "95 %",
    ):
        assert text in page
    for condition in ("pristine", "blur 2.0", "noise 40", "jpeg 10"):
        assert condition in page


@pytest.mark.long
def test_a_sweep_as_typed_in_the_readme(tmp_path):
    done = offramp(
        "compare", "-m", "policy=splitee,ucb1", "stream=abrupt,recurring", "seed=range(2)", "horizon=200",
        "sweep=sweep", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("sweep/runs/*.parquet"))) == 8
    frame = dataset.read(tmp_path / "sweep")
    assert frame.groupby(["policy", "stream"]).seed.apply(sorted).tolist() == [[0, 1]] * 4
    done = offramp_report(tmp_path / "sweep")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8").count("n = 2 seeds") > 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance"], "there is no command 'dance', allowed are"),
        (["compare", "cache=nonesuch"], "embedded cache 'nonesuch' does not exist, allowed are"),
        (["compare", "stream.segments=[[fog,1.0]]"], "condition 'fog' is not in this cache, allowed are"),
        (["compare", "horizon=0"], "horizon is 0, allowed is a whole number, 1 or more"),
        (["compare", "split=train"], "split is 'train', allowed are"),
        (["compare", "policy=splitee", "policy.threshold=0.77"], "threshold 0.77 is not in the table of arms"),
        (["compare", "polcy=ucb1"], "polcy"),
        (["compare", "world.routing=nobody"], "routing is 'nobody', allowed with this cache are"),
        (["compare", "world.calibration=platt"], "calibration is 'platt', allowed in this cache are"),
        (["train", "data.root=nowhere"], "give a folder that holds cifar-10-batches-py"),
        (["experts", "data.root=nowhere"], "give a folder that holds cifar-10-batches-py"),
    ],
)
def test_bad_input_is_named(arguments, message, tmp_path):
    done = offramp(*arguments, *([] if arguments == ["dance"] else ["folder=out"]), cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not list(tmp_path.glob("out/*.html"))


def test_help_names_every_command(tmp_path):
    out = offramp("--help", cwd=tmp_path).stdout
    assert all(name in out for name in COMMANDS)
    for name in COMMANDS:
        help_ = offramp(name, "--help", cwd=tmp_path)
        assert help_.returncode == 0
        assert f"offramp {name}" in help_.stdout


@pytest.mark.parametrize("name", ["cloud", "edge"])
def test_help_without_torch_explains_every_option(name, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    command = [sys.executable, "-m", "offramp.experiments.cli", name]
    paths = os.environ | {"PYTHONPATH": str(tmp_path)}
    bare = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True)
    assert bare.returncode == 1
    assert "needs torch" in bare.stderr
    for more in ([], ["threads=2"]):
        help_ = subprocess.run([*command, *more, "--help"], cwd=tmp_path, env=paths, capture_output=True, text=True)
        assert help_.returncode == 0, help_.stderr
    lines = help_.stdout.split("_self_")[1].split("What the groups")[0].splitlines()
    options = [line for line in lines if ":" in line.partition("#")[0]]
    assert len(options) > 12
    assert [line for line in options if "#" not in line and "_target_" not in line] == []
    assert "OFFRAMP_CLOUD_KEY" in help_.stdout
    assert "mobilenet_v2" in help_.stdout.split("What the groups")[1]


@pytest.mark.parametrize("group", ["policy", "stream", "world"])
def test_every_configuration_composes_and_runs(group, embedded):
    for path in sorted((CONF / group).glob("*.yaml")):
        cfg = config("compare", f"{group}={path.stem}")
        cache = embedded.part("test")
        worlds = compare.several(cfg.world, "prices", "world")
        made = {name: compare.make_world(part, cache) for name, part in worlds.items()}
        stream = instantiate(cfg.stream, _convert_="all")
        for world in made.values():
            assert world.arrays(stream.conditions, stream.links).gap.min() == 0.0
        assert compare.several(cfg.policy, "_target_", "policy")


def test_intervals():
    found = results.interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["half"] == pytest.approx(4.303 / np.sqrt(3))
    assert np.isnan(results.interval([1.0])["half"])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files in CIFAR-10's own layout, with random pixels; their MD5 sums by name."""
    folder = tmp_path_factory.mktemp("images") / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sums = {}
    for name, n in [*((f"data_batch_{i}", 1_040) for i in range(1, 6)), ("test_batch", 60)]:
        rows = {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), "labels": rng.integers(0, 10, n).tolist()}
        (folder / name).write_bytes(pickle.dumps(rows))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    return folder.parent, sums


def same_tensors(one, other, schema, weights):
    first, second = (weights.read_tensors(path, schema) for path in (one, other))
    return first[1] == second[1] and all(tensor.equal(second[0][name]) for name, tensor in first[0].items())


def test_images_to_weights_to_cache_to_report(images, tmp_path, monkeypatch):
    """Train, experts, extract, compare: the whole way on a few images, each program resuming what is there."""
    from offramp.environments import ConfidenceCache
    from offramp.environments.logits import LogitTable
    from offramp.experiments import experts, extract, train
    from offramp.models import data, weights
    from offramp.models.experts import SCHEMA, Experts

    root, sums = images
    for field in ("train_list", "test_list"):
        monkeypatch.setattr(data.CIFAR10, field, [[name, sums[name]] for name, _ in getattr(data.CIFAR10, field)])
    monkeypatch.setattr(data.CIFAR10, "meta", {**data.CIFAR10.meta, "md5": sums["batches.meta"]})
    few = [f"data.root={root}", "threads=1", "name=tiny"]
    cfg = config("train", *few, "images=40", f"folder={tmp_path / 'train'}", "spec.epochs=1", "spec.batch=20")
    cfg.spec.small_epochs = 0
    trained = train.run(cfg)
    kept = trained.rename(tmp_path / "first.safetensors")
    assert same_tensors(kept, train.run(cfg), weights.SCHEMA, weights)
    assert trained.stat().st_size <= 6e6
    text = trained.with_suffix(".md").read_text()
    for word in ("data sha256 (train)", "epochs", "seed", "accuracy", "mean confidence"):
        assert word in text

    folder = tmp_path / "experts"
    cfg = config(
        "experts", *few, "images=30", f"folder={folder}", f"weights={trained}", "spec.epochs=1", "heads.hidden=4"
    )
    taught = experts.run(cfg)
    assert sorted(p.stem for p in folder.glob("*.safetensors")) == [
        "blur",
        "light",
        "noise",
        "pristine",
        "tiny.experts",
    ]
    kept = taught.rename(tmp_path / "second.safetensors")
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}
    assert same_tensors(kept, experts.run(cfg), SCHEMA, weights)
    assert all(p.stat().st_mtime_ns == at for p, at in before.items()), "finished experts are not written again"
    assert taught.with_suffix(".md").read_text().count("\n| ") == 1 + 4 + 1 + 16
    network = instantiate(cfg.network)
    assert weights.load_weights(network, trained)["epochs"] == 1
    assert Experts.load(network, taught).hidden == 4

    folder = tmp_path / "extract"
    cfg = config("extract", *few, "images=200", f"weights={trained}", f"experts={taught}", f"folder={folder}")
    cfg.small = {"validation": 15, "logits": 20}
    cfg.conditions = [cfg.conditions[0], cfg.conditions[3]]
    made = extract.run(cfg)
    assert made == folder / "tiny.safetensors"
    small, every = (ConfidenceCache.load(folder / f"tiny{kind}.safetensors") for kind in ("", ".all"))
    table = LogitTable.load(folder / "tiny.logits.safetensors")
    assert every.confidence.shape == (2, 4, 200 + 60, 7)
    assert small.confidence.shape == (2, 4, 15 + 60, 7)
    assert table.codes.shape == (2, 4, 15 + 20, 7, 10)
    assert small.profile.layers == (3, 6, 9, 12, 15, 18, 19)
    assert small.profile.router_macs > 0
    rows = np.r_[:15, 200:260]
    assert np.array_equal(small.sample, every.sample[rows])
    assert np.array_equal(small.prediction, every.prediction[:, :, rows])
    assert np.abs(small.confidence - every.confidence[:, :, rows]).max() <= 3.7e-4
    assert np.array_equal(table.sample, every.sample[np.r_[:15, 200:220]])
    assert small.hashes == every.hashes == table.hashes
    assert sorted(small.calibrations) == ["exit", "expert_exit", "global"]
    assert (folder / "tiny.samples.png").stat().st_size > 1_000

    arguments = [f"cache={made}", "horizon=100", "seeds=2", "policy=isplitee", "stream=stationary", "world=experts"]
    report = compare.run(config("compare", *arguments, f"folder={tmp_path / 'out'}"), tmp_path / "out")
    assert "<svg" in report.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["config"]["world"]["routing"] == "predicted"
