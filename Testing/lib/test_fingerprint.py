"""The fingerprint of a case: what changes it and what does not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK as sitk

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.volumes import read_volume, write_volume

LIVER = organ_named("Liver")


def test_it_stays_when_the_folder_moves_and_the_case_is_renamed(dataset: Path, tmp_path: Path) -> None:
    before = read_dataset(dataset)[0].fingerprint()
    moved = Path(shutil.move(dataset, tmp_path / "elsewhere"))
    for part in ("ct", "seg"):
        (moved / f"a_{part}.nii.gz").rename(moved / f"SMITH_JOHN_{part}.nii.gz")
    (after,) = read_dataset(moved, names=["SMITH_JOHN"])
    assert after.fingerprint() == before
    assert len(before) == 64


def test_it_is_the_same_every_time_and_another_for_another_patient(phantom_dataset: Path) -> None:
    first, again = read_dataset(phantom_dataset), read_dataset(phantom_dataset)
    assert [case.fingerprint() for case in first] == [case.fingerprint() for case in again]
    assert first[0].fingerprint() != first[1].fingerprint()


@pytest.mark.parametrize("part", ["ct", "seg"])
def test_it_changes_with_a_voxel(dataset: Path, part: str) -> None:
    (case, _) = read_dataset(dataset)
    before = case.fingerprint()
    image = read_volume(dataset / f"a_{part}.nii.gz")
    image[5, 5, 5] = int(image[5, 5, 5]) + 1
    write_volume(image, dataset / f"a_{part}.nii.gz")
    assert case.fingerprint() != before


def test_it_changes_with_what_was_annotated_and_with_the_meaning_of_a_label_value(phantom_dataset: Path) -> None:
    (case, _) = read_dataset(phantom_dataset)
    right, left = case.labels.find("Right kidney"), case.labels.find("Left kidney")
    swapped = {right.key: left.label, left.key: right.label}
    mended = OrganTable(replace(organ, label=swapped.get(organ.key, organ.label)) for organ in case.labels)
    variants = [case, case.restricted([LIVER.key]), case.restricted([]), replace(case, labels=mended)]
    assert len({variant.fingerprint() for variant in variants}) == 4


def test_a_header_with_voxels_in_a_file_of_their_own_is_both(dataset: Path) -> None:
    image = read_volume(dataset / "a_ct.nii.gz")
    sitk.WriteImage(image, str(dataset / "c_ct.mhd"))
    (case,) = read_dataset(dataset, names=["c"])
    before = case.fingerprint()
    image[5, 5, 5] = int(image[5, 5, 5]) + 1
    sitk.WriteImage(image, str(dataset / "c_ct.mhd"))
    assert case.fingerprint() != before


def test_a_dicom_folder_is_the_files_in_it(dataset: Path) -> None:
    series = dataset / "d_ct"
    (series / "below").mkdir(parents=True)
    (series / "1.dcm").write_bytes(b"one")
    (case,) = read_dataset(dataset, names=["d"])
    before = case.fingerprint()
    (series / "2.dcm").write_bytes(b"two")
    assert case.fingerprint() != before
