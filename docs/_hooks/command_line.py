"""The reference of the command line, from the parser itself: what ``incrementalseg VERB --help`` says."""

from __future__ import annotations

import argparse
import html
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_MARK = "<!-- command line -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A section for every verb in place of the mark."""
    return markdown.replace(_MARK, reference()) if _MARK in markdown else markdown


def reference() -> str:
    """Markdown: a heading for every verb with a table of its options below."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        from IncrementalSegLib.options import build_parser  # which needs neither torch nor numpy
    finally:
        sys.path.pop(0)
    verbs = _subparsers(build_parser(defaultdict(lambda: print)))
    return "\n".join(_section(name, parser) for name, parser in verbs.items() if parser.description)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    rows = [_row(action, parser) for action in parser._actions if _told(action)]
    for inner, actions in _subparsers(parser).items():
        words = " ".join([name, inner, *(str(a.metavar or a.dest).upper() for a in actions._actions if _told(a))])
        choices = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))._choices_actions
        rows.append(f"| `{words}` | {_plain(next(str(one.help) for one in choices if one.dest == inner))} |")
    return "\n".join(
        [f"### {name}", "", _plain(str(parser.description)), "", "| option | is |", "|---|---|", *rows, ""]
    )


def _told(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def _row(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    value = "" if action.nargs == 0 else formatter._format_args(action, str(action.metavar or action.dest).upper())
    if action.choices:
        value = f"{{{','.join(map(str, action.choices))}}}"
    option = f"{action.option_strings[0]} {value}".strip() if action.option_strings else value
    needed = " (needed)" if action.required and action.option_strings else ""
    return f"| `{option}`{needed} | {_plain(formatter._expand_help(action))} |"


def _plain(text: str) -> str:
    """Help text as Markdown shows it unchanged."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("_", "\\_")
