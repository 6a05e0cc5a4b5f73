"""Cancel, a killed worker, a closed scene: nothing is lost, and the panel offers to go on."""

from __future__ import annotations

import os
import signal
import time
import unittest

import slicer
from panel_testing import PanelTest


class StoppingTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        self.ui = self.panel.update.ui
        self.prepare(["anna", "bert"])
        self.session.state.steps = 3000

    def startAndLearn(self) -> None:
        self.ui.startButton.click()
        self.assertEqual(self.errors, [])
        self.wait(lambda: self.session.update.progress.phase == "update" and self.session.update.progress.step > 2)

    def test_cancel_is_acknowledged_at_once_and_the_update_can_be_resumed(self) -> None:
        self.startAndLearn()
        pid = self.session.update.process._worker
        began = time.monotonic()
        self.ui.startButton.click()
        self.assertIn("Cancelling", self.ui.phaseLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.assertLess(time.monotonic() - began, 2)
        self.wait(lambda: not self.session.update.running, 20)
        self.assertRaises(OSError, os.kill, pid, 0)
        self.assertEqual(self.session.update.failure, "")
        self.assertEqual(self.ui.startButton.text, "Start update")
        self.assertFalse(self.ui.jobsSection.collapsed)
        self.assertIn("stopped", self.ui.jobList.item(0).text())
        self.assertTrue(self.ui.resumeButton.enabled)
        done = self.session.job.events[-1]
        self.assertEqual(done["reason"], "Cancelled")
        self.ui.resumeButton.click()
        self.assertEqual(self.errors, [])
        steps = len(self.session.update.progress.losses)
        self.wait(lambda: len(self.session.update.progress.losses) > steps + 2)
        self.assertGreater(self.session.update.progress.losses[-1][0], self.session.update.progress.losses[0][0])

    def test_a_killed_worker_is_told_and_nothing_is_lost(self) -> None:
        self.startAndLearn()
        os.kill(self.session.update.process._worker, getattr(signal, "SIGKILL", signal.SIGTERM))
        self.wait(lambda: not self.session.update.running, 20)
        self.assertIn("Resume", self.ui.problemLabel.text)
        self.assertTrue(self.ui.resumeButton.enabled)
        self.assertFalse(self.session.job.running)

    def test_a_closed_and_reopened_scene_finds_its_update_again(self) -> None:
        self.startAndLearn()
        folder = self.session.job.folder
        path = slicer.util.tempDirectory() + "/scene.mrb"
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertIsNone(self.session.job)
        self.assertTrue(self.session.update.running, "closing a scene does not stop the work")
        slicer.util.loadScene(path)
        self.assertEqual(self.session.job.folder, folder)
        self.assertEqual(self.session.steps, 3000)
        self.session.update.cancel()
        self.wait(lambda: not self.session.update.running, 20)
        self.assertTrue(self.ui.resumeButton.enabled)

    def test_settings_of_a_closed_scene_do_not_come_back(self) -> None:
        self.session.state.steps = 77
        self.assertEqual(self.ui.stepsSpinBox.value, 77)
        slicer.mrmlScene.Clear()
        self.assertEqual(self.ui.stepsSpinBox.value, 0)
        self.ui.lockCheckBox.click()
        self.assertTrue(self.session.state.lockOldOrgans)
        self.assertEqual((self.session.state.steps, self.ui.stepsSpinBox.value), (0, 0))

    def test_a_second_click_while_the_cases_are_written_starts_nothing(self) -> None:
        from IncrementalSegModule import Session

        from IncrementalSegLib.errors import InputError

        real, clicks = Session.writeJob, []

        def slow(parameters, breathe):
            clicks.append(self.ui.startButton.enabled)
            self.assertRaisesRegex(InputError, "running", self.session.startUpdate)
            return real(parameters, breathe)

        self.addCleanup(setattr, Session, "writeJob", real)
        Session.writeJob = slow
        self.ui.startButton.click()
        self.assertEqual((self.errors, len(clicks)), ([], 1))
        self.assertEqual(len(list((self.home / "jobs").iterdir())), 1)

    def test_a_second_update_is_refused_while_one_runs(self) -> None:
        from IncrementalSegLib.errors import InputError

        self.startAndLearn()
        self.assertRaisesRegex(InputError, "running", self.session.startUpdate)
        self.assertRaisesRegex(InputError, "running", self.session.resume, self.session.job)
        self.assertTrue(self.session.job.running)
        self.assertRaisesRegex(InputError, "running", self.session.job.delete)

    def test_a_new_panel_offers_to_resume_what_was_stopped_and_does(self) -> None:
        import qt
        from IncrementalSegModule.Panel import Panel
        from IncrementalSegModule.Session import Session

        self.startAndLearn()
        self.session.update.cancel()
        self.wait(lambda: not self.session.update.running, 20)
        step = self.session.update.progress.losses[-1][0]
        slicer.mrmlScene.Clear()
        window, session = qt.QWidget(), Session(self.logic.getParameterNode, self.session.models)
        window.setLayout(qt.QVBoxLayout())
        panel = Panel(window.layout(), self.widget.resourcePath("UI"), session)
        self.addCleanup(panel.cleanup)
        ui = panel.update.ui
        self.assertFalse(panel.ui.updateSection.collapsed)
        self.assertFalse(ui.jobsSection.collapsed)
        self.assertIn("stopped", ui.jobList.item(0).text())
        ui.resumeButton.click()
        self.assertEqual(self.errors, [])
        self.wait(lambda: session.update.progress.losses and session.update.progress.losses[-1][0] > step)
        session.update.cancel()
        self.wait(lambda: not session.update.running, 20)

    def test_another_model_in_step_1_changes_neither_what_grows_nor_what_is_accepted(self) -> None:
        self.session.state.steps = 30
        self.ui.startButton.click()
        self.panel.model.ui.modelSelector.currentIndex = 1
        self.assertEqual(self.session.model.name, "starter")
        self.wait(lambda: not self.session.update.running)
        self.assertEqual((self.session.update.failure, self.session.model.name), ("", "starter"))
        shown = self.panel.review.ui.organTable
        self.assertEqual([shown.item(row, 0).text() for row in range(3)], ["Liver", "Spleen", "Stomach"])
        self.answers["confirm"] = True
        self.panel.review.ui.acceptButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(self.session.models.library.versions("Abdomen"), [1, 2])
        self.assertEqual(self.session.model.contents.organs.names, ["Liver", "Spleen", "Stomach"])

    def test_an_update_whose_model_is_gone_is_not_resumed(self) -> None:
        self.startAndLearn()
        self.session.update.cancel()
        self.wait(lambda: not self.session.update.running, 20)
        self.session.models.library.delete("Abdomen")  # as the command line or another Slicer may
        self.ui.resumeButton.click()
        self.assertIn("The model that this update grew from was deleted", self.errors[0])
        self.assertFalse(self.session.update.running)

    def test_a_prediction_that_had_to_be_ended_is_no_failure(self) -> None:
        from IncrementalSegModule import Process

        self.addCleanup(setattr, Process, "GRACE_MS", Process.GRACE_MS)
        Process.GRACE_MS = 0
        self.session.predict([self.loadPatient("carl")[0]])
        self.session.predictor.cancel()
        self.wait(lambda: not self.session.predictor.running, 20)
        self.assertEqual(self.session.predictor.failure, "")

    def test_a_job_is_deleted_with_its_folder_after_yes(self) -> None:
        self.startAndLearn()
        self.session.update.cancel()
        self.wait(lambda: not self.session.update.running, 20)
        folder = self.session.job.folder
        self.answers["confirm"] = True
        self.ui.deleteJobButton.click()
        self.assertFalse(folder.exists())
        self.assertEqual(self.ui.jobList.count, 0)
        self.assertIsNone(self.session.job)

    def test_the_panel_shows_losses_and_time_left(self) -> None:
        self.startAndLearn()
        self.assertIn("Learning", self.ui.phaseLabel.text)
        self.assertTrue(self.ui.chartLabel.isVisibleTo(self.panel.update.ui.widget))
        self.assertFalse(self.ui.chartLabel.pixmap.isNull())
        self.assertGreater(self.ui.progressBar.value, 20)


if __name__ == "__main__":
    unittest.main()
