"""Ways to stop the work of a process at its next step: signals, and the end of the pipe that it reads."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
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
    with suppress(OSError):  # Windows says a closed pipe so
        while _still_open():
            pass
    asked.set()


def _still_open() -> bool:
    """Whether the pipe at stdin has another end; comes back when it was written to, or after a while.

    On Windows it only peeks: while one thread waits to read from this pipe, whatever else asks for stdin waits too, and
    the BLAS of numpy and scipy asks when it is loaded (numpy issue 24290).
    """
    if sys.platform != "win32":
        return bool(os.read(0, 4096))
    import _winapi
    import msvcrt

    waiting, _ = _winapi.PeekNamedPipe(msvcrt.get_osfhandle(0))
    if waiting:
        os.read(0, waiting)
    time.sleep(0.2)
    return True
