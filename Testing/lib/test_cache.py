"""Cached preprocessing: filled once, faithful, made again when its input changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from IncrementalSegLib import preprocessing
from IncrementalSegLib.cases import Case, read_dataset
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.preprocessing import Preprocessing, model_grid, resample
from IncrementalSegLib.training import patches
from IncrementalSegLib.training.config import Augmentation
from IncrementalSegLib.training.patches import PatchSampler, cache_case, organ_points
from IncrementalSegLib.volumes import oriented, to_array, to_image

PREPROCESSING = Preprocessing((12.0, 12.0, 12.0))


@pytest.fixture
def resampled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A list that grows by one with every resampling of an image (False) or a label map (True)."""
    calls: list[bool] = []
    real = patches.resample

    def counted(*args: Any, **kwargs: Any) -> sitk.Image:
        calls.append(kwargs.get("label", False))
        return real(*args, **kwargs)

    for module in (patches, preprocessing):
        monkeypatch.setattr(module, "resample", counted)
    yield calls


def first_case(folder: Path) -> Case:
    return read_dataset(folder)[0]


def test_the_cache_holds_hu_in_the_window_and_the_tables_channels(dataset: Path, tmp_path: Path) -> None:
    case, organs = first_case(dataset), OrganTable.from_names(["Spleen", "Liver"])
    entry = cache_case(case, organs, PREPROCESSING, tmp_path / "cache")
    ct, label = case.read()
    assert label is not None
    grid = model_grid(ct, PREPROCESSING)
    assert np.array_equal(entry.image, np.clip(np.rint(to_array(resample(ct, grid))), -125, 275))
    values = to_array(resample(label, grid, label=True))
    for organ in organs:
        assert np.array_equal(entry.target == organs.channel(organ.key), values == case.labels.find(organ.name).label)
    assert entry.annotated.tolist() == [True, True, True] and set(entry.points) == {1, 2}
    assert isinstance(entry.image, np.memmap) and isinstance(entry.target, np.memmap)


def test_an_organ_that_was_not_annotated_is_unknown(dataset: Path, tmp_path: Path) -> None:
    case = first_case(dataset)
    case = case.restricted([case.labels.find("Liver").key])
    entry = cache_case(case, OrganTable.from_names(["Spleen", "Liver"]), PREPROCESSING, tmp_path)
    assert entry.annotated.tolist() == [True, False, True]
    assert set(np.unique(entry.target)) == {0, 2}


def test_the_cache_is_filled_once(dataset: Path, tmp_path: Path, resampled: list[bool]) -> None:
    organs = OrganTable.from_names(["Liver"])
    first = cache_case(first_case(dataset), organs, PREPROCESSING, tmp_path)
    assert resampled == [False, True]
    again = cache_case(first_case(dataset), organs, PREPROCESSING, tmp_path)
    PatchSampler([again], PREPROCESSING, Augmentation(), organ_fraction=0.5, seed=0).batch(0, 2, (16, 16, 16))
    assert resampled == [False, True]
    assert np.array_equal(first.image, again.image) and np.array_equal(first.target, again.target)


def test_a_corrected_label_map_is_not_taken_from_the_cache(
    dataset: Path, tmp_path: Path, resampled: list[bool]
) -> None:
    case, organs = first_case(dataset), OrganTable.from_names(["Liver"])
    before = np.array(cache_case(case, organs, PREPROCESSING, tmp_path).target)
    assert case.label is not None
    label, stat = sitk.ReadImage(str(case.label)), case.label.stat()
    values = to_array(label)
    values[values == case.labels.find("Liver").label] = 0
    values[10:13, 10:13, 10:13] = case.labels.find("Liver").label
    sitk.WriteImage(to_image(values, label), str(case.label))
    os.utime(case.label, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = cache_case(first_case(dataset), organs, PREPROCESSING, tmp_path).target
    assert len(resampled) == 4 and after.sum() == 27 and before.sum() > 27


def test_another_recipe_is_another_entry(dataset: Path, tmp_path: Path, resampled: list[bool]) -> None:
    case, organs = first_case(dataset), OrganTable.from_names(["Liver"])
    for table, recipe in (
        (organs, PREPROCESSING),
        (OrganTable.from_names(["Spleen"]), PREPROCESSING),
        (organs, Preprocessing((14.0, 12.0, 12.0))),
        (organs, Preprocessing((12.0, 12.0, 12.0), (-100.0, 275.0))),
    ):
        cache_case(case, table, recipe, tmp_path)
    cache_case(case.restricted([]), organs, PREPROCESSING, tmp_path)
    assert len(resampled) == 10


def test_an_interrupted_cache_entry_is_made_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, organs = first_case(dataset), OrganTable.from_names(["Liver"])

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(patches, "organ_points", killed)
        cache_case(case, organs, PREPROCESSING, tmp_path)
    assert cache_case(case, organs, PREPROCESSING, tmp_path).points.keys() == {1}


def test_cached_axes_are_lps_whatever_the_scans_are(dataset: Path, tmp_path: Path) -> None:
    case, organs = first_case(dataset), OrganTable.from_names(["Liver", "Spleen"])
    expected = cache_case(case, organs, PREPROCESSING, tmp_path)
    for path in (case.ct, case.label):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "SRA"), str(path))
    turned = cache_case(case, organs, PREPROCESSING, tmp_path)
    assert np.array_equal(turned.image, expected.image) and np.array_equal(turned.target, expected.target)
    assert oriented(case.read()[0]).GetSize() == expected.image.shape


def test_organ_points_lie_in_their_organ_and_are_spread_over_it() -> None:
    target = np.zeros((60, 60, 40), np.uint8)
    target[10:50, 10:50, 5:35], target[0, 0, :3] = 1, 2
    points = organ_points(target)
    assert set(points) == {1, 2} and len(points[2]) == 3
    assert 20_000 <= len(points[1]) < 40_000
    for channel, xyz in points.items():
        assert (target[tuple(xyz.T)] == channel).all()
    assert points[1].min(0).tolist() == [10, 10, 5] and points[1].max(0).tolist() >= [49, 48, 33]
