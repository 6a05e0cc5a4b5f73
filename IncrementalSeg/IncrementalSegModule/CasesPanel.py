"""Step 3: the scans on which the new organ is annotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from IncrementalSegLib.jobs import AUTOMATIC_HOLDOUT_FROM

from .Annotate import EditorVisit, annotate, showAlone
from .CaseChecks import State
from .Cases import RECOMMENDED, CaseRow, annotatedSegments, heldOut
from .FolderImport import loadFolder
from .Gui import ask, choices, fill, loadInto, saying
from .Session import Session

_ROLES = (None, False, True)


class CasesPanel:
    """A table of cases with what is missing in each."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Cases.ui")
        self._roles = [_("automatic"), _("learn"), _("check")]
        self._visit, self._shown = EditorVisit(), ""
        self._segments: list[str] = []
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolume)
        ui.addButton.connect("clicked(bool)", self.onAdd)
        ui.addFolderButton.connect("clicked(bool)", self.onAddFolder)
        ui.annotateButton.connect("clicked(bool)", self.onAnnotate)
        ui.presegmentButton.connect("clicked(bool)", self.onPresegment)
        ui.fillButton.connect("clicked(bool)", self.onFill)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        ui.organSelector.connect("currentIndexChanged(int)", self.onOrgan)
        ui.segmentSelector.connect("currentIndexChanged(int)", self.onSegment)
        ui.roleSelector.connect("currentIndexChanged(int)", self.onRole)
        ui.caseTable.connect("itemSelectionChanged()", self.onSelected)
        ui.caseTable.connect("cellClicked(int,int)", self.onClicked)

    def enter(self) -> None:
        """The user is back from Segment Editor or another module."""
        self._visit.end()

    def refresh(self) -> None:
        """Show the cases as they are."""
        cases = self.session.cases.rows()
        check, states = heldOut(cases), [self._state(row) for row in cases]
        lines = [
            [row.name, self._roles[2 if row.key in check else 1], state.text]
            for row, state in zip(cases, states, strict=True)
        ]
        selected = self.ui.caseTable.currentRow()
        head, red = [_("Scan"), _("Use"), _("State")], [bool(state.problem) for state in states]
        fill(self.ui.caseTable, head, lines, red, wide=2)
        for number, state in enumerate(states):
            self.ui.caseTable.item(number, 1).setToolTip(self.ui.roleSelector.toolTip)
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

    def _state(self, row: CaseRow) -> State:
        info = self.session.model
        return self.session.checks.state(row, self.session.organs, info.contents if info else None)

    def onSelected(self) -> None:
        """Offer what can be done with the selected case."""
        row, busy = self.selected, self.session.predictor.running
        usable = row is not None and row.volume is not None
        self.ui.annotateButton.enabled = usable and bool(self.session.organs)
        self.ui.fillButton.enabled = usable and bool(self._state(row).sparse)
        self.ui.presegmentButton.enabled = usable and not busy
        self.ui.removeButton.enabled = self.ui.roleSelector.enabled = row is not None
        choices(self.ui.roleSelector, self._roles, _ROLES.index(row.heldOut) if row else 0)
        self._offerOrgans(row)

    def _offerOrgans(self, row: CaseRow | None) -> None:
        """The new organs, at the first one without a segment where another case was selected."""
        organs = self.session.organs
        missing = [number for number, organ in enumerate(organs) if row and organ.key not in row.present]
        at = min(max(0, self.ui.organSelector.currentIndex), len(organs) - 1)
        if row and row.key != self._shown:
            self._shown, at = row.key, missing[0] if missing else at
        choices(self.ui.organSelector, [organ.name for organ in organs], at)
        self.onOrgan(at)

    def onOrgan(self, index: int) -> None:
        """Offer the selected case's segments for the selected organ."""
        row, organs = self.selected, self.session.organs
        there = annotatedSegments(row.segmentation) if row and row.segmentation and organs else {}
        self._segments = ["", *there]
        chosen = row.present.get(organs[index].key) if there else None
        at = self._segments.index(chosen) if chosen in there else 0
        choices(self.ui.segmentSelector, [_("choose …"), *(segment.GetName() for segment in there.values())], at)
        self.ui.organSelector.enabled, self.ui.segmentSelector.enabled = len(organs) > 1 and bool(there), bool(there)

    def onSegment(self, index: int) -> None:
        """A segment was chosen by hand."""
        organ = self.session.organs[self.ui.organSelector.currentIndex]
        self.session.cases.choose(self.selected.key, organ.key, self._segments[index])
        self.session.changed()

    def onClicked(self, number: int, column: int) -> None:
        """Show the case that was clicked."""
        showAlone(self.selected, self.session.cases.rows())

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
            beside = [row.volume for row in self.session.cases.rows()]
            with saying(_("Not everything in the folder was added.")):
                for volume, segmentation in loadFolder(Path(folder), self.session.organs, beside):
                    self.session.addCase(volume, segmentation)

    def onAnnotate(self, checked: bool = False) -> None:
        """Go to Segment Editor with everything prepared for this case."""
        with saying(_("Segment Editor could not be opened.")):
            segmentation, segments = annotate(self.selected, self.session.organs, self.session.terminology)
            row = self.session.cases.add(self.selected.volume, segmentation, segments)
            showAlone(row, self.session.cases.rows())
            self._visit.begin(row)

    def onFill(self, checked: bool = False) -> None:
        """Go to Segment Editor with the effect that completes what was annotated on some slices only."""
        with saying(_("Segment Editor could not be opened.")):
            showAlone(self.selected, self.session.cases.rows())
            self._visit.fill(self.selected, self._state(self.selected).sparse)

    def onPresegment(self, checked: bool = False) -> None:
        """Show what the current model sees in this scan."""
        with saying(_("Nothing was predicted.")):
            self.session.predict([self.selected.volume], context=True)

    def onRole(self, index: int) -> None:
        """The selected case is to be learned from, kept for the check, or either."""
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
        text = _("No case is kept to check the result, so nobody will know how good it is: from {count} on one is.")
        return text.format(count=AUTOMATIC_HOLDOUT_FROM)
    if count < RECOMMENDED:
        return _("{count} or more annotated scans are recommended.").format(count=RECOMMENDED)
    return ""
