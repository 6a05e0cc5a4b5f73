"""What is installed into Slicer's Python, and what an installation leaves as it is."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path


class ConstraintsTest(unittest.TestCase):
    def setUp(self) -> None:
        from IncrementalSegModule import Dependencies

        self.module = Dependencies
        self.addCleanup(setattr, Dependencies, "version", Dependencies.version)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def pins(self, **installed: str) -> list[str]:
        self.module.version = lambda name: installed.get(name, "")
        return self.module.constraints(self.folder).read_text(encoding="utf-8").split()

    def test_what_is_new_enough_stays_to_the_version(self) -> None:
        found = self.pins(torch="2.8.0+cu128", numpy="2.3.1", SimpleITK="2.5.0", scipy="1.16.0", monai="1.5.1")
        self.assertEqual(found, ["SimpleITK==2.5.0", "numpy==2.3.1", "scipy==1.16.0", "torch==2.8.0"])

    def test_what_is_too_old_can_be_updated(self) -> None:
        self.assertEqual(self.pins(torch="2.8.0", numpy="2.3.1", SimpleITK="2.3.0", scipy="1.10.1"), NEW_ENOUGH)
        self.assertEqual(self.module.missing(), ["monai", "SimpleITK", "scipy", "matplotlib"])

    def test_what_is_not_there_is_not_pinned(self) -> None:
        self.assertEqual(self.pins(), [])


NEW_ENOUGH = ["numpy==2.3.1", "torch==2.8.0"]

if __name__ == "__main__":
    unittest.main()
