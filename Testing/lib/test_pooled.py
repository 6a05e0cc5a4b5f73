"""PLOP's pooled strips: golden numbers by hand, invariants, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from voxels import gradient

from IncrementalSegLib.losses.pooled import PooledStripDistillation

pytestmark = pytest.mark.usefixtures("one_thread")


def features(*channels: int, edge: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2, c, edge, edge, edge, generator=generator).to(dtype) for c in channels]


def test_equal_features_are_at_distance_zero_with_a_finite_gradient() -> None:
    maps = features(3, 5)
    assert PooledStripDistillation()(maps, [m.clone() for m in maps]).item() == 0
    found = gradient(lambda x: PooledStripDistillation()([x], [maps[0]]), maps[0])
    assert torch.isfinite(found).all() and found.abs().max() == 0


def test_pooled_strips_by_hand() -> None:
    ours, theirs = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    ours[0, 0, 0, 0, 0], theirs[0, 0, 1, 1, 1] = 3.0, 5.0  # one bright corner each, opposite
    # Scale 1: three 2×2 strips each, one entry of each strip bright, never the same one: orthogonal unit vectors.
    assert PooledStripDistillation(scales=(1,))([ours], [theirs]).item() == pytest.approx(math.sqrt(2), abs=1e-6)
    theirs.zero_()[0, 0, 0, 0, 1] = 5.0  # the same strip along z, other ones along x and y
    assert PooledStripDistillation(scales=(1,))([ours], [theirs]).item() == pytest.approx(
        math.sqrt(2 * 2 / 3), abs=1e-6
    )
    # Scale 2 keeps every voxel of a 2³ map: nothing in common.
    assert PooledStripDistillation(scales=(2,))([ours], [theirs]).item() == pytest.approx(math.sqrt(2), abs=1e-6)


def test_coarse_strips_forgive_what_fine_ones_see() -> None:
    (maps,) = features(2)
    moved = maps.roll(1, 2)
    assert PooledStripDistillation((1,))([maps], [moved]) < PooledStripDistillation((4,))([maps], [moved])


def test_pooled_strips_do_not_depend_on_sign_and_scale_of_the_features() -> None:
    (maps, others) = features(3, 3)
    loss = PooledStripDistillation()
    expected = loss([maps], [others]).item()
    assert loss([-maps], [others]).item() == pytest.approx(expected, rel=1e-6)
    assert loss([maps * 7], [others]).item() == pytest.approx(expected, rel=1e-4)


def test_stages_count_alike_and_scales_larger_than_the_map_are_left_out() -> None:
    small, other = features(3, edge=2)[0], features(2, 3, edge=2)[1]
    maps, others = features(4, 4)
    loss = PooledStripDistillation()
    alone = loss([small], [other]), loss([maps], [others])
    assert loss([small, maps], [other, others]).item() == pytest.approx((alone[0] + alone[1]).item() / 2, rel=1e-5)
    assert loss([small], [other]) == PooledStripDistillation((1, 2))([small], [other])


def test_pooled_strips_refuse_stages_that_do_not_fit() -> None:
    (maps, others) = features(2, 3)
    for ours, theirs in (([maps], []), ([], []), ([maps], [others]), ([maps, others], [maps])):
        with pytest.raises(ValueError, match="teacher"):
            PooledStripDistillation()(ours, theirs)
    with pytest.raises(ValueError, match="smaller than every scale"):
        PooledStripDistillation((16,))([maps], [maps])
