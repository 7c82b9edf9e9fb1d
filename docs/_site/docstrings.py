"""Docstrings are written for `help()` and for Sphinx's roles; the site reads Markdown."""

import re
import textwrap
from typing import Any

import griffe

ROLE = re.compile(r":math:`([^`]+)`", re.DOTALL)
BLOCK = re.compile(r"^( *)\.\. math::[ \t]*(\S[^\n]*)?\n((?:[ \t]*\n|\1 +[^\n]*\n?)*)", re.MULTILINE)
NAME = re.compile(r"(?<!`)`(offramp(?:\.\w+)+)`(?!`)")
DOUBLED = re.compile(r"(?<!`)``([^`\n]+)``(?!`)")


def markdown(text: str) -> str:
    """Roles as Markdown: formulas between dollar signs, full names as links where the site has them."""
    text = BLOCK.sub(block, text)
    text = ROLE.sub(lambda m: "$" + " ".join(m[1].split()) + "$", text)
    text = DOUBLED.sub(r"`\1`", text)
    return NAME.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', text)


def block(found: re.Match[str]) -> str:
    """A displayed formula."""
    tex = " ".join(f"{found[2] or ''} {textwrap.dedent(found[3])}".split())
    return f"\n{found[1]}$${tex}$$\n\n"


class Docstrings(griffe.Extension):
    """Changes each docstring once, when its object has been read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
