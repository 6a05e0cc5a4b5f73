"""The verbs of the Python console, waiting and not waiting."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import unittest
from pathlib import Path

import slicer
from panel_testing import QUICK, PanelTest, material

TESTING = Path(__file__).resolve().parents[1]
MODULE = TESTING.parent / "IncrementalSeg" / "IncrementalSeg.py"


class ConsoleTest(PanelTest):
    def test_the_whole_work_without_a_click(self) -> None:
        self.logic.useModel("Abdomen")
        self.logic.addOrgan("Stomach")
        for name in ("anna", "bert"):
            self.logic.addCase(*self.loadPatient(name))
        folder = self.logic.startUpdate(wait=True, **QUICK)
        self.assertTrue(folder.startswith(str(self.home)))
        self.assertEqual(self.logic.report()["organs"][-1]["name"], "Stomach")
        self.assertTrue(self.logic.accept().endswith("v0002"))
        self.assertEqual([model.version for model in self.logic.models() if model.name == "Abdomen"], [2])
        self.logic.revert("Abdomen", 1)
        self.assertEqual([model.version for model in self.logic.models() if model.name == "Abdomen"], [1])
        volume = self.loadPatient("carl")[0]
        (segmentation,) = self.logic.predict(volume, wait=True)
        self.assertEqual(segmentation.GetName(), "carl: all organs")

    def test_without_waiting_the_work_goes_on_in_the_background(self) -> None:
        self.logic.addOrgan("Stomach")
        self.logic.addCase(*self.loadPatient("anna"))
        self.logic.startUpdate(**{**QUICK, "steps": 3000})
        self.assertTrue(self.session.update.running)
        self.assertIsNone(self.logic.report())
        self.logic.cancel()
        self.wait(lambda: not self.session.update.running, 30)

    def test_the_panel_and_every_logic_share_one_session(self) -> None:
        self.assertIs(type(self.logic)().session, self.session)

    def test_a_setting_that_there_is_not_is_refused_with_those_there_are(self) -> None:
        from IncrementalSegLib.errors import InputError

        before = self.session.state.batch
        with self.assertRaisesRegex(InputError, "no setting 'stepz': the settings are preset, steps, .*useGPU"):
            self.logic.startUpdate(stepz=3, batch=before + 1)
        self.assertEqual(self.session.state.batch, before, "nothing was set")
        for wrong in ({"batch": "many"}, {"batch": -1}):
            with self.assertRaisesRegex(InputError, "The setting 'batch' cannot be"):
                self.logic.startUpdate(**wrong)

    @unittest.skipUnless(importlib.util.find_spec("PySide6"), "a second application, which is the host")
    def test_without_the_panel_the_logic_does_a_whole_update(self) -> None:
        code = (
            f"import sys; sys.path[:0] = [{str(TESTING)!r}, {str(TESTING / 'module')!r}]\n"
            f"import host, pathlib; host.start().loadScriptedModule(pathlib.Path({str(MODULE)!r}))\n"
            "import panel_testing, slicer\n"
            "from IncrementalSeg import IncrementalSegLogic\n"
            f"panel_testing._made['folder'] = pathlib.Path({str(material())!r})\n"
            "logic, test = IncrementalSegLogic(), panel_testing.PanelTest()\n"
            "logic.useModel('Abdomen'); logic.addOrgan('Stomach'); logic.addCase(*test.loadPatient('anna'))\n"
            "print(logic.startUpdate(wait=True, **panel_testing.QUICK))\n"
            "print(logic.accept(), hasattr(slicer.modules, 'IncrementalSegWidget'))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
        folder, accepted = (done.stdout.splitlines() or ["", done.stderr])[-2:]
        self.assertTrue((Path(folder) / "report.json").exists(), done.stderr)
        self.assertTrue(accepted.endswith("v0002 False"), accepted)

    def test_reload_brings_in_what_was_edited_behind_the_panel(self) -> None:
        for reload in (lambda: self.widget.onReload(), lambda: slicer.util.reloadScriptedModule("IncrementalSeg")):
            package, panel = sys.modules["IncrementalSegModule.Panel"], self.panel
            reload()
            self.widget = slicer.util.getModuleWidget("IncrementalSeg")
            self.panel = self.widget.panel
            self.assertIsNot(sys.modules["IncrementalSegModule.Panel"], package)
            self.assertIs(type(self.panel), sys.modules["IncrementalSegModule.Panel"].Panel)
            self.assertIsNot(self.panel, panel)
            self.chooseOrgan("stomach")
            self.assertEqual(self.panel.organ.ui.organTable.rowCount, 1)
            self.widget.logic.session.removeOrgan(self.widget.logic.session.organs[0].key)

    def test_what_cannot_be_done_is_one_sentence(self) -> None:
        from IncrementalSegLib.errors import IncrementalSegError

        for verb, arguments, sentence in (
            (self.logic.addOrgan, ["Liver"], "knows 'Liver' already"),
            (self.logic.addOrgan, ["Xyzzy"], "have no 'Xyzzy'"),
            (self.logic.useModel, ["None"], "no model 'None'"),
            (self.logic.startUpdate, [], "Add the organ"),
            (self.logic.accept, [], "no finished update"),
        ):
            with self.subTest(sentence), self.assertRaisesRegex(IncrementalSegError, sentence):
                verb(*arguments)


if __name__ == "__main__":
    unittest.main()
