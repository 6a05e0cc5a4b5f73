from __future__ import annotations

import numpy as np
import pytest
from bodies import GRID, agreement, only, patient
from scipy import ndimage

from IncrementalSegLib.inversion.anatomy import AIR, BONE, FAT, SOFT, Anatomy
from IncrementalSegLib.inversion.recombination import Donor, completed, recombined


@pytest.fixture(scope="module")
def patients() -> list[Anatomy]:
    return [patient(seed) for seed in range(3)]


def hollow(anatomy: Anatomy) -> Anatomy:
    """Organs without their cores: a mark that survives alignment and overlaps."""
    core = np.zeros(anatomy.organs.shape, bool)
    for channel in anatomy.channels:
        core |= ndimage.binary_erosion(anatomy.organs == channel)
    return Anatomy(np.where(core, 0, anatomy.organs).astype(np.uint8), anatomy.tissue)


def is_hollow(anatomy: Anatomy, channel: int) -> bool:
    return not ndimage.binary_erosion(anatomy.organs == channel, iterations=3).any()


def marked_mixture(patients: list[Anatomy], channels: list[int], body: int, seed: int) -> list[bool]:
    """Which organs come from the second of two donors, whose organs are hollow."""
    first, second = (only(a, *channels) for a in patients[:2])
    donors = [Donor.of(a, GRID.spacing) for a in (first, hollow(second))]
    mixed = recombined(donors, body, GRID.spacing, np.random.default_rng(seed))
    return [is_hollow(mixed, channel) for channel in channels]


@pytest.mark.parametrize("body", [0, 1])
def test_organs_of_an_entry_never_come_from_one_donor(patients: list[Anatomy], body: int) -> None:
    origins = [tuple(marked_mixture(patients, [5, 6], body, seed)) for seed in range(8)]
    assert set(origins) == {(True, False), (False, True)}


def test_the_only_organ_never_stays_with_its_body(patients: list[Anatomy]) -> None:
    for seed in range(4):
        assert marked_mixture(patients, [5], 0, seed) == [True]
        assert marked_mixture(patients, [5], 1, seed) == [False]


BLOCK = (slice(8, 24), slice(8, 24), slice(4, 12))
MM = (3.0, 3.0, 3.0)


def block(tissue: int, *boxes: tuple[int, tuple[slice, ...]]) -> Anatomy:
    """A body of one tissue with air at its sides and organs of soft tissue in it."""
    everything = np.zeros((32, 32, 16), np.uint8)
    everything[2:-2, 2:-2] = tissue
    organs = np.zeros_like(everything)
    for channel, box in boxes:
        organs[box] = channel
    everything[organs > 0] = SOFT
    return Anatomy(organs, everything)


def mixed(first: Anatomy, second: Anatomy, seed: int = 0) -> Anatomy:
    """The body of the first of two donors, recombined; an only organ comes from the second."""
    return recombined([Donor.of(first, MM), Donor.of(second, MM)], 0, MM, np.random.default_rng(seed))


def test_uncovered_places_of_the_bodys_own_organs_become_its_surroundings() -> None:
    ring = block(FAT, (1, BLOCK))
    ring.organs[13:19, 13:19] = 0
    after = mixed(block(FAT, (1, BLOCK)), ring)
    bare = np.zeros(ring.organs.shape, bool)
    bare[14:18, 14:18, 7:9] = True
    assert (after.organs[bare] == 0).all() and (after.tissue[bare] == FAT).all()
    assert (after.tissue[after.organs > 0] == SOFT).all()


def test_a_small_organ_holds_its_place_in_a_large_one() -> None:
    small = (slice(12, 17), slice(12, 17), slice(6, 10))
    for seed in range(4):
        after = mixed(block(FAT, (1, BLOCK), (2, small)), block(FAT, (1, BLOCK)), seed)
        assert (after.organs[small] == 2).mean() > 0.6 and (after.organs == 1).sum() > 1500


def test_no_organ_lies_in_the_spine_of_another_body() -> None:
    spine = (slice(14, 18), slice(20, 26), slice(0, 16))
    body = block(FAT, (1, BLOCK), (0, spine))  # its organ lies around its spine
    body.tissue[spine] = BONE
    after = mixed(body, block(FAT, (1, BLOCK)))
    assert after.channels == [1] and (after.tissue[spine] == BONE).all() and not after.organs[spine].any()


def test_organs_that_no_body_shares_find_their_places(patients: list[Anatomy]) -> None:
    """As in a step, where scans show the new organ and the bank the old ones."""
    kidney = only(patients[1], 3)
    higher = Anatomy(*(np.ascontiguousarray(part[:, :, 8:]) for part in (kidney.organs, kidney.tissue)))
    donors = [Donor.of(a, GRID.spacing) for a in (only(patients[0], 5), higher)]
    after = recombined(donors, 0, GRID.spacing, np.random.default_rng(0))
    assert after.channels == [3, 5]
    here, there = (np.array(ndimage.center_of_mass(a.organs == 3)) * 8 for a in (after, patients[0]))
    assert np.linalg.norm(here - there) < 40  # the scan began 64 mm higher


