"""Step 3: every row says ready, or what is missing."""

from __future__ import annotations

import unittest

import numpy as np
import slicer
from panel_testing import PATIENTS, CaseTest, material


class CaseStepTest(CaseTest):
    def test_a_scan_with_its_annotation_is_ready(self) -> None:
        self.addPatient("anna")
        self.assertTrue(self.state().startswith("Ready"), self.state())
        self.assertEqual(self.panel.update.ui.problemLabel.text, "")

    def test_no_annotation_an_empty_one_and_too_few_slices_are_told(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        self.session.addCase(volume)
        self.assertIn("No annotation", self.state())
        self.session.addCase(volume, segmentation)
        empty = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(empty, segmentation, "stomach", volume)
        self.panel.refresh()
        self.assertIn("is empty", self.state())
        empty[10, 5:9, 5:9] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(empty, segmentation, "stomach", volume)
        self.panel.refresh()
        self.assertIn("1 slice(s) only", self.state())
        self.assertIn("anna", self.panel.update.ui.problemLabel.text)
        self.assertFalse(self.panel.update.ui.startButton.enabled)

    def test_slices_left_out_are_told_with_the_remedy(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        mask[6:20:4, 5:12, 5:12] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "stomach", volume)
        self.session.addCase(volume, segmentation)
        self.assertIn("Fill between slices", self.state())

    def test_a_segmentation_of_another_patient_is_refused(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        volume.SetOrigin([5000.0, 0.0, 0.0])
        self.session.addCase(volume, segmentation)
        self.assertIn("lies outside", self.state())

    def test_a_transform_that_is_not_hardened_is_refused(self) -> None:
        self.addPatient("anna")
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        self.session.cases.rows()[0].volume.SetAndObserveTransformNodeID(transform.GetID())
        self.panel.refresh()
        self.assertIn("harden", self.state())

    def test_a_segmentation_without_the_new_organ_is_told(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        segmentation.GetSegmentation().GetSegment("stomach").SetName("Thing")
        self.session.addCase(volume, segmentation)
        self.assertIn("No segment is chosen for Stomach", self.state())

    def test_a_deleted_segment_is_told(self) -> None:
        self.addPatient("anna")
        self.session.cases.rows()[0].segmentation.GetSegmentation().RemoveSegment("stomach")
        self.panel.refresh()
        self.assertIn("No segment is chosen for Stomach", self.state())

    def test_a_deleted_volume_is_told_and_the_case_can_be_removed(self) -> None:
        self.addPatient("anna")
        slicer.mrmlScene.RemoveNode(self.session.cases.rows()[0].volume)
        self.panel.refresh()
        self.assertIn("no longer in the scene", self.state())
        self.ui.caseTable.selectRow(0)
        self.ui.removeButton.click()
        self.assertEqual(self.session.cases.rows(), [])

    def test_what_is_no_ct_gets_a_warning_but_may_be_used(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        slicer.util.arrayFromVolume(volume)[:] += 1200
        slicer.util.arrayFromVolumeModified(volume)
        self.session.addCase(volume, segmentation)
        self.assertIn("do not look like HU", self.state())
        self.assertTrue(self.state().startswith("Ready"))

    def test_a_coarse_scan_gets_a_warning(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        volume.SetSpacing([10.0, 10.0, 25.0])
        self.session.addCase(volume, segmentation)
        self.assertIn("coarse", self.ui.caseTable.item(0, 2).text())

    def test_the_last_case_is_held_out_from_four_on_and_this_can_be_changed(self) -> None:
        for name in PATIENTS:
            self.addPatient(name)
        uses = [self.ui.caseTable.item(row, 1).text() for row in range(4)]
        self.assertEqual(uses, ["learn", "learn", "learn", "check"])
        self.ui.caseTable.selectRow(0)
        self.ui.roleSelector.currentIndex = 2
        uses = [self.ui.caseTable.item(row, 1).text() for row in range(4)]
        self.assertEqual(uses, ["check", "learn", "learn", "learn"])

    def test_everything_held_out_is_refused(self) -> None:
        self.addPatient("anna")
        self.session.cases.holdOut(self.session.cases.rows()[0].key, True)
        self.session.changed()
        self.assertIn("leave at least one", self.panel.update.ui.problemLabel.text)

    def test_a_folder_is_loaded_with_the_wanted_organ_alone(self) -> None:
        self.answers = {"openFolder": str(material() / "patients")}
        self.ui.addFolderButton.click()
        self.assertEqual(self.errors, [])
        rows = self.session.cases.rows()
        self.assertEqual([row.name for row in rows], PATIENTS)
        self.assertEqual(rows[0].segmentation.GetSegmentation().GetNumberOfSegments(), 1)
        self.assertTrue(all(self.state(row).startswith("Ready") for row in range(4)))

    def test_a_folder_without_the_organ_is_refused(self) -> None:
        self.session.removeOrgan(self.session.organs[0].key)
        self.chooseOrgan("thyroid gland")
        self.answers = {"openFolder": str(material() / "patients")}
        self.ui.addFolderButton.click()
        self.assertIn("is annotated with Thyroid", self.errors[0])
        self.assertEqual(self.session.cases.rows(), [])

    def test_a_segment_of_any_name_is_chosen_by_hand(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        segmentation.GetSegmentation().GetSegment("stomach").SetName("Segment_1")
        segmentation.GetSegmentation().AddEmptySegment("other", "Segment_2")
        self.session.addCase(volume, segmentation)
        self.assertIn("choose it below", self.state())
        offered = [self.ui.segmentSelector.itemText(number) for number in range(self.ui.segmentSelector.count)]
        self.assertEqual(offered, ["choose …", "Segment_1", "Segment_2"])
        self.ui.segmentSelector.currentIndex = 1
        self.assertTrue(self.state().startswith("Ready"), self.state())
        self.assertEqual(self.panel.update.ui.problemLabel.text, "")
        path = slicer.util.tempDirectory() + "/scene.mrb"
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path)
        self.assertTrue(self.state().startswith("Ready"), self.state())
        self.assertEqual(self.ui.segmentSelector.currentText, "Segment_1")
        self.ui.segmentSelector.currentIndex = 0
        self.assertIn("choose it below", self.state())

    def test_a_choice_by_hand_wins_over_a_name_and_stays_when_organs_are_added(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        segmentation.GetSegmentation().AddEmptySegment("better", "Segment_2")
        self.session.addCase(volume, segmentation)
        self.assertEqual(self.ui.segmentSelector.currentText, "Stomach")
        self.ui.segmentSelector.currentIndex = 2
        self.chooseOrgan("gall bladder")
        self.session.addCase(volume, segmentation)
        stomach, gallbladder = self.session.organs
        self.assertEqual(self.session.cases.rows()[0].segments, {stomach.key: "better"})
        self.ui.organSelector.currentIndex = 1
        self.ui.segmentSelector.currentIndex = 1
        self.assertEqual(self.session.cases.rows()[0].segments, {stomach.key: "better", gallbladder.key: "stomach"})

    def test_another_segmentation_of_a_scan_brings_its_own_segments(self) -> None:
        self.addPatient("anna")
        row = self.session.cases.rows()[0]
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
        self.session.addCase(row.volume, other)
        self.assertEqual(self.session.cases.rows()[0].segments, {})
        self.assertIn("No segment is chosen", self.state())

    def test_the_length_of_a_sagittal_scan_is_measured_from_head_to_foot(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        self.session.addCase(volume, segmentation)
        self.assertNotIn("length only", self.state())
        toRAS = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, 10.0, 0, 0], [0, 0, 0, 1]])
        sagittal = slicer.util.addVolumeFromArray(np.full((20, 40, 200), -1000, np.int16), ijkToRAS=toRAS)
        rows = self.session.cases.rows()
        rows[0].volume = sagittal  # 20 slices of 1 mm, 400 mm from head to foot
        from IncrementalSegModule.CaseChecks import unusual

        contents = self.session.model.contents
        self.assertFalse(any("length only" in text for text in unusual(rows[0], contents)))
        sagittal.SetSpacing(1.0, 1.0, 10.0)
        self.assertTrue(any("40 mm of the body's length only" in text for text in unusual(rows[0], contents)))

    def test_a_long_state_can_be_read_whole_at_any_width(self) -> None:
        volume, segmentation = self.loadPatient("anna")
        volume.SetSpacing([10.0, 10.0, 25.0])
        slicer.util.arrayFromVolume(volume)[:] += 1200
        self.session.addCase(volume, segmentation)
        table, heights = self.ui.caseTable, []
        self.addCleanup(table.setMaximumWidth, 16777215)
        self.addCleanup(table.setMinimumWidth, 0)
        self.widget.parent.show()
        for width in (600, 260):
            table.setFixedWidth(width)
            slicer.app.processEvents()
            heights.append(table.rowHeight(0))
            self.assertGreaterEqual(table.height, table.rowHeight(0))
        self.assertGreater(heights[1], 1.5 * heights[0])
        self.assertEqual(table.item(0, 2).toolTip(), self.state())

    def test_the_scene_remembers_the_cases(self) -> None:
        self.addPatient("anna")
        path = slicer.util.tempDirectory() + "/scene.mrb"
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertEqual(self.session.cases.rows(), [])
        slicer.util.loadScene(path)
        self.assertEqual([row.name for row in self.session.cases.rows()], ["anna"])
        self.assertTrue(self.state().startswith("Ready"), self.state())


if __name__ == "__main__":
    unittest.main()
