"""Runs the Slicer module without Slicer: its real scene, VTK and Qt, and thin stand-ins for the rest (README)."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

errors: list[BaseException] = []  # raised in slots and timers, where Qt cannot pass them on: a test looks here


def start() -> Any:
    """Make ``qt``, ``ctk`` and all of ``slicer`` importable, once in a process; the answer is ``slicer.app``."""
    import slicer
    import slicer.util
    import vtk

    if getattr(slicer, "app", None):
        return slicer.app
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    sys.excepthook = _collect
    output = vtk.vtkOutputWindow()
    output.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(output)
    for name in slicer.util.__all__:  # slicer-core lifts them into slicer; the application does not
        if getattr(slicer, name, None) is getattr(slicer.util, name):
            delattr(slicer, name)
    for name in ("modules", "moduleNames"):
        setattr(slicer, name, types.ModuleType("slicer." + name))
        sys.modules["slicer." + name] = getattr(slicer, name)

    from . import pythonqt

    qt = pythonqt.install()
    from . import widgets

    widgets.install(qt)
    from . import application, scripted, window

    slicer.qSlicerScriptedLoadableModuleWidget = application.qSlicerScriptedLoadableModuleWidget
    scripted.install()
    slicer.app = application.qSlicerApplication()
    slicer.app.makeScene()
    slicer.app.window = window.qSlicerMainWindow()
    return slicer.app


def _collect(kind: Any, error: BaseException, trace: Any) -> None:
    errors.append(error)
    sys.__excepthook__(kind, error, trace)
