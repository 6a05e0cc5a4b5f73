"""One user's work in one scene: the model, the new organs, the cases, the update, its review."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import IncrementalSegError, InputError
from IncrementalSegLib.organs import Organ, OrganTable, normalise, organ_named
from IncrementalSegLib.starter import STARTER

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
        state = self.state
        self.machine.measure(self._usable().folder, state.patch, state.batch, "auto" if state.useGPU else "cpu")

    def _usable(self) -> ModelInfo:
        info = self.model
        if info is None or info.contents is None:
            raise InputError(_("Choose a current model that can be used."))
        return info

    def organNamed(self, name: str) -> Organ:
        """The organ of this name, alias or code in Slicer's terminologies.

        Raises:
            InputError: there is none.
        """
        wanted = organ_named(name)
        if wanted.key in self.terminology.entries:
            return self.terminology.entries[wanted.key].organ
        found = [entry for entry in self.terminology.find(name) if normalise(entry.organ.name) == normalise(name)]
        if not found:
            near = ", ".join(entry.organ.name for entry in self.terminology.find(name, 5))
            hint = _(" (near: {near})").format(near=near) if near else ""
            raise InputError(_("Slicer's terminologies have no '{name}'").format(name=name) + hint + ".")
        return found[0].organ

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
        known = self.model.contents.organs if self.model and self.model.contents else OrganTable()
        if parent:
            organ = Organ(**{**vars(organ), "parent": known.find(parent).key})
        organs = self.organs
        problem = organProblem(organ, known, OrganTable().extended(organs))
        if problem:
            raise InputError(problem)
        self._keepOrgans([*organs, organ])

    def removeOrgan(self, key: str) -> None:
        """Take an organ out of the next update."""
        self._keepOrgans([organ for organ in self.organs if organ.key != key])

    def _keepOrgans(self, organs: list[Organ]) -> None:
        self.state.organs = OrganTable().extended(_unlabelled(organs)).to_csv() if organs else ""
        for row in self.cases.rows():
            if row.segmentation:
                self.addCase(row.volume, row.segmentation)
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
        if self.update.running:
            raise InputError(_("An update is running: wait for it, or cancel it."))
        job = writeJob(self.parameters(), slicer.app.processEvents)
        self.state.job = str(job.folder)
        self.update.start(job)
        return job

    def resume(self, job: JobFolder) -> None:
        """Go on with an update that was stopped.

        Raises:
            InputError: a worker is at it already.
        """
        if self.update.running or job.running:
            raise InputError(_("An update is running: wait for it, or cancel it."))
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
        self._keepOrgans([])
        self.cases.write([])
        self.state.model, self.state.job = name, ""
        self.changed()
        return folder

    def acceptedName(self) -> str:
        """The name that a candidate gets where the user gives none."""
        name = self.state.model or (self.model.name if self.model else "")
        return _("My model") if name in ("", STARTER) else name

    def discard(self) -> None:
        """Leave the candidate and take what was shown of it out of the scene; the job folder stays until deleted."""
        self.shown.clear()
        self.state.job = ""
        self.changed()

    def predict(self, volumes: list[Any]) -> None:
        """Predict volumes with the current model into new segmentations.

        Raises:
            InputError: there is no model that can be used.
        """
        folder = self._usable().folder
        self.predictor.add([segmentationTask(folder, volume) for volume in volumes])

    def wait(self, seconds: float = 1e9) -> None:
        """Keep the GUI alive until update and predictions have ended, for the console.

        Raises:
            IncrementalSegError: the update or a prediction failed.
        """
        end = time.monotonic() + seconds
        while (self.update.running or self.predictor.running) and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.02)
        failure = self.update.failure or self.predictor.failure
        if failure:
            raise IncrementalSegError(failure)


def _unlabelled(organs: list[Organ]) -> list[Organ]:
    return [Organ(**{**vars(organ), "label": 0}) for organ in organs]
