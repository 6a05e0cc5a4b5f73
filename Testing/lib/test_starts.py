"""What a synthetic volume starts from: organs take turns, and a grounded one shows what its scan lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from IncrementalSegLib.cases import Case
from IncrementalSegLib.errors import InputError
from IncrementalSegLib.inversion.anatomy import without
from IncrementalSegLib.inversion.manipulation import UNCHANGED
from IncrementalSegLib.inversion.memory import Memory, Scan, recall
from IncrementalSegLib.inversion.recipes import RECIPES
from IncrementalSegLib.inversion.starts import Request, Start, draw_start
from IncrementalSegLib.models.package import Model
from IncrementalSegLib.volumes import to_array

SIZE = (48, 44, 48)
LIVER, SPLEEN = 1, 2


@pytest.fixture(scope="module")
def scan(two_cases: list[Case]) -> Scan:
    """HU and channels of a patient on the model's grid."""
    ct, label = two_cases[0].read()
    assert label is not None
    channels = np.zeros(to_array(label).shape, np.uint8)
    for channel, name in ((LIVER, "Liver"), (SPLEEN, "Spleen")):
        channels[to_array(label) == two_cases[0].labels.find(name).label] = channel
    return to_array(ct), channels


@pytest.fixture(scope="module")
def memory(parent: Model) -> Memory:
    return recall(parent)


def grounded(
    parent: Model, memory: Memory, scans: list[Scan], number: int = 0, channels: tuple[int, ...] = ()
) -> Start:
    request = Request(RECIPES["grounded"], 4, SIZE, 0, UNCHANGED, scans, channels)
    return draw_start(parent, memory, request, number)


def cut_below(scan: Scan, channel: int) -> Scan:
    """The slices below an organ."""
    last = int(np.flatnonzero((scan[1] == channel).any((0, 1)))[0])
    return scan[0][:, :, :last], scan[1][:, :, :last]


def test_a_whole_scan_is_taken_as_it_is(parent: Model, memory: Memory, scan: Scan) -> None:
    start = grounded(parent, memory, [scan])
    assert start.unwarped is not None and np.array_equal(start.anatomy.organs, start.unwarped)
    assert sorted(np.unique(start.image).tolist()) == pytest.approx(
        np.unique(np.append(parent.preprocessing.normalise(scan[0]), -1.0)).tolist(), abs=1e-5
    )


def test_an_organ_beyond_the_end_of_a_scan_is_painted_in_its_brightness(
    parent: Model, memory: Memory, scan: Scan
) -> None:
    start = grounded(parent, memory, [cut_below(scan, SPLEEN)], channels=(SPLEEN,))
    spleen = start.anatomy.organs == SPLEEN
    assert start.unwarped is not None and not (start.unwarped == SPLEEN).any()
    whole = np.mean([np.count_nonzero(one.organs == SPLEEN) for one in memory.bank.anatomies])
    assert spleen.sum() > whole / 3
    mean, spread = memory.intensities.mean[5 + SPLEEN - 1], memory.intensities.spread[5 + SPLEEN - 1]
    assert start.image[spleen].mean() == pytest.approx(mean, abs=float(4 * spread) + 0.1)
    assert (start.image[start.anatomy.tissue == 0] < -0.9).mean() > 0.95


def test_a_scan_with_room_for_the_asked_organ_is_taken(parent: Model, memory: Memory, scan: Scan) -> None:
    blind = scan[0], np.zeros_like(scan[1])
    for number in range(4):
        start = grounded(parent, memory, [blind, scan], number, channels=(SPLEEN,))
        assert (start.anatomy.organs == SPLEEN).any()


def test_without_a_scan_a_grounded_volume_is_refused(parent: Model, memory: Memory) -> None:
    with pytest.raises(InputError, match="starts from current scans: there are none"):
        grounded(parent, memory, [])


def test_an_anatomy_with_the_asked_organ_is_drawn(parent: Model, memory: Memory, scan: Scan) -> None:
    first, *others = memory.bank.anatomies
    bare = [without(entry, [SPLEEN]) for entry in others]
    poor = replace(memory, bank=replace(memory.bank, anatomies=(*bare, first)))
    for number in range(4):
        request = Request(RECIPES["fast"], 4, (32, 32, 32), 0, channels=(SPLEEN,))
        assert (draw_start(parent, poor, request, number).anatomy.organs == SPLEEN).any()
        start = grounded(parent, poor, [cut_below(scan, SPLEEN)], number, channels=(SPLEEN,))
        assert (start.anatomy.organs == SPLEEN).any()


@pytest.mark.parametrize("recipe", ["fast", "reference"])
def test_organs_take_turns(parent: Model, memory: Memory, recipe: str) -> None:
    small = (32, 32, 32)
    for channels in ((), (LIVER,)):
        request = Request(RECIPES[recipe], 4, small, 0, channels=channels)
        starts = [draw_start(parent, memory, request, number) for number in range(2)]
        asked = channels or (LIVER, SPLEEN)
        assert all((start.anatomy.organs == asked[i % len(asked)]).any() for i, start in enumerate(starts))
        assert starts[0].image.shape == small and starts[0].unwarped is None
