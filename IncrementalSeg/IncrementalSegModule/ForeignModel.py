"""Has the worker read models of other tools, and write them for these: that takes torch, which is not loaded here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError

from .Process import CANCELLED, QtWorkerProcess, WorkerProcess
from .Update import lastSentence

# What gets the package, or None where it cannot be read, and what there is to say.
Receiver = Callable[[Path | None, str], None]


class ForeignModel:
    """One model at a time; ``onChanged`` is called when the worker begins or ends."""

    def __init__(self, onChanged: Callable[[], None], process: WorkerProcess | None = None) -> None:
        self.process = process or QtWorkerProcess()
        self.onChanged = onChanged

    @property
    def running(self) -> bool:
        """Whether a model is being read or written."""
        return self.process.running

    def read(self, source: Path, receive: Receiver) -> None:
        """Read a folder or zip file in the background; the package is gone when ``receive`` returns.

        Raises:
            InputError: another one is being read or written.
        """
        self._start(["import", str(source)], receive)

    def write(self, package: Path, receive: Receiver) -> None:
        """Write a package as MONAIAuto3DSeg opens it; the folder is gone when ``receive`` returns.

        Raises:
            InputError: another one is being read or written.
        """
        self._start(["export", "--model", str(package)], receive)

    def _start(self, command: list[str], receive: Receiver) -> None:
        if self.running:
            raise InputError(_("Another model is being read or written: wait for it."))
        self._notes: list[str] = []
        self._place, self._receive = Path(tempfile.mkdtemp(prefix="incrementalseg-")), receive
        self.process.start([*command, "--out", str(self._place / "model"), "--json"], self._heard, self._ended)
        self.onChanged()

    def cancel(self) -> None:
        """Leave it."""
        self.process.cancel()

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "message":
            self._notes.append(str(event["text"]))

    def _ended(self, code: int, errors: str) -> None:
        try:
            if code == 0:
                self._receive(self._place / "model", "\n".join(self._notes[:-1]))  # the last names the folder
            elif code != CANCELLED:
                self._receive(None, lastSentence(errors) or _("The worker ended unexpectedly."))
        finally:
            shutil.rmtree(self._place, ignore_errors=True)
        self.onChanged()
