"""One user's work in one scene: the model, the new organs, the cases, the update, its review."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import IncrementalSegError, InputError
from IncrementalSegLib.organs import Organ, OrganTable

from . import Dependencies
from .CaseChecks import Checks
from .Cases import CaseTable, matchSegments
from .Dreams import Dreams
from .Jobs import JobFolder, writeJob
from .Machine import Machine
from .Models import ModelInfo, Models
from .Parameters import Parameters, SceneState, organProblem
from .Predict import Predictor, segmentationTask
from .Shown import Shown
from .Terminology import Terminology
from .Update import Update


class Session:
    """What the panel shows and the console commands act on; the scene keeps its state.

    ``listeners`` are called when something changed, ``watchers`` when work in the background went on.
    """

    def __init__(self, parameterNode: Callable[[], Any], models: Models | None = None) -> None:
        self._parameterNode = parameterNode
        self.models, self.terminology = models or Models(), Terminology()
        self.listeners: list[Callable[[], None]] = []
        self.watchers: list[Callable[[], None]] = []
        self.update, self.predictor = Update(self.progressed, self.changed), Predictor(self.progressed, self.changed)
        self.machine, self.dreams = Machine(self.changed), Dreams(self.progressed, self.changed)
        self.checks, self.shown = Checks(), Shown()
        self.preparing = False
        self._state: SceneState | None = None

    def changed(self) -> None:
        """Tell everyone who listens."""
        for listener in self.listeners:
            listener()

    def progressed(self) -> None:
        """Tell those who watch the work in the background: this comes often, and nothing else changed."""
        for watcher in self.watchers:
            watcher()

    @property
    def state(self) -> SceneState:
        """What the scene remembers."""
        node = self._parameterNode()
        if self._state is None or self._state.parameterNode is not node:
            self._state = SceneState(node)
        return self._state

    @property
    def cases(self) -> CaseTable:
        """The cases of the update."""
        return CaseTable(self.state.parameterNode)

    @property
    def model(self) -> ModelInfo | None:
        """The current model: the one that was chosen, else the first there is."""
        every = self.models.all()
        names = [info.name for info in every]
        return every[names.index(self.state.model)] if self.state.model in names else next(iter(every), None)

    @property
    def known(self) -> OrganTable:
        """The organs of the current model; none where it cannot be used."""
        info = self.model
        return info.contents.organs if info and info.contents else OrganTable()

    def chooseModel(self, name: str) -> None:
        """Make this the current model of the scene.

        Raises:
            InputError: there is no such model.
        """
        if name not in [info.name for info in self.models.all()]:
            raise InputError(_("There is no model '{name}'.").format(name=name))
        self.state.model = name
        self.changed()

    def measure(self) -> None:
        """Find out what an update takes on this machine.

        Raises:
            InputError: there is no model that can be used.
        """
        self._requirePackages()
        state = self.state
        self.machine.measure(self._usable().folder, state.patch, state.batch, "auto" if state.useGPU else "cpu")

    def _usable(self) -> ModelInfo:
        info = self.model
        if info is None or info.contents is None:
            raise InputError(_("Choose a current model that can be used."))
        return info

    @property
    def organs(self) -> list[Organ]:
        """The organs that the next update learns."""
        text = self.state.organs
        return list(OrganTable.from_csv(text)) if text else []

    def addOrgan(self, organ: Organ, parent: str = "") -> None:
        """Have the next update learn this organ; ``parent`` names the old one that it lies inside.

        Raises:
            InputError: the model has it, or its parent is unknown.
        """
        known = self.known
        if parent:
            organ = replace(organ, parent=known.find(parent).key)
        organs = self.organs
        problem = organProblem(organ, known, OrganTable().extended(organs))
        if problem:
            raise InputError(problem)
        self._keepOrgans([*organs, organ])

    def removeOrgan(self, key: str) -> None:
        """Take an organ out of the next update."""
        self._keepOrgans([organ for organ in self.organs if organ.key != key])

    def _keepOrgans(self, organs: list[Organ]) -> None:
        self.state.organs = (
            OrganTable().extended(replace(organ, label=0) for organ in organs).to_csv() if organs else ""
        )
        for row in self.cases.rows():
            if row.segmentation:
                found = matchSegments(row.segmentation, organs, self.terminology)
                self.cases.add(row.volume, row.segmentation, found)
        self.changed()

    def addCase(self, volume: Any, segmentation: Any = None, segment: str = "") -> None:
        """Add a scan; segments are found by codes or name, or ``segment`` (an ID) is the one new organ's."""
        organs = self.organs
        segments = matchSegments(segmentation, organs, self.terminology) if segmentation else {}
        if segment and len(organs) == 1:
            segments = {organs[0].key: segment}
        self.cases.add(volume, segmentation, segments)
        self.changed()

    @property
    def steps(self) -> int:
        """Training steps of the next update."""
        return self.state.steps or self.state.preset.steps

    def parameters(self) -> Parameters:
        """The update as it stands now, to be checked with `Parameters.isValid`."""
        info, state = self.model, self.state
        training = {
            "steps": self.steps,
            "learning_rate": state.learningRate,
            "patch": [state.patch] * 3,
            "batch": state.batch,
            "device": "auto" if state.useGPU else "cpu",
        }
        return Parameters(
            info.folder if info else None,
            info.contents if info else None,
            self.organs,
            self.cases.rows(),
            "locked" if state.lockOldOrgans else "full",
            training,
            state.allowOverlap,
            lambda row: self.checks.state(row, self.organs, info.contents if info else None).problem,
        )

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
            InputError: a worker is at it already.
        """
        self._requireIdle(job)
        self.state.job = str(job.folder)
        self.update.start(job)

    @property
    def job(self) -> JobFolder | None:
        """The update at hand: running, stopped or finished."""
        folder = Path(self.state.job) if self.state.job else None
        return JobFolder(folder) if folder and (folder / "job.json").exists() else None

    def review(self, job: JobFolder | None) -> None:
        """Make this the update at hand."""
        self.state.job = str(job.folder) if job else ""
        self.forget()

    def forget(self) -> None:
        """Another scene or another update is looked at: what failed or runs for the one before is of no use."""
        self.predictor.cancel()
        self.update.failure = self.predictor.failure = ""
        self.changed()

    def accept(self, name: str = "") -> Path:
        """Make the finished candidate the newest version of a model; by default of the one that it grew from.

        Raises:
            IncrementalSegError: there is no candidate, the name is not usable, or it cannot be stored.
        """
        job = self.job
        if job is None or not job.finished:
            raise InputError(_("There is no finished update to accept."))
        name = name or self.acceptedName()
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
        parent = Path(self.job.job.model) if self.job else Path()
        grown = parent.parent.parent == self.models.library.home / "models"
        return parent.parent.name if grown else _("My model")

    def discard(self) -> None:
        """Leave the candidate and take what was shown of it out of the scene; the job folder stays until deleted."""
        self.shown.clear(self.state.job)
        self.review(None)

    def predict(self, volumes: list[Any]) -> None:
        """Predict volumes with the current model into new segmentations.

        Raises:
            InputError: there is no model that can be used.
        """
        self._requirePackages()
        info = self._usable()
        self.predictor.add([segmentationTask(info.folder, info.contents.organs, volume) for volume in volumes])

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
