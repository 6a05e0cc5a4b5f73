"""``slicer.ScriptedLoadableModule`` and ``slicer.i18n``: the base classes of modules written in Python."""

from __future__ import annotations

import sys
import types
import unittest
from pathlib import Path
from typing import Any

import qt
import slicer

from . import parameters


class ScriptedLoadableModule:
    """A module's description; the application reads its texts."""

    def __init__(self, parent: Any) -> None:
        self.parent, self.moduleName = parent, type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return ""

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        getattr(sys.modules[type(self).__module__], self.moduleName + "Test")().runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """A module's panel, laid out in ``parent``."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()

    def setup(self) -> None:
        if self.developerMode:
            self.reloadButton = qt.QPushButton("Reload")
            self.reloadButton.connect("clicked()", self.onReload)
            self.layout.addWidget(self.reloadButton)

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)

    def cleanup(self) -> None:
        pass


class ScriptedLoadableModuleLogic:
    """A module's logic, with one parameter node in the scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        return node or slicer.mrmlScene.AddNode(self.createParameterNode())

    def createParameterNode(self) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """What Reload and Test runs in the application."""

    def runTest(self) -> None:
        for name in (name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()
            self.tearDown()


def install() -> None:
    """Make these modules importable under their names in the application."""
    own = {name: cls for name, cls in globals().items() if name.startswith("ScriptedLoadable")}
    wrapper = {name: getattr(parameters, name) for name in ("parameterNodeWrapper", "Default", "WithinRange", "Choice")}
    _module("ScriptedLoadableModule", __all__=list(own), **own)
    _module("parameterNodeWrapper", **wrapper)
    translate = qt.QCoreApplication.translate
    _module("i18n", tr=lambda text: translate("", text), translate=translate)


def _module(name: str, **members: Any) -> None:
    made = types.ModuleType("slicer." + name)
    vars(made).update(members)
    sys.modules[made.__name__] = made
    setattr(slicer, name, made)
