"""Prediction: a segmentation with codes, geometry and volumes; cancel; failures in words."""

from __future__ import annotations

import unittest

import numpy as np
import SimpleITK as sitk
import slicer
from panel_testing import PanelTest, material


class PredictStepTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        self.ui = self.panel.predict.ui
        self.volume = self.loadPatient("anna")[0]
        self.ui.volumeSelector.setCurrentNode(self.volume)

    def test_a_scan_becomes_a_segmentation_ready_for_export(self) -> None:
        self.ui.predictButton.click()
        self.assertEqual(self.ui.predictButton.text, "Cancel")
        self.wait(lambda: not self.session.predictor.running)
        self.assertEqual((self.errors, self.session.predictor.failure), ([], ""))
        node = slicer.util.getNode("anna: all organs")
        segments = node.GetSegmentation()
        self.assertGreater(segments.GetNumberOfSegments(), 0)
        keys = {self.session.terminology.organOf(segments.GetNthSegment(i)).key for i in range(2)}
        self.assertLessEqual(keys, set(self.session.model.contents.organs.keys))
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertIs(node.GetNodeReference(role), self.volume)
        self.assertEqual(self.ui.volumeTable.rowCount, segments.GetNumberOfSegments())
        self.assertGreater(float(self.ui.volumeTable.item(0, 1).text()), 0)
        for number in range(segments.GetNumberOfSegments()):
            self.readyForExport(segments.GetNthSegment(number))
        self.ui.threeDButton.click()
        self.assertTrue(node.GetDisplayNode().GetVisibility3D())
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        self.assertTrue(segments.ContainsRepresentation(name))

    def readyForExport(self, segment) -> None:
        """DICOM SEG wants codes for what a segment is, and its recommended colour."""
        organ = self.session.terminology.organOf(segment)
        self.assertEqual(organ.type.scheme, "SCT")
        self.assertIsNotNone(organ.category)
        known = self.session.model.contents.organs.find(organ.key)
        self.assertEqual([round(255 * part) for part in segment.GetColor()], list(known.color))

    def test_the_result_lies_with_its_scan_in_the_patients_study(self) -> None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Anna")
        study = hierarchy.CreateStudyItem(patient, "Abdomen 2026")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(self.volume), study)
        self.ui.predictButton.click()
        self.wait(lambda: not self.session.predictor.running)
        item = hierarchy.GetItemByDataNode(slicer.util.getNode("anna: all organs"))
        self.assertEqual(hierarchy.GetItemParent(item), study)
        self.assertEqual(hierarchy.GetItemAncestorAtLevel(item, "Patient"), patient)
        ours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "ours")
        self.session.shown.add(ours, "Review of anna", "job", beside=self.volume)
        folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(ours))
        self.assertEqual((hierarchy.GetItemName(folder), hierarchy.GetItemParent(folder)), ("Review of anna", study))
        self.session.shown.clear("job")
        self.assertEqual(hierarchy.GetItemChildWithName(study, "Review of anna"), 0)
        self.assertEqual(hierarchy.GetItemParent(item), study)

    def test_cancel_while_the_result_is_loaded_leaves_nothing_and_the_next_one_works(self) -> None:
        self.ui.predictButton.click()
        self.wait(lambda: self.session.predictor._steps is not None)
        self.ui.predictButton.click()
        self.assertFalse(self.session.predictor.running)
        self.assertEqual(slicer.util.getNodes("anna: all organs*"), {})
        self.ui.predictButton.click()
        self.wait(lambda: not self.session.predictor.running)
        self.assertEqual(len(slicer.util.getNodes("anna: all organs*")), 1)

    def test_the_segmentation_is_what_the_command_line_predicts_voxel_for_voxel(self) -> None:
        from panel_testing import worker

        self.session.predict([self.volume])
        self.wait(lambda: not self.session.predictor.running)
        node = slicer.util.getNode("anna: all organs")
        ct = next((material() / "patients").glob("anna_ct.*"))
        out = self.home / "label.nrrd"
        worker("predict", "--model", str(material() / "base"), "--ct", str(ct), "--out", str(out), "--device", "cpu")
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
        from IncrementalSegModule.SegmentationIO import segmentArray

        for organ in self.session.model.contents.organs:
            if (expected == organ.label).any():
                found = segmentArray(node, organ.key, self.volume) > 0
                np.testing.assert_array_equal(found, expected == organ.label)

    def test_cancel_leaves_nothing_behind(self) -> None:
        self.ui.predictButton.click()
        self.ui.predictButton.click()
        self.wait(lambda: not self.session.predictor.running, 30)
        self.assertEqual(slicer.util.getNodes("anna: all organs*"), {})
        self.assertEqual(self.ui.predictButton.text, "Predict all organs")

    def test_a_volume_that_was_deleted_fails_alone_and_the_next_one_goes_on(self) -> None:
        gone, there = self.loadPatient("bert")[0], self.loadPatient("carl")[0]
        slicer.mrmlScene.RemoveNode(gone)
        self.session.predict([gone, there])
        self.assertIn("no longer in the scene", self.session.predictor.failure)
        self.wait(lambda: not self.session.predictor.running)
        self.assertEqual([task.name for task in self.session.predictor.done], ["carl"])
        self.ui.predictButton.click()
        self.assertTrue(self.session.predictor.running)

    def test_a_result_does_not_come_into_another_scene(self) -> None:
        self.ui.predictButton.click()
        slicer.mrmlScene.Clear()
        self.wait(lambda: not self.session.predictor.running, 60)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), [])

    def test_missing_packages_are_told_before_anything_is_written(self) -> None:
        from IncrementalSegModule import Dependencies

        self.addCleanup(setattr, Dependencies, "missing", Dependencies.missing)
        Dependencies.missing = lambda: ["torch"]
        self.ui.predictButton.click()
        self.assertIn("still needed: torch", self.errors[0])
        self.assertFalse(self.session.predictor.running)

    def test_a_failure_is_one_sentence_with_the_scans_name(self) -> None:
        errors = "noise\nError: The CT is empty."
        self.session.predictor.process.start = lambda arguments, heard, ended: ended(2, errors)
        self.addCleanup(self.session.predictor.process.__dict__.pop, "start")
        self.ui.predictButton.click()
        self.assertEqual(self.ui.stateLabel.text, "anna: The CT is empty.")


