"""The wheel works in a clean environment, beside another distribution that has a top-level package `models`."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OTHER = '[project]\nname = "otherdist"\nversion = "1"\n[tool.setuptools]\npackages = ["models", "conf"]\n'
PROGRAM = """
import models, conf
assert models.MINE == "theirs" and conf.MINE == "theirs"
import importlib.util
for name in ("bandits", "environments", "experiments"):
    assert importlib.util.find_spec(name) is None, name
assert importlib.util.find_spec("torch") is None
from offramp.bandits import Arms, Engine, Quote, SplitEE
from offramp.environments import ConfidenceCache
cache = ConfidenceCache.embedded("mobilenet_v2_cifar10")
engine = Engine(SplitEE(), arms=Arms.grid(exits=len(cache.exits)), seed=0)
print(engine.decide(Quote(edge_cost=[0.1] * 8, offload_cost=[0.1] * 7 + [0], mu=1)).cut)
"""


def run(*command, cwd=None):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist, built from the files that git knows."""
    tmp = tmp_path_factory.mktemp("build")
    listed = run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard").split("\n")
    for name in filter(None, listed):
        source, target = ROOT / name, tmp / "src" / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp / "dist", tmp / "src")
    return next((tmp / "dist").glob("*.whl")), next((tmp / "dist").glob("*.tar.gz"))


@pytest.mark.long
def test_wheel_installs_beside_another_models_package(built, tmp_path):
    other = tmp_path / "other"
    for name in ("models", "conf"):
        (other / name).mkdir(parents=True)
        (other / name / "__init__.py").write_text('MINE = "theirs"\n')
    (other / "pyproject.toml").write_text(OTHER)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, other)
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "env")
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, next(tmp_path.glob("otherdist*.whl")))
    run(*pip, built[0])
    assert run(python, "-c", PROGRAM, cwd=tmp_path).strip() == "1"
    run(python, "-m", "pip", "uninstall", "-q", "-y", "offramp")
    assert run(python, "-c", "import models; print(models.MINE)", cwd=tmp_path).strip() == "theirs"


ENGINE = """
import importlib.util, math, sys
from offramp.bandits import Arms, ChainUCB, EpsilonGreedy, Engine, Observation, Quote
for policy in (ChainUCB(), EpsilonGreedy()):
    engine = Engine(policy, arms=Arms.grid(exits=3), seed=0)
    quote = Quote(edge_cost=[0, .05, .1, .3], offload_cost=[.4, .3, .2, 0], mu=1)
    for t in range(300):
        decision = engine.decide(quote)
        truth = [.5 + .4 * math.sin(t + j) ** 2 for j in range(3)]
        at = next((j + 1 for j in range(decision.cut) if truth[j] >= decision.thresholds[j]), 0)
        shown = truth[: at or decision.cut] + [math.nan] * (3 - (at or decision.cut))
        seen = shown if at else shown[:2] + truth[2:]
        engine.update(decision, Observation(confidence=seen, answered_at=at or 3, offloaded=at == 0))
    print(engine.state().tobytes().hex())
print([name for name in ("numba", "llvmlite", "safetensors", "scipy") if importlib.util.find_spec(name)])
"""


def test_a_small_device_needs_numpy_alone(built, tmp_path):
    """Without Numba, and without anything but NumPy, the engine decides and learns the same, bit for bit."""
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "env")
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "--no-deps", built[0])
    run(*pip, "numpy")
    *small, modules = run(python, "-c", ENGINE, cwd=tmp_path).splitlines()
    assert modules == "[]"
    *here, modules = run(sys.executable, "-c", ENGINE, cwd=tmp_path).splitlines()
    assert "numba" in modules
    assert small == here


def test_distributions_hold_what_they_need(built):
    wheel = set(zipfile.ZipFile(built[0]).namelist())
    inside = {n for n in wheel if ".dist-info" not in n}
    assert {n.split("/")[0] for n in inside} == {"offramp"}
    for name in (
        "offramp/py.typed",
        "offramp/conf/compare.yaml",
        "offramp/conf/policy/splitee.yaml",
        "offramp/conf/heads/alexnet.yaml",
        "offramp/conf/calibration.yaml",
        "offramp/experiments/expert_branches/__init__.py",
        "offramp/models/router_linear.safetensors",
        "offramp/models/router_spectrum.safetensors",
        *(
            path.format(network)
            for network in ("mobilenet_v2_cifar10", "alexnet_cifar10")
            for path in (
                "offramp/environments/{}.safetensors",
                "offramp/environments/{}.logits.safetensors",
                "offramp/models/{}.safetensors",
                "offramp/models/{}.experts.safetensors",
                "offramp/experiments/{}.samples.png",
            )
        ),
    ):
        assert name in wheel, name
    of_studies = {n.removeprefix("offramp/experiments/") for n in wheel if n.startswith("offramp/experiments/")}
    assert {n for n in of_studies if not n.endswith((".py", ".samples.png"))} == {
        "joint_policy/tuned.json",
        *(f"{study}/result.json" for study in ("calibration", "expert_branches")),
    }
    with tarfile.open(built[1]) as sdist:
        names = {n.split("/", 1)[1] for n in sdist.getnames() if "/" in n}
    assert {"LICENSE", "README.md", "setup.py", "conf/compare.yaml", "bandits/ucb1.py"} <= names


def test_sizes():
    assert (ROOT / "environments" / "mobilenet_v2_cifar10.safetensors").stat().st_size <= 20e6
    assert (ROOT / "models" / "mobilenet_v2_cifar10.safetensors").stat().st_size <= 6e6
