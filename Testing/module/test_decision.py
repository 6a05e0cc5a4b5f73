"""Candidates and the library: what accepting would lose, what is a version already, what is still in use or damaged."""

from __future__ import annotations

import shutil
import unittest
from dataclasses import replace
from pathlib import Path

from panel_testing import PanelTest, material, variant
from test_review_step import finishedJob


class DecisionTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        self.library = self.session.models.library
        self.review, self.update = self.panel.review.ui, self.panel.update.ui
        self.answers["confirm"] = True

    def job(self, number: int = 1, candidate: Path | None = None) -> Path:
        """A finished update of version 1 of "Abdomen", with another candidate than it made where one is given."""
        from IncrementalSegLib.jobs import Job

        folder = self.home / "jobs" / f"2026010{number}_000000_Stomach"
        shutil.copytree(finishedJob(), folder)
        job = replace(Job.load(folder), model=str(self.library.current("Abdomen")))
        (folder / "job.json").unlink()
        job.save(folder)
        if candidate:
            shutil.rmtree(folder / "model")
            variant(candidate, folder / "model")
        return folder

    def open(self, folder: Path) -> None:
        from IncrementalSegModule.Jobs import JobFolder

        self.session.review(JobFolder(folder))

    def test_organs_that_came_in_between_are_named_and_kept_at_no(self) -> None:
        old = self.job(candidate=material() / "base" / "model")  # knows liver and spleen only
        self.library.accept(finishedJob() / "model", "Abdomen")
        self.open(old)
        self.answers["confirm"] = False
        self.review.acceptButton.click()
        self.assertIn(
            "Version 2 of 'Abdomen', now in use, knows organs that this model does not: Stomach", self.asked[-1]
        )
        self.assertEqual(self.library.current_version("Abdomen"), 2)
        self.review.nameEdit.setText("Beside")
        self.answers["confirm"] = True
        self.review.acceptButton.click()
        self.assertNotIn("now in use", self.asked[-1])
        self.assertEqual((self.library.versions("Abdomen"), self.library.versions("Beside")), ([1, 2], [1]))

    def test_organs_go_where_the_user_says_so_and_at_the_console_only_then(self) -> None:
        from IncrementalSegLib.errors import InputError

        old = self.job(candidate=material() / "base" / "model")
        self.library.accept(finishedJob() / "model", "Abdomen")
        self.open(old)
        self.assertRaisesRegex(InputError, "Stomach", self.logic.accept)
        self.assertEqual(self.library.current_version("Abdomen"), 2)
        self.review.acceptButton.click()
        self.assertEqual((self.errors, self.library.current_version("Abdomen")), ([], 3))
        self.assertEqual(self.session.model.contents.organs.names, ["Liver", "Spleen"])

    def test_the_same_update_is_accepted_once(self) -> None:
        folder = self.job()
        for _ in range(2):
            self.open(folder)
            self.review.acceptButton.click()
        self.assertIn("This is version 2 of model 'Abdomen' already", self.errors[0])
        self.assertEqual(self.library.versions("Abdomen"), [1, 2])

    def test_an_update_whose_model_was_deleted_is_reviewed_and_accepted_but_not_compared(self) -> None:
        self.chooseOrgan("stomach")
        self.addPatient("anna")
        folder = self.job()
        self.library.delete("Abdomen")
        self.open(folder)
        self.assertEqual(self.review.organTable.rowCount, 3)
        self.review.compareButton.click()
        self.assertIn("The model that this update grew from was deleted", self.errors[0])
        self.assertFalse(self.session.predictor.running)
        self.assertEqual(self.review.nameEdit.text, "Abdomen")
        self.review.acceptButton.click()
        self.assertEqual(self.session.model.contents.organs.names, ["Liver", "Spleen", "Stomach"])

    def test_a_damaged_update_is_listed_and_deleted_and_the_others_work(self) -> None:
        whole = self.job(1)
        damages = {"job.json": "{", "report.json": '{"organs": [', "cases/labels.csv": "LabelValue,Name\nx,y\n"}
        for number, (name, content) in enumerate(damages.items(), 2):
            path = self.job(number) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
        (self.home / "jobs" / "20260105_000000_Stomach").mkdir()  # killed while its cases were written
        self.panel.update.listJobs()
        texts = [self.update.jobList.item(row).text() for row in range(self.update.jobList.count)]
        self.assertEqual(["damaged" in text for text in texts], [True] * 4 + [False])
        for name in [None, "cases/labels.csv", "report.json", "job.json"]:
            self.update.jobList.setCurrentRow(0)
            self.assertTrue(self.update.jobList.item(0).toolTip())
            offered = [button.enabled for button in (self.update.resumeButton, self.update.openButton)]
            self.assertEqual((offered, self.update.deleteJobButton.enabled), ([False, False], True), name)
            self.update.deleteJobButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual([path.name for path in (self.home / "jobs").iterdir()], [whole.name])
        self.assertTrue(self.update.openButton.enabled)
        self.update.openButton.click()
        self.assertTrue(self.panel.ui.reviewSection.enabled)

    def test_the_update_at_hand_may_become_damaged(self) -> None:
        folder = self.job()
        self.open(folder)
        (folder / "report.json").write_text("{", encoding="utf-8")
        self.panel.refresh()
        self.assertIsNone(self.session.job)
        self.assertFalse(self.panel.ui.reviewSection.enabled)

    def test_an_update_whose_candidate_is_at_work_is_not_deleted(self) -> None:
        self.chooseOrgan("stomach")
        self.addPatient("anna")
        folder = self.job()
        self.open(folder)
        self.panel.update.listJobs()
        for begin, work in (
            (self.review.dreamButton, self.session.dreams),
            (self.review.compareButton, self.session.predictor),
        ):
            self.errors.clear()
            begin.click()
            self.assertTrue(work.running)
            self.update.deleteJobButton.click()
            self.assertIn("at work on a prediction or on images", self.errors[0])
            self.assertTrue(folder.exists())
            work.cancel()
            self.wait(lambda work=work: not work.running, 30)
        self.update.deleteJobButton.click()
        self.assertFalse(folder.exists())

    def test_an_image_whose_labels_are_missing_is_left_out(self) -> None:
        folder = self.job()
        (folder / "inversion1").mkdir()
        (folder / "inversion1" / "synthetic_001_ct.nii.gz").write_bytes(b"half")
        self.open(folder)
        self.assertEqual(self.review.gallery.count, 0)

    def test_cases_being_written_are_not_taken_for_damaged(self) -> None:
        from IncrementalSegModule import Jobs

        self.prepare(["anna"])
        seen, real = [], Jobs._writeCases

        def slow(*arguments) -> None:
            real(*arguments)
            (job,) = Jobs.allJobs()
            seen.append((job.title.endswith("(being written)"), job.running))

        self.addCleanup(setattr, Jobs, "_writeCases", real)
        Jobs._writeCases = slow
        self.update.startButton.click()
        self.assertEqual((self.errors, seen), ([], [(True, True)]))


if __name__ == "__main__":
    unittest.main()
