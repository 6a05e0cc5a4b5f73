"""Runs the Slicer module without Slicer: its real scene, VTK and Qt, and thin stand-ins for the rest (README)."""

from __future__ import annotations

import ctypes
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
    _keep_constants_alive()
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    sys.excepthook = _collect
    output, vtk_errors = vtk.vtkOutputWindow(), []
    output.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(output)
    output.AddObserver("ErrorEvent", _text_of(vtk_errors))
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
    slicer.app.window, slicer.app.vtkErrors = window.qSlicerMainWindow(), vtk_errors
    return slicer.app


def _keep_constants_alive() -> None:
    """PySide6 6.12 takes these for immortal, as from Python 3.12 on; before, each of its calls costs a reference."""
    for immortal in (None, True, False) if sys.version_info < (3, 12) else ():
        ctypes.c_ssize_t.from_address(id(immortal)).value += 1 << 40


def _text_of(errors: list[str]) -> Any:
    """An observer that notes the text of VTK's errors."""

    def note(caller: Any, event: str, text: str) -> None:
        errors.append(text)

    note.CallDataType = "string0"  # type: ignore[attr-defined]
    return note


def _collect(kind: Any, error: BaseException, trace: Any) -> None:
    errors.append(error)
    sys.__excepthook__(kind, error, trace)
