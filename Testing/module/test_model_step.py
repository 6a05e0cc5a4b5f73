"""Step 1: models, versions, files, the machine."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
import zipfile
from pathlib import Path

import qt
import slicer
from panel_testing import PanelTest, material, python, variant


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

    def import_(self, package: Path, name: str, sure: bool) -> None:
        """Import a package folder and answer the question whether it is to be a new version."""
        self.errors.clear()
        self.asked.clear()
        self.answers = {"openFile": str(package / "checksums.json"), "text": name, "confirm": sure}
        self.ui.importButton.click()

    def test_a_package_becomes_a_version_of_a_model_that_is_there_only_after_yes(self) -> None:
        second = variant(material() / "base" / "model", self.folder / "second")
        for sure, versions in ((False, [1]), (True, [1, 2])):
            self.import_(second, "Abdomen", sure)
            self.assertIn("There is a model 'Abdomen' already", self.asked[-1])
            self.assertEqual(self.session.models.library.versions("Abdomen"), versions)
        self.assertEqual(self.errors, [])

    def test_the_same_package_does_not_become_a_second_version(self) -> None:
        self.import_(material() / "base" / "model", "Abdomen", True)
        self.assertIn("This is version 1 of model 'Abdomen' already", self.errors[0])
        self.assertEqual(self.session.models.library.versions("Abdomen"), [1])

    def test_the_name_of_the_model_that_comes_with_the_extension_is_taken(self) -> None:
        self.import_(material() / "base" / "model", "starter", True)
        self.assertIn("choose another name", self.errors[0])

    def test_a_package_that_lacks_organs_of_the_model_says_which(self) -> None:
        from IncrementalSegLib.starter import starter_model

        self.session.models.library.accept(starter_model(), "Abdomen")
        self.import_(variant(material() / "base" / "model", self.folder / "second"), "Abdomen", False)
        self.assertRegex(self.asked[-1], "Version 2 of 'Abdomen', now in use, knows organs that .*: .*idney")

    def test_what_is_no_model_is_refused_and_nothing_is_added(self) -> None:
        (self.folder / "some.zip").write_bytes(b"not a zip")
        self.answers = {"openFile": str(self.folder / "some.zip"), "text": "Bad"}
        self.ui.importButton.click()
        self.assertFalse(self.ui.importButton.enabled)
        self.wait(lambda: not self.session.foreign.running)
        self.assertIn("neither a folder nor a zip file", self.errors[0])
        self.assertEqual(self.session.models.library.names(), ["Abdomen"])
        self.assertTrue(self.ui.importButton.enabled)

    def theirs(self, written: str) -> None:
        """Make a model of another tool: a call of one of the writers of the library's tests."""
        lib = str(Path(__file__).resolve().parents[1] / "lib")
        call = f"from foreign_models import *; folder = Path({str(self.folder / 'theirs')!r}); {written}"
        python(f"import sys; sys.path.insert(0, {lib!r}); from pathlib import Path; {call}")

    def test_a_model_of_another_tool_is_read_by_the_worker_and_becomes_a_model(self) -> None:
        self.theirs("bundle(folder, {'img_size': 96})")
        chosen = str(self.folder / "theirs" / "configs" / "metadata.json")
        self.answers = {"openFile": chosen, "inform": True, "text": "Bundle"}
        self.ui.importButton.click()
        self.wait(lambda: not self.session.foreign.running)
        self.assertEqual(self.errors, [])
        self.assertIn("img_size", self.asked[1])
        self.assertEqual(self.session.model.name, "Bundle")
        self.assertEqual(self.session.model.contents.organs.names, ["Liver", "Spleen", "Right kidney"])

        self.assertTrue(self.ui.auto3DSegButton.isHidden(), "the network is not one that MONAIAuto3DSeg opens")

    def test_a_model_from_auto3dseg_goes_out_as_its_own_tool_opens_it(self) -> None:
        self.theirs("auto3dseg(folder)")
        self.answers = {"openFile": str(self.folder / "theirs" / "labels.csv"), "inform": True, "text": "Auto"}
        self.ui.importButton.click()
        self.wait(lambda: not self.session.foreign.running)
        self.assertFalse(self.ui.auto3DSegButton.isHidden())
        self.answers = {"saveFile": str(self.folder / "auto.zip")}
        self.ui.auto3DSegButton.click()
        self.assertFalse(self.ui.auto3DSegButton.enabled)
        self.wait(lambda: not self.session.foreign.running)
        self.assertEqual(self.errors, [])
        with zipfile.ZipFile(self.folder / "auto.zip") as written:
            self.assertEqual({"model.pt", "labels.csv"}, set(written.namelist()) - {"./"})

    def test_a_damaged_model_says_so_and_cannot_be_used(self) -> None:
        (self.session.model.folder / "models" / "model.pt").write_bytes(b"broken")
        self.panel.refresh()
        self.assertIn("changed since the model was saved", self.ui.factsLabel.text)
        self.assertFalse(self.panel.ui.organSection.enabled)
        self.assertFalse(self.panel.ui.predictSection.enabled)

    def test_an_earlier_version_becomes_current_again(self) -> None:
        self.session.models.library.accept(variant(material() / "base" / "model", self.folder / "second"), "Abdomen")
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

    def test_a_model_that_an_unfinished_update_grows_from_is_not_deleted(self) -> None:
        from IncrementalSegLib.jobs import Job

        folder = self.home / "jobs" / "20260102_030405_Stomach"
        folder.mkdir(parents=True)
        Job("add-organ", "cases", ("Stomach",), model=str(self.session.model.folder)).save(folder)
        self.answers = {"confirm": True}
        self.ui.deleteButton.click()
        self.assertRegex(self.errors[0], r"not finished.*step 4 first \(20260102 0304  Stomach  \(stopped\)\)")
        self.assertEqual(self.session.models.library.names(), ["Abdomen"])
        shutil.rmtree(folder)
        self.ui.deleteButton.click()
        self.assertEqual(self.session.models.library.names(), [])

    def test_a_model_that_predicts_is_not_deleted(self) -> None:
        self.session.predict([self.loadPatient("anna")[0]])
        self.answers = {"confirm": True}
        self.ui.deleteButton.click()
        self.assertIn("at work on a prediction", self.errors[0])
        self.assertEqual(self.session.models.library.names(), ["Abdomen"])

    def test_the_worker_says_what_machine_this_is_without_measuring(self) -> None:
        self.session.look()
        self.assertTrue(self.session.machine.running)
        self.wait(lambda: not self.session.machine.running)
        self.assertRegex(self.ui.deviceLabel.text, r"^Device: .+ \(.+\); speed not measured yet$")
        self.session.look()
        self.assertFalse(self.session.machine.running, "it was found out already")

    def test_a_device_that_cannot_be_asked_says_why(self) -> None:
        machine = self.session.machine
        machine.process.start = lambda arguments, heard, ended: ended(1, "Error: torch is broken.")
        self.addCleanup(machine.process.__dict__.pop, "start")
        self.session.look()
        self.assertEqual(self.ui.deviceLabel.text, "torch is broken.")
        self.assertTrue(self.ui.measureButton.enabled)

    def test_a_time_that_was_measured_with_other_settings_says_so(self) -> None:
        found = {"device": "cuda", "name": "Card", "reason": "", "free_mb": 2048, "seconds_per_step": 0.5}
        asked = {"patch": 64, "batch": 2, "device": "auto"}
        told = json.dumps({**found, "peak_mb": 1024, "asked": asked})
        slicer.app.userSettings().setValue("IncrementalSeg/machine", told)
        self.session.state.steps = 600
        label = self.panel.update.ui.estimateLabel
        self.panel.refresh()
        self.assertEqual(label.text, "About 5 min and 1.0 GB of memory on this machine, plus preparation.")
        for name, value in (("patch", 96), ("batch", 4), ("useGPU", False)):
            with self.subTest(name):
                before = getattr(self.session.state, name)
                setattr(self.session.state, name, value)
                self.panel.refresh()
                self.assertIn("With other settings (2 patches of 64 voxels a step)", label.text)
                setattr(self.session.state, name, before)
        self.session.machine.device = {"name": "CPU, 2 threads", "free_mb": None, "reason": "no GPU"}
        self.panel.refresh()
        self.assertEqual(self.ui.deviceLabel.text, "Device: CPU, 2 threads (no GPU); 0.50 s a training step on Card")

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
