"""What an update is asked to do: the scene's state, and the checked parameters made of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.models.contents import Contents
from IncrementalSegLib.organs import Organ, OrganTable

from .Cases import CaseRow, heldOut, problems


class Preset(enum.Enum):
    """How long an update trains."""

    QUICK = 800
    STANDARD = 2500
    THOROUGH = 6000

    @property
    def steps(self) -> int:
        """Training steps."""
        return self.value

    def label(self) -> str:
        """What the list says."""
        return {
            Preset.QUICK: _("Quick: a first look"),
            Preset.STANDARD: _("Standard"),
            Preset.THOROUGH: _("Thorough: for a model that stays in use"),
        }[self]


@parameterNodeWrapper
class SceneState:
    """What a saved scene remembers of the panel; `Cases.CaseTable` keeps the cases in the same node."""

    model: str
    organs: str  # the new organs, as the text of a labels.csv
    preset: Preset = Preset.STANDARD
    steps: Annotated[int, WithinRange(0, 100_000)] = 0  # training steps, where the preset's are not wanted
    lockOldOrgans: bool = False
    allowOverlap: bool = False
    learningRate: Annotated[float, WithinRange(0.00001, 0.1)] = 0.002
    patch: Annotated[int, WithinRange(32, 256)] = 64
    batch: Annotated[int, WithinRange(1, 16)] = 2
    useGPU: bool = True
    job: str  # folder of the update at hand


SETTINGS = ("preset", "steps", "lockOldOrgans", "allowOverlap", "learningRate", "patch", "batch", "useGPU")


@dataclass(frozen=True)
class Parameters:
    """One update, asked for in full; `isValid` says what is missing.

    ``model`` is the package folder of the current model, ``contents`` its description.
    """

    model: Path | None
    contents: Contents | None
    organs: list[Organ]
    rows: list[CaseRow]
    strategy: str = "full"
    training: dict[str, Any] = field(default_factory=dict)
    allowOverlap: bool = False
    problemOf: Callable[[CaseRow], str] | None = None  # what keeps a case from being used, where that is known already

    @property
    def table(self) -> OrganTable:
        """The new organs with label values of their own, as the cases are written."""
        return OrganTable().extended(self.organs)

    def isValid(self) -> tuple[bool, str]:
        """Whether the update can start and, where not, the first thing to do about it."""
        reason = next(filter(None, (self._modelProblem(), self._organProblem(), self._caseProblem())), "")
        return not reason, reason

    def _modelProblem(self) -> str:
        return "" if self.model and self.contents else _("Choose a current model that can be used.")

    def _organProblem(self) -> str:
        if not self.organs:
            return _("Add the organ that the model is to learn.")
        known = self.contents.organs if self.contents else OrganTable()
        return next(filter(None, (organProblem(organ, known) for organ in self.organs)), "")

    def _caseProblem(self) -> str:
        if not self.rows:
            return _("Add at least one case: a scan on which the new organ is annotated.")
        for row in self.rows:
            found = self.problemOf(row) if self.problemOf else next(iter(problems(row, self.organs)), "")
            if found:
                return f"{row.name}: {found}"
        if len(heldOut(self.rows)) == len(self.rows):
            return _("Every case is kept for the check: leave at least one to learn from.")
        return ""


def organProblem(organ: Organ, known: OrganTable, beside: OrganTable | None = None) -> str:
    """Why an organ cannot be added to a model that knows ``known``; empty where it can.

    ``beside`` are the organs that are added in the same update.
    """
    if same := next((old for old in known if old.key == organ.key), None):
        return _(
            "The model knows '{name}' already: choose another organ, or improve it by training a new model."
        ).format(name=same.name)
    if organ.parent and organ.parent not in known.keys:
        return _("'{organ}' is said to lie inside an organ that the model does not have: choose its parent.").format(
            organ=organ.name
        )
    try:
        OrganTable().extended([*known, *(beside or ()), organ])
    except InputError as error:
        return str(error)
    return ""
