"""One user's work in one scene: the plan of an update, the update, its review; predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import IncrementalSegError, InputError

from . import Dependencies
from .Dreams import Dreams
from .ForeignModel import ForeignModel, Receiver
from .Jobs import JobFolder, allJobs, writeJob
from .Machine import Machine
from .Models import Models
from .Plan import Plan
from .Predict import Predictor, segmentationTask
from .Shown import Shown
from .Update import Update


class Session(Plan):
    """What the panel shows and the console commands act on.

    ``watchers`` are called when work in the background went on.
    """

    def __init__(self, parameterNode: Callable[[], Any], models: Models | None = None) -> None:
        super().__init__(parameterNode, models)
        self.watchers: list[Callable[[], None]] = []
        self.update, self.predictor = Update(self.progressed, self.changed), Predictor(self.progressed, self.changed)
        self.foreign = ForeignModel(self.changed)
        self.machine, self.dreams = Machine(self.changed), Dreams(self.progressed, self.changed)
        self.shown = Shown()
        self.preparing = False

    def progressed(self) -> None:
        """Tell those who watch the work in the background: this comes often, and nothing else changed."""
        for watcher in self.watchers:
            watcher()

    def measure(self) -> None:
        """Find out what an update takes on this machine.

        Raises:
            InputError: there is no model that can be used.
        """
        self._requirePackages()
        state = self.state
        self.machine.measure(self._usable().folder, state.patch, state.batch, self.device)

    def readForeign(self, source: Path, receive: Receiver) -> None:
        """Read a model of another tool in the background; ``receive`` gets it as a package.

        Raises:
            InputError: packages are missing, or another one is being read.
        """
        self._requirePackages()
        self.foreign.read(source, receive)

    def writeForAuto3DSeg(self, receive: Receiver) -> None:
        """Write the current model as MONAIAuto3DSeg opens it, in the background; ``receive`` gets the folder.

        Raises:
            InputError: packages are missing, or another one is being read or written.
        """
        self._requirePackages()
        self.foreign.write(self._usable().folder, receive)

    @property
    def expected(self) -> str:
        """What the next update takes on this machine, as far as it was measured."""
        state = self.state
        return self.machine.expected(self.steps, state.patch, state.batch, self.device)

    def look(self) -> None:
        """Find out in the background which device there is, where the packages that can say it are installed."""
        if not Dependencies.missing():
            self.machine.look()

    def startUpdate(self) -> JobFolder:
        """Write the job and start its worker.

        Raises:
            IncrementalSegError: something is missing; nothing was written.
        """
        self._requireIdle()
        self.preparing = True  # the GUI lives while the cases are written: a second click must not start another
        try:
            job = writeJob(self.parameters(), slicer.app.processEvents)
        finally:
            self.preparing = False
        self.state.job = str(job.folder)
        self.update.start(job)
        return job

    def _requireIdle(self, job: JobFolder | None = None) -> None:
        """Nothing runs, and ``job`` is not run by another Slicer."""
        self._requirePackages()
        if self.update.running or self.preparing or (job and job.running):
            raise InputError(_("An update is running: wait for it, or cancel it."))

    @staticmethod
    def _requirePackages() -> None:
        missing = Dependencies.missing()
        if missing:
            raise InputError(Dependencies.sentence(missing) + " " + _("Press Install in step 1."))

    def resume(self, job: JobFolder) -> None:
        """Go on with an update that was stopped.

        Raises:
            InputError: a worker is at it already, or the model that it grows from was deleted.
        """
        self._requireIdle(job)
        job.base()
        self.state.job = str(job.folder)
        self.update.start(job)

    @property
    def job(self) -> JobFolder | None:
        """The update at hand: running, stopped or finished; none where its folder is gone or damaged."""
        job = JobFolder(Path(self.state.job)) if self.state.job else None
        return job if job and not job.problem else None

    def review(self, job: JobFolder | None) -> None:
        """Make this the update at hand."""
        self.state.job = str(job.folder) if job else ""
        self.forget()

    def forget(self) -> None:
        """Another scene or another update is looked at: what failed or runs for the one before is of no use."""
        self.predictor.cancel()
        self.update.failure = self.predictor.failure = ""
        self.changed()

    def accept(self, name: str = "", losing: bool = False) -> Path:
        """Make the finished candidate the newest version of a model; by default of the one that it grew from.

        Raises:
            IncrementalSegError: there is no candidate, it is a version already, the name is not usable, it cannot be
                stored, or (but with ``losing``) the model's current version knows organs that it does not.
        """
        job = self.job
        if job is None or not job.finished:
            raise InputError(_("There is no finished update to accept."))
        name = name or self.acceptedName()
        if not losing and (loss := self.models.loss(name, job.folder / "model")):
            raise InputError(loss)
        folder = self.models.library.accept(job.folder / "model", name)
        self.shown.keep(str(job.folder))
        if set(job.job.organs) == {organ.key for organ in self.organs}:  # else the scene is at the next update already
            self._keepOrgans([])
            self.cases.write([])
        self.state.model = name
        self.review(None)
        return folder

    def acceptedName(self) -> str:
        """The name that a candidate gets where the user gives none: that of the model it grew from."""
        return (self.job and self.models.nameOf(Path(self.job.job.model))) or _("My model")

    def discard(self) -> None:
        """Leave the candidate and take what was shown of it out of the scene; the job folder stays until deleted."""
        self.shown.clear(self.state.job)
        self.review(None)

    def deleteJob(self, job: JobFolder) -> None:
        """Delete an update with its candidate.

        Raises:
            InputError: it is running, or its candidate predicts or dreams.
        """
        dreaming = self.dreams.running and self.dreams.folder == job.folder
        if dreaming or self.predictor.uses(job.folder):
            raise InputError(_("Its model is at work on a prediction or on images: wait for it, or cancel it."))
        job.delete()
        if self.state.job == str(job.folder):
            self.discard()

    def deleteModel(self, name: str) -> None:
        """Delete a model with all its versions.

        Raises:
            IncrementalSegError: an unfinished update or a prediction needs it, or a file is in use.
        """
        if self.preparing:
            raise InputError(_("An update is being prepared: wait for it."))
        unfinished = [job for job in allJobs() if not (job.problem or job.finished)]
        needing = [job.title for job in unfinished if self.models.nameOf(Path(job.job.model)) == name]
        if needing:
            text = _("An update that is not finished grows from it: resume or delete that one in step 4 first ({job}).")
            raise InputError(text.format(job=needing[0]))
        if self.predictor.uses(self.models.library.home / "models" / name):
            raise InputError(_("It is at work on a prediction: wait for it, or cancel it."))
        self.models.library.delete(name)

    def predict(self, volumes: list[Any], context: bool = False) -> None:
        """Predict volumes with the current model into new segmentations; for ``context`` see `Context`.

        Raises:
            InputError: there is no model that can be used.
        """
        self._requirePackages()
        info = self._usable()
        organs = info.contents.organs
        self.predictor.add([segmentationTask(info.folder, organs, volume, context) for volume in volumes])

    def wait(self, seconds: float = 1e9) -> None:
        """Keep the GUI alive until update and predictions have ended, for the console.

        Raises:
            IncrementalSegError: the update or a prediction failed.
        """
        end = time.monotonic() + seconds
        waited = [work for work in (self.update, self.predictor) if work.running]
        while any(work.running for work in waited) and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.02)
        for work in waited:
            if work.failure:
                raise IncrementalSegError(work.failure)
