"""Bad input through the command line: one sentence that names it and the remedy, an exit code, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helping import add_command, train_command

from IncrementalSegLib.cli import main
from IncrementalSegLib.models.package import load_model
from IncrementalSegLib.phantom import phantom_table

pytestmark = pytest.mark.usefixtures("one_thread", "user")
LABELS = {organ.name: organ.label for organ in phantom_table()}


def _change(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write an image with other voxels (z, y, x) on the same grid."""
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))


# annotations and organs


def test_an_annotation_that_is_empty_everywhere(cases, tmp_path, refused):
    for name in "ab":
        _change(cases / f"{name}_seg.nii.gz", lambda v: np.where(v == LABELS["Spleen"], 0, v).astype(np.uint8))
    words = ["'Spleen'", "empty in all cases (a, b)", "segment it in at least one"]
    refused(2, words, *train_command(cases, tmp_path / "job"))


def test_an_organ_annotated_in_no_case(cases, base_job, tmp_path, refused):
    words = ["'Left lung' is annotated in none of the 2 cases", "annotate it or leave it out"]
    refused(2, words, *train_command(cases, tmp_path / "job", "Liver", "Left lung"))
    refused(2, words, *add_command(base_job, cases, tmp_path / "step", "Left lung"))


def test_a_label_map_on_the_grid_of_another_patient(cases, tmp_path, refused):
    label = sitk.ReadImage(str(cases / "b_seg.nii.gz"))
    label.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(label, str(cases / "b_seg.nii.gz"))
    words = ["b_seg.nii.gz", "b_ct.nii.gz", "another patient", "reference volume"]
    refused(2, words, *train_command(cases, tmp_path / "job"))


def test_one_organ_named_twice(cases, base_job, tmp_path, refused):
    words = ["'Liver' and 'Liver' have the same", "keep only one"]
    refused(2, words, *train_command(cases, tmp_path / "job", "Liver", "liver"))
    refused(
        2, ["'Right kidney'", "same"], *add_command(base_job, cases, tmp_path / "step", "Right kidney", "kidney_right")
    )
    assert not (tmp_path / "job").exists()
    assert not (tmp_path / "step").exists()


def test_two_label_values_of_one_organ(cases, tmp_path, refused):
    description = json.loads((cases / "dataset.json").read_text(encoding="utf-8"))
    description["labels"]["99"] = "liver"
    (cases / "dataset.json").write_text(json.dumps(description))
    refused(2, ["dataset.json", "'Liver'"], *train_command(cases, tmp_path / "job"))


def test_an_organ_that_the_model_has_already(cases, base_job, tmp_path, refused):
    words = ["The model knows 'Spleen' already", "choose another organ"]
    refused(2, words, *add_command(base_job, cases, tmp_path / "job", "spleen"))
    assert not (tmp_path / "job").exists()


