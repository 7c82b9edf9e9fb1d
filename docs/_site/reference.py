"""The reference: one page for each package, made from docstrings; one for the commands, made from their configuration."""

import ast
from pathlib import Path

from mkdocs.structure.files import File

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
COMPILED = {"kernel", "compiled"}
NAMES = ROOT / "build" / "names" / "offramp"  # the folders under the name that they are installed as, for what reads docstrings


def on_startup(command, dirty):
    """Lay the links, which say what setup.py says."""
    NAMES.mkdir(parents=True, exist_ok=True)
    there = {"__init__.py": ROOT / "src" / "offramp" / "__init__.py"}
    there |= {p: ROOT / p for p in ("bandits", "environments", "models", "experiments", "conf")}
    for name, target in there.items():
        if not (NAMES / name).exists():
            (NAMES / name).symlink_to(target)


def on_config(config):
    """Fill the navigation."""
    pages = [{"Commands": "reference/commands.md"}, {"Configuration": "reference/configuration.md"}]
    pages += [{dotted(p): f"reference/{dotted(p)}.md"} for p in PACKAGES if (ROOT / p / "__init__.py").exists()]
    for part in config.nav:
        if isinstance(part, dict) and part.get("Reference") == []:
            part["Reference"] = pages
    config.watch += [str(ROOT / p) for p in ("bandits", "environments", "models", "experiments", "conf")]
    return config


def on_files(files, config):
    """Write the pages."""
    made = {"commands": commands(), "configuration": configuration()}
    made |= {dotted(p): package(ROOT / p) for p in PACKAGES if (ROOT / p / "__init__.py").exists()}
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def dotted(package):
    """Name of a package as it is imported."""
    return "offramp." + package.replace("/", ".")


def sentence(tree):
    """The first sentence of a module: its first line."""
    return (ast.get_docstring(tree) or "").split("\n")[0]


def package(folder):
    """The page of one package: what it exports first, then the rest, module by module."""
    name = dotted(folder.relative_to(ROOT).as_posix())
    whole = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    exported = exports(whole)
    text = [f"# {name}", f"::: {name}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}"]
    first, rest = [], []
    for path in sorted(folder.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = [n.name for n in tree.body if documented(n)]
        known = [n for n in public if n in exported]
        entry = section(f"{name}.{path.stem}", known or public)
        (first if known else rest).append(entry)
    if first:
        text += [f"Exported by `{name}`:", *first]
    if first and rest:
        text += ["---", f"Other modules of `{name}`:"]
    return "\n\n".join([*text, *rest]) + "\n"


def section(module, members):
    """One module on the page of its package."""
    chosen = ", ".join(members)
    return f"::: {module}\n    options:\n      heading_level: 2\n      members: {f'[{chosen}]' if members else 'false'}"


def exports(tree):
    """The names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def documented(node):
    """Is this a public class or function with a docstring, and not the compiled text of a policy?"""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
        return False
    marks = {getattr(getattr(d, "func", d), "id", "") for d in node.decorator_list}
    return ast.get_docstring(node) is not None and not marks & COMPILED


def commands():
    """Every command with its configuration file, whose comments say what each option means."""
    tree = ast.parse((ROOT / "experiments" / "cli.py").read_text(encoding="utf-8"))
    table = next(n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "COMMANDS")
    text = ["# Commands", "`offramp COMMAND key=value ...`; each is a Hydra program, and `--help` shows its options. "
            "The files below are the defaults, and their comments say what each option means."]
    for name, what in ast.literal_eval(table).items():
        text.append(f"## offramp {name}\n\n{what[0].upper()}{what[1:]}.")
        file = ROOT / "conf" / f"{name}.yaml"
        if file.exists():
            text.append(yaml(file))
    return "\n\n".join(text) + "\n"


def configuration():
    """Every option of every group."""
    text = ["# Configuration", "What can be chosen by `group=name` on the command line of `offramp`."]
    for group in sorted({p.parent for p in (ROOT / "conf").rglob("*.yaml")} - {ROOT / "conf"}):
        text.append(f"## {group.relative_to(ROOT / 'conf').as_posix()}")
        text += [yaml(file) for file in sorted(group.glob("*.yaml"))]
    return "\n\n".join(text) + "\n"


def yaml(file):
    """A file of the configuration as a block."""
    path = file.relative_to(ROOT).as_posix()
    return f'```yaml title="{path}"\n{file.read_text(encoding="utf-8").rstrip()}\n```'
