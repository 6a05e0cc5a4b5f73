"""How a verb of the command line is heard and stopped: progress for people or JSON lines, signals, the end of stdin."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from .cancel import cancel_at_end_of_stdin, cancel_on_signals
from .events import JsonLines, Reporter, Sink, for_people
from .stdout import claimed_stdout, until_nobody_reads


def session(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments by which the verbs of `api` that make jobs are heard and stopped."""
    return {"sinks": sinks(options), "cancelled": cancelled(watch_stdin=options.json)}


def reporter_of(options: argparse.Namespace) -> Reporter:
    """What the other verbs are given."""
    return Reporter(*sinks(options), cancelled=cancelled(watch_stdin=options.json))


def cancelled(watch_stdin: bool) -> Callable[[], bool]:
    """Signals stop the work; so does the end of stdin where a program reads the events, which may have died."""
    signals = cancel_on_signals()
    stdin = cancel_at_end_of_stdin() if watch_stdin else signals
    return lambda: signals() or stdin()


def sinks(options: argparse.Namespace) -> list[Sink]:
    """Where events go."""
    if not options.json:
        return [until_nobody_reads(for_people())]
    lines = until_nobody_reads(JsonLines(claimed_stdout(options.session)))
    lines({"event": "process", "pid": os.getpid()})  # whoever started a launcher can end what it launched
    return [lines]
