"""The reference: a page for each package, from its docstrings; one for the commands, from their configuration."""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGES = (  # studies are not here: what they found is under Results
    "bandits",
    "bandits/durable",
    "environments",
    "environments/timed",
    "environments/published",
    "environments/live",
    "models",
    "experiments",
    "experiments/offpolicy",
    "experiments/on_ray",
    "experiments/service",
    "experiments/sweeps",
)
OTHERS, SPLIT = "-others", 20  # a package that exports from so many modules gets two pages
COMPILED = {"kernel", "compiled"}
NAMES = (
    ROOT / "build" / "names" / "offramp"
)  # the folders under the name that they are installed as, for what reads docstrings


def on_startup(command: str, dirty: bool) -> None:
    """Lay the links, which say what setup.py says."""
    NAMES.mkdir(parents=True, exist_ok=True)
    there = {"__init__.py": ROOT / "src" / "offramp" / "__init__.py"}
    there |= {p: ROOT / p for p in ("bandits", "environments", "models", "experiments", "conf")}
    for name, target in there.items():
        if not (NAMES / name).exists():
            (NAMES / name).symlink_to(target)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation."""
    pages = [{"Commands": "reference/commands.md"}, {"Configuration": "reference/configuration.md"}]
    for p in PACKAGES:
        if (ROOT / p / "__init__.py").exists():
            made = package(ROOT / p)
            pages += [{page.replace(OTHERS, ", others"): f"reference/{page}.md"} for page in made]
    for part in config.nav:
        if isinstance(part, dict) and part.get("Reference") == []:
            part["Reference"] = pages
    config.watch += [str(ROOT / p) for p in ("bandits", "environments", "models", "experiments", "conf")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Write the pages."""
    made = {"commands": commands(), "configuration": configuration()}
    for p in PACKAGES:
        if (ROOT / p / "__init__.py").exists():
            made |= package(ROOT / p)
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def dotted(package: str) -> str:
    """Name of a package as it is imported."""
    return "offramp." + package.replace("/", ".")


def package(folder: Path) -> dict[str, str]:
    """The pages of one package, by name: what it exports, and the rest, module by module."""
    name = dotted(folder.relative_to(ROOT).as_posix())
    exported = exports(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    first, rest = [], []
    for path in sorted(folder.glob("[!_]*.py")):
        public = [n.name for n in ast.parse(path.read_text(encoding="utf-8")).body if documented(n)]
        known = [n for n in public if n in exported]
        (first if known else rest).append(section(f"{name}.{path.stem}", known or public))
    head = (
        f"# {name}\n\n::: {name}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}"
    )
    if len(first) < SPLIT:
        return {name: "\n\n".join([head, *first, *rest])}
    others = f"# {name}, other modules\n\nWhat the package exports has [a page of its own]({name}.md)."
    return {
        name: "\n\n".join(
            [head, f"This page shows what it exports; its [other modules]({name}{OTHERS}.md) follow.", *first]
        ),
        name + OTHERS: "\n\n".join([others, *rest]),
    }


def section(module: str, members: list[str]) -> str:
    """One module on the page of its package."""
    chosen = ", ".join(members)
    return f"::: {module}\n    options:\n      heading_level: 2\n      members: {f'[{chosen}]' if members else 'false'}"


def exports(tree: ast.Module) -> set[str]:
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def documented(node: ast.stmt) -> bool:
    """Is this a public class or function with a docstring, and not the compiled text of a policy?"""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
        return False
    marks = {getattr(getattr(d, "func", d), "id", "") for d in node.decorator_list}
    return ast.get_docstring(node) is not None and not marks & COMPILED


def commands() -> str:
    """Every command with its configuration file, whose comments say what each option means."""
    tree = ast.parse((ROOT / "experiments" / "cli.py").read_text(encoding="utf-8"))
    table = next(n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "COMMANDS")
    text = [
        "# Commands",
        "`offramp COMMAND key=value ...`; each is a Hydra program, and `--help` shows its options. "
        "The files below are the defaults, and their comments say what each option means.",
    ]
    for name, what in ast.literal_eval(table).items():
        text.append(f"## offramp {name}\n\n{what[0].upper()}{what[1:]}.")
        file = ROOT / "conf" / f"{name}.yaml"
        if file.exists():
            text.append(yaml(file))
    return "\n\n".join(text) + "\n"


def configuration() -> str:
    """Every option of every group."""
    text = ["# Configuration", "What can be chosen by `group=name` on the command line of `offramp`."]
    for group in sorted({p.parent for p in (ROOT / "conf").rglob("*.yaml")} - {ROOT / "conf"}):
        text.append(f"## {group.relative_to(ROOT / 'conf').as_posix()}")
        text += [yaml(file) for file in sorted(group.glob("*.yaml"))]
    return "\n\n".join(text) + "\n"


def yaml(file: Path) -> str:
    """A file of the configuration as a block."""
    path = file.relative_to(ROOT).as_posix()
    return f'```yaml title="{path}"\n{file.read_text(encoding="utf-8").rstrip()}\n```'
