"""Organs in one piece: which organs are, what is kept of them, and that a model remembers it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from IncrementalSegLib import predict
from IncrementalSegLib.cases import read_dataset
from IncrementalSegLib.models.networks import NetworkSpec
from IncrementalSegLib.models.package import Model, load_model, save_package
from IncrementalSegLib.organs import OrganTable, organ_named
from IncrementalSegLib.pieces import connected_organs, keep_largest_pieces
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.strategies import STRATEGIES
from IncrementalSegLib.training.update import update_model
from IncrementalSegLib.training.workspace import Workspace
from IncrementalSegLib.volumes import to_array, to_image

pytestmark = pytest.mark.usefixtures("one_thread")
ORGANS = OrganTable.from_names(["Liver", "Spleen"])
LIVER, SPLEEN = ORGANS.keys


def body(*boxes: tuple[int, slice]) -> np.ndarray:
    """Channels (40, 12, 12): a bar of each channel along a stretch of x."""
    channels = np.zeros((40, 12, 12), np.uint8)
    for channel, stretch in boxes:
        channels[stretch, 2:10, 2:10] = channel
    return channels


WHOLE = body((1, slice(0, 10)), (2, slice(12, 20)))
BROKEN = body((1, slice(0, 10)), (2, slice(12, 20)), (2, slice(24, 30)))


def test_an_organ_is_connected_when_three_scans_or_more_show_it_in_one_piece() -> None:
    assert connected_organs([WHOLE] * 3, ORGANS) == (LIVER, SPLEEN)
    assert connected_organs([WHOLE] * 2, ORGANS) == ()
    assert connected_organs([WHOLE, WHOLE, BROKEN, WHOLE], ORGANS) == (LIVER,)


def test_scans_without_the_organ_do_not_count() -> None:
    without = body((1, slice(0, 10)))
    assert connected_organs([WHOLE, WHOLE, without, without], ORGANS) == (LIVER,)
    assert connected_organs([WHOLE, WHOLE, without, WHOLE], ORGANS) == (LIVER, SPLEEN)


def test_a_speck_beside_an_organ_is_a_slip_of_the_hand() -> None:
    speck = WHOLE.copy()
    speck[35, 5, 5:8] = 2
    assert connected_organs([WHOLE, WHOLE, speck], ORGANS) == (LIVER, SPLEEN)


def test_a_structure_inside_an_organ_may_be_many_and_cut_it() -> None:
    liver, spleen = ORGANS
    nested = OrganTable([liver, replace(spleen, parent=liver.key)])
    assert connected_organs([WHOLE] * 3, nested) == ()


def test_voxels_that_touch_at_a_corner_are_connected() -> None:
    steps = np.zeros((6, 6, 6), np.uint8)
    steps[range(6), range(6), range(6)] = 2
    assert connected_organs([steps] * 3, ORGANS) == (SPLEEN,)
    keep_largest_pieces(steps, [2])
    assert steps.sum() == 12


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]))
def test_what_is_kept_is_the_largest_component_of_each_asked_label(seed: int, kind: type) -> None:
    label_map = np.random.default_rng(seed).choice([0, 3, 7, 200], (12, 10, 8), p=[0.7, 0.1, 0.1, 0.1]).astype(kind)
    kept = label_map.copy()
    keep_largest_pieces(kept, [3, 200, 9])
    assert np.array_equal(kept == 7, label_map == 7)
    for value in (3, 200):
        there = sitk.GetImageFromArray((label_map == value).astype(np.uint8))
        pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(there, True))
        sizes = np.bincount(pieces.ravel())[1:]
        touched = np.unique(pieces[kept == value])
        assert len(touched) == 1 and (kept == value).sum() == sizes.max() == sizes[touched[0] - 1]
        assert not (kept[label_map == value] == 0).all() and set(np.unique(kept[label_map == value])) <= {0, value}


def test_nothing_to_keep_changes_nothing() -> None:
    for label_map in (np.zeros((4, 4, 4), np.uint8), BROKEN.copy()):
        before = label_map.copy()
        keep_largest_pieces(label_map, [])
        assert np.array_equal(label_map, before)


class Dense(nn.Module):
    """Calls what is denser than water liver, and what is denser than 200 HU spleen."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), 40 * (x + 0.375), 400 * x - 200], 1)


def test_a_prediction_keeps_the_largest_piece_unless_all_are_asked_for() -> None:
    hu = np.full((40, 12, 12), -1000, np.int16)
    hu[BROKEN == 1], hu[BROKEN == 2] = 60, 250
    hu[34:38, 4:8, 4:8] = 60
    ct = to_image(hu, sitk.Image([40, 12, 12], sitk.sitkInt16))
    model = Model(Dense(), NetworkSpec(), ORGANS, Preprocessing((1.0, 1.0, 1.0)), (16, 16, 16), connected=(SPLEEN,))
    every = np.where(hu == 60, 1, np.where(hu == 250, 2, 0))
    kept = np.where(body((2, slice(24, 30))) == 2, 0, every)
    assert np.array_equal(to_array(predict(model, ct, device="cpu")), kept)
    assert np.array_equal(to_array(predict(model, ct, all_pieces=True, device="cpu")), every)


def test_a_model_knows_what_was_in_one_piece_and_a_step_adds_to_it(
    base_job: Path, patients: Path, tmp_path: Path
) -> None:
    base = load_model(base_job / "model")
    assert base.connected == (LIVER, SPLEEN)  # four phantoms
    cases = read_dataset(patients, names=["a", "b", "c"])
    config = TrainingConfig(steps=2, batch=1, patch=(32, 32, 32), device="cpu")
    stomach, inside = organ_named("Stomach"), replace(organ_named("Pancreas"), parent=LIVER)
    grown = update_model(base, cases, [stomach], config, STRATEGIES["fine-tune"], Workspace(tmp_path / "1"))
    assert grown.connected == (LIVER, SPLEEN, stomach.key)
    few = update_model(base, cases[:2], [stomach], config, STRATEGIES["fine-tune"], Workspace(tmp_path / "2"))
    assert few.connected == (LIVER, SPLEEN)
    cut = update_model(base, cases, [inside], config, STRATEGIES["fine-tune"], Workspace(tmp_path / "3"))
    assert cut.connected == (SPLEEN,)
    save_package(grown, tmp_path / "model")
    assert load_model(tmp_path / "model").connected == grown.connected
