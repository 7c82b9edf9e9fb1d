"""`offramp import` as a user runs it: files in, cache and account out; clear errors, and no part of a file."""

import subprocess
import sys

import pytest

from offramp.environments import CacheError, ConfidenceCache
from offramp.experiments.import_published import overrides

LONG = "Sample_ID,Exit,Confidence,Prediction,Label\n0,0,.5,1,1\n0,1,.75,1,1\n1,0,.5,0,1\n1,1,.75,1,1\n"
WIDE = ",distortion_type,distortion_lvl,p_tar,target,conf_branch_1,infered_class_branches_1,correct_branch_1\n"


def offramp(*arguments, cwd):
    command = [sys.executable, "-m", "offramp.experiments.cli", "import", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_files_become_a_cache_with_an_account(tmp_path):
    name = "data(3,6)'s=x.csv"
    (tmp_path / name).write_text(LONG)
    (tmp_path / "other.csv").write_text(LONG.replace(".75", "1.0"))
    done = offramp(name, "other.csv", "layers=[3,12]", "out=made/cache.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (name, "buffer_long", "2 samples x 1 conditions x 2 exits", "made/cache.safetensors", "missing"):
        assert said in done.stdout
    cache = ConfidenceCache.load(tmp_path / "made" / "cache.safetensors")
    assert [c.name for c in cache.conditions] == ["data(3,6)'s=x", "other"]
    assert cache.profile.layers == (3, 12)
    assert cache.confidence[:, 0, 0].tolist() == [[0.5, 0.75], [0.5, 1.0]]
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted([name, "other.csv", "made", "cache.safetensors"])


def test_where_and_the_name_of_the_cache(tmp_path):
    (tmp_path / "inference.csv").write_text(WIDE + "0,blur,1,0.7,3,.5,3,1\n0,blur,1,0.8,3,.25,3,1\n")
    done = offramp("inference.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert "line 3: found for ['p_tar'] = [0.8] other samples" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["inference.csv"]
    done = offramp("inference.csv", "where={p_tar: 0.8}", "classes=10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cache = ConfidenceCache.load(tmp_path / "inference.safetensors")
    assert (cache.confidence.item(), cache.classes) == (0.25, 10)


def test_words_on_the_command_line():
    assert overrides(["--help"]) == ["--help"]
    assert overrides(["a.csv", "--cfg", "job", "b\\c.csv", "out=x"]) == [
        "--cfg",
        "job",
        "out=x",
        r"files=['a.csv','b\\c.csv']",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "files are none, allowed is one or more"),
        (["none.csv"], "none.csv cannot be read"),
        (["long.csv", "layout=other"], "layout is 'other', allowed are ['early_exit'"),
        (["long.csv", "out=long.csv"], "out is long.csv, allowed are names that end in .safetensors"),
        (["long.csv", "layers=[1]"], "layers are [1], allowed are 2 whole numbers"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path, monkeypatch, arguments, message):
    from hydra import compose, initialize_config_module

    from offramp.experiments.import_published import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.csv").write_text(LONG)
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("import", overrides=overrides(arguments))
    with pytest.raises(CacheError) as caught:
        run(cfg)
    assert message in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["long.csv"]
