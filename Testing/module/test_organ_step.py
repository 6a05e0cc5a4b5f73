"""Step 2: organs out of Slicer's terminologies, and what is refused."""

from __future__ import annotations

import unittest

import slicer
from panel_testing import PanelTest


class OrganStepTest(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        self.ui = self.panel.organ.ui

    def test_name_colour_and_code_follow_the_terminology(self) -> None:
        self.chooseOrgan("pancr")
        organ = self.session.organs[0]
        self.assertEqual((organ.name, organ.key, organ.color), ("Pancreas", "15776009", (249, 180, 111)))
        self.assertEqual(self.ui.organTable.item(0, 1).text(), "15776009")
        self.assertEqual(self.ui.searchEdit.text, "")

    def test_sides_are_choices_of_their_own(self) -> None:
        self.chooseOrgan("left kidney")
        self.assertEqual(self.session.organs[0].key, "64033007+7771000")

    def test_several_organs_in_one_update(self) -> None:
        self.chooseOrgan("stomach")
        self.chooseOrgan("gall bladder")
        self.assertEqual([organ.name for organ in self.session.organs], ["Stomach", "Gallbladder"])
        self.ui.organTable.selectRow(0)
        self.ui.removeButton.click()
        self.assertEqual([organ.name for organ in self.session.organs], ["Gallbladder"])

    def test_an_organ_that_the_model_has_is_refused(self) -> None:
        self.ui.searchEdit.setText("liver")
        self.assertIn("knows 'Liver' already", self.ui.problemLabel.text)
        self.assertFalse(self.ui.addButton.enabled)

    def test_an_organ_is_not_added_twice(self) -> None:
        self.chooseOrgan("stomach")
        self.ui.searchEdit.setText("stomach")
        self.assertIn("same code", self.ui.problemLabel.text)
        self.assertFalse(self.ui.addButton.enabled)

    def test_a_word_that_no_terminology_has(self) -> None:
        self.ui.searchEdit.setText("xyzzy")
        self.assertIn("have no 'xyzzy'", self.ui.problemLabel.text)
        self.assertFalse(self.ui.addButton.enabled)

    def test_a_cyst_asks_for_the_organ_it_lies_inside(self) -> None:
        self.ui.searchEdit.setText("cyst")
        self.assertIn("lies inside", self.ui.problemLabel.text)
        self.assertFalse(self.ui.addButton.enabled)
        self.ui.parentSelector.currentIndex = 1
        self.assertTrue(self.ui.addButton.enabled)
        self.ui.addButton.click()
        self.assertEqual(self.session.organs[0].parent, self.session.model.contents.organs.keys[0])
        self.assertEqual(self.ui.organTable.item(0, 2).text(), "Liver")

    def test_the_scene_remembers_the_organs(self) -> None:
        self.chooseOrgan("stomach")
        path = slicer.util.tempDirectory() + "/scene.mrml"
        slicer.util.saveScene(path)
        slicer.mrmlScene.Clear()
        self.assertEqual(self.session.organs, [])
        slicer.util.loadScene(path)
        self.assertEqual([organ.name for organ in self.session.organs], ["Stomach"])
        self.assertEqual(self.ui.organTable.rowCount, 1)


class TerminologyTest(PanelTest):
    def test_a_marked_segment_is_read_back_as_the_same_organ(self) -> None:
        for text in ("pancreas", "right kidney", "cyst"):
            organ = self.session.terminology.find(text)[0].organ
            segment = slicer.vtkSegment()
            self.session.terminology.mark(segment, organ)
            self.assertEqual(self.session.terminology.organOf(segment), organ)

    def test_a_segment_that_nobody_coded_is_known_by_its_name(self) -> None:
        segment = slicer.vtkSegment()
        segment.SetName("spleen")
        self.assertEqual(self.session.terminology.organOf(segment).key, "78961009")

    def test_words_in_any_order_and_other_names_are_found(self) -> None:
        find = self.session.terminology.find
        self.assertEqual(find("kidney right")[0].organ.name, "Right kidney")
        self.assertEqual(find("oesophagus")[0].organ.key, find("esophagus")[0].organ.key)
        self.assertTrue(any(entry.liesInside for entry in find("tumor")))
        self.assertEqual(self.session.terminology.find("pancreas stomach"), [])


if __name__ == "__main__":
    unittest.main()
