"""Step 5: inversion images, merged predictions, discard; on a candidate that was learned once."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from pathlib import Path

import numpy as np
import slicer
from panel_testing import PanelTest, material, worker

_learned: dict[str, Path] = {}


def finishedJob() -> Path:
    """The job folder of a finished update of the base model, made once by the command line."""
    if "folder" not in _learned:
        folder = _learned["folder"] = Path(tempfile.mkdtemp(prefix="incrementalseg-job-")) / "job"
        cases = ["--cases", str(material() / "patients"), "--organ", "Stomach"]
        short = ["--steps", "12", "--patch", "32", "--batch", "1", "--device", "cpu", "--strategy", "locked"]
        worker("add-organ", "--model", str(material() / "base"), *cases, *short, "--out", str(folder))
    return _learned["folder"]


class ReviewStepTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        from IncrementalSegModule.Jobs import JobFolder

        self.ui = self.panel.review.ui
        self.chooseOrgan("stomach")
        self.addPatient("anna")
        place = self.home / "jobs" / "20260101_000000_Stomach"
        shutil.copytree(finishedJob(), place)
        self.before = self.nodes()
        self.session.review(JobFolder(place))

    def views(self) -> list[object]:
        """What the slice views show, and where."""
        layers = [
            [
                *(view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), view.GetLabelVolumeID()),
                *(view.GetForegroundOpacity(), view.GetLabelOpacity()),
            ]
            for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        ]
        places = [
            (view.GetFieldOfView(), slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()).round(6).tolist())
            for view in slicer.util.getNodesByClass("vtkMRMLSliceNode")
        ]
        segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [layers, places, {node.GetID(): node.GetDisplayNode().GetVisibility() for node in segmentations}]

    def lookClosely(self) -> list[object]:
        """Two scans over each other, zoomed in at a place of the user's own."""
        volume = slicer.util.getNode("anna")
        other = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="other")
        slicer.util.setSliceViewerLayers(background=other, foreground=volume, foregroundOpacity=0.4, fit=True)
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        red.SetFieldOfView(70.0, 70.0, 10.0)
        red.SetSliceOffset(12.0)
        self.before = self.nodes()
        return self.views()

    def nodes(self) -> dict[str, int]:
        kinds = ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTransformNode")
        return {node.GetID(): node.GetMTime() for kind in kinds for node in slicer.util.getNodesByClass(kind)}

    def test_old_organs_of_a_locked_update_are_kept_to_the_digit_and_said_so(self) -> None:
        table = self.ui.organTable
        for row in range(2):
            self.assertEqual(table.item(row, 2).text(), table.item(row, 3).text())
        self.assertIn("Liver kept", self.ui.sentencesLabel.text)

    def test_old_and_new_model_are_compared_on_a_case(self) -> None:
        self.assertEqual(self.ui.caseSelector.currentText, "anna")
        views = self.lookClosely()
        self.ui.compareButton.click()
        self.assertEqual(self.ui.compareButton.text, "Cancel")
        self.assertIn("anna, old model", self.ui.compareLabel.text)
        self.wait(lambda: not self.session.predictor.running)
        self.assertEqual((self.errors, self.session.predictor.failure), ([], ""))
        names = sorted(node.GetName() for node in self.session.shown.nodes())
        self.assertEqual(names, ["anna: difference", "anna: merged", "anna: new model", "anna: old model"])
        merged = slicer.util.getNode("anna: merged").GetSegmentation()
        organs = [merged.GetNthSegment(i).GetName() for i in range(merged.GetNumberOfSegments())]
        self.assertIn("Stomach", organs, "the annotation is part of the merge")
        self.assertEqual(self.ui.volumeTable.rowCount, len(organs))
        self.assertEqual({key: self.nodes()[key] for key in self.before}, self.before, "the user's data were touched")
        shown = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if visible(node)]
        self.assertEqual(shown, ["anna: merged"])
        self.answers["confirm"] = True
        self.ui.discardButton.click()
        self.assertEqual(self.nodes(), self.before)
        self.assertEqual(self.views(), views, "the views show something else than before the review")
        self.assertFalse(self.panel.ui.reviewSection.enabled)
        self.assertEqual(self.session.models.library.current_version("Abdomen"), 1)

    def test_what_the_user_looks_at_since_is_left_alone_by_discard(self) -> None:
        self.showSomething()
        other = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="other")
        slicer.util.setSliceViewerLayers(background=other, fit=True)
        views = self.views()[:2]
        self.session.discard()
        self.assertEqual(self.views()[:2], views)

    def test_what_the_review_hid_is_shown_again_when_the_model_is_accepted(self) -> None:
        own = slicer.util.getNode("anna organs")
        self.showSomething()
        self.assertFalse(visible(own))
        self.session.accept("Abdomen")
        self.assertTrue(visible(own))

    def showSomething(self) -> None:
        """A segmentation of ours over the patient's scan, as the review shows one."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "merged")
        node.CreateDefaultDisplayNodes()
        self.session.shown.add(node, "Review of anna", self.session.state.job)
        self.session.shown.present(slicer.util.getNode("anna"), [node])

    def test_cancel_ends_a_comparison_and_leaves_nothing(self) -> None:
        self.ui.compareButton.click()
        self.ui.compareButton.click()
        self.wait(lambda: not self.session.predictor.running, 60)
        self.assertEqual(self.session.shown.nodes(), [])
        self.assertEqual(self.ui.compareButton.text, "Compare old and new model")

    def test_the_table_says_in_words_what_is_red_and_explains_its_titles(self) -> None:
        from IncrementalSegModule.Review import columns, rows

        table = self.ui.organTable
        self.assertEqual([table.item(row, 1).text() for row in range(2)], ["kept", "kept"])
        titles = [table.horizontalHeaderItem(column) for column in range(table.columnCount)]
        self.assertEqual([title.text() for title in titles], list(columns()))
        self.assertTrue(all(title.toolTip() for title in titles))
        report = dict(self.session.job.report)
        report["organs"] = [{**organ, "dsc_before": 0.9, "dsc_after": 0.2} for organ in report["organs"]]
        self.assertEqual(
            [(row.result, row.bad) for row in rows(report)], [("lost", True)] * 2 + [("not learned", True)]
        )

    def test_the_report_opens_in_the_browser_as_one_page(self) -> None:
        self.answers["show"] = True
        (self.session.job.folder / "report.html").unlink()
        self.ui.openReportButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(self.asked, [str(self.session.job.folder / "report.html")])
        page = Path(self.asked[0]).read_text(encoding="utf-8")
        self.assertIn("Update report: Stomach", page)
        self.assertIn("<img ", page, "a held-out scan is shown where the job lies")
        self.assertNotIn("anna", page)

    def test_a_computer_without_a_browser_is_told_where_the_report_lies(self) -> None:
        self.answers |= {"show": False, "inform": None}
        self.ui.openReportButton.click()
        self.assertIn(str(self.session.job.folder / "report.html"), self.asked[-1])

    def test_a_saved_report_shows_a_patient_only_when_asked_to(self) -> None:
        target = self.home / "filed.html"
        self.answers["saveFile"] = str(target)
        self.assertFalse(self.ui.scansCheckBox.checked)
        self.ui.saveReportButton.click()
        page = target.read_text(encoding="utf-8")
        self.assertNotIn("<img ", page)
        self.assertIn("Left out of this copy", page)
        self.ui.scansCheckBox.checked = True
        self.ui.saveReportButton.click()
        self.assertIn("<img ", target.read_text(encoding="utf-8"))

    def test_a_report_that_cannot_be_saved_is_explained_and_one_without_a_name_is_not_saved(self) -> None:
        self.answers["saveFile"] = ""
        self.ui.saveReportButton.click()
        self.assertEqual(self.errors, [])
        (self.home / "file").write_text("in the way", encoding="utf-8")
        self.answers["saveFile"] = str(self.home / "file" / "report.html")
        self.ui.saveReportButton.click()
        self.assertIn("could not be written", self.errors[0])

    def test_inversion_images_are_made_shown_and_taken_away_again(self) -> None:
        views = self.lookClosely()
        self.ui.dreamSpinBox.value = 1
        self.ui.dreamButton.click()
        self.assertEqual(self.ui.dreamButton.text, "Cancel")
        self.wait(lambda: not self.session.dreams.running, 240)
        self.assertEqual(self.session.dreams.failure, "")
        self.assertEqual(self.ui.gallery.count, 1)
        self.assertFalse(self.ui.gallery.item(0).icon().isNull())
        self.panel.review.onDreamClicked(self.ui.gallery.item(0))
        self.assertEqual(self.errors, [])
        shown = self.session.shown.nodes()
        self.assertEqual(len(shown), 2)
        self.assertTrue(all("no patient" in node.GetName() for node in shown))
        red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        self.assertEqual([red.GetBackgroundVolumeID(), red.GetForegroundVolumeID()], [shown[0].GetID(), None])
        slicer.util.setSliceViewerLayers(background=slicer.util.getNode("anna"))
        self.panel.review.onDreamClicked(self.ui.gallery.item(0))
        self.assertEqual(self.session.shown.nodes(), shown, "a second click loads it again")
        self.assertEqual(red.GetBackgroundVolumeID(), shown[0].GetID())
        slicer.mrmlScene.RemoveNode(shown[1])
        self.panel.review.onDreamClicked(self.ui.gallery.item(0))
        self.assertEqual(len(self.session.shown.nodes()), 2)
        self.session.discard()
        self.assertEqual(self.nodes(), self.before)
        self.assertEqual(self.views(), views)

    def test_what_the_user_put_into_our_folder_survives_discard(self) -> None:
        ours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "ours")
        theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "theirs")
        self.session.shown.add(ours, "Review of anna", self.session.state.job)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        folder = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), "Review of anna")
        hierarchy.CreateItem(folder, theirs)
        self.session.discard()
        self.assertEqual([slicer.util.getNodes(name) != {} for name in ("ours", "theirs")], [False, True])

    def test_what_was_accepted_is_not_taken_away_by_a_later_discard(self) -> None:
        merged = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "merged")
        self.session.shown.add(merged, "Review of anna", self.session.state.job)
        self.session.accept("Abdomen")
        self.session.shown.clear("")
        self.assertIsNotNone(merged.GetScene())

    def test_a_candidate_is_named_after_the_model_it_grew_from(self) -> None:
        self.assertEqual(self.ui.nameEdit.text, "My model", "the base of this job lies outside the library")
        self.session.chooseModel("Abdomen")
        self.assertEqual(self.session.acceptedName(), "My model")

    def test_two_segments_of_one_organ_are_merged_as_one(self) -> None:
        from IncrementalSegModule.Review import MergePolicy, merging
        from IncrementalSegModule.SegmentationIO import finished, labelMapOf

        row = self.session.cases.rows()[0]
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "twice")
        copy.GetSegmentation().CopySegmentFromSegmentation(row.segmentation.GetSegmentation(), "stomach")
        copy.GetSegmentation().CopySegmentFromSegmentation(row.segmentation.GetSegmentation(), "stomach", False)
        extra = slicer.vtkSegment()
        extra.DeepCopy(row.segmentation.GetSegmentation().GetSegment("stomach"))
        copy.GetSegmentation().AddSegment(extra, "again")
        organs = self.session.model.contents.organs
        empty = labelMapOf(row.segmentation, {}, row.volume)
        merged = finished(merging(row.volume, empty, organs, copy, MergePolicy.EMPTY, "merged"))
        self.assertEqual(merged.GetSegmentation().GetNumberOfSegments(), 1)

    def test_discard_asks_first(self) -> None:
        self.answers["confirm"] = False
        self.ui.discardButton.click()
        self.assertTrue(self.panel.ui.reviewSection.enabled)


def visible(segmentation) -> bool:
    return bool(segmentation.GetDisplayNode().GetVisibility())


class MergeTest(PanelTest):
    def test_a_new_organ_is_told_apart_from_the_old_ones_by_its_colour(self) -> None:
        self.chooseOrgan("stomach")  # has nearly the colour of the liver in Slicer's terminology
        color = np.array(self.session.organs[0].color)
        for old in self.session.known:
            self.assertGreater(np.linalg.norm(color - old.color), 50, old.name)

    def test_each_policy_does_what_it_says(self) -> None:
        from IncrementalSegModule.Review import MergePolicy, difference, merged

        from IncrementalSegLib.organs import Organ, OrganTable, organ_named

        organs = OrganTable.from_names(["Liver", "Spleen"])
        prediction = np.array([1, 1, 2, 2, 0, 0])
        mine = {
            organ_named("Liver"): np.array([1, 0, 0, 1, 0, 0], bool),
            Organ("My cyst"): np.array([0, 0, 0, 0, 1, 0], bool),
        }
        expected = {
            MergePolicy.EMPTY: [1, 1, 2, 1, 3, 0],
            MergePolicy.REPLACE: [1, 1, 2, 2, 3, 0],
            MergePolicy.MINE: [1, 0, 2, 1, 3, 0],
        }
        for policy, labels in expected.items():
            found, table = merged(prediction, organs, mine, policy)
            self.assertEqual(found.tolist(), labels, policy)
            self.assertEqual(table.names, ["Liver", "Spleen", "My cyst"])
        changed = difference(np.array([1, 1, 2, 0, 3]), np.array([1, 2, 0, 1, 3]), organs)
        self.assertEqual(changed.tolist(), [0, 1, 1, 2, 0])


if __name__ == "__main__":
    unittest.main()
