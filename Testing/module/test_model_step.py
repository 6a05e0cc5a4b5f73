"""Step 1: models, versions, files, the machine."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from pathlib import Path

import qt
from panel_testing import PanelTest, material


class ModelStepTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        self.ui = self.panel.model.ui
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, True)

    def test_lists_the_library_and_the_starter_with_organs_and_date(self) -> None:
        titles = [self.ui.modelSelector.itemText(i) for i in range(self.ui.modelSelector.count)]
        self.assertEqual(titles[0], "Abdomen, version 1, 2 organs")
        self.assertIn("starter", titles[1])
        self.assertIn("Liver", self.ui.organsLabel.text)
        self.assertIn("UTC", self.ui.factsLabel.text)
        self.assertIn("MB on disk", self.ui.factsLabel.text)

    def test_another_model_is_chosen_and_the_scene_remembers_it(self) -> None:
        self.ui.modelSelector.currentIndex = 1
        self.assertEqual(self.session.model.name, "starter")
        self.assertEqual(self.session.state.model, "starter")
        self.assertFalse(self.ui.deleteButton.enabled)

    def test_a_model_goes_out_as_a_zip_and_comes_back_under_another_name(self) -> None:
        self.answers = {"saveFile": str(self.folder / "abdomen.zip")}
        self.ui.exportButton.click()
        self.assertTrue((self.folder / "abdomen.zip").exists())
        self.answers = {"openFile": str(self.folder / "abdomen.zip"), "text": "Copy"}
        self.ui.importButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(self.session.model.name, "Copy")
        self.assertEqual(self.session.model.contents.organs.names, ["Liver", "Spleen"])

    def test_a_folder_is_imported_by_its_checksums(self) -> None:
        self.answers = {"openFile": str(material() / "base" / "model" / "checksums.json"), "text": "Folder"}
        self.ui.importButton.click()
        self.assertEqual(self.session.model.name, "Folder")

    def test_what_is_no_package_is_refused_and_nothing_is_added(self) -> None:
        (self.folder / "some.zip").write_bytes(b"not a zip")
        self.answers = {"openFile": str(self.folder / "some.zip"), "text": "Bad"}
        self.ui.importButton.click()
        self.assertIn("neither a model package nor a zip", self.errors[0])
        self.assertEqual(self.session.models.library.names(), ["Abdomen"])

    def test_a_damaged_model_says_so_and_cannot_be_used(self) -> None:
        (self.session.model.folder / "models" / "model.pt").write_bytes(b"broken")
        self.panel.refresh()
        self.assertIn("changed since the model was saved", self.ui.factsLabel.text)
        self.assertFalse(self.panel.ui.organSection.enabled)
        self.assertFalse(self.panel.ui.predictSection.enabled)

    def test_an_earlier_version_becomes_current_again(self) -> None:
        self.session.models.library.accept(material() / "base" / "model", "Abdomen")
        self.session.changed()
        self.assertEqual(self.ui.versionSelector.currentIndex, 1)
        self.ui.versionSelector.currentIndex = 0
        self.ui.revertButton.click()
        self.assertEqual(self.session.models.library.current_version("Abdomen"), 1)
        self.assertIn("version 1", self.ui.modelSelector.currentText)

    def test_a_model_is_deleted_only_after_yes(self) -> None:
        self.answers = {"confirm": False}
        self.ui.deleteButton.click()
        self.assertEqual(self.session.models.library.names(), ["Abdomen"])
        self.answers = {"confirm": True}
        self.ui.deleteButton.click()
        self.assertEqual(self.session.models.library.names(), [])
        self.assertEqual(self.session.model.name, "starter")

    def test_the_machine_is_measured_by_the_worker(self) -> None:
        self.assertIn("not measured", self.ui.deviceLabel.text)
        state = self.session.state
        state.patch, state.batch, state.useGPU = 32, 1, False
        self.ui.measureButton.click()
        self.assertFalse(self.ui.measureButton.enabled)
        self.wait(lambda: not self.session.machine.running)
        self.assertIn("s a training step", self.ui.deviceLabel.text)
        self.assertIn("the CPU was asked for", self.ui.deviceLabel.text)
        self.assertIn("About", self.panel.update.ui.estimateLabel.text)

    def test_the_report_names_versions(self) -> None:
        self.ui.copyReportButton.click()
        text = qt.QApplication.clipboard().text()
        self.assertIn("torch", text)
        self.assertIn("Slicer", text)


if __name__ == "__main__":
    unittest.main()
