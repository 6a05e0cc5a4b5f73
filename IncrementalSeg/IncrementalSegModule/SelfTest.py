"""What Reload and Test runs: the panel's tests, where the source tree is there."""

from __future__ import annotations

import unittest
from pathlib import Path

import slicer
from slicer.i18n import tr as _


def runTests() -> None:
    """Run them.

    Raises:
        AssertionError: a test failed.
    """
    tests = Path(slicer.modules.incrementalseg.path).parents[1] / "Testing" / "module"
    if not tests.is_dir():
        slicer.util.delayDisplay(_("The tests are part of the source tree, not of the installed extension."))
        return
    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.discover(str(tests)))
    if not result.wasSuccessful():
        raise AssertionError(f"{len(result.failures)} tests failed, {len(result.errors)} with an error")
