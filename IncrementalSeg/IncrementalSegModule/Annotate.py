"""Prepares Segment Editor for a case: the right segmentation, a segment per new organ, the scan behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.organs import Organ

from .Cases import CaseRow, matchSegments
from .Terminology import Terminology


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
    slicer.util.setSliceViewerLayers(background=row.volume, fit=True)
    return segmentation, segments


def _newSegmentation(row: CaseRow) -> Any:
    name = _("{name}: annotation").format(name=row.name)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(row.volume)
    return segmentation


def _pointEditor(segmentation: Any, volume: Any, segment: str) -> None:
    """Segment Editor takes what to edit from its parameter node when it is entered."""
    node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        node.UnRegister(None)
        node.SetSingletonTag("SegmentEditor")
        node = slicer.mrmlScene.AddNode(node)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetAndObserveSourceVolumeNode(volume)
    node.SetSelectedSegmentID(segment)
