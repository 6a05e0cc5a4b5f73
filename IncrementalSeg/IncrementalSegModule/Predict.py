"""Predictions: volumes one after another through the worker, each back as a segmentation."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qt
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import OrganTable

from .Context import asContext
from .Process import CANCELLED, QtWorkerProcess, WorkerProcess
from .SegmentationIO import Steps, segmenting, writeCase
from .Update import Progress, lastSentence


@dataclass
class Task:
    """One prediction: which model on which volume, and the steps that take the label map's file into the scene."""

    model: Path
    volume: Any
    then: Callable[[Path], Steps]
    result: Any = None
    folder: Path = field(default_factory=Path)
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or (self.volume.GetName() if self.volume else _("(volume deleted)"))

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
        self._steps: Steps | None = None  # of the current one, once its label map is there
        self.progress, self.failure = Progress(), ""

    @property
    def running(self) -> bool:
        """Whether anything is predicted or waits for it."""
        return self.current is not None

    def uses(self, folder: Path) -> bool:
        """Whether what is predicted or waits needs a model below ``folder``."""
        return any(
            task.model.resolve().is_relative_to(folder.resolve()) for task in [self.current, *self.waiting] if task
        )

    @property
    def sentence(self) -> str:
        """What it does now, for people."""
        if not self.running:
            return self.failure
        name = self.current.name
        total = len(self.done) + len(self.waiting) + 1
        return _("Segmenting {name} ({number} of {total})").format(name=name, number=len(self.done) + 1, total=total)

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
        if self._steps is not None:
            self._finish()

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
        if code == 0:
            self._steps = self.current.then(self.current.labelMap)
            self._load()
            return
        if code != CANCELLED:
            self.failure = f"{self.current.name}: {lastSentence(errors) or _('The worker ended unexpectedly.')}"
        self._finish()

    def _load(self) -> None:
        """Take the result into the scene, step by step: a whole CT takes seconds, and the GUI lives meanwhile."""
        task = self.current
        if self._steps is None:  # cancelled
            return
        if task.volume.GetScene() is None:  # the scan was closed meanwhile
            self._finish()
            return
        try:
            next(self._steps)
        except StopIteration as end:
            task.result = end.value
            self.done.append(task)
            self._finish()
        except Exception as error:
            logging.exception(task.name)
            self.failure = f"{task.name}: {error}"
            self._finish()
        else:
            qt.QTimer.singleShot(0, self._load)

    def _finish(self) -> None:
        task, self.current, self._steps = self.current, None, None
        shutil.rmtree(task.folder, ignore_errors=True)
        self._next()


def segmentationTask(model: Path, organs: OrganTable, volume: Any, context: bool = False) -> Task:
    """Predict a volume into a new segmentation, named after both, or as context of its annotation."""
    name = _("{volume}: all organs").format(volume=volume.GetName())

    def segmented(file: Path) -> Steps:
        image = sitk.ReadImage(str(file))
        yield
        found = yield from segmenting(image, organs, name, volume)
        return asContext(found, volume) if context else found

    return Task(model, volume, segmented)
