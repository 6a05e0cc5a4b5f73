"""Warped copies of training scans: organs change, labels stay on them, and what was made is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training import reshape
from IncrementalSegLib.training.patches import CachedCase, cache_case
from IncrementalSegLib.training.reshape import with_reshaped

SPACING = (12.0, 12.0, 12.0)


@pytest.fixture
def cases(patients: Path, tmp_path: Path) -> list[CachedCase]:
    organs = OrganTable.from_names(["Liver", "Spleen"])
    return [cache_case(c, organs, Preprocessing(SPACING), tmp_path) for c in read_dataset(patients, names=["a", "b"])]


def reshaped(cases: list[CachedCase], folder: Path, count: int = 2, seed: int = 0) -> list[CachedCase]:
    return with_reshaped(cases, count, SPACING, folder, seed, Reporter())[len(cases) :]


def test_every_copy_has_the_organs_in_other_sizes_and_places(cases: list[CachedCase], tmp_path: Path) -> None:
    copies = reshaped(cases, tmp_path)
    assert len(copies) == 4
    for original, copy in zip([cases[0], cases[0], cases[1], cases[1]], copies, strict=True):
        assert copy.image.shape == original.image.shape and copy.image.dtype == np.int16
        assert copy.points.keys() == original.points.keys() == {1, 2}
        assert not np.array_equal(copy.target, original.target)
        assert np.array_equal(copy.annotated, original.annotated)
    volumes = np.array([np.bincount(copy.target.ravel(), minlength=3)[1:] for copy in copies[:2]])
    assert (volumes[0] != volumes[1]).all()


def test_the_labels_move_with_the_scan(cases: list[CachedCase], tmp_path: Path) -> None:
    for original, copy in zip([cases[0], cases[0]], reshaped(cases[:1], tmp_path), strict=True):
        before, after = (float(np.median(case.image[case.target == 1])) for case in (original, copy))
        assert after == pytest.approx(before, abs=15)


def test_copies_are_made_once_and_depend_on_the_seed(
    cases: list[CachedCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reshaped(cases, tmp_path)
    other = reshaped(cases, tmp_path, seed=1)
    assert not np.array_equal(first[0].image, other[0].image)
    monkeypatch.setattr(reshape, "draw_warp", lambda *args: pytest.fail("made again"))
    again = reshaped(cases, tmp_path)
    assert [case.key for case in again] == [case.key for case in first]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, first, strict=True))


def test_organs_that_are_not_annotated_are_warped_too_and_stay_unannotated(
    cases: list[CachedCase], tmp_path: Path
) -> None:
    case = cases[0]
    partly = replace(
        case,
        target=np.where(case.target == 1, 1, 0).astype(np.uint8),
        annotated=np.array([True, True, False]),
        key="partly",
    )
    folder, whole = tmp_path / "copies", [np.asarray(case.target)]
    alone = with_reshaped([partly], 1, SPACING, folder, 0, Reporter())[1]
    both = with_reshaped([partly], 1, SPACING, folder, 0, Reporter(), whole)[1]
    every = with_reshaped([case], 1, SPACING, folder, 0, Reporter())[1]
    assert np.array_equal(both.image, every.image) and not np.array_equal(both.image, alone.image)
    assert np.array_equal(both.target, np.where(every.target == 1, 1, 0)) and (every.target == 2).any()
    assert both.points.keys() == {1} and np.array_equal(both.annotated, partly.annotated)


def test_none_are_made_where_none_are_asked_for(cases: list[CachedCase], tmp_path: Path) -> None:
    assert reshaped(cases, tmp_path, count=0) == []
