"""The verbs of the Python console, waiting and not waiting."""

from __future__ import annotations

import unittest

from panel_testing import QUICK, PanelTest


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