def test_donors_on_grids_of_other_shapes_are_brought_to_the_body(patients: list[Anatomy]) -> None:
    cropped = Anatomy(*(np.ascontiguousarray(part[5:-4, 3:, 6:]) for part in (patients[1].organs, patients[1].tissue)))
    plain = recombined([Donor.of(a, GRID.spacing) for a in patients[:2]], 0, GRID.spacing, np.random.default_rng(2))
    moved = recombined(
        [Donor.of(a, GRID.spacing) for a in (patients[0], cropped)], 0, GRID.spacing, np.random.default_rng(2)
    )
    assert moved.organs.shape == plain.organs.shape
    assert agreement(plain.organs, moved.organs) > 0.9


def test_no_organ_comes_nearer_to_the_skin_than_the_bodys_own() -> None:
    deep, shallow = ((1, (slice(first, 20), slice(10, 22), slice(2, 14))) for first in (9, 3))
    after = mixed(block(SOFT, deep), block(SOFT, shallow))
    assert after.channels == [1] and np.flatnonzero(after.organs.any((1, 2))).min() >= 8


def z_range(anatomy: Anatomy, channel: int) -> tuple[int, int]:
    slices = np.flatnonzero((anatomy.organs == channel).any((0, 1)))
    return int(slices[0]), int(slices[-1])


def part(anatomy: Anatomy, *box: slice) -> Anatomy:
    return Anatomy(anatomy.organs[box].copy(), anatomy.tissue[box].copy())


def test_organs_beyond_the_end_of_a_scan_come_back_to_their_places(patients: list[Anatomy]) -> None:
    whole = patients[0]
    ranges = {channel: z_range(whole, channel) for channel in whole.channels}
    top = max(ranges, key=lambda channel: ranges[channel][0])
    end = ranges[top][0] - 1
    seen = part(whole, slice(None), slice(None), slice(None, end))
    assert top not in seen.channels and len(seen.channels) >= 2
    grown, (below, above) = completed(seen, whole, GRID.spacing)
    assert below == 0 and above >= 2 and grown.organs.shape[2] == end + above
    kept = grown.organs[:, :, :end]
    assert np.array_equal(kept[seen.organs > 0], seen.organs[seen.organs > 0])
    back = (slice(None), slice(None), slice(0, min(end + above, whole.organs.shape[2])))
    assert agreement(np.where(grown.organs == top, top, 0)[back], np.where(whole.organs == top, top, 0)[back]) > 0.7
    other, _ = completed(seen, patients[1], GRID.spacing)
    assert top in other.channels and not (other.tissue[other.organs > 0] == AIR).any()


def slanted(shift: float, size: int = 6) -> Anatomy:
    """An organ that moves to one side from slice to slice, and another below it."""
    anatomy = block(FAT, (2, (slice(6, 12), slice(6, 12), slice(0, 3))))
    organs = np.repeat(np.zeros_like(anatomy.organs), 2, axis=2)
    organs[..., : anatomy.organs.shape[2]] = anatomy.organs
    for z in range(4, 28):
        left = round(6 + shift * (z - 4) / 2)
        organs[left : left + size, 14 : 14 + size, z] = 1
    tissue = np.repeat(anatomy.tissue[..., :1], organs.shape[2], axis=2)
    tissue[organs > 0] = SOFT
    return Anatomy(organs, tissue)


def test_an_organ_that_the_end_cuts_goes_on_where_it_ends() -> None:
    whole = slanted(1.0)
    seen = part(whole, slice(None), slice(None), slice(None, 13))
    grown, (below, above) = completed(seen, whole, MM)
    assert below == 0 and above >= 12
    assert np.array_equal(grown.organs[..., :13], seen.organs)
    for z in range(13, 22):
        here, true = (np.argwhere(one.organs[..., z] == 1).mean(0) for one in (grown, whole))
        assert np.abs(here - true).max() <= 2


def test_what_a_scan_would_show_is_not_put_into_it(patients: list[Anatomy]) -> None:
    missing = int(patients[0].channels[0])
    organs = np.where(patients[0].organs == missing, 0, patients[0].organs).astype(np.uint8)
    resected = Anatomy(organs, patients[0].tissue)
    grown, more = completed(resected, patients[1], GRID.spacing)
    below = more[0]
    assert np.array_equal(grown.organs[:, :, below : below + organs.shape[2]], organs)
    assert missing not in grown.channels


def test_crumbs_of_an_organ_are_taken_for_false_finds() -> None:
    crumb = (slice(14, 16), slice(14, 16), slice(7, 9))
    seen, lender = block(FAT, (1, BLOCK), (2, crumb)), block(FAT, (1, (slice(8, 10), *BLOCK[1:])), (2, BLOCK))
    after, grown = completed(seen, lender, MM)
    assert grown == (0, 0) and after.channels == [1] and (after.tissue[crumb] == SOFT).all()