class GeometryTest(PanelTest):
    def test_an_oblique_scan_goes_to_disk_and_comes_back_in_place(self) -> None:
        from IncrementalSegModule.SegmentationIO import imageOf, segmentArray, segmentationOf, volumesMl

        from IncrementalSegLib.organs import OrganTable

        angle = np.deg2rad(25)
        matrix = np.eye(4)
        matrix[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        matrix[:3, :3] *= [1.5, 2.0, 3.0]
        matrix[:3, 3] = [10, -20, 30]
        voxels = np.zeros((12, 14, 16), np.int16)
        voxels[3:7, 4:9, 5:11] = 1
        volume = slicer.util.addVolumeFromArray(voxels, ijkToRAS=matrix, name="oblique")
        image = imageOf(volume)
        point = image.TransformIndexToPhysicalPoint((5, 4, 3))
        np.testing.assert_allclose([-point[0], -point[1], point[2]], (matrix @ [5, 4, 3, 1])[:3], atol=1e-5)
        node = segmentationOf(image, OrganTable.from_names(["Liver"]), "back", volume)
        key = OrganTable.from_names(["Liver"]).keys[0]
        np.testing.assert_array_equal(segmentArray(node, key, volume), voxels)
        self.assertAlmostEqual(volumesMl(node)[key], 4 * 5 * 6 * 1.5 * 2 * 3 / 1000, places=5)

    def test_a_liver_left_of_the_spleen_is_pointed_out(self) -> None:
        from IncrementalSegModule.CaseChecks import sideWarning
        from IncrementalSegModule.SegmentationIO import imageOf, segmentationOf

        from IncrementalSegLib.organs import OrganTable

        voxels = np.zeros((6, 6, 12), np.uint8)
        voxels[2:4, 2:4, 1:4], voxels[2:4, 2:4, 8:11] = 1, 2  # the first lies further to the right
        volume = slicer.util.addVolumeFromArray(voxels, ijkToRAS=np.diag([-1.0, 1.0, 1.0, 1.0]), name="scan")
        for names, warned in ((["Liver", "Spleen"], False), (["Spleen", "Liver"], True)):
            node = segmentationOf(imageOf(volume), OrganTable.from_names(names), "organs", volume)
            self.assertEqual("mirrored" in sideWarning(node), warned, names)

    def test_volumes_are_voxels_times_voxel_volume_and_organs_are_found_in_any_slice(self) -> None:
        from IncrementalSegModule import SegmentationIO
        from IncrementalSegModule.PredictPanel import showVolumes

        from IncrementalSegLib.organs import OrganTable

        random, organs = np.random.default_rng(0), OrganTable.from_names(["Liver", "Spleen", "Stomach"])
        voxels = random.choice([0, 1, 2], p=[0.9, 0.08, 0.02], size=(9, 10, 11)).astype(np.uint8)
        volume = slicer.util.addVolumeFromArray(voxels, name="thick slices")
        volume.SetSpacing(0.7, 0.8, 5.0)
        self.addCleanup(setattr, SegmentationIO, "_SLAB", SegmentationIO._SLAB)
        SegmentationIO._SLAB = 250  # two slices at a time
        node = SegmentationIO.segmentationOf(SegmentationIO.imageOf(volume), organs, "organs", volume)
        showVolumes(self.panel.predict.ui.volumeTable, node)
        table = self.panel.predict.ui.volumeTable
        for row, organ in enumerate(list(organs)[:2]):
            inside = voxels == organ.label
            np.testing.assert_array_equal(SegmentationIO.segmentArray(node, organ.key, volume), inside)
            self.assertEqual(table.item(row, 1).text(), f"{inside.sum() * 0.7 * 0.8 * 5.0 / 1000:.1f}")
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 2, "an organ without voxels has a segment")

    def test_a_segment_is_read_as_slicer_reads_it_on_any_grid(self) -> None:
        from IncrementalSegModule.SegmentationIO import segmentArray

        volume, segmentation = self.loadPatient("anna")
        shape = slicer.util.arrayFromVolume(volume).shape
        other = slicer.util.addVolumeFromArray(np.zeros((60, 60, 60), np.int16))
        other.CopyOrientation(volume)
        other.SetSpacing(7.0, 7.0, 7.0)
        cropped = slicer.util.addVolumeFromArray(np.zeros([edge // 2 for edge in shape], np.int16))
        cropped.CopyOrientation(volume)
        for reference in (volume, cropped, other):
            expected = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "stomach", reference)
            np.testing.assert_array_equal(segmentArray(segmentation, "stomach", reference), expected)
        self.assertTrue(expected.any())


if __name__ == "__main__":
    unittest.main()
