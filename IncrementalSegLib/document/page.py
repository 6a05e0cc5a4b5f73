"""A document as one HTML page that needs nothing else: pictures and style inline, no script, no request."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from ..report import score
from .blocks import Bar, Block, Bullets, Chart, Code, Document, Facts, Picture, Section, Table, Text

PICTURES_MB = 8.0
TOO_LARGE = "A picture is too large for this page: it lies beside it, as a file."
FILL, EDGE = "#b4c2cf", "#005a91"  # bars: inside and rim; the rim alone is told from white paper at 3 to 1 and more
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = Path(__file__).parent / "page.css"


def as_page(document: Document) -> str:
    """The document as HTML5, for screen, paper and screen readers.

    Pictures go into it until they are 8 MB together; of one that no longer fits, the page says so.
    """
    style = _STYLE.read_text(encoding="utf-8")
    sections = "\n".join(_section(section, number) for number, section in enumerate(_fitting(document.sections), 1))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(document.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="notice">{_text(document.notice)}</p>\n<h1>{_text(document.title)}</h1>\n'
        f'<p class="verdict{"" if document.good else " doubt"}">{_text(document.verdict)}</p>\n</header>\n'
        f"<main>\n{sections}\n</main>\n<footer>\n<p>{_text(document.notice)}</p>\n</footer>\n</body>\n</html>\n"
    )


def _fitting(sections: Sequence[Section]) -> Iterator[Section]:
    """The sections, with a sentence in place of every picture that there is no room for."""
    room = PICTURES_MB * 1e6
    for section in sections:
        blocks: list[Block] = []
        for block in section.blocks:
            size = block.path.stat().st_size if isinstance(block, Picture) else 0
            fits = size <= room
            room -= size if fits else 0
            blocks.append(block if fits else Text(TOO_LARGE))
        yield replace(section, blocks=blocks)


def _section(section: Section, number: int) -> str:
    body = "\n".join(map(_block, section.blocks))
    name = f"section-{number}"
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{_text(section.title)}</h2>\n{body}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{_text(text)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{_text(item)}</li>" for item in items) + "\n</ul>"
        case Facts(rows):
            return "<dl>\n" + "\n".join(f"<dt>{_text(n)}</dt><dd>{_text(value)}</dd>" for n, value in rows) + "\n</dl>"
        case Table():
            return _table(block)
        case Chart():
            return _chart(block)
        case Picture():
            return _picture(block)


def _table(table: Table) -> str:
    """A table whose first column names its rows; one that is wider than the screen can be scrolled, by keyboard too."""
    words = [' class="word"' if c < table.words else "" for c in range(len(table.head))]
    head = "".join(f'<th scope="col"{w}>{_text(title)}</th>' for title, w in zip(table.head, words, strict=True))
    rows = []
    for first, *others in table.rows:
        cells = "".join(f"<td{w}>{_text(cell)}</td>" for cell, w in zip(others, words[1:], strict=True))
        rows.append(f'<tr><th scope="row"{words[0]}>{_text(first)}</th>{cells}</tr>')
    body, caption, kind = "\n".join(rows), _text(table.caption), ' class="form"' if table.form else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}">\n'
        f"<table{kind}>\n<caption>{caption}</caption>\n"
        f"<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _chart(chart: Chart) -> str:
    """Bars as a table: every bar has its name and its number beside it, and groups stay on one page."""
    groups = "\n".join(_group(name, bars) for name, bars in chart.groups if bars)
    head = "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in _CHART_HEAD)
    return (
        f'<table class="chart">\n<caption>{_text(chart.caption)}</caption>\n'
        f"<thead>\n<tr>{head}</tr>\n</thead>\n{groups}\n</table>"
    )


_CHART_HEAD = (("Organ", "word"), ("Model", "word"), ("0 to 1", "word bar"), ("Value", "number"))


def _group(name: str, bars: Sequence[Bar]) -> str:
    title = f'<th scope="rowgroup" class="word" rowspan="{len(bars)}">{_text(name)}</th>'
    rows = [
        f'<tr>{title if first else ""}<td class="word">{_text(bar.series)}</td>'
        f'<td class="bar">{_bar(bar)}</td><td>{score(bar.value)}</td></tr>'
        for first, bar in zip([True, *[False] * len(bars)], bars, strict=False)
    ]
    return "<tbody>\n" + "\n".join(rows) + "\n</tbody>"


def _bar(bar: Bar) -> str:
    """A drawing rather than a background, which browsers do not print."""
    width = 100 * min(max(bar.value, 0.0), 1.0)
    fill, dash = ("none", ' stroke-dasharray="3 2"') if bar.hollow else (FILL, "")
    if bar.series == "after":
        fill = EDGE
    return (
        '<svg aria-hidden="true" focusable="false">'
        '<rect x="0" y="1" width="100%" height="80%" fill="#f0f0f0"/>'
        f'<rect x="0" y="1" width="{width:.1f}%" height="80%" fill="{fill}" stroke="{EDGE}"{dash}/></svg>'
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    return (
        f'<figure>\n<img src="data:image/png;base64,{data}" alt="{_text(picture.alt)}">\n'
        f"<figcaption>{_text(picture.caption)}</figcaption>\n</figure>"
    )


def _text(text: str) -> str:
    """Text with everything escaped that HTML would take for itself."""
    return f"<code>{escape(text)}</code>" if isinstance(text, Code) else escape(text)
