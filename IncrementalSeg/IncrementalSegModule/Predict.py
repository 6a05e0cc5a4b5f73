"""Predictions: volumes one after another through the worker, each back as a segmentation."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import OrganTable

from .Process import QtWorkerProcess, WorkerProcess
from .SegmentationIO import segmentationOf, writeCase
from .Update import CANCELLED, Progress, lastSentence


@dataclass
class Task:
    """One prediction: which model on which volume, and what is done with the label map's file."""

    model: Path
    volume: Any
    then: Callable[[Path], Any]
    result: Any = None
    folder: Path = field(default_factory=Path)
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.volume.GetName() if self.volume else _("(volume deleted)")

    @property
    def labelMap(self) -> Path:
        """Where the worker puts the label map."""
        return self.folder / "prediction.nrrd"


class Predictor:
    """A queue of predictions; ``onProgress`` is called at every event, ``onChanged`` when one begins or ends."""

    def __init__(
        self, onProgress: Callable[[], None], onChanged: Callable[[], None], process: WorkerProcess | None = None
    ) -> None:
        self.process = process or QtWorkerProcess()
        self.onProgress, self.onChanged = onProgress, onChanged
        self.waiting: list[Task] = []
        self.done: list[Task] = []
        self.current: Task | None = None
        self.progress, self.failure = Progress(), ""

    @property
    def running(self) -> bool:
        """Whether anything is predicted or waits for it."""
        return self.current is not None

    @property
    def sentence(self) -> str:
        """What it does now, for people."""
        if not self.running:
            return self.failure
        name = self.current.name
        total = len(self.done) + len(self.waiting) + 1
        return _("{name} ({number} of {total})").format(name=name, number=len(self.done) + 1, total=total)

    def add(self, tasks: list[Task]) -> None:
        """Queue predictions; the first begins at once."""
        if not self.running:
            self.done, self.failure = [], ""
        self.waiting += tasks
        if not self.running:
            self._next()

    def cancel(self) -> None:
        """Forget what waits and stop what runs; results so far stay."""
        self.waiting.clear()
        self.process.cancel()

    def _next(self) -> None:
        while self.waiting and self.current is None:
            task = self.waiting.pop(0)
            try:
                self._start(task)
            except Exception as error:  # VTK and SimpleITK have no types of their own; the others go on
                logging.exception(task.name)
                self.failure = f"{task.name}: {error}"
        self.onChanged()

    def _start(self, task: Task) -> None:
        if task.volume is None or task.volume.GetScene() is None or not task.volume.GetImageData():
            raise InputError(_("The volume is empty or no longer in the scene."))
        task.folder = Path(slicer.util.tempDirectory("IncrementalSeg"))
        self.progress = Progress()
        writeCase(task.folder, "case", task.volume)
        ct = str(task.folder / "case_ct.nrrd")
        arguments = ["predict", "--model", str(task.model), "--ct", ct, "--out", str(task.labelMap), "--json"]
        self.current = task  # before the start, which may fail at once
        try:
            self.process.start(arguments, self._heard, self._ended)
        except BaseException:
            self.current = None
            raise

    def _heard(self, event: dict[str, Any]) -> None:
        self.progress.take(event)
        self.onProgress()

    def _ended(self, code: int, errors: str) -> None:
        task, self.current = self.current, None
        try:
            if code == 0 and task.volume.GetScene() is not None:  # else the scan was closed meanwhile
                task.result = task.then(task.labelMap)
                self.done.append(task)
            elif code not in (0, CANCELLED):
                text = lastSentence(errors) or _("The worker ended unexpectedly.")
                self.failure = f"{task.name}: {text}"
        except Exception as error:
            logging.exception(task.name)
            self.failure = f"{task.name}: {error}"
        finally:
            shutil.rmtree(task.folder, ignore_errors=True)
            self._next()


def segmentationTask(model: Path, organs: OrganTable, volume: Any) -> Task:
    """Predict a volume into a new segmentation, named after both."""
    name = _("{volume}: all organs").format(volume=volume.GetName())
    return Task(model, volume, lambda file: segmentationOf(sitk.ReadImage(str(file)), organs, name, volume))
