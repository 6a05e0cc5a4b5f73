"""The worker: a Python process of its own, heard through JSON lines and stopped by the end of its stdin."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import qt

from .Paths import libraryFolder

CANCELLED = 130  # exit code of the command line, and of a worker that had to be ended because it did not stop
GRACE_MS = 8000  # a cancelled worker finishes its training step and writes a checkpoint; then its tree is ended

Event = dict[str, Any]


class WorkerProcess(Protocol):
    """What the logic asks of a process; tests may bring their own."""

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""

    def start(
        self, arguments: Sequence[str], onEvent: Callable[[Event], None], onFinished: Callable[[int, str], None]
    ) -> None:
        """Run ``python -m IncrementalSegLib ARGUMENTS``; ``onFinished`` gets the exit code and the last of stderr.

        The code is `CANCELLED` where the user stopped it, by itself or by force.
        """

    def cancel(self) -> None:
        """Ask it to stop; it is ended when it does not."""


class QtWorkerProcess:
    """A worker under Qt's event loop: nothing here waits."""

    def __init__(self) -> None:
        self._process: Any = None
        self._rest, self._errors, self._worker = b"", b"", 0
        self._cancelled = self._killed = False

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None

    def start(
        self, arguments: Sequence[str], onEvent: Callable[[Event], None], onFinished: Callable[[int, str], None]
    ) -> None:
        """Run ``python -m IncrementalSegLib ARGUMENTS``; see `WorkerProcess.start`.

        Raises:
            RuntimeError: this one runs already.
        """
        if self.running:
            raise RuntimeError("this worker is busy")
        self._rest, self._errors, self._worker = b"", b"", 0
        self._cancelled = self._killed = False
        self._onEvent, self._onFinished = onEvent, onFinished
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(_environment())
        self._process.connect("readyReadStandardOutput()", self._read)
        self._process.connect("readyReadStandardError()", self._readErrors)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._ended)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process.start(pythonProgram(), ["-m", "IncrementalSegLib", *arguments])

    def cancel(self) -> None:
        """Close the worker's stdin, at which it stops; after `GRACE_MS` end it with its children."""
        if self._process is not None:
            process, self._cancelled = self._process, True
            process.closeWriteChannel()
            qt.QTimer.singleShot(GRACE_MS, lambda: self._end(process))

    def _end(self, process: Any) -> None:
        """End the worker, and its launcher: PythonSlicer alone would leave the Python behind it at work."""
        if self._process is process:
            self._killed = True
            try:
                if self._worker:
                    os.kill(self._worker, getattr(signal, "SIGKILL", signal.SIGTERM))
            except (OSError, SystemError):  # the second is how Windows' Python may say the first
                logging.info("Worker %s had ended by itself.", self._worker)
            finally:
                process.kill()

    def _read(self) -> None:
        if self._process is None:
            return
        *lines, self._rest = (self._rest + self._process.readAllStandardOutput().data()).split(b"\n")
        for line in lines:
            event = parsedEvent(line)
            if event is not None and event["event"] == "process":
                self._worker = int(event["pid"])
            elif event is not None:
                self._onEvent(event)

    def _readErrors(self) -> None:
        if self._process is not None:
            self._errors = (self._errors + self._process.readAllStandardError().data())[-20_000:]

    def _failed(self, error: Any) -> None:
        if error == qt.QProcess.FailedToStart:  # the others are followed by finished()
            self._errors = f"{pythonProgram()} could not be started.".encode()
            self._ended(-1)

    def _ended(self, code: int = -1, status: Any = None) -> None:
        if self._process is None:
            return
        self._read()
        self._readErrors()
        process, self._process = self._process, None
        qt.QTimer.singleShot(0, lambda: process.deleteLater())  # Qt still uses it when this was called by its signal
        crashed = status is not None and status != qt.QProcess.NormalExit
        code = CANCELLED if self._cancelled and (crashed or self._killed) else -1 if crashed else int(code)
        self._onFinished(code, self._errors.decode("utf-8", "replace").strip())


def pythonProgram() -> str:
    """Slicer's own Python."""
    return shutil.which("PythonSlicer") or sys.executable


def _environment() -> Any:
    environment = qt.QProcessEnvironment.systemEnvironment()
    paths = [str(libraryFolder()), environment.value("PYTHONPATH", "")]
    environment.insert("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    environment.insert("PYTHONUNBUFFERED", "1")
    environment.insert("PYTHONUTF8", "1")
    return environment


def parsedEvent(line: bytes | str) -> Event | None:
    """The event of a line, None where it holds none or was cut short."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
