"""What the panel's steps share: loading their .ui file, tables, questions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import IncrementalSegError

_ALARM = {False: (176, 24, 24), True: (255, 155, 146)}  # on light and on dark ground

# Questions to the user, by name; a test puts its own answers here.
ask: dict[str, Callable[..., Any]] = {
    "confirm": lambda text: slicer.util.confirmYesNoDisplay(text),
    "inform": lambda text: slicer.util.infoDisplay(text),
    "show": lambda path: qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path)),
    "openFolder": lambda title: qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title),
    "openFile": lambda title, kinds: _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds)),
    "saveFile": lambda title, name: _path(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name)),
    "text": lambda title, text: _path(
        qt.QInputDialog.getText(slicer.util.mainWindow(), title, title, qt.QLineEdit.Normal, text)
    ),
}


def _path(answer: Any) -> str:
    """Qt's answer without what PythonQt or PySide puts behind it (the filter, or whether OK was pressed)."""
    return answer[0] if isinstance(answer, tuple) else answer


def loadInto(section: Any, path: str) -> Any:
    """Load a .ui file into a section; its widgets are the attributes of the answer."""
    widget = slicer.util.loadUI(path)
    section.layout().addWidget(widget)
    if hasattr(widget, "setMRMLScene"):
        widget.setMRMLScene(slicer.mrmlScene)
    ui = slicer.util.childWidgetVariables(widget)
    ui.widget = widget
    return ui


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Show an expected error as its sentence and anything else as a fault of ours; nothing is raised further."""
    try:
        yield
    except IncrementalSegError as error:
        slicer.util.errorDisplay(f"{what}\n\n{error}")
    except OSError as error:
        slicer.util.errorDisplay(f"{what}\n\n{error.strerror or error}: {error.filename or ''}")
    except Exception as error:
        logging.exception(what)
        slicer.util.errorDisplay(f"{what}\n\n" + _("A fault of IncrementalSeg: {error}").format(error=repr(error)))


def fill(
    table: Any,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    red: Sequence[bool] = (),
    tips: Sequence[str] = (),
    wide: int = 0,
) -> None:
    """Show texts in a table that is as high as its rows, up to eight.

    ``red`` marks rows, ``tips`` explain titles, ``wide`` is the column that takes the width the others leave.
    """
    table.columnCount = len(head)
    table.setHorizontalHeaderLabels(list(head))
    table.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)  # or its section would stretch instead
    table.tabKeyNavigation = False  # the Tab key leads out of a table that nothing is typed into
    for c, tip in enumerate(tips):
        table.horizontalHeaderItem(c).setToolTip(tip)
    table.rowCount = len(rows)
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            item = qt.QTableWidgetItem(str(text))
            if r < len(red) and red[r]:
                item.setForeground(qt.QBrush(alarm(table)))
            table.setItem(r, c, item)
    header = table.horizontalHeader()
    for c in range(len(head)):
        header.setSectionResizeMode(c, qt.QHeaderView.Stretch if c == wide else qt.QHeaderView.ResizeToContents)
    table.verticalHeader().visible = False
    _refit(table)
    fit(table)


def _refit(table: Any) -> None:
    """From now on `fit` a table whenever its columns get other widths, as when its section opens."""
    if table.property("refits"):
        return
    table.setProperty("refits", True)
    later = qt.QTimer(table)
    later.setSingleShot(True)
    later.connect("timeout()", lambda: fit(table))
    table.horizontalHeader().connect("sectionResized(int,int,int)", lambda section, before, after: later.start(0))


def fit(table: Any) -> None:
    """Make rows as high as their texts, and a table as high as its rows, up to eight."""
    table.resizeRowsToContents()
    rows = sum(table.rowHeight(r) for r in range(min(table.rowCount, 8)))
    table.setFixedHeight(table.horizontalHeader().sizeHint.height() + 6 + rows)


def choices(selector: Any, texts: Sequence[str], current: int) -> None:
    """Fill a combo box without telling anyone."""
    blocked = selector.blockSignals(True)
    if [selector.itemText(i) for i in range(selector.count)] != list(texts):
        selector.clear()
        selector.addItems(list(texts))
    selector.currentIndex = current
    selector.blockSignals(blocked)


def isDark(widget: Any) -> bool:
    """Whether texts lie on a dark ground in this widget."""
    return widget.palette.color(qt.QPalette.Base).lightness() < 128


def alarm(widget: Any) -> Any:
    """The colour of what needs attention, legible on the widget's ground; words say it too."""
    return qt.QColor(*_ALARM[isDark(widget)])


def orderTabs(top: Any) -> None:
    """Have the Tab key go through a widget as its .ui files list what is in it, sections with what they hold."""
    chain = [widget for widget in _below(top) if int(widget.focusPolicy) & int(qt.Qt.TabFocus)]
    for before, after in pairwise(chain):
        qt.QWidget.setTabOrder(before, after)


def _below(widget: Any) -> Iterator[Any]:
    """Widgets of the same window, each before what it holds."""
    for child in widget.children():
        if child.isWidgetType() and not child.isWindow():
            yield child
            yield from _below(child)


def swatch(color: Sequence[int], text: str) -> str:
    """A coloured square and a text, as HTML."""
    return f'<span style="color: rgb({color[0]}, {color[1]}, {color[2]})">■</span> {text}'
