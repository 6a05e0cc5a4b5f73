"""Everything that people read goes through translation: the panel in a made-up language, state by state.

Names of organs, scans and models, paths, figures, and what worker and library say (in English) are data, not texts.
"""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from panel_testing import PATIENTS, PanelTest, variant
from pseudo_language import Translator, pseudo, texts
from test_review_step import finishedJob


class Busy:
    """A worker that is at it."""

    running = True

    def start(self, *arguments) -> None:
        pass

    def cancel(self) -> None:
        self.running = False


@unittest.skipUnless(importlib.util.find_spec("PySide6"), "the application has translators of its own")
class LanguageTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        from IncrementalSegModule.Panel import Panel

        self.translator = Translator()
        slicer.app.installTranslator(self.translator)
        self.addCleanup(slicer.app.removeTranslator, self.translator)
        self.parent = qt.QWidget()
        self.panel = Panel(qt.QVBoxLayout(self.parent), self.widget.resourcePath("UI"), self.session)
        self.addCleanup(self.panel.cleanup)
        self.data = {*PATIENTS, str(self.home), "Abdomen", "starter", "stomach", "DICOM", "UTC"}

    def plain(self, text: str) -> str:
        """What is left of a text without tags, data and paths."""
        text = html.unescape(re.sub(r"<[^>]+>", " ", text))
        organs = {organ.name for organ in [*self.session.known, *self.session.organs]}
        organs |= {entry.organ.name for entry in self.panel.organ._found}
        device = [str(self.session.machine.device.get(part) or "") for part in ("name", "reason")]
        history = {change.who for info in self.session.models.all() for change in info.history}
        for known in sorted({*self.data, *organs, *device, *history} - {""}, key=len, reverse=True):
            text = text.replace(known, " ")
        return text

    def check(self, *more: str) -> None:
        """Fail for a text that was not translated, here or in what was said and asked since."""
        slicer.app.processEvents()
        said = [("", text) for text in [*more, *self.errors, *self.asked]]
        for name, text in [*texts(self.panel.widget), *said]:
            left = re.findall(r"[A-Za-z]+", self.plain(text))
            self.assertFalse(left, f"{name}: {text!r}")
        self.errors.clear()
        self.asked.clear()

    def test_the_made_up_language_is_spoken_and_a_text_without_translation_is_found(self) -> None:
        self.assertEqual(self.panel.organ.ui.addButton.text, pseudo("Add this organ"))
        self.assertEqual(pseudo("{count} of <b>x</b>"), "«{count} öƒ <b>ẋ</b>»")
        self.panel.update.ui.problemLabel.text = "Nobody translated this."
        with self.assertRaises(AssertionError):
            self.check()

    def test_models_and_the_machine(self) -> None:
        self.check()
        self.session.chooseModel("starter")
        self.check()
        self.data.add("GPU 1")
        machine = self.session.machine
        for device in (
            {"name": "CPU", "reason": "no GPU was found", "free_mb": None},
            {"name": "GPU 1", "free_mb": 9e3},
        ):
            machine.device = device
            for asked in ({"patch": 64, "batch": 2, "device": "auto"}, {"patch": 96, "batch": 1, "device": "cpu"}):
                known = {"name": "GPU 1", "seconds_per_step": 0.5, "peak_mb": 2048.0, "asked": asked}
                slicer.app.userSettings().setValue("IncrementalSeg/machine", json.dumps({**device, **known}))
                self.session.changed()
                self.check()
        with mock.patch.object(machine, "process", Busy()):
            self.session.changed()
            self.check()
        machine._ended(1, "")
        self.check()
        other = variant(self.session.models.named("Abdomen").folder, self.home / "other")
        self.session.models.library.accept(other, "Abdomen")
        self.session.chooseModel("Abdomen")
        self.check()

    def test_questions_and_errors_about_models_and_packages(self) -> None:
        from IncrementalSegModule import Dependencies

        self.answers.update(confirm=False, text="Abdomen", openFile="", saveFile="")
        ui = self.panel.model.ui
        for button in (ui.deleteButton, ui.importButton, ui.exportButton):
            button.click()
        self.check()
        self.data |= {"torch", "scipy"}
        with mock.patch.object(Dependencies, "missing", lambda: ["torch", "scipy"]):
            self.panel.model.showEnvironment()
            self.check()
            ui.installButton.click()
            self.session.chooseModel("Abdomen")
            self.panel.model.onMeasure()
            self.check()
        self.answers["openFile"] = str(self.home / "nothing.zip")
        with mock.patch.object(self.session.foreign, "process", Busy()):
            self.session.changed()
            self.check()
            ui.importButton.enabled = True
            ui.importButton.click()
        self.check()

    def test_organs(self) -> None:
        ui = self.panel.organ.ui
        for text in ("pancr", "liver", "cyst", "xyzzy"):
            self.data.add(text)
            ui.searchEdit.setText(text)
            self.check()
        self.chooseOrgan("stomach")
        ui.searchEdit.setText("cyst")
        ui.parentSelector.currentIndex = 1
        ui.addButton.click()
        self.check()

    def test_cases_and_what_is_missing_in_them(self) -> None:
        self.chooseOrgan("stomach")
        self.check()
        for name in PATIENTS:
            self.addPatient(name)
            self.check()
        for spoil in (self.noSegment, self.emptySegment, self.fewSlices, self.gap, self.noCT, self.noVolume):
            spoil()
            self.session.changed()
            self.check()
        bare, _segmentation = self.loadPatient("anna")
        self.session.addCase(bare)
        self.check()
        self.panel.cases.onRole(2)
        self.check()

    def segment(self, patient: int) -> tuple:
        row = self.session.cases.rows()[patient]
        return row, next(iter(row.segments.values()))

    def voxels(self, patient: int):
        row, segment = self.segment(patient)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(row.segmentation, segment, row.volume)
        return mask, lambda: slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask, row.segmentation, segment, row.volume
        )

    def noSegment(self) -> None:
        row, segment = self.segment(0)
        row.segmentation.GetSegmentation().RemoveSegment(segment)

    def emptySegment(self) -> None:
        mask, write = self.voxels(1)
        mask[:] = 0
        write()

    def fewSlices(self) -> None:
        mask, write = self.voxels(1)
        mask[3, 5:9, 5:9] = 1
        write()

    def gap(self) -> None:
        mask, write = self.voxels(2)
        slices = np.flatnonzero(mask.any(axis=(1, 2)))
        mask[slices[1]] = 0
        write()

    def noCT(self) -> None:
        volume = self.segment(3)[0].volume
        slicer.util.arrayFromVolume(volume)[:] = 500
        slicer.util.arrayFromVolumeModified(volume)
        volume.SetSpacing(30.0, 30.0, 1.0)

    def noVolume(self) -> None:
        slicer.mrmlScene.RemoveNode(self.segment(3)[0].volume)

    def test_an_update_from_start_to_end(self) -> None:
        from IncrementalSegModule.Update import _ENDS

        self.prepare(["anna", "bert"])
        self.check()
        update = self.session.update
        with mock.patch.object(update, "process", Busy()):
            self.session.changed()
            self.check()
            for phase in (*_ENDS, "calibration", "fusion", "remember", "evaluate"):
                for left in (None, 20.0, 600.0, 9000.0):
                    update.progress.take({"event": "progress", "phase": phase, "step": 3, "of": 9, "eta_s": left})
                    self.session.progressed()
                    self.check()
            update.progress.take(
                {
                    "event": "progress",
                    "phase": "update",
                    "step": 9,
                    "of": 9,
                    "loss": {"seg": 1.0, "kd": 0.1, "total": 1.1},
                }
            )
            self.session.progressed()
            self.check()
            update.cancelling = True
            self.session.changed()
            self.check()
        update.cancelling = False
        update._ended(1, "")
        self.check()

    def test_updates_so_far(self) -> None:
        from IncrementalSegModule.Jobs import JobFolder

        shutil.copytree(finishedJob(), self.home / "jobs" / "20260101_000000_Stomach")
        stopped = self.home / "jobs" / "20260102_000000_Stomach"
        shutil.copytree(finishedJob(), stopped)
        shutil.rmtree(stopped / "model")
        (stopped / "report.json").unlink()
        (self.home / "jobs" / "20260103_000000_Liver").mkdir()
        self.data |= {"Stomach", "Liver", JobFolder(self.home / "jobs" / "20260103_000000_Liver").problem}
        self.panel.update.listJobs()
        self.assertEqual(self.panel.update.ui.jobList.count, 3)
        self.check()
        self.answers["confirm"] = False
        self.panel.update.ui.deleteJobButton.click()
        self.check()

    def test_the_review(self) -> None:
        from IncrementalSegModule.Dreams import Dream
        from IncrementalSegModule.Jobs import JobFolder
        from IncrementalSegModule.Review import rows, verdict

        self.chooseOrgan("stomach")
        self.addPatient("anna")
        place = self.home / "jobs" / "20260101_000000_Stomach"
        shutil.copytree(finishedJob(), place)
        self.data.add("Stomach")
        self.session.review(JobFolder(place))
        self.check(Dream(Path("synthetic_001_ct.nii.gz")).name)
        report = self.session.job.report
        said = [verdict({"verdict": each}) for each in ("good", "old organ lost", "new organ not learned")]
        figures = ({"dsc_before": 0.9, "dsc_after": after} for after in (0.2, 0.9, None))
        for changed in [*figures, {"agreement": None}, {"agreement": 0.99}, {"agreement": 0.1}]:
            other = {"dsc_before": None, "dsc_after": None, "agreement": None, **changed}
            for scans in (1, 3):
                organs = [{**organ, **other} for organ in report["organs"]]
                said += [
                    text
                    for row in rows({"organs": organs, "cases": {"heldout": scans}})
                    for text in (row.result, row.sentence, row.before)
                ]
        self.check(*said)
        self.answers["confirm"] = False
        self.panel.review.ui.acceptButton.click()
        self.panel.review.ui.discardButton.click()
        self.assertTrue(self.asked)
        self.check()

    def test_predictions_and_synthetic_images_under_way(self) -> None:
        from IncrementalSegModule.CaseChecks import sideWarning
        from IncrementalSegModule.Predict import Task

        self.addPatient("anna")
        predictor, dreams = self.session.predictor, self.session.dreams
        self.panel.predict.ui.predictButton.enabled = True
        with mock.patch.object(predictor, "current", Task(Path(), slicer.util.getNode("anna"), None)):
            self.session.changed()
            self.check(predictor.sentence)
        with mock.patch.object(dreams, "process", Busy()):
            dreams.progress.take({"event": "progress", "phase": "synthesize", "step": 1, "of": 4, "eta_s": 9.0})
            self.session.changed()
            self.check(dreams.progress.sentence)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mirrored")
        self.check(sideWarning(segmentation))


if __name__ == "__main__":
    unittest.main()
