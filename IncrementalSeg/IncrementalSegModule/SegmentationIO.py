"""Between the scene and files: a case to disk for the worker, a label map back as a segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util import numpy_support

from IncrementalSegLib.organs import Organ, OrganTable

from .Terminology import Terminology

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # MRML's RAS to SimpleITK's LPS


def imageOf(volumeNode: Any) -> sitk.Image:
    """A scalar volume as SimpleITK sees it (LPS, mm); the voxels are copied."""
    return onGridOf(volumeNode, slicer.util.arrayFromVolume(volumeNode))


def labelMapOf(segmentationNode: Any, segments: Mapping[int, str], volumeNode: Any) -> sitk.Image:
    """Segments, by label value, on the volume's grid; where two overlap the later one counts."""
    labels = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
    for value, segmentID in segments.items():
        np.putmask(labels, segmentArray(segmentationNode, segmentID, volumeNode), value)
    return onGridOf(volumeNode, labels)


def segmentArray(segmentationNode: Any, segmentID: str, volumeNode: Any) -> np.ndarray:
    """One segment on the volume's grid, (slices, rows, columns), 0 or 1; the node is not changed.

    Segments drawn on the volume's own grid are copied: resampling a whole CT would hold the GUI for half a second.
    """
    labelmap = segmentationNode.GetBinaryLabelmapInternalRepresentation(segmentID)
    offset = None if labelmap is None else _offset(labelmap, volumeNode)
    if offset is None:
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentID, volumeNode)
    found = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
    x0, x1, y0, y1, z0, z1 = labelmap.GetExtent()
    if x1 < x0 or y1 < y0 or z1 < z0:
        return found
    voxels = numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
    part = voxels.reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    first = np.array([z0, y0, x0]) + offset[::-1]
    low, high = np.maximum(first, 0), np.minimum(first + part.shape, found.shape)
    if (low < high).all():
        into = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        cut = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
        found[into] = part[cut] == segmentationNode.GetSegmentation().GetSegment(segmentID).GetLabelValue()
    return found


def _offset(labelmap: Any, volumeNode: Any) -> np.ndarray | None:
    """Voxels (i, j, k) between both grids' origins where they differ by nothing else, else None."""
    world, volume = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(world)
    volumeNode.GetRASToIJKMatrix(volume)
    both = slicer.util.arrayFromVTKMatrix(volume) @ slicer.util.arrayFromVTKMatrix(world)
    offset = np.rint(both[:3, 3])
    same = np.allclose(both[:3, :3], np.eye(3), atol=1e-3) and np.allclose(both[:3, 3], offset, atol=1e-2)
    return offset.astype(int) if same else None


def onGridOf(volumeNode: Any, voxels: np.ndarray) -> sitk.Image:
    """An array (slices, rows, columns) with the volume's geometry."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    toLPS = _LPS @ slicer.util.arrayFromVTKMatrix(matrix)
    spacing = np.linalg.norm(toLPS[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(toLPS[:3, 3].tolist())
    image.SetDirection((toLPS[:3, :3] / spacing).ravel().tolist())
    return image


def writeCase(
    folder: Path,
    name: str,
    volumeNode: Any,
    segmentationNode: Any = None,
    segments: Mapping[int, str] | None = None,
) -> None:
    """Write ``<name>_ct.nrrd`` and, with segments by label value, ``<name>_seg.nrrd``.

    Uncompressed: the GUI waits for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(imageOf(volumeNode), str(folder / f"{name}_ct.nrrd"), False)
    if segmentationNode is not None and segments:
        labels = labelMapOf(segmentationNode, segments, volumeNode)
        sitk.WriteImage(labels, str(folder / f"{name}_seg.nrrd"), True)


def segmentationOf(image: sitk.Image, organs: OrganTable, name: str, volumeNode: Any = None) -> Any:
    """A label map as a new segmentation: an organ per segment with colour and codes, on the volume's geometry.

    Organs without voxels get no segment.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    if volumeNode is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    voxels, terminology = sitk.GetArrayViewFromImage(image), Terminology()
    present = set(np.unique(voxels).tolist())
    for organ in organs:
        if organ.label in present:
            _addSegment(node, organ, image, voxels, terminology)
    if volumeNode is not None:
        _placeBeside(node, volumeNode)
    return node


def _placeBeside(node: Any, volumeNode: Any) -> None:
    """Put a node into the patient and study of the volume, where DICOM export looks for it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volume, item = hierarchy.GetItemByDataNode(volumeNode), hierarchy.GetItemByDataNode(node)
    if volume and item:  # the application makes the items; without it there are none
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volume))


def _addSegment(node: Any, organ: Organ, image: sitk.Image, voxels: np.ndarray, terminology: Terminology) -> None:
    """Add one organ, cut to where it is: a segment of a whole CT each would fill the memory."""
    where = np.nonzero(voxels == organ.label)
    low, high = [int(axis.min()) for axis in where], [int(axis.max()) + 1 for axis in where]
    part = voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == organ.label
    oriented = slicer.vtkOrientedImageData()
    oriented.SetDimensions(*part.shape[::-1])
    oriented.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    scalars = numpy_support.vtk_to_numpy(oriented.GetPointData().GetScalars())
    scalars[:] = part.ravel()
    oriented.SetImageToWorldMatrix(_matrix(image, low[::-1]))
    segment = slicer.vtkSegment()
    segment.AddRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName(), oriented)
    terminology.mark(segment, organ)
    node.GetSegmentation().AddSegment(segment, organ.key)


def _matrix(image: sitk.Image, first: list[int]) -> Any:
    """Voxel to RAS of the part of an image that begins at voxel ``first`` (i, j, k)."""
    toLPS = np.eye(4)
    toLPS[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    toLPS[:3, 3] = image.TransformIndexToPhysicalPoint(first)
    return slicer.util.vtkMatrixFromArray(_LPS @ toLPS)


def volumesMl(node: Any) -> dict[str, float]:
    """Volume of every segment in mL, by segment ID, counted in its own voxels."""
    found = {}
    segmentation = node.GetSegmentation()
    for number in range(segmentation.GetNumberOfSegments()):
        segmentID = segmentation.GetNthSegmentID(number)
        labelmap = node.GetBinaryLabelmapInternalRepresentation(segmentID)
        voxels = np.count_nonzero(
            numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars())
            == segmentation.GetSegment(segmentID).GetLabelValue()
        )
        found[segmentID] = voxels * float(np.prod(labelmap.GetSpacing())) / 1000.0
    return found
