"""From annotation to an accepted model, by clicks, with a worker that really learns."""

from __future__ import annotations

import json
import unittest

import slicer
from panel_testing import PanelTest


class UpdateStoryTest(PanelTest):
    def test_a_new_organ_from_annotation_to_the_accepted_model(self) -> None:
        self.prepare()
        update, review = self.panel.update.ui, self.panel.review.ui
        self.assertTrue(update.startButton.enabled, update.problemLabel.text)
        before = _stamps()
        update.startButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(update.startButton.text, "Cancel")
        phases = set()
        self.wait(lambda: phases.add(self.session.update.progress.phase) or not self.session.update.running)
        self.assertEqual(self.session.update.failure, "")
        self.assertLessEqual({"survey", "update", "evaluate"}, phases)
        self.assertTrue(self.panel.ui.reviewSection.enabled)
        self.assertFalse(self.panel.ui.reviewSection.collapsed)
        shown = [review.organTable.item(row, 0).text() for row in range(review.organTable.rowCount)]
        self.assertEqual(shown, ["Liver", "Spleen", "Stomach"])
        self.assertIn("Stomach", review.sentencesLabel.text)
        self.assertEqual(_stamps(), before, "the user's data were touched")
        self.answers["confirm"] = True  # twelve steps teach nothing, and the panel asks before such a model is accepted
        self.assertEqual(review.nameEdit.text, "Abdomen")
        review.acceptButton.click()
        self.assertEqual(self.errors, [])
        self.assertEqual(len(self.asked), 1)
        self.assertEqual(self.session.models.library.current_version("Abdomen"), 2)
        self.assertIn("Stomach", self.panel.model.ui.organsLabel.text)
        self.assertEqual(self.session.organs, [])
        self.assertFalse(self.panel.ui.reviewSection.enabled)

    def test_what_is_left_of_an_update_is_not_accepted_where_the_user_says_no(self) -> None:
        self.prepare(["anna", "bert"])
        self.panel.update.ui.startButton.click()
        self.wait(lambda: not self.session.update.running)
        self.answers["confirm"] = False
        self.panel.review.ui.acceptButton.click()
        self.assertEqual(self.session.models.library.current_version("Abdomen"), 1)


class ExpectedTest(PanelTest):
    def test_the_expected_time_follows_the_length_that_is_chosen(self) -> None:
        ui = self.panel.update.ui
        asked = {"patch": self.session.state.patch, "batch": self.session.state.batch, "device": "auto"}
        known = {
            "name": "CPU",
            "reason": "",
            "free_mb": None,
            "seconds_per_step": 0.6,
            "peak_mb": 900.0,
            "asked": asked,
        }
        slicer.app.userSettings().setValue("IncrementalSeg/machine", json.dumps(known))
        for index, time in ((0, "8 min"), (2, "60 min"), (1, "25 min")):
            ui.presetSelector.currentIndex = index
            self.wait(lambda time=time: time in ui.estimateLabel.text, 10)
        ui.stepsSpinBox.value = 100
        self.wait(lambda: "60 s" in ui.estimateLabel.text, 10)


def _stamps() -> dict[str, int]:
    """Modified times of the user's nodes and of what they hold."""
    stamps = {}
    for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
        for node in slicer.util.getNodesByClass(kind):
            stamps[node.GetID()] = node.GetMTime()
            part = node.GetImageData() if kind.endswith("VolumeNode") else node.GetSegmentation()
            stamps[node.GetID() + " data"] = part.GetMTime()
    return stamps


if __name__ == "__main__":
    unittest.main()
