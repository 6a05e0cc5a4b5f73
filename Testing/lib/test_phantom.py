"""Made-up patients: anatomy, HU, reproducibility, grids and the dataset folder."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.phantom import (
    PHANTOM_ORGANS,
    PhantomConfig,
    make_label_map,
    make_phantom,
    phantom_table,
    write_phantom_cases,
)
from IncrementalSegLib.volumes import read_volume, to_array

SEEDS = range(4)
DEFAULT = PhantomConfig()
SMALL = PhantomConfig(size=(48, 40, 40), spacing=(8.0, 8.0, 8.0))
# Organ: volume in mL and median HU at the default configuration. Volumes are those of adults; the HU of small organs
# fall short of the tissue's own because of blur.
PLAUSIBLE = {
    "Spleen": ((70, 400), (95, 140)),
    "Right kidney": ((80, 280), (130, 200)),
    "Left kidney": ((80, 280), (130, 200)),
    "Gallbladder": ((12, 80), (-5, 30)),
    "Liver": ((1000, 2400), (90, 130)),
    "Stomach": ((150, 800), (15, 65)),
    "Aorta": ((50, 180), (115, 175)),
    "Inferior vena cava": ((40, 150), (95, 150)),
    "Pancreas": ((40, 150), (70, 115)),
}


@cache
def patient(seed: int, config: PhantomConfig = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    ct, labels = make_phantom(np.random.default_rng(seed), config)
    return to_array(ct), to_array(labels)


def mask(seed: int, name: str, config: PhantomConfig = DEFAULT) -> np.ndarray:
    return patient(seed, config)[1] == PHANTOM_ORGANS.index(name) + 1


def centre(organ: np.ndarray, config: PhantomConfig = DEFAULT) -> np.ndarray:
    return np.argwhere(organ).mean(axis=0) * config.spacing


def volume_ml(organ: np.ndarray, config: PhantomConfig = DEFAULT) -> float:
    return float(organ.sum() * np.prod(config.spacing) / 1000)


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def air_around(ct: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(np.pad(ct < -600, ((1, 1), (1, 1), (0, 0)), constant_values=True))
    return (parts == parts[0, 0, 0])[1:-1, 1:-1]


def test_the_same_seed_gives_the_same_scan_and_another_seed_another_patient() -> None:
    one, two, other = (make_phantom(np.random.default_rng(seed), SMALL) for seed in (3, 3, 4))
    assert all(np.array_equal(to_array(a), to_array(b)) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(to_array(one[0]), to_array(other[0]))
    assert not np.array_equal(to_array(one[1]), to_array(other[1]))


def test_one_generator_gives_a_row_of_different_patients() -> None:
    generator = np.random.default_rng(0)
    assert not np.array_equal(make_label_map(generator, SMALL), make_label_map(generator, SMALL))


def test_the_label_map_alone_is_that_of_the_scan_and_leaves_the_generator_in_the_same_state() -> None:
    for_map, for_scan = np.random.default_rng(5), np.random.default_rng(5)
    assert np.array_equal(make_label_map(for_map, SMALL), to_array(make_phantom(for_scan, SMALL)[1]))
    assert for_map.integers(2**32) == for_scan.integers(2**32)


def test_acquisition_changes_the_scan_but_not_the_anatomy() -> None:
    sharp = PhantomConfig(SMALL.size, SMALL.spacing, noise_hu=0, blur_mm=0)
    assert np.array_equal(patient(1, SMALL)[1], patient(1, sharp)[1])
    liver = ndimage.binary_erosion(mask(1, "Liver", SMALL))
    assert patient(1, SMALL)[0][liver].std() > patient(1, sharp)[0][liver].std()


def test_noise_has_the_asked_strength_and_is_correlated() -> None:
    quiet, noisy = (PhantomConfig(SMALL.size, SMALL.spacing, noise_hu=hu) for hu in (0, 20))
    noise = (patient(0, noisy)[0] - patient(0, quiet)[0].astype(float))[18:30, 15:25, 10:30]
    assert 14 < noise.std() < 24
    assert np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1] > 0.1


def test_scan_and_label_map_have_the_stated_types_and_geometry() -> None:
    ct, labels = make_phantom(np.random.default_rng(0), PhantomConfig((40, 30, 20), (5.0, 6.0, 7.0)))
    assert (ct.GetPixelID(), labels.GetPixelID()) == (sitk.sitkInt16, sitk.sitkUInt8)
    for image in (ct, labels):
        assert (image.GetSize(), image.GetSpacing()) == ((40, 30, 20), (5.0, 6.0, 7.0))
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert image.GetOrigin() == (-97.5, -87.0, -66.5)


def test_the_table_has_catalogue_codes_in_label_order() -> None:
    table = phantom_table()
    assert tuple(table.names) == PHANTOM_ORGANS
    assert [organ.label for organ in table] == list(range(1, len(PHANTOM_ORGANS) + 1))
    assert all(organ.type for organ in table)


@pytest.mark.parametrize("name", PHANTOM_ORGANS)
def test_every_organ_has_the_volume_and_hu_of_an_adult_in_portal_venous_phase(name: str) -> None:
    (smallest, largest), (darkest, brightest) = PLAUSIBLE[name]
    for seed in SEEDS:
        organ = mask(seed, name)
        assert smallest < volume_ml(organ) < largest, f"seed {seed}"
        assert darkest < np.median(patient(seed)[0][organ]) < brightest, f"seed {seed}"


@pytest.mark.parametrize("name", ["Spleen", "Right kidney", "Left kidney", "Liver", "Pancreas", "Aorta"])
def test_an_organ_is_one_piece(name: str) -> None:
    for seed in SEEDS:
        parts, count = ndimage.label(mask(seed, name), np.ones((3, 3, 3)))
        assert count and np.bincount(parts.ravel())[1:].max() > 0.95 * (parts > 0).sum(), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_inside_the_body_and_where_they_belong(seed: int) -> None:
    ct, labels = patient(seed)
    assert not (ndimage.binary_dilation(air_around(ct)) & (labels > 0)).any()
    at = {name: centre(mask(seed, name)) for name in PHANTOM_ORGANS}
    assert at["Liver"][0] < at["Aorta"][0] < at["Spleen"][0]
    assert at["Right kidney"][0] < at["Inferior vena cava"][0] < at["Aorta"][0] < at["Left kidney"][0]
    assert at["Stomach"][0] > at["Gallbladder"][0] < at["Aorta"][0]
    assert at["Pancreas"][1] < at["Aorta"][1] < min(at["Left kidney"][1], at["Right kidney"][1])
    assert at["Liver"][2] > at["Right kidney"][2]
    across = np.flatnonzero(mask(seed, "Pancreas").any(axis=(1, 2))) * 4.0
    assert across.min() < at["Inferior vena cava"][0] + 20 and across.max() > at["Aorta"][0] + 30


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scan_has_air_fat_soft_tissue_bone_and_lung(seed: int) -> None:
    ct, _ = patient(seed)
    inside = ~air_around(ct)
    assert np.median(ct[~inside]) == pytest.approx(-1000, abs=10)
    shares = [((low < ct) & (ct < high) & inside).mean() / inside.mean() for low, high in ((-140, -60), (0, 200))]
    assert shares[0] > 0.15 and shares[1] > 0.25
    assert (ct > 250).sum() > 2000
    assert ((ct > -950) & (ct < -750) & inside)[:, :, -10:].mean() > 0.1


def test_patients_differ_in_size_place_and_shape() -> None:
    for name in PHANTOM_ORGANS:
        volumes = [volume_ml(mask(seed, name)) for seed in SEEDS]
        places = np.array([centre(mask(seed, name)) for seed in SEEDS])
        assert np.std(volumes) / np.mean(volumes) > 0.04, name
        assert np.linalg.norm(places.std(axis=0)) > 3, name
    livers = [mask(seed, "Liver") for seed in SEEDS]
    overlap = [dsc(a, b) for i, a in enumerate(livers) for b in livers[:i]]
    assert min(overlap) > 0.5 and max(overlap) < 0.95


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 6.0), (6.0, 4.0, 3.0)])
def test_an_anisotropic_grid_shows_the_same_patient(spacing: tuple[float, float, float]) -> None:
    size = tuple(round(384 / step) if axis == 0 else round(320 / step) for axis, step in enumerate(spacing))
    config = PhantomConfig(size, spacing)  # type: ignore[arg-type]
    for name in PHANTOM_ORGANS:
        assert volume_ml(mask(0, name, config), config) == pytest.approx(volume_ml(mask(0, name)), rel=0.08), name


def test_a_small_field_of_view_shows_a_part_of_the_same_patient() -> None:
    part = make_label_map(np.random.default_rng(0), PhantomConfig(size=(48, 40, 32)))
    whole = patient(0)[1][24:72, 20:60, 24:56]
    assert part.any()
    assert (part == whole).mean() > 0.999


def test_a_field_of_view_of_a_few_voxels_works() -> None:
    ct, labels = make_phantom(np.random.default_rng(0), PhantomConfig(size=(5, 1, 3)))
    assert ct.GetSize() == labels.GetSize() == (5, 1, 3)


@pytest.mark.parametrize(
    "wrong", [{"size": (0, 8, 8)}, {"spacing": (1.0, -1.0, 1.0)}, {"noise_hu": -1}, {"blur_mm": -1}]
)
def test_refuses_a_grid_or_an_acquisition_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="above 0"):
        PhantomConfig(**wrong)  # type: ignore[arg-type]


def test_a_dataset_folder_has_the_contract_layout(tmp_path: Path) -> None:
    write_phantom_cases(tmp_path / "data", ["a", "b"], seed=7, config=SMALL)
    assert {file.name for file in (tmp_path / "data").iterdir()} == {
        "a_ct.nii.gz", "a_seg.nii.gz", "b_ct.nii.gz", "b_seg.nii.gz", "dataset.json",
    }  # fmt: skip
    content = json.loads((tmp_path / "data/dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"0": "background"} | {str(i): name for i, name in enumerate(PHANTOM_ORGANS, 1)}
    assert content["cases"] == [{"case": case, "annotated": list(PHANTOM_ORGANS)} for case in "ab"]
    assert content["source"] == "synthetic phantom, made by IncrementalSegLib.phantom"
    assert len(read_dataset(tmp_path / "data")) == 2


def test_a_case_follows_from_seed_and_place_whatever_is_annotated(tmp_path: Path) -> None:
    write_phantom_cases(tmp_path / "all", ["a", "b"], seed=7, config=SMALL)
    write_phantom_cases(tmp_path / "few", ["x", "y"], seed=7, config=SMALL, organs=["pancreas", "kidney_left"])
    content = json.loads((tmp_path / "few/dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"0": "background", "9": "Pancreas", "3": "Left kidney"}
    assert content["cases"][1] == {"case": "y", "annotated": ["Pancreas", "Left kidney"]}
    first, second, few_first, few_second = (
        [to_array(read_volume(tmp_path / f"{name}_{kind}.nii.gz")) for kind in ("ct", "seg")]
        for name in ("all/a", "all/b", "few/x", "few/y")
    )
    assert not np.array_equal(first[0], second[0])
    for every, few in ((first, few_first), (second, few_second)):
        assert np.array_equal(every[0], few[0])
        assert np.array_equal(np.where(np.isin(every[1], (3, 9)), every[1], 0), few[1])


def test_refuses_an_organ_that_a_phantom_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Prostate"):
        write_phantom_cases(tmp_path / "data", ["a"], seed=0, config=SMALL, organs=["Prostate"])
    assert not (tmp_path / "data").exists()
