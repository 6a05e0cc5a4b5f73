"""Stand-ins for the CTK and MRML widgets that the module's .ui files name.

Each has the properties, methods and signals of the C++ class that a module uses; none draws exactly like it.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import shiboken6
import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal
from slicer.util import VTKObservationMixin

from .uifiles import QUiLoader


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A header that opens and closes what is laid out below it."""

    contentsCollapsed = Signal(bool)
    clicked = Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._collapsed, self._hidden = False, []
        self._header = QtWidgets.QToolButton(self)
        self._header.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.clicked.connect(self._toggle)
        self._draw()
        self.setContentsMargins(0, self._header.sizeHint.height() + 4, 0, 0)

    def _toggle(self) -> None:
        self.setCollapsed(not self._collapsed)
        self.clicked.emit(not self._collapsed)

    def _draw(self) -> None:
        arrow = QtCore.Qt.ArrowType
        self._header.setArrowType(arrow.RightArrow if self._collapsed else arrow.DownArrow)
        self.setMaximumHeight(self._header.sizeHint.height() + 6 if self._collapsed else 16777215)

    def click(self) -> None:
        self._toggle()

    def setText(self, text: str) -> None:
        self._header.setText(text)

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            children = [child for child in self.children() if child.isWidgetType() and child is not self._header]
            self._hidden = [child for child in children if not child.isHidden()]
        for child in self._hidden:
            child.setVisible(not collapsed)
        self._draw()
        self.contentsCollapsed.emit(collapsed)

    def afterLoad(self) -> None:  # a .ui file sets `collapsed` before it makes the children
        if self._collapsed:
            self._collapsed = False
            self.setCollapsed(True)

    def resizeEvent(self, event: Any) -> None:
        self._header.setGeometry(0, 0, self.width, self._header.sizeHint.height())

    text = Property(str, lambda self: self._header.text, setText)
    collapsed = Property(bool, lambda self: self._collapsed, setCollapsed)


class qMRMLWidget(QtWidgets.QWidget):
    """A widget with a scene."""

    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self.__dict__.get("_scene")


def _setting(kind: Any, name: str, default: Any) -> Property:
    """A Qt property of a node widget, which looks at the scene anew when it is written."""
    key = "_" + name

    def write(self: Any, value: Any) -> None:
        self.__dict__[key] = value
        self.refresh()

    return Property(kind, lambda self: self.__dict__.get(key, default), write)


class qMRMLNodeComboBox(qMRMLWidget, VTKObservationMixin):
    """Chooses one of the scene's nodes."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeTypes = _setting("QStringList", "nodeTypes", [])
    showChildNodeTypes = _setting(bool, "showChildNodeTypes", True)
    noneEnabled = _setting(bool, "noneEnabled", False)
    addEnabled = _setting(bool, "addEnabled", True)
    removeEnabled = _setting(bool, "removeEnabled", True)
    renameEnabled = _setting(bool, "renameEnabled", False)
    noneDisplay = _setting(str, "noneDisplay", "None")

    def __init__(self, parent: Any = None) -> None:
        qMRMLWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.combo, self._id = QtWidgets.QComboBox(self), ""
        row.addWidget(self.combo)
        self.combo.activated.connect(self._activated)

    def _activated(self, index: int) -> None:
        self.setCurrentNodeID(self.combo.itemData(index))

    def setMRMLScene(self, scene: Any) -> None:
        self.removeObservers()
        super().setMRMLScene(scene)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self._sceneChanged)
        self.refresh()

    def _sceneChanged(self, caller: Any, event: Any) -> None:
        if shiboken6.isValid(self):  # the application's stops observing when it is destroyed
            self.refresh()

    def nodes(self) -> list[Any]:
        """The scene's nodes of the wanted types, hidden ones left out."""
        scene = self.mrmlScene()
        every = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())] if scene else []
        return [node for node in every if not node.GetHideFromEditors() and self._wanted(node)]

    def _wanted(self, node: Any) -> bool:
        return any(node.GetClassName() == t or (self.showChildNodeTypes and node.IsA(t)) for t in self.nodeTypes)

    def refresh(self) -> None:
        nodes = self.nodes()
        ids = [node.GetID() for node in nodes]
        self.combo.clear()
        if self.noneEnabled or not nodes:
            self.combo.addItem(self.noneDisplay if self.noneEnabled else "", "")
        for node in nodes:
            self.combo.addItem(node.GetName(), node.GetID())
        first = "" if self.noneEnabled or not ids else ids[0]
        self.setCurrentNodeID(self._id if self._id in ids else first)

    def setCurrentNodeID(self, node_id: str) -> None:
        index = max(0, self.combo.findData(node_id or ""))
        self.combo.setCurrentIndex(index)
        node_id = self.combo.itemData(index) or ""
        if node_id != self._id:
            self._id = node_id
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(node_id)

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def currentNode(self) -> Any:
        return self.mrmlScene().GetNodeByID(self._id) if self._id and self.mrmlScene() else None

    def nodeCount(self) -> int:
        return len(self.nodes())

    currentNodeID = Property(str, lambda self: self._id, setCurrentNodeID)


def install(qt: types.ModuleType) -> None:
    """Make ``import ctk`` work, put MRML's widgets into ``slicer``, and tell the .ui loader of both."""
    ctk = types.ModuleType("ctk", __doc__)
    ctk.ctkCollapsibleButton = ctkCollapsibleButton
    for cls in (qMRMLWidget, qMRMLNodeComboBox):
        setattr(slicer, cls.__name__, cls)
    sys.modules["ctk"] = ctk
    qt.QUiLoader = QUiLoader
    QUiLoader.stand_ins = {cls.__name__: cls for cls in (ctkCollapsibleButton, qMRMLWidget, qMRMLNodeComboBox)}
