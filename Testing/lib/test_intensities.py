"""Intensities of organs and tissues: measured exactly, painted back, kept in a package."""

from __future__ import annotations

import numpy as np
import pytest

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.inversion.anatomy import BONE, FAT, SOFT, Anatomy
from IncrementalSegLib.inversion.intensities import (
    TISSUES,
    Intensities,
    classes_of,
    histogram_distance,
    histogram_of,
    measure_intensities,
    paint,
)

LIVER, SPLEEN = len(TISSUES), len(TISSUES) + 1


def anatomy() -> Anatomy:
    tissue, organs = np.zeros((40, 36, 30), np.uint8), np.zeros((40, 36, 30), np.uint8)
    tissue[4:36, 4:32], tissue[8:32, 8:28], tissue[18:22, 22:26] = FAT, SOFT, BONE
    organs[9:18, 9:20, 5:25], organs[24:31, 10:18, 8:20] = 1, 2
    return Anatomy(organs, tissue)


def scan(generator: np.random.Generator, liver: float = 0.2, spleen: float = 0.4) -> np.ndarray:
    levels = np.array([-1, -0.8, -0.1, 0.8, -1, liver, spleen])
    noise = 0.05 * generator.standard_normal(anatomy().organs.shape)
    return (levels[classes_of(anatomy())] + noise).clip(-1, 1).astype(np.float32)


def measured(count: int = 3) -> Intensities:
    generator = np.random.default_rng(0)
    return measure_intensities([(scan(generator, 0.1 * i), anatomy()) for i in range(count)], organs=2)


def test_means_and_spreads_are_those_of_the_patients() -> None:
    numbers = measured()
    assert numbers.mean[[FAT, SOFT, BONE, LIVER, SPLEEN]] == pytest.approx([-0.8, -0.1, 0.8, 0.1, 0.4], abs=5e-3)
    assert numbers.spread[LIVER] == pytest.approx(np.std([0.0, 0.1, 0.2]), abs=5e-3)
    assert numbers.spread[SPLEEN] < 5e-3


def test_white_noise_is_fine_texture() -> None:
    fine, medium, coarse = measured().texture[LIVER]
    assert fine > 2 * medium > 4 * coarse > 0


def test_an_organ_that_no_patient_shows_is_a_gap_that_earlier_numbers_fill() -> None:
    bare = Anatomy(np.where(anatomy().organs == 1, np.uint8(1), np.uint8(0)), anatomy().tissue)
    now = measure_intensities([(scan(np.random.default_rng(1)), bare)], organs=2)
    assert now.mean[SPLEEN] == 0 and now.histogram[SPLEEN].sum() == 0
    filled = now.completed(measured())
    assert filled.mean[SPLEEN] == measured().mean[SPLEEN] and filled.mean[LIVER] == now.mean[LIVER]
    assert filled.histogram[SPLEEN].sum() == pytest.approx(1)


def test_refuses_no_scan() -> None:
    with pytest.raises(InputError, match="without a scan"):
        measure_intensities([], organs=2)


def test_a_package_keeps_them() -> None:
    again = Intensities.from_state(measured().to_state())
    assert all(
        np.array_equal(getattr(again, part), getattr(measured(), part)) for part in ("mean", "texture", "histogram")
    )


def test_painted_patients_have_the_measured_intensities_and_no_air_inside() -> None:
    numbers, shape = measured(), anatomy()
    painted = [paint(shape, numbers, np.random.default_rng(seed)) for seed in range(12)]
    assert all(image.dtype == np.float32 and abs(image).max() <= 1 for image in painted)
    assert all((image[shape.tissue == 0] == -1).all() for image in painted)
    inner = np.zeros(shape.organs.shape, bool)
    inner[11:16, 11:18, 8:22] = True
    livers = [float(image[inner].mean()) for image in painted]
    assert np.mean(livers) == pytest.approx(numbers.mean[LIVER], abs=0.08)
    assert 0.3 * numbers.spread[LIVER] < np.std(livers) < 2 * numbers.spread[LIVER]
    again = measure_intensities([(image, shape) for image in painted], organs=2)
    assert histogram_distance(again.histogram[SPLEEN], numbers.histogram[SPLEEN]) < 0.08


def test_the_same_generator_paints_the_same_image() -> None:
    first, second = (paint(anatomy(), measured(), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_distance_of_histograms_is_how_far_the_earth_moves() -> None:
    low, high = histogram_of(np.full(50, -0.5)), histogram_of(np.full(80, 0.25))
    assert histogram_distance(low, high) == pytest.approx(0.75)
    assert histogram_distance(low, low) == 0