def _cyst_in_the_liver(cases: Path) -> None:
    """Annotations of one structure that fills half of every scan."""

    def half(values: np.ndarray) -> np.ndarray:
        values = np.zeros_like(values)
        values[: len(values) // 2] = 1
        return values

    for name in "ab":
        _change(cases / f"{name}_seg.nii.gz", half)
    (cases / "dataset.json").write_text(json.dumps({"labels": {"1": "Cyst"}}))


def test_an_annotation_over_an_old_organ_is_questioned_unless_its_parent_is_named(
    cases, liver_everywhere, tmp_path, refused
):
    _cyst_in_the_liver(cases)
    words = ["'Cyst' covers", "'Liver'", "--parent 'Liver'", "--allow-overlap"]
    refused(2, words, *add_command(liver_everywhere, cases, tmp_path / "refused", "Cyst"))
    words = ["The parent of 'Cyst' is not among the model's organs (Liver, Spleen)"]
    refused(2, words, *add_command(liver_everywhere, cases, tmp_path / "lung", "Cyst", "--parent", "Left lung"))
    accepted = add_command(liver_everywhere, cases, tmp_path / "accepted", "Cyst", "--parent", "liver")
    assert main([str(argument) for argument in accepted]) == 0
    organs = load_model(tmp_path / "accepted" / "model").organs
    assert organs.find("Cyst").parent == organs.find("Liver").key


# scans


def _numbers(values: np.ndarray) -> np.ndarray:
    return np.clip(values.astype(np.int32) + 1024, 0, 255).astype(np.int16)


def _holes(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[0, 0, 0] = np.nan
    return values


SCANS = [(_numbers, ["not in Hounsfield units", "rescale slope"]), (_holes, ["NaN", "export it again"])]


@pytest.mark.parametrize(("change", "words"), SCANS)
def test_a_ct_whose_values_are_no_hounsfield_units(cases, base_job, tmp_path, refused, change, words):
    _change(cases / "a_ct.nii.gz", change)
    refused(2, ["a_ct.nii.gz", *words], *train_command(cases, tmp_path / "job"))
    out = tmp_path / "organs.nii.gz"
    refused(2, words, "predict", "--model", base_job, "--ct", cases / "a_ct.nii.gz", "--out", out)
    assert not out.exists()


def _flat(image: sitk.Image) -> sitk.Image:
    return image[:, :, 3]


def _one_slice(image: sitk.Image) -> sitk.Image:
    return image[:, :, 3:4]


def _series(image: sitk.Image) -> sitk.Image:
    return sitk.JoinSeries([image, image])


SHAPES = [(_flat, ["a 2D image"]), (_one_slice, ["a single slice"]), (_series, ["a 4D image", "one phase"])]


@pytest.mark.parametrize(("cut", "words"), SHAPES)
def test_a_scan_that_is_no_volume(cases, base_job, tmp_path, refused, cut, words):
    ct = cases / "a_ct.nii.gz"
    sitk.WriteImage(cut(sitk.ReadImage(str(ct))), str(ct))
    refused(2, ["a_ct.nii.gz", *words], *train_command(cases, tmp_path / "job"))
    out = tmp_path / "organs.nii.gz"
    refused(2, ["a_ct.nii.gz", *words], "predict", "--model", base_job, "--ct", ct, "--out", out)
    assert not out.exists()


def test_files_that_are_not_there_or_no_images(cases, base_job, tmp_path, refused):
    predict = ["predict", "--model", base_job, "--out", tmp_path / "o.nii.gz", "--ct"]
    refused(2, ["gone.nii.gz does not exist"], *predict, tmp_path / "gone.nii.gz")
    refused(2, ["dataset.json cannot be read as an image"], *predict, cases / "dataset.json")
    refused(2, ["is not a folder"], *train_command(tmp_path / "gone", tmp_path / "job"))
    assert not (tmp_path / "job").exists()


def _resampled(path: Path, spacing: tuple[float, float, float], size: list[int], label: bool) -> None:
    """Cut or stretch a scan around its middle."""
    image = sitk.ReadImage(str(path))
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetOrigin([-step * (count - 1) / 2 for step, count in zip(spacing, size, strict=True)])
    how = sitk.sitkNearestNeighbor if label else sitk.sitkLinear
    sitk.WriteImage(sitk.Resample(image, grid, sitk.Transform(), how, 0 if label else -1000), str(path))


@pytest.mark.parametrize(
    ("spacing", "size"),
    [((12.0, 12.0, 12.0), [12, 11, 10]), ((11.0, 11.0, 5.0), [34, 30, 60])],
    ids=["smaller than a patch", "thin slices of wide pixels"],
)
def test_small_and_anisotropic_volumes_work(cases, tmp_path, spacing, size):
    for name in "ab":
        for part in ("ct", "seg"):
            _resampled(cases / f"{name}_{part}.nii.gz", spacing, size, part == "seg")
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(cases / "a_seg.nii.gz")))
    organ = next(name for name, label in LABELS.items() if (values == label).any())
    job, out = tmp_path / "job", tmp_path / "organs.nii.gz"
    assert main([str(argument) for argument in train_command(cases, job, organ)]) == 0
    ct = cases / "a_ct.nii.gz"
    assert main(["predict", "--model", str(job), "--ct", str(ct), "--out", str(out)]) == 0
    assert list(sitk.ReadImage(str(out)).GetSize()) == size
