"""On what the numbers were taken: as facts for the record, and in words."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from yardstick import FLAGS

PACKAGES = (
    "offramp", "numpy", "numba", "llvmlite", "scipy", "pandas", "pyarrow", "torch", "gymnasium", "hydra-core",
    "uvicorn", "starlette", "river", "lightrl", "mabwiser",
)  # fmt: skip
ABSENT = "not installed"


def machine() -> dict[str, Any]:
    """Processor, memory, system, interpreter, compiler, and releases of packages."""
    model, virtual = platform.processor() or platform.machine(), False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
        virtual = re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None
    except (OSError, StopIteration):
        pass
    compiler = shutil.which("gcc") or shutil.which("cc")
    asked = [compiler, "--version"] if compiler else None
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines() if asked else []
    number = re.match(r"[\d.]*\d", platform.release())
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "virtual": virtual,
        "gigabytes": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": " ".join(
            [platform.system(), number[0] if number else platform.release(), *platform.libc_ver()]
        ).strip(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": said[0] if said else "none",
        "flags": " ".join(FLAGS),
        "packages": {name: release(name) for name in PACKAGES},
    }


def release(package: str) -> str:
    """The installed release of a package, or `ABSENT`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def load() -> list[float] | None:
    """Processes that ran or waited to, on average over 1, 5 and 15 minutes; None where the system does not count."""
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None


def in_words(facts: dict[str, Any]) -> str:
    """One sentence about the machine, one about what runs on it."""
    kind = "a virtual machine" if facts["virtual"] else "a machine"
    held = [f"{name} {number}" for name, number in facts["packages"].items() if number != ABSENT]
    missing = [name for name, number in facts["packages"].items() if number == ABSENT]
    return (
        f"{kind.capitalize()} with {facts['cores']} cores of a processor that calls itself {facts['processor']}, and"
        f" {facts['gigabytes']:g} GB of memory; {facts['system']}.\n"
        f"{facts['python']}; C by {facts['compiler']} with `{facts['flags']}`; {', '.join(held)}"
        f"{f'; {ABSENT}: ' + ', '.join(missing) if missing else ''}."
    )
