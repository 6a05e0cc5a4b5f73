from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.inversion.anatomy import AIR, BONE, FAT, GAS, SOFT, Anatomy, filled, without
from IncrementalSegLib.inversion.manipulation import UNCHANGED, Manipulation, Warp, draw_warp, manipulate
from IncrementalSegLib.phantom import PHANTOM_ORGANS, PhantomConfig, make_phantom, phantom_table
from IncrementalSegLib.volumes import to_array

GRID = PhantomConfig((38, 32, 32), (10.0, 10.0, 10.0))
SPACING = GRID.spacing
SEEDS = range(6)
USUAL = Manipulation()
WILD = Manipulation((20.0, 20.0, 20.0), 30.0, (0.8, 1.2), (0.5, 2.0), 40.0, 20.0, 50.0)
SPLEEN, RIGHT, LEFT, LIVER, AORTA, CAVA = (
    PHANTOM_ORGANS.index(name) + 1
    for name in ("Spleen", "Right kidney", "Left kidney", "Liver", "Aorta", "Inferior vena cava")
)


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, np.ndarray]:
    ct, label = make_phantom(np.random.default_rng(3), GRID)
    return to_array(ct), to_array(label)


@pytest.fixture(scope="module")
def anatomy(scan: tuple[np.ndarray, np.ndarray]) -> Anatomy:
    return Anatomy.of(*scan, SPACING)


def changed(anatomy: Anatomy, seed: int, manipulation: Manipulation = USUAL, **more: object) -> Anatomy:
    return manipulate(anatomy, SPACING, manipulation, np.random.default_rng(seed), **more)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    channels = np.unique(a[a > 0])
    return float(np.mean([2 * ((a == c) & (b == c)).sum() / ((a == c).sum() + (b == c).sum()) for c in channels]))


def volume(anatomy: Anatomy, channel: int) -> int:
    return int((anatomy.organs == channel).sum())


def test_tissue_of_a_phantom_is_what_it_was_painted_as(scan: tuple[np.ndarray, np.ndarray], anatomy: Anatomy) -> None:
    hu = scan[0]
    assert (anatomy.tissue[[0, -1]] == AIR).all()
    assert (hu[anatomy.tissue == AIR] < -300).mean() > 0.98
    lungs = (hu < -700) & ndimage.binary_erosion(anatomy.tissue > AIR, iterations=3)
    assert lungs.any() and (anatomy.tissue[lungs] == GAS).mean() > 0.8
    assert np.median(hu[anatomy.tissue == FAT]) == pytest.approx(-95, abs=15)
    assert np.median(hu[anatomy.tissue == SOFT]) == pytest.approx(60, abs=50)
    assert np.median(hu[anatomy.tissue == BONE]) > 180


def test_tissue_is_the_same_when_the_ct_is_clipped(scan: tuple[np.ndarray, np.ndarray], anatomy: Anatomy) -> None:
    hu, organs = scan
    assert (Anatomy.of(np.clip(hu, -125, 275), organs, SPACING).tissue == anatomy.tissue).all()


def test_a_table_under_the_patient_is_not_body() -> None:
    hu = np.full((60, 50, 6), -1000.0)
    x, y = np.meshgrid(np.arange(60) - 30, np.arange(50) - 22, indexing="ij")
    trunk = (x / 25) ** 2 + (y / 15) ** 2 < 1
    hu[trunk] = 40
    hu[5:55, 37:39] = 300
    assert trunk[:, 36].any()  # the table touches the back
    tissue = Anatomy.of(hu, np.zeros(hu.shape, np.uint8), (4.0, 4.0, 4.0)).tissue
    assert (tissue[5:12, 36:] == AIR).all() and (tissue[48:55, 36:] == AIR).all()
    assert (tissue[trunk] == SOFT).mean() > 0.97


