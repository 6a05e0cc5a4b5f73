"""Step 3: folders of cases."""

from __future__ import annotations

import shutil
import unittest
from pathlib import Path

import slicer
from panel_testing import PATIENTS, CaseTest, material


class FolderTest(CaseTest):
    """Folders as they are found on people's disks."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.home / "cases"
        shutil.copytree(material() / "patients", self.folder)
        self.answers = {"openFolder": str(self.folder)}

    def file(self, stem: str) -> Path:
        return next(self.folder.glob(f"{stem}.*"))

    def add(self) -> list[str]:
        """The names in the table after the folder was added."""
        self.ui.addFolderButton.click()
        return [row.name for row in self.session.cases.rows()]

    def test_a_damaged_scan_is_told_and_the_others_are_loaded(self) -> None:
        for stem in ("anna_ct", "bert_seg"):
            content = self.file(stem).read_bytes()
            self.file(stem).write_bytes(content[: len(content) // 2])
        self.assertEqual(self.add(), ["carl", "dora"])
        (error,) = self.errors
        for stem in ("anna_ct", "bert_seg"):
            self.assertIn(f"{self.file(stem)} ", error)
        self.assertNotIn("fault", error)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 2)

    def test_what_is_no_image_is_told(self) -> None:
        for stem, text in (("anna_ct", "Dear colleague,"), ("bert_seg", "")):
            self.file(stem).write_text(text)
        self.assertEqual(self.add(), ["carl", "dora"])
        self.assertIn(f"{self.file('anna_ct')} cannot be read as an image", self.errors[0])
        self.assertIn(f"{self.file('bert_seg')} cannot be read as an image", self.errors[0])

    def test_a_scan_without_a_label_map_waits_for_its_annotation(self) -> None:
        self.file("anna_seg").unlink()
        self.assertEqual(self.add(), PATIENTS)
        self.assertIn("No annotation", self.ui.caseTable.item(0, 2).text())
        self.assertEqual(self.errors, [])

    def test_a_folder_without_names_for_its_labels_is_told(self) -> None:
        for name in ("dataset.json", "labels.csv"):
            (self.folder / name).unlink(missing_ok=True)
        self.assertEqual(self.add(), [])
        self.assertIn("neither dataset.json nor labels.csv", self.errors[0])

    def test_a_folder_without_label_maps_is_told_whether_it_names_labels_or_not(self) -> None:
        for name in PATIENTS:
            self.file(f"{name}_seg").unlink()
        self.assertEqual(self.add(), [])
        (self.folder / "dataset.json").unlink()
        self.assertEqual(self.add(), [])
        self.assertEqual(len(self.errors), 2)
        for error in self.errors:
            self.assertIn("is annotated with Stomach", error)

    def test_two_files_of_one_case_are_told(self) -> None:
        import SimpleITK as sitk

        sitk.WriteImage(sitk.ReadImage(str(self.file("anna_ct"))), str(self.folder / "anna_ct.mha"))
        self.assertEqual(self.add(), ["bert", "carl", "dora"])
        self.assertIn("anna_ct is there more than once", self.errors[0])

    def test_a_folder_added_twice_brings_no_patient_twice(self) -> None:
        self.assertEqual(self.add(), PATIENTS)
        self.assertEqual(self.add(), PATIENTS)
        self.assertEqual(self.errors[0].count("is in the table already"), 4)

    def test_patients_of_one_name_in_two_folders_can_be_told_apart(self) -> None:
        self.add()
        self.answers = {"openFolder": str(material() / "patients")}
        self.assertEqual(self.add()[4:], [f"{name}_1" for name in PATIENTS])
        self.assertEqual(self.errors, [])

    def test_a_dicom_folder_among_the_cases_is_told(self) -> None:
        (self.folder / "erik_ct").mkdir()
        self.assertEqual(self.add(), PATIENTS)
        self.assertIn("erik_ct is a DICOM folder", self.errors[0])


if __name__ == "__main__":
    unittest.main()
