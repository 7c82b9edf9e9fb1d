"""Formulas become MathML while the site is built: no script draws them, and none is fetched."""

import re
from html import unescape

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace what the Markdown extension marked as a formula."""
    return FORMULA.sub(mathml, html)


def mathml(found: re.Match[str]) -> str:
    """One formula."""
    tex = unescape(re.sub(r"<[^>]+>", "", found[2])).strip()
    tex = tex.removeprefix(r"\(").removesuffix(r"\)").removeprefix(r"\[").removesuffix(r"\]")
    return convert(tex, display="inline" if found[1] == "span" else "block")