def test_a_lung_open_at_the_top_of_the_scan_is_gas_inside_the_body() -> None:
    hu = np.full((40, 40, 8), -1000.0)
    hu[5:35, 5:35] = 40
    hu[10:30, 10:30, 3:] = -850
    tissue = Anatomy.of(hu, np.zeros(hu.shape, np.uint8)).tissue
    assert (tissue[12:28, 12:28, 3:] == GAS).all() and (tissue[12:28, 12:28, :3] == SOFT).all()


def test_refuses_a_ct_without_a_body_and_organs_on_another_grid() -> None:
    air, organs = np.full((8, 8, 8), -1000), np.zeros((8, 8, 8), np.uint8)
    with pytest.raises(InputError, match="no body"):
        Anatomy.of(air, organs)
    with pytest.raises(InputError, match="one grid"):
        Anatomy.of(air, organs[1:])
    with pytest.raises(InputError, match="255"):
        Anatomy.of(air, organs.astype(int) + 256)


def test_refuses_organs_outside_of_the_body() -> None:
    organs = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(InputError, match="same shape"):
        Anatomy(organs, organs[1:])
    with pytest.raises(InputError, match="outside of the body"):
        Anatomy(organs + np.uint8(1), organs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"translation": -1.0},
        {"scale": (1.1, 0.9)},
        {"organ_scale": (0.0, 1.0)},
        {"drop": 1.5},
        {"wavelength": 0.0},
        {"rotation": (0.0, -3.0, 0.0)},
    ],
)
def test_refuses_ranges_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Manipulation(**wrong)


def test_nothing_to_manipulate_leaves_every_voxel(scan: tuple[np.ndarray, np.ndarray], anatomy: Anatomy) -> None:
    warp = draw_warp(anatomy, SPACING, UNCHANGED, np.random.default_rng(0))
    assert np.array_equal(warp.image(scan[0]), scan[0])
    same = changed(anatomy, 0, UNCHANGED)
    assert np.array_equal(same.organs, anatomy.organs) and np.array_equal(same.tissue, anatomy.tissue)


def test_the_same_seed_gives_the_same_anatomy(anatomy: Anatomy) -> None:
    first, again, other = (changed(anatomy, seed, replace(USUAL, drop=0.3)) for seed in (1, 1, 2))
    assert np.array_equal(first.organs, again.organs) and np.array_equal(first.tissue, again.tissue)
    assert not np.array_equal(first.organs, other.organs)


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_keep_their_channels_and_stay_inside_the_body(anatomy: Anatomy, seed: int) -> None:
    after = changed(anatomy, seed, WILD)
    assert set(after.channels) <= set(anatomy.channels)
    assert (after.tissue[after.organs > 0] != AIR).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_really_change_and_none_is_lost(anatomy: Anatomy, seed: int) -> None:
    after = changed(anatomy, seed)
    assert dice(anatomy.organs, after.organs) < 0.8
    for channel in set(anatomy.channels) - {AORTA, CAVA}:  # those are cut by the scan
        assert 0.5 * (0.9 * 0.8) ** 3 < volume(after, channel) / volume(anatomy, channel) < 1.3 * (1.1 * 1.25) ** 3


@pytest.mark.parametrize("manipulation", [USUAL, WILD])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mirror", [None, [0, 1, 3, 2, 4, 5, 6, 7, 8, 9]])
def test_a_warp_never_folds(anatomy: Anatomy, seed: int, manipulation: Manipulation, mirror: list[int] | None) -> None:
    warp = draw_warp(anatomy, SPACING, replace(manipulation, flip=1.0), np.random.default_rng(seed), mirror)
    slopes = np.stack([np.stack(np.gradient(part)) for part in warp.coordinates.astype(np.float64)])
    determinant = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))
    assert (determinant if mirror is None else -determinant).min() > 0


