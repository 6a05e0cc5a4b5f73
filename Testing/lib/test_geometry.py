"""Geometry checks, and resampling to the model's grid and back."""

from __future__ import annotations

import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scans import DIRECTIONS, OBLIQUE, RAS, SIZE, ct, label_map, placed

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.phantom import PhantomConfig, make_phantom, phantom_table
from IncrementalSegLib.preprocessing import Preprocessing, model_grid, resample
from IncrementalSegLib.volumes import (
    conform_label_map,
    oriented,
    read_ct,
    read_label_map,
    same_geometry,
    to_array,
    to_image,
)


@cache
def phantom(slices: float) -> tuple[sitk.Image, sitk.Image]:
    """CT and label map of a made-up patient with slices of so many mm."""
    return make_phantom(np.random.default_rng(0), PhantomConfig((80, 64, round(240 / slices)), (4.0, 4.0, slices)))


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


class TestGeometry:
    def test_axes_are_x_y_z(self) -> None:
        array = np.arange(np.prod(SIZE)).reshape(SIZE)
        image = to_image(array, label_map())
        assert image.GetPixel(3, 2, 1) == array[3, 2, 1]
        assert np.array_equal(to_array(image), array)
        assert same_geometry(image, label_map())

    @pytest.mark.parametrize(
        "header",
        [
            {"origin": (-20.001, 7.5, 100.0)},
            {"spacing": (2.0001, 2.5, 5.0)},
            {"direction": (1, 0.0005, 0, -0.0005, 1, 0, 0, 0, 1)},
        ],
        ids=["origin", "spacing", "direction"],
    )
    def test_a_header_that_was_rounded_elsewhere_is_the_same_grid(self, header: dict[str, Any]) -> None:
        scan, label = ct(), label_map(**header)
        before = label.GetOrigin(), label.GetSpacing(), label.GetDirection()
        assert same_geometry(label, scan)
        conformed = conform_label_map(label, scan, "seg", "ct")
        assert np.array_equal(to_array(conformed), to_array(label))
        assert conformed.GetOrigin() == scan.GetOrigin()
        assert conformed.GetSpacing() == scan.GetSpacing()
        assert conformed.GetDirection() == scan.GetDirection()
        assert (label.GetOrigin(), label.GetSpacing(), label.GetDirection()) == before

    @pytest.mark.parametrize(
        "header",
        [{"origin": (-19.0, 7.5, 100.0)}, {"spacing": (2.1, 2.5, 5.0)}, {"direction": RAS}, {"direction": OBLIQUE}],
        ids=["origin", "spacing", "flipped", "turned"],
    )
    def test_grids_in_other_places_are_not_the_same(self, header: dict[str, Any]) -> None:
        assert not same_geometry(label_map(**header), ct())
        assert not same_geometry(label_map((11, 10, 8)), ct())

    def test_a_small_turn_that_moves_the_far_end_of_a_long_scan_is_not_the_same(self) -> None:
        c, s = math.cos(0.008), math.sin(0.008)
        turned = sitk.Image([100, 100, 10], sitk.sitkUInt8)
        turned.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
        assert not same_geometry(turned, sitk.Image([100, 100, 10], sitk.sitkUInt8))

    @pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.0, 1.0, 1.0), (4.0, 4.0, 10.0)])
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
    def test_a_label_map_of_other_spacing_over_the_same_extent_is_resampled(
        self, spacing: tuple[float, float, float], direction: tuple[float, ...]
    ) -> None:
        scan = ct((24, 20, 16), direction=direction)
        grid = model_grid(scan, Preprocessing(spacing))
        x = np.indices(grid.GetSize())[0]
        label = to_image((x >= grid.GetSize()[0] // 2).astype(np.uint16), grid)
        conformed = conform_label_map(label, scan, "seg", "ct")
        assert conformed.GetPixelID() == sitk.sitkUInt16
        assert same_geometry(conformed, scan)
        assert to_array(conformed).mean() == pytest.approx(0.5, abs=0.1)

    @pytest.mark.parametrize("orientation", ["RAS", "PIR"])
    def test_a_label_map_with_other_axes_over_the_same_extent_keeps_its_place(self, orientation: str) -> None:
        turned = sitk.DICOMOrient(label_map(), orientation)
        assert turned.GetDirection() == pytest.approx(DIRECTIONS[orientation])
        assert np.array_equal(to_array(conform_label_map(turned, ct(), "seg", "ct")), to_array(label_map()))

    @pytest.mark.parametrize("corner", [(2, 0, 1), (0, 0, 3), (4, 4, 4)])
    def test_an_aligned_crop_is_put_in_its_place(self, corner: tuple[int, int, int]) -> None:
        label = label_map()
        size = [n - c for n, c in zip(SIZE, corner, strict=True)]
        conformed = conform_label_map(sitk.RegionOfInterest(label, size, corner), ct(), "seg", "ct")
        expected = np.zeros(SIZE, np.uint8)
        inside = tuple(slice(c, None) for c in corner)
        expected[inside] = to_array(label)[inside]
        assert np.array_equal(to_array(conformed), expected)

    @pytest.mark.parametrize(
        "label",
        [
            label_map(origin=(30.0, 7.5, 100.0)),
            label_map((12, 10, 7)),
            label_map((12, 10, 9)),
            label_map((11, 9, 7)),
            label_map(spacing=(2.0, 2.5, 3.0)),
            label_map((6, 5, 4), origin=(-15.0, 10.0, 105.0)),
            label_map((6, 6, 6), origin=(-16.0, 12.5, 115.0)),
            label_map(direction=RAS),
            label_map(direction=OBLIQUE),
            label_map((24, 20, 16)),
        ],
        ids=[
            "elsewhere",
            "a slice fewer",
            "a slice more",
            "smaller",
            "shorter",
            "crop between voxels",
            "crop that sticks out",
            "flipped about its first voxel",
            "turned",
            "larger",
        ],
    )
    def test_refuses_a_label_map_of_another_frame(self, label: sitk.Image) -> None:
        with pytest.raises(InputError, match=r"a_seg.nrrd does not lie on the grid of a_ct.nrrd .*another patient"):
            conform_label_map(label, ct(), "a_seg.nrrd", "a_ct.nrrd")

    @pytest.mark.real_ct
    def test_refuses_another_patients_real_label_map_though_both_begin_at_the_same_point(
        self, real_ct_folder: Path
    ) -> None:
        folder = real_ct_folder / "abdomen_3mm"
        scans = {case: read_ct(folder / f"{case}_ct.nii.gz") for case in ("abd_01", "abd_02")}
        label = read_label_map(folder / "abd_01_seg.nii.gz")
        assert scans["abd_01"].GetOrigin() == scans["abd_02"].GetOrigin()
        assert same_geometry(conform_label_map(label, scans["abd_01"], "01", "01"), scans["abd_01"])
        with pytest.raises(InputError, match="another patient"):
            conform_label_map(label, scans["abd_02"], "abd_01_seg", "abd_02_ct")

    @pytest.mark.real_ct
    def test_no_real_patient_passes_for_another(self, real_ct_folder: Path) -> None:
        images = []
        for path in sorted((real_ct_folder / "abdomen_3mm").glob("*_ct.nii.gz")):
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            images.append(sitk.Image(reader.GetSize(), sitk.sitkUInt8))
            images[-1].SetSpacing(reader.GetSpacing())
        images.sort(key=sitk.Image.GetSize)
        assert len(images) == 20
        for a, b in itertools.pairwise(images):
            for label, scan in ((a, b), (b, a)):
                with pytest.raises(InputError, match="another patient"):
                    conform_label_map(label, scan, "seg", "ct")

    @pytest.mark.real_ct
    def test_a_real_label_map_at_3_mm_fits_the_same_patients_original_ct(self, real_ct_folder: Path) -> None:
        label = read_label_map(real_ct_folder / "abdomen_3mm" / "abd_01_seg.nii.gz")
        scan = read_ct(real_ct_folder / "abdomen_original" / "abd_01_ct.nii.gz")
        truth = to_array(read_label_map(real_ct_folder / "abdomen_original" / "abd_01_seg.nii.gz"))
        conformed = to_array(conform_label_map(label, scan, "seg", "ct"))
        assert conformed.shape == truth.shape
        assert dsc(conformed == 6, truth == 6) > 0.9


class TestResampling:
    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
    def test_a_label_painted_at_a_point_is_found_there_on_the_models_grid_and_back(
        self, direction: tuple[float, ...]
    ) -> None:
        scan = ct((24, 20, 12), direction=direction)
        label = sitk.Image(scan.GetSize(), sitk.sitkUInt16)
        label.CopyInformation(scan)
        index = (17, 5, 4)
        point = scan.TransformIndexToPhysicalPoint(index)
        for step in itertools.product((-1, 0, 1), repeat=3):
            label[[i + s for i, s in zip(index, step, strict=True)]] = 3
        grid = model_grid(scan, Preprocessing((1.5, 1.5, 1.5)))
        there = resample(label, grid, label=True)
        assert there[there.TransformPhysicalPointToIndex(point)] == 3
        centre = np.argwhere(to_array(there) == 3).mean(0)
        assert there.TransformContinuousIndexToPhysicalPoint(centre.tolist()) == pytest.approx(point, abs=0.8)
        back = resample(there, label, label=True)
        assert back[index] == 3
        assert np.array_equal(to_array(back), to_array(label))

    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
    def test_the_models_grid_is_lps_with_its_spacing_over_the_same_extent(self, direction: tuple[float, ...]) -> None:
        scan = ct(direction=direction)
        grid = model_grid(scan, Preprocessing((3.0, 3.0, 3.0)))
        assert grid.GetSpacing() == (3.0, 3.0, 3.0)
        axes = np.reshape(grid.GetDirection(), (3, 3))
        assert (np.abs(axes).argmax(0) == [0, 1, 2]).all()
        assert (np.diag(axes) > 0).all()
        lps = oriented(scan)
        assert grid.GetOrigin() == pytest.approx(lps.GetOrigin())
        ends = (image.TransformIndexToPhysicalPoint([n - 1 for n in image.GetSize()]) for image in (grid, lps))
        assert np.abs(axes.T @ np.subtract(*ends)).max() <= 1.5 + 1e-6

    def test_the_patients_left_back_and_head_are_where_the_arrays_grow(self) -> None:
        scan = ct((20, 20, 20), spacing=(3.0, 3.0, 3.0), origin=(0, 0, 0), direction=RAS)
        array = to_array(resample(scan, model_grid(scan, Preprocessing((3.0, 3.0, 3.0)))))
        assert np.array_equal(array, to_array(scan)[::-1, ::-1, :])

    @pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
    @pytest.mark.parametrize("slices", [2.0, 5.0])
    def test_there_and_back_keeps_the_grid_and_the_organ(self, direction: tuple[float, ...], slices: float) -> None:
        scan, truth = (sitk.Image(image) for image in phantom(slices))
        for image in (scan, truth):
            image.SetDirection(direction)
        grid = model_grid(scan, Preprocessing((3.0, 3.0, 3.0)))
        hu, label = resample(scan, grid), resample(truth, grid, label=True)
        assert hu.GetPixelID() == sitk.sitkFloat32
        assert label.GetPixelID() == truth.GetPixelID()
        back = resample(label, truth, label=True)
        assert back.GetSize() == truth.GetSize()
        assert back.GetOrigin() == truth.GetOrigin()
        assert back.GetSpacing() == truth.GetSpacing()
        assert back.GetDirection() == truth.GetDirection()
        for name, bound in (("Liver", 0.95), ("Right kidney", 0.9), ("Pancreas", 0.8)):
            value = phantom_table().find(name).label
            assert dsc(to_array(back) == value, to_array(truth) == value) > bound
        liver = phantom_table().find("Liver").label
        before, after = to_array(scan)[to_array(truth) == liver], to_array(hu)[to_array(label) == liver]
        assert np.median(after) == pytest.approx(np.median(before), abs=3)

    @pytest.mark.real_ct
    @pytest.mark.parametrize("case", ["abd_06", "abd_11"])
    def test_real_organs_survive_there_and_back(self, real_ct_folder: Path, case: str) -> None:
        truth = read_label_map(real_ct_folder / "abdomen_original" / f"{case}_seg.nii.gz")
        there = resample(truth, model_grid(truth, Preprocessing()), label=True)
        back = resample(there, truth, label=True)
        assert back.GetSize() == truth.GetSize()
        for value, bound in ((6, 0.95), (1, 0.93), (11, 0.85)):
            assert dsc(to_array(back) == value, to_array(truth) == value) > bound

    def test_beyond_its_edge_an_image_is_extended(self) -> None:
        image = placed(np.array([1.0, 2, 3, 4], np.float32)[:, None, None] * np.ones((4, 3, 3), np.float32), (1, 1, 1))
        wide = sitk.Image([12, 3, 3], sitk.sitkUInt8)
        wide.SetOrigin(np.subtract(image.GetOrigin(), (4, 0, 0)))
        assert to_array(resample(image, wide))[:, 1, 1].tolist() == [1, 1, 1, 1, 1, 2, 3, 4, 4, 4, 4, 4]
        bounded = to_array(resample(image, wide, outside=-9))[:, 1, 1].tolist()
        assert bounded == [-9, -9, -9, 1, 1, 2, 3, 4, 4, -9, -9, -9]

    def test_an_image_is_itself_on_its_own_grid(self) -> None:
        scan = ct(direction=OBLIQUE)
        assert to_array(resample(scan, scan)) == pytest.approx(to_array(scan), abs=0.01)
        assert to_array(resample(scan, scan, outside=0)) == pytest.approx(to_array(scan), abs=0.01)
