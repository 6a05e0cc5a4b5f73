"""Takes the user to Segment Editor with everything prepared for a case, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.organs import Organ

from .Cases import CaseRow, matchSegments
from .Context import contexts, contextVolume
from .SegmentationIO import segmentsOf
from .Terminology import Terminology

_EDITOR, _BACK = "SegmentEditor", "IncrementalSegBackButton"
_FILL = "Fill between slices"  # the name of the effect, the same in every language


class EditorVisit:
    """A stay in Segment Editor: a button at its top leads back, and what was hidden for it is shown again then."""

    def __init__(self) -> None:
        self._away = False
        self._hidden: list[tuple[Any, str]] = []

    def begin(self, row: CaseRow) -> None:
        """Go there; the editor shows what `annotate` pointed it at."""
        slicer.util.selectModule(_EDITOR)
        button, self._away = _backButton(), True
        button.text = _("Back to IncrementalSeg ({case})").format(case=row.name)
        button.visible = True

    def fill(self, row: CaseRow, organs: Sequence[str]) -> None:
        """Go there with *Fill between slices* chosen, which fills every visible segment: only these organs' are."""
        wanted = [row.present[key] for key in organs]
        row.segmentation.CreateDefaultDisplayNodes()  # one that a script made may have none
        display = row.segmentation.GetDisplayNode()
        for segmentID in segmentsOf(row.segmentation):
            if segmentID not in wanted and display.GetSegmentVisibility(segmentID):
                display.SetSegmentVisibility(segmentID, False)
                self._hidden.append((display, segmentID))
        for segmentID in wanted:
            display.SetSegmentVisibility(segmentID, True)
        _pointEditor(row.segmentation, row.volume, wanted[0])
        self.begin(row)
        slicer.util.getModuleWidget(_EDITOR).editor.setActiveEffectByName(_FILL)

    def end(self) -> None:
        """The user is back, by whatever way."""
        if self._away:
            _backButton().visible = False
        for display, segmentID in self._hidden:
            if display.GetScene():
                display.SetSegmentVisibility(segmentID, True)
        self._away, self._hidden = False, []


def _backButton() -> Any:
    """The button at the top of Segment Editor's panel, made where there is none (yet, or after a reload)."""
    panel = slicer.util.getModule(_EDITOR).widgetRepresentation()
    for button in slicer.util.findChildren(panel, name=_BACK):
        return button
    button = qt.QPushButton()
    button.objectName = _BACK
    button.toolTip = _("The case table there looks at the annotation anew")
    button.connect("clicked(bool)", lambda checked=False: slicer.util.selectModule("IncrementalSeg"))
    panel.layout().insertWidget(0, button)
    return button


def showAlone(row: CaseRow, rows: Sequence[CaseRow]) -> None:
    """Show a case in the slice views, with its own annotation and context instead of the others'."""
    if row.volume is None:
        return
    for other in rows:
        if other.segmentation and other.segmentation.GetDisplayNode():
            other.segmentation.GetDisplayNode().SetVisibility(other.key == row.key)
    for context in contexts():
        context.GetDisplayNode().SetVisibility(contextVolume(context) is row.volume)
    slicer.util.setSliceViewerLayers(background=row.volume, fit=True)


def annotate(row: CaseRow, organs: Sequence[Organ], terminology: Terminology) -> tuple[Any, dict[str, str]]:
    """The case's segmentation, made where there is none, with a segment for every organ; Segment Editor points at it.

    Returns:
        The segmentation and the segment ID of every organ's key.
    """
    segmentation = row.segmentation or _newSegmentation(row)
    segments = {**matchSegments(segmentation, list(organs), terminology), **row.present}
    for organ in organs:
        if organ.key not in segments:
            segments[organ.key] = segmentation.GetSegmentation().AddEmptySegment(organ.key, organ.name)
            terminology.mark(segmentation.GetSegmentation().GetSegment(segments[organ.key]), organ)
    _pointEditor(segmentation, row.volume, segments[organs[0].key])
    return segmentation, segments


def _newSegmentation(row: CaseRow) -> Any:
    name = _("{name}: annotation").format(name=row.name)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(row.volume)
    return segmentation


def _pointEditor(segmentation: Any, volume: Any, segment: str) -> None:
    """Segment Editor takes what to edit from its parameter node when it is entered."""
    node = slicer.mrmlScene.GetSingletonNode(_EDITOR, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        node.UnRegister(None)
        node.SetSingletonTag(_EDITOR)
        node = slicer.mrmlScene.AddNode(node)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetAndObserveSourceVolumeNode(volume)
    node.SetSelectedSegmentID(segment)
