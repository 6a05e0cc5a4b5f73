"""``slicer.app`` and ``slicer.modules`` over Slicer's own C++ scene and logics."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .files import CoreIOManager
from .hierarchy import SubjectHierarchy
from .views import LayoutManager
from .widgets import qMRMLWidget

_LOGICS = {
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Models": "vtkSlicerModelsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The panel of one scripted module."""

    def __init__(self, module: qSlicerScriptedLoadableModule) -> None:
        super().__init__()
        self.module, self.isEntered = module, False
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self.reload()

    def reload(self) -> None:
        """Make the panel by the class that is imported now; who takes the old one away is `slicer.util`."""
        name = self.module.name + "Widget"
        self._self = getattr(sys.modules[self.module.name], name)(self)
        setattr(slicer.modules, name, self._self)
        self._self.setup()

    def self(self) -> Any:
        return self._self

    def enter(self) -> None:
        self.isEntered = True
        self._self.enter()

    def exit(self) -> None:
        self.isEntered = False
        self._self.exit()


class qSlicerScriptedLoadableModule:
    """What a ScriptedLoadableModule gets as ``parent``; its panel is made when it is first asked for."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path, self.title = name, path, name
        self._widget: qSlicerScriptedLoadableModuleWidget | None = None

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        self._widget = self._widget or qSlicerScriptedLoadableModuleWidget(self)
        return self._widget

    def logic(self) -> None:
        return None


class ModuleManager(QtCore.QObject):
    """Modules by name."""

    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self) -> list[str]:
        return [module.name for module in vars(slicer.modules).values() if hasattr(module, "path")]


class qSlicerApplication(QtWidgets.QApplication):
    """The application: the scene, its logics, views, files, settings and modules."""

    startupCompleted = QtCore.Signal()
    majorVersion, minorVersion = 5, 13

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self.setApplicationName("Slicer")
        self.setApplicationVersion(importlib.metadata.version("slicer-core"))
        self.temporaryPath = tempfile.mkdtemp(prefix="slicer-host-")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(
            QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, self.temporaryPath
        )
        self._settings = QtCore.QSettings()
        self._modules, self._io, self._logics = ModuleManager(), CoreIOManager(), {}
        self._provide_python()

    def _provide_python(self) -> None:
        """Child processes find Slicer's Python on PATH as PythonSlicer, which is a launcher there and here."""
        program = Path(self.temporaryPath) / "PythonSlicer"
        program.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\n')
        program.chmod(0o755)
        os.environ["PATH"] = self.temporaryPath + os.pathsep + os.environ["PATH"]

    def makeScene(self) -> None:
        """What Slicer's start-up makes: a scene, logics, default nodes, views."""
        scene = self._scene = slicer.mrmlScene = slicer.vtkMRMLScene()
        logic = self._logic = slicer.vtkSlicerApplicationLogic()
        remote = self._remote = slicer.vtkMRMLRemoteIOLogic()
        remote.GetCacheManager().CreateSentinelFileInDirectory(self.temporaryPath)
        remote.GetCacheManager().SetRemoteCacheDirectory(self.temporaryPath)
        self._data = slicer.vtkDataIOManagerLogic()
        self._data.SetMRMLApplicationLogic(logic)
        self._data.SetAndObserveDataIOManager(remote.GetDataIOManager())
        logic.SetTemporaryPath(self.temporaryPath)
        logic.SetHomeDirectory(self.temporaryPath)
        logic.SetShareDirectory("share")
        logic.SetMRMLScene(scene)
        logic.SetMRMLSceneDataIO(scene, remote, self._data)
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        logic.GetColorLogic().SetMRMLScene(scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        self._add_logic("Colors", logic.GetColorLogic())
        self._add_logic("Terminologies", slicer.vtkSlicerTerminologiesModuleLogic(), _terminologies())
        for name, cls in _LOGICS.items():
            self._add_logic(name, getattr(slicer, cls)())
        self._hierarchy = SubjectHierarchy(scene)
        for name in ("SegmentEditor", "SampleData"):
            self.loadScriptedModule(Path(__file__).parent / "modules" / f"{name}.py")
        self._layout = LayoutManager()

    def _add_logic(self, name: str, logic: Any, share: str = "") -> None:
        self._logics[name] = logic  # the application logic keeps weak pointers only
        if logic.GetMRMLScene() is None:
            logic.SetMRMLApplicationLogic(self._logic)
            if share:
                logic.SetModuleShareDirectory(share)
            logic.SetMRMLScene(self._scene)
        self._logic.SetModuleLogic(name, logic)
        module = types.SimpleNamespace(name=name, path="", logic=lambda: logic, widgetRepresentation=lambda: None)
        setattr(slicer.modules, name.lower(), module)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> LayoutManager:
        return self._layout

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def coreIOManager(self) -> CoreIOManager:
        return self._io

    ioManager = coreIOManager

    def testingEnabled(self) -> bool:
        return True

    def settings(self) -> QtCore.QSettings:
        return self._settings

    userSettings = revisionUserSettings = settings

    def pauseRender(self) -> None:
        pass

    resumeRender = pauseRender

    def loadScriptedModule(self, path: Path) -> qSlicerScriptedLoadableModule:
        """Import a module's file and make its module object, as the module factory does at start-up."""
        name, folder = path.stem, str(path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        sys.modules[name] = code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        module = qSlicerScriptedLoadableModule(name, str(path))
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.modules, name + "Instance", getattr(code, name)(module))
        return module


def _terminologies() -> str:
    """The folder of Slicer's terminology files, which the Python package trame-slicer carries."""
    package = importlib.util.find_spec("trame_slicer")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("Slicer's terminology files are missing: pip install --no-deps trame-slicer")
    return str(Path(package.submodule_search_locations[0]) / "resources" / "terminologies")
