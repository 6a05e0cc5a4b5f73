"""The reference of the command line, from the parser itself: what ``incrementalseg VERB --help`` prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

_MARK = "<!-- command line -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A section for every verb in place of the mark."""
    return markdown.replace(_MARK, reference()) if _MARK in markdown else markdown


def reference() -> str:
    """Markdown: a heading for every verb with its help below."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        from IncrementalSegLib.options import build_parser  # which needs neither torch nor numpy
    finally:
        sys.path.pop(0)
    with mock.patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1"}):
        verbs = next(
            action
            for action in build_parser(defaultdict(lambda: print))._actions
            if isinstance(action, argparse._SubParsersAction)
        ).choices
        return "\n".join(_section(name, parser) for name, parser in verbs.items() if parser.description)


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    text, parser.epilog, parser.description = str(parser.description), None, None
    return f"### {name}\n\n{' '.join(text.split())}\n\n```text\n{parser.format_help().rstrip()}\n```\n"
