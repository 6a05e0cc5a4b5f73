"""Public archives as they are downloaded: their cases, organs and label values, and what a wrong folder is told."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from scans import placed

from IncrementalSegLib.benchmarks.datasets import ARCHIVES, chosen, read_archive
from IncrementalSegLib.cases import Case
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.evaluation import score_case
from IncrementalSegLib.organs import Organ, OrganTable, organ_named
from IncrementalSegLib.volumes import to_array, write_volume

LIVER, KIDNEY = (organ_named(name).key for name in ("Liver", "Kidney"))
VALUES = {
    "btcv": "spleen, kidney_right, kidney_left, gallbladder, esophagus, liver, stomach, aorta, ivc, "
    "portal_splenic_vein, pancreas, adrenal_gland_right, adrenal_gland_left",
    "word": "liver, spleen, kidney_left, kidney_right, stomach, gallbladder, esophagus, pancreas, duodenum, colon, "
    "small bowel, adrenals, rectum, urinary bladder, head_of_femur_l, head_of_femur_r",
    "flare21": "liver, kidneys, spleen, pancreas",
    "msd-liver": "liver, liver tumour",
    "msd-pancreas": "pancreas, pancreas tumour",
    "msd-spleen": "spleen",
    "kits19": "kidneys, kidney tumour",
}


def _decathlon(organ: str, *ids: str) -> dict[str, tuple[str, str]]:
    return {f"{organ}_{i}": (f"imagesTr/{organ}_{i}.nii.gz", f"labelsTr/{organ}_{i}.nii.gz") for i in ids}


# Three cases of every archive: name, scan, label map.
CASES = {
    "btcv": {
        f"img{i}": (f"RawData/Training/img/img{i}.nii.gz", f"RawData/Training/label/label{i}.nii.gz")
        for i in ("0001", "0002", "0040")
    },
    "word": {
        f"{part}_word_{i}": (f"images{part}/word_{i}.nii.gz", f"labels{part}/word_{i}.nii.gz")
        for part, i in (("Tr", "0002"), ("Val", "0001"), ("Ts", "0014"))
    },
    "flare21": {
        f"train_{i}": (f"TrainingImg/train_{i}_0000.nii.gz", f"TrainingMask/train_{i}.nii.gz")
        for i in ("000", "001", "352")
    },
    "msd-liver": _decathlon("liver", "0", "17", "112"),
    "msd-pancreas": _decathlon("pancreas", "001", "004", "415"),
    "msd-spleen": _decathlon("spleen", "10", "2", "9"),
    "kits19": {
        f"case_{i}": (f"data/case_{i}/imaging.nii.gz", f"data/case_{i}/segmentation.nii.gz")
        for i in ("00000", "00001", "00202")
    },
}


def write_archive(folder: Path, name: str) -> Path:
    """The archive's three cases below ``folder``; the first voxel of a scan is -1000 HU + its place in sorted order."""
    for number, case in enumerate(sorted(CASES[name])):
        scan, label = CASES[name][case]
        write_case(folder / scan, folder / label, len(VALUES[name].split(", ")), number)
    return folder


