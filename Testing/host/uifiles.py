"""``qt.QUiLoader``: reads the .ui files of Slicer modules, with CTK's and MRML's widgets in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any, ClassVar

from PySide6 import QtCore, QtUiTools, QtWidgets


class QUiLoader(QtUiTools.QUiLoader):
    """Qt's loader, with stand-ins for custom widgets and with ``<connections>`` made by name.

    A widget that is neither Qt's nor among the stand-ins is an error.
    """

    stand_ins: ClassVar[dict[str, type[QtWidgets.QWidget]]] = {}

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> QtWidgets.QWidget:
        """Called by Qt for every widget of the file; an exception in here would end the process."""
        stand_in = self.stand_ins.get(className)
        if stand_in is None and hasattr(QtWidgets, className):
            return super().createWidget(className, parent, name)
        try:
            if stand_in is None:
                raise NotImplementedError(f"the host has no stand-in for {className}, which the .ui file uses")
            widget = stand_in(parent)
        except Exception as error:
            self._failed.append(error)
            widget = QtWidgets.QWidget(parent)
        widget.setObjectName(name)
        self._made.append(widget)  # or Python would drop it while Qt still reads
        return widget

    def load(self, device: Any, parent: Any = None) -> QtWidgets.QWidget:
        """The widget that a .ui file describes."""
        self._made: list[Any] = []
        self._failed: list[Exception] = []
        tree = ET.fromstring(bytes(device.readAll().data()))
        links = [
            [link.findtext(part, "") for part in ("sender", "signal", "receiver", "slot")]
            for link in tree.iterfind("connections/connection")
        ]
        for connections in tree.findall("connections"):
            tree.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        top = super().load(buffer, parent)
        if self._failed:
            raise self._failed[0]
        for widget in self._made:
            getattr(widget, "afterLoad", lambda: None)()
        for sender, signal, receiver, slot in links:
            target = getattr(self._named(top, receiver), slot.partition("(")[0])
            self._named(top, sender).connect(signal, target)
        return top

    @staticmethod
    def _named(top: Any, name: str) -> Any:
        found = top if top.objectName == name else top.findChild(QtCore.QObject, name)
        if found is None:
            raise ValueError(f"a connection of the .ui file names '{name}', which is not in it")
        return found
