"""Runs the module's tests where there is no Slicer; the application's ctest takes the same files without this one."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Testing"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

missing = [name for name in ("slicer", "vtk", "PySide6", "trame_slicer") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if missing else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the module was not tested, and why."""
    if missing:
        terminalreporter.write_line(f"SKIPPED Testing/module: {', '.join(missing)} missing (make test installs them)")


if not missing:
    import host

    app = host.start()
    app.loadScriptedModule(REPOSITORY / "IncrementalSeg" / "IncrementalSeg.py")


@pytest.fixture(autouse=True)
def nothing_goes_wrong_unseen() -> Iterator[None]:
    """Exceptions in slots and VTK's errors fail the test in which they came."""
    import slicer

    host.errors.clear()
    slicer.app.vtkErrors.clear()
    yield
    slicer.app.processEvents()
    assert not host.errors, host.errors
    assert not slicer.app.vtkErrors, slicer.app.vtkErrors
