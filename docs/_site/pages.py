"""Pages that the repository holds already: studies, cards of networks, contributing; and links between all of them."""

import logging
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.pages")
ROOT = Path(__file__).parents[2]
DOCS = "docs"
PICTURES = (".svg", ".png")
FENCE = re.compile(r"(^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?^ {0,3}\2[^\n]*$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
LIST = re.compile(r"^<!-- list: (studies|networks) -->$", re.MULTILINE)
INCLUDE = re.compile(r"^<!-- include: (\S+) (#+) (.+?) -->$", re.MULTILINE)


def of_repository() -> dict[str, str]:
    """Documents outside `docs`: path in the repository -> path in the site."""
    found = {"CONTRIBUTING.md": "contributing.md"}
    for path in sorted((ROOT / "experiments").rglob("*.md")):
        source = path.relative_to(ROOT).as_posix()
        place = source.removeprefix("experiments/")
        found[source] = f"results/{place.replace('README.md', 'index.md')}"
    for path in sorted((ROOT / "models").glob("*.md")):
        found[path.relative_to(ROOT).as_posix()] = f"results/networks/{path.name}"
    return found


SITE = of_repository()
SOURCE = {site: source for source, site in SITE.items()}
ALIAS = {  # files that the site shows in another form
    "README.md": "index.md",
    "experiments/cli.py": "reference/commands.md",
    "bandits/__init__.py": "reference/offramp.bandits.md",
    "environments/__init__.py": "reference/offramp.environments.md",
    "models/__init__.py": "reference/offramp.models.md",
}


def listed(what: str) -> list[tuple[str, str, str]]:
    """Name, path in the repository and path in the site of every study, or of every network."""
    if what == "networks":
        return [(title(s), s, u) for s, u in SITE.items() if u.startswith("results/networks/")]
    return [(title(s), s, u) for s, u in SITE.items() if u.startswith("results/") and u.endswith("index.md")]


def table(what: str, here: str) -> str:
    """The list of them."""
    base = posixpath.dirname(f"{DOCS}/{here}")
    return "\n".join(f"- [{name}]({posixpath.relpath(s, base)})" for name, s, _ in listed(what))


def title(source: str) -> str:
    """The first heading of a document."""
    found = re.search(r"^# (.+)$", (ROOT / source).read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip() if found else Path(source).stem


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the part of the navigation that holds results."""
    papers = [{name: u} for name, _, u in listed("studies") if u.startswith("results/papers/")]
    studies = [{name: u} for name, _, u in listed("studies") if not u.startswith("results/papers/")]
    studies += [{"The papers, claim by claim": papers}] if papers else []
    cards = [{name: u} for name, _, u in listed("networks")]
    for part in config.nav:
        if isinstance(part, dict) and part.get("Results") == []:
            part["Results"] = ["results/index.md", {"Studies": studies}, {"Networks": cards}]
    config.watch += [str(ROOT / "experiments"), str(ROOT / "models")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie elsewhere."""
    for source, site in SITE.items():
        files.append(File.generated(config, site, content=(ROOT / source).read_text(encoding="utf-8")))
        if not site.endswith("index.md") and "/networks/" not in site and site != "contributing.md":
            files.src_uris[site].inclusion = InclusionLevel.NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take in the parts of other documents, and turn each link to a file of the repository into one of the site."""
    here = page.file.src_uri
    if here.startswith("reference/"):
        return markdown
    markdown = LIST.sub(lambda m: table(m[1], here), markdown)
    markdown = INCLUDE.sub(lambda m: part(m[1], m[2], m[3], here), markdown)
    return outside_fences(markdown, lambda text: turned(text, SOURCE.get(here, f"{DOCS}/{here}"), here, config, files))


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Apply a change to all but fenced code."""
    pieces, at = [], 0
    for match in FENCE.finditer(markdown):
        pieces += [change(markdown[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*pieces, change(markdown[at:])])


def part(source: str, marks: str, heading: str, here: str) -> str:
    """The text below one heading of a document of the repository, its links as seen from the page that takes it in."""
    text = (ROOT / source).read_text(encoding="utf-8")
    bare = FENCE.sub(lambda m: re.sub(r"^#", " ", m[0], flags=re.MULTILINE), text)  # a comment is no heading
    begin = re.search(rf"^{marks} {re.escape(heading)}$", bare, re.MULTILINE)
    if begin is None:
        LOG.warning("%s: %s has no heading %r", here, source, heading)
        return ""
    end = re.compile(rf"^#{{1,{len(marks)}}} ", re.MULTILINE).search(bare, begin.end())
    found = text[begin.end() : end.start() if end else None].strip()
    base = posixpath.dirname(f"{DOCS}/{here}")

    def moved(m: re.Match[str]) -> str:
        if not m[3] or re.match(r"[a-z]+:", m[3]):
            return m[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), m[3]))
        return f"{m[1]}[{m[2]}]({posixpath.relpath(target, base)}{m[4] or ''})"

    return outside_fences(found, lambda t: LINK.sub(moved, t))


def turned(text: str, source: str, here: str, config: MkDocsConfig, files: Files) -> str:
    """Text of a page with its links turned; `source` is where it lies in the repository."""

    def turn(m: re.Match[str]) -> str:
        mark, words, target, anchor = m[1], m[2], m[3], m[4] or ""
        if not target or re.match(r"[a-z]+:", target):
            return m[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path.startswith(f"{DOCS}/"):
            site = path.removeprefix(f"{DOCS}/")
            if files.get_file_from_path(site) is None and (ROOT / path).is_dir():
                return words
        elif path in SITE or path in ALIAS:
            site = SITE.get(path) or ALIAS[path]
        elif re.fullmatch(r"conf/[a-z_]+\.yaml", path) and (ROOT / path).exists():
            site, anchor = "reference/commands.md", f"#offramp-{Path(path).stem}"
        elif not (ROOT / path).exists():
            LOG.warning("%s: there is no %s in the repository (link %s)", here, path, target)
            return m[0]
        elif path.endswith(PICTURES):
            site = f"results/{path.removeprefix('experiments/')}"
            if files.get_file_from_path(site) is None:
                files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
        elif (ROOT / path / "README.md").exists() and f"{path}/README.md" in SITE:
            site = SITE[f"{path}/README.md"]
        else:
            return words if "`" in words else f"`{words}`"  # code: named, not shown
        return f"{mark}[{words}]({posixpath.relpath(site, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(turn, text)
