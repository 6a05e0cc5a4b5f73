"""What the views showed before something else was put into them, so that it can come back."""

from __future__ import annotations

from typing import Any

import slicer
import vtk


class Views:
    """The layers and places of all slice views at one time, and the segmentations that were hidden since."""

    def __init__(self) -> None:
        self._layers = [(view, _layers(view)) for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")]
        self._places = [(view, _place(view)) for view in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
        self._hidden: list[Any] = []
        self._scan: Any = None

    def show(self, scan: Any, segmentations: list[Any], ours: list[Any]) -> None:
        """Show a scan with these segmentations and nothing else; those that are not ours come back with `unhide`."""
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            display, wanted = node.GetDisplayNode(), node in segmentations
            if display and display.GetVisibility() and not wanted and node not in ours:
                self._hidden.append(display)
            if display and bool(display.GetVisibility()) != wanted:
                display.SetVisibility(wanted)
        slicer.util.setSliceViewerLayers(background=scan, foreground=None, label=None, fit=True)
        self._scan = scan

    def unhide(self) -> None:
        """Show the segmentations again that were hidden."""
        for display in self._hidden:
            if display.GetScene():
                display.SetVisibility(True)
        self._hidden.clear()

    def restore(self) -> None:
        """Show again what was shown, but leave a view alone into which the user has put another scan since."""
        self.unhide()
        ours = [self._scan.GetID() if self._scan and self._scan.GetScene() else None, None]
        untouched = [view for view, _layers in self._layers if view.GetScene() and view.GetBackgroundVolumeID() in ours]
        for view, layers in self._layers:
            if view in untouched:
                _putLayers(view, layers)
        names = [view.GetLayoutName() for view in untouched]
        for view, place in self._places:
            if view.GetScene() and view.GetLayoutName() in names:
                _putPlace(view, place)


def _layers(view: Any) -> tuple[Any, ...]:
    volumes = (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), view.GetLabelVolumeID())
    nodes = [slicer.mrmlScene.GetNodeByID(volume) if volume else None for volume in volumes]
    return *nodes, view.GetForegroundOpacity(), view.GetLabelOpacity()


def _putLayers(view: Any, layers: tuple[Any, ...]) -> None:
    *nodes, foreground, label = layers
    volumes = [node.GetID() if node and node.GetScene() else None for node in nodes]
    with slicer.util.NodeModify(view):
        view.SetBackgroundVolumeID(volumes[0])
        view.SetForegroundVolumeID(volumes[1])
        view.SetLabelVolumeID(volumes[2])
        view.SetForegroundOpacity(foreground)
        view.SetLabelOpacity(label)


def _place(view: Any) -> tuple[Any, ...]:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(view.GetSliceToRAS())
    return matrix, view.GetFieldOfView(), view.GetXYZOrigin()


def _putPlace(view: Any, place: tuple[Any, ...]) -> None:
    matrix, field, origin = place
    with slicer.util.NodeModify(view):
        view.GetSliceToRAS().DeepCopy(matrix)
        view.SetFieldOfView(*field)
        view.SetXYZOrigin(*origin)
        view.UpdateMatrices()
