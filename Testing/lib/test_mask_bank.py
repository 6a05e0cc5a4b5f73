from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bodies import GRID, agreement, only, patient
from scipy import ndimage

from IncrementalSegLib.errors import InputError, PackageError
from IncrementalSegLib.inversion.anatomy import AIR, BONE, SOFT, Anatomy, Spacing
from IncrementalSegLib.inversion.bank import MaskBank, collect_bank
from IncrementalSegLib.inversion.manipulation import UNCHANGED, Manipulation
from IncrementalSegLib.phantom import PHANTOM_ORGANS

COARSE = (16.0, 16.0, 16.0)
EVERY = list(range(1, len(PHANTOM_ORGANS) + 1))


@pytest.fixture(scope="module")
def patients() -> list[Anatomy]:
    return [patient(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def bank(patients: list[Anatomy]) -> MaskBank:
    return collect_bank(patients, GRID.spacing, 4, np.random.default_rng(0))


def same(a: Anatomy, b: Anatomy) -> bool:
    return np.array_equal(a.organs, b.organs) and np.array_equal(a.tissue, b.tissue)


def test_entries_have_every_organ_inside_a_body(bank: MaskBank, patients: list[Anatomy]) -> None:
    assert bank.spacing == GRID.spacing and len(bank.anatomies) == 4
    for entry in bank.anatomies:
        assert entry.organs.shape == patients[0].organs.shape
        assert entry.channels == EVERY
        assert (entry.tissue[entry.organs > 0] != AIR).all()
        assert 0.3 < (entry.tissue > AIR).mean() < 0.7 and (entry.tissue == BONE).mean() > 0.005


def test_no_entry_is_a_donors_label_map(bank: MaskBank, patients: list[Anatomy]) -> None:
    for number in range(4):
        entry = bank.anatomy(number, GRID.spacing)
        assert entry.organs.shape == patients[0].organs.shape
        assert max(agreement(entry.organs, donor.organs) for donor in patients) < 0.9
        assert max(agreement(entry.organs, donor.organs) for donor in patients) > 0.3  # and yet an abdomen


def test_organs_keep_their_places_and_sizes(bank: MaskBank, patients: list[Anatomy]) -> None:
    for channel in EVERY:
        volumes = [(donor.organs == channel).sum() for donor in patients]
        places = [ndimage.center_of_mass(donor.organs == channel) for donor in patients]
        for number in range(4):
            organ = bank.anatomy(number, GRID.spacing).organs == channel
            assert 0.3 * min(volumes) < organ.sum() < 2 * max(volumes)
            assert np.linalg.norm(np.array(ndimage.center_of_mass(organ)) - np.mean(places, 0)) * 8 < 60


def test_a_single_donor_is_strongly_deformed_and_said_to_be_alone(patients: list[Anatomy]) -> None:
    bank = collect_bank(patients[:1], GRID.spacing, 3, np.random.default_rng(0))
    assert "one patient" in bank.source
    for number in range(3):
        entry = bank.anatomy(number, GRID.spacing)
        assert entry.channels == EVERY and agreement(entry.organs, patients[0].organs) < 0.85


def test_source_tells_how_many_donors_there_were(bank: MaskBank) -> None:
    assert "3" in bank.source


def test_entries_are_deformed_even_where_donors_are_alike(patients: list[Anatomy]) -> None:
    twins = collect_bank([patients[0]] * 2, GRID.spacing, 3, np.random.default_rng(0)).anatomies
    assert max(agreement(twins[i].organs, twins[j].organs) for i, j in ((0, 1), (0, 2), (1, 2))) < 0.9


def test_two_kidneys_in_one_label_both_stay(patients: list[Anatomy]) -> None:
    pairs = [Anatomy(np.isin(a.organs, (2, 3)).astype(np.uint8), a.tissue) for a in patients[:2]]
    for entry in collect_bank(pairs, GRID.spacing, 2, np.random.default_rng(0)).anatomies:
        sizes = np.bincount(ndimage.label(entry.organs == 1)[0].ravel())[1:]
        assert len(sizes) >= 2 and np.sort(sizes)[-2] > 0.3 * sizes.max()


@pytest.mark.parametrize(
    ("spacing", "kept"),
    [
        ((1.5, 1.5, 5.0), (3.0, 3.0, 5.0)),
        ((0.8, 0.8, 1.0), (3.2, 3.2, 4.0)),
        ((2.99, 2.99, 3.0), (2.99, 2.99, 3.0)),
    ],
)
def test_nothing_finer_than_3_mm_is_kept(spacing: Spacing, kept: Spacing) -> None:
    whole = Anatomy(np.zeros((32, 28, 20), np.uint8), np.full((32, 28, 20), SOFT, np.uint8))
    whole.organs[4:28, 4:20, 4:16] = 1
    bank = collect_bank([whole, whole], spacing, 1, np.random.default_rng(0))
    assert bank.spacing == pytest.approx(kept)
    shape = bank.anatomies[0].organs.shape
    assert shape == tuple(round(n * a / b) for n, a, b in zip(whole.organs.shape, spacing, kept, strict=True))


def test_a_thin_organ_survives_half_the_resolution() -> None:
    organs = np.zeros((32, 32, 32), np.uint8)
    organs[8:24, 15, 8:24] = 1  # one voxel thick
    organs[4:28, 20:28, 4:28] = 2
    tissue = np.full_like(organs, SOFT)
    bank = collect_bank([Anatomy(organs, tissue)], (1.5, 1.5, 1.5), 2, np.random.default_rng(0))
    for entry in bank.anatomies:
        assert (entry.organs == 1).sum() * 8 > 0.4 * (organs == 1).sum()
        assert (entry.organs == 2).sum() * 8 == pytest.approx((organs == 2).sum(), rel=0.6)


def test_refuses_a_bank_of_nothing(patients: list[Anatomy]) -> None:
    for anatomies, count in (([], 3), ([only(patients[0])], 3), (patients, 0)):
        with pytest.raises(InputError, match="mask bank"):
            collect_bank(anatomies, GRID.spacing, count, np.random.default_rng(0))


def test_the_same_seed_gives_the_same_bank(bank: MaskBank, patients: list[Anatomy]) -> None:
    again = collect_bank(patients, GRID.spacing, 4, np.random.default_rng(0))
    assert all(same(a, b) for a, b in zip(bank.anatomies, again.anatomies, strict=True))
    assert not same(bank.anatomies[0], bank.anatomies[3])


def saved(state: dict[str, Any]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_a_bank_comes_back_exactly_from_a_safe_file(bank: MaskBank) -> None:
    back = MaskBank.from_state(torch.load(saved(bank.to_state()), weights_only=True))
    assert (back.spacing, back.source) == (bank.spacing, bank.source)
    assert all(same(a, b) for a, b in zip(back.anatomies, bank.anatomies, strict=True))


def test_a_bank_is_compact_and_holds_no_intensity(bank: MaskBank) -> None:
    state = bank.to_state()
    voxels = 8 * sum(entry.organs.size for entry in bank.anatomies)  # of the scans' resolution
    assert sum(mask.numel() for mask in state["masks"]) / voxels < 0.05
    assert all(mask.dtype == torch.uint8 for mask in state["masks"])
    assert set(state) == {"format", "spacing", "source", "shapes", "masks"}


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "truncated": lambda state: state["masks"].__setitem__(1, state["masks"][1][:-20]),
    "changed bits": lambda state: state["masks"][0][100:110].bitwise_not_(),
    "no bytes": lambda state: state["masks"].__setitem__(0, [1, 2, 3]),
    "other shape": lambda state: state["shapes"][0].__setitem__(0, 23),
    "negative shape": lambda state: state["shapes"].__setitem__(0, [-24, -20, 20]),
    "no shapes": lambda state: state.pop("shapes"),
    "a shape too few": lambda state: state["shapes"].pop(),
    "empty": lambda state: state.update(shapes=[], masks=[]),
    "no spacing": lambda state: state["spacing"].__setitem__(1, 0.0),
    "no format": lambda state: state.update(format="new"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_refuses_a_damaged_bank(bank: MaskBank, damage: Callable[[dict[str, Any]], object]) -> None:
    state = bank.to_state()
    damage(state)
    with pytest.raises(PackageError, match=r"mask bank is damaged \(.+\): copy the model package again"):
        MaskBank.from_state(state)


def test_refuses_a_bank_of_a_newer_version(bank: MaskBank) -> None:
    with pytest.raises(PackageError, match="newer"):
        MaskBank.from_state({**bank.to_state(), "format": 99})


def test_an_entry_on_a_finer_grid_keeps_its_organs_and_volumes(bank: MaskBank) -> None:
    for spacing in ((8.0, 8.0, 8.0), (4.0, 4.0, 4.0), (6.0, 6.0, 10.0)):
        fine, entry = bank.anatomy(1, spacing), bank.anatomies[1]
        assert fine.channels == EVERY
        for channel in EVERY:
            mm3 = (fine.organs == channel).sum() * np.prod(spacing)
            assert mm3 == pytest.approx((entry.organs == channel).sum() * 8**3, rel=0.35)
        body = (fine.tissue > AIR).sum() * np.prod(spacing)
        assert body == pytest.approx((entry.tissue > AIR).sum() * 8**3, rel=0.05)


def test_a_sample_is_a_manipulated_entry_with_the_models_spacing(bank: MaskBank) -> None:
    entries = [bank.anatomy(i, GRID.spacing) for i in range(4)]
    plain = bank.sample(np.random.default_rng(0), UNCHANGED, None, None, GRID.spacing)
    assert any(same(plain, entry) for entry in entries)
    changed = bank.sample(np.random.default_rng(0), Manipulation(), None, None, GRID.spacing)
    assert changed.organs.shape == plain.organs.shape
    assert max(agreement(changed.organs, entry.organs) for entry in entries) < 0.9


@pytest.mark.parametrize("seed", range(6))
def test_a_sample_of_a_box_has_its_shape_and_an_organ_in_it(bank: MaskBank, seed: int) -> None:
    for shape in ((8, 8, 8), (12, 30, 6)):
        box = bank.sample(np.random.default_rng(seed), Manipulation(), None, shape, COARSE)
        assert box.organs.shape == shape and box.channels
    rows = np.flatnonzero((box.tissue > AIR).any((0, 2)))
    assert rows.min() >= 5 and rows.max() < 25  # 30 rows asked for, 20 there: air around


def test_organs_come_evenly_into_boxes_small_ones_too(bank: MaskBank) -> None:
    generator = np.random.default_rng(0)
    seen = [set(bank.sample(generator, UNCHANGED, None, (6, 6, 6), COARSE).channels) for _ in range(15)]
    assert set().union(*seen) == set(EVERY)
