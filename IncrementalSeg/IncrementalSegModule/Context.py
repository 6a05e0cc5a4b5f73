"""Predictions of the old organs that stand beside an annotation: to be seen, never taken for annotation."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from .SegmentationIO import segmentsOf

_CONTEXT = "IncrementalSeg.context"  # attribute of the segmentation, and tag of every segment, which a copy keeps
_FAINT = 0.15  # opacity; an annotation's is 0.5


def asContext(segmentation: Any, volume: Any) -> Any:
    """Mark a segmentation as context of a volume, faint and named so, in the place of an earlier one."""
    for older in contexts():
        if contextVolume(older) is volume:
            slicer.mrmlScene.RemoveNode(older)
    segmentation.SetName(_("{volume}: old organs (context)").format(volume=volume.GetName()))
    segmentation.SetAttribute(_CONTEXT, "1")
    for segment in segmentsOf(segmentation).values():
        segment.SetTag(_CONTEXT, "1")
    segmentation.GetDisplayNode().SetOpacity2DFill(_FAINT)
    segmentation.GetDisplayNode().SetOpacity3D(_FAINT)
    return segmentation


def isContext(marked: Any) -> bool:
    """Whether a segmentation node, or a segment, also one that was copied elsewhere, is context."""
    return marked.HasTag(_CONTEXT) if marked.IsA("vtkSegment") else bool(marked.GetAttribute(_CONTEXT))


def contexts() -> list[Any]:
    """Every context in the scene."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if isContext(node)]


def contextVolume(segmentation: Any) -> Any:
    """The scan that a context was predicted on."""
    return segmentation.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
