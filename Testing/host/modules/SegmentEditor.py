"""Segment Editor as far as other modules meet it: its panel, its parameter node, effects by name. It edits nothing."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

_EFFECTS = [
    *("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin"),
    *("Hollow", "Smoothing", "Scissors", "Islands", "Logical operators", "Mask volume"),
]


class SegmentEditor(ScriptedLoadableModule):
    """The module."""


class SegmentEditorWidget(ScriptedLoadableModuleWidget):
    """Takes its parameter node when it is entered, and is left without an active effect."""

    def setup(self) -> None:
        super().setup()
        self.editor = qMRMLSegmentEditorWidget()
        self.layout.addWidget(self.editor)

    def enter(self) -> None:
        node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = slicer.mrmlScene.AddNode(node)
        self.editor.setMRMLSegmentEditorNode(node)

    def exit(self) -> None:
        self.editor.setActiveEffect(None)


class qMRMLSegmentEditorWidget(qt.QWidget):
    """The editor; an effect needs a segmentation, a segment of it and a scan."""

    def __init__(self) -> None:
        super().__init__()
        self._node: Any = None
        self._effect = ""

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setActiveEffectByName(self, name: str) -> None:
        if name not in _EFFECTS:
            raise ValueError(f"there is no effect {name}: the application would choose none")
        node, segmentation = self._node, self._node and self._node.GetSegmentationNode()
        segment = segmentation and segmentation.GetSegmentation().GetSegment(node.GetSelectedSegmentID() or "")
        if not segment or not node.GetSourceVolumeNode():
            raise RuntimeError(f"{name} has nothing to work on")
        self._effect = name

    def setActiveEffect(self, effect: None) -> None:
        self._effect = ""

    def activeEffect(self) -> Any:
        return _Effect(self._effect) if self._effect else None


class _Effect:
    def __init__(self, name: str) -> None:
        self.name = name
