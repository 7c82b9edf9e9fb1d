"""The documentation runs: every block of code of every page, in order, in a process and a folder of the page's own.

What a comment before a block may say, `<!-- test: ... -->`, unseen by who reads the page:

====================  ==================================================================================================
skip: WHY             the block is not run
instead: COMMAND      a quicker form, or one without a network, runs in the block's place
background: TEXT      the block goes on running while the page does; the next waits until a line of its output has TEXT
====================  ==================================================================================================

A block of Python with prompts is a doctest, and all of a page are one session; a block with a `title` is saved under
that name; any other Python is a script.  A shell block runs in bash and must succeed; a `text` block right after it is
what it prints, up to `...` and white space.  The ports 8000 and 8080 stand for free ones.  `python tests/test_docs.py
PAGE` runs one page by hand, with `--word-by-word` in the folder of the repository and in no quicker form.
"""

import contextlib
import doctest
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))
BLOCK = re.compile(
    r"(?:^<!-- test: (?P<rule>[^\n]*?) -->\n+)?^```(?P<lang>\w+)?(?P<info>[^\n]*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
RUN = ("python", "sh", "text")
SHOWN = ("yaml", "json", "")  # read, not run
QUICKER = True  # where a page offers a quicker form
PIP = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "http", "HTTP", "https", "no_proxy"))}
PORTS = ("8000", "8080")
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One block of code and what is said about it."""

    lang: str
    code: str
    title: str | None
    rule: str
    value: str
    line: int


def blocks(text):
    """All blocks of a page, with included files in place."""
    found = []
    for m in BLOCK.finditer(text):
        code = re.sub(
            r'^--8<-- "(.+)"\n', lambda i: (ROOT / i[1]).read_text(encoding="utf-8"), m["code"], flags=re.MULTILINE
        )
        title = re.search(r'title="([^"]+)"', m["info"])
        rule, _, value = (m["rule"] or "").partition(": ")
        line = text.count("\n", 0, m.start("code"))
        found.append(Block(m["lang"] or "", code, title and title[1], rule, value, line))
    return found


def free_port():
    """One that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Page:
    """Runs the blocks of one page; what it started in the background ends with it."""

    def __init__(self, name, folder):
        self.name, self.folder = name, Path(folder)
        self.blocks = blocks((DOCS / name).read_text(encoding="utf-8"))
        self.known, self.printed, self.running = {"__name__": "__main__"}, "", []
        self.ports = {port: free_port() for port in PORTS}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process, reader in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            reader.join()
            process.stdout.close()

    def run(self):
        """All blocks in order."""
        for block in self.blocks:
            self.where = f"{self.name}, line {block.line + 1}"
            code = self.moved(block.code)
            assert block.lang in RUN + SHOWN or block.title, f"{self.where}: {block.lang!r} is neither run nor shown"
            assert block.rule in ("", "skip", "instead", "background"), f"{self.where}: {block.rule!r}"
            if block.title:
                (self.folder / block.title).write_text(code, encoding="utf-8")
            elif block.rule == "skip" or block.lang in SHOWN:
                self.printed = None
            elif block.rule == "instead" and QUICKER:
                self.shell(self.moved(block.value))
            elif block.rule == "background":
                self.start(code, block.value)
            elif block.lang == "sh":
                self.shell(code)
            elif block.lang == "text":
                self.compare(code)
            elif ">>> " in code:
                self.session(code, block.line)
            else:
                self.shell_run([sys.executable, "-W", "error", "-c", code])

    def moved(self, code):
        """Code whose servers are on ports that are free here."""
        for port, free in self.ports.items():
            code = code.replace(port, free)
        return code

    def shell(self, code):
        """Commands as they are typed."""
        self.shell_run(["bash", "-euo", "pipefail", "-c", code])

    def shell_run(self, command):
        done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{self.where}: {command[-1]}\n{done.stdout}\n{done.stderr}"
        self.printed = done.stdout

    def compare(self, wanted):
        """The output of the block before, if that ran."""
        if self.printed is not None:
            assert doctest.OutputChecker().check_output(wanted, self.printed, LOOSE), f"{self.where}: {self.printed}"

    def session(self, code, line):
        """The page's doctests, one after another, know the same names."""
        test = doctest.DocTestParser().get_doctest(code, self.known, self.name, self.name, line)
        said = []
        outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append, clear_globs=False)
        self.known = test.globs
        assert outcome.failed == 0, "".join(said)

    def start(self, code, sign):
        """A server: its own process group, so that its children end with it."""
        process = subprocess.Popen(
            ["bash", "-euc", code],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said, ready = [], threading.Event()

        def read():
            for line in process.stdout:
                said.append(line)
                if sign in line:
                    ready.set()
            ready.set()

        reader = threading.Thread(target=read)
        self.running.append((process, reader))
        reader.start()
        ready.wait()
        assert any(sign in line for line in said), f"{self.where}: {''.join(said)}"


def environment():
    """That of this process, with its own programs first."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {
        **os.environ,
        "PATH": programs,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }


def main(name, folder=None):
    """Run a page in this folder, or in one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as passing:
        os.chdir(folder or passing)
        try:
            with Page(name, Path.cwd()) as page:
                page.run()
        finally:
            os.chdir(ROOT)


def with_code():
    """Pages that hold code; of the notes that are older than the site those have none."""
    return [name for name in PAGES if blocks((DOCS / name).read_text(encoding="utf-8"))]


LONG = ("tutorials/own_network.md", "tutorials/policy.md", "tutorials/server.md", "tutorials/sweep.md")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in with_code()])
def test_a_page_runs(name):
    command = [sys.executable, "-W", "error", __file__, str(DOCS / name)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr


def page_of(tmp_path, monkeypatch, text):
    """A page with this text, ready to run."""
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "DOCS", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Page("page.md", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```python\n>>> 1 + 1\n3\n```\n", "Expected"),
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", "one"),
        ("```sh\ncat missing | sort\n```\n", "missing"),
        ("```python\nraise SystemExit(3)\n```\n", "SystemExit"),
        ("```python\nimport warnings; warnings.warn('careful')\n```\n", "careful"),
        ("```ruby\nputs 1\n```\n", "neither run nor shown"),
        ("<!-- test: perhaps: later -->\n```sh\ntrue\n```\n", "perhaps"),
        ("<!-- test: background: ready -->\n```sh\necho over\n```\n", "over"),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path, monkeypatch, text, says):
    with page_of(tmp_path, monkeypatch, text) as page, pytest.raises(AssertionError, match=says):
        page.run()


def test_a_page_keeps_what_its_blocks_made(tmp_path, monkeypatch):
    """Files, names and the server of one block are there in the next; the server ends with the page."""
    text = """
```python title="word.py"
print("hello")
```
<!-- test: skip: it would fail -->
```sh
false
```
<!-- test: instead: python word.py -->
```sh
sleep 1000
```
```text
hello
```
<!-- test: background: Serving -->
```sh
python -u -m http.server 8080 --bind 127.0.0.1
```
```python
>>> from urllib.request import urlopen
>>> with urlopen("http://127.0.0.1:8080/word.py") as answer: word = answer.read()
```
```python
>>> word
b'print("hello")\\n'
```
"""
    with page_of(tmp_path, monkeypatch, text) as page:
        page.run()
        assert page.running[0][0].poll() is None
    assert page.running[0][0].poll() is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    quiet = {**environment(), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    return {p.relative_to(out).as_posix(): p.read_text(encoding="utf-8") for p in out.rglob("*.html")}


def test_the_site_is_complete(site):
    """Strict: no link and no anchor is broken.  Every page, study and package is there."""
    for name in PAGES:
        assert name.replace(".md", ".html") in site
    for study in (ROOT / "experiments").rglob("README.md"):
        assert f"results/{study.parent.relative_to(ROOT / 'experiments').as_posix()}/index.html" in site
    for package in ("bandits", "bandits.durable", "environments", "environments.timed", "models", "experiments.on_ray"):
        assert f"reference/offramp.{package}.html" in site
    for name in ("UCB1", "ChainUCB", "Engine"):
        assert re.search(rf'id="offramp\.bandits\.\w+\.{name}"', site["reference/offramp.bandits.html"])


def test_the_site_needs_no_network_and_no_markup_is_left(site):
    for name, text in site.items():
        assert not re.search(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//', text), name
        assert not re.search(r'<link\b[^>]*rel="(?:stylesheet|preload|preconnect)"[^>]*href="(?:https?:)?//', text), (
            name
        )
        prose = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", text, flags=re.DOTALL)
        for left in (":math:", ".. math::", 'class="arithmatex"', "--8<--", "<!-- include", "<!-- list"):
            assert left not in prose, (name, left)
    assert "<math" in site["reference/offramp.bandits.html"]


@pytest.mark.long
def test_a_strangers_path(tmp_path):
    """A fresh clone, `make demo`, and two pages followed word by word, with nothing but what they install."""
    clone = tmp_path / "offramp"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().strip("\0").split("\0"):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    path = os.environ["PATH"]
    bare = {"PATH": path, "HOME": str(tmp_path), "PYTHON": sys.executable, **PIP}
    python = str(clone / ".venv" / "bin" / "python")
    pages = ["docs/start.md", "docs/tutorials/own_cache.md"]
    for command in (
        ["make", "demo", f"PYTHON={sys.executable}"],
        [python, "-m", "pip", "install", "-q", "pytest"],  # for this file, which follows the pages
        [python, "tests/test_docs.py", "--word-by-word", *pages],
    ):
        done = subprocess.run(command, cwd=clone, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (clone / "runs" / "demo" / "report.html").exists()


if __name__ == "__main__":
    given = sys.argv[1:]
    if in_full := "--word-by-word" in given:
        given.remove("--word-by-word")
        QUICKER = False
    for page in given:
        main(Path(page).resolve().relative_to(DOCS).as_posix(), ROOT if in_full else None)
