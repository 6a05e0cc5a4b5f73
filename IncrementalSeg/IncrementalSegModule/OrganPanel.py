"""Step 2: the organs that the next update learns, out of Slicer's terminologies."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from IncrementalSegLib.organs import Organ, OrganTable

from .Gui import choices, fill, loadInto, saying
from .Parameters import organProblem
from .Session import Session
from .Terminology import Entry


class OrganPanel:
    """A search field with its matches, and the table of what was added."""

    def __init__(self, section: Any, folder: str, session: Session) -> None:
        self.session = session
        self.ui = ui = loadInto(section, f"{folder}/Organ.ui")
        self._found: list[Entry] = []
        ui.searchEdit.connect("textChanged(QString)", self.onSearch)
        ui.resultList.connect("currentRowChanged(int)", self.onResult)
        ui.resultList.connect("itemDoubleClicked(QListWidgetItem*)", self.onAdd)
        ui.parentSelector.connect("currentIndexChanged(int)", self.onResult)
        ui.addButton.connect("clicked(bool)", self.onAdd)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        ui.resultList.setFixedHeight(110)
        ui.resultList.visible = False

    def refresh(self) -> None:
        """Show the organs that were added."""
        organs = self.session.organs
        names = {organ.key: organ.name for organ in self.session.known}
        rows = [[organ.name, _code(organ), names.get(organ.parent, "")] for organ in organs]
        fill(self.ui.organTable, [_("To be learned"), _("SNOMED CT"), _("Lies inside")], rows)
        for number, organ in enumerate(organs):
            self.ui.organTable.item(number, 0).setIcon(_icon(organ))
        self.ui.organTable.visible = self.ui.removeButton.visible = bool(organs)
        choices(self.ui.parentSelector, [_("choose …"), *self.session.known.names], self.ui.parentSelector.currentIndex)
        self.onResult()

    @property
    def chosen(self) -> Entry | None:
        """The match that is selected."""
        row = self.ui.resultList.currentRow
        return self._found[row] if 0 <= row < len(self._found) else None

    def onSearch(self, text: str) -> None:
        """Show what the terminologies have for the text; the best match is selected."""
        self._found = self.session.terminology.find(text) if text.strip() else []
        self.ui.resultList.clear()
        for entry in self._found:
            self.ui.resultList.addItem(qt.QListWidgetItem(_icon(entry.organ), entry.organ.name))
        self.ui.resultList.visible = bool(self._found)
        self.ui.resultList.setCurrentRow(0 if self._found else -1)
        self.onResult()
        if text.strip() and not self._found:
            self.ui.problemLabel.text = _("Slicer's terminologies have no '{text}': try another word.").format(
                text=text
            )

    def onResult(self, row: int = 0) -> None:
        """Say whether the selected organ can be added, and ask what it lies inside where that matters."""
        entry = self.chosen
        inside = bool(entry and entry.liesInside)
        self.ui.parentLabel.visible = self.ui.parentSelector.visible = inside
        problem = self._problem(entry) if entry else ""
        self.ui.problemLabel.text = problem
        self.ui.problemLabel.visible = bool(problem) or (not entry and bool(self.ui.searchEdit.text.strip()))
        self.ui.addButton.enabled = bool(entry) and not problem

    def _problem(self, entry: Entry) -> str:
        if entry.liesInside and self.ui.parentSelector.currentIndex < 1:
            return _("Choose the organ that this structure lies inside.")
        return organProblem(entry.organ, self.session.known, OrganTable().extended(self.session.organs))

    def onAdd(self, item: Any = None) -> None:
        """Add the selected organ."""
        entry = self.chosen
        if entry is None or self._problem(entry):
            return
        parent = self.ui.parentSelector.currentText if entry.liesInside else ""
        with saying(_("The organ was not added.")):
            self.session.addOrgan(entry.organ, parent)
            self.ui.searchEdit.clear()

    def onRemove(self, checked: bool = False) -> None:
        """Take the selected organ, or the last one, out again."""
        organs = self.session.organs
        row = self.ui.organTable.currentRow()
        if organs:
            self.session.removeOrgan(organs[row if 0 <= row < len(organs) else -1].key)


def _code(organ: Organ) -> str:
    return " ".join(code.value for code in (organ.type, organ.modifier) if code)


def _icon(organ: Organ) -> Any:
    picture = qt.QPixmap(14, 14)
    picture.fill(qt.QColor(*organ.color))
    return qt.QIcon(picture)