def test_a_scaled_body_has_scaled_organs(anatomy: Anatomy) -> None:
    after = changed(anatomy, 0, replace(UNCHANGED, scale=(1.1, 1.1)))
    assert volume(after, LIVER) / volume(anatomy, LIVER) == pytest.approx(1.1**3, rel=0.06)


def test_a_moved_body_has_its_organs_moved_as_far(anatomy: Anatomy) -> None:
    before = ndimage.center_of_mass(anatomy.organs == LIVER)
    moved = draw_warp(anatomy, SPACING, replace(UNCHANGED, translation=24.0), np.random.default_rng(4)).anatomy(anatomy)
    generator = np.random.default_rng(4)
    generator.uniform(size=3)  # three angles come first
    expected = np.array(before) + generator.uniform(-1, 1, 3) * 24 / 10
    assert ndimage.center_of_mass(moved.organs == LIVER) == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize(("scale", "least", "most"), [(0.8, 0.4, 0.8), (1.25, 1.5, 2.2)])
def test_an_organ_alone_gets_about_the_size_asked_for_and_what_is_far_stays(
    anatomy: Anatomy, scale: float, least: float, most: float
) -> None:
    alone = Anatomy(np.where(anatomy.organs == SPLEEN, SPLEEN, 0).astype(np.uint8), anatomy.tissue)
    after = changed(alone, 0, replace(UNCHANGED, organ_scale=(scale, scale)))
    assert least < volume(after, SPLEEN) / volume(alone, SPLEEN) < most
    away = ndimage.distance_transform_edt(alone.organs == 0, SPACING) > 80
    assert np.array_equal(after.tissue[away], alone.tissue[away])


@pytest.mark.parametrize("seed", range(3))
def test_organs_move_but_skin_and_bone_resist(anatomy: Anatomy, seed: int) -> None:
    after = changed(anatomy, seed, replace(UNCHANGED, organ_shift=15.0))
    places = [np.array(ndimage.center_of_mass(a.organs == LEFT)) * 10 for a in (anatomy, after)]
    assert 5 < np.linalg.norm(places[1] - places[0]) < 26
    assert dice((anatomy.tissue > AIR).astype(int), (after.tissue > AIR).astype(int)) > 0.995
    assert dice((anatomy.tissue == BONE).astype(int), (after.tissue == BONE).astype(int)) > 0.8


def test_a_flip_mirrors_the_body_and_swaps_paired_organs(anatomy: Anatomy) -> None:
    mirror = phantom_table().mirror_channels()
    after = changed(anatomy, 0, replace(UNCHANGED, flip=1.0), mirror=mirror)
    assert np.array_equal(after.tissue, anatomy.tissue[::-1])
    assert np.array_equal(after.organs == RIGHT, anatomy.organs[::-1] == LEFT)
    assert np.array_equal(after.organs == LIVER, anatomy.organs[::-1] == LIVER)
    assert ndimage.center_of_mass(after.organs == RIGHT)[0] < ndimage.center_of_mass(after.organs == LEFT)[0]


def test_nothing_is_flipped_without_partners(anatomy: Anatomy) -> None:
    assert np.array_equal(changed(anatomy, 0, replace(UNCHANGED, flip=1.0)).organs, anatomy.organs)


@pytest.mark.parametrize("seed", SEEDS)
def test_image_and_labels_stay_aligned(anatomy: Anatomy, seed: int) -> None:
    mirror = phantom_table().mirror_channels()
    warp = draw_warp(anatomy, SPACING, replace(USUAL, flip=0.5), np.random.default_rng(seed), mirror)
    labels, image = warp.labels(anatomy.organs, outside=0), warp.image(anatomy.organs * 50.0, outside=0.0)
    if warp.mirror is not None:
        labels = np.asarray(warp.mirror)[labels]
    deep = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    assert np.abs(image - labels * 50.0)[deep].mean() < 0.5
    assert np.corrcoef(image.ravel(), labels.ravel())[0, 1] > 0.9


