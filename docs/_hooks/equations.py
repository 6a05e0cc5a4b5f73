"""Equations as MathML, made at build time: every current browser shows it without a script or a font from elsewhere."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """The page with MathML in place of TeX."""
    return _EQUATION.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found["open"] == "[" else "inline"
    tag = found["tag"]
    return f'<{tag} class="equation">{convert(html.unescape(found["tex"]).strip(), display=display)}</{tag}>'
