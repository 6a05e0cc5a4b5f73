"""Ways to stop the work of a process at its next step: signals, and the end of the pipe that it reads."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from contextlib import suppress


def cancel_on_signals() -> Callable[[], bool]:
    """Make SIGINT and SIGTERM stop the work at its next step; returns the question whether one came.

    A second signal ends the process at once.
    """
    asked = threading.Event()

    def note(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return asked.is_set


def cancel_at_end_of_stdin() -> Callable[[], bool]:
    """Where stdin is a pipe, its end stops the work (the program that started it closed the pipe, or died)."""
    asked = threading.Event()
    with suppress(OSError):  # there may be no stdin at all
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            threading.Thread(target=_await_end_of_stdin, args=[asked], daemon=True).start()
    return asked.is_set


def _await_end_of_stdin(asked: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    asked.set()
