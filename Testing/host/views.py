"""Slice and 3D views: Slicer's own view logics and displayable managers in offscreen VTK windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtGui

_IN_SLICES = ["Crosshair", "ModelSlice", "OrientationMarker", "Ruler", "Segmentations2D"]
_IN_3D = ["Camera", "View", "Model", "OrientationMarker", "Ruler", "Segmentations3D"]
_ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


def _manager(short: str) -> str:
    kind, dimension = (short[:-2], short[-2:]) if short.endswith("D") else (short, "")
    return f"vtkMRML{kind}DisplayableManager{dimension}"


class View:
    """A render window with displayable managers; answers as the view widget and as the view inside it."""

    def __init__(self, factory: Any, managers: list[str], logic: Any, node: Any) -> None:
        self.logic, self.node = logic, node
        self.window, self.renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)
        self._interactor.Initialize()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in map(_manager, managers):
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.SetRenderer(self.renderer)
        self._group.Initialize(factory, self.renderer)
        self._group.SetMRMLDisplayableNode(node)

    def sliceView(self) -> View:
        return self

    threeDView = sliceView

    def mrmlSliceNode(self) -> Any:
        return self.node

    mrmlViewNode = mrmlSliceNode

    def sliceLogic(self) -> Any:
        return self.logic

    def resize(self, width: int, height: int) -> None:
        self.window.SetSize(width, height)

    def forceRender(self) -> None:
        self.window.Render()

    def picture(self, file: Path) -> QtGui.QPixmap:
        """The view as it looks now, by way of a PNG file."""
        self.forceRender()
        shot, writer = vtk.vtkWindowToImageFilter(), vtk.vtkPNGWriter()
        shot.SetInput(self.window)
        shot.ReadFrontBufferOff()
        writer.SetFileName(str(file))
        writer.SetInputConnection(shot.GetOutputPort())
        writer.Write()
        return QtGui.QPixmap(str(file))


class SliceView(View):
    """A slice through the volumes in it, with segmentations over them."""

    def __init__(self, name: str, orientation: str) -> None:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        node = logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        super().__init__(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), _IN_SLICES, logic, node)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._image = vtk.vtkActor2D()
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._image.SetMapper(mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._image)
        self.resize(400, 400)

    def resize(self, width: int, height: int) -> None:
        super().resize(width, height)
        self.logic.ResizeSliceNode(width, height)

    def forceRender(self) -> None:
        image = self.logic.GetImageDataConnection()
        self._image.SetVisibility(image is not None)
        self._image.GetMapper().SetInputConnection(image)
        super().forceRender()


class ThreeDView(View):
    """A 3D view with closed surfaces of segmentations."""

    def __init__(self) -> None:
        logic = slicer.vtkMRMLViewLogic()
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().GetViewLogics().AddItem(logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(factory, _IN_3D, logic, logic.AddViewNode("1"))

    def resetFocalPoint(self) -> None:
        self.renderer.ResetCamera()


class LayoutManager:
    """Three slice views and one 3D view, as the four-up layout has them."""

    threeDViewCount = 1
    layout = 3  # vtkMRMLLayoutNode.SlicerLayoutFourUpView

    def __init__(self) -> None:
        self._slices = {name: SliceView(name, orientation) for name, orientation in _ORIENTATIONS.items()}
        self._threeD = ThreeDView()

    def sliceViewNames(self) -> list[str]:
        return list(self._slices)

    def sliceWidget(self, name: str) -> SliceView:
        return self._slices[name]

    def threeDWidget(self, index: int) -> ThreeDView:
        return self._threeD

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    def resetSliceViews(self) -> None:
        for view in self._slices.values():
            view.logic.FitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self._threeD.resetFocalPoint()

    def setLayout(self, layout: int) -> None:
        self.layout = layout

    def views(self) -> list[View]:
        """Red, 3D, Green, Yellow: in the order of the application's four-up layout."""
        return [self._slices["Red"], self._threeD, self._slices["Green"], self._slices["Yellow"]]
