"""Metrics against hand-computed numbers and against MONAI on the whole volume."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.evaluation import (
    OrganScore,
    agreement,
    dice,
    forgetting,
    mean_per_organ,
    organ_volumes,
    paired_bootstrap,
    retention,
    score_case,
    score_organ,
    summarise,
)
from IncrementalSegLib.organs import Organ, OrganTable, organ_named

LIVER, SPLEEN, PANCREAS = (organ_named(name).key for name in ("Liver", "Spleen", "Pancreas"))


def box(
    start: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int] = (24, 22, 20)
) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = True
    return mask


def test_a_box_one_slice_off_scores_as_computed_by_hand() -> None:
    # 10x10x6 voxels have 344 border voxels; 228 of the shifted box's lie within 2 mm of the other box's border.
    scores = score_organ(box((5, 5, 5), (10, 10, 6)), box((5, 5, 6), (10, 10, 6)), (1.0, 1.0, 5.0))
    assert scores == pytest.approx((5 / 6, 5.0, 228 / 344))


@pytest.mark.parametrize(("shift", "expected"), [((3, 0, 0), 2.1), ((0, 2, 0), 1.8), ((0, 0, 3), 15.0)])
def test_hd95_is_in_millimetres_along_every_axis(shift: tuple[int, int, int], expected: float) -> None:
    moved = tuple(5 + step for step in shift)
    _, hd95, _ = score_organ(box((5, 5, 5), (10, 10, 6)), box(moved, (10, 10, 6)), (0.7, 0.9, 5.0))
    assert hd95 == pytest.approx(expected, abs=1e-5)


def test_an_organ_missing_in_both_masks_has_no_score() -> None:
    empty = np.zeros((4, 4, 4), dtype=bool)
    assert score_organ(empty, empty, (1, 1, 1)) == (None, None, None)


@pytest.mark.parametrize("predicted", [True, False])
def test_an_organ_missing_in_one_mask_costs_the_diagonal_of_the_volume(predicted: bool) -> None:
    masks = [np.zeros((10, 20, 30), dtype=bool), box((1, 1, 1), (2, 2, 2), (10, 20, 30))]
    scores = score_organ(*(reversed(masks) if predicted else masks), spacing=(1.0, 2.0, 3.0))
    assert scores == pytest.approx((0.0, math.sqrt(10**2 + 40**2 + 90**2), 0.0))


def test_refuses_masks_of_different_grids() -> None:
    with pytest.raises(InputError, match="resample"):
        score_organ(np.ones((3, 3, 3), dtype=bool), np.ones((3, 3, 4), dtype=bool), (1, 1, 1))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI about itself
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.floats(0.5, 6.0)] * 3))
def test_cropping_changes_nothing_against_monai_on_the_whole_volume(seed: int, spacing: tuple[float, ...]) -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    generator = np.random.default_rng(seed)
    corners, sizes = generator.integers(0, 12, (2, 3)), generator.integers(1, 12, (2, 3))  # may touch the border
    masks = [
        box(tuple(c), tuple(s)) & (generator.random((24, 22, 20)) < 0.9) for c, s in zip(corners, sizes, strict=True)
    ]
    if not all(mask.any() for mask in masks):
        return
    ours = score_organ(masks[0], masks[1], spacing)
    whole = [torch.from_numpy(mask)[None, None].float() for mask in masks]
    hd95 = compute_hausdorff_distance(*whole, include_background=True, percentile=95, spacing=list(spacing))
    nsd = compute_surface_dice(*whole, class_thresholds=[2.0], include_background=True, spacing=list(spacing))
    assert ours[0] == pytest.approx(2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
    assert ours[1:] == pytest.approx((hd95.item(), nsd.item()), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_are_symmetric_and_perfect_only_for_equal_masks(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = (generator.random((6, 5, 4)) < 0.5 for _ in range(2))
    assert score_organ(first, first, (1, 2, 3)) == (1.0, 0.0, 1.0)
    assert score_organ(first, second, (1, 2, 3)) == pytest.approx(score_organ(second, first, (1, 2, 3)))
    assert (dice(first, second) == 1.0) == bool((first == second).all())


def test_organs_are_matched_by_key_whatever_their_label_values() -> None:
    model = OrganTable.from_names(["spleen", "liver", "pancreas"])
    truth = OrganTable([organ_named("Liver", 7), organ_named("Spleen", 3)])
    prediction, reference = np.zeros((2, 24, 22, 20), dtype=np.uint8)
    prediction[box((2, 2, 2), (6, 6, 6))], reference[box((2, 2, 2), (6, 6, 6))] = 2, 7
    prediction[box((12, 12, 12), (4, 4, 4))], reference[box((12, 12, 14), (4, 4, 4))] = 1, 3
    scores = score_case("a", prediction, reference, model, (1, 1, 1), [SPLEEN, LIVER], truth)
    assert [(s.case, s.organ, s.dsc) for s in scores] == [("a", SPLEEN, 0.5), ("a", LIVER, 1.0)]


def test_only_annotated_organs_that_the_model_knows_are_scored() -> None:
    old, truth = OrganTable.from_names(["liver", "spleen"]), OrganTable.from_names(["liver", "spleen", "pancreas"])
    labels = np.ones((4, 4, 4), dtype=np.uint8)
    scores = score_case("a", labels, labels, old, (1, 1, 1), [LIVER, PANCREAS], truth)
    assert [score.organ for score in scores] == [LIVER]


def test_refuses_an_annotated_organ_that_the_label_map_does_not_name() -> None:
    table, labels = OrganTable.from_names(["liver"]), np.zeros((4, 4, 4), dtype=np.uint8)
    with pytest.raises(InputError, match=f"'case 3'.*{PANCREAS}.*Liver"):
        score_case("case 3", labels, labels, table, (1, 1, 1), [PANCREAS])


def test_refuses_label_maps_of_different_grids_and_names_the_case() -> None:
    table = OrganTable.from_names(["liver"])
    with pytest.raises(InputError, match="'case 4'"):
        score_case("case 4", np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 5), np.uint8), table, (1, 1, 1), [LIVER])


@pytest.mark.parametrize("declares", ["model", "reference"])
def test_a_structure_counts_into_its_parent_in_both_maps(declares: str) -> None:
    liver = organ_named("Liver", 1)
    tumour = Organ("Liver tumour", 2, parent=LIVER)
    plain = OrganTable([liver]) if declares == "model" else OrganTable([liver, Organ("Liver tumour", 2)])
    family = OrganTable([liver, tumour])
    whole, split = np.zeros((2, 8, 8, 8), dtype=np.uint8)
    whole[2:6, 2:6, 2:6] = 1
    split[2:6, 2:6, 2:6], split[3:5, 3:5, 3:5] = 1, 2
    if declares == "model":  # the model finds a tumour; the annotation calls all of it liver
        scores = score_case("a", split, whole, family, (1, 1, 1), [LIVER], plain)
    else:  # the table of the annotation alone says what the tumour lies in
        scores = score_case("a", split, split, plain, (1, 1, 1), [LIVER], family)
        scores += score_case("a", whole, split, plain, (1, 1, 1), [LIVER], family)
    assert [score.dsc for score in scores] == [1.0] * len(scores)


def test_a_structure_inside_a_structure_reaches_the_organ() -> None:
    organs = [
        organ_named("Liver", 1),
        Organ("Tumour", 2, parent=LIVER),
        Organ("Necrosis", 3, parent=Organ("Tumour").key),
    ]
    labels = np.repeat(np.arange(4, dtype=np.uint8), 1000).reshape(10, 20, 20)
    assert organ_volumes(labels, OrganTable(organs), (1, 1, 2.0)) == pytest.approx(
        {LIVER: 6.0, "tumour": 4.0, "necrosis": 2.0}
    )


def test_agreement_compares_the_two_predictions_across_label_values_and_children() -> None:
    old = OrganTable([organ_named("Liver", 1), organ_named("Spleen", 2), organ_named("Aorta", 3)])
    new = OrganTable([organ_named("Liver", 5), organ_named("Spleen", 2), Organ("Cyst", 6, parent=LIVER)])
    before, after = np.zeros((2, 8, 8, 8), dtype=np.uint8)
    before[:4], after[:2], after[2:4] = 1, 5, 6
    before[6], after[7] = 2, 2
    assert agreement(before, after, old, new, [LIVER, SPLEEN]) == {LIVER: 1.0, SPLEEN: 0.0}
    assert agreement(before, after, old, new, [organ_named("Aorta").key]) == {organ_named("Aorta").key: None}


def test_means_leave_out_what_has_no_score_and_say_how_many_counted() -> None:
    scores = [
        OrganScore("a", LIVER, 0.9, 4.0, 0.8),
        OrganScore("b", LIVER, 0.7, 8.0, 0.6),
        OrganScore("c", LIVER, None, None, None),
        OrganScore("a", SPLEEN, None, None, None),
    ]
    means = summarise(scores)
    assert means[LIVER] == pytest.approx({"dsc": 0.8, "hd95": 6.0, "nsd": 0.7, "cases": 2})
    assert means[SPLEEN] == {"dsc": None, "hd95": None, "nsd": None, "cases": 0}
    assert mean_per_organ([{LIVER: 0.9, SPLEEN: None}, {LIVER: 0.7}]) == {LIVER: pytest.approx(0.8), SPLEEN: None}


def test_retention_is_the_ratio_of_means_over_organs_with_both_figures() -> None:
    assert retention({"a": 0.8, "b": 0.4, "c": None}, {"a": 0.8, "b": 0.1, "c": 0.5, "new": 1.0}) == pytest.approx(0.75)
    assert retention({"a": None}, {"a": 0.5}) is None
    assert retention({"a": 0.0}, {"a": 0.5}) is None


def test_forgetting_is_what_was_learned_minus_what_is_left() -> None:
    assert forgetting({"a": 0.9, "b": None, "c": 0.5}, {"a": 0.6, "b": 0.1}) == {"a": pytest.approx(0.3)}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(-5, 5), st.integers(0, 99))
def test_the_bootstrap_interval_moves_with_the_differences(values: list[float], shift: float, seed: int) -> None:
    plain = paired_bootstrap(values, np.random.default_rng(seed), samples=200)
    moved = paired_bootstrap([v + shift for v in values], np.random.default_rng(seed), samples=200)
    assert moved == pytest.approx([figure + shift for figure in plain], abs=1e-9)
    assert min(values) - 1e-9 <= plain[1] <= plain[2] <= max(values) + 1e-9


def test_the_bootstrap_finds_the_normal_interval_of_many_cases() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.1, 400)
    mean, low, high = paired_bootstrap(values.tolist(), np.random.default_rng(2))
    half = 1.96 * values.std() / 20
    assert (mean, low, high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=1e-3)


def test_refuses_a_bootstrap_of_nothing() -> None:
    with pytest.raises(InputError, match="No case"):
        paired_bootstrap([], np.random.default_rng(0))


def test_importing_loads_neither_torch_nor_monai_nor_matplotlib() -> None:
    heavy = "{'torch', 'monai', 'matplotlib', 'scipy'}"
    code = f"import sys, IncrementalSegLib.evaluation, IncrementalSegLib.figures; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
