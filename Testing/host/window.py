"""The main window: a module's panel at the left, the views at the right, and a picture of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtGui, QtWidgets

_PANEL = 480  # pixels


class ModuleSelector:
    """Leaves one module and enters another."""

    def __init__(self) -> None:
        self.selectedModule = ""

    def selectModule(self, name: str) -> None:
        if slicer.app.moduleManager().module(name) is None:
            raise RuntimeError(f"there is no module {name}")
        for module, act in ((self.selectedModule, "exit"), (name, "enter")):
            panel = module and slicer.app.moduleManager().module(module).widgetRepresentation()
            if panel and self.selectedModule != name:
                getattr(panel, act)()
        self.selectedModule = name


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The window that `slicer.util.mainWindow` finds."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


def picture(path: Path, panel: Any, size: tuple[int, int] = (1440, 900)) -> None:
    """Write a PNG: the panel, then the Red, 3D, Green and Yellow views, where Slicer's window has them."""
    panel.resize(_PANEL, size[1])
    panel.show()
    for _layout in range(5):  # tables and texts that wrap find their height level by level
        slicer.app.processEvents()
        height = max(size[1], panel.sizeHint.height(), panel.layout().totalHeightForWidth(_PANEL))
        panel.resize(_PANEL, height)
    size = (size[0], height)  # the application scrolls a panel that is longer
    views = slicer.app.layoutManager().views()
    width, height = (size[0] - _PANEL) // 2, size[1] // 2
    whole = QtGui.QPixmap(*size)
    whole.fill(QtGui.QColor("white"))
    painter = QtGui.QPainter(whole)
    painter.drawPixmap(0, 0, panel.grab())
    for number, view in enumerate(views):
        view.resize(width - 4, height - 4)
        shown = view.picture(Path(slicer.app.temporaryPath) / "view.png")
        painter.drawPixmap(_PANEL + width * (number % 2) + 2, height * (number // 2) + 2, shown)
    painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not whole.save(str(path)):
        raise OSError(f"{path} cannot be written")
