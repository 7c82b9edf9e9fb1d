"""The house rules, read from the syntax trees: who may import whom, how long a file is, what a first sentence is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY = {
    "bandits": set(),
    "environments": {"bandits"},
    "models": {"environments"},
    "experiments": {"bandits", "environments", "models"},
}
NEVER = {
    "bandits": {"torch", "torchvision", "hydra", "omegaconf", "pandas", "gymnasium", "matplotlib", "ray", "PIL"},
    "environments": {"torch", "torchvision", "hydra", "omegaconf", "matplotlib", "PIL"},
    "models": {"numba", "hydra", "omegaconf", "pandas", "matplotlib"},
    "experiments": set(),
}
FILES = sorted(p for floor in MAY for p in (ROOT / floor).rglob("*.py"))


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield f"{node.module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_floor(path):
    floor = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    for name in imports(tree):
        head = name.split(".")[0]
        assert head not in MAY, f"say offramp.{name}"
        assert head not in NEVER[floor], f"{floor} must not import {head}"
        if head == "offramp" and "." in name:
            inner = name.removeprefix("offramp.")
            target = inner.split(".")[0]
            assert target == floor or target in MAY[floor] or inner in MAY[floor], f"{floor} must not import {name}"
    assert ast.get_docstring(tree), "a file begins with a sentence that says what it knows"
    assert path.read_text().count("\n") <= 400, "one idea, one file"
    if floor != "experiments":
        printed = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
        assert not printed, "a library does not print"
    caught = [n.type for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler)]
    assert not [t for t in caught if t is None or getattr(t, "id", None) == "Exception"], "name what is caught"


def test_there_is_no_import_circle():
    graph = {}
    for path in FILES:
        module = "offramp." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        body = ast.parse(path.read_text()).body
        graph[module] = {n.module for n in body if isinstance(n, ast.ImportFrom)}
    done, open_ = set(), []

    def visit(module):
        assert module not in open_, f"circle: {[*open_, module]}"
        if module in done or module not in graph:
            return
        open_.append(module)
        for other in graph[module]:
            visit(other)
        open_.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_kernels_keep_to_the_dialect():
    """No numpy call inside a kernel: numpy's and numba's logarithms differ in the last bit."""
    for path in (ROOT / "bandits").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(getattr(d, "id", "") == "kernel" for d in node.decorator_list):
                names = {
                    n.value.id for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
                }
                assert "np" not in names, f"{path.name}: {node.name} calls numpy"
                assert not any(isinstance(n, ast.MatMult) for n in ast.walk(node)), f"{path.name}: {node.name} uses @"


def test_the_ground_floor_is_light():
    heavy = ("torch", "torchvision", "hydra", "pandas", "matplotlib", "gymnasium", "ray")
    code = f"import sys, offramp.bandits; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_core_runs_without_numba():
    """Same decisions from plain Python in a process that has no numba."""
    code = (
        "import sys; {block}\n"
        "from offramp.bandits import *\n"
        "import math\n"
        "e = Engine(UCB1(), arms=Arms.grid(exits=3), seed=0)\n"
        "q = Quote(edge_cost=[0, .1, .2, .4], offload_cost=[.5, .3, .1, 0], mu=1)\n"
        "for t in range(200):\n"
        "    d = e.decide(q)\n"
        "    c = .5 + .4 * math.sin(t) ** 2\n"
        "    local = d.cut == 3 or c >= d.threshold\n"
        "    seen = [math.nan] * 3; seen[d.cut - 1] = c\n"
        "    if not local: seen[2] = .9\n"
        "    e.update(d, Observation(confidence=seen, answered_at=d.cut if local else 3, offloaded=not local))\n"
        "print('numba' in sys.modules, e.state().tobytes().hex())\n"
    )
    plain, compiled = (
        subprocess.run(
            [sys.executable, "-c", code.replace("{block}", b)], capture_output=True, text=True, check=True
        ).stdout.split()
        for b in ("sys.modules['numba'] = None", "pass")
    )
    assert plain[1] == compiled[1]


def test_no_path_or_host_of_a_machine():
    out = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True
    )
    words = [f"/{'wo'}rk/", f"/{'ro'}ot/", f"/{'tm'}p/", f"/{'ho'}me/", f"pypi.{'or'}g", f"python{'ho'}sted"]
    found, looked = [], set()
    for name in out.stdout.split():
        path = ROOT / name
        raw = path.read_bytes() if path.is_file() and not path.is_symlink() else b"\0"
        if b"\0" not in raw:  # records and pictures too: what is no text has a zero byte
            looked.add(path.suffix)
            found += [f"{name}: {word}" for word in words if word.encode() in raw]
    assert not found
    assert {".py", ".md", ".json", ".svg", ".yaml"} <= looked
