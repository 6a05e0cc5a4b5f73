"""Step 3: to Segment Editor and back, and what is shown there."""

from __future__ import annotations

import unittest

import numpy as np
import slicer
from panel_testing import CaseTest, material


class AnnotateTest(CaseTest):
    def test_annotate_opens_segment_editor_with_everything_prepared(self) -> None:
        volume, _ = self.loadPatient("anna")
        slicer.util.selectModule("IncrementalSeg")
        self.session.addCase(volume)
        self.ui.caseTable.selectRow(0)
        self.ui.annotateButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        segmentation = editor.GetSegmentationNode()
        self.assertIs(editor.GetSourceVolumeNode(), volume)
        segment = segmentation.GetSegmentation().GetSegment(editor.GetSelectedSegmentID())
        self.assertEqual(self.session.terminology.organOf(segment).key, self.session.organs[0].key)
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        self.assertIs(segmentation.GetNodeReference(role), volume)
        mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        mask[8:16, 5:12, 5:12] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, editor.GetSelectedSegmentID(), volume)
        slicer.util.selectModule("IncrementalSeg")
        self.assertTrue(self.state().startswith("Ready"), self.state())

    def test_the_way_back_from_segment_editor_is_a_button_there(self) -> None:
        volume, _ = self.loadPatient("anna")
        slicer.util.selectModule("IncrementalSeg")
        self.session.addCase(volume)
        self.ui.annotateButton.click()
        (button,) = self.backButtons()
        self.assertEqual((button.text, button.isHidden()), ("Back to IncrementalSeg (anna)", False))
        row = self.session.cases.rows()[0]
        mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        mask[8:16, 5:12, 5:12] = 1
        segment = next(iter(row.segments.values()))
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, row.segmentation, segment, volume)
        button.click()
        self.assertEqual(slicer.util.selectedModule(), "IncrementalSeg")
        self.assertTrue(self.state().startswith("Ready"), self.state())
        self.assertTrue(button.isHidden())
        self.ui.annotateButton.click()
        self.assertEqual(len(self.backButtons()), 1)
        slicer.util.selectModule("IncrementalSeg")
        self.assertTrue(button.isHidden())

    def backButtons(self):
        panel = slicer.modules.segmenteditor.widgetRepresentation()
        return slicer.util.findChildren(panel, name="IncrementalSegBackButton")

    def test_annotate_shows_this_case_alone(self) -> None:
        self.answers = {"openFolder": str(material() / "patients")}  # whose annotations are hidden at first
        self.ui.addFolderButton.click()
        self.ui.caseTable.selectRow(1)
        self.ui.annotateButton.click()
        shown = [row.segmentation.GetDisplayNode().GetVisibility() for row in self.session.cases.rows()]
        self.assertEqual([bool(one) for one in shown], [False, True, False, False])

    def test_fill_between_slices_opens_the_effect_on_the_sparse_organ_alone(self) -> None:
        slicer.util.selectModule("IncrementalSeg")
        self.addPatient("bert")
        self.assertFalse(self.ui.fillButton.enabled)
        volume, segmentation = self.loadPatient("anna")
        mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        mask[6:20:4, 5:12, 5:12] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "stomach", volume)
        segmentation.GetSegmentation().AddEmptySegment("liver", "Liver")
        self.session.addCase(volume, segmentation)
        self.ui.caseTable.selectRow(1)
        self.ui.fillButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        self.assertEqual(slicer.util.getModuleWidget("SegmentEditor").editor.activeEffect().name, "Fill between slices")
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        self.assertIs(editor.GetSegmentationNode(), segmentation)
        self.assertIs(editor.GetSourceVolumeNode(), volume)
        self.assertEqual(editor.GetSelectedSegmentID(), "stomach")
        display = segmentation.GetDisplayNode()
        self.assertTrue(display.GetSegmentVisibility("stomach"))
        self.assertFalse(display.GetSegmentVisibility("liver"))  # the effect would fill it too
        self.backButtons()[0].click()
        self.assertTrue(display.GetSegmentVisibility("liver"))

    def test_old_organs_are_shown_as_context_and_never_count_as_annotation(self) -> None:
        from IncrementalSegModule.Cases import matchSegments
        from IncrementalSegModule.SegmentationIO import segmentArray

        self.addPatient("anna")
        row = self.session.cases.rows()[0]
        before = segmentArray(row.segmentation, "stomach", row.volume)
        for _press in range(2):  # the second result takes the place of the first
            self.ui.presegmentButton.click()
            self.wait(lambda: not self.session.predictor.running)
        self.assertEqual((self.errors, self.session.predictor.failure), ([], ""))
        (context,) = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n is not row.segmentation]
        self.assertEqual(context.GetName(), "anna: old organs (context)")
        opacities = [node.GetDisplayNode().GetOpacity2DFill() for node in (context, row.segmentation)]
        self.assertLess(*opacities)
        self.assertEqual(self.session.cases.rows()[0].segmentation, row.segmentation)
        np.testing.assert_array_equal(segmentArray(row.segmentation, "stomach", row.volume), before)
        self.ui.volumeSelector.setCurrentNode(row.volume)
        self.ui.segmentationSelector.setCurrentNode(context)
        self.ui.addButton.click()
        self.assertIn("is what the current model sees, no annotation", self.errors[0])
        old = list(self.session.model.contents.organs)
        self.assertEqual(matchSegments(context, old, self.session.terminology), {})
        source, into = context.GetSegmentation(), row.segmentation.GetSegmentation()
        self.assertTrue(into.CopySegmentFromSegmentation(source, source.GetNthSegmentID(0)))
        self.assertEqual(matchSegments(row.segmentation, old, self.session.terminology), {})
        self.addPatient("bert")
        self.ui.caseTable.selectRow(1)
        self.panel.cases.onClicked(1, 0)
        self.assertFalse(context.GetDisplayNode().GetVisibility())
        self.ui.caseTable.selectRow(0)
        self.panel.cases.onClicked(0, 0)
        self.assertTrue(context.GetDisplayNode().GetVisibility())


if __name__ == "__main__":
    unittest.main()