def write_case(scan: Path, label: Path, largest: int, number: int = 0) -> None:
    """A scan of 6 x 5 x 4 voxels in HU and a label map with all values up to the largest."""
    hu = np.linspace(-1000, 400, 120).round().astype(np.int16).reshape(6, 5, 4)
    hu[0, 0, 0] = -1000 + number
    for path, array in ((scan, hu), (label, (np.arange(120) % (largest + 1)).astype(np.uint8).reshape(6, 5, 4))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(placed(array), path)


@pytest.mark.parametrize("name", ARCHIVES)
class TestEveryArchive:
    def test_its_cases_come_sorted_by_name_with_all_organs_annotated(self, name: str, tmp_path: Path) -> None:
        cases = read_archive(name, write_archive(tmp_path, name))
        assert [case.name for case in cases] == sorted(CASES[name])
        assert all(list(case.annotated) == case.labels.keys for case in cases)

    def test_its_label_values_are_the_organs_its_makers_name(self, name: str, tmp_path: Path) -> None:
        (case, *_) = read_archive(name, write_archive(tmp_path, name))
        wanted = {value: organ_named(organ).key for value, organ in enumerate(VALUES[name].split(", "), start=1)}
        assert {organ.label: organ.key for organ in case.labels} == wanted
        assert all(organ.type for organ in case.labels if not organ.parent)  # each is known by a SNOMED code

    def test_a_scan_and_its_own_label_map_are_read(self, name: str, tmp_path: Path) -> None:
        for number, case in enumerate(read_archive(name, write_archive(tmp_path, name))):
            ct, label = case.read()
            assert label is not None
            assert set(np.unique(to_array(label))) == {0, *(organ.label for organ in case.labels)}
            assert to_array(ct)[0, 0, 0] == number - 1000

    def test_the_folder_around_it_may_be_given(self, name: str, tmp_path: Path) -> None:
        around = {"word": "WORD-V0.1.0", "flare21": "FLARE21", "kits19": "kits19", "btcv": "Abdomen"}
        task = {"msd-liver": "Task03_Liver", "msd-pancreas": "Task07_Pancreas", "msd-spleen": "Task09_Spleen"}
        write_archive(tmp_path / (around | task)[name], name)
        assert [case.name for case in read_archive(name, tmp_path)] == sorted(CASES[name])

    def test_scans_without_label_map_and_files_of_a_file_manager_are_left_out(self, name: str, tmp_path: Path) -> None:
        write_archive(tmp_path, name)
        for scan, label in list(CASES[name].values()):
            for path in (tmp_path / scan, tmp_path / label):
                (path.parent / f"._{path.name}").write_bytes(b"Mac OS X")
        (*kept, without) = sorted(CASES[name])
        (tmp_path / CASES[name][without][1]).unlink()
        assert [case.name for case in read_archive(name, tmp_path)] == kept

    def test_licence_and_citation_are_stated(self, name: str) -> None:
        archive = ARCHIVES[name]
        assert archive.licence and archive.citation[-4:].isdigit() and archive.address.startswith("http")


class TestTumours:
    @pytest.mark.parametrize(("name", "organ"), [("msd-liver", "Liver"), ("msd-pancreas", "Pancreas")])
    def test_a_tumour_counts_as_its_organ(self, name: str, organ: str, tmp_path: Path) -> None:
        (case, *_) = read_archive(name, write_archive(tmp_path, name))
        values, table = np.arange(4), OrganTable.from_names(["Spleen", organ])
        assert case.channels(values, table).tolist() == [0, 2, 2, 0]
        assert case.restricted([organ_named(organ).key]).channels(values, table).tolist() == [0, 2, 2, 0]
        assert case.restricted([]).channels(values, table).tolist() == [0, 0, 0, 0]

    def test_it_counts_as_its_organ_in_scores_too(self, tmp_path: Path) -> None:
        (case, *_) = read_archive("kits19", write_archive(tmp_path, "kits19"))
        reference = np.zeros((8, 8, 8), np.uint8)
        reference[2:6, 2:6, 2:6], reference[3:5, 3:5, 3:5] = 1, 2
        model = OrganTable([organ_named("Kidney", 7)])
        kidney = np.where(reference, 7, 0)
        (score,) = score_case("a", kidney, reference, model, (1, 1, 1), case.annotated, case.labels)
        assert (score.organ, score.dsc) == (KIDNEY, 1.0)

    def test_a_model_that_has_the_tumour_keeps_the_two_apart(self, tmp_path: Path) -> None:
        (case, *_) = read_archive("msd-liver", write_archive(tmp_path, "msd-liver"))
        assert case.channels(np.arange(3), case.labels).tolist() == [0, 1, 2]

    def test_a_fingerprint_changes_with_what_the_tumour_lies_inside(self, tmp_path: Path) -> None:
        (case, *_) = read_archive("msd-liver", write_archive(tmp_path, "msd-liver"))

        def prints(*annotated: str) -> int:
            organs = organ_named("Liver", 1), organ_named("Kidney", 3)
            tumours = (Organ("Tumour", 2, parent=parent) for parent in ("", LIVER, KIDNEY))
            cases = [replace(case, labels=OrganTable([*organs, t]), annotated=annotated) for t in tumours]
            return len({case.fingerprint() for case in cases})

        assert prints(LIVER, KIDNEY) == 3
        assert prints(LIVER) == 2  # inside an organ that is not annotated it changes no channel


class TestRefusedFolders:
    def test_an_archive_of_another_name(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="'amos' is not known: choose from btcv, word, flare21"):
            read_archive("amos", tmp_path)

    @pytest.mark.parametrize("name", ARCHIVES)
    def test_a_folder_that_is_not_there_or_empty_is_told_what_was_expected_and_from_where(
        self, name: str, tmp_path: Path
    ) -> None:
        for folder, problem in ((tmp_path / "gone", "is not a folder"), (tmp_path, "holds no annotated case")):
            with pytest.raises(InputError) as refusal:
                read_archive(name, folder)
            sentence = str(refusal.value)
            assert sentence.startswith(f"{folder} {problem}")
            assert ARCHIVES[name].title in sentence and ARCHIVES[name].address in sentence
        words = [word.strip(",") for word in sentence.split()]
        assert all(any(fnmatch(path, word) for word in words) for path in next(iter(CASES[name].values())))

    @pytest.mark.parametrize(
        ("name", "other"), [("msd-liver", "msd-spleen"), ("word", "msd-liver"), ("btcv", "kits19")]
    )
    def test_another_archive_is_named(self, name: str, other: str, tmp_path: Path) -> None:
        with pytest.raises(InputError) as refusal:
            read_archive(name, write_archive(tmp_path, other))
        assert f"{tmp_path} holds {ARCHIVES[other].title}, not {ARCHIVES[name].title}:" in str(refusal.value)

    def test_label_maps_whose_scans_were_not_downloaded(self, tmp_path: Path) -> None:
        write_archive(tmp_path, "kits19")
        for scan, _ in CASES["kits19"].values():
            (tmp_path / scan).unlink()
        with pytest.raises(InputError, match=r"no annotated case of KiTS19 .*data/case_\*/imaging\.nii\.gz"):
            read_archive("kits19", tmp_path)


class TestChosenCases:
    @staticmethod
    def named(*names: str) -> list[Case]:
        return [Case(name, Path(name)) for name in names]

    def test_names_and_patterns_choose_each_case_once_in_sorted_order(self) -> None:
        cases = self.named("b_10", "b_2", "a_5", "b_15")
        assert [case.name for case in chosen(cases, ["b_2", "*[05]", "b_1*"], "x")] == ["a_5", "b_10", "b_15", "b_2"]
        assert chosen(cases, [], "x") == []

    def test_refuses_a_pattern_that_matches_nothing(self) -> None:
        with pytest.raises(InputError, match=r"split\.json: no case is called 'c_\*'; there are 2, such as a_1, b_1"):
            chosen(self.named("a_1", "b_1"), ["a_*", "c_*"], Path("split.json"))

    def test_case_matters_and_a_name_must_match_as_a_whole(self) -> None:
        for pattern in ("A_1", "a"):
            with pytest.raises(InputError, match=f"'{pattern}'"):
                chosen(self.named("a_1"), [pattern], "x")


def test_reading_needs_no_dataset_json_and_is_not_misled_by_test_scans(tmp_path: Path) -> None:
    write_archive(tmp_path, "msd-liver")
    write_case(tmp_path / "imagesTs/liver_132.nii.gz", tmp_path / "nowhere/liver_132.nii.gz", 2)
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "1": "liver", "2": "cancer"}}')
    assert [case.name for case in read_archive("msd-liver", tmp_path)] == sorted(CASES["msd-liver"])
    assert LIVER in read_archive("msd-liver", tmp_path)[0].annotated
