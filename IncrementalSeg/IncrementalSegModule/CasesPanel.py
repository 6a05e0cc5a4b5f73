"""Step 3: the scans on which the new organ is annotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.jobs import AUTOMATIC_HOLDOUT_FROM

from .Annotate import annotate
from .Cases import RECOMMENDED, CaseRow, heldOut
from .FolderImport import loadFolder
from .Gui import ask, choices, fill, loadInto, saying
from .Session import Session

_ROLES = (None, False, True)


class CasesPanel:
    """A table of cases with what is missing in each."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Cases.ui")
        self._roles = [_("chosen automatically"), _("learned from"), _("held out for the check")]
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolume)
        ui.addButton.connect("clicked(bool)", self.onAdd)
        ui.addFolderButton.connect("clicked(bool)", self.onAddFolder)
        ui.annotateButton.connect("clicked(bool)", self.onAnnotate)
        ui.presegmentButton.connect("clicked(bool)", self.onPresegment)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        ui.roleSelector.connect("currentIndexChanged(int)", self.onRole)
        ui.caseTable.connect("itemSelectionChanged()", self.onSelected)
        ui.caseTable.connect("cellClicked(int,int)", self.onClicked)

    def refresh(self) -> None:
        """Show the cases as they are."""
        cases, organs, info = self.session.cases.rows(), self.session.organs, self.session.model
        check = heldOut(cases)
        states = [self.session.checks.state(row, organs, info.contents if info else None) for row in cases]
        lines = [
            [row.name, _("check") if row.key in check else _("learn"), state.text]
            for row, state in zip(cases, states, strict=True)
        ]
        selected = self.ui.caseTable.currentRow()
        fill(self.ui.caseTable, [_("Scan"), _("Use"), _("State")], lines, [bool(state.problem) for state in states])
        header = self.ui.caseTable.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.Stretch)
        for number, state in enumerate(states):
            self.ui.caseTable.item(number, 2).setToolTip(state.text)
        if 0 <= selected < len(cases):
            self.ui.caseTable.selectRow(selected)
        elif cases:
            self.ui.caseTable.selectRow(len(cases) - 1)
        self.ui.caseTable.visible = bool(cases)
        self.ui.adviceLabel.text = _advice(len(cases), len(check))
        self.ui.addButton.enabled = self.ui.volumeSelector.currentNode() is not None
        self.onSelected()

    @property
    def selected(self) -> CaseRow | None:
        """The case that is selected in the table."""
        cases, row = self.session.cases.rows(), self.ui.caseTable.currentRow()
        return cases[row] if 0 <= row < len(cases) else None

    def onSelected(self) -> None:
        """Offer what can be done with the selected case."""
        row, busy = self.selected, self.session.predictor.running
        usable = row is not None and row.volume is not None
        self.ui.annotateButton.enabled = usable and bool(self.session.organs)
        self.ui.presegmentButton.enabled = usable and not busy
        self.ui.removeButton.enabled = self.ui.roleSelector.enabled = row is not None
        choices(self.ui.roleSelector, self._roles, _ROLES.index(row.heldOut) if row else 0)

    def onClicked(self, number: int, column: int) -> None:
        """Show the case that was clicked in the slice views, and its annotation instead of the others'."""
        for row in self.session.cases.rows():
            display = row.segmentation and row.segmentation.GetDisplayNode()
            if display:
                display.SetVisibility(row.key == self.selected.key)
        if self.selected.volume:
            slicer.util.setSliceViewerLayers(background=self.selected.volume, fit=True)

    def onVolume(self, node: Any = None) -> None:
        """Another scan was chosen for adding."""
        self.ui.addButton.enabled = self.ui.volumeSelector.currentNode() is not None

    def onAdd(self, checked: bool = False) -> None:
        """Add the chosen scan and annotation."""
        with saying(_("The case was not added.")):
            self.session.addCase(self.ui.volumeSelector.currentNode(), self.ui.segmentationSelector.currentNode())

    def onAddFolder(self, checked: bool = False) -> None:
        """Load the cases of a dataset folder."""
        folder = ask["openFolder"](_("Folder of <case>_ct and <case>_seg files"))
        if folder:
            with saying(_("The folder was not added.")):
                for volume, segmentation in loadFolder(Path(folder), self.session.organs):
                    self.session.addCase(volume, segmentation)

    def onAnnotate(self, checked: bool = False) -> None:
        """Go to Segment Editor with everything prepared for this case."""
        with saying(_("Segment Editor could not be opened.")):
            segmentation, segments = annotate(self.selected, self.session.organs, self.session.terminology)
            self.session.cases.add(self.selected.volume, segmentation, segments)
            slicer.util.selectModule("SegmentEditor")

    def onPresegment(self, checked: bool = False) -> None:
        """Show what the current model sees in this scan."""
        with saying(_("Nothing was predicted.")):
            self.session.predict([self.selected.volume])

    def onRole(self, index: int) -> None:
        """The selected case is to be learned from, held out, or either."""
        if self.selected:
            self.session.cases.holdOut(self.selected.key, _ROLES[index])
            self.session.changed()

    def onRemove(self, checked: bool = False) -> None:
        """Take the selected case out of the table."""
        self.session.cases.remove(self.selected.key)
        self.session.changed()


def _advice(count: int, check: int) -> str:
    if count == 0:
        return _("Add scans on which the new organ is annotated; {count} or more are recommended.").format(
            count=RECOMMENDED
        )
    if not check:
        return _("No case is held out, so nobody will know how good the result is: {count} cases hold one out.").format(
            count=AUTOMATIC_HOLDOUT_FROM
        )
    if count < RECOMMENDED:
        return _("{count} or more annotated scans are recommended.").format(count=RECOMMENDED)
    return ""
