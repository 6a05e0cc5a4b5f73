"""What the scene asks for: the model, the new organs, the cases, the settings of the update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import Organ, OrganTable

from .CaseChecks import Checks
from .Cases import CaseTable, matchSegments
from .Models import ModelInfo, Models
from .Parameters import SETTINGS, Parameters, SceneState, organProblem
from .Terminology import Terminology, distinct


class Plan:
    """The next update as the user puts it together; the scene keeps its state.

    ``listeners`` are called when something changed.
    """

    def __init__(self, parameterNode: Callable[[], Any], models: Models | None = None) -> None:
        self._parameterNode = parameterNode
        self.models, self.terminology, self.checks = models or Models(), Terminology(), Checks()
        self.listeners: list[Callable[[], None]] = []
        self._state: SceneState | None = None

    def changed(self) -> None:
        """Tell everyone who listens."""
        for listener in self.listeners:
            listener()

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
        organ = replace(organ, color=distinct(organ.color, [other.color for other in [*known, *organs]]))
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
        """Add a scan; segments are found by codes or name, or ``segment`` (an ID) is the one new organ's.

        Raises:
            InputError: a segment is named for an update of several organs, or the segmentation is context.
        """
        organs = self.organs
        if segment and len(organs) != 1:
            raise InputError(_("A segment can be named where one organ is new: choose segments in the case table."))
        segments = matchSegments(segmentation, organs, self.terminology) if segmentation else {}
        row = self.cases.add(volume, segmentation, segments)
        if segment:
            self.cases.choose(row.key, organs[0].key, segment)
        self.changed()

    @property
    def steps(self) -> int:
        """Training steps of the next update."""
        return self.state.steps or self.state.preset.steps

    @property
    def device(self) -> str:
        """What the worker is to compute on."""
        return "auto" if self.state.useGPU else "cpu"

    def configure(self, settings: dict[str, Any]) -> None:
        """Set what the Advanced section sets.

        Raises:
            InputError: there is no such setting, or it cannot have this value; those before it were set.
        """
        if unknown := sorted(settings.keys() - set(SETTINGS)):
            raise InputError(
                _("There is no setting '{name}': the settings are {known}.").format(
                    name=unknown[0], known=", ".join(SETTINGS)
                )
            )
        for name, value in settings.items():
            try:
                setattr(self.state, name, value)
            except (TypeError, ValueError) as error:
                raise InputError(
                    _("The setting '{name}' cannot be {value}: {error}").format(name=name, value=value, error=error)
                ) from error

    def parameters(self) -> Parameters:
        """The update as it stands now, to be checked with `Parameters.isValid`."""
        info, state = self.model, self.state
        training = {
            "steps": self.steps,
            "learning_rate": state.learningRate,
            "patch": [state.patch] * 3,
            "batch": state.batch,
            "device": self.device,
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

    def _usable(self) -> ModelInfo:
        info = self.model
        if info is None or info.contents is None:
            raise InputError(_("Choose a current model that can be used."))
        return info
