"""Formulas become MathML while the site is built: no script draws them, and none is fetched."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_content(content, page, config, files):
    """Replace what the Markdown extension marked as a formula."""
    return FORMULA.sub(mathml, content)


def mathml(found):
    """One formula."""
    tex = html.unescape(re.sub(r"<[^>]+>", "", found[2])).strip()
    tex = tex.removeprefix(r"\(").removesuffix(r"\)").removeprefix(r"\[").removesuffix(r"\]")
    return convert(tex, display="inline" if found[1] == "span" else "block")