def test_beyond_the_scan_lies_what_was_asked_for_or_its_border(anatomy: Anatomy) -> None:
    coordinates = np.indices(anatomy.organs.shape).astype(np.float32)
    warp = Warp(coordinates + np.float32([0, 0, 20])[:, None, None, None])
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8), anatomy.organs.shape)
    for seen in (warp.labels(ramp), warp.image(ramp)):
        assert np.array_equal(seen[0, 0], [*range(20, 32)] + [31] * 20)
    for seen in (warp.labels(ramp, outside=0), warp.image(ramp, outside=0.0)):
        assert np.array_equal(seen[0, 0], [*range(20, 32)] + [0] * 20)


def test_an_organ_left_out_becomes_what_surrounds_it() -> None:
    tissue = np.full((12, 12, 12), FAT, np.uint8)
    tissue[6:] = SOFT
    organs = np.zeros_like(tissue)
    organs[1:4, 3:9, 3:9], organs[8:10, 3:9, 3:9], organs[4:6, 3:9, 3:9] = 1, 2, 3
    tissue[organs > 0] = SOFT
    after = without(Anatomy(organs, tissue), [1, 2])
    assert after.channels == [3]
    assert (after.tissue[organs == 1] == FAT).all() and (after.tissue[organs == 2] == SOFT).all()
    assert np.array_equal(after.tissue[organs == 0], tissue[organs == 0])


def test_every_piece_is_filled_by_its_own_surroundings() -> None:
    tissue = np.full((20, 6, 6), FAT, np.uint8)
    tissue[10:] = SOFT
    where = np.zeros(tissue.shape, bool)
    where[3:5, 2:4, 2:4] = where[15:17, 2:4, 2:4] = True
    assert np.array_equal(filled(np.where(where, GAS, tissue).astype(np.uint8), where, np.zeros_like(where)), tissue)


def test_about_as_many_organs_are_left_out_as_asked_for() -> None:
    organs = np.repeat(np.arange(1, 11, dtype=np.uint8), 72).reshape(20, 6, 6)
    small = Anatomy(organs, np.full_like(organs, SOFT))
    kept = [len(changed(small, seed, replace(UNCHANGED, drop=0.4)).channels) for seed in range(30)]
    assert np.mean(kept) / 10 == pytest.approx(0.6, abs=0.08)
    assert not changed(small, 0, replace(UNCHANGED, drop=1.0)).channels


def test_anisotropic_and_flat_grids_work() -> None:
    ct, label = make_phantom(np.random.default_rng(0), PhantomConfig((40, 32, 3), (10.0, 10.0, 5.0)))
    anatomy = Anatomy.of(to_array(ct), to_array(label), (10.0, 10.0, 5.0))
    flat = Anatomy(anatomy.organs[:, :, :1], anatomy.tissue[:, :, :1])
    for thin in (anatomy, flat):
        after = manipulate(thin, (10.0, 10.0, 5.0), USUAL, np.random.default_rng(0))
        assert after.organs.shape == thin.organs.shape and after.channels


def test_a_turn_about_the_body_axis_turns_what_is_seen_from_the_feet(anatomy: Anatomy) -> None:
    warp = draw_warp(anatomy, SPACING, replace(UNCHANGED, rotation=(0.0, 0.0, 20.0)), np.random.default_rng(1))
    flat = warp.coordinates[:2, 10:12, 10:12, 16].astype(float)
    x, y = flat[:, 1, 0] - flat[:, 0, 0], flat[:, 0, 1] - flat[:, 0, 0]
    generator = np.random.default_rng(1)
    generator.uniform(size=2)
    angle = np.radians(generator.uniform(-20, 20))
    assert abs(np.degrees(angle)) > 5
    assert np.stack([x, y], 1) == pytest.approx(
        np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), abs=1e-4
    )
    assert np.array_equal(warp.coordinates[2], np.indices(anatomy.organs.shape)[2])
