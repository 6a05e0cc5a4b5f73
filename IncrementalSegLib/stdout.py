"""Stdout as a protocol: events for another program, one JSON line each, and nothing between them."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import ExitStack
from typing import TextIO

from .errors import Cancelled
from .events import Event, Sink


def claimed_stdout(session: ExitStack) -> TextIO:
    """Stdout for events alone: until the verb is over, whatever else is printed goes to stderr."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    session.callback(_give_back, stdout)
    return os.fdopen(stdout, "w", encoding="utf-8", closefd=False)


def _give_back(stdout: int) -> None:
    sys.stdout.flush()
    os.dup2(stdout, 1)
    os.close(stdout)


def until_nobody_reads(sink: Sink) -> Sink:
    """A sink that cancels the work, so that it leaves a checkpoint, when its reader is gone."""

    def send(event: Event) -> None:
        try:
            sink(event)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EINVAL):  # the second is how Windows may say the first
                raise
            raise Cancelled("Nobody reads the events any more.") from error

    return send
