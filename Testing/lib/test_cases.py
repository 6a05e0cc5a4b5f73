"""Dataset folders: which scans and organs they hold, what was annotated, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from IncrementalSegLib.cases import Case, read_dataset, read_split, require_annotations
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import Organ, OrganTable, organ_named
from IncrementalSegLib.phantom import PHANTOM_ORGANS
from IncrementalSegLib.volumes import read_volume, same_geometry, to_array, to_image, write_volume

LIVER, SPLEEN, PANCREAS = (organ_named(name) for name in ("Liver", "Spleen", "Pancreas"))


def describe(folder: Path, content: Any) -> None:
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def edit_labels(folder: Path, case: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = folder / f"{case}_seg.nii.gz"
    label = read_volume(path)
    write_volume(to_image(change(to_array(label)), label), path)


def by_value(case: Case) -> dict[int, str]:
    return {organ.label: organ.name for organ in case.labels}


class TestReadingAFolder:
    def test_a_case_is_a_scan_and_what_was_annotated_in_it(self, phantom_dataset: Path) -> None:
        cases = read_dataset(phantom_dataset)
        assert [case.name for case in cases] == ["a", "b"]
        assert by_value(cases[0]) == dict(enumerate(PHANTOM_ORGANS, 1))
        assert list(cases[0].annotated) == cases[0].labels.keys
        ct, label = cases[0].read()
        assert label is not None
        assert same_geometry(ct, label)
        assert set(np.unique(to_array(label))) <= {0, *by_value(cases[0])}

    def test_names_of_organs_in_any_spelling_restrict_what_counts_as_annotated(self, phantom_dataset: Path) -> None:
        (case, _) = read_dataset(phantom_dataset, ["kidney_right", "LIVER"])
        assert set(case.annotated) == {"64033007+24028007", LIVER.key}
        assert len(case.labels) == len(PHANTOM_ORGANS)

    def test_chosen_cases_come_in_the_order_asked_for(self, phantom_dataset: Path) -> None:
        assert [case.name for case in read_dataset(phantom_dataset, names=["b", "a"])] == ["b", "a"]
        assert [case.name for case in read_dataset(phantom_dataset, names=["b"])] == ["b"]

    def test_every_format_and_a_dicom_folder_is_a_scan(self, dataset: Path) -> None:
        image = read_volume(dataset / "a_ct.nii.gz")
        for extension in (".nrrd", ".mha", ".nii"):
            write_volume(image, dataset / f"of{extension[1:]}_ct{extension}")
        (dataset / "dicom_ct").mkdir()
        names = [case.name for case in read_dataset(dataset)]
        assert names == ["a", "b", "dicom", "ofmha", "ofnii", "ofnrrd"]

    def test_a_scan_without_label_map_has_nothing_annotated(self, dataset: Path) -> None:
        (dataset / "a_seg.nii.gz").unlink()
        (case, _) = read_dataset(dataset)
        assert case.annotated == ()
        assert case.read()[1] is None

    def test_files_that_a_file_manager_left_are_no_cases(self, dataset: Path) -> None:
        for name in ("._a_ct.nii.gz", ".partial_x_ct.nrrd", "notes.txt", "a_ct.nii.gz.txt"):
            (dataset / name).write_text("junk")
        assert [case.name for case in read_dataset(dataset)] == ["a", "b"]

    def test_each_case_may_list_its_own_organs(self, dataset: Path) -> None:
        labels = {"0": "background", "1": "Spleen", "6": "Liver"}
        listed = [{"case": "a", "annotated": ["liver"]}, {"case": "b", "annotated": [SPLEEN.key]}]
        describe(dataset, {"labels": labels, "cases": listed})
        a, b = read_dataset(dataset)
        assert (a.annotated, b.annotated) == ((LIVER.key,), (SPLEEN.key,))
        assert read_dataset(dataset, ["Spleen"])[0].annotated == ()

    def test_a_case_that_does_not_list_its_organs_has_all_of_them(self, dataset: Path) -> None:
        describe(dataset, {"labels": {"1": "Spleen"}, "cases": [{"case": "a", "annotated": []}, {"case": "b"}]})
        assert [case.annotated for case in read_dataset(dataset)] == [(), (SPLEEN.key,)]

    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_labels_csv_names_the_label_values_too(self, dataset: Path, mark: str) -> None:
        (dataset / "dataset.json").unlink()
        (dataset / "labels.csv").write_bytes(f"{mark}LabelValue,Name\r\n0,background\r\n6,liver\r\n".encode())
        (case, _) = read_dataset(dataset)
        assert by_value(case) == {6: "liver"}
        assert case.annotated == (LIVER.key,)

    def test_dataset_json_may_begin_with_a_byte_order_mark(self, dataset: Path) -> None:
        describe(dataset, "\ufeff" + (dataset / "dataset.json").read_text(encoding="utf-8"))
        assert len(read_dataset(dataset)) == 2

    @pytest.mark.real_ct
    def test_the_real_data_is_read_by_alias(self, real_ct_folder: Path) -> None:
        folder = real_ct_folder / "abdomen_3mm"
        cases = read_dataset(folder, ["Oesophagus", "Right kidney"], read_split(folder / "split.json", "evaluation"))
        assert len(cases) == 6
        assert {case.annotated for case in cases} == {("64033007+24028007", "32849002")}
        ct, label = cases[0].read()
        assert label is not None
        channels = cases[0].channels(to_array(label), OrganTable.from_names(["Oesophagus", "Right kidney"]))
        assert set(np.unique(channels)) == {0, 1, 2}
        assert channels.shape == ct.GetSize()


class TestRefusedFolders:
    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nowhere is not a folder"):
            read_dataset(tmp_path / "nowhere")

    def test_a_folder_without_names_of_label_values(self, dataset: Path) -> None:
        (dataset / "dataset.json").unlink()
        with pytest.raises(InputError, match=r"neither dataset\.json nor labels\.csv"):
            read_dataset(dataset)

    def test_a_folder_without_cases(self, tmp_path: Path) -> None:
        describe(tmp_path, {"labels": {"1": "Liver"}})
        with pytest.raises(InputError, match=r"holds no case: scans are named <case>_ct\.nii\.gz"):
            read_dataset(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[1, 2]",
            '"text"',
            "{}",
            {"labels": None},
            {"labels": ["Liver"]},
            {"labels": {"Liver": 1}},
            {"labels": {"1.5": "Liver"}},
            {"labels": {"1": None}},
            {"labels": {"1": ["Liver"]}},
            {"labels": {"1": ""}},
            {"labels": {"-1": "Liver"}},
            {"labels": {"70000": "Liver"}},
            {"labels": {"1": "Liver", "2": "liver"}},
            {"labels": {"1": "esophagus", "2": "Oesophagus"}},
            {"labels": {"1": "Liver"}, "cases": None},
            {"labels": {"1": "Liver"}, "cases": [{"annotated": ["Liver"]}]},
            {"labels": {"1": "Liver"}, "cases": [{"case": "a", "annotated": 5}]},
            {"labels": {"1": "Liver"}, "cases": [{"case": "a", "annotated": [5]}]},
            {"labels": {"1": "Liver"}, "cases": [{"case": ["a"], "annotated": []}]},
            {"labels": {"1": "Liver"}, "cases": [{"case": "a", "annotated": ["Spleen"]}]},
        ],
        ids=lambda content: content if isinstance(content, str) else json.dumps(content),
    )
    def test_a_damaged_dataset_json(self, dataset: Path, content: Any) -> None:
        describe(dataset, content)
        with pytest.raises(InputError) as refusal:
            read_dataset(dataset)
        assert str(refusal.value).startswith(str(dataset / "dataset.json"))

    def test_files_that_are_not_utf8(self, dataset: Path) -> None:
        (dataset / "dataset.json").write_bytes(b'{"labels": {"1": "\xd6sophagus"}}')
        with pytest.raises(InputError, match=r"dataset\.json cannot be read"):
            read_dataset(dataset)
        (dataset / "dataset.json").unlink()
        (dataset / "labels.csv").write_bytes(b"LabelValue,Name\n1,\xd6sophagus\n")
        with pytest.raises(InputError, match=r"labels\.csv cannot be read .*UTF-8"):
            read_dataset(dataset)

    def test_an_organ_or_case_that_is_not_there(self, phantom_dataset: Path) -> None:
        with pytest.raises(InputError, match="'Prostate' is not among Spleen"):
            read_dataset(phantom_dataset, ["Prostate"])
        with pytest.raises(InputError, match=r"has no scan for case 'c': expected c_ct\.nii\.gz"):
            read_dataset(phantom_dataset, names=["a", "c"])

    @pytest.mark.parametrize("name", ["../dataset/a", "../a", "sub/a", "..", "", ".", "a/../a", "..\\a"])
    def test_case_names_that_lead_out_of_the_folder(self, dataset: Path, name: str) -> None:
        (dataset / "sub").mkdir()
        for folder in (dataset.parent, dataset / "sub"):
            shutil.copy(dataset / "a_ct.nii.gz", folder / "a_ct.nii.gz")
        with pytest.raises(InputError, match="not a plain file name"):
            read_dataset(dataset, names=[name])
        describe(dataset, {"labels": {"1": "Liver"}, "cases": [{"case": name, "annotated": ["Liver"]}]})
        with pytest.raises(InputError, match=r"dataset\.json: .*not a plain file name"):
            read_dataset(dataset)

    def test_an_absolute_path_as_case_name(self, dataset: Path) -> None:
        with pytest.raises(InputError, match="not a plain file name"):
            read_dataset(dataset, names=[str(dataset / "a")])


class TestSplits:
    def test_a_part_of_a_split_is_its_case_names(self, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text('{"step0": ["a", 7], "evaluation": []}')
        assert read_split(tmp_path / "split.json", "step0") == ["a", "7"]
        assert read_split(tmp_path / "split.json", "evaluation") == []

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ('{"step0": ["a"], "step1": []}', r"has no case list 'evaluation' \(it has step0, step1\)"),
            ('{"evaluation": "a"}', "has no case list 'evaluation'"),
            ("[]", "one JSON object"),
            ("{", "cannot be read as JSON"),
        ],
    )
    def test_refuses_a_split_without_that_part(self, tmp_path: Path, text: str, sentence: str) -> None:
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(InputError, match=sentence) as refusal:
            read_split(tmp_path / "split.json", "evaluation")
        assert "split.json" in str(refusal.value)

    def test_refuses_a_split_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"split\.json cannot be read"):
            read_split(tmp_path / "split.json", "step0")


class TestReadingACase:
    def test_the_label_map_of_another_patient_is_refused(self, dataset: Path) -> None:
        small = read_volume(dataset / "b_seg.nii.gz")[:-2, :, :]
        write_volume(small, dataset / "a_seg.nii.gz")
        with pytest.raises(InputError, match=r"a_seg\.nii\.gz does not lie on the grid of .*a_ct\.nii\.gz"):
            read_dataset(dataset)[0].read()

    def test_a_cropped_label_map_is_put_on_the_cts_grid(self, dataset: Path) -> None:
        (case, _) = read_dataset(dataset)
        ct, whole = case.read()
        assert whole is not None
        cropped = sitk.RegionOfInterest(whole, [28, 24, 24], [2, 2, 2])
        write_volume(cropped, dataset / "a_seg.nii.gz")
        _, label = case.read()
        assert label is not None
        assert label.GetSize() == ct.GetSize()
        assert np.array_equal(to_array(label)[2:30, 2:26, 2:26], to_array(cropped))

    def test_a_ct_that_is_not_in_hu_is_refused(self, dataset: Path) -> None:
        ct = read_volume(dataset / "a_ct.nii.gz")
        write_volume(ct + 1024, dataset / "a_ct.nii.gz")
        with pytest.raises(InputError, match=r"a_ct\.nii\.gz is not in Hounsfield units"):
            read_dataset(dataset)[0].read()

    def test_label_values_become_the_tables_channels(self) -> None:
        labels = OrganTable([organ_named("Liver", 300), organ_named("Spleen", 2), organ_named("Pancreas", 7)])
        case = Case("a", Path("a"), Path("b"), labels, (LIVER.key, PANCREAS.key))
        table = OrganTable.from_names(["Pancreas", "Aorta", "Spleen", "Liver"])
        values = np.array([[0, 300, 2], [7, 9, 300]], np.uint16)
        channels = case.channels(values, table)
        assert channels.dtype == np.uint8
        assert channels.tolist() == [[0, 4, 0], [1, 0, 4]]  # the spleen is not annotated, 9 is nobody's

    def test_a_structure_inside_an_organ_counts_as_it_where_the_table_does_not_have_the_structure(self) -> None:
        tumour = Organ("Tumour", 2, parent=LIVER.key)
        labels = OrganTable([organ_named("Liver", 1), tumour, Organ("Necrosis", 3, parent=tumour.key)])
        case = Case("a", Path("a"), Path("b"), labels, tuple(labels.keys))
        values, plain = np.arange(4), OrganTable.from_names(["Spleen", "Liver"])
        tables = plain, OrganTable.from_names(["Tumour", "Liver"])
        assert [case.channels(values, table).tolist() for table in tables] == [[0, 2, 2, 2], [0, 2, 1, 1]]
        liver = case.restricted([LIVER.key])
        assert [liver.channels(values, table).tolist() for table in tables] == [[0, 2, 2, 2], [0, 2, 0, 0]]
        assert case.restricted([tumour.key]).channels(values, plain).tolist() == [0, 0, 0, 0]

    def test_structures_declared_inside_each_other_come_to_an_end(self) -> None:
        labels = OrganTable([Organ("Cyst", 1, parent="tumour"), Organ("Tumour", 2, parent="cyst")])
        case = Case("a", Path("a"), Path("b"), labels, tuple(labels.keys))
        assert case.channels(np.arange(3), OrganTable.from_names(["Liver"])).tolist() == [0, 0, 0]

    def test_restricting_never_adds_an_annotation(self) -> None:
        case = Case("a", Path("a"), Path("b"), OrganTable.from_names(["Liver", "Spleen"]), (LIVER.key,))
        assert case.restricted([LIVER.key, SPLEEN.key]).annotated == (LIVER.key,)
        assert case.restricted([SPLEEN.key]).annotated == ()


class TestRequiredAnnotations:
    def test_a_listed_organ_without_voxels_is_a_true_negative(self, dataset: Path) -> None:
        edit_labels(dataset, "a", lambda values: np.where(values == 1, 0, values))
        cases = read_dataset(dataset)
        assert SPLEEN.key in cases[0].annotated
        require_annotations(cases, [SPLEEN, LIVER])

    def test_refuses_an_organ_that_is_empty_in_all_cases(self, dataset: Path) -> None:
        for case in ("a", "b"):
            edit_labels(dataset, case, lambda values: np.where(values == 1, 0, values))
        with pytest.raises(InputError, match=r"annotation of 'Spleen' is empty in all cases \(a, b\): segment it"):
            require_annotations(read_dataset(dataset), [LIVER, SPLEEN])

    def test_refuses_an_empty_annotation(self, dataset: Path) -> None:
        edit_labels(dataset, "a", np.zeros_like)
        with pytest.raises(InputError, match=r"'Liver' is empty in all cases \(a\)"):
            require_annotations(read_dataset(dataset, names=["a"]), [LIVER])

    def test_refuses_an_organ_annotated_in_no_case(self, dataset: Path) -> None:
        cases = read_dataset(dataset, ["Liver"])
        with pytest.raises(InputError, match="'Pancreas' is annotated in none of the 2 cases"):
            require_annotations(cases, [LIVER, PANCREAS])
        for label in dataset.glob("*_seg.nii.gz"):
            label.unlink()
        with pytest.raises(InputError, match="'Liver' is annotated in none of the 2 cases"):
            require_annotations(read_dataset(dataset), [LIVER])
