"""Patches: cached preprocessing, deterministic draws, faithful content, balance over organs, laterality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from helping import UNAUGMENTED

from IncrementalSegLib.losses.unbiased import IGNORE
from IncrementalSegLib.organs import OrganTable
from IncrementalSegLib.preprocessing import Preprocessing
from IncrementalSegLib.training.config import Augmentation
from IncrementalSegLib.training.patches import Batch, CachedCase, PatchSampler, organ_points

pytestmark = pytest.mark.usefixtures("one_thread")

PREPROCESSING = Preprocessing((12.0, 12.0, 12.0))
SIDES = OrganTable.from_names(["Liver", "Right kidney", "Left kidney"])


def cached(target: np.ndarray, image: np.ndarray | None = None, channels: int = 3) -> CachedCase:
    hu = np.zeros(target.shape, np.int16) if image is None else image.astype(np.int16)
    target = target.astype(np.uint8)
    return CachedCase("case", hu, target, np.ones(channels + 1, bool), organ_points(target))


def noise_case(shape: tuple[int, int, int]) -> CachedCase:
    generator = np.random.default_rng(8)
    return cached(generator.integers(0, 4, shape), generator.integers(-125, 276, shape))


def sampler_of(
    cases: Sequence[CachedCase],
    augmentation: Augmentation = UNAUGMENTED,
    *,
    organ_fraction: float = 1.0,
    seed: int = 0,
    mirror: Sequence[int] | None = None,
) -> PatchSampler:
    return PatchSampler(cases, PREPROCESSING, augmentation, organ_fraction=organ_fraction, seed=seed, mirror=mirror)


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


# Draws


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in ("image", "plain", "target", "annotated"))


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    cases = [noise_case((30, 28, 26)), noise_case((20, 36, 24))]
    sampler = sampler_of(cases, Augmentation(), organ_fraction=0.5, seed=3)
    first = sampler.batch(7, 2, (16, 16, 16))
    sampler.batch(8, 4, (16, 16, 16))
    assert equal(sampler.batch(7, 2, (16, 16, 16)), first)
    assert equal(sampler_of(cases, Augmentation(), organ_fraction=0.5, seed=3).batch(7, 2, (16, 16, 16)), first)
    assert not equal(sampler.batch(8, 2, (16, 16, 16)), first)
    assert not equal(sampler_of(cases, Augmentation(), organ_fraction=0.5, seed=4).batch(7, 2, (16, 16, 16)), first)


def test_a_batch_has_the_promised_shapes() -> None:
    batch = sampler_of([noise_case((30, 28, 26))], Augmentation()).batch(0, 3, (16, 20, 24))
    assert batch.image.shape == batch.plain.shape == (3, 1, 16, 20, 24)
    assert batch.target.shape == (3, 16, 20, 24) and batch.annotated.shape == (3, 4)
    assert batch.image.dtype == batch.plain.dtype == torch.float32
    assert batch.target.dtype == torch.int64 and batch.annotated.dtype == torch.bool


def test_without_augmentation_a_patch_is_a_piece_of_the_volume() -> None:
    case = noise_case((30, 28, 26))
    sampler = sampler_of([case])
    for corner in ((0, 0, 0), (5, 6, 7), (14, 12, 10)):
        place = tuple(slice(start, start + 16) for start in corner)
        image, target = sampler._cut(case, (16, 16, 16), np.eye(3), np.array(corner) + 7.5)
        assert torch.equal(target, torch.from_numpy(case.target[place]).long())
        expected = PREPROCESSING.normalise(case.image[place])
        assert np.abs(image.numpy() - expected).max() < 2e-4  # 0.04 HU: grid_sample counts in float32
        assert np.array_equal(np.rint((image.numpy() + 1) * 200 - 125), case.image[place])


def test_without_augmentation_both_images_are_the_same() -> None:
    batch = sampler_of([noise_case((30, 28, 26))]).batch(0, 4, (16, 16, 16))
    assert torch.equal(batch.image, batch.plain)
    changed = sampler_of([noise_case((30, 28, 26))], Augmentation()).batch(0, 4, (16, 16, 16))
    assert not torch.equal(changed.image, changed.plain)
    assert changed.plain.min() >= -1.0001 and changed.plain.max() <= 1.0001


def test_the_outside_of_a_scan_is_air_without_label() -> None:
    case = cached(np.ones((20, 20, 20)), np.full((20, 20, 20), 275))
    image, target = sampler_of([case])._cut(case, (16, 16, 16), np.eye(3), np.array([1.5, 9.5, 9.5]))
    assert torch.allclose(image[:6], torch.full((6, 16, 16), -1.0), atol=1e-5) and not target[:6].any()
    assert torch.allclose(image[6:], torch.ones(10, 16, 16)) and (target[6:] == 1).all()


@pytest.mark.parametrize("shape", [(8, 9, 10), (2, 30, 30), (40, 3, 2)])
def test_volumes_smaller_than_a_patch_work(shape: tuple[int, int, int]) -> None:
    case = cached(np.ones(shape), np.full(shape, 100), channels=1)
    sampler = sampler_of([case], replace(Augmentation(), noise=0.0), organ_fraction=0.5)
    for step in range(12):
        batch = sampler.batch(step, 2, (16, 16, 16))
        assert torch.isfinite(batch.image).all() and batch.target.shape == (2, 16, 16, 16)
        assert batch.target.flatten(1).any(1).all(), "a patch that holds nothing of a scan teaches nothing"


def smooth_blob(shape: tuple[int, int, int]) -> CachedCase:
    """HU that fall off from a point, and a label where they are above 100."""
    x, y, z = np.ogrid[tuple(slice(0, n) for n in shape)]
    distance = ((x - 26) ** 2 / 1.5 + (y - 22) ** 2 + (z - 20) ** 2 / 0.7) ** 0.5
    hu = np.clip(275 - 18 * distance, -125, 275).round()
    return cached(hu > 100, hu, channels=1)


def test_image_and_label_stay_together_under_rotation_and_scaling() -> None:
    strong = replace(UNAUGMENTED, rotation=(30.0, 30.0, 40.0), scale=(0.7, 1.4))
    sampler, seen = sampler_of([smooth_blob((52, 44, 40))], strong), []
    for step in range(12):
        batch = sampler.batch(step, 1, (24, 24, 24))
        bright = (batch.plain[0, 0].numpy() + 1) * 200 - 125 > 100
        label = batch.target[0].numpy() == 1
        assert label.sum() > 50
        seen.append(dsc(bright, label))
    assert min(seen) > 0.9 and np.mean(seen) > 0.96


def test_scaling_changes_the_size_of_what_is_seen() -> None:
    case = smooth_blob((52, 44, 40))
    centre = np.array([26.0, 22.0, 20.0])
    sampler = sampler_of([case])
    volumes = [sampler._cut(case, (40, 40, 40), np.eye(3) * s, centre)[1].sum().item() for s in (0.8, 1.0, 1.25)]
    assert volumes[0] / volumes[1] == pytest.approx(1.25**3, rel=0.1)
    assert volumes[2] / volumes[1] == pytest.approx(0.8**3, rel=0.1)


def test_a_rotation_turns_and_does_not_shear() -> None:
    turning = sampler_of([noise_case((20, 20, 20))], replace(UNAUGMENTED, rotation=(30.0, 20.0, 10.0)))
    matrices = [turning._affine(np.random.default_rng(seed)) for seed in range(5)]
    for matrix in matrices:
        assert np.allclose(matrix @ matrix.T, np.eye(3)) and np.linalg.det(matrix) == pytest.approx(1)
    assert not np.allclose(matrices[0], matrices[1])


# Balance


def two_organs() -> CachedCase:
    """A big organ at one end of the scan and one of 27 voxels at the other, further apart than a patch."""
    target = np.zeros((96, 40, 40))
    target[2:40, 2:38, 2:38], target[88:91, 20:23, 20:23] = 1, 2
    return cached(target, channels=2)


def test_small_organs_come_as_often_as_large_ones() -> None:
    sampler = sampler_of([two_organs()])
    drawn = [set(np.unique(sampler.batch(step, 1, (16, 16, 16)).target)) - {0} for step in range(200)]
    small = sum(2 in organs for organs in drawn) / len(drawn)
    assert all(drawn), "with organ_fraction 1 every patch holds an organ"
    assert 0.4 < small < 0.6  # half of two organs; by volume it would be 0.0005


def test_without_organ_patches_any_place_is_drawn() -> None:
    sampler = sampler_of([two_organs()], organ_fraction=0.0)
    drawn = [sampler.batch(step, 1, (16, 16, 16)).target for step in range(60)]
    assert sum(bool((patch == 2).any()) for patch in drawn) < 15
    assert any(not patch.any() for patch in drawn)


def test_cases_are_drawn_evenly_whatever_their_size() -> None:
    cases = [cached(np.full((n, 24, 24), label), channels=2) for n, label in ((90, 1), (18, 2))]
    sampler = sampler_of(cases, organ_fraction=0.5)
    found = [int(sampler.batch(step, 1, (16, 16, 16)).target.max()) for step in range(200)]
    assert 0.4 < found.count(1) / 200 < 0.6 and found.count(0) == 0


def test_a_case_without_any_organ_gives_patches() -> None:
    batch = sampler_of([cached(np.zeros((20, 20, 20)))]).batch(0, 2, (16, 16, 16))
    assert not batch.target.any() and batch.annotated.all()


# Laterality


def sided_case() -> CachedCase:
    """The left half of the grid is the right kidney, the other the left one; liver at the very edge."""
    target = np.zeros((16, 16, 16))
    target[:8], target[8:], target[:, :3] = 2, 3, 1
    hu = np.broadcast_to(np.arange(16)[:, None, None] * 10, (16, 16, 16))
    case = cached(target, hu)
    return replace(case, annotated=np.array([True, True, True, False]))


def patch_of(flip: float, mirror: Sequence[int] | None, case: CachedCase | None = None) -> Batch:
    sampler = sampler_of([case or sided_case()], replace(UNAUGMENTED, flip=flip), mirror=mirror)
    sampler._centre = lambda *_: np.full(3, 7.5)  # type: ignore[method-assign]
    return sampler.batch(0, 1, (16, 16, 16))


def test_a_mirrored_patch_swaps_paired_organs() -> None:
    assert SIDES.mirror_channels() == [0, 1, 3, 2]
    plain, mirrored = patch_of(0.0, SIDES.mirror_channels()), patch_of(1.0, SIDES.mirror_channels())
    assert torch.equal(mirrored.plain, plain.plain.flip(2))
    swapped = torch.tensor([0, 1, 3, 2])[plain.target.flip(1)]
    assert torch.equal(mirrored.target, swapped)
    assert (mirrored.target[0, :8, 3:] == 2).all(), "the right kidney is still on the right"
    assert plain.annotated.tolist() == [[True, True, True, False]]
    assert mirrored.annotated.tolist() == [[True, True, False, True]]


def test_voxels_that_do_not_count_stay_so_in_the_mirror() -> None:
    case = sided_case()
    case.target[:, :, :2] = IGNORE
    plain, mirrored = (patch_of(flip, SIDES.mirror_channels(), case) for flip in (0.0, 1.0))
    assert (plain.target == IGNORE).any()
    assert torch.equal(mirrored.target == IGNORE, (plain.target == IGNORE).flip(1))


def test_a_partner_that_is_missing_forbids_mirroring() -> None:
    organs = OrganTable.from_names(["Liver", "Right kidney", "Spleen"])
    assert organs.mirror_channels() is None
    plain, asked = patch_of(0.0, None), patch_of(1.0, organs.mirror_channels())
    assert equal(plain, asked)


def test_nothing_is_mirrored_unless_asked() -> None:
    assert Augmentation().flip == 0
    assert equal(patch_of(0.0, SIDES.mirror_channels()), patch_of(0.0, None))


def test_every_annotated_organ_changes_its_brightness_as_a_whole_and_nothing_else_does() -> None:
    case = cached(np.ones((30, 30, 30)), np.full((30, 30, 30), 75), channels=3)
    case.target[:10], case.target[10:20], case.target[20:] = 0, 1, 2
    sampler = sampler_of([case], replace(UNAUGMENTED, organ_shift=0.25))
    generator, seen = np.random.default_rng(0), []
    target = torch.from_numpy(case.target.astype(np.int64))
    for _ in range(20):
        change = sampler._intensities(generator, torch.zeros(30, 30, 30), target)
        assert not change[:9].any()
        assert torch.allclose(change[12:18, 2:28, 2:28], change[15, 15, 15])
        assert change[15, 15, 15] != change[25, 15, 15]
        seen.append(float(change[15, 15, 15]))
    assert -0.25 <= min(seen) < -0.05 and 0.05 < max(seen) <= 0.25


def test_what_is_to_be_ignored_is_no_organ() -> None:
    assert organ_points(np.full((4, 4, 4), 255, np.uint8)) == {}
    sampler = sampler_of([noise_case((20, 20, 20))], replace(UNAUGMENTED, organ_shift=0.25))
    target = torch.full((8, 8, 8), 255)
    assert not sampler._intensities(np.random.default_rng(0), torch.zeros(8, 8, 8), target).any()


def test_replayed_cases_come_as_often_as_asked_for() -> None:
    real = cached(np.ones((20, 20, 20)), np.full((20, 20, 20), 75), channels=3)
    synthetic = replace(real, target=np.full((20, 20, 20), 2, np.uint8), annotated=np.array([True, True, True, False]))
    sampler = PatchSampler(
        [real], PREPROCESSING, UNAUGMENTED, organ_fraction=0.5, seed=0, replay=[synthetic], replay_share=0.3
    )
    batches = [sampler.batch(step, 4, (16, 16, 16)) for step in range(100)]
    replayed = torch.stack([(batch.target == 2).flatten(1).any(1) for batch in batches])
    assert 0.22 < replayed.float().mean() < 0.38
    for batch, flags in zip(batches, replayed, strict=True):
        assert not batch.annotated[flags, 3].any()
