"""A document as Markdown."""

from __future__ import annotations

import os
from pathlib import Path

from ..report import markdown_table
from .blocks import Block, Bullets, Code, Document, Facts, Picture, Section, Table, Text


def as_markdown(document: Document, folder: Path | None = None) -> str:
    """The document as Markdown; pictures are links relative to ``folder`` and left out without one."""
    parts = [f"# {_plain(document.title)}", f"**{_plain(document.verdict)}**", document.notice]
    parts += [_section(section, folder) for section in document.sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, folder: Path | None) -> str:
    blocks = [text for block in section.blocks if (text := _block(block, folder))]
    return "\n\n".join([f"## {section.title}", *blocks]) if blocks else ""


def _block(block: Block, folder: Path | None) -> str:
    match block:
        case Text(text):
            return _plain(text)
        case Bullets(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Facts(rows):
            return "\n".join(f"- {_plain(name)}: {_plain(value)}" for name, value in rows)
        case Table() if not block.form:
            titles, *lines = [[_plain(cell) for cell in row] for row in (block.head, *block.rows)]
            return markdown_table(titles, lines)
        case Picture() if folder:
            return f"![{_plain(block.alt)}]({Path(os.path.relpath(block.path, folder)).as_posix()})"
    return ""  # a chart, whose numbers stand in a table, and what is filled in by hand


def _plain(text: str) -> str:
    """Text in one line that no reader takes for HTML."""
    line = " ".join(text.split()).replace("<", "&lt;")
    return f"`{line}`" if isinstance(text, Code) and line else line
